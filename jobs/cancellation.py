"""Cancelling runs: first a durable marker, then a word to whoever runs them."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..errors import SystemRefused, UserError
from ..slurm import scontrol
from ..store import locks, ownership, submissions
from ..store.layout import ExperimentFiles, Root
from ..store.submissions import Submission
from . import attempts, markers, slurm
from .standing import Sent, Standing, accounts, newest, standings
from .states import Account, account

LOCK_SECONDS = 600.0

log = logging.getLogger("alphagrid")


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
        UserError: the experiment is another user's.
        SystemRefused: a marker cannot be written, or Slurm refused; the markers written hold nevertheless.
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
        sent = {run_id: one for run_id, one in newest(past).items() if run_id in set(run_ids)}
        known = _accounts(files, sent)
        found = standings(root, files, sent, known, tolerant=True)
        ended = tuple(run_id for run_id in sent if _has_ended(found[run_id], known[run_id]))
        doomed = {run_id: one for run_id, one in sent.items() if run_id not in ended}
        _mark(files, past, doomed, time.time() if now is None else now)
        _tell(files, past, doomed)
    return Cancelled(tuple(doomed), ended)


def _accounts(files: ExperimentFiles, sent: Mapping[str, Sent]) -> dict[str, Account]:
    """Return what each run has left on disk; a damaged marker counts as none, and is written again."""
    found = {}
    for run_id, one in sent.items():
        try:
            found.update(accounts(files, {run_id: one}))
        except UserError as error:
            log.warning("%s", error.message)
            found[run_id] = account(attempts.latest(files.run(run_id)), one.submission.id, cancelled=False)
    return found


def _has_ended(standing: Standing, account: Account) -> bool:
    """Tell whether a run is at its end by its own files; what scancel did is known to accounting alone.

    One that was cancelled may not have heard of it, and is told again while anybody may have it in his hands.
    """
    if account.end is not None and not account.sent_since:
        return True
    return account.cancelled and standing.is_certain and not standing.is_alive


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


def _tell(files: ExperimentFiles, past: Sequence[Submission], doomed: Mapping[str, Sent]) -> None:
    """Send SIGTERM to the workers of this machine, and scancel the jobs; who is neither finds the marker.

    Raises:
        SystemRefused: Slurm refused, or does not answer, or a worker could not be told.
    """
    refusals = [error for run_id in doomed if (error := _stop_worker(files, run_id)) is not None]
    if any(one.submission.profile["cluster"] == "slurm" and one.submission.jobs for one in doomed.values()):
        try:
            scontrol.cancel(slurm.jobs_of(past, doomed))
        except SystemRefused as error:
            raise SystemRefused(
                f"{error.message}; the runs are marked, and stop when they are started again",
                "cancel again when Slurm answers: until then those that run go on",
            ) from error
    if refusals:
        raise refusals[0]


def _stop_worker(files: ExperimentFiles, run_id: str) -> SystemRefused | None:
    """Send SIGTERM to the worker that has a run on this machine, if there is one; return why that failed."""
    try:
        pid = locks.holder(files.run(run_id).lock)
        if pid is not None:
            os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:  # it ended meanwhile
        return None
    except (OSError, SystemRefused) as error:
        return SystemRefused(
            f"the worker of {run_id} could not be told ({error}); the run is marked, "
            "and stops when it is started again"
        )
    return None
