"""Slurm: runs are the tasks of job arrays.

Jobs are submitted held, and released after everything is recorded (`slurm_arrays`). A job that is asked to
stop never exits by itself, because Slurm does not requeue a job that exits (`worker.requeue`). docs/decisions
and docs/explanation record observations on a real Slurm.
"""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...errors import SystemRefused, UserError
from ...slurm import command, scontrol, squeue
from ...slurm.pending_reasons import is_held
from ...slurm.sbatch import MAX_ARRAY
from ..runs.submitted_job import COMMENT_PREFIX, RunKey, SubmittedJob, array_of
from . import slurm_states
from .base import OpenRun, Scheduler, SchedulerStates, SubmitRequest, SubmitResult
from .slurm_states import is_of_submission, matching_jobs

if TYPE_CHECKING:  # reading commands import this module, and do without the models of profiles
    from ...cluster_profiles.loader import Profile
    from ...store.layout import ExperimentFiles, Root
    from ...store.submissions import JobRef, Submission

log = logging.getLogger("alphagrid")


class SlurmScheduler(Scheduler):
    """The Slurm cluster that this machine belongs to."""

    name = "slurm"
    poll_seconds = 5.0
    may_leave_out_jobs = True
    has_nodes = True
    grants_gpus = True
    preempts = True
    uses_run_locks = False
    sets_environment = True

    def check(self, root: Root, environ: Mapping[str, str]) -> None:
        """Refuse a machine without Slurm, and a root that Slurm cannot use.

        Raises:
            UserError: sbatch is not on the PATH, `SLURM_CLUSTERS` or `SBATCH_CLUSTERS` is set, or the root's
                path cannot be written into a batch script.
        """
        from . import slurm_root

        if not is_installed():
            raise UserError(
                "this machine has no Slurm (no sbatch on the PATH)", "run it here: --profile local"
            )
        command.check_environment(environ)
        slurm_root.check_path(root)

    def warnings(
        self, profile: Profile, root: Root, environ: Mapping[str, str], variables: Iterable[str]
    ) -> tuple[str, ...]:
        """Return warnings about ignored variables, variables that jobs will lack, and a node-local root."""
        from ...cluster_profiles import sbatch_options
        from . import slurm_environment, slurm_root

        names = [name for name in variables if name not in profile.env]
        missing = tuple(
            f"${{{name}}} of the specification may not be set in jobs, because of the profile's sbatch: "
            f"{{export: {profile.sbatch['export']}}}; give it in env"
            for name in sbatch_options.not_exported(profile.sbatch, names)
        )
        return (*slurm_environment.ignored_variables(environ), *missing, *slurm_root.warnings(root))

    def check_imports(
        self, files: ExperimentFiles, profile: Profile, code: Any, modules: Sequence[str]
    ) -> tuple[str, ...]:
        """Import what a job will import, after the profile's set-up."""
        from ..code import import_check

        return import_check.check(files, profile, code, modules)

    def reconcile(
        self, submissions: Sequence[Submission], run_ids: Collection[str] | None = None
    ) -> dict[str, str]:
        """Complete or undo a killed submitter's work in the queue; return the held jobs to replace.

        Jobs that a submitter on another host may be submitting now are left unchanged.
        """
        from . import slurm_duplicates

        settled = [
            submission
            for submission in submissions
            if not slurm_duplicates.may_be_submitting(submission, time.time())
        ]
        if any(submission.profile["cluster"] == self.name for submission in settled) and is_installed():
            return reconcile(settled, run_ids)
        return {}

    def submit(self, request: SubmitRequest) -> SubmitResult:
        """Record the submission, and submit its runs as job arrays."""
        from .slurm_arrays import submit

        return submit(request)

    def submit_calls(self, runs: int, profile: Profile) -> int:
        """Return the number of sbatch calls that `runs` runs take."""
        return math.ceil(runs / (profile.max_array or MAX_ARRAY))

    def states(self, root: Root, runs: Sequence[OpenRun], *, tolerant: bool) -> SchedulerStates:
        """Return the states of runs by squeue, accounting and the controller."""
        return slurm_states.states(runs, tolerant=tolerant)

    def cancel(self, submissions: Sequence[Submission], run_ids: Collection[str]) -> None:
        """Cancel the jobs of runs with scancel.

        Raises:
            SystemRefused: Slurm refused, or does not answer; the runs stop when they are started again.
        """
        if not any(submission.jobs.keys() & set(run_ids) for submission in submissions):
            return
        try:
            scontrol.cancel(job_ids_of(submissions, run_ids))
        except SystemRefused as error:
            raise SystemRefused(
                f"{error.message}; the runs are marked, and stop when they are started again",
                "cancel again when Slurm answers: until then those that run go on",
            ) from error

    def own_job_id(self) -> str | None:
        """Return the id of this process' Slurm job, `<array>_<task>` for an array task."""
        from ..worker import requeue

        return requeue.own_job()

    def restarts_crashed_runs(self, profile: Mapping[str, Any]) -> bool:
        """Return whether the profile has Slurm requeue jobs."""
        return bool(profile["requeue"])


