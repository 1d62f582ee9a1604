"""Slurm's answers about runs, in alphagrid's states: which job is whose, and what its state means.

squeue, sacct and scontrol tell of jobs; here a job is matched with the run that it was submitted for. Job ids
are reused, and a site's scripts may rewrite comments and names, so a job is a run's if its id fits and its
comment or its name carries the submission, or, where both were rewritten, if it was submitted when the
submission was, or requeued when its previous record ended.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from ..errors import SystemRefused
from ..slurm import sacct, scontrol, squeue
from ..slurm.pending_reasons import in_words
from ..slurm.sacct import Record
from ..slurm.squeue import QueuedJob
from . import handed
from .handed import COMMENT, Handed, Key
from .states import Word

QUEUED = frozenset(
    {
        *("PENDING", "CONFIGURING", "POWER_UP_NODE", "EXPEDITING"),
        *("REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"),
    }
)
AT_WORK = frozenset({"RUNNING", "COMPLETING", "SIGNALING", "STAGE_OUT", "SUSPENDED", "STOPPED", "RESIZING"})
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
OVER = frozenset({"CANCELLED", "LAUNCH_FAILED", "RECONFIG_FAIL", "REVOKED", *BY_THE_CLUSTER, *BY_ITSELF})
"""A job that has ended and may still be listed for a while: accounting says more of it."""
RESUMES = "the next submit continues it"
SLACK_SECONDS = 1200.0
"""How far apart two times of one job may be: clocks differ, and a submission takes its time."""
CLOSE_SECONDS = 5.0
"""The same where another comment or name makes it likely that the job is another one with this number."""
LONGEST = 100_000
"""Characters of a list of jobs; the system takes no argument over 128 kB."""


def in_queue(runs: Collection[Handed]) -> dict[Key, Word]:
    """Return what squeue says of runs, in one call; a run whose job it does not list is left out.

    Raises:
        SystemRefused: squeue failed: that nothing is listed then means nothing.
    """
    by_job = _by_job(runs)
    if not by_job:
        return {}
    numbers = _numbers(by_job)
    listed = squeue.jobs(["--jobs", numbers] if len(numbers) <= LONGEST else [])
    return _words(matching_jobs(runs, [job for job in listed if job.state not in OVER]))


def in_accounting(runs: Iterable[Handed]) -> dict[Key, Word]:
    """Return what accounting says of runs, in one call; a run whose job it does not know is left out.

    Raises:
        SystemRefused: sacct is not there, or failed.
    """
    by_job = _by_job(runs)
    records = _records(by_job) if by_job else {}
    words: dict[Key, Word] = {}
    for job_id, ones in by_job.items():
        for one in ones:
            own = own_records(one, records.get(job_id, ()))
            if own:
                words[one.key] = _final_word(own[-1].state, own[-1].exit_code)
    return words


def at_controller(runs: Collection[Handed]) -> dict[Key, Word]:
    """Return what the controller itself says of runs, one call per array; it soon forgets jobs that ended.

    Sites cache squeue, and squeue itself now and then leaves out a job; the controller's own record of one
    job does not.

    Raises:
        SystemRefused: scontrol failed otherwise than by not knowing a job.
    """
    by_job = _by_job(runs)
    known: list[QueuedJob] = []
    for number in sorted({handed.array(job_id) for job_id in by_job}):
        known += scontrol.jobs(number).values()
    ended = [job for job in known if job.state in OVER]
    words = {
        one.key: _final_word(job.state, "")
        for job in ended
        for one in by_job.get(job.job_id, ())
        if _is_named(one, job.comment, job.name)
    }
    return {**words, **_words(matching_jobs(runs, [job for job in known if job.state not in OVER]))}


def own_records(one: Handed, records: Sequence[Record], empty_slack: float = SLACK_SECONDS) -> list[Record]:
    """Return a run's records in accounting, oldest first, and not those of another job with its number.

    Where neither comment nor name tells, the times do: a record begins when the job was submitted or when
    its previous record ended, because it was requeued then; `empty_slack` [s] is for one without a comment.
    """
    own, expected = [], one.submitted
    for record in records:
        named = _is_named(one, record.comment, record.name)
        slack = CLOSE_SECONDS if record.comment else empty_slack
        if named or (named is None and _is_near(record.submitted, expected, slack)):
            own.append(record)
            expected = record.ended or record.submitted
    return own


def is_of_submission(submission: str, comment: str, name: str) -> bool:
    """Return whether a job's comment or name says that it is of a submission."""
    return comment == handed.comment(submission) or (not comment.startswith(COMMENT) and submission in name)


