"""Read a run's attempts from its journals, to decide whether and from where the run resumes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...errors import SystemRefused
from ...store import journal, records
from ...store.layout import RunFiles
from ...store.messages import shortened

TAIL_BYTES = 1 << 16
"""Bytes at a journal's end that are read to learn how the attempt ended."""

NO_GPU = "no gpu"
"""The `cause` of an interruption on a node without a visible GPU; the event names the `node`."""
MAX_WITHOUT_PROGRESS = 2
"""Number of consecutive attempts without a new checkpoint after which the run counts as failed."""


@dataclass(frozen=True)
class Attempt:
    """One attempt: the fields of its `start` record, and how it ended according to its journal."""

    number: int
    journal: Path
    submission: str | None = None
    """The submission that started it; None if it died before its first record."""
    fresh: bool = False
    """Whether it started from step 0 although there were checkpoints."""
    resume_step: int = 0
    job: dict[str, Any] | None = None
    stop: dict[str, Any] | None = None
    end: str | None = None
    """completed, diverged, failed or cancelled."""
    event: str | None = None
    """`interrupted` or `crash`, if its last event is one of these."""
    reason: str | None = None
    """The reason of the end, interruption or crash."""
    asked_to_stop: bool = False
    timed_out: bool = False
    """Whether it was interrupted because its job's time limit was near."""
    node_without_gpu: str | None = None
    """The Slurm node that the attempt left because it showed no GPU."""
    began: bool = False
    """Whether it wrote its first record; `resume_step` is valid only then."""
    step: int = 0
    """Steps done when it wrote its last record."""
    train_seconds: float = 0.0
    began_at: float | None = None
    last_at: float | None = None
    """Unix times of its first and its last record."""
    superseded: bool = False
    """Whether it was alive after a newer attempt began; its end then says nothing about the run."""

    @property
    def settled(self) -> bool:
        """Whether it ended or was stopped cleanly; false if it died or reached its time limit."""
        return self.end is not None or (self.event == "interrupted" and not self.timed_out)


def read(run: RunFiles) -> list[Attempt]:
    """Return the attempts of a run, oldest first."""
    attempts = [_read_attempt(number, path) for number, path in run.journals()]
    superseded_numbers = run.superseded() if len(attempts) > 1 else set()
    for index, attempt in enumerate(attempts[:-1]):
        newer = [other.began_at for other in attempts[index + 1 :] if other.began_at is not None]
        outlived = attempt.last_at is not None and bool(newer) and attempt.last_at > min(newer)
        if outlived or attempt.number in superseded_numbers:
            attempts[index] = replace(attempt, superseded=True)
    return attempts


def latest(run: RunFiles) -> Attempt | None:
    """Return the newest attempt of a run, reading its journal alone."""
    journals = run.journals()
    return _read_attempt(*journals[-1]) if journals else None


def start_record(path: Path) -> dict[str, Any] | None:
    """Return the `start` record of an attempt's journal; None if the attempt died before writing it."""
    try:
        first = journal.read_first(path)
    except OSError:  # no file lies there; `store check` says so
        return None
    return first if first is not None and first["kind"] == "start" else None


def starts_anew(attempts: Sequence[Attempt], submission: str, asked: bool) -> bool:
    """Return whether the next attempt has to ignore all checkpoints.

    `--fresh` does so once: later attempts of the same submission go on from what the first one reached.
    """
    return asked and not any(attempt.fresh and attempt.submission == submission for attempt in attempts)


def ignored_until(attempts: Sequence[Attempt]) -> int:
    """Return the number of the newest attempt whose checkpoints no longer count, 0 if all count."""
    return max((attempt.number - 1 for attempt in attempts if attempt.fresh), default=0)


def limits(attempts: Sequence[Attempt]) -> dict[int, int]:
    """Return, by attempt, the step up to which its checkpoints count.

    An attempt that outlived the start of a newer one may have left checkpoints beyond the step at which the
    newer one resumed. An attempt that died before its first record resumed nothing.
    """
    step_limits: dict[int, int] = {}
    for index, attempt in enumerate(attempts):
        later = [other.resume_step for other in attempts[index + 1 :] if other.began]
        if later:
            step_limits[attempt.number] = min(later)
    return step_limits


def reached(attempts: Sequence[Attempt]) -> Attempt | None:
    """Return the newest attempt that wrote a record, which holds the run's progress."""
    return next((attempt for attempt in reversed(attempts) if attempt.began or attempt.step), None)


