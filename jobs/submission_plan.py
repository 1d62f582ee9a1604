"""Decide which runs a submission sends: compare the specification's runs with those that exist."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from ..store.layout import ExperimentFiles, Root, RunFiles
from ..store.submissions import RunEntry, Submission, SubmittedRun, newest_runs
from .clock import Clock
from .resolve_states import confirmed_states
from .runs import attempts
from .runs.attempts import Attempt, failures
from .runs.states import ACTIVE, RunState
from .schedulers import SCHEDULERS, Schedulers

Decision = Literal["send", "active", "completed", "diverged", "failed", "cancelled", "unknown"]
"""`send`, or the reason not to; `active` is queued or running, `unknown` may run unseen by Slurm."""

RESENDS_OF_A_FAILED_RUN = 1
RUNAWAY_SECONDS = 600.0
"""Seconds since its last record in which a run is not sent again if only accounting lists it as running."""


@dataclass(frozen=True)
class SubmissionPlan:
    """The decision for each run."""

    decisions: Mapping[str, Decision]
    """By run id."""
    replaced_jobs: Mapping[str, str] = field(default_factory=dict)
    """Held jobs, by run id, that a new submission replaces."""

    @property
    def due(self) -> list[str]:
        """Ids of the runs to send, in the order of the specification."""
        return [run_id for run_id, decision in self.decisions.items() if decision == "send"]

    @property
    def kept(self) -> dict[Decision, tuple[str, ...]]:
        """Ids of the runs that are not sent, by the reason."""
        run_ids: dict[Decision, tuple[str, ...]] = {}
        for run_id, decision in self.decisions.items():
            if decision != "send":
                run_ids[decision] = (*run_ids.get(decision, ()), run_id)
        return run_ids

    @property
    def has_work(self) -> bool:
        """Whether any run is due or active."""
        return bool({"send", "active"} & set(self.decisions.values()))


def plan_submission(
    root: Root,
    files: ExperimentFiles,
    earlier: Sequence[Submission],
    entries: Mapping[str, RunEntry],
    cluster: str,
    replaced_jobs: Mapping[str, str],
    *,
    schedulers: Schedulers = SCHEDULERS,
    clock: Clock = time,
) -> SubmissionPlan:
    """Decide for each run of `entries` whether `submit` sends it to the scheduler `cluster`.

    Raises:
        SystemRefused: a scheduler that may have a job for a run does not answer.
        UserError: a cancel marker is damaged.
    """
    submitted = {run_id: run for run_id, run in newest_runs(earlier).items() if run_id in entries}
    states = confirmed_states(root, files, submitted, schedulers=schedulers, clock=clock)
    decisions: dict[str, Decision] = {}
    for run_id, entry in entries.items():
        if run_id not in submitted or run_id in replaced_jobs:
            decisions[run_id] = "send"
            continue
        state = states[run_id]
        if state.state == "unknown" and _waits_on_disk(submitted[run_id], cluster, schedulers):
            decisions[run_id] = "active"
            continue
        run = files.run(run_id)
        history = attempts.read(run) if state.state in ("completed", "failed") else ()
        may_run = state.is_unsettled and clock.time() - _last_sign(run, submitted[run_id]) < RUNAWAY_SECONDS
        decisions[run_id] = decide(state, history, entry.config["stop"], may_run)
    return SubmissionPlan(decisions, replaced_jobs)


def plan_retry(
    states: Mapping[str, RunState], replaced_jobs: Mapping[str, str], fresh: bool
) -> SubmissionPlan:
    """Decide for each selected run whether `retry` sends it."""
    decisions: dict[str, Decision] = {}
    for run_id, state in states.items():
        decisions[run_id] = "send" if run_id in replaced_jobs else decide_retry(state, fresh)
    return SubmissionPlan(decisions, replaced_jobs)


def decide(
    state: RunState, history: Sequence[Attempt], stop: Mapping[str, Any], may_run: bool = False
) -> Decision:
    """Decide whether `submit` sends a run, given its attempts and the `stop` of the specification.

    `submit` sends runs without an end, completed runs whose `stop` was raised, and failed runs once.
    `may_run` is true if only accounting lists the run as running and its last record is recent.
    """
    if is_under_way(state):
        return "active"
    if state.state == "completed":
        return "send" if stop_raised(history[-1], stop) else "completed"
    if state.state == "failed":
        return "send" if failures(history) <= RESENDS_OF_A_FAILED_RUN else "failed"
    if state.state in ("diverged", "cancelled"):
        return state.state
    return "unknown" if may_run else "send"


def decide_retry(state: RunState, fresh: bool) -> Decision:
    """Decide whether `retry` sends a run: one that is not active; an ended one only if `fresh`."""
    if is_under_way(state):
        return "active"
    if state.state in ("completed", "diverged") and not fresh:
        return state.state
    return "send"


def is_under_way(state: RunState) -> bool:
    """Return whether the run continues, or may continue, without the user."""
    return state.state in ACTIVE or (state.state == "unknown" and state.is_alive)


def stop_raised(attempt: Attempt, stop: Mapping[str, Any]) -> bool:
    """Return whether a completed attempt continues under `stop`: a bound was raised, and none is reached."""
    before = attempt.stop or {}
    further = any(_stop_bound(stop, key) > _stop_bound(before, key) for key in ("steps", "train_seconds"))
    return (
        further
        and attempt.step < _stop_bound(stop, "steps")
        and attempt.train_seconds < _stop_bound(stop, "train_seconds")
    )


def _stop_bound(stop: Mapping[str, Any], key: str) -> float:
    value = stop.get(key)
    return float("inf") if value is None else float(value)


def _waits_on_disk(run: SubmittedRun, cluster: str, schedulers: Schedulers) -> bool:
    """Return whether a run is still in a disk queue, even if no supervisor runs at the moment."""
    return run.submission.profile["cluster"] == cluster and schedulers[cluster].has_disk_queue


def _last_sign(run: RunFiles, submitted: SubmittedRun) -> float:
    """Return the time of a run's last journal record or of its submission, whichever is later (Unix time)."""
    signs = [submitted.submission.created]
    for _, path in run.journals():
        with suppress(OSError):  # listed, and not there yet
            signs.append(path.stat().st_mtime)
    return max(signs)
