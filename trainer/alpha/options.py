"""Options of α*, free of torch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ..registry import Section

Estimator = Literal["biased", "unbiased", "hybrid"]
Route = Literal["jvp", "curvlinops"]


class AlphaOptions(Section):
    """When α* is measured, by which estimator and on which route."""

    acts_on: ClassVar[Literal["nothing", "step", "learning_rate"]]
    """What the policy changes."""

    policy: str
    estimator: Estimator = "unbiased"
    """The one that acts (and with `observe`, the one that is shown first)."""
    also: list[Estimator] = []
    """Further estimators to record; their cost is not counted in train_seconds."""
    start_step: Annotated[int, Field(ge=0)] = 0
    """First step, counted from 0, that may measure α*."""
    interval: Annotated[int, Field(ge=1)] = 1
    """Steps from the start of one window to the start of the next."""
    count: Annotated[int, Field(ge=1)] = 1
    """Consecutive steps of a window, each of which measures α*; at most `interval`."""
    route: Route = "jvp"
    """How curvature is computed: one forward-mode pass, or curvlinops' GGN operator."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.count > self.interval:
            raise ValueError(f"count ({self.count}) is larger than interval ({self.interval})")
        if self.estimator in self.also or len(set(self.also)) < len(self.also):
            raise ValueError("also names an estimator twice, or the one that acts")
        return self

    def measures(self, index: int) -> bool:
        """Tell whether the step with 0-based `index` lies in a window: (index - start) mod I < N."""
        return index >= self.start_step and (index - self.start_step) % self.interval < self.count

    def ends_window(self, index: int) -> bool:
        """Tell whether `index` is the last step of a window."""
        return self.measures(index) and (index - self.start_step) % self.interval == self.count - 1


class ObserveOptions(AlphaOptions):
    """Measure and record α*; nothing else changes."""

    acts_on = "nothing"


class ApplyOptions(AlphaOptions):
    """Inside a window, take the step θ₀ + scale · α*_rel · d (thesis, figure 3.1)."""

    acts_on = "step"

    scale: Annotated[float, Field(gt=0)] = 1.0
    """Factor on what is applied; the stored α* is unscaled."""


class MedianOptions(AlphaOptions):
    """After each window, make the median of its α*_abs the learning rate (thesis, figure 4.8)."""

    acts_on = "learning_rate"

    interval: Annotated[int, Field(ge=1)]
    """Steps from the start of one window to the start of the next (the thesis' I)."""
    count: Annotated[int, Field(ge=1)]
    """Consecutive α* values under one median (the thesis' N)."""
    scale: Annotated[float, Field(gt=0)] = 1.0
    """Factor on what is applied; the stored α* is unscaled."""
