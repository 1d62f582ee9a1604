"""Resolve duplicate jobs of two submitters that do not see each other: the older job of a run wins.

A lock excludes a second submitter, but not on hosts whose locks do not reach each other. Such hosts may not
even see each other's files for a while. Slurm's controller sees all jobs, and decides:

1. A submitter submits its jobs held, and records none of them.
2. It lists its user's jobs, in an answer that is newer than its own jobs because it contains them. For each
   other job of the experiment it reads the run from the job's script. The controller keeps the script, so
   this works even if the other submitter's files are not visible here.
3. If another job with a lower id has one of its runs, its own job has lost. The submitter records only the
   winners, cancels the losers, and releases the winners.

**No run twice.** Of two jobs for one run, the one with the higher id was created later. Its submitter lists
the other one, as long as Slurm has it, and cancels its own. A job whose submitter was killed before step 3 is
held and unrecorded: the next `submit` cancels it. A submitter that was killed later has recorded only
winners, which the next `submit` releases. **No run lost.** The job with the lowest id never loses. If its
submitter dies or is refused, the next `submit` sends its runs again. Only winners are recorded, so the newest
submission that sends a run is the winner's, and `status` and `cancel` find its job.

The job of the newest earlier submission of a run is not a rival: the submitter knew it when it decided to
send the run again. It may still be listed while it stops.

Between its first and last step a submission names its `submitter`. Other submitters leave its jobs in the
queue unchanged while that process lives, or for `SECONDS_TO_SUBMIT` if they cannot see the process.
"""

from __future__ import annotations

import os
import re
import shlex
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ...errors import SystemRefused
from ...slurm import scontrol, squeue
from ...slurm.command import Failed
from ...slurm.squeue import QueuedJob
from ...store import submissions
from ...store.layout import ExperimentFiles
from ...store.submissions import JobRef, Submission
from ..runs.submitted_job import COMMENT_PREFIX, array_of
from .slurm_states import OVER

SECONDS_TO_SUBMIT = 600.0
"""Maximum seconds that a submitter on another host takes from its first step to its last."""
LOOKS = 3
"""Number of squeue queries for a list that contains our own jobs, before the controller is queried."""
SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_TO_APPEAR = 30.0
"""Maximum wait for a submission's file, which shows whether a job belongs to the same root."""
SUBMISSION = re.compile(r"\d{8}T\d{6}-[0-9a-f]{6}")
RUNS = re.compile(r"^alphagrid_runs=\((.*)\)$", re.MULTILINE)
FOLDER = re.compile(r"^alphagrid_run=(.*)/\$\{alphagrid_runs\[.*$", re.MULTILINE)
"""Lines of a job's script (`slurm_setup_failure.before_setup`)."""


@dataclass(frozen=True)
class Rival:
    """A job of another submission that has a run."""

    job_id: str
    submission: str


def lost_runs(
    files: ExperimentFiles, jobs: Mapping[str, JobRef], past: Sequence[Submission]
) -> dict[str, Rival | None]:
    """Return the runs that a submission's held `jobs` (by run) have lost, and to which job.

    The value is None for a job that was cancelled meanwhile.

    Raises:
        SystemRefused: Slurm does not answer.
    """
    own = {job.job_id: run_id for run_id, job in jobs.items()}
    listed = {job.job_id: job for job in _list_queue(own) if job.state not in OVER}
    arrays = {array_of(job_id) for job_id in own}
    users = {job.user for job_id, job in listed.items() if job_id in own}
    other_jobs = [job for job in listed.values() if array_of(job.job_id) not in arrays and job.user in users]
    best: dict[str, Rival] = {}
    for run_id, rival in _find_rivals(files, other_jobs, jobs, past):
        if _array_number(rival.job_id) < _array_number(jobs[run_id].job_id):
            best[run_id] = min(
                rival, best.get(run_id, rival), key=lambda candidate: _array_number(candidate.job_id)
            )
    gone = {run_id: None for job_id, run_id in own.items() if job_id not in listed}
    return {**gone, **best}


def may_be_submitting(submission: Submission, now: float) -> bool:
    """Return whether another process may be about to put the submission's jobs into the queue."""
    submitter = submission.submitter
    if submitter is None:
        return False
    lives = submitter.lives
    if lives is None:
        return now - submission.created < SECONDS_TO_SUBMIT
    return lives and submitter.pid != os.getpid()


