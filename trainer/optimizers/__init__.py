"""Optimizers by name: ours, Schedule-Free, and torch's own."""

from ..registry import Entry, Registry
from .options import (
    AdagradOptions,
    AdamOptions,
    AdamWOptions,
    NAdamOptions,
    NAdamWOptions,
    RMSpropOptions,
    ScheduleFreeAdamWOptions,
    SGDOptions,
)

OPTIMIZERS = Registry(
    "optimizer",
    {
        "nadamw": Entry("alphagrid.trainer.optimizers.nadamw:build", NAdamWOptions),
        "schedule_free_adamw": Entry(
            "alphagrid.trainer.optimizers.schedule_free:build", ScheduleFreeAdamWOptions
        ),
        "sgd": Entry("alphagrid.trainer.optimizers.torch_native:build", SGDOptions),
        "adam": Entry("alphagrid.trainer.optimizers.torch_native:build", AdamOptions),
        "adamw": Entry("alphagrid.trainer.optimizers.torch_native:build", AdamWOptions),
        "nadam": Entry("alphagrid.trainer.optimizers.torch_native:build", NAdamOptions),
        "radam": Entry("alphagrid.trainer.optimizers.torch_native:build", AdamOptions),
        "adamax": Entry("alphagrid.trainer.optimizers.torch_native:build", AdamOptions),
        "rmsprop": Entry("alphagrid.trainer.optimizers.torch_native:build", RMSpropOptions),
        "adagrad": Entry("alphagrid.trainer.optimizers.torch_native:build", AdagradOptions),
    },
)
