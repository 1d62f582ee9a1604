"""Resolve the state of a run from its disk record and its scheduler's state, without reading files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast, get_args

from .disk_record import DiskRecord

State = Literal[
    "pending", "running", "requeued", "interrupted", "completed", "diverged", "failed", "cancelled", "unknown"
]
STATES: tuple[State, ...] = get_args(State)
ACTIVE: frozenset[State] = frozenset({"pending", "running", "requeued"})
"""States of a run that continues without the user."""
UNSURE: frozenset[State] = frozenset({"unknown", "interrupted"})
"""States that may be temporary, because squeue occasionally leaves out a job."""

JOB_IS_OVER = frozenset({"unsent", "cancelled", "interrupted", "ended", "unsettled", "silent"})
"""Scheduler states in which the scheduler has no job for the run, or did not answer."""
VANISHED = "neither running nor ended; the next submit continues it"
UNKNOWN_TO_ALL = "submitted, but no scheduler knows it; the next submit sends it again"


@dataclass(frozen=True)
class SchedulerState:
    """The state of a run's job according to its scheduler."""

    state: str
    """`pending` or `running`; `unsent` if no scheduler has the run; for a job that is over, `cancelled`,
    `interrupted` (by the cluster), `ended` (by itself) or `unsettled` (its end is not recorded yet);
    `silent` if the scheduler did not answer. Any other word comes from the scheduler; it is shown, and the
    job counts as alive."""
    reason: str | None = None

    @property
    def is_alive(self) -> bool:
        """Whether the scheduler has a job for the run."""
        return self.state not in JOB_IS_OVER


@dataclass(frozen=True)
class RunState:
    """The state of a run, and why."""

    state: State
    reason: str | None = None
    scheduler: SchedulerState | None = None
    """The scheduler's state; None if the scheduler does not know the run."""

    @property
    def is_alive(self) -> bool:
        """Whether a scheduler has a job for the run; the run's files do not matter."""
        return self.scheduler is not None and self.scheduler.is_alive

    @property
    def is_unlisted(self) -> bool:
        """Whether the run has not ended and no scheduler lists it."""
        return self.state in UNSURE and not self.is_alive

    @property
    def is_unsettled(self) -> bool:
        """Whether its job is over and accounting has not recorded the end yet."""
        return self.scheduler is not None and self.scheduler.state == "unsettled"

    @property
    def is_certain(self) -> bool:
        """Whether every scheduler that may have a job for the run answered."""
        return self.scheduler is None or self.scheduler.state != "silent"


def resolve(record: DiskRecord, scheduler: SchedulerState | None) -> RunState:
    """Return the state of a run.

    In order of precedence: the run's end record and the cancel marker, unless a later submission supersedes
    them; the scheduler's state, if it has the job, cancelled or interrupted it, or never received it; the
    run's last record (interrupted or crashed); `unknown`.
    """
    return RunState(*_resolve_state(record, scheduler), scheduler)


def _resolve_state(record: DiskRecord, scheduler: SchedulerState | None) -> tuple[State, str | None]:
    if record.end is not None and not record.submitted_since:
        return cast(State, record.end), record.reason
    if record.cancelled:
        return "cancelled", "still stopping" if scheduler == SchedulerState("running") else None
    if scheduler is None or scheduler.state in ("ended", "unsettled", "silent"):
        return _state_by_record(record, scheduler)
    return _state_by_scheduler(record, scheduler)


def _state_by_scheduler(record: DiskRecord, scheduler: SchedulerState) -> tuple[State, str | None]:
    if scheduler.state in ("running", "cancelled", "interrupted"):
        return cast(State, scheduler.state), scheduler.reason
    if scheduler.state == "pending":
        if record.attempts == 0 or record.submitted_since:
            return "pending", scheduler.reason
        return "requeued", "; ".join(filter(None, (_requeue_reason(record), scheduler.reason)))
    if scheduler.state == "unsent":
        return "interrupted", f"not sent yet: {scheduler.reason}; the next submit sends it"
    detail = f": {scheduler.reason}" if scheduler.reason else ""
    return "unknown", f"the scheduler says {scheduler.state}{detail}"


def _requeue_reason(record: DiskRecord) -> str | None:
    if record.event is None:  # the attempt had no time to write a reason
        return "its node failed or it was killed"
    return f"crashed: {record.reason}" if record.event == "crash" else record.reason


def _state_by_record(record: DiskRecord, scheduler: SchedulerState | None) -> tuple[State, str | None]:
    """Return the state by the run's last record; the reason names a scheduler that did not answer."""
    scheduler_reason = None if scheduler is None else scheduler.reason
    if record.submitted_since:
        return "unknown", scheduler_reason if scheduler else UNKNOWN_TO_ALL
    doubt = f"; {scheduler_reason}" if scheduler is not None and scheduler.state == "silent" else ""
    if record.event == "interrupted":  # it may have been requeued since, which only the scheduler knows
        return "unknown" if doubt else "interrupted", f"{record.reason}{doubt}"
    if record.event == "crash":
        return "unknown", f"crashed: {record.reason}{doubt}"
    if scheduler is not None:
        return "unknown", scheduler_reason
    return "unknown", VANISHED if record.attempts else UNKNOWN_TO_ALL
