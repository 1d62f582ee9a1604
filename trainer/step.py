"""One training step: batch, gradient, α*, learning rate and update."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from torch import Tensor

from .alpha.measurement import Measurement
from .alpha.policies.base import PolicyEvent, Progress
from .alpha.probe import Probe
from .randomness import GeneratorState
from .session import Session
from .streams import Batch


@dataclass
class StepResult:
    """The results of a step; `loss` is still on the device."""

    loss: Tensor
    learning_rate: float = 0.0
    measurements: list[Measurement] = field(default_factory=list)
    """Measurements that are complete now, of this step or of the one before."""
    events: list[PolicyEvent] = field(default_factory=list)


def take_step(session: Session) -> StepResult:
    """Take the step with the 0-based index `session.step`, and count it."""
    index, clock = session.step, session.clock
    kind = session.kind(index)
    with clock.step(kind):
        batches: Iterable[Batch] = _read_batches(session, index)
        kept_batches = list(batches) if session.keeps_batches(index) else []
        start = session.generators.state() if _is_replayed(session, index) else []
        with clock.charge("forward_backward"):
            result = StepResult(session.forward_backward(kept_batches or batches))
        if session.probe is not None:
            _complete_previous_measurement(session, session.probe, kept_batches, result)
        progress = Progress(index, clock.train_seconds)
        result.learning_rate = session.policy.learning_rate(progress, session.scheduled_rate(index))
        session.stepper.learning_rate = result.learning_rate
        if session.probe is not None and session.measures(index):
            _measure_and_update(session, session.probe, kept_batches, start, result)
        else:
            session.stepper.step()
        session.step += 1
        session.window.add(result.loss, result.learning_rate, kind == "alpha")
    session.compare_batches()
    while session.warnings:
        result.events.append(PolicyEvent("warning", {"message": session.warnings.pop(0)}))
    return result


def _read_batches(session: Session, index: int) -> Iterator[Batch]:
    """Yield the batches whose gradients a step averages; read each when the step needs it."""
    for part in range(session.accumulate):
        with session.clock.charge("data"):
            batch = session.train_batch(index, part)
        yield batch


def _is_replayed(session: Session, index: int) -> bool:
    return session.probe is not None and session.probe.replays_training and session.measures(index)


def _complete_previous_measurement(
    session: Session, probe: Probe, batches: list[Batch], result: StepResult
) -> None:
    """Complete the measurement of the previous step; the rate that follows from it acts in this update."""
    measurement = probe.complete(batches)
    if measurement is None:
        return
    result.measurements.append(measurement)
    if measurement.acting == "lookahead":
        _update_policy(session, measurement, result)


def _measure_and_update(
    session: Session, probe: Probe, batches: list[Batch], start: GeneratorState, result: StepResult
) -> None:
    """Measure α* at θ₀ along the step, take the step with the policy's factor, and update the policy."""
    stepper, policy = session.stepper, session.policy
    direction = stepper.direction(probe.keeps_origin, probe.keeps_gradient, probe.take_spare())
    measurements = probe.measure(session.step, direction, batches, result.loss, start)
    is_complete = measurements[0].acting != "lookahead"
    factor = policy.factor(measurements[0]) if is_complete else 1.0
    probe.diagnose(measurements[0], direction, factor, batches)
    stepper.take(direction, factor)
    if is_complete:
        _update_policy(session, measurements[0], result)
    result.measurements += measurements[1:] if probe.awaited is not None else measurements


def _update_policy(session: Session, measurement: Measurement, result: StepResult) -> None:
    """Update the policy and charge the time to α*, as reading the value waits for the device."""
    acts = session.config.alpha is not None and session.config.alpha.acts_on != "nothing"
    with session.clock.charge("alpha" if acts else "diagnostics"):
        result.events += session.policy.update(measurement)
