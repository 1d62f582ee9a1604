"""Cancelling runs: first a durable marker, then a word to whoever runs them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..errors import SystemRefused
from ..store import submissions
from ..store.layout import ExperimentFiles, Root
from ..store.submissions import Submission
from . import locks, markers, slurm
from .standing import Sent, accounts, newest, standings

LOCK_SECONDS = 600.0
ENDED = frozenset({"completed", "diverged", "failed", "cancelled"})


@dataclass(frozen=True)
class Cancelled:
    """What a cancellation did, as ids of runs."""

    cancelled: tuple[str, ...]
    """They stop at their next step, with a checkpoint, and stay so until they are retried."""
    ended: tuple[str, ...]
    """They had come to their end before."""


def cancel(root: Root, experiment: str, run_ids: Sequence[str], *, now: float | None = None) -> Cancelled:
    """Cancel the given runs, whether they wait, run or were interrupted.

    Raises:
        SystemRefused: a marker cannot be written, or Slurm refused; the markers written hold nevertheless.
    """
    now = time.time() if now is None else now
    files = root.experiment(experiment)
    with locks.held(files.path / "submit.lock", LOCK_SECONDS, f"a submit of '{experiment}' does not end"):
        past = submissions.read_all(files)
        sent = {run_id: one for run_id, one in newest(past).items() if run_id in set(run_ids)}
        found = standings(root, files, sent, accounts(files, sent), tolerant=True)
        ended = tuple(run_id for run_id in sent if found[run_id].state in ENDED)
        doomed = {run_id: one for run_id, one in sent.items() if run_id not in ended}
        _mark(files, past, doomed, now)
        _tell(files, doomed)
    return Cancelled(tuple(doomed), ended)


def _mark(files: ExperimentFiles, past: Iterable[Submission], doomed: Iterable[str], now: float) -> None:
    senders: dict[str, list[str]] = {run_id: [] for run_id in doomed}
    for submission in past:
        for entry in submission.runs:
            if entry.id in senders:
                senders[entry.id].append(submission.id)
    for run_id, names in senders.items():
        try:
            markers.write(files.run(run_id), names, now)
        except OSError as error:
            raise SystemRefused(f"cannot cancel {run_id}: {error.strerror}") from error


def _tell(files: ExperimentFiles, doomed: Mapping[str, Sent]) -> None:
    """Send SIGTERM to the workers of this machine, and scancel the jobs; who is neither finds the marker."""
    jobs = []
    for run_id, one in doomed.items():
        pid = locks.holder(files.run(run_id).lock)
        if pid is not None:
            _terminate(pid)
        job = one.submission.jobs.get(run_id)
        if job is not None and job.cluster == "slurm":
            jobs.append(job.job_id)
    if jobs:
        slurm.cancel(jobs)


def _terminate(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:  # it ended meanwhile
        pass
    except PermissionError as error:
        raise SystemRefused(f"process {pid} belongs to another user") from error
