"""Options of α*, free of torch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ..registry import Section

Estimator = Literal["biased", "unbiased", "hybrid", "lookahead"]
Route = Literal["jvp", "finite_difference", "curvlinops", "thesis"]
OPERATOR_ROUTES = ("curvlinops", "thesis")
Curvature = Literal["ggn", "hessian", "fisher"]

NEGLIGIBLE_RATE = 1e-7
"""Learning rate of an optimizer that is given none, until a policy sets one: too small to do harm, and large
enough to measure a direction."""


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
    route: Route | Literal["parabola"] = "jvp"
    """How slope and curvature are computed: one forward-mode pass, differences of two forward passes (what
    `jvp` falls back on where an operation has no forward-mode derivative), curvlinops' operators, or these at
    the thesis' expense: checked for determinism at every product, with vectors that pass through the host."""
    curvature: Curvature = "ggn"
    """The matrix G: generalised Gauss–Newton; the loss' Hessian (needs route curvlinops); or the empirical
    Fisher, the mean outer product of the gradients of single loss terms."""
    curvature_fraction: Annotated[float, Field(gt=0, le=1)] = 0.125
    """Share of the next batch from which `lookahead` takes its curvature, rounded up to whole examples."""
    chunks: Annotated[int, Field(ge=1)] = 1
    """Parts into which a batch is cut for the passes of α*, one after another, where memory is short."""
    record: Literal["each", "windowed"] = "each"
    """Whether the journal gets every value, or their number, mean, median and SD once per `log` window."""
    diagnostics: bool = False
    """Also record norms, cosines (one more gradient, on B₁, unless `chunks` cut it), and the ratio of actual
    to predicted decrease (one more forward pass, on the examples that the curvature is from: for `lookahead`
    a share of the next batch, at θ₀); not counted in train_seconds, but it waits for the device. `observe`
    records norms and cosines anyway."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.count > self.interval:
            raise ValueError(f"count ({self.count}) is larger than interval ({self.interval})")
        if self.estimator in self.also or len(set(self.also)) < len(self.also):
            raise ValueError("also names an estimator twice, or the one that acts")
        if self.curvature == "hessian" and self.route not in OPERATOR_ROUTES:
            raise ValueError("curvature 'hessian' needs route: curvlinops")
        if self.curvature != "ggn" and self.route == "parabola":
            raise ValueError(f"a parabola has the loss' own curvature, not '{self.curvature}': leave it out")
        if self.chunks > 1 and self.route in OPERATOR_ROUTES:
            raise ValueError(f"chunks are not for route {self.route}; use route: jvp")
        return self

    @property
    def estimators(self) -> tuple[Estimator, ...]:
        """All that are measured, the one that acts first."""
        return (self.estimator, *self.also)

    def measures(self, index: int) -> bool:
        """Return whether the step with 0-based `index` lies in a window: (index - start) mod I < N."""
        return index >= self.start_step and (index - self.start_step) % self.interval < self.count

    def ends_window(self, index: int) -> bool:
        """Return whether `index` is the last step of a window."""
        return self.measures(index) and (index - self.start_step) % self.interval == self.count - 1

    def pays(self, index: int) -> bool:
        """Return whether the step with 0-based `index` bears the cost of the α* that acts.

        A lookahead value is known, and paid for, in the step after the one that it judges.
        """
        late = self.estimator == "lookahead"
        return self.acts_on != "nothing" and index >= late and self.measures(index - late)


class ObserveOptions(AlphaOptions):
    """Measure and record α*; nothing else changes."""

    acts_on = "nothing"

    repeat: Annotated[int, Field(ge=1)] = 1
    """Independent second batches B₁ at one θ₀ and one direction; they show the noise of a batch apart from
    the movement of θ."""

    @model_validator(mode="after")
    def _check_repeat(self) -> Self:
        if self.repeat > 1 and not {"unbiased", "hybrid"} & {*self.estimators}:
            raise ValueError(
                "repeat draws second batches; of the estimators, unbiased and hybrid look at one"
            )
        return self


class Scaled(AlphaOptions):
    """What the policies share that act."""

    scale: Annotated[float, Field(gt=0)] = 1.0
    """Factor on what is applied; the stored α* is unscaled."""


class ApplyOptions(Scaled):
    """Inside a window, take the step θ₀ + scale · α*_rel · d (thesis, figure 3.1)."""

    acts_on = "step"

    @model_validator(mode="after")
    def _check_estimator(self) -> Self:
        if "lookahead" in self.estimators:
            raise ValueError(
                "policy 'apply' needs α* before the step is taken; lookahead comes after it, and is of the "
                "step as the optimizer would take it"
            )
        return self


class MedianOptions(Scaled):
    """After each window, make the median of its α*_abs the learning rate (thesis, figure 4.8)."""

    acts_on = "learning_rate"

    interval: Annotated[int, Field(ge=1)]
    """Steps from the start of one window to the start of the next (the thesis' I)."""
    count: Annotated[int, Field(ge=1)]
    """Consecutive α* values under one median (the thesis' N)."""


class GenOptions(Scaled):
    """GeN's rule (Bu and Xu, arXiv 2407.02772): a parabola through three losses on a fresh batch."""

    acts_on = "learning_rate"

    estimator: Literal["unbiased"] = "unbiased"
    """The parabola is fitted on B₁."""
    route: Literal["parabola"] = "parabola"
    """Three forward passes, at θ₀ − d, θ₀ and θ₀ + d."""
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Share of the present learning rate that is kept."""

    @model_validator(mode="after")
    def _check_also(self) -> Self:
        if self.also:
            raise ValueError("policy 'gen' measures by its parabola alone; leave out also")
        return self


class EmaOptions(Scaled):
    """The learning rate is scale · (average slope) / (average curvature), along the optimizer's direction."""

    acts_on = "learning_rate"

    estimator: Estimator = "lookahead"
    """The one whose slopes and curvatures are averaged."""
    scale: Annotated[float, Field(gt=0)] = 1.5
    """Factor on the ratio; greedy steps are short-sighted."""
    beta: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Decay of both averages, per measured step."""
    fill_steps: Annotated[int, Field(ge=1)] = 10
    """Measured steps that only fill the averages, before the policy sets a rate. Without `optimizer.lr` a run
    fails after ten times as many that gave none."""
    max_growth: Annotated[float, Field(gt=1)] = 1.1
    """Most by which the rate may grow from one measured step to the next, as a factor. The first rate that
    the averages give is not bounded: what acts before it is negligible, or was given."""
    total_steps: Annotated[int, Field(ge=1)] | None = None
    """Steps of the whole training, that warm-up and cooldown are shares of."""
    total_seconds: Annotated[float, Field(gt=0)] | None = None
    """The same in train_seconds [s]."""
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of the total over which a factor rises linearly from 0 to 1."""
    cooldown_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Share of the total, at its end, over which a factor falls linearly to 0."""

    @model_validator(mode="after")
    def _check_total(self) -> Self:
        if self.total_steps is not None and self.total_seconds is not None:
            raise ValueError("give total_steps or total_seconds, not both")
        if self.total_steps is None and self.total_seconds is None:
            fields = type(self).model_fields
            for name in ("warmup_fraction", "cooldown_fraction"):
                if getattr(self, name) != fields[name].default:
                    raise ValueError(f"{name} is a share of total_steps or total_seconds: give one")
        if self.warmup_fraction + self.cooldown_fraction > 1:
            raise ValueError("warmup_fraction and cooldown_fraction are more than the whole")
        return self
