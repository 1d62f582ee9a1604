"""What Slurm says of jobs in its queue: one squeue call, whatever their number."""

from __future__ import annotations

from collections.abc import Iterable

from . import handed
from .commands import run
from .handed import Handed, Key, comment
from .reasons import in_words
from .states import Word

__all__ = ["comment", "listing", "words"]

QUEUED = frozenset(
    {
        *("PENDING", "CONFIGURING", "POWER_UP_NODE", "EXPEDITING"),
        *("REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"),
    }
)
AT_WORK = frozenset({"RUNNING", "COMPLETING", "SIGNALING", "STAGE_OUT", "SUSPENDED", "STOPPED", "RESIZING"})
OVER = frozenset(
    {
        *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "LAUNCH_FAILED", "NODE_FAIL"),
        *("OUT_OF_MEMORY", "PREEMPTED", "RECONFIG_FAIL", "REVOKED", "TIMEOUT"),
    }
)
"""A job that has ended and may still be listed for a while: accounting says more of it."""
LONGEST = 100_000
"""Characters of a list of jobs; the system takes no argument over 128 kB."""


def words(asked: Iterable[Handed]) -> dict[Key, Word]:
    """Return what squeue says, by submission and run; a run that it does not list is left out.

    Raises:
        SystemRefused: squeue failed: that nothing is listed then means nothing.
    """
    run_of = {(one.comment, one.job_id): one.key for one in asked if one.job_id is not None}
    numbers = ",".join(sorted({handed.array(job) for _, job in run_of}))
    if not numbers:
        return {}
    lines = listing(["--jobs", numbers] if len(numbers) <= LONGEST else [])
    said = {run_of.get((line["comment"], line["job"])): line for line in lines}
    return {
        key: _word(line["state"], line["reason"])
        for key, line in said.items()
        if key is not None and line["state"] not in OVER
    }


def listing(selection: list[str]) -> list[dict[str, str]]:
    """Return one mapping per job or array task."""
    output = run(
        ["squeue", "--noheader", "--array", *selection, "--format", "%F|%K|%T|%r|%k"], unknown_ok=True
    )
    lines = []
    for line in output.splitlines():
        array, task, state, reason, said = line.split("|", 4)
        job = f"{array}_{task}" if task.isdigit() else array
        lines.append({"job": job, "state": state, "reason": reason, "comment": said.strip()})
    return lines


def _word(state: str, reason: str) -> Word:
    """Translate the words that we know; another one is passed on as it is."""
    if state in QUEUED:
        return Word("pending", in_words(reason))
    if state in AT_WORK:
        return Word("running", None if state == "RUNNING" else state.lower())
    return Word(state, in_words(reason))
