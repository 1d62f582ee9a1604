"""Submit a submission's job arrays: submit them held, record them, then release them."""

from __future__ import annotations

import logging
import math
import shlex
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...cluster_profiles import env_values
from ...cluster_profiles.loader import Profile
from ...errors import SystemRefused, UserError
from ...slurm import scontrol, squeue
from ...slurm.sbatch import MAX_ARRAY, Silent, TooMany, sbatch
from ...store import submissions
from ...store.claims import Owner
from ...store.layout import ExperimentFiles
from ...store.submissions import JobRef, Submission
from ..runs.submitted_job import array_of, comment_of
from . import slurm_duplicates, slurm_setup_failure
from .base import SubmitRequest, SubmitResult
from .slurm_duplicates import Rival
from .slurm_states import is_of_submission

PYTHON = "env --ignore-signal=TERM --ignore-signal=USR2 -- "
"""Ignore the signals until Python has handlers: without one, a signal ends the job for good."""

log = logging.getLogger("alphagrid")


def submit(request: SubmitRequest) -> SubmitResult:
    """Record a submission, submit its arrays held, record their job ids, and release them.

    Raises:
        SystemRefused: the file system refused, or sbatch did for another reason than the number of jobs.
    """
    ids = tuple(entry.id for entry in request.submission.runs)
    if not ids:
        submissions.write(request.files, request.submission)
        return SubmitResult()
    scontrol.cancel(request.replaced_jobs)
    arrays = Arrays(request)
    arrays.record()
    try:
        arrays.submit_held()
    except SystemRefused as error:
        arrays.record(refusal=error.message, submitter=None)
        if isinstance(error, TooMany):
            arrays.forget_runs_that_waited_before()
            return SubmitResult(tuple(arrays.jobs), arrays.unsent(ids), error.message)
        raise SystemRefused(f"{error.message} ({arrays.progress(ids)})", error.hint) from error
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            log.warning("interrupted: %s; submit again sends the rest", arrays.progress(ids))
        with suppress(SystemRefused):  # `slurm_duplicates.may_be_submitting` ends with this process, too
            arrays.record(submitter=None)
        raise
    finally:
        if arrays.lost:
            log.warning("%s", slurm_duplicates.description(arrays.lost))
    arrays.record(submitter=None)
    return SubmitResult(tuple(arrays.jobs))


@dataclass
class Arrays:
    """The job arrays of one submission, and their progress."""

    request: SubmitRequest
    jobs: dict[str, JobRef] = field(default_factory=dict)
    """Jobs that the cluster accepted, by run."""
    lost: dict[str, Rival | None] = field(default_factory=dict)
    """Runs whose jobs another submitter has, with those jobs (`slurm_duplicates`)."""
    submission: Submission = field(init=False)
    """The submission as recorded."""
    _submitted_at: float = field(default=0.0, init=False)
    """Unix time of the newest array's submission, close to Slurm's own time, which identifies a job."""

    def __post_init__(self) -> None:
        changes = {"site": scontrol.cluster_name(), "submitter": Owner.current()}
        self.submission = self.request.submission.model_copy(update=changes)

    def record(self, **changes: Any) -> None:
        """Write the submission's file with the jobs so far, and with other fields changed.

        Raises:
            SystemRefused: the folder cannot be written.
        """
        changes = {"jobs": dict(self.jobs), **changes}
        self.submission = submissions.amend(self.request.files, self.submission, **changes)

    def submit_held(self) -> None:
        """Submit all arrays held, record their job ids, and release them.

        Raises:
            TooMany: the cluster accepts no more jobs for now; `jobs` holds the accepted ones.
            SystemRefused: sbatch refused or did not answer; `jobs` holds the accepted ones.
        """
        try:
            self._submit_what_fits()
        except TooMany as limit:
            if self.jobs or limit.is_certain:
                raise
            raise limit.as_refusal() from limit
        finally:
            if self.jobs:
                self._record_and_release()

    def unsent(self, ids: Iterable[str]) -> tuple[str, ...]:
        """Return the runs that no submitter has submitted."""
        return tuple(run_id for run_id in ids if run_id not in self.jobs and run_id not in self.lost)

    def progress(self, ids: Sequence[str]) -> str:
        """Return how many of the runs were submitted, in words."""
        return f"sent {len(self.jobs)} of {len(ids)} runs"

    def forget_runs_that_waited_before(self) -> None:
        """Remove from the record the unsent runs that an earlier submission already records as unsent.

        A script that submits every minute until all runs are sent then writes no long file each time.
        """
        newest = submissions.newest_runs(self.request.earlier)
        waited = {
            run_id
            for run_id, run in newest.items()
            if run.submission.refusal and run_id not in run.submission.jobs
        }
        entries = [entry for entry in self.submission.runs if entry.id in self.jobs or entry.id not in waited]
        if entries or self.request.earlier[-1].named != self.submission.named:
            self.record(runs=entries)
        else:
            submissions.remove(self.request.files, self.submission)

    def _submit_what_fits(self) -> None:
        """Submit arrays; if the cluster refuses one, try half of it, down to a single job."""
        remaining = [entry.id for entry in self.submission.runs]
        size = self.request.profile.max_array or MAX_ARRAY
        while remaining:
            count = min(size, len(remaining))
            try:
                self._submit_array(remaining[:count])
            except TooMany:
                if count == 1:
                    raise
                size = count // 2
            else:
                remaining = remaining[count:]

    def _submit_array(self, run_ids: Sequence[str]) -> None:
        """Write the batch script, submit it held, write the pickles of its tasks, and keep their job ids."""
        from ..worker import run_attempt
        from .slurm_held_jobs import HeldJobs

        files, profile = self.request.files, self.request.profile
        root = str(files.path.parent.absolute())
        calls = [(root, files.name, run_id, self.submission.id) for run_id in run_ids]
        setup = setup_lines(profile, files, self.submission.id, run_ids)
        try:
            executor = HeldJobs(files.submitit, python=PYTHON + shlex.quote(sys.executable))
            executor.update_parameters(**parameters(profile, self.submission), setup=setup)
            number = executor.send(len(run_ids), self._submit_script)
            try:
                job_ids = executor.give(number, run_attempt, calls)
            except BaseException:  # its tasks would find nothing to do
                self._give_up([number])
                raise
        except OSError as error:
            raise SystemRefused(f"cannot write to {files.submitit}: {error.strerror}") from error
        for run_id, job_id in zip(run_ids, job_ids, strict=True):
            self.jobs[run_id] = JobRef(cluster="slurm", job_id=job_id, submitted=self._submitted_at)

    def _record_and_release(self) -> None:
        """Record the jobs whose runs no older job has, cancel the other jobs, and release the recorded ones.

        If they cannot be recorded, all are cancelled.
        """
        job_ids = [job.job_id for job in self.jobs.values()]
        try:
            self.lost = slurm_duplicates.lost_runs(self.request.files, self.jobs, self.request.earlier)
            superfluous = [self.jobs.pop(run_id).job_id for run_id in self.lost]
            self.record(runs=[entry for entry in self.submission.runs if entry.id not in self.lost])
        except BaseException:
            self.jobs.clear()
            self._give_up({array_of(job_id) for job_id in job_ids})
            raise
        try:
            scontrol.cancel(superfluous)
        except SystemRefused:  # an array's number would release the superfluous tasks as well
            scontrol.release(sorted(job.job_id for job in self.jobs.values()))
            raise
        scontrol.release(sorted({array_of(job.job_id) for job in self.jobs.values()}))

    def _give_up(self, job_ids: Iterable[str]) -> None:
        """Cancel jobs after a failure; a refusal is logged, because the caller raises the failure."""
        try:
            scontrol.cancel(job_ids)
        except SystemRefused as error:
            log.warning("%s; the next submit cancels what is left", error.message)

    def _submit_script(self, script: Path) -> str:
        """Submit a script and return the job's number; if sbatch does not answer, look for it in squeue."""
        try:
            number = sbatch(script, (self.request.lock.descriptor,))
        except Silent as silence:
            if (job := self._unanswered_job()) is None:
                raise
            log.warning("%s; one was found in the queue: %s", silence.message, job.job_id)
            self._submitted_at = time.time() if job.submitted is None else job.submitted
            return array_of(job.job_id)
        self._submitted_at = time.time()
        return number

    def _unanswered_job(self) -> squeue.QueuedJob | None:
        """Return a queued job of the array for which sbatch did not answer; None if it is not unique."""
        recorded_arrays = {array_of(job.job_id) for job in self.jobs.values()}
        try:
            queued = squeue.jobs(["--me"])
        except SystemRefused:
            return None
        own = [job for job in queued if is_of_submission(self.submission.id, job.comment, job.name)]
        unknown = {array_of(job.job_id): job for job in own if array_of(job.job_id) not in recorded_arrays}
        return next(iter(unknown.values())) if len(unknown) == 1 else None


