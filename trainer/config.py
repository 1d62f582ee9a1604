"""The configuration of one run, as strict models that import no torch."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from .alpha.options import OPERATOR_ROUTES, AlphaOptions, EmaOptions
from .alpha.policies import POLICIES
from .optimizers import OPTIMIZERS
from .optimizers.options import OptimizerOptions
from .registry import Section
from .schedules import SCHEDULES
from .workloads import WORKLOADS
from .workloads.options import WorkloadOptions

Seconds = Annotated[float, Field(gt=0)]
Steps = Annotated[int, Field(ge=1)]
Split = Literal["train", "validation", "test"]

OUTSIDE_ID = ("stop", "checkpoint")
"""Sections that say how long and how safely, not what: they do not belong to a run's identity."""


class EvalOptions(Section):
    """When the model is evaluated: after step 1, then every so often, and at the stop."""

    every_steps: Steps | None = None
    """After steps 1, 1 + k, 1 + 2k, …"""
    every_seconds: Seconds | None = None
    """Whenever train_seconds passes a multiple of this."""
    splits: Annotated[list[Split], Field(min_length=1)] = ["train", "validation", "test"]
    """What is evaluated, each split as a whole."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.every_steps is not None and self.every_seconds is not None:
            raise ValueError("give every_steps or every_seconds, not both")
        if len(set(self.splits)) < len(self.splits):
            raise ValueError("splits names one split twice")
        return self


class CheckpointOptions(Section):
    """When checkpoints are written (also at every stop request, and at the end) and how many are kept."""

    every_seconds: Seconds = 600.0
    """Seconds of real time from one checkpoint to the next; longer where writing would cost too much."""
    keep: Steps = 2
    """Newest checkpoints that are kept."""


class StopOptions(Section):
    """When a run is finished: after so many steps or so many train_seconds, whichever comes first."""

    steps: Steps | None = None
    """Steps done, over all attempts."""
    train_seconds: Seconds | None = None
    """Training time over all attempts [s]; evaluation, checkpoints and diagnostics do not count."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.steps is None and self.train_seconds is None:
            raise ValueError("needs steps or train_seconds (or both)")
        return self


class LogOptions(Section):
    """How often a window of steps is written to the journal."""

    every_steps: Steps = 100
    """Length of a window; windows end at multiples of it."""


class TrainingConfig(Section):
    """Everything that determines one run."""

    workload: Annotated[WorkloadOptions, WORKLOADS]
    optimizer: Annotated[OptimizerOptions, OPTIMIZERS]
    schedule: Annotated[Section, SCHEDULES] | None = None
    alpha: Annotated[AlphaOptions, POLICIES] | None = None
    eval: EvalOptions = EvalOptions()
    checkpoint: CheckpointOptions = CheckpointOptions()
    stop: StopOptions
    log: LogOptions = LogOptions()
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed of the initial model, the order of batches, and what training draws (dropout, say)."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: CUDA if torch sees it, else the CPU with a warning."""
    threads: Annotated[int, Field(ge=1)] = 1
    """CPU threads of torch; results are exact for one number of threads only."""
    deterministic: bool = True
    """Ask torch for deterministic algorithms (on a GPU this can cost time)."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        alpha = self.alpha
        if alpha is not None and alpha.acts_on != "nothing" and not self.optimizer.linear_in_lr:
            raise ValueError(
                f"alpha.policy '{alpha.policy}' sets the step size, which {self.optimizer.name} "
                "does not allow; use policy 'observe', or another optimizer"
            )
        return self

    @model_validator(mode="after")
    def _check_accumulation(self) -> Self:
        if self.workload.accumulate > 1 and self.alpha is not None and self.alpha.route in OPERATOR_ROUTES:
            raise ValueError(
                f"alpha.route '{self.alpha.route}' looks at one batch alone, and workload.accumulate makes "
                f"a step of {self.workload.accumulate}; use route: jvp"
            )
        return self

    @model_validator(mode="after")
    def _check_rate(self) -> Self:
        """Leave the rate to policy `ema` where none is given; without that policy there must be one."""
        sets_rate = isinstance(self.alpha, EmaOptions)
        if sets_rate and "lr" not in self.optimizer.model_fields_set:
            object.__setattr__(self, "optimizer", self.optimizer.model_copy(update={"lr": None}))
        if self.optimizer.lr is not None:
            return self
        if not sets_rate:
            raise ValueError("optimizer.lr is null: only alpha.policy 'ema' finds a rate by itself")
        if self.schedule is not None or (self.alpha is not None and self.alpha.start_step > 0):
            raise ValueError(
                "optimizer.lr is not given, so that alpha.policy 'ema' sets the rate from the first step on: "
                "give it, or leave out schedule and alpha.start_step"
            )
        return self

    def run_id(self) -> str:
        """Return the run's id: ten hexadecimal digits of a hash (SHA-256) of its config.

        `stop`, `checkpoint` and fields at their defaults are left out; `${VAR}` and paths count as they are
        written. The code, the contents of the data, the profile and the experiment's name do not count.
        """
        content = self.model_dump(mode="json", exclude_defaults=True, exclude=set(OUTSIDE_ID))
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:10]

    def as_dict(self) -> dict[str, Any]:
        """Return the config with every default written out, as JSON values."""
        return self.model_dump(mode="json")
