"""Ingest submissions: the runs of an experiment, their names, and the submissions that send them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from typing import Any

from ..errors import UserError
from . import numbers
from .files import is_late
from .layout import ExperimentFiles
from .messages import shortened
from .scan import ExperimentScan, Stamp
from .shapes import read_config


def sync_submissions(db: sqlite3.Connection, files: ExperimentFiles, scan: ExperimentScan) -> bool:
    """Sync the tables `submission` and `entry` with the files; return whether anything changed."""
    sql = "DELETE FROM problem WHERE experiment = ? AND file GLOB 'submissions/*'"
    db.execute(sql, (files.name,))  # files that could not be read are tried again
    indexed_stamps = _read_stamps(db, files.name)
    gone = indexed_stamps.keys() - scan.submissions.keys()
    changed = [name for name, stamp in scan.submissions.items() if indexed_stamps.get(name) != stamp]
    for name in (*gone, *changed):
        _delete_submission(db, files.name, name)
    for name in changed:
        _ingest_submission(db, files, name, scan.submissions[name])
    return bool(gone or changed)


def assign(db: sqlite3.Connection, files: ExperimentFiles, unsent: Iterable[str]) -> None:
    """Write config, job and name of the experiment's runs from its submissions.

    The newest submission that sends a run sets its config and job. The newest submission of all sets its
    name. An unsent run has journals, but no submission sends it: its name is its id, and its config is the
    copy that its worker made.
    """
    titles = _read_titles(db, files.name)
    # Rows are ordered by submission, so each run keeps its newest one.
    sent_rows = {row[0]: row for row in db.execute(_ENTRIES, (files.name,))}
    rows = [*sent_rows.values(), *(_unsent_row(files, run) for run in sorted(unsent))]
    db.executemany(_ASSIGN, [(files.name, *_add_title(row, titles)) for row in rows])


def _read_stamps(db: sqlite3.Connection, experiment: str) -> dict[str, Stamp]:
    sql = "SELECT file, inode, size, mtime_ns FROM submission WHERE experiment = ?"
    return {name: Stamp(*stamp) for name, *stamp in db.execute(sql, (experiment,))}


def _delete_submission(db: sqlite3.Connection, experiment: str, name: str) -> None:
    for table in ("submission", "entry"):
        db.execute(f"DELETE FROM {table} WHERE experiment = ? AND file = ?", (experiment, name))


def _ingest_submission(db: sqlite3.Connection, files: ExperimentFiles, name: str, stamp: Stamp) -> None:
    from .submissions import read  # imports pydantic, which a sync without new submissions does not need

    try:
        submission = read(files.submissions / name)
    except (UserError, OSError) as error:
        if isinstance(error, OSError) and is_late(files.submissions / name, error):
            return  # the next sync tries again
        row = (files.name, f"submissions/{name}", 0, problem_text(error))
        db.execute("INSERT INTO problem VALUES (?, ?, ?, ?)", row)
        return
    texts = (_to_json(submission.profile), submission.code_path, _titles_json(submission))
    fate = (submission.refusal, submission.site)
    head = (files.name, name, *stamp, submission.id, submission.created, *texts, *fate)
    db.execute(f"INSERT INTO submission VALUES ({', '.join('?' * len(head))})", head)
    entries = [(files.name, name, *_entry_row(run, submission.jobs.get(run.id))) for run in submission.runs]
    db.executemany("INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", entries)


def problem_text(error: Exception) -> str:
    """Return a short message why a file cannot be read, safe for any encoding."""
    return shortened(
        f"cannot be read: {error.strerror or error}" if isinstance(error, OSError) else str(error)
    )


def _to_json(value: Any) -> str:
    """Return JSON that SQLite can read; a number that is not finite becomes a string."""
    try:
        return _encoder.encode(value)
    except ValueError:
        return numbers.encode(value)


_encoder = json.JSONEncoder(allow_nan=False)


def _entry_row(run: Any, job: Any) -> tuple[Any, ...]:
    texts = (_to_json(run.params), _to_json(run.config), int(run.fresh))
    reference = (None, None, None) if job is None else (job.cluster, job.job_id, job.submitted)
    return (run.id, run.name, run.baseline, *texts, *reference)


def _titles_json(submission: Any) -> str:
    """Return, as JSON, [name, baseline, params as JSON] of every run in the specification, by id."""
    titles = {
        run: [title.name, title.baseline, _to_json(title.params)] for run, title in submission.named.items()
    }
    return _to_json(titles)


def _read_titles(db: sqlite3.Connection, experiment: str) -> dict[str, tuple[Any, ...]]:
    """Return (position, name, baseline, params) of each run in the newest submission's specification."""
    sql = "SELECT named FROM submission WHERE experiment = ? ORDER BY created DESC, id DESC LIMIT 1"
    newest = db.execute(sql, (experiment,)).fetchone()
    titles = {} if newest is None else json.loads(newest[0])
    return {run: (position, *title) for position, (run, title) in enumerate(titles.items())}


def _add_title(row: tuple[Any, ...], titles: dict[str, tuple[Any, ...]]) -> tuple[Any, ...]:
    """Return position, id, name, baseline, params and the rest of a run's row."""
    run, *title = row[:4]
    position, *title = titles.get(run, (None, *title))
    return (position, run, *title, *row[4:])


def _unsent_row(files: ExperimentFiles, run: str) -> tuple[Any, ...]:
    try:
        config = _to_json(read_config(files.run(run)))
    except (OSError, ValueError):  # `store check` reports it
        config = "{}"
    return (run, run, None, "{}", config, None, None, None, None, None)


_ENTRIES = """
    SELECT run, name, baseline, params, config, submission.id, created, job_cluster, job_id, job_submitted
    FROM entry JOIN submission USING (experiment, file) WHERE experiment = ? ORDER BY created, submission.id
"""
_COLUMNS = (
    *("position", "id", "name", "baseline", "params", "config", "last_submission", "submitted"),
    *("job_cluster", "job_id", "job_submitted"),
)
_ASSIGN = f"""
    INSERT INTO run (experiment, {", ".join(_COLUMNS)}, attempts, step, train_seconds, superseded)
    VALUES (?, {", ".join("?" * len(_COLUMNS))}, 0, 0, 0, 0)
    ON CONFLICT (experiment, id) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in _COLUMNS)}
"""
