"""Read the log files of runs, which submitit writes: all attempts in order."""

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
"""Seconds between two reads of a log that is followed."""
CHUNK = 1 << 16
log = logging.getLogger("alphagrid")

LONGEST_LINE = 400
"""Maximum characters of a log line that is shown with a failure."""


class Job(Protocol):
    """A job of a run."""

    @property
    def cluster(self) -> str:
        """slurm, local or debug."""

    @property
    def job_id(self) -> str:
        """The scheduler's job id."""


@dataclass(frozen=True)
class Outlook:
    """What a reader of a run's log needs to know about the run."""

    name: str
    state: State
    reason: str | None = None
    cluster: str | None = None
    """The cluster of its newest submission."""
    jobs: tuple[Job, ...] = ()
    """All jobs of the run, oldest first."""
    goes_on: bool = False
    """Whether the run continues, or may continue, without the user."""
    poll_seconds: float = 0.0
    """Pause between two queries to its scheduler."""

    @property
    def in_words(self) -> str:
        """Return the run's state and reason as text."""
        return f"{self.name}: {self.state}" + (f" ({self.reason})" if self.reason else "")


def log_files(files: ExperimentFiles, run_id: str, jobs: Iterable[Job] = ()) -> list[Path]:
    """Return a run's log files, oldest attempt first; those of processes that wrote no journal come last.

    `jobs` are the run's jobs; they add the logs of jobs that have not written a journal yet.
    """
    local = sorted((files.submitit / run_id).glob("*_log.*"), key=_modification_time)
    began = [attempt.job for attempt in attempts.read(files.run(run_id)) if attempt.job is not None]
    job_keys = [(str(job["cluster"]), str(job["job_id"])) for job in began]
    job_keys += [(job.cluster, job.job_id) for job in jobs]
    paths = [path for job in job_keys for path in _paths_of_job(files, run_id, *job)]
    return list(dict.fromkeys([*paths, *local]))


def read(files: ExperimentFiles, run_id: str, outlook: Outlook) -> Iterator[str]:
    """Yield the text of a run's logs, each file after its name.

    Raises:
        UserError: the run has no log.
    """
    paths = log_files(files, run_id, outlook.jobs)
    if not paths:
        raise UserError(f"{visible(outlook.name)} has no log", absence(outlook))
    for path in paths:
        yield _file_header(path)
        yield from (chunk.decode(errors="replace") for chunk in _read_chunks(path, 0))


def absence(outlook: Outlook) -> str:
    """Return why a run has no log."""
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

    While there is no new text, `say` is called once for each state that the run waits in.
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
    """Return the last non-empty lines of a run's newest log; none if there is no log."""
    paths = log_files(files, run_id, jobs)
    if not paths:
        return []
    log_lines = b"".join(_read_chunks(paths[-1], -CHUNK)).decode(errors="replace").splitlines()
    return [shortened(line, LONGEST_LINE) for line in log_lines if line.strip()][-lines:]


class _LogReader:
    """Reads the new text of a run's logs."""

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
    """Polls the state of a run.

    It respects the scheduler's poll interval, and confirms a state that may be temporary with a second query.
    """

    def __init__(self, look: Callable[[], Outlook]) -> None:
        self._look = look
        self._asked_at = float("-inf")
        self._outlook: Outlook | None = None
        self._was_unsure = False

    def outlook(self) -> tuple[Outlook, bool]:
        """Return the newest outlook, and whether the run is over."""
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
    """Yield the content of a log from `offset` (if negative, from the end); nothing if the file is gone."""
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
    """Return a file's modification time; the current time if the file is listed but cannot be read yet."""
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()
