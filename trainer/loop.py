"""The training loop of one run.

Order at a step: step, evaluation, checkpoint. Windows and schedules use the 0-based index of the step
about to be taken; everything else counts steps done.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ..store.journal import Journal
from ..store.layout import RunFiles
from .alpha.measurement import Measurement
from .clock import Clock
from .config import TrainingConfig
from .outcome import Outcome
from .randomness import preserved, torch_snapshot
from .recorder import Recorder
from .resume import Resume
from .session import Session
from .stopping import StopRequest


def train(
    config: TrainingConfig,
    run: RunFiles,
    journal: Journal,
    attempt: int,
    resume: Resume,
    stop_request: StopRequest,
    now: Callable[[], float] = time.perf_counter,
) -> Outcome:
    """Train until the config's stop, a stop request, or divergence; report to the journal.

    `now` is the clock to read [s]. A stop request ends the step in progress, writes a checkpoint, and
    returns an interrupted outcome.

    Raises:
        UserError: the config asks for something that this model or loss cannot do.
        OSError: a checkpoint could not be written.
    """
    started = now()
    clock = Clock(now)
    stop_request.on_resumption = clock.forget_suspension
    session = Session(config, clock)
    recorder = Recorder(session, run, journal, attempt, stop_request, now)
    if resume.state is not None:
        session.load_state_dict(resume.state)
    for name in resume.damaged:
        recorder.event("checkpoint_damaged", file=name)
    recorder.evaluate_if_pending()

    with preserved():
        session.train_batch(session.step)  # loading the data for the first time belongs to the start-up
    recorder.event("training_started", startup_seconds=now() - started)

    while recorder.goes_on and not _finished(session):
        index = session.step
        measuring = session.measures(index)
        measurement: Measurement | None = None
        stepper, policy = session.stepper, session.policy
        rate = policy.learning_rate(index, session.scheduled_rate(index))
        stepper.learning_rate = rate

        with clock.step("alpha" if measuring else "plain"):
            with clock.charge("data"):
                batch = session.train_batch(index)
            generator = torch_snapshot() if measuring else []
            with clock.charge("forward_backward"):
                loss = session.forward_backward(batch)
            if session.probe is not None and measuring:
                with clock.charge("optimizer"):
                    direction = stepper.direction()
                measurement = session.probe.measure(index, direction, batch, loss, generator)
                with clock.charge("optimizer"):
                    stepper.take(direction, policy.factor(measurement))
            else:
                with clock.charge("optimizer"):
                    stepper.step()

        events = policy.after_step(measurement)
        session.step += 1
        session.window.add(loss, rate, measuring)
        recorder.after_step(measurement, events)

    return recorder.finish()


def _finished(session: Session) -> bool:
    """Tell whether the next step would pass the config's stop."""
    stop, clock = session.config.stop, session.clock
    if stop.steps is not None and session.step >= stop.steps:
        return True
    if stop.train_seconds is None:
        return False
    kind = "alpha" if session.measures(session.step) else "plain"
    return clock.train_seconds + clock.expected(kind) > stop.train_seconds
