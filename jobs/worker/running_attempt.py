"""A running attempt, from its `start` record to its end."""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from ...cluster_profiles import env_values
from ...errors import SystemRefused, UserError
from ...store import journal
from ...store.files import write_atomically
from ...store.journal import Journal
from ...store.layout import ExperimentFiles, RunFiles
from ...store.messages import shortened
from ...store.submissions import RunEntry, Submission
from ...trainer.config import TrainingConfig
from ...trainer.stopping import StopRequest
from ..code import submitted_code
from ..runs import attempts, cancel_marker
from ..runs.attempts import Attempt
from ..schedulers.base import Scheduler
from ..specification import data_paths
from ..specification.variables import expand_variables
from . import environment_record, gpus, requeue, signals

if TYPE_CHECKING:
    from ...trainer.resume import Resume

Ending = Literal[
    "completed", "diverged", "failed", "cancelled", "interrupted", "requeue", "no gpu", "crash", "elsewhere"
]
"""How an attempt ended. `requeue`: interrupted, and its job must requeue itself; `no gpu`: the same, on
another node; `elsewhere`: another worker has the run."""

MOST_OF_A_TRACEBACK = 20_000
"""Maximum characters of a traceback in the journal; the run's log has all of it."""
STOPPED_BY_SLURM: dict[requeue.Cause, str] = {
    "preempted": "preempted",
    "time limit": "its time limit was near",
    "requeued": "put back into the queue",
}

log = logging.getLogger("alphagrid")


@dataclass(frozen=True)
class Task:
    """The run, submission and scheduler of a worker."""

    run: RunFiles
    submission: Submission
    entry: RunEntry
    scheduler: Scheduler

    @property
    def files(self) -> ExperimentFiles:
        """The files of the run's experiment."""
        return ExperimentFiles(self.run.path.parent)

    @property
    def job(self) -> dict[str, str]:
        """The job of this process, as journals record it."""
        return {"cluster": self.scheduler.name, "job_id": self.scheduler.own_job_id() or str(os.getpid())}


