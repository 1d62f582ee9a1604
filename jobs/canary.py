"""The canary: the first run of a submission goes alone, the others when it has reached an evaluation.

On Slurm the others are in the queue, held, and the canary's own worker releases them, so nobody has to stay
at a terminal; on this machine the supervisor leaves them where they are. If the canary comes to an end
before, they stay where they are, and the next `submit` sends them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import SystemRefused
from ..store import journal, submissions
from ..store.files import open_file
from ..store.layout import ExperimentFiles, RunFiles
from ..store.submissions import Submission
from . import slurm
from .states import ACTIVE, State

PERIOD = 1.0
"""Seconds between two looks of a canary's worker at what it has written."""
LAST_LOOK_SECONDS = 10.0
"""How long a canary that has to stop, perhaps within its grace, waits for Slurm to release the others."""
EVALUATION = b'{"kind":"evaluation",'

log = logging.getLogger("alphagrid")


def waits(submission: Submission, run_id: str) -> bool:
    """Tell whether a run was sent to start after its submission's canary."""
    return submission.canary not in (None, run_id)


def is_proven(files: ExperimentFiles, submission: Submission) -> bool:
    """Tell whether the canary has written down an evaluation, in an attempt of this very submission."""
    return submission.canary is None or has_evaluated(files.run(submission.canary), submission.id)


def has_evaluated(run: RunFiles, submission: str) -> bool:
    """Tell whether a run has written down an evaluation, in an attempt of this very submission."""
    return any(_evaluated(path, submission) for _, path in run.journals())


def let_go(files: ExperimentFiles, submission: Submission) -> None:
    """Let the runs of a submission start whatever its canary does."""
    submissions.amend(files, submission, canary=None)
    jobs = waiting_jobs(submission)
    if jobs:
        slurm.release(jobs)


def waiting_jobs(submission: Submission) -> list[str]:
    """Return the jobs of a submission that were sent to start after its canary."""
    return [job.job_id for run_id, job in submission.jobs.items() if waits(submission, run_id)]


def judge(state: State, reason: str | None, name: str) -> tuple[State, str]:
    """Return the state of a run that waits for a canary which stands like this, and why."""
    if state in ACTIVE:
        return "pending", f"waits for the canary {name} to reach its first evaluation"
    why = f" ({reason})" if reason else ""
    return "interrupted", f"held back: the canary {name} is {state}{why}; the next submit sends this run"


@contextmanager
def releasing(files: ExperimentFiles, submission: Submission, run_id: str) -> Iterator[None]:
    """On Slurm, in the canary's job: release the others' jobs when it has reached an evaluation."""
    if submission.canary != run_id or submission.profile["cluster"] != "slurm":
        yield
        return
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(files, submission, over), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join(LAST_LOOK_SECONDS)


def _watch(files: ExperimentFiles, submission: Submission, over: threading.Event) -> None:
    is_last_look = False
    while not (is_proven(files, submission) and _release_others(files, submission)) and not is_last_look:
        is_last_look = over.wait(PERIOD)


def _release_others(files: ExperimentFiles, submission: Submission) -> bool:
    """Release the jobs that wait, whole arrays at a time; tell whether that worked."""
    newest = submissions.read(files.submissions / f"{submission.id}.json")
    waiting = waiting_jobs(newest)
    try:
        slurm.release(waiting)
    except SystemRefused as error:
        log.warning("the others are not released yet: %s", error.message)
        return False
    log.info("an evaluation is reached; %d runs that waited for this one may start", len(waiting))
    return True


def _evaluated(path: Path, submission: str) -> bool:
    try:
        with open_file(path) as file:
            start = journal.parse(file.readline()).records
            if not start or start[0].get("submission") != submission:
                return False
            return any(line.startswith(EVALUATION) and line.endswith(b"\n") for line in file)
    except OSError:  # it has not arrived yet, or is no file: nothing is proven
        return False
