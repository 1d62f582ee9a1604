"""Ingest one run: insert new records, delete superseded ones, and update the run's summary.

An attempt that resumed at step s repeats everything after s. So a record of attempt a is current if its step
is at most the least resume step of all newer attempts. An α* record, whose step is an index, is current if
its step is below that. If two attempts still wrote the same step, the newer record is current. Neither rule
depends on the order in which journals are read.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any

from .files import is_late
from .layout import RunFiles
from .manifests import problem_text
from .queries import metric_keys
from .records import REPLACEABLE_EVENTS, Digest, Row, Summary
from .schema import METRIC, TABLES
from .watermarks import Mark, Replaced, read_marks, write_mark

UNREADABLE = -1
"""The offset in `problem` of a journal or folder that cannot be opened."""

_EVENTS = ", ".join(f"'{name}'" for name in REPLACEABLE_EVENTS)


def ingest_run(db: sqlite3.Connection, key: int, experiment: str, files: RunFiles) -> int:
    """Sync a run with its journals, inside the caller's transaction; return the number of rows written."""
    try:
        return _ingest_journals(db, key, experiment, files)
    except Replaced:
        forget_run(db, key, experiment, files.id)
        return _ingest_journals(db, key, experiment, files)


def forget_run(db: sqlite3.Connection, key: int, experiment: str, run_id: str) -> None:
    """Delete all rows that come from a run's journals."""
    for table in ("window", "evaluation", "event", "journal"):
        db.execute(f"DELETE FROM {table} WHERE run = ?", (key,))
    db.executemany("DELETE FROM metric WHERE key = ? AND run = ?", [(name, key) for name in metric_keys(db)])
    db.execute("DELETE FROM problem WHERE experiment = ? AND file GLOB ?", (experiment, f"{run_id}/*"))


def _ingest_journals(db: sqlite3.Connection, key: int, experiment: str, files: RunFiles) -> int:
    old_marks, journals = read_marks(db, key), dict(files.journals())
    if old_marks.keys() - journals.keys():
        raise Replaced
    before = _resume_steps(old_marks)
    marks = {attempt: old_marks.get(attempt) or Mark(Digest(key, attempt)) for attempt in journals}
    for attempt, path in journals.items():
        _read_new_records(db, marks[attempt], experiment, f"{files.id}/{path.name}", files)
    steps = _resume_steps(marks)
    for attempt in steps.keys() - before.keys():
        _supersede(db, key, attempt, steps[attempt])
    written = 0
    for attempt, mark in marks.items():
        limit = min((step for newer, step in steps.items() if newer > attempt), default=None)
        written += _write_rows(db, mark, limit)
        write_mark(db, mark)
    _summarise(db, key, [mark.digest.summary for mark in marks.values()])
    return written


def _resume_steps(marks: Mapping[int, Mark]) -> dict[int, int]:
    steps = {attempt: mark.digest.summary.resume_step for attempt, mark in marks.items()}
    return {attempt: step for attempt, step in steps.items() if step is not None}


def _read_new_records(
    db: sqlite3.Connection, mark: Mark, experiment: str, name: str, files: RunFiles
) -> None:
    try:
        bad = mark.advance(files.path.parent / name)
    except OSError as error:
        late = is_late(files.path.parent / name, error)  # the next sync tries again
        rows = [] if late else [(experiment, name, UNREADABLE, problem_text(error))]
    else:
        rows = [(experiment, name, line.offset, line.reason) for line in bad or ()]
    db.executemany("INSERT OR REPLACE INTO problem VALUES (?, ?, ?, ?)", rows)


def _supersede(db: sqlite3.Connection, run: int, attempt: int, step: int) -> None:
    """Delete the rows of older attempts for steps that `attempt`, resumed at `step`, repeats."""
    where = "run = ? AND attempt < ? AND step"
    values = (run, attempt, step)
    db.execute(f"DELETE FROM window WHERE {where} > ?", values)
    db.execute(f"DELETE FROM evaluation WHERE {where} > ?", values)
    db.execute(f"DELETE FROM event WHERE {where} > ? AND event IN ({_EVENTS})", values)
    metrics = [(key, *values) for key in metric_keys(db)]
    db.executemany(f"DELETE FROM metric WHERE key = ? AND {where} >= ?", metrics)


