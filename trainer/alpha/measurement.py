"""α* of one step, from the quadratics that its estimators found.

α*_rel = −dᵀg / dᵀGd is the factor on the step d (thesis, equation 3.3); α*_abs = α*_rel · η is the
learning rate it amounts to. With d from batch B₂, another batch B₁ (equations 3.4 and 3.5), and the batch
B₃ of the training step after:

    biased: g₂ and G₂    unbiased: g₁ and G₁    hybrid: g₁ and G₂    lookahead: g₃ and G₃, at θ₀ + d
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..optimizers.stepper import Direction
from .options import Estimator
from .quadratic import Crossed, Quadratic, Reading


@dataclass(frozen=True)
class Estimate:
    """One estimator's value along d: α* relative and absolute, slope dᵀg and curvature dᵀGd, all at θ₀.

    With standard errors, given d, where the examples of the batch tell (else NaN); that of α* is by the
    delta method.
    """

    alpha_rel: float
    alpha_abs: float
    slope: float
    curvature: float
    alpha_rel_se: float = math.nan
    slope_se: float = math.nan
    curvature_se: float = math.nan

    @property
    def usable(self) -> bool:
        """Return whether α* is defined: finite, and over a curvature that is positive and finite."""
        return 0 < self.curvature < math.inf and math.isfinite(self.alpha_rel)

    @property
    def flaw(self) -> str:
        """Return why a policy rejects the value."""
        if self.usable:
            return "not positive"
        if self.curvature < 0:
            return "the curvature is negative"
        if self.curvature == 0:
            return f"undefined: the {'curvature' if self.slope else 'step'} is zero"
        return "undefined: not finite"

    def record(self) -> dict[str, float]:
        """Return its fields, without the standard errors that are not known."""
        return {k: v for k, v in vars(self).items() if not (k.endswith("_se") and math.isnan(v))}


@dataclass(frozen=True)
class Step:
    """The step that is judged, in numbers: d = scale · v, taken at the learning rate η."""

    index: int
    """0-based."""
    scale: float
    learning_rate: float
    absolute: bool
    """Whether α*_abs is meaningful."""

    @classmethod
    def of(cls, index: int, direction: Direction, absolute: bool) -> Step:
        """Take the numbers of a direction, and leave its vectors to be freed."""
        return cls(index, direction.scale, direction.learning_rate, absolute)


@dataclass
class Measurement:
    """What was measured of one step; scalars stay on the device until they are asked for."""

    step: Step
    acting: Estimator
    repeat: int = 0
    train_seconds: float = 0.0
    quadratics: dict[Estimator, Quadratic | Crossed] = field(default_factory=dict)
    scalars: dict[str, Tensor] = field(default_factory=dict)
    _readings: dict[Estimator, Reading] = field(default_factory=dict)

    def reading(self, estimator: Estimator) -> Reading:
        """Return one estimator's slope and curvature along v at θ₀; this waits for the device.

        A lookahead's were found at θ₀ + d, and are followed back along their own parabola.
        """
        if estimator not in self._readings:
            reading = self.quadratics.pop(estimator).read()
            late = estimator == "lookahead"
            self._readings[estimator] = reading.moved_back(self.step.scale) if late else reading
        return self._readings[estimator]

    def estimate(self, estimator: Estimator) -> Estimate:
        """Return one estimator's value; this waits for the device.

        With v the direction's vector and d = s·v, dᵀg = s·vᵀg and dᵀGd = s²·vᵀGv. Where s = −η, α*_abs is
        vᵀg / vᵀGv, whatever η is.
        """
        reading, scale, rate = self.reading(estimator), self.step.scale, self.step.learning_rate
        ratio = reading.ratio
        absolute = ratio if scale == -rate else -ratio * rate / scale if scale else math.nan
        return Estimate(
            alpha_rel=-ratio / scale if scale else math.nan,
            alpha_abs=absolute if self.step.absolute else math.nan,
            slope=scale * reading.slope,
            curvature=scale * scale * reading.curvature,
            alpha_rel_se=_square_root(reading.ratio_variance) / abs(scale) if scale else math.nan,
            slope_se=abs(scale) * _square_root(reading.slope_variance),
            curvature_se=scale * scale * _square_root(reading.curvature_variance),
        )

    @property
    def value(self) -> Estimate:
        """Return the value of the estimator that acts."""
        return self.estimate(self.acting)

    @property
    def estimators(self) -> tuple[Estimator, ...]:
        """All that have been measured so far."""
        return (*self._readings, *self.quadratics)

    def record(self) -> dict[str, Any]:
        """Return the fields of the journal's `alpha` record."""
        estimates = {name: self.estimate(name).record() for name in self.estimators}
        scalars = {name: float(value) for name, value in self.scalars.items()}
        repeat = {"repeat": self.repeat} if self.repeat else {}
        return {"learning_rate": self.step.learning_rate, "estimates": estimates, **scalars, **repeat}

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs of a measurement that is not complete yet."""
        readings = {name: {**vars(self.reading(name))} for name in self.estimators}
        for reading in readings.values():
            del reading["loss"]  # only what is measured in the step itself looks at it
        scalars = {name: value.clone() for name, value in self.scalars.items()}
        return {
            "step": vars(self.step),
            "train_seconds": self.train_seconds,
            "readings": readings,
            "scalars": scalars,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any], acting: Estimator, device: torch.device) -> Measurement:
        """Restore what `state_dict` returned."""
        measurement = cls(Step(**state["step"]), acting, 0, state["train_seconds"])
        measurement._readings = {name: Reading(**reading) for name, reading in state["readings"].items()}
        measurement.scalars = {name: value.to(device) for name, value in state["scalars"].items()}
        return measurement


def _square_root(variance: float) -> float:
    """Return the square root of a variance that rounding may have brought below zero; NaN stays NaN."""
    return math.sqrt(max(variance, 0.0))
