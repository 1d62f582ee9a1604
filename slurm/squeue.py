"""Run squeue: read the jobs in Slurm's queue in one call, one record per job or array task."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .command import Failed, run
from .notation import unix_time

FORMAT = "%F|%K|%T|%u|%V|%r|%j|%k"
"""Array or job, task, state, user, submit time, reason, name, comment. Free text comes last."""
_LINE = re.compile(r"(\d+)\|(\d+|N/A|)\|([^|]+)\|([^|]*)\|([^|]*)\|([^|]*)\|([^|]*)\|(.*)")


@dataclass(frozen=True)
class QueuedJob:
    """A job that Slurm knows: pending, running, or recently ended."""

    job_id: str
    """`<array>_<task>` in an array."""
    state: str
    """Slurm's job state: `RUNNING`."""
    reason: str
    comment: str
    name: str = ""
    user: str = ""
    submitted: float | None = None
    """Unix time. Slurm updates it when it requeues the job."""


def jobs(selection: Sequence[str]) -> list[QueuedJob]:
    """Return the jobs that squeue lists. `selection` are options of squeue, such as `["--me"]`.

    Lines that are not records (headings, the rest of a comment with a line break) are skipped.

    Raises:
        SystemRefused: squeue is not installed, or it fails. The queue is unknown then.
    """
    try:
        output = run(["squeue", "--noheader", "--array", *selection, "--format", FORMAT])
    except Failed as error:
        if not error.job_is_gone:
            raise
        return []
    return [job for line in output.split("\n") if (job := _parse_job(line)) is not None]


def _parse_job(line: str) -> QueuedJob | None:
    match = _LINE.fullmatch(line)
    if match is None:
        return None
    array, task, state, user, submitted, reason, name, comment = (text.strip() for text in match.groups())
    job_id = f"{array}_{task}" if task.isdigit() else array
    return QueuedJob(job_id, state, reason, comment, name, user, unix_time(submitted))