def without_progress(
    attempts: Sequence[Attempt],
    submission: str,
    next_job: str | None = None,
    restarts: int = 0,
    made_checkpoint: Callable[[Attempt], bool] | None = None,
    *,
    preempts: bool,
) -> list[Attempt]:
    """Return the newest consecutive attempts of `submission` that died or crashed without a new checkpoint.

    Where the scheduler `preempts`, preemption and node failure are not the run's fault. An attempt that was
    asked to stop does not count then, nor one that died without an event and whose job (`next_job` for the
    newest) was requeued.
    An attempt that died before its first record does not name its job. The newest `restarts` of these belong
    to `next_job`, because Slurm has restarted it that often. A time limit that was too short for a new
    checkpoint counts. Superseded attempts do not count.
    """
    made = made_checkpoint or has_new_checkpoint
    stuck_attempts: list[Attempt] = []
    follower = next_job
    for age, attempt in enumerate(reversed(attempts)):
        if attempt.superseded:
            follower = _job_id(attempt)
            continue
        if attempt.submission not in (submission, None) or attempt.settled:
            break
        came_back = age < restarts and not attempt.began
        if attempt.timed_out or not (came_back or (preempts and _is_blameless(attempt, follower))):
            if made(attempt):
                break
            stuck_attempts.append(attempt)
        follower = _job_id(attempt)
    return stuck_attempts[::-1]


def has_new_checkpoint(attempt: Attempt) -> bool:
    """Return whether an attempt wrote a checkpoint of a step beyond the one it resumed at."""
    try:
        written = journal.read(attempt.journal).records
    except OSError:  # the journal is not visible yet, or is not a file
        return False
    return any(record["kind"] == "checkpoint" and record["step"] > attempt.resume_step for record in written)


def nodes_without_gpu(attempts: Sequence[Attempt], submission: str) -> list[str]:
    """Return the nodes that showed no GPU to attempts of a submission, one per attempt."""
    nodes = (attempt.node_without_gpu for attempt in attempts if attempt.submission == submission)
    return [node for node in nodes if node is not None]


def failures(attempts: Sequence[Attempt]) -> int:
    """Return the number of failures since the run last completed; superseded attempts do not count."""
    count = 0
    for attempt in attempts:
        has_failed = attempt.end == "failed" and not attempt.superseded
        count = 0 if attempt.end == "completed" else count + has_failed
    return count


def _is_blameless(attempt: Attempt, next_job: str | None) -> bool:
    if attempt.job is None:
        return False
    came_back = attempt.event is None and _job_id(attempt) == next_job
    return attempt.asked_to_stop or came_back


def _job_id(attempt: Attempt) -> str | None:
    return None if attempt.job is None else str(attempt.job["job_id"])


def _read_attempt(number: int, path: Path) -> Attempt:
    try:
        first = journal.read_first(path)
        ending = _read_ending(journal.read_end(path, TAIL_BYTES))
    except OSError as error:
        if path.is_file():
            hint = f"check its owner and mode: ls -l {path}"
            raise SystemRefused(f"cannot read {path}: {error.strerror or error}", hint) from error
        return Attempt(number, path)  # no file: `store check` says so
    began_at = None if first is None else first["time"]
    if first is None or first["kind"] != "start" or not records.is_start(first):
        return Attempt(number, path, began_at=began_at, **ending)
    return Attempt(
        number=number,
        journal=path,
        submission=first.get("submission"),
        fresh=bool(first.get("fresh")),
        began=True,
        resume_step=first["resume_step"],
        job=first.get("job"),
        stop=first.get("stop"),
        began_at=began_at,
        **ending,
    )


def _read_ending(written: Sequence[Any]) -> dict[str, Any]:
    ending: dict[str, Any] = {}
    for record in written:
        done = record["step"] + (record["kind"] == "alpha")  # whose step is an index
        ending.update(step=done, train_seconds=record["train_seconds"], last_at=record["time"])
        if record["kind"] == "end" and str(record.get("status")) in records.ENDS:
            ending.update(end=record["status"], reason=_short_reason(record))
        elif record["kind"] == "event" and record.get("event") in ("interrupted", "crash"):
            ending.update(event=record["event"], reason=_short_reason(record))
            ending["timed_out"] = record.get("cause") == "time limit"
            if record.get("cause") == NO_GPU:
                ending["node_without_gpu"] = str(record.get("node"))
        elif record["kind"] == "event" and record.get("event") == "stop_requested":
            ending["asked_to_stop"] = True
    return ending


def _short_reason(record: Mapping[str, Any]) -> str | None:
    reason = record.get("reason")
    return None if reason is None else shortened(str(reason))
