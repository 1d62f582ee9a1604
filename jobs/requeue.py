"""A Slurm job's way back into the queue, seen from inside the job."""

from __future__ import annotations

import logging
import os
import re
import time

from ..errors import SystemRefused
from .commands import run

log = logging.getLogger("alphagrid")


def own_job() -> str | None:
    """Return the id of the job that this process runs in, `<array>_<task>` if it is an array's."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def come_back(stop_reason: str | None, crashed: bool) -> None:
    """Put this process' own job back into the queue, if it is Slurm's and should come back.

    After a request to stop it returns only to be killed: an exit, whatever its code, would end the job
    for good, and only Slurm knows whether it was preempted or cancelled.
    """
    job = own_job()
    if job is None or os.environ.get("SUBMITIT_EXECUTOR") != "slurm":
        return
    if crashed:
        _requeue(job)
    elif stop_reason is not None:
        if "USR2" in stop_reason or _is_preempted(job):
            _requeue(job)
        while True:
            time.sleep(60)


def _is_preempted(job: str) -> bool:
    """Ask Slurm once whether it is preempting this job; in doubt, no."""
    try:
        shown = run(["scontrol", "show", "job", job])
    except SystemRefused as error:
        log.warning("%s", error.message)
        return False
    state = re.search(r"JobState=(\S+)", shown)
    preempted = re.search(r"PreemptTime=(\S+)", shown)
    dying = state is not None and state[1] in ("CANCELLED", "COMPLETING")
    return not dying and preempted is not None and preempted[1] != "None"


def _requeue(job: str) -> None:
    try:
        run(["scontrol", "requeue", job])
    except SystemRefused as error:
        log.warning("%s", error.message)
