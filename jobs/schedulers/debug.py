"""The `debug` scheduler: the submitting process executes runs one after the other."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ...errors import SystemRefused
from ...store.layout import ExperimentFiles, Root
from ..runs import attempts
from .base import OpenRun, Scheduler, SchedulerStates, SubmitRequest, SubmitResult
from .local import record, worker_state

if TYPE_CHECKING:
    from ...store.submissions import Submission


class DebugScheduler(Scheduler):
    """Executes runs in the submitting process."""

    name = "debug"
    checks_code_origin = False

    def check(self, root: Root, environ: Mapping[str, str]) -> None:
        """Accept everything."""

    def submit(self, request: SubmitRequest) -> SubmitResult:
        """Record the submission."""
        return record(request)

    def start(self, root: Root, files: ExperimentFiles, submission: Submission, is_due: bool) -> None:
        """Run the submission's runs here, one after the other."""
        run_here(files, submission.id, [entry.id for entry in submission.runs])

    def states(self, root: Root, runs: Sequence[OpenRun], *, tolerant: bool) -> SchedulerStates:
        """Return the runs that a process has, by locks and claims."""
        states = {run.job.key: worker_state(run.run) for run in runs}
        return SchedulerStates({key: state for key, state in states.items() if state is not None})

    @property
    def log_absence(self) -> str | None:
        """Why there is no log: runs write to the terminal."""
        return "a run of the profile debug writes to the terminal of its submit, and nowhere else"


def run_here(files: ExperimentFiles, submission: str, run_ids: Iterable[str]) -> None:
    """Run an attempt of each run in this process.

    Raises:
        KeyboardInterrupt: Ctrl-C; the current run was stopped cleanly, and the remaining runs do not start.
        SystemRefused: the disk is full, or another system error stopped the run.
    """
    from ...trainer.stopping import StopRequest
    from ..worker import attempt_run

    for run_id in run_ids:
        stop = StopRequest()
        with _same_environment():
            ending = attempt_run(files, run_id, submission, stop)
        if ending != "interrupted":
            continue
        if stop:
            raise KeyboardInterrupt
        latest = attempts.latest(files.run(run_id))
        raise SystemRefused(
            f"run {run_id} was interrupted: {latest.reason if latest else 'it could not begin'}"
        )


@contextmanager
def _same_environment() -> Iterator[None]:
    """Restore the environment after a run, so that the next run starts with the same variables."""
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
