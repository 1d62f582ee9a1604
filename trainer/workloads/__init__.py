"""Workloads: a model, a loss, streams of batches and evaluation splits. One file each."""

from ..registry import Entry, Registry
from .options import DigitsOptions, LeastSquaresOptions

WORKLOADS = Registry(
    "workload",
    {
        "digits_mlp": Entry("alphagrid.trainer.workloads.digits:Digits", DigitsOptions),
        "least_squares": Entry("alphagrid.trainer.workloads.least_squares:LeastSquares", LeastSquaresOptions),
    },
    imports=True,
)
