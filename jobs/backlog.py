"""What is left to run on this machine: read off submissions and run directories, remembered nowhere else.

A supervisor may therefore be killed at any moment; the next one finds the same backlog.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from ..errors import UserError
from ..store import claims, submissions
from ..store.layout import ExperimentFiles, Root, RunFiles
from ..store.submissions import Submission
from . import attempts, canary, local, markers, slots, states

log = logging.getLogger("alphagrid.supervisor")

_Signature = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True)
class Job:
    """One run that a submission sent to this machine."""

    files: ExperimentFiles
    run_id: str
    submission: str
    parallel: int
    """How many runs may train at a time, by the submission's profile."""

    @property
    def run(self) -> RunFiles:
        """The run's files."""
        return self.files.run(self.run_id)

    @property
    def key(self) -> tuple[str, str]:
        """What tells runs of one root apart."""
        return self.files.name, self.run_id


def account_of(run: RunFiles, submission: str) -> states.Account:
    """Return what a run owes to `submission`, from its directory."""
    return states.account(attempts.latest(run), submission, markers.is_cancelled(run, submission))


class Backlog:
    """The jobs of one root, in the order in which they were submitted."""

    def __init__(self, root: Root, gpus: tuple[str, ...]) -> None:
        self._root = root
        self._gpus = gpus
        self._seen: dict[str, _Signature] = {}
        self._waiting: dict[tuple[str, str], Job] = {}
        self._elsewhere: dict[tuple[str, str], Job] = {}
        self._newest: dict[tuple[str, str], str] = {}
        self._unproven: dict[str, tuple[ExperimentFiles, Submission]] = {}
        """Submissions whose canary has not reached an evaluation, by their ids."""
        self._hopeless: set[str] = set()
        """Those of them whose canary never will."""
        self._said: set[tuple[str, str]] = set()
        """What could not be read, and why."""

    def __len__(self) -> int:
        """Return how many runs are waiting, or running under another supervisor's worker."""
        return len(self._waiting) + len(self._elsewhere)

    def refresh(self) -> None:
        """Take in what was submitted since the last look, and what runs elsewhere no longer.

        What cannot be read is left out, and said once; it may only not have arrived yet.
        """
        for files in self._root.experiments():
            if not local.runs(self._root.supervisor, files):
                continue  # another user's: the code that it names would run under this user's account
            try:
                self._look_at(files)
            except OSError as error:
                self._say(files.name, str(error))
        self._look_at_canaries()
        for key, job in list(self._elsewhere.items()):
            if not claims.is_at_work(job.run):
                self._waiting[key] = self._elsewhere.pop(key)

    def _look_at(self, files: ExperimentFiles) -> None:
        signature = _signature(files)
        if self._seen.get(files.name) != signature:
            self._seen[files.name] = signature
            self._take_in(files)

    def next(self) -> Job | None:
        """Return the first job that has to run now; what turns out to be settled is dropped."""
        for key, job in list(self._waiting.items()):
            waits = self._waits(job)
            if waits and job.submission not in self._hopeless:
                continue
            if claims.is_at_work(job.run):
                self._elsewhere[key] = self._waiting.pop(key)
            elif waits or self.is_settled(job.run, job.submission):
                del self._waiting[key]
            else:
                return job
        return None

    def is_settled(self, run: RunFiles, submission: str) -> bool:
        """Return whether nothing more is to come of a run; one whose files cannot be read is not started."""
        try:
            return account_of(run, submission).settled
        except (OSError, UserError) as error:
            self._say(f"{run.path.parent.name}/{run.id}", str(error))
            return True

    def _say(self, name: str, problem: str) -> None:
        """Write to the supervisor's log what is left out, once."""
        if (name, problem) not in self._said:
            self._said.add((name, problem))
            log.error("%s: left out: %s", name, problem)

    def _waits(self, job: Job) -> bool:
        """Tell whether a job has to wait for its canary."""
        found = self._unproven.get(job.submission)
        return found is not None and canary.waits(found[1], job.run_id)

    def _look_at_canaries(self) -> None:
        """See which have reached an evaluation, and which have come to an end without."""
        self._hopeless.clear()
        for name, (files, submission) in list(self._unproven.items()):
            leader = files.name, str(submission.canary)
            settled = self.is_settled(files.run(leader[1]), self._newest.get(leader, submission.id))
            if canary.is_proven(files, submission):  # looked at last: it may have ended just now
                del self._unproven[name]
            elif settled:
                self._hopeless.add(name)

    def remove(self, job: Job) -> None:
        """Leave a job to the one who asked, who starts it."""
        self._waiting.pop(job.key, None)

    def put_back(self, job: Job) -> None:
        """Look at a job again: its process has ended, but perhaps not its run."""
        if self._newest.get(job.key) == job.submission:
            self._waiting = {job.key: job, **self._waiting}

    def _take_in(self, files: ExperimentFiles) -> None:
        good, problems = submissions.read_good(files)
        for problem in problems:
            self._say(files.name, problem)
        if problems:
            del self._seen[files.name]  # look again
        sent = {entry.id: submission for submission in good for entry in submission.runs}
        for submission in sent.values():
            self._unproven.pop(submission.id, None)
            if submission.canary is not None and submission.profile["cluster"] == "local":
                self._unproven[submission.id] = (files, submission)
        parallel = {submission.id: self._parallel(submission) for submission in sent.values()}
        for run_id, submission in sent.items():
            job = Job(files, run_id, submission.id, parallel[submission.id])
            if self._newest.get(job.key) == submission.id:
                continue
            self._newest[job.key] = submission.id
            self._waiting.pop(job.key, None)
            self._elsewhere.pop(job.key, None)
            if submission.profile["cluster"] == "local":
                self._waiting[job.key] = job

    def _parallel(self, submission: Submission) -> int:
        configs = [entry.config for entry in submission.runs]
        threads = max((config.get("threads", 1) for config in configs), default=1)
        on_cpu = all(config.get("device") == "cpu" for config in configs)
        gpus = 0 if on_cpu else len(self._gpus)
        return slots.capacity(submission.profile.get("max_parallel"), threads, gpus)


def _signature(files: ExperimentFiles) -> _Signature:
    """Return what changes with every file that is new or written anew, however coarse the disk's times."""
    found = []
    for path in submissions.submission_files(files):
        try:
            stat = path.stat()
        except OSError:  # listed, and not there yet
            continue
        found.append((path.name, stat.st_ino, stat.st_size, stat.st_mtime_ns))
    return tuple(found)