def _list_queue(own: Collection[str]) -> list[QueuedJob]:
    """Return this user's jobs, in an answer that is newer than all of `own`.

    Raises:
        SystemRefused: neither squeue nor the controller answers.
    """
    for _ in range(LOOKS):
        with suppress(SystemRefused):
            listed = squeue.jobs(["--me"])
            if set(own) <= {job.job_id for job in listed}:
                return listed
        time.sleep(SECONDS_BETWEEN_LOOKS)
    return list(scontrol.all_jobs().values())


def _find_rivals(
    files: ExperimentFiles,
    other_jobs: Sequence[QueuedJob],
    run_ids: Collection[str],
    past: Sequence[Submission],
) -> Iterator[tuple[str, Rival]]:
    """Yield the runs of `run_ids` that other jobs have, with those jobs."""
    considered = {
        (run.submission.id, run.submission.jobs[run_id].job_id)
        for run_id, run in submissions.newest_runs(past).items()
        if run_id in run.submission.jobs
    }
    runs_of: dict[str, list[str]] = {}
    check = _ExperimentCheck(files)
    for job in other_jobs:
        submission = _submission_of(files.name, job)
        if submission is None or (submission, job.job_id) in considered:
            continue
        number, _, task = job.job_id.partition("_")
        if number not in runs_of:
            runs_of[number] = _runs_of_array(check, number, submission, run_ids)
        index = int(task or 0)
        if index < len(runs_of[number]) and runs_of[number][index] in run_ids:
            yield runs_of[number][index], Rival(job.job_id, submission)


def _submission_of(experiment: str, job: QueuedJob) -> str | None:
    """Return the submission of a job; None if its name or comment shows that it is of another experiment.

    If a site rewrites job names, the caller reads the experiment from the job's script.
    """
    before, _, last = job.name.rpartition(".")
    if job.comment.startswith(COMMENT_PREFIX):
        submission = job.comment.removeprefix(COMMENT_PREFIX)
        return None if last == submission and before != experiment else submission
    return last if before == experiment and SUBMISSION.fullmatch(last) else None


def _runs_of_array(
    check: _ExperimentCheck, number: str, submission: str, run_ids: Collection[str]
) -> list[str]:
    """Return the runs of an array by task; none if it is of another root or has none of `run_ids`."""
    try:
        script = scontrol.batch_script(number)
    except Failed as error:
        if error.job_is_gone:
            return []
        raise
    runs, folder = RUNS.search(script), FOLDER.search(script)
    if runs is None or folder is None:
        return []
    ids = runs[1].split()
    return ids if set(ids) & set(run_ids) and check.is_ours(shlex.split(folder[1])[0], submission) else []


class _ExperimentCheck:
    """Checks whether jobs belong to this experiment or to one of the same name under another root."""

    def __init__(self, files: ExperimentFiles) -> None:
        self._files = files
        self._deadline = time.monotonic() + SECONDS_TO_APPEAR

    def is_ours(self, folder: str, submission: str) -> bool:
        """Return whether a job's folder is this experiment's; another host may use another path for it.

        In that case the job's submission file is in this experiment, but may become visible late. One
        deadline holds for all jobs.
        """
        here, there = self._files.path.absolute(), Path(folder)
        if here == there:
            return True
        with suppress(OSError):
            if here.samefile(there):
                return True
        while f"{submission}.json" not in {path.name for path in submissions.submission_files(self._files)}:
            if time.monotonic() > self._deadline:
                return False
            time.sleep(1)
        return True


def _array_number(job_id: str) -> int:
    return int(array_of(job_id))


def description(lost: Mapping[str, Rival | None]) -> str:
    """Return a message about the runs that were lost to other jobs."""
    rivals = [rival for rival in lost.values() if rival is not None]
    messages = []
    if rivals:
        jobs = ", ".join(sorted({array_of(rival.job_id) for rival in rivals}, key=int))
        messages.append(f"another submit sent {len(rivals)} of the runs at the same time (Slurm jobs {jobs})")
    if len(lost) > len(rivals):
        count = len(lost) - len(rivals)
        messages.append(f"{count} held jobs were cancelled meanwhile: submit again")
    return "; ".join(messages)
