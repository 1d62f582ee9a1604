"""Run sacct: read the accounting records of jobs in one call.

Many sites have no accounting, and accounting may be down.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .command import run
from .notation import unix_time

FIELDS = "JobID,State,ExitCode,Submit,End,JobName,Comment"
_COMMAND = (
    "sacct",
    "--allusers",
    "--allocations",
    "--duplicates",
    "--noheader",
    "--parsable2",
    f"--format={FIELDS}",
)
WIDEST_ARRAY = 10_000_000


@dataclass(frozen=True)
class Record:
    """One accounting record of a job. A requeue starts a new record with a new submit time."""

    state: str
    """With its suffix: `CANCELLED by 1000`."""
    exit_code: str
    submitted: float
    """Unix time."""
    ended: float | None
    comment: str
    """Empty until the job ends. Always empty if accounting does not store comments."""
    name: str = ""


def records(selection: Sequence[str]) -> dict[str, list[Record]]:
    """Return all records of each job, oldest first.

    `selection` are options of sacct, such as `["--jobs", "7,8"]`. Lines that are not records are skipped.

    Raises:
        SystemRefused: sacct is not installed, or it fails.
    """
    records_by_job: dict[str, list[Record]] = defaultdict(list)
    for line in run([*_COMMAND, *selection]).split("\n"):
        fields = line.split("|", FIELDS.count(","))
        if len(fields) <= FIELDS.count(","):
            continue
        job, state, exit_code, submitted, ended, name, comment = fields
        began = unix_time(submitted)
        if began is not None:
            record = Record(state, exit_code, began, unix_time(ended), comment.strip(), name.strip())
            for job_id in _expand_job_ids(job):
                records_by_job[job_id].append(record)
    return {job: sorted(group, key=lambda record: record.submitted) for job, group in records_by_job.items()}


def _expand_job_ids(job: str) -> Iterator[str]:
    """Yield the job ids in `7`, `7_3`, or in tasks that never started: `7_[0-2,5%4]`."""
    number, bracket, tasks = job.partition("_[")
    if not bracket:
        yield job
        return
    for first, last in re.findall(r"(\d+)(?:-(\d+))?", tasks.partition("%")[0]):
        end = min(int(last or first), int(first) + WIDEST_ARRAY)
        yield from (f"{number}_{task}" for task in range(int(first), end + 1))
