"""Measure α* around a training step: at θ₀ before the step, or at θ₁ from the next step's gradient."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ..clock import Clock
from ..losses import mean
from ..optimizers.stepper import Direction, Stepper
from ..randomness import GeneratorState
from ..streams import Batch, derive, examples, in_chunks, share
from .guard import check
from .measurement import Measurement, Step
from .options import AlphaOptions, Estimator
from .quadratic import Crossed, Quadratic, Reading
from .routes.base import Line
from .routing import Router
from .vectors import inner, norm

AT_ORIGIN: tuple[Estimator, ...] = ("biased", "unbiased", "hybrid")
SECOND_BATCH: tuple[Estimator, ...] = ("unbiased", "hybrid")


@dataclass(frozen=True)
class Awaited:
    """A step whose lookahead value the next step completes: its measurement so far, and its v."""

    measurement: Measurement
    vector: list[Tensor]


class Probe:
    """Measures α* of a run's steps; charges the cost to `alpha` if α* acts, else to `diagnostics`."""

    def __init__(
        self,
        options: AlphaOptions,
        router: Router,
        stepper: Stepper,
        batches: Callable[[int], Sequence[Batch]],
        clock: Clock,
        seed: int,
    ) -> None:
        self._options = options
        self._router = router
        self._generators = router.generators
        self._stepper = stepper
        self._batches = batches
        self._clock = clock
        self._seed = seed
        self._repeat: int = getattr(options, "repeat", 1)
        self._acts = options.acts_on != "nothing"
        self._details = options.diagnostics or not self._acts
        self._fuses = (
            self._acts
            and options.estimator == "lookahead"
            and options.curvature_fraction == 1
            and options.chunks == 1
        )
        self._has_gradient = True
        self._fused: Quadratic | None = None
        self._trained_at: GeneratorState = []
        self._spare_vector: list[Tensor] | None = None
        self._cached_batches: tuple[int, Sequence[Batch]] | None = None
        self.awaited: Awaited | None = None

    @property
    def keeps_origin(self) -> bool:
        """Whether the stepper must keep θ₀ after the step, to measure there or to rescale the step."""
        return any(name in AT_ORIGIN for name in self._options.estimators)

    @property
    def keeps_gradient(self) -> bool:
        """Whether the stepper must keep the gradient that gave the step, to compare the step with it."""
        return self._details

    @property
    def replays_training(self) -> bool:
        """Whether α* uses B₂ again, with the dropout masks of training."""
        return any(name in ("biased", "hybrid") for name in self._options.estimators)

    def warm_up(self, index: int, batch: Batch) -> None:
        """Run one pass of each kind that the options need, at the parameters where step `index` starts.

        The results are discarded. The caller restores gradients, buffers and generators.
        """
        if self.replays_training:
            self._router.warm_up([batch])
        if any(name in SECOND_BATCH for name in self._options.estimators):
            probe_batches = self._batches(index * self._repeat)[:1]
            self._router.warm_up(probe_batches)
            self._warm_up_gradient(probe_batches)
        if "lookahead" in self._options.estimators:
            self._router.warm_up(share([batch], self._options.curvature_fraction), self._fuses)

    def _warm_up_gradient(self, batches: Sequence[Batch]) -> None:
        """Compute the gradient that `probe_cosine` needs; if torch cannot, disable `probe_cosine`."""
        if self._compares_gradients:
            try:
                self._router.line([], 0.0).gradient(batches)
            except RuntimeError as error:
                self._has_gradient = False
                reason = str(error).partition("\n")[0]
                self._router.warn(f"probe_cosine is not recorded: its gradient cannot be computed ({reason})")

    def check(self, batch: Batch, loss: Tensor) -> None:
        """Check the route of α* on the batch whose mean `loss` and gradient have just been computed.

        Raises:
            UserError: the check fails, and the policy acts on α*.
        """
        check(self._options, self._router, self._seed, batch, loss, self._fuses)

    def measure(
        self,
        index: int,
        direction: Direction,
        batches: Sequence[Batch],
        train_loss: Tensor,
        start: GeneratorState,
    ) -> list[Measurement]:
        """Measure all estimators of the options at θ₀: one measurement per repetition, in order.

        `batches` are B₂, which gave the direction (several if the step accumulates). `start` is the state of
        the random generators before its forward pass. B₁ is the probe stream's batch of the same index, with
        a separate seed. A measurement that needs a lookahead value becomes `awaited`.
        """
        self._trained_at = start
        first = self._new_measurement(index, direction)
        first.scalars["train_loss"] = train_loss
        repeats = [self._new_measurement(index, direction, repeat) for repeat in range(1, self._repeat)]
        with self._stepper.at_origin(direction):
            self._measure_at_origin(first, direction, batches, start)
            if self._compares_gradients:
                with self._clock.charge("diagnostics"):
                    first.scalars["probe_cosine"] = self._probe_cosine(index, direction)
            for measurement in repeats:
                self._measure_at_origin(measurement, direction, batches, start)
        if self._details:
            with self._clock.charge("diagnostics"):
                first.scalars.update(_geometry(direction))
        measurements = [first, *(repeat for repeat in repeats if repeat.quadratics)]
        for measurement in measurements:
            measurement.train_seconds = self._clock.train_seconds
        if "lookahead" in self._options.estimators:
            self.awaited = Awaited(first, direction.vector)
        return measurements

    @property
    def _compares_gradients(self) -> bool:
        """Whether to compare the direction with the whole gradient on B₁; not in chunks, to save memory."""
        second = any(name in SECOND_BATCH for name in self._options.estimators)
        return self._details and second and self._options.chunks == 1 and self._has_gradient

    def _probe_cosine(self, index: int, direction: Direction) -> Tensor:
        """Return the cosine between d and g₁, the gradient on B₁ with the masks of its measurement."""
        line = self._router.line(direction.vector, direction.scale)
        with self._generators.replayed(derive(self._seed, "alpha", index)):
            gradient = line.gradient(self._probe_batches(index))
        sign = math.copysign(1.0, direction.scale)
        return sign * inner(direction.vector, gradient) / (norm(direction.vector) * norm(gradient))

    def diagnose(
        self, measurement: Measurement, direction: Direction, factor: float, batches: Sequence[Batch]
    ) -> None:
        """Record the ratio of actual to predicted decrease of the step factor · d, on the acting batch."""
        if not self._options.diagnostics or measurement.acting not in AT_ORIGIN:
            return
        train = measurement.acting == "biased"
        index = measurement.step.index
        with self._clock.charge("diagnostics"), self._stepper.at_origin(direction):
            line = self._router.line(direction.vector, direction.scale)
            where = batches if train else self._probe_batches(index)
            reading = measurement.reading(measurement.acting)
            with self._generators.replayed(self._trained_at if train else derive(self._seed, "alpha", index)):
                ratio = self._reduction_ratio(line, where, factor, reading)
        measurement.scalars["reduction_ratio"] = ratio

    def train_and_look(self, batch: Batch) -> Tensor | None:
        """Train on the whole batch and compute the awaited curvature from the same forward pass.

        This applies only if the value acts and uses the whole batch. None: the caller trains as usual.
        """
        if self.awaited is None or not self._fuses:
            return None
        start = self._generators.state() if self._options.diagnostics else []
        result = self._router.train_and_look(self.awaited.vector, self.awaited.measurement.step.scale, batch)
        if result is None:
            return None
        loss, self._fused = result
        self._trained_at = start
        return loss

    def complete(self, batches: Sequence[Batch]) -> Measurement | None:
        """Add the lookahead value to the awaited measurement, from the gradient just computed on `batches`.

        The curvature uses the first examples of all batches, as many as `curvature_fraction` says.
        """
        awaited, self.awaited = self.awaited, None
        self._spare_vector = None
        if awaited is None:
            return None
        measurement = awaited.measurement
        gradients = self._stepper.gradients
        with self._charge_estimator("lookahead"):
            slope = inner(awaited.vector, gradients)
            fused, self._fused = self._fused, None
            quadratic = fused or self._quadratic_on_share(awaited, batches)
            measurement.quadratics["lookahead"] = quadratic.with_slope(slope, sum(map(examples, batches)))
        if self._options.diagnostics and measurement.acting == "lookahead":
            with self._clock.charge("diagnostics"):
                ratio = self._reduction_ratio_from_end(awaited, batches, quadratic, fused is not None)
                measurement.scalars["reduction_ratio"] = ratio
        if self._details:
            with self._clock.charge("diagnostics"):
                lengths = norm(awaited.vector) * norm(gradients)
                sign = math.copysign(1.0, measurement.step.scale)
                measurement.scalars["lookahead_cosine"] = sign * slope / lengths
        self._spare_vector = awaited.vector
        return measurement

    def take_spare(self) -> list[Tensor] | None:
        """Return the tensors of the direction completed in this step, for reuse by the next one."""
        spare, self._spare_vector = self._spare_vector, None
        return spare

    def state_dict(self) -> dict[str, Any]:
        """Return the direction that awaits its lookahead, and its measurement so far."""
        if self.awaited is None:
            return {"awaited": None}
        return {"awaited": self.awaited.measurement.state_dict(), "vector": self.awaited.vector}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.awaited = None
        if state["awaited"] is not None:
            device = self._stepper.parameters[0].device
            measurement = Measurement.from_state(state["awaited"], self._options.estimator, device)
            self.awaited = Awaited(measurement, [part.to(device) for part in state["vector"]])

    def _probe_batches(self, index: int, repeat: int = 0) -> Sequence[Batch]:
        """Return B₁ of step `index`; cache the first repetition for diagnostics."""
        if repeat:
            return self._batches(index * self._repeat + repeat)
        if self._cached_batches is None or self._cached_batches[0] != index:
            self._cached_batches = None  # free its memory before the next batch is read
            self._cached_batches = index, self._batches(index * self._repeat)
        return self._cached_batches[1]

    def _new_measurement(self, index: int, direction: Direction, repeat: int = 0) -> Measurement:
        step = Step.of(index, direction, self._stepper.absolute)
        return Measurement(step, self._options.estimator, repeat)

    def _measure_at_origin(
        self,
        measurement: Measurement,
        direction: Direction,
        batches: Sequence[Batch],
        start: GeneratorState,
    ) -> None:
        index, repeat = measurement.step.index, measurement.repeat
        names = ("alpha", index, repeat) if repeat else ("alpha", index)

        @cache
        def on_train() -> Quadratic:
            with self._generators.replayed(start):
                return self._router.quadratic(direction.vector, direction.scale, batches)

        @cache
        def on_probe() -> Quadratic:
            with self._generators.replayed(derive(self._seed, *names)):
                probe_batches = self._probe_batches(index, repeat)
                return self._router.quadratic(direction.vector, direction.scale, probe_batches)

        estimators = AT_ORIGIN if repeat == 0 else SECOND_BATCH
        for name in self._options.estimators:
            if name in estimators:
                with self._charge_estimator(name):
                    measurement.quadratics[name] = _quadratic_of_estimator(name, on_train, on_probe)
        if any(name in SECOND_BATCH for name in measurement.quadratics):
            measurement.scalars["probe_loss"] = on_probe().loss

    def _quadratic_on_share(self, awaited: Awaited, batches: Sequence[Batch]) -> Quadratic:
        """Return the quadratic at θ₁ on a fraction of the batches, with separate masks and statistics."""
        step = awaited.measurement.step
        part = share(batches, self._options.curvature_fraction)
        with self._generators.replayed(derive(self._seed, "alpha", step.index)):
            return self._router.quadratic(awaited.vector, step.scale, part)

    def _reduction_ratio_from_end(
        self, awaited: Awaited, batches: Sequence[Batch], quadratic: Quadratic, fused: bool
    ) -> Tensor:
        """Return the reduction ratio of the step just taken, from θ₁ back along −d, on the fraction."""
        step = awaited.measurement.step
        line = self._router.line(awaited.vector, step.scale)
        part = share(batches, self._options.curvature_fraction)
        with self._generators.replayed(
            self._trained_at if fused else derive(self._seed, "alpha", step.index)
        ):
            return self._reduction_ratio(line, part, -1.0, quadratic.read())

    @torch.no_grad()
    def _reduction_ratio(self, line: Line, batches: Sequence[Batch], factor: float, at: Reading) -> Tensor:
        """Return [L(θ) − L(θ + f·d)] / −(f·dᵀg + ½f²·dᵀGd), d = step · v; 1 for a quadratic loss.

        The passes match those of the reading at θ: the same chunks, with the same masks and statistics.
        """
        length = factor * line.step
        moves = torch._foreach_mul(line.vector, length)
        to = {name: p.detach() + move for (name, p), move in zip(line.parameters.items(), moves, strict=True)}
        parts = [part for batch in batches for part in in_chunks(batch, self._options.chunks)]
        values = [line.loss.values(line.outputs(to, part), part["targets"]) for part in parts]
        weights = [part.get("weights", torch.ones_like(of)) for of, part in zip(values, parts, strict=True)]
        after = mean(torch.cat(values), torch.cat(weights))
        predicted = -(length * at.slope + 0.5 * length**2 * at.curvature)
        ratio: Tensor = (at.loss - after.double()) / predicted
        return ratio

    @contextmanager
    def _charge_estimator(self, estimator: Estimator) -> Iterator[None]:
        acts = self._acts and estimator == self._options.estimator
        with self._clock.charge("alpha" if acts else "diagnostics"):
            yield


def _quadratic_of_estimator(
    estimator: Estimator, on_train: Callable[[], Quadratic], on_probe: Callable[[], Quadratic]
) -> Quadratic | Crossed:
    if estimator == "biased":
        return on_train()
    if estimator == "unbiased":
        return on_probe()
    return Crossed(on_probe(), on_train())


def _geometry(direction: Direction) -> dict[str, Tensor]:
    """Return norms, dᵀg₂, and the cosine between d and the gradient g₂ that gave it."""
    assert direction.gradient is not None
    vector_norm, gradient_norm = norm(direction.vector), norm(direction.gradient)
    slope = inner(direction.vector, direction.gradient)
    sign = math.copysign(1.0, direction.scale)
    return {
        "direction_norm": vector_norm * abs(direction.scale),
        "gradient_norm": gradient_norm,
        "cosine": sign * slope / (vector_norm * gradient_norm),
        "train_slope": slope * direction.scale,
    }
