"""What runs wrote to standard output and error: submitit's log files, all attempts in order."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..errors import UserError
from ..printable import visible
from ..store.files import has_not_arrived, open_file
from ..store.layout import JOB_ID, ExperimentFiles
from ..store.messages import shortened
from .runs import attempts
from .runs.states import UNSURE, State
from .schedulers import SCHEDULERS

PERIOD = 0.5
"""Seconds between two looks at a log that is followed."""
CHUNK = 1 << 16
log = logging.getLogger("alphagrid")

LONGEST_LINE = 400
"""Characters of a line that is shown with a failure."""


class Job(Protocol):
    """A job that a run was given to."""

    @property
    def cluster(self) -> str:
        """slurm, local or debug."""

    @property
    def job_id(self) -> str:
        """Its id there."""


@dataclass(frozen=True)
class Outlook:
    """What there is to know of a run whose log one reads."""

    name: str
    state: State
    reason: str | None = None
    cluster: str | None = None
    """Where its newest submission sent it."""
    jobs: tuple[Job, ...] = ()
    """All jobs that it was given to, oldest first."""
    goes_on: bool = False
    """Whether it will go on by itself, or may."""
    poll_seconds: float = 0.0
    """Pause between two questions to its scheduler."""

    @property
    def in_words(self) -> str:
        """Return what the run is doing."""
        return f"{self.name}: {self.state}" + (f" ({self.reason})" if self.reason else "")


def log_files(files: ExperimentFiles, run_id: str, jobs: Iterable[Job] = ()) -> list[Path]:
    """Return a run's log files, oldest attempt first; processes that died before they began come last.

    `jobs` are those that it was given to, for those that have not begun.
    """
    local = sorted((files.submitit / run_id).glob("*_log.*"), key=_modification_time)
    began = [attempt.job for attempt in attempts.read(files.run(run_id)) if attempt.job is not None]
    job_keys = [(str(job["cluster"]), str(job["job_id"])) for job in began]
    job_keys += [(job.cluster, job.job_id) for job in jobs]
    paths = [path for job in job_keys for path in _paths_of_job(files, run_id, *job)]
    return list(dict.fromkeys([*paths, *local]))


def read(files: ExperimentFiles, run_id: str, outlook: Outlook) -> Iterator[str]:
    """Yield the text of a run's logs, each file under its name.

    Raises:
        UserError: there is none.
    """
    paths = log_files(files, run_id, outlook.jobs)
    if not paths:
        raise UserError(f"{visible(outlook.name)} has no log", absence(outlook))
    for path in paths:
        yield _file_header(path)
        yield from (chunk.decode(errors="replace") for chunk in _read_chunks(path, 0))


def absence(outlook: Outlook) -> str:
    """Say why there is no log, of a run that has none."""
    if outlook.cluster is not None and (reason := SCHEDULERS[outlook.cluster].log_absence) is not None:
        return reason
    if outlook.state in ("pending", "requeued"):
        return f"it has not started: {outlook.reason or 'it waits for its turn'}; logs -f waits with it"
    if outlook.state == "running":
        return "it has started, and has said nothing yet; logs -f waits for it"
    return f"it is {outlook.state}" + (f": {outlook.reason}" if outlook.reason else "; no log of it is left")


def follow(
    files: ExperimentFiles,
    run_id: str,
    look: Callable[[], Outlook],
    say: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[str]:
    """Yield the text of a run's logs as it grows, across attempts and requeues, until the run is over.

    Where there is nothing to yield, `say` is told what the run waits for, once.
    """
    reader, watch = _LogReader(files, run_id), _RunWatch(look)
    message, silent = "", True
    while True:
        outlook, is_over = watch.outlook()
        for text in reader.news(outlook.jobs):
            silent = False
            yield text
        if is_over:
            if silent:
                say(f"{outlook.name} has no log: {absence(outlook)}")
            return
        waits = outlook.state != "running" or silent
        if waits and outlook.in_words != message:
            message = outlook.in_words
            say(message)
        sleep(PERIOD)


def tail(files: ExperimentFiles, run_id: str, jobs: Iterable[Job] = (), lines: int = 10) -> list[str]:
    """Return the last lines of a run's newest log that say something, none if there is no log."""
    paths = log_files(files, run_id, jobs)
    if not paths:
        return []
    log_lines = b"".join(_read_chunks(paths[-1], -CHUNK)).decode(errors="replace").splitlines()
    return [shortened(line, LONGEST_LINE) for line in log_lines if line.strip()][-lines:]


class _LogReader:
    """Reads what logs have gained."""

    def __init__(self, files: ExperimentFiles, run_id: str) -> None:
        self._files, self._run_id = files, run_id
        self._read_until: dict[Path, int] = {}
        self._current: Path | None = None

    def news(self, jobs: Iterable[Job]) -> Iterator[str]:
        for path in log_files(self._files, self._run_id, jobs):
            for chunk in _read_chunks(path, self._read_until.get(path, 0)):
                if path != self._current:
                    yield _file_header(path)
                    self._current = path
                self._read_until[path] = self._read_until.get(path, 0) + len(chunk)
                yield chunk.decode(errors="replace")


class _RunWatch:
    """Asks how the run is doing, but Slurm not too often; and twice, where the answer may pass."""

    def __init__(self, look: Callable[[], Outlook]) -> None:
        self._look = look
        self._asked_at = float("-inf")
        self._outlook: Outlook | None = None
        self._was_unsure = False

    def outlook(self) -> tuple[Outlook, bool]:
        """Return what was last known, and whether the run is over."""
        if self._outlook is not None and time.monotonic() < self._asked_at + self._outlook.poll_seconds:
            return self._outlook, False
        self._outlook, self._asked_at = self._look(), time.monotonic()
        is_over, was_unsure = not self._outlook.goes_on, self._was_unsure
        self._was_unsure = self._outlook.state in UNSURE
        return self._outlook, is_over and (was_unsure or not self._was_unsure)


def _paths_of_job(files: ExperimentFiles, run_id: str, cluster: str, job_id: str) -> list[Path]:
    if not JOB_ID.fullmatch(job_id):  # a journal may say anything
        return []
    if cluster not in SCHEDULERS:
        return []
    folder = SCHEDULERS[cluster].log_folder(files, run_id)
    names = (f"{job_id}_0_log.out", f"{job_id}_0_log.err")
    return [folder / name for name in names if os.path.exists(folder / name)]  # noqa: PTH110 (never raises)


def _file_header(path: Path) -> str:
    return f"==> {visible(str(path))} <==\n"


def _read_chunks(path: Path, offset: int) -> Iterator[bytes]:
    """Yield what a log holds from `offset` on (if negative, from the end); nothing if it has vanished."""
    try:
        with open_file(path) as file:
            if offset < 0:
                offset = max(0, file.seek(0, os.SEEK_END) + offset)
            file.seek(offset)
            while chunk := file.read(CHUNK):
                yield chunk
    except OSError as error:
        if not has_not_arrived(error):
            log.warning("cannot read %s: %s", path, error.strerror)


def _modification_time(path: Path) -> float:
    """Return when a file was last changed, the present time for one that is listed and not there yet."""
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()
