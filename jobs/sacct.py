"""What Slurm's accounting says of jobs that are in the queue no more: one sacct call, whatever their number.

Many sites have no accounting, and one that has it may be down: what is told here is a help, never needed.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from . import handed
from .commands import run
from .handed import Handed, Key
from .states import Word

FIELDS = "JobID,State,ExitCode,Submit,End,Comment"
SLACK_SECONDS = 1200.0
"""How far apart two times of one job may be: clocks differ, and a submission takes its time."""
LONGEST = 100_000
"""Characters of a list of jobs; the system takes no argument over 128 kB."""
BY_THE_CLUSTER = {
    "PREEMPTED": "preempted and not requeued",
    "TIMEOUT": "reached its time limit",
    "NODE_FAIL": "its node failed",
    "BOOT_FAIL": "its node did not boot",
    "DEADLINE": "reached its deadline",
}
BY_ITSELF = {
    "OUT_OF_MEMORY": "ran out of the memory that its job asked for",
    "FAILED": "its job failed",
    "COMPLETED": "its job ended, and the run did not say how",
}
RESUMES = "the next submit continues it"


@dataclass(frozen=True)
class Record:
    """One record of a job; a requeue begins another one, with a new time of submission."""

    state: str
    """With what follows it: `CANCELLED by 1000`."""
    exit_code: str
    submitted: float
    ended: float | None
    comment: str
    """Empty while the job has not ended, and for ever where accounting keeps no comments."""


def words(asked: Iterable[Handed]) -> dict[Key, Word]:
    """Return what accounting says of runs, by submission and run; one that it does not know is left out.

    Raises:
        SystemRefused: sacct is not there, or failed.
    """
    by_job: dict[str, list[Handed]] = defaultdict(list)
    for one in asked:
        if one.job_id is not None:
            by_job[one.job_id].append(one)
    records = _records(by_job) if by_job else {}
    found = {one.key: _own(one, records.get(job, ())) for job, ones in by_job.items() for one in ones}
    return {key: _word(record) for key, record in found.items() if record is not None}


def _records(jobs: Mapping[str, Sequence[Handed]]) -> dict[str, list[Record]]:
    """Return all records of each job, oldest first."""
    found: dict[str, list[Record]] = defaultdict(list)
    for line in run([*_COMMAND, *_selection(jobs)], {"SLURM_TIME_FORMAT": "%s"}).splitlines():
        job, state, exit_code, submitted, ended, comment = line.split("|", 5)
        began = _time(submitted)
        if began is not None:
            record = Record(state, exit_code, began, _time(ended), comment.strip())
            for number in _each(job):
                found[number].append(record)
    return {job: sorted(records, key=lambda record: record.submitted) for job, records in found.items()}


_COMMAND = (
    "sacct",
    "--allusers",
    "--allocations",
    "--duplicates",
    "--noheader",
    "--parsable2",
    f"--format={FIELDS}",
)


def _selection(jobs: Mapping[str, Sequence[Handed]]) -> list[str]:
    """Ask by number or, where there are too many for a command line, by time."""
    numbers = ",".join(sorted({handed.array(job) for job in jobs}))
    if len(numbers) <= LONGEST:
        return ["--jobs", numbers]
    times = [one.submitted for ones in jobs.values() for one in ones if one.submitted is not None]
    return ["--starttime", f"uts{int(min(times, default=0.0) - SLACK_SECONDS)}"]


def _each(job: str) -> Iterator[str]:
    """Yield the single jobs of `7`, `7_3`, or of tasks that never started: `7_[0-2,5%4]`."""
    number, bracket, tasks = job.partition("_[")
    if not bracket:
        yield job
        return
    for first, last in re.findall(r"(\d+)(?:-(\d+))?", tasks.partition("%")[0]):
        yield from (f"{number}_{task}" for task in range(int(first), int(last or first) + 1))


def _own(one: Handed, records: Sequence[Record]) -> Record | None:
    """Return the newest record of a run's job, and not of another job that had the same number.

    The comment tells; where there is none, the times do: a record begins when the job was sent or when its
    last record ended, because it was requeued then.
    """
    newest, expected = None, one.submitted
    for record in records:
        in_time = expected is not None and abs(record.submitted - expected) <= SLACK_SECONDS
        if record.comment == one.comment or (not record.comment and in_time):
            newest, expected = record, record.ended or record.submitted
    return newest


def _word(record: Record) -> Word:
    state = record.state.partition(" ")[0]
    if state == "CANCELLED":
        return Word("cancelled", "cancelled with scancel")
    if state in BY_THE_CLUSTER:
        return Word("interrupted", f"{BY_THE_CLUSTER[state]}; {RESUMES}")
    if state in BY_ITSELF:
        code = "" if record.exit_code in ("", "0:0") else f" (exit code {record.exit_code})"
        return Word("ended", f"{BY_ITSELF[state]}{code}; {RESUMES}")
    return Word("unsettled", f"its accounting says {record.state}, but it is not in the queue")


def _time(text: str) -> float | None:
    return float(text) if text.isdigit() else None
