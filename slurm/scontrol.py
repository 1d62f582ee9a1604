"""scontrol and scancel: one job as the controller knows it, and what can be done to jobs."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping

from ..errors import SystemRefused
from . import notation
from .command import CALL_SECONDS, Absent, Failed, run
from .squeue import QueuedJob

TASKS_NAMED_AT_ONCE = 1000
NO_TASK = "4294967294"
"""The task (NO_VAL in slurm.h) in an array's record whose last pending task was cancelled by itself."""


def cluster_name() -> str | None:
    """Return the name of the cluster that Slurm's commands speak to here, None if it does not say.

    Raises:
        SystemRefused: scontrol is not there, or failed.
    """
    match = re.search(r"^ClusterName\s*=\s*(\S+)", run(["scontrol", "show", "config"]), re.MULTILINE)
    return match[1] if match else None


def show_job(job_id: str, seconds: float = CALL_SECONDS) -> str:
    """Return what `scontrol show job` prints of a job or a whole array.

    Raises:
        SystemRefused: scontrol is not there, failed, or does not know the job.
    """
    return run(["scontrol", "--oneliner", "show", "job", job_id], seconds=seconds)


def jobs(array: str) -> dict[str, QueuedJob]:
    """Return the tasks of an array, or the one job, that the controller knows, by job id.

    It knows a job from its submission until some minutes (MinJobAge) after its end.

    Raises:
        SystemRefused: scontrol is not there, or failed otherwise than by not knowing the job.
    """
    try:
        output = show_job(array)
    except Failed as error:
        if not error.job_is_gone:
            raise
        return {}
    return _parse_jobs(output)


def all_jobs() -> dict[str, QueuedJob]:
    """Return all jobs of all users that the controller knows, by job id: a long answer on a large cluster.

    Raises:
        SystemRefused: scontrol is not there, or failed.
    """
    return _parse_jobs(run(["scontrol", "--oneliner", "show", "job"]))


def batch_script(job_id: str) -> str:
    """Return the script of one of the user's own jobs.

    Raises:
        SystemRefused: scontrol is not there, failed, or does not know the job.
    """
    return run(["scontrol", "write", "batch_script", job_id, "-"])


def _parse_jobs(output: str) -> dict[str, QueuedJob]:
    jobs_by_id: dict[str, QueuedJob] = {}
    for record in notation.records(output):
        if "JobId" in record and "JobState" in record:
            jobs_by_id.update({job_id: _parse_job(job_id, record) for job_id in _job_ids(record)})
    return jobs_by_id


def release(job_ids: Iterable[str]) -> None:
    """Let held jobs or whole arrays go; those that have ended do not matter, and each is tried.

    Raises:
        SystemRefused: scontrol refused some; the others are released.
    """
    _act_on_each_job(job_ids, lambda job: run(["scontrol", "release", job]))


def requeue(job_id: str) -> None:
    """Put a job back into the queue, unless it was cancelled a moment ago (which a plain requeue would undo).

    Raises:
        SystemRefused: scontrol is not there, or refused.
    """
    run(["scontrol", "requeue", "incomplete", job_id])


def exclude(job_id: str, nodes: Iterable[str]) -> None:
    """Keep a pending job off nodes, besides those that it keeps off already.

    Raises:
        SystemRefused: scontrol is not there, or refused, for example because the job runs.
    """
    excluded = [record.get("ExcNodeList") for record in notation.records(show_job(job_id))]
    names = [name for name in excluded if name and name not in notation.NOTHING]
    node_list = ",".join(dict.fromkeys([*names, *nodes]))
    run(["scontrol", "update", f"JobId={job_id}", f"ExcNodeList={node_list}"])


def answers() -> bool:
    """Return whether the controller answers."""
    try:
        run(["scontrol", "ping"])
    except SystemRefused:
        return False
    return True


def cancel(job_ids: Iterable[str]) -> None:
    """Cancel jobs, array tasks or whole arrays; those that have ended do not matter, and each is tried.

    Raises:
        SystemRefused: scancel refused some; the others are cancelled.
    """
    tasks: dict[str, list[str]] = defaultdict(list)
    for job_id in job_ids:
        number, _, task = job_id.partition("_")
        tasks[number].append(task)
    _act_on_each_job(_scancel_arguments(tasks), lambda job: run(["scancel", job]))


def _scancel_arguments(tasks: Mapping[str, list[str]]) -> Iterator[str]:
    """Yield jobs and arrays as scancel takes them: `7`, `7_[0,2]`."""
    for number, task_ids in tasks.items():
        if "" in task_ids:
            yield number
            continue
        for first in range(0, len(task_ids), TASKS_NAMED_AT_ONCE):
            yield f"{number}_[{','.join(task_ids[first : first + TASKS_NAMED_AT_ONCE])}]"


def _act_on_each_job(job_ids: Iterable[str], act: Callable[[str], object]) -> None:
    """Act on every job, whatever becomes of the one before; raise the first refusal in the end."""
    refusals: list[SystemRefused] = []
    for job_id in job_ids:
        try:
            act(job_id)
        except Absent:
            raise
        except SystemRefused as error:
            if not (isinstance(error, Failed) and error.job_is_gone):
                refusals.append(error)
    if refusals:
        suffix = f" (and {len(refusals) - 1} more)" if len(refusals) > 1 else ""
        raise SystemRefused(f"{refusals[0].message}{suffix}", refusals[0].hint)


def _job_ids(record: Mapping[str, str]) -> list[str]:
    """Return the ids of a record: of a job, a task, the tasks that have not started, or the whole array."""
    array, tasks = record.get("ArrayJobId"), record.get("ArrayTaskId")
    if array is None or tasks in (None, NO_TASK):
        return [record["JobId"].split()[0]]
    return [f"{array}_{task}" for task in notation.numbers(tasks.partition("%")[0])]


def _parse_job(job_id: str, record: Mapping[str, str]) -> QueuedJob:
    return QueuedJob(
        job_id=job_id,
        state=record["JobState"],
        reason=record.get("Reason", ""),
        comment=record.get("Comment", ""),
        name=record.get("JobName", ""),
        user=record.get("UserId", "").partition("(")[0],
        submitted=notation.unix_time(record.get("SubmitTime", "")),
    )
