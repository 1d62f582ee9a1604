"""Policies: how a run uses α*. One file per policy, all of the same shape (`base.Policy`)."""

from ...registry import Entry, Registry
from ..options import ApplyOptions, EmaOptions, GenOptions, MedianOptions, ObserveOptions

POLICIES = Registry(
    "alpha policy",
    {
        "observe": Entry("alphagrid.trainer.alpha.policies.observe:Observe", ObserveOptions),
        "apply": Entry("alphagrid.trainer.alpha.policies.apply:Apply", ApplyOptions),
        "median": Entry("alphagrid.trainer.alpha.policies.median:Median", MedianOptions),
        "gen": Entry("alphagrid.trainer.alpha.policies.gen:Gen", GenOptions),
        "ema": Entry("alphagrid.trainer.alpha.policies.ema:Ema", EmaOptions),
    },
    tag="policy",
)
