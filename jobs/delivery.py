"""A submission on its way into Slurm's queue: arrays that fit, held until all is written down."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..cluster_profiles.loader import Profile
from ..errors import SystemRefused
from ..slurm import scontrol, squeue
from ..slurm.sbatch import Silent, TooMany, sbatch
from ..store.layout import ExperimentFiles
from ..store.submissions import JobRef, Submission
from . import duplicates, environment, handed, slurm
from .duplicates import Rival
from .slurm_states import is_of_submission

PYTHON = "env --ignore-signal=TERM --ignore-signal=USR2 -- "
"""Signals that arrive before Python has handlers would end the job, and so its run, for good."""


@dataclass
class Delivery:
    """What sends one submission's runs, and what has come of it so far."""

    files: ExperimentFiles
    submission: Submission
    profile: Profile
    record: Callable[[dict[str, JobRef], Collection[str]], None]
    """Writes down the jobs, by run, before they are released, and which runs other jobs have."""
    past: Sequence[Submission] = ()
    """The earlier submissions that were read before the runs were chosen."""
    keep_open: Sequence[int] = ()
    """Descriptors that stay open while an sbatch lives, be it longer than this process."""
    jobs: dict[str, JobRef] = field(default_factory=dict)
    """Those that the cluster took."""
    lost: dict[str, Rival | None] = field(default_factory=dict)
    """The runs that another submitter's jobs have, with those jobs (`duplicates`)."""
    _sent_at: float = field(default=0.0, init=False)
    """When the newest array was submitted (Unix time): close to Slurm's own time, by which a job is known."""

    def run(self) -> None:
        """Send everything.

        Raises:
            TooMany: the cluster takes no more jobs now; `jobs` says what it took.
            SystemRefused: sbatch refused or did not answer; `jobs` likewise.
        """
        try:
            self._send_what_fits()
        except TooMany as limit:
            if self.jobs or limit.is_certain:
                raise
            raise limit.as_refusal() from limit
        finally:
            if self.jobs:
                self._record_and_release()

    def _record_and_release(self) -> None:
        """Write the jobs down that no older job forestalls, cancel the others, and release those.

        Where they cannot be written down, all are cancelled.
        """
        sent = [job.job_id for job in self.jobs.values()]
        try:
            self.lost = duplicates.lost_runs(self.files, self.jobs, self.past)
            superfluous = [self.jobs.pop(run_id).job_id for run_id in self.lost]
            self.record(self.jobs, self.lost)
        except BaseException:
            self.jobs.clear()
            self._give_up({handed.array(job_id) for job_id in sent})
            raise
        try:
            scontrol.cancel(superfluous)
        finally:
            slurm.release(job.job_id for job in self.jobs.values())

    def _give_up(self, job_ids: Iterable[str]) -> None:
        """Cancel jobs after a failure, which matters more than a refusal to cancel them."""
        try:
            scontrol.cancel(job_ids)
        except SystemRefused as error:
            slurm.log.warning("%s; the next submit cancels what is left", error.message)

    def _send_what_fits(self) -> None:
        """Where the cluster does not take an array, try half of it, down to a single job."""
        left = [entry.id for entry in self.submission.runs]
        size = self.profile.max_array or slurm.MAX_ARRAY
        while left:
            count = min(size, len(left))
            try:
                self._send(left[:count])
            except TooMany:
                if count == 1:
                    raise
                size = count // 2
            else:
                left = left[count:]

    def _send(self, runs: Sequence[str]) -> None:
        jobs = self._jobs(runs)
        for run_id, job in zip(runs, jobs, strict=True):
            self.jobs[run_id] = JobRef(cluster="slurm", job_id=job, submitted=self._sent_at)

    def _jobs(self, runs: Sequence[str]) -> list[str]:
        """Submit one array, held, write down what its tasks are to do, and return their ids."""
        from .arrays import HeldJobs
        from .worker import run_attempt

        root = str(self.files.path.parent.absolute())
        calls = [(root, self.files.name, run_id, self.submission.id) for run_id in runs]
        setup = environment.script_lines(self.profile, self.files, self.submission.id, runs)
        try:
            executor = HeldJobs(self.files.submitit, python=PYTHON + shlex.quote(sys.executable))
            executor.update_parameters(**slurm.parameters(self.profile, self.submission), setup=setup)
            number = executor.send(len(runs), self._sbatch)
            try:
                return executor.give(number, run_attempt, calls)
            except BaseException:  # its tasks would find nothing to do
                self._give_up([number])
                raise
        except OSError as error:
            raise SystemRefused(f"cannot write to {self.files.submitit}: {error.strerror}") from error

    def _sbatch(self, script: Path) -> str:
        try:
            number = sbatch(script, self.keep_open)
        except Silent as silence:
            if (found := self._unanswered()) is None:
                raise
            slurm.log.warning("%s; one was found in the queue: %s", silence.message, found.job_id)
            number = handed.array(found.job_id)
            self._sent_at = time.time() if found.submitted is None else found.submitted
        else:
            self._sent_at = time.time()
        return number

    def _unanswered(self) -> squeue.QueuedJob | None:
        """Return a job of the array that is in the queue although sbatch did not say so, None if unclear."""
        known = {handed.array(job.job_id) for job in self.jobs.values()}
        try:
            jobs = squeue.jobs(["--me"])
        except SystemRefused:
            return None
        ours = {handed.array(job.job_id): job for job in jobs if self._is_own(job)}
        found = [job for number, job in ours.items() if number not in known]
        return found[0] if len(found) == 1 else None

    def _is_own(self, job: squeue.QueuedJob) -> bool:
        return is_of_submission(self.submission.id, job.comment, job.name)
