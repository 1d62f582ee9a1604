"""Preemptions, crashes and restarts of runs, and the steps that were repeated."""

from __future__ import annotations

from collections import Counter

from ...store.queries import EventRow
from ..comparison import ReportData
from ..data import RunData
from ..tables import Cell, Table
from .base import ReportSection

TITLE = "Attempts and interruptions"
COLUMNS = (
    "run",
    "attempts",
    "interrupted",
    "crashed",
    "damaged checkpoints",
    "superseded records",
    "nodes",
    "last",
)
TROUBLE = ("interrupted", "crash", "checkpoint_damaged")


class AttemptsSection(ReportSection):
    """The section “Attempts and interruptions”."""

    title = TITLE

    def applies(self, data: ReportData) -> bool:
        """Return whether any run was restarted or interrupted."""
        return any(_was_interrupted(run) for run in data.experiment.runs)

    def tables(self, data: ReportData) -> list[Table]:
        """Return one row for each run that was restarted or interrupted."""
        rows = [_attempts_row(run) for run in data.experiment.runs if _was_interrupted(run)]
        note = (
            "Superseded: records of steps that were done again after a restart; they count for nothing here."
        )
        return [Table.of("attempts", TITLE, COLUMNS, rows, [note])]


def _was_interrupted(run: RunData) -> bool:
    return run.row.attempts > 1 or any(event.event in TROUBLE for event in run.events)


def _attempts_row(run: RunData) -> tuple[Cell, ...]:
    counts = Counter(event.event for event in run.events if not _is_superseded(run, event))
    nodes = dict.fromkeys(str(attempt.host) for attempt in run.attempts if attempt.host is not None)
    return (
        run.row.name,
        run.row.attempts,
        *(counts[name] for name in TROUBLE),
        run.row.superseded,
        ", ".join(nodes),
        run.row.last_event_reason or "",
    )


def _is_superseded(run: RunData, event: EventRow) -> bool:
    """Return whether a newer attempt had begun before an event: a later crash does not concern the run."""
    newer = (attempt.time for attempt in run.attempts if attempt.attempt > event.attempt)
    return event.event == "crash" and any(time is not None and time < event.time for time in newer)
