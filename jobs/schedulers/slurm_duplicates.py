"""Two submitters that do not see each other: of two jobs for one run, the older one stays.

A lock keeps submitters apart, but not on hosts whose locks do not reach each other, where they may not even
see each other's files for a while. Slurm's controller sees all jobs, and decides:

1. A submitter sends its jobs held, and records none of them.
2. It lists its user's jobs, in an answer that is newer than its own jobs: one that holds them. For each
   other job of the experiment it reads the run from the job's script, which the controller keeps, whatever
   files are seen from here.
3. Where another job with a lower id has one of its runs, its own job has lost. It writes down the winners
   alone, cancels the losers, and releases the winners.

**No run twice.** Of two jobs for one run, that with the higher id was created later. Its submitter lists the
other one, as long as Slurm has it, and gives its own up. A job whose submitter was killed before step 3 is
held and unrecorded: the next `submit` cancels it. One that was killed later has recorded winners alone, which
the next `submit` releases. **No run lost.** The job with the lowest id never gives up. If its submitter dies,
or is refused, the next `submit` sends its runs again. As the winners alone are recorded, the newest
submission that sends a run is the winner's, and `status` and `cancel` find its job.

A job that the submitter knew when it decided to send its run again (that of the newest submission which sent
the run before) is no rival. It may be listed still, while it stops.

For the time between its first and last step a submission names its `submitter`. Others leave what it has in
the queue alone while that process lives, or for `SECONDS_TO_SUBMIT` where they cannot know.
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
"""How long a submitter of another host may take from its first step to its last."""
LOOKS = 3
"""How often squeue is asked for a list that holds our own jobs, before the controller is."""
SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_TO_APPEAR = 30.0
"""How long a submission's file is waited for, to learn whether a job is of the same root."""
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

    None stands for a job that is gone, because it was cancelled.

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
        SystemRefused: the controller does not answer, whatever became of squeue.
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
    """Yield the wanted runs that other jobs have, with those jobs."""
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
    """Return the submission that a job is of; None if it is not of this experiment, as far as one can tell.

    Where a site has rewritten the name, the job's script tells the experiment.
    """
    before, _, last = job.name.rpartition(".")
    if job.comment.startswith(COMMENT_PREFIX):
        submission = job.comment.removeprefix(COMMENT_PREFIX)
        return None if last == submission and before != experiment else submission
    return last if before == experiment and SUBMISSION.fullmatch(last) else None


def _runs_of_array(
    check: _ExperimentCheck, number: str, submission: str, run_ids: Collection[str]
) -> list[str]:
    """Return the runs of an array by task; none if it is of another root, or has none of the wanted runs."""
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
    """Tells whether jobs are of this experiment, or of one of the same name under another root."""

    def __init__(self, files: ExperimentFiles) -> None:
        self._files = files
        self._deadline = time.monotonic() + SECONDS_TO_APPEAR

    def is_ours(self, folder: str, submission: str) -> bool:
        """Return whether a job's folder is this experiment's; another host may know it under another path.

        The job's submission is then here, though it may take a while to be seen; all are waited for together.
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
    """Return what to say of runs that were lost to other jobs."""
    rivals = [rival for rival in lost.values() if rival is not None]
    messages = []
    if rivals:
        jobs = ", ".join(sorted({array_of(rival.job_id) for rival in rivals}, key=int))
        messages.append(f"another submit sent {len(rivals)} of the runs at the same time (Slurm jobs {jobs})")
    if len(lost) > len(rivals):
        count = len(lost) - len(rivals)
        messages.append(f"{count} held jobs were cancelled meanwhile: submit again")
    return "; ".join(messages)
