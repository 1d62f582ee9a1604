"""Watermarks: how far each journal has been ingested, stored in the row of its attempt."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from . import journal
from .files import open_file
from .journal import BadLine, Reading
from .records import MISFITS, Digest, Summary
from .scan import Stamp, stamp
from .schema import TABLES

SEAM_BYTES = 64
"""Bytes stored from before the offset, to check that a journal has not been replaced."""

_SUMMARY = tuple(field.name for field in fields(Summary))
_MARK_COLUMNS = ("attempt", "inode", "size", "mtime_ns", "offset", "seam", "bad")
_UNREAD = Stamp("", 0, 0)


class Replaced(Exception):
    """A journal is missing or has been replaced, so its run must be read again."""


@dataclass
class Mark:
    """A journal up to `offset`: the digest of its records, and the number of bad lines."""

    digest: Digest
    stamp: Stamp = _UNREAD
    offset: int = 0
    seam: bytes = b""
    bad: int = 0

    def advance(self, path: Path) -> list[BadLine] | None:
        """Read what has arrived since; return the bad lines, or None if there was nothing new.

        Raises:
            Replaced: another file has replaced the journal.
            OSError: the journal cannot be read.
        """
        with open_file(path) as file:
            new_stamp = stamp(os.fstat(file.fileno()))
            if is_current(self.stamp, self.offset, new_stamp):
                return None
            self._check_unchanged(new_stamp)
            file.seek(self.offset - len(self.seam))
            content = file.read()
        if not content.startswith(self.seam):
            raise Replaced
        return self._read_content(content, new_stamp)

    def _check_unchanged(self, new_stamp: Stamp) -> None:
        """Raise `Replaced` unless the journal only grew; with bad lines, always: they may be repaired now."""
        shrunk = new_stamp.size < self.offset
        edited = new_stamp.size == self.stamp.size and new_stamp.mtime_ns != self.stamp.mtime_ns
        moved = new_stamp.inode != self.stamp.inode
        if self.offset and (shrunk or edited or moved or self.bad):
            raise Replaced

    def _read_content(self, content: bytes, new_stamp: Stamp) -> list[BadLine]:
        seam = len(self.seam)
        reading = journal.parse(content[seam:], self.offset)
        bad = reading.bad + self._digest_records(reading)
        end = seam + reading.offset - self.offset
        self.stamp, self.offset = new_stamp, reading.offset
        self.seam = content[max(0, end - SEAM_BYTES) : end]
        self.bad += len(bad)
        return bad

    def _digest_records(self, reading: Reading) -> list[BadLine]:
        bad = []
        for offset, record in zip(reading.offsets, reading.records, strict=True):
            try:
                self.digest.add(record)
            except MISFITS as error:
                what = f"not what a record of the kind {record['kind']} says: {type(error).__name__}: {error}"
                bad.append(BadLine(offset, what))
        return bad


def is_current(old_stamp: Stamp, offset: int, new_stamp: Stamp) -> bool:
    """Return whether there is nothing to read; bytes that had not arrived are read each time."""
    return old_stamp == new_stamp and offset == new_stamp.size


def read_marks(db: sqlite3.Connection, run: int) -> dict[int, Mark]:
    """Return the marks of a run's journals, by attempt."""
    sql = f"SELECT {', '.join(_MARK_COLUMNS + _SUMMARY)} FROM journal WHERE run = ? ORDER BY attempt"
    return {row[0]: _build_mark(run, *row) for row in db.execute(sql, (run,))}


def write_mark(db: sqlite3.Connection, mark: Mark) -> None:
    """Save a mark, inside the transaction that writes its rows."""
    digest = mark.digest
    values = (digest.attempt, *mark.stamp, mark.offset, mark.seam, mark.bad, *astuple(digest.summary))
    row = dict(zip(_MARK_COLUMNS + _SUMMARY, values, strict=True), run=digest.run)
    names = list(TABLES["journal"].columns)
    sql = f"INSERT OR REPLACE INTO journal ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
    db.execute(sql, [row[name] for name in names])


def news(
    db: sqlite3.Connection, experiment: str, journals: Mapping[str, Mapping[int, Stamp]]
) -> list[tuple[str, int]]:
    """Return (id, key) of the runs whose journals differ from those ingested, or have grown."""
    indexed: dict[str, dict[int, tuple[object, ...]]] = {}
    for run, attempt, offset, *stamp_fields in db.execute(_STAMPS, (experiment,)):
        indexed.setdefault(run, {})[attempt] = (*stamp_fields, offset)
    runs = db.execute("SELECT id, key FROM run WHERE experiment = ? ORDER BY id", (experiment,)).fetchall()
    return [(run, key) for run, key in runs if indexed.get(run, {}) != _fully_read(journals.get(run, {}))]


_STAMPS = """
    SELECT id, attempt, offset, inode, size, mtime_ns FROM journal JOIN run ON run.key = journal.run
    WHERE experiment = ?
"""


def _fully_read(stamps: Mapping[int, Stamp]) -> dict[int, tuple[object, ...]]:
    """Return the stamps and offsets that fully read journals have."""
    return {attempt: (*stamp_, stamp_.size) for attempt, stamp_ in stamps.items()}


def _build_mark(
    run: int,
    attempt: int,
    inode: str,
    size: int,
    mtime: int,
    offset: int,
    seam: bytes,
    bad: int,
    *summary: object,
) -> Mark:
    digest = Digest(run, attempt, Summary(*summary))  # type: ignore[arg-type]
    return Mark(digest, Stamp(inode, size, mtime), offset, seam, bad)
