"""What the index knows of an experiment: the files were read when it was brought up to date."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from sqlite3 import Connection

from ..store.layout import ExperimentFiles
from ..store.messages import shortened
from ..store.rows import RunRow, SenderRow
from .handed import Handed
from .standing import Party
from .states import Account


@dataclass(frozen=True)
class Known:
    """An experiment in the index."""

    files: ExperimentFiles
    rows: Sequence[RunRow]
    senders: Mapping[str, SenderRow]
    """Submissions, by id."""
    damaged: tuple[str, ...]
    """Files with lines that could not be read."""
    rejections: Mapping[int, Mapping[str, int]]
    """How many α* each run rejected, by its key and the reason."""

    @classmethod
    def read(cls, db: Connection, files: ExperimentFiles) -> Known:
        """Return what an index that is up to date says."""
        from ..store import queries

        name = files.name
        return cls(
            files,
            queries.runs(db, name),
            queries.senders(db, name),
            tuple(queries.damage(db, name)),
            queries.rejections_of(db, name),
        )

    @cached_property
    def party(self) -> Party:
        """The experiment's runs, as their schedulers are asked about them."""
        handed = {
            row.id: _handed(row, sender)
            for row in self.rows
            if (sender := self.senders.get(row.last_submission or "")) is not None
        }
        return Party(self.files, {row.id: _account(row) for row in self.rows}, handed)


def _handed(row: RunRow, sender: SenderRow) -> Handed:
    return Handed(
        run_id=row.id,
        name=row.name,
        submission=sender.id,
        cluster=sender.cluster,
        job_id=None if row.job is None else row.job.job_id,
        submitted=None if row.job is None else row.job.submitted,
        refusal=sender.refusal,
        site=sender.site,
    )


def _account(row: RunRow) -> Account:
    reason = row.end_reason if row.end_status is not None else row.last_event_reason
    sent_since = row.last_submission is not None and row.attempt_submission not in (row.last_submission, None)
    return Account(
        attempts=row.attempts,
        end=row.end_status,
        event=row.last_event,
        reason=None if reason is None else shortened(reason),
        sent_since=sent_since or row.attempts == 0,
        cancelled=row.cancelled,
    )
