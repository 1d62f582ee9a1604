"""A Slurm job's way back into the queue, seen from inside the job."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Sequence
from typing import Literal, NoReturn

from ...errors import SystemRefused
from ...slurm import scontrol
from ...slurm.command import Absent

Cause = Literal["preempted", "time limit", "requeued", "cancelled", "unclear"]
"""Why Slurm has a job stop. `requeued`: it is in the queue again already; `unclear`: any of them, or none."""

COMES_BACK: frozenset[Cause] = frozenset({"preempted", "time limit"})
"""What a job has to go back into the queue by itself for, before it is killed."""

SUBMITIT_SLURM = "slurm"
"""What submitit calls its executor for Slurm."""
ALIVE = frozenset({"RUNNING", "SIGNALING", "SUSPENDED"})
DYING = frozenset({"COMPLETING", "CANCELLED"})
ANSWER_SECONDS = 10.0
"""How long Slurm may take to say why it stops a job: its end is to be told within the grace."""
PATIENCE = 30.0
EXCLUSION_TRIES = 10
FORGOTTEN_SECONDS = 300.0
"""How long a job that is to stop, but not preempted as far as Slurm knows, waits to be killed."""

log = logging.getLogger("alphagrid")


def own_job() -> str | None:
    """Return the id of the Slurm job that this process was sent as, `<array>_<task>` if it is an array's."""
    if os.environ.get("SUBMITIT_EXECUTOR") != SUBMITIT_SLURM:
        return None
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def restarts() -> int:
    """Return how often Slurm has started this process' job before."""
    return int(os.environ.get("SLURM_RESTART_COUNT") or 0)


def why_stopped(before_limit: bool) -> Cause:
    """Ask Slurm why it has this process' job stop.

    `before_limit`: the signal was the one that comes before the time limit, but may come at preemption, too.
    """
    try:
        shown = scontrol.show_job(own_job() or "", ANSWER_SECONDS)
    except SystemRefused as error:
        log.warning("%s", error.message)
        return "unclear"
    return cause(shown, restarts(), before_limit)


def cause(shown: str, restarted: int, before_limit: bool = False) -> Cause:
    """Read the cause off what `scontrol show job` prints of a job that was `restarted` so often before."""
    fields = dict(re.findall(r"(\w+)=(\S+)", shown))
    preempted = fields.get("PreemptTime", "None") != "None"
    if int(fields.get("Restarts", 0)) > restarted:
        return "requeued"
    if fields.get("JobState") in ALIVE:
        return "preempted" if preempted else "time limit" if before_limit else "unclear"
    # Slurm gives a reason when it ends a job itself; a node's failure would have restarted this one.
    by_hand = fields.get("Reason") == "None" and fields.get("Requeue") == "1" and not preempted
    return "cancelled" if fields.get("JobState") in DYING and by_hand else "unclear"


def come_back() -> bool:
    """Put this process' own job back into the queue, if it is Slurm's; Slurm then kills the process.

    While Slurm does not answer, it is asked again. Returns False if it answers and refuses, and if there is
    no scontrol (set-up may have taken it off the PATH).
    """
    job, answers = own_job(), False
    while job is not None:
        try:
            scontrol.requeue(job)
            return True
        except Absent as error:
            log.warning("%s", error.message)
            return False
        except SystemRefused as error:
            log.warning("%s", error.message)
        if answers:
            return False
        answers = scontrol.answers()
        if not answers:
            time.sleep(PATIENCE)
    return True


def come_back_elsewhere(nodes: Sequence[str]) -> bool:
    """Put this process' own job back into the queue, and keep it off `nodes`.

    Slurm changes the nodes of pending jobs only, and a requeued job stays pending for about two minutes. The
    process has the seconds until Slurm kills it for the change. Where they do not suffice, the job may
    come back to one of the nodes, and looks for a GPU there once more. Returns what `come_back` does.
    """
    if not come_back():
        return False
    for _ in range(EXCLUSION_TRIES):  # the signal that ends this process may end scontrol, too
        try:
            scontrol.exclude(own_job() or "", nodes)
            return True
        except SystemRefused as error:
            log.warning("%s", error.message)
            time.sleep(0.2)
    return True


def wait_to_be_killed(before_limit: bool) -> NoReturn:
    """Wait for Slurm to kill this process: an exit, whatever its code, would end the job for good.

    Slurm may not have answered, or may have been away: now and then the job looks whether to come back. It
    does so, too, when Slurm goes on for long to say that the job runs and is not preempted: its preemption
    was called off, or forgotten when slurmctld died, and nobody will come to kill it.
    """
    forgotten = time.monotonic() + FORGOTTEN_SECONDS
    while True:
        time.sleep(PATIENCE)
        why = why_stopped(before_limit)
        overdue = why == "unclear" and time.monotonic() > forgotten
        if why in COMES_BACK or (overdue and _is_running()):
            come_back()


def _is_running() -> bool:
    try:
        shown = scontrol.show_job(own_job() or "")
    except SystemRefused:
        return False
    return "JobState=RUNNING" in shown
