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
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..errors import SystemRefused, UserError
from ..store.submissions import Submission
from . import site, squeue
from .commands import run
from .reasons import is_held

if TYPE_CHECKING:  # `status` comes by here, and has no use for the models of profiles
    from ..cluster_profiles.loader import Profile

MAX_ARRAY = 1001
"""Slurm's default MaxArraySize: indices 0 to 1000."""
TASKS_NAMED_AT_ONCE = 1000

log = logging.getLogger("alphagrid")


def is_here() -> bool:
    """Tell whether this machine has Slurm's commands."""
    return shutil.which("sbatch") is not None and shutil.which("srun") is not None


def require() -> None:
    """Refuse where there is no Slurm.

    Raises:
        UserError: sbatch is not on the PATH.
    """
    if not is_here():
        raise UserError("this machine has no Slurm (no sbatch on the PATH)", "run it here: --profile local")


def sbatch_calls(runs: int, max_array: int | None) -> int:
    """Return how many sbatch calls so many runs take."""
    return math.ceil(runs / (max_array or MAX_ARRAY))


def settle(
    submissions: Sequence[Submission],
    waiting: Collection[str] = (),
    only: Collection[str] | None = None,
) -> None:
    """Clear up after a submitter that was killed half-way.

    Its arrays are found by their comment: one that was written down is released, one that was not (its
    tasks may lack their pickles) is cancelled, and its runs go out again. What waits for its canary in a
    submission of `waiting` stays held; so do runs that are not among `only`, if that is given.

    Raises:
        SystemRefused: squeue failed, or scancel.
    """
    known = {squeue.comment(submission.id): submission for submission in submissions}
    recorded = {
        submission.id: {job.job_id: run_id for run_id, job in submission.jobs.items()}
        for submission in submissions
    }
    held: set[str] = set()
    unrecorded: set[str] = set()
    for line in squeue.listing(["--me"]):
        submission = known.get(line["comment"])
        if submission is None:
            continue
        run_id = recorded[submission.id].get(line["job"])
        if run_id is None:
            unrecorded.add(_number(line["job"]))
        elif is_held(line["reason"]) and (submission.id not in waiting or run_id == submission.canary):
            held.update([line["job"]] if only is None or run_id in only else [])
    if unrecorded:
        run(["scancel", *sorted(unrecorded)])
    if held:
        log.warning("released %d jobs that were held", len(held))
    for job in _together(held, recorded.values()):
        try:
            _release(job)
        except SystemRefused as error:  # an administrator may have reasons to hold it
            log.warning("%s", error.message)


def _together(jobs: Collection[str], recorded: Iterable[Collection[str]]) -> list[str]:
    """Return the jobs to name, an array by its number where all of its tasks are among them."""
    arrays: dict[str, set[str]] = defaultdict(set)
    for job in (job for some in recorded for job in some):
        arrays[_number(job)].add(job)
    whole = {number for number, tasks in arrays.items() if tasks <= set(jobs)}
    return sorted(whole | {job for job in jobs if _number(job) not in whole})


def jobs_of(submissions: Sequence[Submission], runs: Collection[str]) -> list[str]:
    """Return the jobs of runs, those of all submissions that this cluster has in its queue, and the newest.

    (squeue leaves out a job now and then; ids of older submissions may have come back as somebody else's, and
    where it says that of the newest, that one is left alone, too.)

    Raises:
        SystemRefused: squeue, or scontrol, failed.
    """
    here = site.name()
    given = {
        (squeue.comment(one.id), job.job_id): run_id
        for one in submissions
        if one.site in (None, here)
        for run_id, job in one.jobs.items()
        if run_id in runs and job.cluster == "slurm"
    }
    newest = {run_id: job for (_, job), run_id in given.items()}
    listed = {line["job"]: line["comment"] for line in squeue.listing(["--me"])}
    ours = [job for job, comment in listed.items() if (comment, job) in given]
    unlisted = [job for job in newest.values() if job not in listed]
    return list(dict.fromkeys([*unlisted, *ours]))


def release(job_ids: Iterable[str]) -> None:
    """Let held jobs go, whole arrays at a time; those that have ended already do not matter.

    Raises:
        SystemRefused: scontrol failed; the arrays before the one that it names are released.
    """
    for number in sorted({_number(job) for job in job_ids}):
        _release(number)


def cancel(job_ids: Sequence[str]) -> None:
    """Cancel jobs; those that have ended already do not matter."""
    tasks: dict[str, list[str]] = {}
    for job_id in job_ids:
        number, _, task = job_id.partition("_")
        tasks.setdefault(number, []).append(task)
    for number, some in tasks.items():
        for first in range(0, len(some), TASKS_NAMED_AT_ONCE):
            named = ",".join(filter(None, some[first : first + TASKS_NAMED_AT_ONCE]))
            run(["scancel", f"{number}_[{named}]" if named else number], unknown_ok=True)


def _release(job: str) -> None:
    run(["scontrol", "release", job], unknown_ok=True)


def _number(job_id: str) -> str:
    """Return the number of the array that a task belongs to; of a single job, its id."""
    return job_id.split("_")[0]


@contextmanager
def clean_environment() -> Iterator[None]:
    """Hide what an enclosing job, or SBATCH_*, would impose, but not where the cluster is."""
    import submitit
    from submitit.core.utils import environment_variables

    kept = {name: os.environ[name] for name in ("SLURM_CONF", "SLURM_CONF_SERVER") if name in os.environ}
    with submitit.helpers.clean_env(), environment_variables(**kept):
        yield


def parameters(profile: Profile, submission: Submission) -> dict[str, Any]:
    """Return submitit's parameters for a profile: one task, held, known by its comment.

    Raises:
        UserError: a value holds a line break, which would leave its #SBATCH line and be run.
    """
    wanted: dict[str, Any] = {
        "job_name": submission.experiment,
        "comment": squeue.comment(submission.id),
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
        "srun_args": None if profile.cpus is None else [f"--cpus-per-task={profile.cpus}"],
        "additional_parameters": {
            **dict(profile.sbatch or {}),
            "hold": True,
            "requeue" if profile.requeue else "no-requeue": True,
        },
    }
    given = {key: value for key, value in wanted.items() if value is not None}
    _check_lines({**given, **given["additional_parameters"]})
    minutes = None if profile.hours is None else math.ceil(profile.hours * 60)
    return {**given, "time": minutes, "wckey": None}  # None: say nothing, where submitit would


def _check_lines(values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, str) and ("\n" in value or "\r" in value):
            raise UserError(f"profile: {key} holds a line break: {value!r}", "write it on one line")