def is_installed() -> bool:
    """Return whether this machine has Slurm's commands."""
    return shutil.which("sbatch") is not None and shutil.which("srun") is not None


def reconcile(submissions: Sequence[Submission], run_ids: Collection[str] | None = None) -> dict[str, str]:
    """Complete or undo killed submitters' work in the queue; return the jobs to replace, by run.

    A held job that its submission records is released. A held job that no submission records is cancelled,
    because its task may lack its pickle or an older job has its run; its run is submitted again. A job that
    is not held was released by a submitter whose record is not visible here yet, and stays unchanged. With
    `run_ids`, the jobs of other runs stay held.

    An older version held jobs until its canary had evaluated. This version does not release them; they are
    returned, and a new submission replaces them.

    Raises:
        SystemRefused: squeue failed, or scancel.
    """
    queued = squeue.jobs(["--me"])
    recorded = [job for submission in submissions for job in _jobs_of(submission)]
    matched = matching_jobs(recorded, queued)
    by_id = {submission.id: submission for submission in submissions}
    to_release, to_replace = _held_jobs(matched, by_id, run_ids)

    matched_ids = {job.job_id for job in matched.values()}
    arrays = {array_of(job_id) for job_id in matched_ids}
    unrecorded = {
        job.job_id
        for job in queued
        if job.job_id not in matched_ids and is_held(job.reason) and _is_of_any_submission(by_id, job)
    }
    scontrol.cancel(sorted({_array_unless(job_id, arrays) for job_id in unrecorded}))
    if to_release:
        log.warning("released %d jobs that were held", len(to_release))
    try:
        scontrol.release(_whole_arrays(to_release, [submission.jobs for submission in submissions]))
    except SystemRefused as error:  # an administrator may have reasons to hold them
        log.warning("%s", error.message)
    return to_replace


def _held_jobs(
    own: Mapping[RunKey, squeue.QueuedJob],
    submissions: Mapping[str, Submission],
    run_ids: Collection[str] | None,
) -> tuple[set[str], dict[str, str]]:
    """Return the held jobs to release, and the held jobs to replace, by run."""
    to_release: set[str] = set()
    to_replace: dict[str, str] = {}
    for (submission_id, run_id), job in own.items():
        if not is_held(job.reason) or (run_ids is not None and run_id not in run_ids):
            continue
        if submissions[submission_id].canary in (None, run_id):
            to_release.add(job.job_id)
        else:
            to_replace[run_id] = job.job_id
    return to_release, to_replace


def _array_unless(job_id: str, arrays: Collection[str]) -> str:
    """Return the array that a job belongs to, or the job itself if the array is among `arrays`."""
    array = array_of(job_id)
    return job_id if array in arrays else array


def _jobs_of(submission: Submission) -> list[SubmittedJob]:
    """Return the runs of a submission that have a job."""
    return [
        SubmittedJob(run_id, submission.id, job.cluster, job.job_id, job.submitted)
        for run_id, job in submission.jobs.items()
    ]


def _is_of_any_submission(submissions: Collection[str], job: squeue.QueuedJob) -> bool:
    """Return whether a job belongs to one of the submissions, by its comment or name."""
    if job.comment.startswith(COMMENT_PREFIX):
        return job.comment.removeprefix(COMMENT_PREFIX) in submissions
    return any(is_of_submission(submission, job.comment, job.name) for submission in submissions)


def _whole_arrays(job_ids: Collection[str], recorded: Iterable[Mapping[str, JobRef]]) -> list[str]:
    """Return job ids for scontrol: the array's number if all of its tasks are among `job_ids`."""
    arrays: dict[str, set[str]] = defaultdict(set)
    for jobs in recorded:
        for job in jobs.values():
            arrays[array_of(job.job_id)].add(job.job_id)
    whole = {number for number, tasks in arrays.items() if tasks <= set(job_ids)}
    return sorted(whole | {job_id for job_id in job_ids if array_of(job_id) not in whole})


def job_ids_of(submissions: Sequence[Submission], run_ids: Collection[str]) -> list[str]:
    """Return the job ids of runs: those in this cluster's queue, of all submissions, and each run's newest.

    squeue occasionally leaves out a job, so the newest job is included even if it is not listed. A listed job
    with the same id that belongs to other work is left out.

    Raises:
        SystemRefused: squeue, or scontrol, failed.
    """
    here = scontrol.cluster_name()
    candidates = [
        job
        for submission in submissions
        if submission.site in (None, here)
        for job in _jobs_of(submission)
        if job.run_id in run_ids
    ]
    newest = {job.run_id: str(job.job_id) for job in candidates}
    queued = squeue.jobs(["--me"])
    listed = {job.job_id for job in queued}
    unlisted = [job_id for job_id in newest.values() if job_id not in listed]
    ours = [job.job_id for job in matching_jobs(candidates, queued).values()]
    return list(dict.fromkeys([*unlisted, *ours]))
