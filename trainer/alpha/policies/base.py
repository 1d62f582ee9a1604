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


class Policy:
    """Does nothing with α*; the others override what they change."""

    def learning_rate(self, index: int, scheduled: float) -> float:
        """Return η for the step with 0-based `index`, given what the schedule says."""
        return scheduled

    def factor(self, measurement: Measurement) -> float:
        """Return the factor on the step just measured."""
        return 1.0

    def after_step(self, measurement: Measurement | None) -> list[PolicyEvent]:
        """Take note of a step; `measurement` is None outside windows."""
        return []

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs, as plain values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
