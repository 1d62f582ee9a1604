"""The tables of the index, and the check that a file is an index.

There are no migrations: alphagrid empties and refills an index of an older version, and refuses a newer one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..errors import UserError

VERSION = 5
"""Increase it with every change of a table or of its content."""
APPLICATION_ID = 0x616C6867
LEAST_SQLITE = (3, 37, 0)

CATEGORIES = (
    "data",
    "forward_backward",
    "optimizer",
    "alpha",
    "diagnostics",
    "evaluation",
    "checkpoint",
    "logging",
)
"""What a window's seconds were spent on."""
COSTS = ("plain", "alpha", "data")
"""Median costs per step in a window: each kind of step without its wait for data, and that wait."""

ALPHA_PARTS = ("curvature", "other")
"""Parts of the seconds that a window spent on α*: products with the matrix G, and all others."""

Columns = Mapping[str, type]


class Table(NamedTuple):
    """A table: the types of its columns, its primary key, and which columns may be NULL."""

    columns: Columns
    key: tuple[str, ...]
    nullable: frozenset[str]


def _table(columns: Columns, key: str, nullable: str = "") -> Table:
    return Table(columns, tuple(key.split()), frozenset(nullable.split()))


_STAMP = {"inode": str, "size": int, "mtime_ns": int}

TABLES: Mapping[str, Table] = {
    "submission": _table(
        {
            "experiment": str, "file": str, **_STAMP,
            "id": str, "created": float, "profile": str, "code_path": str, "named": str, "refusal": str,
            "site": str,
        },
        "experiment file", "code_path refusal site",
    ),
    "entry": _table(
        {
            "experiment": str, "file": str, "run": str, "name": str, "baseline": str, "params": str,
            "config": str, "fresh": int, "job_cluster": str, "job_id": str, "job_submitted": float,
        },
        "experiment file run", "baseline job_cluster job_id job_submitted",
    ),
    "run": _table(
        {
            "key": int, "experiment": str, "id": str, "name": str, "baseline": str, "params": str,
            "config": str, "position": int, "attempts": int, "first_attempt_time": float,
            "last_seen": float, "step": int, "train_seconds": float, "learning_rate": float,
            "best_validation_loss": float, "end_status": str, "end_reason": str, "end_time": float,
            "end_submission": str, "last_event": str, "last_event_reason": str, "attempt_submission": str,
            "last_submission": str, "submitted": float, "job_cluster": str, "job_id": str,
            "job_submitted": float, "cancel_submissions": str, "superseded": int,
            "checkpoint_step": int, "checkpoint_bytes": int, "checkpoint_seconds": float,
        },
        "key",
        "baseline position first_attempt_time last_seen learning_rate best_validation_loss end_status"
        " end_reason end_time end_submission last_event last_event_reason attempt_submission last_submission"
        " submitted job_cluster job_id job_submitted cancel_submissions checkpoint_step checkpoint_bytes"
        " checkpoint_seconds",
    ),
    "journal": _table(
        {
            "run": int, "attempt": int, **_STAMP,
            "offset": int, "seam": bytes, "records": int, "replaceable": int, "bad": int, "last_seq": int,
            "resume_step": int, "fresh": int, "submission": str, "start_time": float, "host": str, "pid": int,
            "device": str, "gpu": str, "threads": int, "versions": str, "stop": str, "job": str,
            "last_time": float, "step": int, "train_seconds": float, "learning_rate": float,
            "checkpoint_step": int, "checkpoint_bytes": int, "checkpoint_seconds": float,
            "end_status": str, "end_reason": str, "end_time": float, "last_event": str,
            "last_event_reason": str,
        },
        "run attempt",
        "resume_step submission start_time host pid device gpu threads versions stop job last_time"
        " learning_rate checkpoint_step checkpoint_bytes checkpoint_seconds end_status end_reason end_time"
        " last_event last_event_reason",
    ),
    "window": _table(
        {
            "run": int, "step": int, "attempt": int, "time": float, "train_seconds": float, "steps": int,
            "alpha_steps": int, "loss": float, "lr_min": float, "lr_mean": float, "lr_max": float,
            **{f"{category}_seconds": float for category in CATEGORIES},
            **{f"{kind}_cost": float for kind in COSTS},
            **{f"alpha_{part}_seconds": float for part in ALPHA_PARTS},
        },
        "run step",
        "loss lr_min lr_mean lr_max plain_cost alpha_cost data_cost alpha_curvature_seconds"
        " alpha_other_seconds",
    ),
    "evaluation": _table(
        {
            "run": int, "step": int, "split": str, "attempt": int, "time": float, "train_seconds": float,
            "loss": float, "examples": float, "seconds": float, "at_stop": int,
        },
        "run step split", "loss examples",
    ),
    "event": _table(
        {
            "run": int, "attempt": int, "seq": int, "step": int, "train_seconds": float, "time": float,
            "event": str, "details": str,
        },
        "run attempt seq",
    ),
    "problem": _table(
        {"experiment": str, "file": str, "offset": int, "reason": str}, "experiment file offset"
    ),
}  # fmt: skip

