"""Work around the steps: journal records, evaluations, checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..store.journal import Journal, is_superseded
from ..store.layout import RunFiles
from .alpha.measurement import Measurement
from .buffers import buffers_preserved
from .checkpoint_writer import CheckpointWriter, Written
from .evaluation import EvaluationAborted, evaluate
from .outcome import Outcome, Status
from .parameter_changes import parameters_preserved
from .session import Session
from .step import StepResult
from .stopping import StopRequest
from .useful_rate import missing_rate

OVERTAKEN = "a newer attempt of this run has begun"


class Recorder:
    """Writes the journal, evaluates, and keeps checkpoints, each when it is due."""

    def __init__(
        self,
        session: Session,
        run: RunFiles,
        journal: Journal,
        attempt: int,
        stop_request: StopRequest,
        now: Callable[[], float],
    ) -> None:
        self._session = session
        self._run = run
        self._journal = journal
        self._attempt = attempt
        self._stop_request = stop_request
        self._now = now
        self._checkpoints = CheckpointWriter(run, attempt, session.config.checkpoint, now)
        self._measurements: list[Measurement] = []
        self._diverged = False
        self._superseded = False

    @property
    def goes_on(self) -> bool:
        """Whether the attempt continues: no stop request, no divergence, no newer attempt."""
        return not (self._stop_request or self._diverged or self._superseded)

    def event(self, name: str, **details: Any) -> None:
        """Write an event."""
        self._append("event", event=name, **details)

    def after_step(self, result: StepResult) -> None:
        """Log, evaluate and write a checkpoint where each is due."""
        session = self._session
        self._measurements += result.measurements
        for event in result.events:
            if not self._is_superseded():
                self.event(event.name, **event.details)
        if session.step % session.config.log.every_steps == 0:
            self._log_window()
        session.evaluation_pending = session.evaluations.due(session.step, session.clock.train_seconds)
        if self._superseded:
            return
        self.evaluate_if_pending()
        for written in self._checkpoints.finished():
            self._log_checkpoint(written)
        if self._checkpoints.due() and not self._diverged:  # a diverged state must not be resumed
            self._checkpoint()

    def evaluate_if_pending(self, at_stop: bool = False) -> None:
        """Evaluate if that is pending; after a stop request it stays pending for the next attempt."""
        session = self._session
        if not session.evaluation_pending:
            return
        session.clock.settle()
        start = self._now()
        try:
            with (
                session.clock.charge("evaluation"),
                buffers_preserved(session.model),
                parameters_preserved(session.model, session.changing),
            ):
                losses = evaluate(
                    session.workload, session.model, session.loss, session.stepper,
                    session.config.eval.splits, session.device, self._stop_request,
                    session.batches_for_statistics(),
                )  # fmt: skip
        except EvaluationAborted:
            return
        session.evaluation_pending = False
        session.last_evaluated = session.step
        if self._is_superseded():
            return
        self._append("evaluation", splits=losses, seconds=self._now() - start, at_stop=at_stop)

    def finish(self) -> Outcome:
        """End the attempt and return its outcome."""
        session = self._session
        if self.goes_on:
            self._evaluate_at_stop()
        if self._is_superseded():
            return self._outcome("interrupted", OVERTAKEN)
        if self._stop_request:
            self.event("stop_requested", reason=self._stop_request.reason)
        else:
            self._log_window()
            self._log_awaited()
        if self._diverged:
            return self._outcome("diverged", f"the training loss is not finite at step {session.step}")
        if not self._stop_request and (warning := missing_rate(session)) is not None:
            self.event("warning", message=warning)
        self._checkpoint(last=True)
        if self._is_superseded():
            return self._outcome("interrupted", OVERTAKEN)
        if self._stop_request:
            return self._outcome("interrupted", self._stop_request.reason)
        return self._outcome("completed", None)

    def close(self) -> None:
        """Wait for a checkpoint in the background, which may still be written after an error."""
        self._checkpoints.close()

    def _is_superseded(self) -> bool:
        """Check whether a newer attempt has begun; this attempt then writes no further records."""
        self._superseded = self._superseded or is_superseded(self._run, self._attempt)
        return self._superseded

    def _evaluate_at_stop(self) -> None:
        session = self._session
        if session.last_evaluated != session.step:
            session.evaluation_pending = True
            self.evaluate_if_pending(at_stop=True)
            session.evaluation_pending = False  # if it was aborted, the next attempt evaluates here again

    def _outcome(self, status: Status, reason: str | None) -> Outcome:
        return Outcome(status, reason, self._session.step, self._session.clock.train_seconds)

    def _log_window(self) -> None:
        """Write the window and the α* measured in it; a loss that is not finite ends the run."""
        if self._is_superseded():
            return
        self._log_measurements()
        self._log_summary()
        if self._session.window.steps == 0:
            return
        self._session.clock.settle()
        record = self._session.window.take()
        self._append("window", **record, **self._session.clock.take_window())
        self._diverged = not math.isfinite(record["loss"])

    def _log_measurements(self) -> None:
        """Write the complete α* measurements, or add them to the window's summary."""
        windowed = self._is_windowed()
        for measurement in self._measurements:
            if windowed:
                self._session.alphas.add(measurement)
            else:
                self._log_measurement(measurement)
        self._measurements.clear()

    def _log_measurement(self, measurement: Measurement) -> None:
        step, seconds = measurement.step.index, measurement.train_seconds
        self._journal.append("alpha", step, seconds, **measurement.record())

    def _log_summary(self) -> None:
        if (summary := self._session.alphas.take()) is not None:
            step = summary.pop("step")
            self._journal.append("alpha", step, self._session.clock.train_seconds, **summary)

    def _log_awaited(self) -> None:
        """Write the incomplete measurement of the last step, whose lookahead value will not follow."""
        probe = self._session.probe
        awaited = None if probe is None else probe.awaited
        if awaited is not None and awaited.measurement.estimators and not self._is_windowed():
            self._log_measurement(awaited.measurement)

    def _is_windowed(self) -> bool:
        alpha = self._session.config.alpha
        return alpha is not None and alpha.record == "windowed"

    def _checkpoint(self, last: bool = False) -> None:
        """Write a checkpoint, after making the journal up to this step durable.

        A run that resumes from a checkpoint does not repeat earlier records. So none of them may be missing
        after a node failure.
        """
        session = self._session
        if self._is_superseded():
            return
        session.clock.settle()
        self._log_measurements()
        self._journal.sync()
        seconds = session.clock.train_seconds
        with session.clock.charge("checkpoint"):
            check = not self._stop_request  # a stop request leaves little time
            done = self._checkpoints.write(session.step, seconds, session.state_dict(), last, check)
        for written in done:
            self._log_checkpoint(written)

    def _log_checkpoint(self, written: Written) -> None:
        self._journal.append("checkpoint", written.step, written.train_seconds, **written.record())

    def _append(self, kind: str, **fields: Any) -> None:
        self._journal.append(kind, self._session.step, self._session.clock.train_seconds, **fields)
