"""Scan the files of an experiment, as far as a sync needs before it opens a file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from .files import is_late
from .layout import CANCEL_MARKER, JOURNAL, RUN_ID, SUBMISSION, ExperimentFiles


class Stamp(NamedTuple):
    """A file's identity and state; equal stamps mean equal content."""

    inode: str
    """Text, because it may exceed SQLite's integers."""
    size: int
    mtime_ns: int


MISSING = Stamp("", -1, 0)
"""Stamp of a file whose `stat` fails, for example the missing target of a link."""


@dataclass
class RunScan:
    """The files of one run that are ingested."""

    journals: dict[int, Stamp] = field(default_factory=dict)
    cancelled: bool = False


@dataclass(frozen=True)
class ExperimentScan:
    """The files of one experiment that are ingested."""

    submissions: dict[str, Stamp]
    runs: dict[str, RunScan]
    unreadable: dict[str, OSError] = field(default_factory=dict)
    """Errors of run folders that cannot be listed; these runs are missing in `runs`."""


def scan(files: ExperimentFiles) -> ExperimentScan:
    """Scan an experiment's folder: one listing per run, one `stat` per journal.

    Raises:
        OSError: the experiment's folder, or that of its submissions, exists and cannot be listed.
    """
    stamps = {e.name: _stamp_of(e) for e in _entries(files.submissions) if SUBMISSION.fullmatch(e.name)}
    submissions = {name: entry_stamp for name, entry_stamp in stamps.items() if entry_stamp is not None}
    scanned = ExperimentScan(submissions, {})
    for entry in _entries(files.path):
        if RUN_ID.fullmatch(entry.name):
            try:
                scanned.runs[entry.name] = _scan_run(entry.path)
            except OSError as error:
                scanned.unreadable[entry.name] = error
    return scanned


def stamp(stat: os.stat_result) -> Stamp:
    """Return the stamp of a `stat` result."""
    return Stamp(str(stat.st_ino), stat.st_size, stat.st_mtime_ns)


def _stamp_of(entry: os.DirEntry[str]) -> Stamp | None:
    """Return the stamp of a file that is listed; None if it has not arrived yet."""
    try:
        return stamp(entry.stat())
    except OSError as error:
        return None if is_late(Path(entry.path), error) else MISSING


def _scan_run(folder: str) -> RunScan:
    run_scan = RunScan()
    for entry in _entries(folder):
        if match := JOURNAL.fullmatch(entry.name):
            if (journal_stamp := _stamp_of(entry)) is not None:
                run_scan.journals[int(match[1])] = journal_stamp
        elif entry.name == CANCEL_MARKER:
            run_scan.cancelled = True
    return run_scan


def _entries(folder: Path | str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except (FileNotFoundError, NotADirectoryError):
        return
