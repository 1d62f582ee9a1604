"""The local queue: the runs that are due on this machine, read from submissions and run folders.

The queue is stored nowhere else, so a supervisor may be killed at any moment; the next one finds the same
queue.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Literal

from ...errors import SystemRefused, UserError
from ...store import claims, ownership, submissions
from ...store.layout import ExperimentFiles, Root, RunFiles
from ...store.submissions import Submission
from ..runs import disk_record
from . import SCHEDULERS, local_slots

UNREADABLE_SECONDS = 600.0
"""Seconds for which a run with unreadable files is checked again, before it is left out."""

log = logging.getLogger("alphagrid.supervisor")

_Signature = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True)
class Job:
    """One run of a submission for this machine."""

    files: ExperimentFiles
    run_id: str
    submission: str
    parallel: int
    """Maximum number of runs that train at a time, by the submission's profile."""

    @property
    def run(self) -> RunFiles:
        """The run's files."""
        return self.files.run(self.run_id)

    @property
    def name(self) -> str:
        """The job's name in the log."""
        return f"{self.files.name}/{self.run_id}"

    @property
    def key(self) -> tuple[str, str]:
        """The key that is unique among the runs of one root."""
        return self.files.name, self.run_id


class LocalQueue:
    """The jobs of one root, in the order in which they were submitted."""

    def __init__(self, root: Root, gpus: tuple[str, ...]) -> None:
        self._root = root
        self._gpus = gpus
        self._signatures: dict[str, _Signature] = {}
        self._waiting: dict[tuple[str, str], Job] = {}
        self._elsewhere: dict[tuple[str, str], Job] = {}
        self._newest: dict[tuple[str, str], str] = {}
        self._logged: set[tuple[str, str]] = set()
        """Problems that the log already has: name and message."""
        self._unreadable_since: dict[tuple[str, str], float] = {}
        """Time (monotonic) since which a run's files cannot be read."""

    def __len__(self) -> int:
        """Return the number of runs that wait, or that another supervisor's worker runs."""
        return len(self._waiting) + len(self._elsewhere)

    def refresh(self) -> None:
        """Add the runs submitted since the last refresh, and those that no longer run elsewhere.

        Files that cannot be read are left out and logged once; they may be not yet visible.
        """
        for files in self._root.experiments():
            if ownership.other_owner(files) is not None:
                continue  # the code of another user's experiment would run under this user's account
            try:
                self._refresh_experiment(files)
            except (OSError, UserError) as error:
                self._log_once(files.name, f"left out: {error}")
        for key, job in list(self._elsewhere.items()):
            if self.job_state(job) != "at work":
                self._waiting[key] = self._elsewhere.pop(key)

    def _refresh_experiment(self, files: ExperimentFiles) -> None:
        signature = _files_signature(files)
        if self._signatures.get(files.name) != signature:
            self._signatures[files.name] = signature
            self._add_jobs(files)

    def next(self) -> Job | None:
        """Return the first job that is due; jobs whose runs are settled are dropped."""
        for key, job in list(self._waiting.items()):
            job_state = self.job_state(job)
            if job_state == "at work":
                self._elsewhere[key] = self._waiting.pop(key)
            elif job_state == "over":
                del self._waiting[key]
            else:
                return job
        return None

    def job_state(self, job: Job) -> Literal["at work", "over", "due"]:
        """Return the state of a job: a process has its run, its run is settled, or it is due.

        A run whose files cannot be read counts as at work, because a network file system may answer again a
        moment later. After `UNREADABLE_SECONDS`, or if a file is damaged, it is left out.
        """
        try:
            is_at_work = claims.is_at_work(job.run)
            is_over = not is_at_work and disk_record.read(job.run, job.submission).settled
        except (OSError, UserError) as error:
            since = self._unreadable_since.setdefault(job.key, time.monotonic())
            may_pass = isinstance(error, OSError | SystemRefused)
            is_left_out = not may_pass or time.monotonic() - since > UNREADABLE_SECONDS
            self._log_once(job.name, f"{'left out' if is_left_out else 'looked at again'}: {error}")
            return "over" if is_left_out else "at work"
        self._unreadable_since.pop(job.key, None)
        return "at work" if is_at_work else "over" if is_over else "due"

    def _log_once(self, name: str, problem: str) -> None:
        """Write a problem to the supervisor's log, once."""
        if (name, problem) not in self._logged:
            self._logged.add((name, problem))
            log.error("%s: %s", name, problem)

    def remove(self, job: Job) -> None:
        """Remove a job that the caller starts."""
        self._waiting.pop(job.key, None)

    def set_aside(self, job: Job, problem: str) -> None:
        """Try a job that could not be started again after the next refresh: a full disk may be cleared."""
        self._log_once(job.name, problem)
        self._elsewhere[job.key] = job

    def put_back(self, job: Job) -> None:
        """Put a job first in the queue after its process ended, because its run may not have ended."""
        if self._newest.get(job.key) == job.submission:
            self._waiting = {job.key: job, **self._waiting}

    def _add_jobs(self, files: ExperimentFiles) -> None:
        good, problems = submissions.read_good(files)
        for problem in problems:
            self._log_once(files.name, f"left out: {problem}")
        if problems:
            del self._signatures[files.name]  # look again
        submission_of_run = {entry.id: submission for submission in good for entry in submission.runs}
        limits = {
            submission.id: self._parallel_limit(submission) for submission in submission_of_run.values()
        }
        for run_id, submission in submission_of_run.items():
            job = Job(files, run_id, submission.id, limits[submission.id])
            if self._newest.get(job.key) == submission.id:
                continue
            self._newest[job.key] = submission.id
            self._waiting.pop(job.key, None)
            self._elsewhere.pop(job.key, None)
            if SCHEDULERS[submission.profile["cluster"]].has_disk_queue:
                self._waiting[job.key] = job

    def _parallel_limit(self, submission: Submission) -> int:
        configs = [entry.config for entry in submission.runs]
        threads = max((config.get("threads", 1) for config in configs), default=1)
        on_cpu = all(config.get("device") == "cpu" for config in configs)
        gpus = 0 if on_cpu else len(self._gpus)
        return local_slots.capacity(submission.profile.get("max_parallel"), threads, gpus)


def _files_signature(files: ExperimentFiles) -> _Signature:
    """Return a value that changes with every new or rewritten file, even if the disk's times are coarse."""
    entries = []
    for path in submissions.submission_files(files):
        try:
            stat = path.stat()
        except OSError:  # listed, and not there yet
            continue
        entries.append((path.name, stat.st_ino, stat.st_size, stat.st_mtime_ns))
    return tuple(entries)
