"""Slurm's states of runs: match jobs with runs, and translate the jobs' states.

squeue, sacct and scontrol report jobs; this module finds the run of each job. Slurm reuses job ids, and a
site's scripts may rewrite comments and names. A job belongs to a run if its id matches and its comment or
name contains the submission. If both were rewritten, the batch script of a queued job decides, because no
site rewrites it. If the script cannot be read (another user's job), and for accounting, the times decide: a
job belongs to a run if it was submitted when the submission was, or requeued when its previous record ended.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from ...errors import SystemRefused
from ...slurm import sacct, scontrol, squeue
from ...slurm.pending_reasons import in_words
from ...slurm.sacct import Record
from ...slurm.squeue import QueuedJob
from ..runs.states import SchedulerState
from ..runs.submitted_job import COMMENT_PREFIX, RunKey, SubmittedJob, array_of, comment_of
from .base import OpenRun, SchedulerStates

QUEUED = frozenset(
    {
        *("PENDING", "CONFIGURING", "POWER_UP_NODE", "EXPEDITING"),
        *("REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"),
    }
)
AT_WORK = frozenset({"RUNNING", "COMPLETING", "SIGNALING", "STAGE_OUT", "SUSPENDED", "STOPPED", "RESIZING"})
ENDED_BY_CLUSTER = {
    "PREEMPTED": "preempted and not requeued",
    "TIMEOUT": "reached its time limit",
    "NODE_FAIL": "its node failed",
    "BOOT_FAIL": "its node did not boot",
    "DEADLINE": "reached its deadline",
}
ENDED_BY_ITSELF = {
    "OUT_OF_MEMORY": "ran out of the memory that its job asked for",
    "FAILED": "its job failed",
    "COMPLETED": "its job ended, and the run did not say how",
}
OVER = frozenset(
    {"CANCELLED", "LAUNCH_FAILED", "RECONFIG_FAIL", "REVOKED", *ENDED_BY_CLUSTER, *ENDED_BY_ITSELF}
)
"""States of an ended job that may still be listed for a while; accounting has the details."""
RESUMES = "the next submit continues it"
LOST = "submit sends it ten minutes after its last sign of life, retry at once"
SLACK_SECONDS = 1200.0
"""Maximum difference of two times of one job: clocks differ, and a submission takes a while."""
CLOSE_SECONDS = 5.0
"""The same if a different comment or name suggests another job with the same number."""
MAX_CALLS = 20
"""Maximum number of arrays that the controller is queried for one by one."""
MAX_CALLS_OF_READERS = 10
"""Maximum number of arrays for which a reading command queries the controller, with one call each."""
MAX_ARGUMENT = 100_000
"""Maximum characters of a list of jobs; the system accepts no argument over 128 kB."""


def states(runs: Sequence[OpenRun], *, tolerant: bool) -> SchedulerStates:
    """Return Slurm's states of runs: query squeue, then accounting and the controller.

    Accounting is queried for runs whose jobs are not in the queue. The controller is queried for those of
    them that have not ended by accounting. If the answer decides what is submitted (not `tolerant`), it is
    queried for all that were not cancelled, because some sites cache the output of squeue.

    Raises:
        SystemRefused: squeue or the controller does not answer, and not `tolerant`. A failure of accounting
            only adds a note.
    """
    unsent = {
        run.job.key: SchedulerState("unsent", run.job.refusal)
        for run in runs
        if run.job.job_id is None and run.job.refusal is not None
    }
    submitted = [run for run in runs if run.job.job_id is not None]
    if not submitted:
        return SchedulerStates(unsent)
    try:
        queued_states = in_queue([run.job for run in submitted])
    except SystemRefused as error:
        if not tolerant:
            raise
        reason = f"Slurm could not be asked ({error.message})"
        silent = {run.job.key: SchedulerState("silent", reason) for run in submitted}
        return SchedulerStates({**unsent, **silent}, (reason,))
    unlisted = [run.job for run in submitted if run.job.key not in queued_states and not run.record.cancelled]
    elsewhere = _on_other_clusters(unlisted, tolerant)
    unlisted = [job for job in unlisted if job.key not in elsewhere]
    notes: list[str] = []
    try:
        accounted = in_accounting(unlisted)
    except SystemRefused as error:
        notes.append(f"accounting does not tell how jobs ended ({error.message})")
        accounted = {}
    unclear = _unclear_jobs(unlisted, accounted, tolerant)
    try:
        controlled = at_controller(unclear)
    except SystemRefused as error:
        if not tolerant:
            raise
        notes.append(f"the controller could not be asked ({error.message})")
        unclear, controlled = [], {}
    lost = _lost_states({job.key for job in unclear} - controlled.keys(), accounted)
    return SchedulerStates(
        {**unsent, **queued_states, **elsewhere, **accounted, **lost, **controlled}, tuple(notes)
    )


def _unclear_jobs(
    unlisted: Sequence[SubmittedJob], accounted: Mapping[RunKey, SchedulerState], tolerant: bool
) -> list[SubmittedJob]:
    """Return the jobs that are not in the queue and that need a query to the controller."""
    if not tolerant:
        return [
            job for job in unlisted if job.key not in accounted or accounted[job.key].state != "cancelled"
        ]
    unclear = [job for job in unlisted if job.key not in accounted or accounted[job.key].state == "unsettled"]
    arrays = {array_of(str(job.job_id)) for job in unclear}
    return unclear if len(arrays) <= MAX_CALLS_OF_READERS else []


def _lost_states(
    unknown: Collection[RunKey], accounted: Mapping[RunKey, SchedulerState]
) -> dict[RunKey, SchedulerState]:
    """Return states with better reasons for jobs that only accounting lists as running."""
    return {
        key: SchedulerState("unsettled", f"{state.reason}; the controller does not know it; {LOST}")
        for key, state in accounted.items()
        if key in unknown and state.state == "unsettled"
    }


def _on_other_clusters(unlisted: Sequence[SubmittedJob], tolerant: bool) -> dict[RunKey, SchedulerState]:
    """Return the states of unlisted jobs that another Slurm cluster may have.

    Raises:
        SystemRefused: there are such jobs, and not `tolerant`.
    """
    if not any(job.slurm_cluster for job in unlisted):
        return {}
    try:
        here = scontrol.cluster_name()
    except SystemRefused as error:
        if not tolerant:
            raise
        here, reason = None, error.message
    else:
        reason = f"this machine speaks to the cluster '{here}'"
    other_jobs = [job for job in unlisted if job.slurm_cluster not in (None, here)]
    if other_jobs and not tolerant:
        other = other_jobs[0].slurm_cluster
        raise SystemRefused(
            f"{len(other_jobs)} runs may be in the hands of the cluster '{other}', and {reason}",
            f"submit from '{other}'; or end them with `alphagrid cancel`, then `alphagrid retry`",
        )
    return {
        job.key: SchedulerState("silent", f"it was sent to the cluster '{job.slurm_cluster}', and {reason}")
        for job in other_jobs
    }


def in_queue(jobs: Collection[SubmittedJob]) -> dict[RunKey, SchedulerState]:
    """Return the states of runs by squeue, in one call; a run whose job it does not list is left out.

    Raises:
        SystemRefused: squeue failed, so the absence of a job would mean nothing.
    """
    job_ids = _by_job_id(jobs)
    if not job_ids:
        return {}
    numbers = _array_list(job_ids)
    listed = squeue.jobs(["--jobs", numbers] if len(numbers) <= MAX_ARGUMENT else [])
    return _translate_jobs(matching_jobs(jobs, [job for job in listed if job.state not in OVER]))


def in_accounting(jobs: Iterable[SubmittedJob]) -> dict[RunKey, SchedulerState]:
    """Return the states of runs by accounting, in one call; a run whose job it does not know is left out.

    An array's record without a task is the record of its last pending task, which was cancelled alone.

    Raises:
        SystemRefused: sacct is missing or failed.
    """
    by_job_id = _by_job_id(jobs)
    records = _accounting_records(by_job_id) if by_job_id else {}
    states: dict[RunKey, SchedulerState] = {}
    for job_id, submitted in by_job_id.items():
        for job in submitted:
            own = own_records(job, records.get(job_id) or records.get(array_of(job_id)) or ())
            if own:
                states[job.key] = _final_state(own[-1].state, own[-1].exit_code)
    return states


def at_controller(jobs: Collection[SubmittedJob]) -> dict[RunKey, SchedulerState]:
    """Return the states of runs by the controller, which soon forgets ended jobs.

    One call is made per array or, if there are many, one for all jobs of the cluster. An array's record
    without a task is the record of its last pending task, which was cancelled alone. Sites cache squeue, and
    squeue occasionally leaves out a job; the controller does not.

    Raises:
        SystemRefused: scontrol failed for another reason than an unknown job.
    """
    by_job_id = _by_job_id(jobs)
    arrays = sorted({array_of(job_id) for job_id in by_job_id})
    answers = map(scontrol.jobs, arrays) if len(arrays) <= MAX_CALLS else [scontrol.all_jobs()]
    answered = {job_id: job for answer in answers for job_id, job in answer.items()}
    known_jobs = [
        replace(queued, job_id=job_id)
        for job_id in by_job_id
        if (queued := answered.get(job_id) or answered.get(array_of(job_id))) is not None
    ]
    states: dict[RunKey, SchedulerState] = {}
    for queued in known_jobs:
        if queued.state in OVER:
            for job in by_job_id[queued.job_id]:
                if _is_named(job, queued.comment, queued.name):
                    states[job.key] = _final_state(queued.state, "")
    alive = [queued for queued in known_jobs if queued.state not in OVER]
    return {**states, **_translate_jobs(matching_jobs(jobs, alive))}


def own_records(
    job: SubmittedJob, records: Sequence[Record], empty_slack: float = SLACK_SECONDS
) -> list[Record]:
    """Return a run's records in accounting, oldest first, without those of other jobs with the same number.

    If neither comment nor name decides, the times do: a record begins when the job was submitted, or when its
    previous record ended because the job was requeued. `empty_slack` [s] applies without a comment.
    """
    own, expected = [], job.submitted
    for record in records:
        is_named = _is_named(job, record.comment, record.name)
        slack = CLOSE_SECONDS if record.comment else empty_slack
        if is_named or (is_named is None and _is_near(record.submitted, expected, slack)):
            own.append(record)
            expected = record.ended or record.submitted
    return own


def is_of_submission(submission: str, comment: str, name: str) -> bool:
    """Return whether a job belongs to a submission, by its comment or name."""
    if comment == comment_of(submission):
        return True
    return not comment.startswith(COMMENT_PREFIX) and submission in name


def matching_jobs(jobs: Iterable[SubmittedJob], queued: Iterable[QueuedJob]) -> dict[RunKey, QueuedJob]:
    """Return the queued job of each run.

    If neither comment nor name decides, the batch script does. If the script cannot be read, the times
    decide, with accounting's records.
    """
    by_job_id = _by_job_id(jobs)
    matching: dict[RunKey, QueuedJob] = {}
    unnamed: list[tuple[SubmittedJob, QueuedJob]] = []
    for candidate in queued:
        for job in by_job_id.get(candidate.job_id, ()):
            is_named = _is_named(job, candidate.comment, candidate.name)
            if is_named:
                matching[job.key] = candidate
            elif is_named is None:
                unnamed.append((job, candidate))
    scripts = {
        array: _batch_script(array) for array in {array_of(candidate.job_id) for _, candidate in unnamed}
    }
    without_script = []
    for job, candidate in unnamed:
        script = scripts[array_of(candidate.job_id)]
        if script is None:
            without_script.append((job, candidate))
        elif job.comment in script:
            matching[job.key] = candidate
    return {**matching, **_matching_by_time(without_script)}


def _matching_by_time(unnamed: Sequence[tuple[SubmittedJob, QueuedJob]]) -> dict[RunKey, QueuedJob]:
    """Return the candidates that were submitted when a run was, or requeued when a record of it ended."""
    records = _accounting_records_or_none({candidate.job_id: [job] for job, candidate in unnamed})
    matching: dict[RunKey, QueuedJob] = {}
    for job, candidate in unnamed:
        own = own_records(job, records.get(candidate.job_id, ()), CLOSE_SECONDS)
        times = [job.submitted, *(time for record in own for time in (record.submitted, record.ended))]
        if any(_is_near(candidate.submitted, time, CLOSE_SECONDS) for time in times):
            matching[job.key] = candidate
    return matching


def _batch_script(array: str) -> str | None:
    """Return the script of a job or an array; None if the controller does not return it."""
    try:
        return scontrol.batch_script(array)
    except SystemRefused:
        return None


def _accounting_records(by_job_id: Mapping[str, Sequence[SubmittedJob]]) -> dict[str, list[Record]]:
    """Return the accounting records of jobs, by number or, if there are too many, by time."""
    numbers = _array_list(by_job_id)
    if len(numbers) <= MAX_ARGUMENT:
        return sacct.records(["--jobs", numbers])
    times = [job.submitted for jobs in by_job_id.values() for job in jobs if job.submitted is not None]
    return sacct.records(["--starttime", f"uts{int(min(times, default=0.0) - SLACK_SECONDS)}"])


def _accounting_records_or_none(by_job_id: Mapping[str, Sequence[SubmittedJob]]) -> dict[str, list[Record]]:
    """Return the accounting records of jobs; none if accounting does not answer."""
    try:
        return _accounting_records(by_job_id) if by_job_id else {}
    except SystemRefused:
        return {}


def _by_job_id(jobs: Iterable[SubmittedJob]) -> dict[str, list[SubmittedJob]]:
    by_job_id: dict[str, list[SubmittedJob]] = defaultdict(list)
    for job in jobs:
        if job.job_id is not None:
            by_job_id[job.job_id].append(job)
    return by_job_id


def _array_list(job_ids: Iterable[str]) -> str:
    return ",".join(sorted({array_of(job_id) for job_id in job_ids}))


def _is_named(job: SubmittedJob, comment: str, name: str) -> bool | None:
    """Return whether a job belongs to a run, by its comment or name; None if neither decides."""
    if is_of_submission(job.submission, comment, name):
        return True
    return False if comment.startswith(COMMENT_PREFIX) else None


def _is_near(time: float | None, expected: float | None, slack: float) -> bool:
    return time is not None and expected is not None and abs(time - expected) <= slack


def _translate_jobs(matching: Mapping[RunKey, QueuedJob]) -> dict[RunKey, SchedulerState]:
    return {key: _queue_state(job.state, job.reason) for key, job in matching.items()}


def _queue_state(state: str, reason: str) -> SchedulerState:
    """Translate the state of a queued job; an unknown state is returned unchanged."""
    if state in QUEUED:
        return SchedulerState("pending", in_words(reason))
    if state in AT_WORK:
        return SchedulerState("running", None if state == "RUNNING" else state.lower())
    return SchedulerState(state, in_words(reason))


def _final_state(state: str, exit_code: str) -> SchedulerState:
    """Translate the state of a job that is no longer in the queue."""
    word = state.partition(" ")[0]
    if word == "CANCELLED":
        return SchedulerState("cancelled", "cancelled with scancel")
    if word in ENDED_BY_CLUSTER:
        return SchedulerState("interrupted", f"{ENDED_BY_CLUSTER[word]}; {RESUMES}")
    if word in ENDED_BY_ITSELF:
        code = "" if exit_code in ("", "0:0") else f" (exit code {exit_code})"
        return SchedulerState("ended", f"{ENDED_BY_ITSELF[word]}{code}; {RESUMES}")
    return SchedulerState("unsettled", f"its accounting says {state}, but it is not in the queue")