REJECTING_INDEX = "event_rejecting"
REJECTING = """(event = 'rejected' OR event = 'learning_rate' AND instr(details, '"left_out"'))"""
"""SQL condition for events about rejected α*; its index skips the many accepted rates."""

METRIC = ("key", "run", "step", "repeat", "attempt", "value")
METRIC_SQL = """
    CREATE TABLE metric (
        key TEXT NOT NULL, run INTEGER NOT NULL, step INTEGER NOT NULL, repeat INTEGER NOT NULL,
        attempt INTEGER NOT NULL, value REAL, PRIMARY KEY (key, run, step, repeat)
    ) STRICT, WITHOUT ROWID
"""


def require_sqlite(version: tuple[int, ...] = sqlite3.sqlite_version_info) -> None:
    """Refuse an SQLite without STRICT tables.

    Raises:
        UserError: SQLite is older than 3.37.
    """
    if version < LEAST_SQLITE:
        version_text = ".".join(map(str, version))
        raise UserError(
            f"Python's SQLite is {version_text}; alphagrid needs 3.37 or newer",
            "use a newer Python, or conda's sqlite",
        )


def is_current(db: sqlite3.Connection, path: str) -> bool:
    """Return whether the file holds this version's tables; if not, `create` may create them.

    Raises:
        UserError: another program or a newer alphagrid made the database; it stays unchanged.
        sqlite3.DatabaseError: the file is not a database.
    """
    version, application = _read_pragma(db, "user_version"), _read_pragma(db, "application_id")
    empty = not db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if application != APPLICATION_ID and not empty:
        raise UserError(f"{path} is not alphagrid's", "move it away; alphagrid then makes its own")
    if version > VERSION:
        raise UserError(
            f"{path} was made by a newer alphagrid (store version {version}; this one knows {VERSION})",
            "update alphagrid, or move the file away: the journals are the truth, it is only their index",
        )
    return version == VERSION and not empty


def create(db: sqlite3.Connection) -> None:
    """Drop all tables and create them empty, inside the caller's transaction."""
    for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
        db.execute(f'DROP TABLE "{name}"')
    for sql in _create_statements():
        db.execute(sql)
    db.execute(METRIC_SQL)
    db.execute("CREATE UNIQUE INDEX run_by_id ON run (experiment, id)")
    db.execute("CREATE INDEX event_warnings ON event (run) WHERE event = 'warning'")
    db.execute(f"CREATE INDEX {REJECTING_INDEX} ON event (run) WHERE {REJECTING}")
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute(f"PRAGMA user_version = {VERSION}")


def _create_statements() -> list[str]:
    from sqlite_utils import Database  # 0.1 to 0.3 s, needed once per index

    maker = Database(memory=True, execute_plugins=False)
    return [
        maker.create_table_sql(
            name,
            dict(columns),
            pk=key if len(key) > 1 else key[0],
            not_null=set(columns) - nullable,
            strict=True,
        )
        for name, (columns, key, nullable) in TABLES.items()
    ]


def _read_pragma(db: sqlite3.Connection, name: str) -> Any:
    return db.execute(f"PRAGMA {name}").fetchone()[0]
