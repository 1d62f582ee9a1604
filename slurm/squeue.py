"""squeue: the jobs in Slurm's queue, one record per job or array task, in one call."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .command import Failed, run
from .notation import unix_time

FORMAT = "%F|%K|%T|%u|%V|%r|%j|%k"
"""Array or job, task, state, user, submit time, reason, name, comment: the free texts come last."""
_LINE = re.compile(r"(\d+)\|(\d+|N/A|)\|([^|]+)\|([^|]*)\|([^|]*)\|([^|]*)\|([^|]*)\|(.*)")


@dataclass(frozen=True)
class QueuedJob:
    """A job that Slurm knows: pending, running, or ended a moment ago."""

    job_id: str
    """`<array>_<task>` in an array."""
    state: str
    """In Slurm's word: `RUNNING`."""
    reason: str
    comment: str
    name: str = ""
    user: str = ""
    submitted: float | None = None
    """Unix time; Slurm sets it again when it requeues the job."""


def jobs(selection: Sequence[str]) -> list[QueuedJob]:
    """Return the jobs that squeue lists; `selection` are its options, `["--me"]` for example.

    Lines that are no record (headings, the rest of a comment with a line break) are skipped.

    Raises:
        SystemRefused: squeue failed: that nothing is listed then means nothing.
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
