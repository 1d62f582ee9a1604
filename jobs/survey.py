"""How things stand before a submission: what is left over of earlier ones, and which runs are to be sent."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ..cluster_profiles.loader import Profile
from ..store.layout import ExperimentFiles, Root, RunFiles
from ..store.submissions import RunEntry, Submission
from . import attempts, duplicates, slurm
from .reconciliation import Situation, Verdict, verdict
from .standing import Sent, Standing, certain_standings, newest

RUNAWAY_SECONDS = 600.0
"""How long after its last sign of life a run is not sent again that only accounting believes to run."""


@dataclass(frozen=True)
class Survey:
    """How things stand before a submission."""

    verdicts: dict[str, Verdict]
    """For each wanted run, whether it is to be sent."""
    held_back: Mapping[str, str]
    """Jobs, by run, that an older version's canary holds back; those of runs that are sent are cancelled."""


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
    held_back = settle(past)
    sent = {run_id: one for run_id, one in newest(past).items() if run_id in wanted}
    found = certain_standings(root, files, sent)
    verdicts: dict[str, Verdict] = {}
    for run_id, entry in wanted.items():
        situation = _situation(files, run_id, found.get(run_id), sent.get(run_id), profile)
        verdicts[run_id] = "send" if run_id in held_back else verdict(situation, _stop(entry))
    return Survey(verdicts, held_back)


def settle(past: Sequence[Submission], only: Collection[str] | None = None) -> dict[str, str]:
    """Clear up after a submitter that was killed; return the jobs, by run, that a canary holds back.

    Jobs that are held are released; if it is given, those of the runs in `only`. What a submitter has in the
    queue that may be at work on another host is left alone.
    """
    past = [one for one in past if not duplicates.may_be_at_work(one, time.time())]
    if any(one.profile["cluster"] == "slurm" for one in past) and slurm.is_here():
        return slurm.settle(past, only)
    return {}


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