class RunningAttempt:
    """The attempt that this process runs; only this process writes the attempt's journal."""

    def __init__(
        self, task: Task, stop: StopRequest, number: int, writer: Journal, earlier: list[Attempt]
    ) -> None:
        self.task = task
        self.stop = stop
        self.number = number
        self.writer = writer
        self.earlier = earlier
        """The run's attempts before this one, oldest first."""
        self.is_fresh = attempts.starts_anew(earlier, task.submission.id, task.entry.fresh)
        """Whether it ignores all checkpoints."""

    def run(self) -> Ending:
        """Train, and record how the attempt ended, also after an error."""
        try:
            try:
                ending, reason = self._train()
            except gpus.NoGpu as error:
                return self._leave_node(error)
            except (Exception, SystemExit) as error:
                ending, reason = self._explain_error(error)
            if ending == "interrupted" and self.stop and requeue.own_job():
                return self._record_slurm_stop()
            return self._record_end(ending, reason)
        except SystemRefused as error:  # the disk filled up over the very record of a crash, or of the end
            return self._record_end("interrupted", error.message)

    def _train(self) -> tuple[Ending, str | None]:
        """Check, record the start, and run the training loop."""
        from ...trainer import loop

        start = self._start_record()
        try:
            self._check_progress()
            self._check_code()
            config = self._prepare_config()
            gpus.check(config.device, self.task.submission.profile)
            resume = self._prepare_resume()
            start.update(environment_record.hardware(config), resume_step=resume.step)
        except BaseException as error:
            if isinstance(error, submitted_code.CodeChanged):
                start["code"] = {**start["code"], "refused": True}
            append_unresumed_start(self.writer, start, self.earlier)
            raise
        self.writer.append("start", resume.step, resume.train_seconds, **start)
        if warning := self._version_warning(start):
            self.writer.append("event", resume.step, resume.train_seconds, event="warning", message=warning)
        self._discard_checkpoints(beyond=-1 if self.is_fresh else resume.step)
        log.info("attempt %d of %s starts at step %d", self.number, self.task.entry.name, resume.step)
        allowed = self.task.submission.data_change_allowed
        outcome = loop.train(
            config, self.task.run, self.writer, self.number, resume, self.stop, allow_data_change=allowed
        )
        return outcome.status, outcome.reason

    def _start_record(self) -> dict[str, Any]:
        """Return the fields of the `start` record that are known before any check."""
        task = self.task
        return {
            "attempt": self.number,
            "resume_step": 0,
            "fresh": self.is_fresh,
            "submission": task.submission.id,
            "versions": environment_record.versions(),
            "packages": environment_record.packages(task.entry.config["workload"]["name"]),
            "code": submitted_code.record(task.submission, task.entry),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "device": None,
            "gpu": None,
            "cuda": None,
            "driver": None,
            "threads": task.entry.config.get("threads"),
            "job": task.job,
            "stop": task.entry.config.get("stop"),
        }

    def _check_progress(self) -> None:
        """Refuse a run whose last attempts wrote no new checkpoint.

        Raises:
            UserError: the message says why the run is not started again.
        """
        without_progress = self._without_progress(self.earlier, self.task.job["job_id"], requeue.restarts())
        if len(without_progress) >= attempts.MAX_WITHOUT_PROGRESS:
            raise UserError(_no_progress_reason(without_progress))

    def _check_code(self) -> None:
        """Refuse code that differs from that of earlier attempts, unless that is allowed.

        Raises:
            UserError: which files differ.
        """
        earlier = () if self.is_fresh else self.earlier
        submitted_code.check_same(self.task.files, self.task.submission, self.task.entry, earlier)

    def _prepare_config(self) -> TrainingConfig:
        """Return the config with variables expanded on this node, and keep a copy beside the journal.

        Raises:
            UserError: a variable is not set, a path cannot be resolved, or code comes from another folder.
        """
        task = self.task
        if not task.scheduler.sets_environment:  # else the job's script has set it, before `setup`
            profile = task.submission.profile
            os.environ.update(profile.get("variables") or {})
            os.environ.update(env_values.expand(profile.get("env") or {}, os.environ))
        copy = {key: value for key, value in task.entry.config.items() if key != "stop"}
        content = json.dumps(copy, indent=1).encode()
        if not task.run.config.exists() or task.run.config.read_bytes() != content:
            write_atomically(task.run.config, content)
        written = data_paths.written_config(task.entry)
        config = TrainingConfig.model_validate(expand_variables(written, os.environ))
        config = data_paths.with_expanded_paths(config, task.entry)
        if task.submission.code_hash is not None and task.scheduler.checks_code_origin:
            submitted_code.check_origin(
                task.files, task.submission.code_hash, submitted_code.user_modules([task.entry])
            )
        return config

    def _prepare_resume(self) -> Resume:
        """Return the newest checkpoint that counts, or a start from step 0."""
        from ...trainer import resume

        ignored_until = self.number - 1 if self.is_fresh else attempts.ignored_until(self.earlier)
        return resume.prepare(self.task.run, ignored_until, attempts.limits(self.earlier))

    def _version_warning(self, start: dict[str, Any]) -> str | None:
        """Return a warning if the last attempt that began had another Python, torch or alphagrid version."""
        for attempt in reversed(self.earlier):
            record = attempts.start_record(attempt.journal)
            if record and record.get("versions"):
                return environment_record.changed_versions(record["versions"], start["versions"])
        return None

    def _discard_checkpoints(self, beyond: int) -> None:
        """Remove the checkpoints of earlier attempts beyond the step from which this attempt started.

        No later attempt resumes from them (`attempts.limits`), and they would count towards the number of
        checkpoints to keep.
        """
        from ...trainer import checkpoint

        for file in checkpoint.available(self.task.run):
            if file.attempt < self.number and file.step > beyond:
                file.path.unlink(missing_ok=True)

    def _explain_error(self, error: BaseException) -> tuple[Ending, str | None]:
        """Return the ending and reason for an exception; an unexpected exception is a crash."""
        if isinstance(error, SystemRefused):
            return "interrupted", error.message
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            where = f": cannot write {error.filename}" if error.filename else ""
            return "interrupted", f"disk full ({error.strerror}){where}"
        if isinstance(error, UserError | ValidationError):  # it would fail the same way every time
            log.error("%s", error)
            hint = getattr(error, "hint", None)
            return "failed", f"{error} ({hint})" if hint else str(error)
        return self._record_crash(error)

    def _record_crash(self, error: BaseException) -> tuple[Ending, str | None]:
        text = "".join(traceback.format_exception(error)).encode(errors="backslashreplace").decode()
        log.error("%s", text)
        reason = shortened(f"{type(error).__name__}: {_exception_message(error)}")
        if not self._is_superseded():
            excerpt = shortened(text, MOST_OF_A_TRACEBACK, MOST_OF_A_TRACEBACK)
            self._append_record("event", event="crash", reason=reason, traceback=excerpt)
        without_progress = self._without_progress(attempts.read(self.task.run))
        if len(without_progress) >= attempts.MAX_WITHOUT_PROGRESS:
            return "failed", _no_progress_reason(without_progress)
        comes_back = self.task.scheduler.restarts_crashed_runs(self.task.submission.profile)
        return ("crash" if comes_back else "failed"), reason

    def _record_slurm_stop(self) -> Ending:
        """Record why Slurm stopped the run, and return `requeue` if the job must requeue itself."""
        cause = requeue.why_stopped(self.stop.reason == signals.BEFORE_LIMIT)
        if cause == "cancelled":
            return self._record_end("cancelled", "cancelled with scancel")
        reason = STOPPED_BY_SLURM.get(cause, self.stop.reason)
        ending = self._record_end("interrupted", reason, cause=cause)
        if ending != "interrupted" or cause not in requeue.COMES_BACK:
            return ending
        without_progress = self._without_progress(attempts.read(self.task.run))
        if len(without_progress) >= attempts.MAX_WITHOUT_PROGRESS:
            return self._record_end("failed", _no_progress_reason(without_progress))
        return "requeue"

    def _leave_node(self, error: gpus.NoGpu) -> Ending:
        """Record that this node shows no GPU; return `no gpu` to requeue elsewhere, or the run's ending."""
        log.error("%s", error)
        task = self.task
        tried = attempts.nodes_without_gpu(attempts.read(task.run), task.submission.id)
        nodes = [*tried, error.node]
        reason = gpus.why_not_elsewhere(task.submission.profile, nodes)
        if reason is not None:
            return self._record_end(
                "failed", gpus.failure_reason(nodes, f"{error}; {reason}", task.files.name, task.run.id)
            )
        ending = self._record_end("interrupted", str(error), cause=attempts.NO_GPU, node=error.node)
        return "no gpu" if ending == "interrupted" else ending

    def _record_end(self, ending: Ending, reason: str | None, **details: Any) -> Ending:
        """Record how the attempt ended, unless a newer attempt of the run has begun."""
        if self._is_superseded():
            return "elsewhere"
        reason = None if reason is None else shortened(reason)
        self.writer.make_room()
        if ending in ("interrupted", "crash", "cancelled") and self._is_cancelled():
            ending, reason = "cancelled", "cancelled by the user"
        if ending == "interrupted":
            try:
                self._append_record("event", event="interrupted", reason=reason, **details)
                self.writer.sync()
            except SystemRefused as error:  # another process took the room; the log has the reason
                log.error("%s: %s", reason, error.message)
        elif ending != "crash":
            self._append_record("end", status=ending, reason=reason)
        return ending

    def _is_cancelled(self) -> bool:
        return cancel_marker.is_cancelled(self.task.run, self.task.submission.id)

    def _is_superseded(self) -> bool:
        """Return whether a newer attempt has begun; if so, mark this one as superseded."""
        superseded = journal.is_superseded(self.task.run, self.number)
        if superseded:
            with suppress(OSError):
                self.task.run.superseded_marker(self.number).touch()
        return superseded

    def _append_record(self, kind: str, **fields: Any) -> None:
        """Append a record with the step and time of the last record, from an earlier attempt if necessary."""
        last = attempts.reached(attempts.read(self.task.run))
        step, train_seconds = (last.step, last.train_seconds) if last else (0, 0.0)
        self.writer.append(kind, step, train_seconds, **fields)

    def _without_progress(
        self, history: Sequence[Attempt], next_job: str | None = None, restarts: int = 0
    ) -> list[Attempt]:
        """Return the newest attempts in a row that made no progress (`attempts.without_progress`)."""
        return attempts.without_progress(
            history, self.task.submission.id, next_job, restarts, preempts=self.task.scheduler.preempts
        )


def append_unresumed_start(writer: Journal, start: dict[str, Any], earlier: Sequence[Attempt]) -> None:
    """Write the start of an attempt that resumes nothing, with the progress of earlier attempts."""
    last = (None if start["fresh"] else attempts.reached(earlier)) or Attempt(0, Path())
    writer.append("start", last.step, last.train_seconds, **{**start, "resume_step": last.step})


def _no_progress_reason(without_progress: Sequence[Attempt]) -> str:
    """Return why a run without progress is not started again."""
    count = len(without_progress)
    if all(attempt.timed_out for attempt in without_progress):
        return f"{count} time limits without a new checkpoint; it needs more `hours`"
    last_reason = without_progress[-1].reason or "its process died"
    return f"{count} attempts without a new checkpoint; the last: {last_reason}"


def _exception_message(error: BaseException) -> str:
    """Return an exception's message, or a placeholder if `str` fails."""
    try:
        return str(error)
    except Exception:
        return "(its message cannot be shown)"