def matching_jobs(runs: Iterable[Handed], jobs: Iterable[QueuedJob]) -> dict[Key, QueuedJob]:
    """Return the job of each run among `jobs`; accounting is asked where neither names nor times tell."""
    by_job = _by_job(runs)
    found: dict[Key, QueuedJob] = {}
    doubtful: list[tuple[Handed, QueuedJob]] = []
    for job in jobs:
        for one in by_job.get(job.job_id, ()):
            named = _is_named(one, job.comment, job.name)
            if named or (named is None and _is_near(job.submitted, one.submitted, CLOSE_SECONDS)):
                found[one.key] = job
            elif named is None:
                doubtful.append((one, job))
    records = _records_if_told({job.job_id: [one] for one, job in doubtful})
    for one, job in doubtful:
        own = own_records(one, records.get(job.job_id, ()), CLOSE_SECONDS)
        times = [time for record in own for time in (record.submitted, record.ended)]
        if any(_is_near(job.submitted, time, CLOSE_SECONDS) for time in times):
            found[one.key] = job
    return found


def _words(found: Mapping[Key, QueuedJob]) -> dict[Key, Word]:
    return {key: _word(job.state, job.reason) for key, job in found.items()}


def _records_if_told(by_job: Mapping[str, Sequence[Handed]]) -> dict[str, list[Record]]:
    """Return the records of jobs; none where accounting does not answer."""
    try:
        return _records(by_job) if by_job else {}
    except SystemRefused:
        return {}


def _records(by_job: Mapping[str, Sequence[Handed]]) -> dict[str, list[Record]]:
    """Ask accounting by number or, where there are too many for a command line, by time."""
    numbers = _numbers(by_job)
    if len(numbers) <= LONGEST:
        return sacct.records(["--jobs", numbers])
    times = [one.submitted for ones in by_job.values() for one in ones if one.submitted is not None]
    return sacct.records(["--starttime", f"uts{int(min(times, default=0.0) - SLACK_SECONDS)}"])


def _by_job(runs: Iterable[Handed]) -> dict[str, list[Handed]]:
    found: dict[str, list[Handed]] = defaultdict(list)
    for one in runs:
        if one.job_id is not None:
            found[one.job_id].append(one)
    return found


def _numbers(by_job: Iterable[str]) -> str:
    return ",".join(sorted({handed.array(job_id) for job_id in by_job}))


def _is_named(one: Handed, comment: str, name: str) -> bool | None:
    """Return whether a job is a run's by its comment or name; None where neither says anything."""
    if is_of_submission(one.submission, comment, name):
        return True
    return False if comment.startswith(COMMENT) else None


def _is_near(time: float | None, expected: float | None, slack: float) -> bool:
    return time is not None and expected is not None and abs(time - expected) <= slack


def _word(state: str, reason: str) -> Word:
    """Translate the states that we know; another one is passed on as it is."""
    if state in QUEUED:
        return Word("pending", in_words(reason))
    if state in AT_WORK:
        return Word("running", None if state == "RUNNING" else state.lower())
    return Word(state, in_words(reason))


def _final_word(state: str, exit_code: str) -> Word:
    """Translate the state of a job that is in the queue no more."""
    word = state.partition(" ")[0]
    if word == "CANCELLED":
        return Word("cancelled", "cancelled with scancel")
    if word in BY_THE_CLUSTER:
        return Word("interrupted", f"{BY_THE_CLUSTER[word]}; {RESUMES}")
    if word in BY_ITSELF:
        code = "" if exit_code in ("", "0:0") else f" (exit code {exit_code})"
        return Word("ended", f"{BY_ITSELF[word]}{code}; {RESUMES}")
    return Word("unsettled", f"its accounting says {state}, but it is not in the queue")
