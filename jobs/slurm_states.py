"""Slurm's answers about runs, in alphagrid's states: which job is whose, and what its state means.

squeue, sacct and scontrol tell of jobs; here a job is matched with the run that it was submitted for. Job ids
are reused, and a site's scripts may rewrite comments and names, so a job is a run's if its id fits and its
comment or its name carries the submission. Where both were rewritten, it is a run's if it was submitted when
the submission was. Slurm sets that time anew when it requeues a job. Of a job in the queue the batch script
decides then, which no site rewrites. A record in accounting is a run's if it begins where its previous one
ends; so is a job in the queue whose script cannot be read, another user's for example.
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
MOST_CALLS = 20
"""For how many arrays the controller is asked one by one."""
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

    Where there are many arrays, all jobs are asked for in one call.

    Sites cache squeue, and squeue itself now and then leaves out a job; the controller's own record of one
    job does not.

    Raises:
        SystemRefused: scontrol failed otherwise than by not knowing a job.
    """
    by_job = _by_job(runs)
    arrays = sorted({handed.array(job_id) for job_id in by_job})
    answers = map(scontrol.jobs, arrays) if len(arrays) <= MOST_CALLS else [scontrol.all_jobs()]
    known = [job for answer in answers for job_id, job in answer.items() if job_id in by_job]
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
    """Return the job of each run among `jobs`.

    Where neither names nor times tell, its script is read, and where that cannot be, accounting is asked.
    """
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
    scripts = {number: _script(number) for number in {_array(job) for _, job in doubtful}}
    records = _records_if_told({job.job_id: [one] for one, job in doubtful if not scripts[_array(job)]})
    for one, job in doubtful:
        told = own_records(one, records.get(job.job_id, ()), CLOSE_SECONDS)
        if one.comment in scripts[_array(job)] or _continues(told, job):
            found[one.key] = job
    return found


def _continues(records: Sequence[Record], job: QueuedJob) -> bool:
    """Return whether a job in the queue has the last of these records, or was requeued when one ended."""
    times = [time for record in records for time in (record.submitted, record.ended)]
    return any(_is_near(job.submitted, time, CLOSE_SECONDS) for time in times)


def _script(number: str) -> str:
    """Return the script of a job or an array; nothing where the controller does not give it."""
    try:
        return scontrol.batch_script(number)
    except SystemRefused:
        return ""


def _words(found: Mapping[Key, QueuedJob]) -> dict[Key, Word]:
    return {key: _word(job.state, job.reason) for key, job in found.items()}


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


def _array(job: QueuedJob) -> str:
    return handed.array(job.job_id)


def _records_if_told(by_job: Mapping[str, Sequence[Handed]]) -> dict[str, list[Record]]:
    """Return the records of jobs; none where accounting does not answer."""
    try:
        return _records(by_job) if by_job else {}
    except SystemRefused:
        return {}


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
