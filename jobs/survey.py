"""How things stand before a submission: what is left over of earlier ones, and which runs are to be sent."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ..cluster_profiles.loader import Profile
from ..slurm import scontrol
from ..store.layout import ExperimentFiles, Root, RunFiles
from ..store.submissions import RunEntry, Submission
from . import attempts, canary, duplicates, slurm
from .reconciliation import Situation, Verdict, verdict
from .standing import Sent, Standing, certain_standings, newest
from .states import ACTIVE

RUNAWAY_SECONDS = 600.0
"""How long after its last sign of life a run is not sent again that only accounting believes to run."""


@dataclass(frozen=True)
class Survey:
    """How things stand before a submission."""

    verdicts: dict[str, Verdict]
    """For each wanted run, whether it is to be sent."""
    waiting: list[Submission]
    """Submissions whose canary is under way."""
    held_back: list[str]
    """Jobs of runs that are to be sent once more, which waited for a canary in vain."""

    def see_to_canaries(self, files: ExperimentFiles, let_go: bool) -> None:
        """Cancel the jobs that waited in vain; with `let_go`, release those that wait."""
        scontrol.cancel(self.held_back)
        for one in self.waiting if let_go else ():
            canary.let_go(files, one)


def survey(
    root: Root,
    files: ExperimentFiles,
    past: Sequence[Submission],
    wanted: Mapping[str, RunEntry],
    profile: Profile,
) -> Survey:
    """Clear up what killed submitters left, and tell for each wanted run whether it is to be sent.

    Raises:
        SystemRefused: Slurm does not answer although a run may be in its hands.
    """
    unproven = settle(files, past)
    concerned = wanted.keys() | {one.canary for one in unproven}
    sent = {run_id: one for run_id, one in newest(past).items() if run_id in concerned}
    found = certain_standings(root, files, sent)
    verdicts = {
        run_id: verdict(_situation(files, run_id, found.get(run_id), sent.get(run_id), profile), _stop(entry))
        for run_id, entry in wanted.items()
    }
    again = [sent[run_id] for run_id, why in verdicts.items() if why == "send" and run_id in sent]
    waiting = [one for one in unproven if one.canary in found and found[one.canary].state in ACTIVE]
    return Survey(verdicts, waiting, held_back(unproven, again))


def settle(
    files: ExperimentFiles, past: Sequence[Submission], only: Collection[str] | None = None
) -> list[Submission]:
    """Clear up after a submitter that was killed; return the submissions whose canary has proven nothing.

    Jobs that are held are released; if it is given, those of the runs in `only`. What a submitter has in the
    queue that may be at work on another host is left alone.
    """
    past = [one for one in past if not duplicates.may_be_at_work(one, time.time())]
    unproven = [one for one in past if not canary.is_proven(files, one)]
    if any(one.profile["cluster"] == "slurm" for one in past) and slurm.is_here():
        slurm.settle(past, {one.id for one in unproven}, only)
    return unproven


def held_back(unproven: Sequence[Submission], again: Sequence[Sent]) -> list[str]:
    """Return the jobs, still held, of runs that are to be sent once more."""
    ids = {one.id for one in unproven}
    return [
        one.submission.jobs[one.entry.id].job_id
        for one in again
        if one.submission.id in ids and one.entry.id in one.submission.jobs
    ]


def _situation(
    files: ExperimentFiles, run_id: str, standing: Standing | None, sent: Sent | None, profile: Profile
) -> Situation:
    if standing is None or sent is None:
        return Situation(None)
    if standing.state == "unknown" and profile.cluster == sent.submission.profile["cluster"] == "local":
        return Situation("pending")  # still queued; only its supervisor is gone, and about to be replaced
    known = attempts.read(files.run(run_id)) if standing.state in ("completed", "failed") else ()
    may_run = standing.is_unsettled and time.time() - _last_sign(files.run(run_id), sent) < RUNAWAY_SECONDS
    return Situation(standing.state, known, standing.is_alive, may_run)


def _last_sign(run: RunFiles, sent: Sent) -> float:
    """Return when a run last wrote to its journal, or was submitted (Unix time)."""
    signs = [sent.submission.created]
    for _, path in run.journals():
        with suppress(OSError):  # listed, and not there yet
            signs.append(path.stat().st_mtime)
    return max(signs)


def _stop(entry: RunEntry) -> Mapping[str, Any]:
    stop: Mapping[str, Any] = entry.config["stop"]
    return stop
