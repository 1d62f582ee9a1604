"""What the journals say of a run's attempts: enough to decide whether and from where it goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..store import journal
from ..store.layout import RunFiles

TAIL_BYTES = 1 << 16
"""How much of a journal's end is read to learn how the attempt ended."""

NO_GPU = "no gpu"
"""The `cause` of an interruption because the node showed no GPU; the event names the `node`."""
MAX_FRUITLESS = 2
"""Attempts in a row that may crash without a new checkpoint before the run counts as failed."""


@dataclass(frozen=True)
class Attempt:
    """One attempt: what its `start` record says, and how it ended as far as its journal knows."""

    number: int
    journal: Path
    submission: str | None = None
    """The submission that started it; None if it died before its first record."""
    fresh: bool = False
    """Whether it started anew although there were checkpoints."""
    resume_step: int = 0
    job: dict[str, Any] | None = None
    stop: dict[str, Any] | None = None
    end: str | None = None
    """completed, diverged, failed or cancelled."""
    event: str | None = None
    """`interrupted` or `crash`, if that was the last thing it wrote of itself."""
    reason: str | None = None
    """Why it ended, was interrupted or crashed."""
    asked_to_stop: bool = False
    timed_out: bool = False
    """Whether it was interrupted because its job's time limit was near."""
    node_without_gpu: str | None = None
    """The Slurm node that it left because the node showed no GPU."""
    began: bool = False
    """Whether it wrote its first record, and so whether `resume_step` says anything."""
    step: int = 0
    """Steps done when it wrote its last record."""
    train_seconds: float = 0.0

    @property
    def settled(self) -> bool:
        """Whether it came to its end, or was stopped cleanly, rather than died or ran out of time."""
        return self.end is not None or (self.event == "interrupted" and not self.timed_out)


def read(run: RunFiles) -> list[Attempt]:
    """Return the attempts of a run, oldest first."""
    return [_read_one(number, path) for number, path in run.journals()]


def latest(run: RunFiles) -> Attempt | None:
    """Return the newest attempt of a run, reading its journal alone."""
    journals = run.journals()
    return _read_one(*journals[-1]) if journals else None


def starts_anew(attempts: Sequence[Attempt], submission: str, asked: bool) -> bool:
    """Tell whether the next attempt has to ignore all checkpoints.

    `--fresh` does so once: later attempts of the same submission go on from what the first one reached.
    """
    return asked and not any(attempt.fresh and attempt.submission == submission for attempt in attempts)


def ignored_until(attempts: Sequence[Attempt]) -> int:
    """Return the last attempt whose checkpoints do not count any more, 0 if all do."""
    return max((attempt.number - 1 for attempt in attempts if attempt.fresh), default=0)


def limits(attempts: Sequence[Attempt]) -> dict[int, int]:
    """Return, by attempt, the step up to which its checkpoints count.

    An attempt that lived on after a newer one had begun may have left checkpoints from beyond the step at
    which that one took up the run. One that died before its first record took up nothing.
    """
    found: dict[int, int] = {}
    for index, attempt in enumerate(attempts):
        later = [other.resume_step for other in attempts[index + 1 :] if other.began]
        if later:
            found[attempt.number] = min(later)
    return found


def reached(attempts: Sequence[Attempt]) -> Attempt | None:
    """Return the newest attempt that wrote anything: it tells how far the run has come."""
    return next((attempt for attempt in reversed(attempts) if attempt.began or attempt.step), None)


def fruitless(
    attempts: Sequence[Attempt],
    submission: str,
    next_job: str | None = None,
    restarts: int = 0,
    made_checkpoint: Callable[[Attempt], bool] | None = None,
) -> list[Attempt]:
    """Return the newest attempts in a row that died or crashed under `submission` without a new checkpoint.

    On Slurm, preemption and node failure are not the run's fault: an attempt that was asked to stop does
    not count, nor one that vanished without a word and whose job (`next_job` for the newest) came back.
    One that died before its first record does not say whose it was: as many of the newest as Slurm has
    restarted `next_job` were that job's. A time limit that was too short for a new checkpoint counts.
    """
    made = made_checkpoint or has_new_checkpoint
    found: list[Attempt] = []
    follower = next_job
    for age, attempt in enumerate(reversed(attempts)):
        if attempt.submission not in (submission, None) or attempt.settled:
            break
        came_back = age < restarts and not attempt.began
        if attempt.timed_out or not (came_back or _blameless(attempt, follower)):
            if made(attempt):
                break
            found.append(attempt)
        follower = _job_id(attempt)
    return found[::-1]


def has_new_checkpoint(attempt: Attempt) -> bool:
    """Tell whether an attempt wrote a checkpoint of a step beyond the one it resumed at."""
    records = journal.read(attempt.journal).records
    return any(record["kind"] == "checkpoint" and record["step"] > attempt.resume_step for record in records)


def nodes_without_gpu(attempts: Sequence[Attempt], submission: str) -> list[str]:
    """Return the nodes, one an attempt, that showed no GPU to attempts of a submission."""
    own = (attempt.node_without_gpu for attempt in attempts if attempt.submission == submission)
    return [node for node in own if node is not None]


def failures(attempts: Sequence[Attempt]) -> int:
    """Return how often the run failed since it last completed."""
    count = 0
    for attempt in attempts:
        count = 0 if attempt.end == "completed" else count + (attempt.end == "failed")
    return count


def _blameless(attempt: Attempt, next_job: str | None) -> bool:
    if attempt.job is None or attempt.job["cluster"] != "slurm":
        return False
    came_back = attempt.event is None and _job_id(attempt) == next_job
    return attempt.asked_to_stop or came_back


def _job_id(attempt: Attempt) -> str | None:
    return None if attempt.job is None else str(attempt.job["job_id"])


def _read_one(number: int, path: Path) -> Attempt:
    start = _first_record(path)
    size = path.stat().st_size
    ending = _ending(journal.read(path, max(0, size - TAIL_BYTES)).records)
    if start is None:
        return Attempt(number, path, **ending)
    return Attempt(
        number=number,
        journal=path,
        submission=start.get("submission"),
        fresh=bool(start.get("fresh")),
        began=True,
        resume_step=start["resume_step"],
        job=start.get("job"),
        stop=start.get("stop"),
        **ending,
    )


def _first_record(path: Path) -> dict[str, Any] | None:
    with path.open("rb") as file:
        records = journal.parse(file.readline()).records  # none while nothing whole has been written
    return records[0] if records and records[0]["kind"] == "start" else None


def _ending(records: Sequence[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for record in records:
        done = record["step"] + (record["kind"] == "alpha")  # whose step is an index
        found.update(step=done, train_seconds=record["train_seconds"])
        if record["kind"] == "end":
            found.update(end=record["status"], reason=record.get("reason"))
        elif record["kind"] == "event" and record["event"] in ("interrupted", "crash"):
            found.update(event=record["event"], reason=record.get("reason"))
            found["timed_out"] = record.get("cause") == "time limit"
            if record.get("cause") == NO_GPU:
                found["node_without_gpu"] = str(record.get("node"))
        elif record["kind"] == "event" and record["event"] == "stop_requested":
            found["asked_to_stop"] = True
    return found