def _write_rows(db: sqlite3.Connection, mark: Mark, limit: int | None) -> int:
    written = 0
    for table, rows in mark.digest.take_rows().items():
        current_rows = rows if limit is None else [row for row in rows if _is_current_row(table, row, limit)]
        db.executemany(_UPSERT[table], current_rows)
        written += len(current_rows)
    return written


def _is_current_row(table: str, row: Row, limit: int) -> bool:
    step: int = row[_STEP_INDEX[table]]
    if table == "metric":
        return step < limit
    return step <= limit or (table == "event" and row[_EVENT_INDEX] not in REPLACEABLE_EVENTS)


def _upsert(table: str, columns: tuple[str, ...], key: tuple[str, ...]) -> str:
    updates = ", ".join(f"{name} = excluded.{name}" for name in columns if name not in key)
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
        f" ON CONFLICT ({', '.join(key)}) DO UPDATE SET {updates} WHERE excluded.attempt >= {table}.attempt"
    )


_COLUMNS = {name: tuple(TABLES[name].columns) for name in ("window", "evaluation", "event")} | {
    "metric": METRIC
}
_STEP_INDEX = {name: columns.index("step") for name, columns in _COLUMNS.items()}
_EVENT_INDEX = _COLUMNS["event"].index("event")
_UPSERT = {
    name: _upsert(name, _COLUMNS[name], TABLES[name].key) for name in ("window", "evaluation", "event")
}
_UPSERT["metric"] = _upsert("metric", METRIC, METRIC[:4])


def _summarise(db: sqlite3.Connection, run: int, attempts: list[Summary]) -> None:
    """Update the run's row from its attempts, oldest first."""
    newest = attempts[-1] if attempts else Summary()
    written = [attempt for attempt in attempts if attempt.records] or [Summary()]
    saved = [attempt for attempt in attempts if attempt.checkpoint_step is not None] or [Summary()]
    rates = [attempt.learning_rate for attempt in attempts if attempt.learning_rate is not None]
    columns: dict[str, Any] = {
        "attempts": len(attempts),
        "first_attempt_time": next((a.start_time for a in attempts if a.start_time is not None), None),
        "last_seen": max((a.last_time for a in attempts if a.last_time is not None), default=None),
        "step": written[-1].step,
        "train_seconds": written[-1].train_seconds,
        "learning_rate": rates[-1] if rates else None,
        "attempt_submission": newest.submission,
        "end_submission": newest.submission if newest.end_status else None,
        "superseded": _count_superseded(db, run, attempts),
        "best_validation_loss": db.execute(_BEST_LOSS, (run, written[-1].step)).fetchone()[0],
    }
    for name in ("end_status", "end_reason", "end_time", "last_event", "last_event_reason"):
        columns[name] = getattr(newest, name)
    for name in ("checkpoint_step", "checkpoint_bytes", "checkpoint_seconds"):
        columns[name] = getattr(saved[-1], name)
    updates = ", ".join(f"{name} = ?" for name in columns)
    db.execute(f"UPDATE run SET {updates} WHERE key = ?", (*columns.values(), run))


def _count_superseded(db: sqlite3.Connection, run: int, attempts: list[Summary]) -> int:
    """Return the number of superseded records: those of replaceable kinds without a row."""
    if len(attempts) < 2:
        return 0
    current_rows: int = db.execute(_CURRENT_ROWS, {"run": run}).fetchone()[0]
    return sum(attempt.replaceable for attempt in attempts) - current_rows


_BEST_LOSS = """
    SELECT min(loss) FROM evaluation
    WHERE run = ? AND split = 'validation' AND loss > -9e999 AND loss < 9e999 AND (NOT at_stop OR step = ?)
"""
_CURRENT_ROWS = f"""
    SELECT (SELECT count(*) FROM window WHERE run = :run)
         + (SELECT count(DISTINCT step) FROM evaluation WHERE run = :run)
         + (SELECT count(*) FROM metric WHERE key = 'train_seconds' AND run = :run)
         + (SELECT count(*) FROM event WHERE run = :run AND event IN ({_EVENTS}))
"""
