"""Sync the index with the files: incremental, idempotent, and safe to interrupt anywhere.

A transaction commits rows together with the journal's watermark, so the next sync reads again what was not
committed. A sync also removes what is no longer on disk. A synced index equals a rebuilt one.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from .files import is_late, read_object
from .ingest_run import UNREADABLE, forget_run, ingest_run
from .layout import ExperimentFiles, Root
from .manifests import assign, problem_text, sync_submissions
from .scan import ExperimentScan, scan
from .watermarks import news

BATCH_ROWS = 20_000
"""A transaction is committed when it has written about so many rows."""


@dataclass(frozen=True)
class Synced:
    """Result of a sync."""

    runs: int = 0
    """Runs with new records."""
    rows: int = 0
    """Rows written."""
    complete: bool = True
    """False if another process was ingesting and did not finish in time; this sync then did nothing."""


def sync(db: sqlite3.Connection, root: Root, experiments: Collection[str] | None = None) -> Synced:
    """Ingest new records, of all experiments or of those in `experiments`. Only one process may do so.

    If the folder of an experiment or a run cannot be listed, its rows stay, and the table `problem` notes it.

    Raises:
        OSError: the root cannot be listed.
    """
    on_disk = {files.name: files for files in root.experiments()}
    experiment_names = on_disk.keys() | _indexed_experiments(db)
    runs = rows = 0
    for name in sorted(experiment_names if experiments is None else experiment_names & set(experiments)):
        with_news, written = _sync_experiment(db, root.experiment(name), present=name in on_disk)
        runs, rows = runs + with_news, rows + written
    return Synced(runs, rows)


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Commit at the end, roll back at an exception; inside another transaction, do neither."""
    if db.in_transaction:
        yield
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # SQLite itself rolls back when the disk is full
            db.execute("ROLLBACK")
        raise


def _indexed_experiments(db: sqlite3.Connection) -> set[str]:
    tables = ("submission", "run", "problem")
    sql = " UNION ".join(f"SELECT experiment FROM {table}" for table in tables)
    return {name for (name,) in db.execute(sql)}


def _sync_experiment(db: sqlite3.Connection, files: ExperimentFiles, present: bool) -> tuple[int, int]:
    """Sync one experiment; return how many runs had new records, and the rows written."""
    try:
        disk_scan = scan(files) if present else ExperimentScan({}, {})
    except OSError as error:
        with transaction(db):
            _note_folders(db, files, {os.path.relpath(error.filename, files.path): error})
        return 0, 0
    with transaction(db):
        changed = sync_submissions(db, files, disk_scan)
        _sync_runs(db, files, disk_scan, changed)
        _sync_markers(db, files, disk_scan)
        _note_folders(db, files, disk_scan.unreadable)
    journals = {run: of_run.journals for run, of_run in disk_scan.runs.items()}
    with_news = [(run, key) for run, key in news(db, files.name, journals) if run not in disk_scan.unreadable]
    return len(with_news), _ingest_runs(db, files, with_news)


def _note_folders(db: sqlite3.Connection, files: ExperimentFiles, unreadable: Mapping[str, OSError]) -> None:
    """Note which folders cannot be listed, unless they may still arrive."""
    db.execute("DELETE FROM problem WHERE experiment = ? AND offset = ?", (files.name, UNREADABLE))
    rows = [
        (files.name, f"{name}/", UNREADABLE, problem_text(error))
        for name, error in unreadable.items()
        if not is_late(files.path / name, error)
    ]
    db.executemany("INSERT OR REPLACE INTO problem VALUES (?, ?, ?, ?)", rows)


def _ingest_runs(db: sqlite3.Connection, files: ExperimentFiles, runs: Iterable[tuple[str, int]]) -> int:
    written, waiting = 0, deque(runs)
    while waiting:
        batch = 0
        with transaction(db):
            while waiting and batch < BATCH_ROWS:
                run, key = waiting.popleft()
                batch += ingest_run(db, key, files.name, files.run(run))
        written += batch
    return written


def _sync_runs(
    db: sqlite3.Connection, files: ExperimentFiles, disk_scan: ExperimentScan, changed: bool
) -> None:
    """Keep one row for each run that a submission sends or that has a journal; delete the others."""
    experiment = (files.name,)
    sent_runs = {
        run for (run,) in db.execute("SELECT DISTINCT run FROM entry WHERE experiment = ?", experiment)
    }
    run_keys = dict(db.execute("SELECT id, key FROM run WHERE experiment = ?", experiment).fetchall())
    unsent = {run for run, of_run in disk_scan.runs.items() if of_run.journals} - sent_runs
    for run in run_keys.keys() - sent_runs - unsent - disk_scan.unreadable.keys():
        forget_run(db, run_keys[run], files.name, run)
        db.execute("DELETE FROM run WHERE key = ?", (run_keys[run],))
    if changed or unsent:
        assign(db, files, unsent)


def _sync_markers(db: sqlite3.Connection, files: ExperimentFiles, disk_scan: ExperimentScan) -> None:
    """Record which submissions each run's cancel marker cancels."""
    sql = "SELECT id, cancel_submissions FROM run WHERE experiment = ?"
    for run, indexed_submissions in db.execute(sql, (files.name,)).fetchall():
        if run in disk_scan.unreadable:
            continue
        cancelled = run in disk_scan.runs and disk_scan.runs[run].cancelled
        submissions = _cancelled_submissions(files, run) if cancelled else None
        if submissions != indexed_submissions:
            values = (submissions, files.name, run)
            db.execute("UPDATE run SET cancel_submissions = ? WHERE experiment = ? AND id = ?", values)


def _cancelled_submissions(files: ExperimentFiles, run: str) -> str | None:
    try:
        return json.dumps([str(name) for name in read_object(files.run(run).cancel_marker)["submissions"]])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # `store check` reports it
