"""The shape of a policy: what it may change, and what it must remember."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..measurement import Measurement


@dataclass(frozen=True)
class PolicyEvent:
    """Something the journal should know: a rate set, a value rejected."""

    name: str
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Progress:
    """Where the step about to be taken stands."""

    index: int
    """0-based."""
    train_seconds: float
    """What has been paid so far [s]."""


class Policy:
    """Does nothing with α*; the others override what they change."""

    patience = 0
    """So many `misses` at a rate of no use end the run; 0: the policy holds no rate of its own."""

    @property
    def misses(self) -> int:
        """How many values or windows of them have set no rate."""
        return 0

    def learning_rate(self, progress: Progress, scheduled: float) -> float:
        """Return η for the step about to be taken, given what the schedule says."""
        return scheduled

    def factor(self, measurement: Measurement) -> float:
        """Return the factor on the step just measured."""
        return 1.0

    def update(self, measurement: Measurement) -> list[PolicyEvent]:
        """Take note of a value as soon as it is known; what follows from it acts from the next rate on."""
        return []

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs, as plain values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
