"""Slurm: what a job asks for, releasing and cancelling jobs, and clearing up after a killed submitter.

What was seen on a real Slurm, and why each detail is as it is, stands in docs and decisions; in short:
jobs go out held and are released when everything is written down (`delivery`), and a job that is asked to
stop never exits by itself, because an exit ends it for good (`requeue`).
"""

from __future__ import annotations

import logging
import math
import os
import shutil
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import SystemRefused, UserError
from ..slurm import command, scontrol, squeue
from ..slurm.pending_reasons import is_held
from ..store.submissions import JobRef, Submission
from . import handed
from .handed import COMMENT, Handed
from .slurm_states import is_of_submission, matching_jobs

if TYPE_CHECKING:  # `status` comes by here, and has no use for the models of profiles
    from ..cluster_profiles.loader import Profile

MAX_ARRAY = 1001
"""Slurm's default MaxArraySize: indices 0 to 1000."""

log = logging.getLogger("alphagrid")


def is_here() -> bool:
    """Tell whether this machine has Slurm's commands."""
    return shutil.which("sbatch") is not None and shutil.which("srun") is not None


def require(environ: Mapping[str, str] = os.environ) -> None:
    """Refuse where there is no Slurm, or where the environment sends its commands to another cluster.

    Raises:
        UserError: sbatch is not on the PATH, or `SLURM_CLUSTERS` or `SBATCH_CLUSTERS` is set.
    """
    if not is_here():
        raise UserError("this machine has no Slurm (no sbatch on the PATH)", "run it here: --profile local")
    command.check_environment(environ)


def sbatch_calls(runs: int, max_array: int | None) -> int:
    """Return how many sbatch calls so many runs take."""
    return math.ceil(runs / (max_array or MAX_ARRAY))


def settle(submissions: Sequence[Submission], only: Collection[str] | None = None) -> dict[str, str]:
    """Clear up after a submitter that was killed half-way; return the jobs, by run, that a canary holds back.

    Its arrays are found by their comment: one that was written down is released, one that was not (its
    tasks may lack their pickles) is cancelled, and its runs go out again. So are tasks that were not written
    down because an older job has their run. What is not held was let go by a submitter that had written it
    down, in a file that is not seen from here yet. What is not among the runs `only`, if given, stays held.

    An older version held jobs until its canary had reached an evaluation. Nothing releases them any more, so
    their runs are to be sent again, and the jobs, which stay held, to be cancelled then.

    Raises:
        SystemRefused: squeue failed, or scancel.
    """
    queued = squeue.jobs(["--me"])
    recorded = [one for submission in submissions for one in _handed(submission)]
    own = matching_jobs(recorded, queued)
    by_id = {submission.id: submission for submission in submissions}
    held: set[str] = set()
    held_back: dict[str, str] = {}
    for (submission_id, run_id), job in own.items():
        if not is_held(job.reason) or (only is not None and run_id not in only):
            continue
        if by_id[submission_id].canary in (None, run_id):
            held.add(job.job_id)
        else:
            held_back[run_id] = job.job_id
    known = {job.job_id for job in own.values()}
    unrecorded = {
        job.job_id for job in queued if job.job_id not in known and is_held(job.reason) and _is_of(by_id, job)
    }
    arrays = {handed.array(job_id) for job_id in known}
    scontrol.cancel(sorted({_array_unless(job_id, arrays) for job_id in unrecorded}))
    if held:
        log.warning("released %d jobs that were held", len(held))
    try:
        scontrol.release(_together(held, [submission.jobs for submission in submissions]))
    except SystemRefused as error:  # an administrator may have reasons to hold them
        log.warning("%s", error.message)
    return held_back


def _array_unless(job_id: str, arrays: Collection[str]) -> str:
    """Return the array that a job belongs to, or the job itself if the array is among `arrays`."""
    number = handed.array(job_id)
    return job_id if number in arrays else number


def _handed(submission: Submission) -> list[Handed]:
    """Return the runs of a submission that have a job in Slurm."""
    return [
        Handed(run_id, submission.id, "slurm", job.job_id, job.submitted)
        for run_id, job in submission.jobs.items()
        if job.cluster == "slurm"
    ]


def _is_of(submissions: Collection[str], job: squeue.QueuedJob) -> bool:
    """Return whether a job is of one of the submissions with these ids, by its comment or name."""
    if job.comment.startswith(COMMENT):
        return job.comment.removeprefix(COMMENT) in submissions
    return any(is_of_submission(one, job.comment, job.name) for one in submissions)


def _together(jobs: Collection[str], recorded: Iterable[Mapping[str, JobRef]]) -> list[str]:
    """Return the jobs to name, an array by its number where all of its tasks are among them."""
    arrays: dict[str, set[str]] = defaultdict(set)
    for job in (job for some in recorded for job in some.values()):
        arrays[handed.array(job.job_id)].add(job.job_id)
    whole = {number for number, tasks in arrays.items() if tasks <= set(jobs)}
    return sorted(whole | {job for job in jobs if handed.array(job) not in whole})


def jobs_of(submissions: Sequence[Submission], runs: Collection[str]) -> list[str]:
    """Return the jobs of runs, those of all submissions that this cluster has in its queue, and the newest.

    (squeue leaves out a job now and then; ids of older submissions may have come back as somebody else's, and
    where it says that of the newest, that one is left alone, too.)

    Raises:
        SystemRefused: squeue, or scontrol, failed.
    """
    here = scontrol.cluster_name()
    candidates = [
        one
        for submission in submissions
        if submission.site in (None, here)
        for one in _handed(submission)
        if one.run_id in runs
    ]
    newest = {one.run_id: str(one.job_id) for one in candidates}
    queued = squeue.jobs(["--me"])
    listed = {job.job_id for job in queued}
    unlisted = [job_id for job_id in newest.values() if job_id not in listed]
    ours = [job.job_id for job in matching_jobs(candidates, queued).values()]
    return list(dict.fromkeys([*unlisted, *ours]))


def release(job_ids: Iterable[str]) -> None:
    """Let held jobs go, whole arrays at a time; those that have ended already do not matter.

    Raises:
        SystemRefused: scontrol refused some; the others are released.
    """
    scontrol.release(sorted({handed.array(job_id) for job_id in job_ids}))


def parameters(profile: Profile, submission: Submission) -> dict[str, Any]:
    """Return submitit's parameters for a profile: one task, held, known by its comment.

    Raises:
        UserError: a value holds a line break, which would leave its #SBATCH line and be run.
    """
    wanted: dict[str, Any] = {
        "job_name": f"{submission.experiment}.{submission.id}",
        "comment": handed.comment(submission.id),
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
    given = {key: value for key, value in wanted.items() if value is not None}
    _check_lines({**given, **given["additional_parameters"]})
    minutes = None if profile.hours is None else math.ceil(profile.hours * 60)
    return {**given, "time": minutes, "wckey": None}  # None: say nothing, where submitit would


def _srun_arguments(profile: Profile) -> list[str]:
    """Return srun's options: the environment of the script is the run's, whatever sbatch's `export` says.

    Without it srun takes `export` from the job (sbatch(1), "--export=NONE") and the run has no PATH.
    """
    cpus = [] if profile.cpus is None else [f"--cpus-per-task={profile.cpus}"]
    return ["--export=ALL", *cpus]


def _check_lines(values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, str) and ("\n" in value or "\r" in value):
            raise UserError(f"profile: {key} holds a line break: {value!r}", "write it on one line")
