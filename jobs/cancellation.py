"""Cancel runs: write a durable marker first, then signal the workers and schedulers that have the runs."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..errors import SystemRefused, UserError
from ..store import locks, ownership, submissions
from ..store.layout import ExperimentFiles, Root
from ..store.submissions import Submission, SubmittedRun, newest_runs
from .clock import Clock
from .resolve_states import run_states
from .runs import attempts, cancel_marker, disk_record
from .runs.disk_record import DiskRecord
from .runs.states import ACTIVE, RunState
from .schedulers import SCHEDULERS, Schedulers
from .schedulers.local import stop_workers

LOCK_SECONDS = 600.0

log = logging.getLogger("alphagrid")


@dataclass(frozen=True)
class Cancelled:
    """The result of a cancellation, as run ids."""

    cancelled: tuple[str, ...]
    """Runs that stop at their next step, with a checkpoint, until they are retried."""
    ended: tuple[str, ...]
    """Runs that had already ended."""


def cancel(
    root: Root,
    experiment: str,
    run_ids: Sequence[str],
    *,
    schedulers: Schedulers = SCHEDULERS,
    clock: Clock = time,
) -> Cancelled:
    """Cancel runs that are pending, running or interrupted.

    Raises:
        UserError: the experiment belongs to another user.
        SystemRefused: a marker cannot be written, or a scheduler refused. Markers that were written stay
            valid.
    """
    files = root.experiment(experiment)
    ownership.check(files, "cancel")
    with locks.held(
        files.path / "submit.lock",
        LOCK_SECONDS,
        f"another process has submitted to '{experiment}' for {LOCK_SECONDS:.0f} s",
    ):
        past, problems = submissions.read_good(files)
        for problem in problems:
            log.warning("%s; runs that it alone sends are left alone", problem)
        selected = {run_id: run for run_id, run in newest_runs(past).items() if run_id in set(run_ids)}
        records = _read_records(files, selected)
        states = run_states(root, files, selected, records, schedulers=schedulers, tolerant=True)
        ended = tuple(run_id for run_id in selected if _has_ended(states[run_id], records[run_id]))
        cancelled = {run_id: run for run_id, run in selected.items() if run_id not in ended}
        _write_markers(files, past, cancelled, clock.time())
        _stop_runs(files, past, cancelled, schedulers)
    return Cancelled(tuple(cancelled), ended)


def active_runs_not_in_spec(root: Root, experiment: str) -> dict[str, str]:
    """Return the names, by id, of active runs that are no longer in the specification.

    Raises:
        SystemRefused: a scheduler that may have a job for a run does not answer.
    """
    files = root.experiment(experiment)
    past = submissions.read_all(files)
    spec_runs = past[-1].named if past else {}
    runs = {run_id: run for run_id, run in newest_runs(past).items() if run_id not in spec_runs}
    states = run_states(root, files, runs)
    return {run_id: run.entry.name for run_id, run in runs.items() if states[run_id].state in ACTIVE}


def _read_records(files: ExperimentFiles, runs: Mapping[str, SubmittedRun]) -> dict[str, DiskRecord]:
    """Return each run's disk record; a damaged cancel marker counts as missing and is written again."""
    records = {}
    for run_id, run in runs.items():
        try:
            records[run_id] = disk_record.read(files.run(run_id), run.submission.id)
        except UserError as error:
            log.warning("%s", error.message)
            latest = attempts.latest(files.run(run_id))
            records[run_id] = DiskRecord.of(latest, run.submission.id, cancelled=False)
    return records


def _has_ended(state: RunState, record: DiskRecord) -> bool:
    """Return whether a run has ended, by its own files.

    A run that was cancelled earlier may not have seen the marker. It is stopped again while a scheduler may
    have a job for it.
    """
    if record.end is not None and not record.submitted_since:
        return True
    return record.cancelled and state.is_certain and not state.is_alive


def _write_markers(
    files: ExperimentFiles, past: Iterable[Submission], run_ids: Iterable[str], now: float
) -> None:
    """Write a cancel marker into each run's folder; it names all submissions of the run."""
    senders: dict[str, list[str]] = {run_id: [] for run_id in run_ids}
    for submission in past:
        for entry in submission.runs:
            if entry.id in senders:
                senders[entry.id].append(submission.id)
    for run_id, submission_ids in senders.items():
        try:
            cancel_marker.write(files.run(run_id), submission_ids, now)
        except OSError as error:
            raise SystemRefused(f"cannot cancel {run_id}: {error.strerror}") from error


def _stop_runs(
    files: ExperimentFiles,
    past: Sequence[Submission],
    cancelled: Mapping[str, SubmittedRun],
    schedulers: Schedulers,
) -> None:
    """Signal the workers on this machine and cancel the schedulers' jobs; other workers find the marker.

    Raises:
        SystemRefused: a worker could not be signalled, or a scheduler refused. All others were signalled.
    """
    try:
        stop_workers(files, cancelled)
    finally:
        for cluster in {run.submission.profile["cluster"] for run in cancelled.values()}:
            schedulers[cluster].cancel(past, cancelled)