def setup_lines(
    profile: Profile, files: ExperimentFiles, submission: str, run_ids: Sequence[str]
) -> list[str]:
    """Return the lines of a batch script before the worker starts, for the array tasks that run `run_ids`."""
    return [
        "set -e",
        *slurm_setup_failure.before_setup(files, submission, run_ids),
        *env_values.export_lines(profile.env),
        *profile.setup,
        *slurm_setup_failure.after_setup(),
    ]


def parameters(profile: Profile, submission: Submission) -> dict[str, Any]:
    """Return submitit's parameters for a profile: one task, held, identified by its comment.

    Raises:
        UserError: a value holds a line break, which would leave its #SBATCH line and be run.
    """
    values: dict[str, Any] = {
        "job_name": f"{submission.experiment}.{submission.id}",
        "comment": comment_of(submission.id),
        "nodes": 1,
        "ntasks_per_node": 1,
        "partition": profile.partition,
        "gres": profile.gres,
        "cpus_per_task": profile.cpus,
        "mem": profile.memory,
        "qos": profile.qos,
        "account": profile.account,
        "constraint": profile.constraint,
        "exclude": profile.exclude,
        "mail_user": profile.mail_user,
        "mail_type": "END,FAIL" if profile.mail_user else None,
        "signal_delay_s": profile.signal_seconds,
        "array_parallelism": profile.throttle or len(submission.runs),
        "stderr_to_stdout": True,
        "srun_args": _srun_arguments(profile),
        "additional_parameters": {
            **{name.replace("-", "_"): value for name, value in profile.sbatch.items()},
            "hold": True,
            "requeue" if profile.requeue else "no-requeue": True,
        },
    }
    options = {key: value for key, value in values.items() if value is not None}
    _check_lines({**options, **options["additional_parameters"]})
    minutes = None if profile.hours is None else math.ceil(profile.hours * 60)
    return {**options, "time": minutes, "wckey": None}  # None: say nothing, where submitit would


def _srun_arguments(profile: Profile) -> list[str]:
    """Return srun's options: the run gets the script's environment for every value of sbatch's `export`.

    Without it srun takes `export` from the job (sbatch(1), "--export=NONE") and the run has no PATH.
    """
    cpus = [] if profile.cpus is None else [f"--cpus-per-task={profile.cpus}"]
    return ["--export=ALL", *cpus]


def _check_lines(values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, str) and ("\n" in value or "\r" in value):
            raise UserError(f"profile: {key} holds a line break: {value!r}", "write it on one line")
