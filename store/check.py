"""Find problems of a store: bad lines, missing records, unreadable files, an index that differs."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import ingest, queries, schema
from .check_files import damaged_files
from .layout import Root, RunFiles
from .rows import JournalRow

RunName = tuple[str, str]
"""Experiment and id."""

TABLES = ("window", "evaluation", "event", "metric", "journal")
"""Tables whose rows belong to runs."""


@dataclass(frozen=True)
class Problem:
    """One problem, and the file that has it."""

    experiment: str
    file: str
    """Relative to the experiment's folder."""
    reason: str
    offset: int | None = None
    """The byte in the file, where there is one."""


def index_problems(db: sqlite3.Connection, root: Root) -> set[Problem]:
    """Return the problems of a freshly synced index and of the journals that it was read from.

    This function builds a second index from the files in a temporary database, and compares both row by row.
    It skips runs whose journals have grown since the sync.
    """
    return {
        *_recorded_problems(db),
        *_missing_records(db),
        *_torn_journals(db),
        *_index_differences(db, root),
    }


def file_problems(root: Root) -> set[Problem]:
    """Return the problems of files that the index does not hold."""
    return {Problem(*problem) for problem in damaged_files(root)}


def by_file(problems: Iterable[Problem]) -> list[Problem]:
    """Return problems sorted by experiment and file."""
    return sorted(
        problems, key=lambda problem: (problem.experiment, problem.file, problem.offset or 0, problem.reason)
    )


def _recorded_problems(db: sqlite3.Connection) -> Iterator[Problem]:
    for experiment, file, offset, reason in db.execute(
        "SELECT experiment, file, offset, reason FROM problem"
    ):
        in_journal = file.endswith(".jsonl") and offset >= 0
        yield Problem(
            experiment, file, f"bad line: {reason}" if in_journal else reason, offset if in_journal else None
        )


def _missing_records(db: sqlite3.Connection) -> Iterator[Problem]:
    for row in queries.journals(db):
        if row.missing:
            yield Problem(row.experiment, _journal_file(row), f"{row.missing} records are missing")


def _torn_journals(db: sqlite3.Connection) -> Iterator[Problem]:
    """Yield journals with a torn tail whose attempt has ended or is superseded."""
    newest: dict[RunName, int] = {}
    rows = queries.journals(db)
    for row in rows:
        newest[row.experiment, row.id] = row.attempt
    for row in rows:
        if row.offset < row.size and (row.ended or row.attempt < newest[row.experiment, row.id]):
            yield Problem(
                row.experiment,
                _journal_file(row),
                f"the last {row.size - row.offset} bytes are torn",
                row.offset,
            )


def _index_differences(db: sqlite3.Connection, root: Root) -> Iterator[Problem]:
    fresh = sqlite3.connect("", isolation_level=None)
    try:
        with ingest.transaction(fresh):
            schema.create(fresh)
            ingest.sync(fresh, root)
        grown = {(experiment, run) for experiment, run, *_ in _journal_stamps(db) ^ _journal_stamps(fresh)}
        for table in TABLES:
            for experiment, run in (
                _differing_runs(_row_digests(db, table), _row_digests(fresh, table)) - grown
            ):
                yield Problem(
                    experiment, run, f"the index differs from the journals (table {table}): rebuild it"
                )
    finally:
        fresh.close()


def _differing_runs(indexed: dict[RunName, str], expected: dict[RunName, str]) -> set[RunName]:
    return {run for run in indexed.keys() | expected.keys() if indexed.get(run) != expected.get(run)}


def _journal_file(row: JournalRow) -> str:
    return f"{row.id}/{RunFiles(Path(row.id)).journal(row.attempt).name}"


def _journal_stamps(db: sqlite3.Connection) -> set[tuple[str, str, int, int, int]]:
    sql = "SELECT experiment, id, attempt, size, offset FROM journal JOIN run ON run.key = journal.run"
    return set(db.execute(sql))


def _row_digests(db: sqlite3.Connection, table: str) -> dict[RunName, str]:
    """Return a checksum of each run's rows in a table, by (experiment, run)."""
    columns = schema.METRIC if table == "metric" else tuple(schema.TABLES[table].columns)
    names = ", ".join(f"t.{name}" for name in columns if name != "run")
    keys = schema.METRIC[:4] if table == "metric" else schema.TABLES[table].key
    order = ", ".join(f"t.{name}" for name in keys if name != "run")
    source = f"{table} AS t JOIN run ON run.key = t.run"
    sql = f"SELECT experiment, id, {names} FROM {source} ORDER BY t.run, {order}"
    digests: dict[RunName, Any] = {}
    for experiment, run, *row in db.execute(sql):
        digests.setdefault((experiment, run), hashlib.sha256()).update(repr(row).encode())
    return {run: digest.hexdigest() for run, digest in digests.items()}
