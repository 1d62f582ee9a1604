"""The interface of a policy: what it may change, and its state."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..measurement import Measurement


@dataclass(frozen=True)
class PolicyEvent:
    """An event for the journal: a rate set, a value rejected."""

    name: str
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Progress:
    """Progress of the run before the step about to be taken."""

    index: int
    """0-based."""
    train_seconds: float
    """Counted seconds so far [s]."""


class Policy:
    """Does nothing with α*; subclasses override what they change."""

    patience = 0
    """Number of `misses` at a useless rate that end the run; 0: the policy sets no rate."""

    @property
    def misses(self) -> int:
        """Return how many values, or windows of them, have set no rate."""
        return 0

    def learning_rate(self, progress: Progress, scheduled: float) -> float:
        """Return η for the step about to be taken; `scheduled` is the schedule's rate."""
        return scheduled

    def factor(self, measurement: Measurement) -> float:
        """Return the factor on the step just measured."""
        return 1.0

    def update(self, measurement: Measurement) -> list[PolicyEvent]:
        """Update the policy with a new value; a new rate acts from the next step on."""
        return []

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a resumed run, as plain values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
