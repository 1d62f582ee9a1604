"""Run scontrol and scancel: read jobs from the controller, and release, requeue, update or cancel them."""

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
"""The task id (NO_VAL in slurm.h) of an array record after its last pending task was cancelled alone."""


def cluster_name() -> str | None:
    """Return the name of the cluster that Slurm's commands use here, or None if scontrol does not print it.

    Raises:
        SystemRefused: scontrol is not installed, or it fails.
    """
    match = re.search(r"^ClusterName\s*=\s*(\S+)", run(["scontrol", "show", "config"]), re.MULTILINE)
    return match[1] if match else None


def show_job(job_id: str, seconds: float = CALL_SECONDS) -> str:
    """Return the output of `scontrol show job` for a job or a whole array.

    Raises:
        SystemRefused: scontrol is not installed, fails, or does not know the job.
    """
    return run(["scontrol", "--oneliner", "show", "job", job_id], seconds=seconds)


def jobs(array: str) -> dict[str, QueuedJob]:
    """Return the tasks of an array, or a single job, by job id. Return no jobs if the controller knows none.

    The controller knows a job from its submission until some minutes (MinJobAge) after its end.

    Raises:
        SystemRefused: scontrol is not installed, or it fails for another reason than an unknown job.
    """
    try:
        output = show_job(array)
    except Failed as error:
        if not error.job_is_gone:
            raise
        return {}
    return _parse_jobs(output)


def all_jobs() -> dict[str, QueuedJob]:
    """Return all jobs of all users that the controller knows, by job id.

    The answer is long on a large cluster.

    Raises:
        SystemRefused: scontrol is not installed, or it fails.
    """
    return _parse_jobs(run(["scontrol", "--oneliner", "show", "job"]))


def batch_script(job_id: str) -> str:
    """Return the batch script of a job of the user.

    Raises:
        SystemRefused: scontrol is not installed, fails, or does not know the job.
    """
    return run(["scontrol", "write", "batch_script", job_id, "-"])


def _parse_jobs(output: str) -> dict[str, QueuedJob]:
    jobs_by_id: dict[str, QueuedJob] = {}
    for record in notation.records(output):
        if "JobId" in record and "JobState" in record:
            jobs_by_id.update({job_id: _parse_job(job_id, record) for job_id in _job_ids(record)})
    return jobs_by_id


def release(job_ids: Iterable[str]) -> None:
    """Release held jobs or whole arrays. Try each of them, and ignore those that have ended.

    Raises:
        SystemRefused: scontrol refused some jobs. The other jobs are released.
    """
    _act_on_each_job(job_ids, lambda job: run(["scontrol", "release", job]))


def requeue(job_id: str) -> None:
    """Requeue a job, unless it was cancelled just before. A plain requeue would undo the cancellation.

    Raises:
        SystemRefused: scontrol is not installed, or it refuses.
    """
    run(["scontrol", "requeue", "incomplete", job_id])


def exclude(job_id: str, nodes: Iterable[str]) -> None:
    """Add nodes to the nodes that a pending job excludes.

    Raises:
        SystemRefused: scontrol is not installed, or it refuses, for example because the job runs.
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
    """Cancel jobs, array tasks or whole arrays. Try each of them, and ignore those that have ended.

    Raises:
        SystemRefused: scancel refused some jobs. The other jobs are cancelled.
    """
    tasks: dict[str, list[str]] = defaultdict(list)
    for job_id in job_ids:
        number, _, task = job_id.partition("_")
        tasks[number].append(task)
    _act_on_each_job(_scancel_arguments(tasks), lambda job: run(["scancel", job]))


def _scancel_arguments(tasks: Mapping[str, list[str]]) -> Iterator[str]:
    """Yield jobs and arrays as arguments of scancel: `7`, `7_[0,2]`."""
    for number, task_ids in tasks.items():
        if "" in task_ids:
            yield number
            continue
        for first in range(0, len(task_ids), TASKS_NAMED_AT_ONCE):
            yield f"{number}_[{','.join(task_ids[first : first + TASKS_NAMED_AT_ONCE])}]"


def _act_on_each_job(job_ids: Iterable[str], act: Callable[[str], object]) -> None:
    """Act on every job, even if an earlier job was refused. Raise the first refusal at the end."""
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
    """Return the job ids of a record: a job, a task, the tasks that have not started, or a whole array."""
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
