"""Requeue the current Slurm job from inside the job."""

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
"""Why Slurm stops a job. `requeued`: it is already in the queue again; `unclear`: the cause is unknown."""

COMES_BACK: frozenset[Cause] = frozenset({"preempted", "time limit"})
"""Causes after which a job must requeue itself before it is killed."""

SUBMITIT_SLURM = "slurm"
"""submitit's name for its Slurm executor."""
ALIVE = frozenset({"RUNNING", "SIGNALING", "SUSPENDED"})
DYING = frozenset({"COMPLETING", "CANCELLED"})
ANSWER_SECONDS = 10.0
"""Maximum wait for Slurm's cause: the job must record its end within the grace period."""
PATIENCE = 30.0
EXCLUSION_TRIES = 10
FORGOTTEN_SECONDS = 300.0
"""Seconds that a stopped job waits to be killed if Slurm does not list it as preempted."""

log = logging.getLogger("alphagrid")


def own_job() -> str | None:
    """Return the id of this process' Slurm job, `<array>_<task>` for an array task; None outside Slurm."""
    if os.environ.get("SUBMITIT_EXECUTOR") != SUBMITIT_SLURM:
        return None
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def restarts() -> int:
    """Return how often Slurm has restarted this process' job."""
    return int(os.environ.get("SLURM_RESTART_COUNT") or 0)


def why_stopped(before_limit: bool) -> Cause:
    """Return Slurm's cause for stopping this process' job.

    `before_limit`: the signal is the one before the time limit; some clusters send it at preemption too.
    """
    try:
        shown = scontrol.show_job(own_job() or "", ANSWER_SECONDS)
    except SystemRefused as error:
        log.warning("%s", error.message)
        return "unclear"
    return cause(shown, restarts(), before_limit)


def cause(shown: str, restarted: int, before_limit: bool = False) -> Cause:
    """Return the cause from the output of `scontrol show job`; `restarted` counts earlier restarts."""
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
    """Requeue this process' Slurm job; Slurm then kills the process.

    The call repeats while Slurm does not answer. Returns False if Slurm refuses, or if scontrol is missing (a
    set-up may remove it from PATH). Outside Slurm the function does nothing and returns True.
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
    """Requeue this process' Slurm job, and exclude `nodes`.

    Slurm changes the nodes of pending jobs only, and a requeued job stays pending for about two minutes. The
    process has a few seconds for the change, until Slurm kills it. If they do not suffice, the job may start
    on one of the nodes and check for a GPU again. Returns the result of `come_back`.
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
    """Wait for Slurm to kill this process: an exit with any code would end the job for good.

    Slurm may not have answered, so the process checks the cause periodically and requeues the job if needed.
    It also requeues the job if Slurm keeps listing it as running and not preempted: the preemption was
    withdrawn, or lost when slurmctld died, and Slurm will not kill the job.
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
