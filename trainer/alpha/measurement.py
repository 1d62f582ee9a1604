"""α* of one step: which batches give slope and curvature, and what is recorded of it.

α*_rel = −dᵀg / dᵀGd is the factor on the step d (thesis, equation 3.3); α*_abs = α*_rel · η is the
learning rate it amounts to. With d from batch B₂ and another batch B₁ (equations 3.4 and 3.5):

    biased: g₂ and G₂        unbiased: g₁ and G₁        hybrid: g₁ and G₂
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from ..clock import Clock
from ..losses import Loss
from ..optimizers.stepper import Direction, Stepper
from ..randomness import replayed
from ..streams import Batch, derive
from .options import AlphaOptions, Estimator
from .routes import ROUTES, Quadratic


@dataclass(frozen=True)
class Estimate:
    """One estimator's value along d: α* relative and absolute, slope dᵀg and curvature dᵀGd."""

    alpha_rel: float
    alpha_abs: float
    slope: float
    curvature: float

    @property
    def usable(self) -> bool:
        """Tell whether α* is defined: finite, and over a curvature that is positive."""
        return self.curvature > 0 and math.isfinite(self.alpha_rel)


@dataclass
class Measurement:
    """What one step measured; scalars stay on the device until they are asked for."""

    index: int
    direction: Direction
    absolute: bool
    acting: Estimator
    train_seconds: float = 0.0
    quadratics: dict[Estimator, Quadratic] = field(default_factory=dict)
    scalars: dict[str, Tensor | None] = field(default_factory=dict)

    def estimate(self, estimator: Estimator) -> Estimate:
        """Return one estimator's value; this waits for the device.

        With v the direction's vector and d = s·v, dᵀg = s·vᵀg and dᵀGd = s²·vᵀGv. Where s = −η, α*_abs is
        vᵀg / vᵀGv, whatever η is.
        """
        slope, curvature = (
            float(self.quadratics[estimator].slope),
            float(self.quadratics[estimator].curvature),
        )
        scale, rate = self.direction.scale, self.direction.learning_rate
        ratio = slope / curvature if curvature else math.nan
        absolute = (ratio if scale == -rate else -ratio * rate / scale) if self.absolute else math.nan
        relative = -ratio / scale if scale else math.nan
        return Estimate(relative, absolute, scale * slope, scale * scale * curvature)

    @property
    def value(self) -> Estimate:
        """Return the value of the estimator that acts."""
        return self.estimate(self.acting)

    def record(self) -> dict[str, Any]:
        """Return the fields of the journal's `alpha` record."""
        estimates = {name: vars(self.estimate(name)) for name in self.quadratics}
        scalars = {name: None if value is None else float(value) for name, value in self.scalars.items()}
        return {"learning_rate": self.direction.learning_rate, "estimates": estimates, **scalars}


class Probe:
    """Measures α* at θ₀ along a direction."""

    def __init__(
        self,
        options: AlphaOptions,
        model: nn.Module,
        loss: Loss,
        stepper: Stepper,
        batches: Callable[[int], Batch],
        clock: Clock,
        seed: int,
    ) -> None:
        self._options = options
        self._model = model
        self._loss = loss
        self._stepper = stepper
        self._batches = batches
        self._clock = clock
        self._seed = seed

    def measure(
        self, index: int, direction: Direction, batch: Batch, train_loss: Tensor, generator: list[Tensor]
    ) -> Measurement:
        """Measure every estimator asked for.

        `batch` is B₂, which gave the direction; `generator` is where torch's random numbers stood before
        its forward pass, so that B₂ is looked at under the masks it was trained with. B₁ is the probe
        stream's batch of the same index, under a seed of its own.
        """
        options, route = self._options, ROUTES[self._options.route]

        @cache
        def on_train() -> Quadratic:
            with replayed(generator):
                return route(self._model, self._loss, batch, direction.vector)

        @cache
        def on_probe() -> Quadratic:
            with replayed(derive(self._seed, "alpha", index)):
                return route(self._model, self._loss, self._batches(index), direction.vector)

        measurement = Measurement(index, direction, self._stepper.absolute, options.estimator)
        with self._stepper.at_origin(direction):
            acts = options.acts_on != "nothing"
            with self._clock.charge("alpha" if acts else "diagnostics"):
                measurement.quadratics[options.estimator] = _quadratic(options.estimator, on_train, on_probe)
            with self._clock.charge("diagnostics"):
                for name in options.also:
                    measurement.quadratics[name] = _quadratic(name, on_train, on_probe)
                measurement.scalars = _scalars(direction, train_loss, measurement.quadratics)
        measurement.train_seconds = self._clock.train_seconds
        return measurement


def _quadratic(
    estimator: Estimator, on_train: Callable[[], Quadratic], on_probe: Callable[[], Quadratic]
) -> Quadratic:
    if estimator == "biased":
        return on_train()
    if estimator == "unbiased":
        return on_probe()
    return Quadratic(on_probe().slope, on_train().curvature, on_probe().loss)


def _scalars(
    direction: Direction, train_loss: Tensor, quadratics: dict[Estimator, Quadratic]
) -> dict[str, Tensor | None]:
    """Return norms, the cosine between d and the gradient it came from, and both batches' losses."""
    vector, gradient = direction.vector, direction.gradient
    vector_norm, gradient_norm = _norm(vector), _norm(gradient)
    inner = torch.stack([(a * b).sum() for a, b in zip(vector, gradient, strict=True)]).sum()
    sign = math.copysign(1.0, direction.scale)
    probe_loss = next((q.loss for name, q in quadratics.items() if name != "biased"), None)
    return {
        "direction_norm": vector_norm * abs(direction.scale),
        "gradient_norm": gradient_norm,
        "cosine": sign * inner / (vector_norm * gradient_norm),
        "train_loss": train_loss,
        "probe_loss": probe_loss,
    }


def _norm(tensors: list[Tensor]) -> Tensor:
    norm: Tensor = torch.stack(torch._foreach_norm(tensors)).norm()
    return norm
