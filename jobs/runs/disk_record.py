"""The disk record of a run: its newest attempt, how that ended, and whether the run was cancelled."""

from __future__ import annotations

from dataclasses import dataclass

from ...store.layout import RunFiles
from . import attempts, cancel_marker
from .attempts import Attempt


@dataclass(frozen=True)
class DiskRecord:
    """The state of a run according to its files."""

    attempts: int = 0
    end: str | None = None
    """completed, diverged, failed or cancelled, of the newest attempt; None if that has not ended."""
    event: str | None = None
    """`interrupted` or `crash`, if that was the newest attempt's last record."""
    reason: str | None = None
    submitted_since: bool = False
    """Whether the newest submission of the run is newer than its newest attempt."""
    cancelled: bool = False
    """Whether the cancel marker names the newest submission of the run."""

    @property
    def settled(self) -> bool:
        """Whether the newest submission is finished: ended, stopped cleanly, or cancelled."""
        is_over = self.end is not None or self.event == "interrupted"
        return self.cancelled or (is_over and not self.submitted_since)

    @property
    def may_have_job(self) -> bool:
        """Whether a scheduler may still have a job for the run."""
        return self.end is None or self.submitted_since

    @classmethod
    def of(cls, attempt: Attempt | None, submission: str | None, cancelled: bool) -> DiskRecord:
        """Return the record of a run from its newest attempt and its newest submission.

        An attempt that died before its first record counts as one of the newest submission.
        """
        if attempt is None:
            return cls(cancelled=cancelled, submitted_since=submission is not None)
        submitted_since = submission is not None and attempt.submission not in (submission, None)
        return cls(attempt.number, attempt.end, attempt.event, attempt.reason, submitted_since, cancelled)


def read(run: RunFiles, submission: str) -> DiskRecord:
    """Read a run's disk record, with regard to its newest submission.

    Raises:
        UserError: the cancel marker is damaged.
        SystemRefused: a journal cannot be read.
    """
    return DiskRecord.of(attempts.latest(run), submission, cancel_marker.is_cancelled(run, submission))
