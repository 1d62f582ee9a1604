"""What a submission has to send: the difference between the runs that are wanted and those that are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .attempts import Attempt, failures
from .states import ACTIVE, State

Verdict = Literal["send", "active", "completed", "diverged", "failed", "cancelled", "unknown"]
"""`send`, or why not; `active` is queued or running, `unknown` may run although Slurm cannot say so."""

RESENDS_OF_A_FAILED_RUN = 1


@dataclass(frozen=True)
class Situation:
    """How one run stands before a submission."""

    state: State | None
    """None if it was never submitted."""
    attempts: Sequence[Attempt] = ()
    is_alive: bool = False
    """Whether a scheduler has it in its hands, be it under a word that we do not know."""
    may_run: bool = False
    """Whether accounting alone says that it runs, and its last sign of life is recent."""

    @property
    def under_way(self) -> bool:
        """Whether the run will go on by itself, or may."""
        return self.state in ACTIVE or (self.state == "unknown" and self.is_alive)


def verdict(situation: Situation, stop: Mapping[str, Any]) -> Verdict:
    """Tell whether `submit` sends a run, given the `stop` it should have.

    Sent are runs without an end, completed ones whose `stop` was raised, and failed ones once.
    """
    state = situation.state
    if situation.under_way:
        return "active"
    if state == "completed":
        return "send" if stop_raised(situation.attempts[-1], stop) else "completed"
    if state == "failed":
        return "send" if failures(situation.attempts) <= RESENDS_OF_A_FAILED_RUN else "failed"
    if state in ("diverged", "cancelled"):
        return state
    return "unknown" if situation.may_run else "send"


def retry_verdict(situation: Situation, fresh: bool) -> Verdict:
    """Tell whether `retry` sends a run: any that is not active; a completed one only when started anew."""
    state = situation.state
    if situation.under_way:
        return "active"
    if state in ("completed", "diverged") and not fresh:
        return state
    return "send"


def stop_raised(attempt: Attempt, stop: Mapping[str, Any]) -> bool:
    """Tell whether a completed attempt would go on under `stop`: a bound was raised, and none is reached."""
    before = attempt.stop or {}
    further = any(_bound(stop, key) > _bound(before, key) for key in ("steps", "train_seconds"))
    return (
        further
        and attempt.step < _bound(stop, "steps")
        and attempt.train_seconds < _bound(stop, "train_seconds")
    )


def _bound(stop: Mapping[str, Any], key: str) -> float:
    value = stop.get(key)
    return float("inf") if value is None else float(value)
