"""Take the step α* asks for (thesis, figure 3.1, lines 13–15)."""

from __future__ import annotations

from typing import Any

from ..measurement import Estimate, Measurement
from ..options import ApplyOptions
from .base import Policy, PolicyEvent


class Apply(Policy):
    """Inside a window θ ← θ₀ + scale · α*_rel · d; an unusable or non-positive value keeps the plain step."""

    def __init__(self, options: ApplyOptions) -> None:
        self.options = options
        self._rejected = 0

    def factor(self, measurement: Measurement) -> float:
        """Return scale · α*_rel, or 1 where the value is rejected."""
        value = measurement.value
        return self.options.scale * value.alpha_rel if _is_accepted(value) else 1.0

    def update(self, measurement: Measurement) -> list[PolicyEvent]:
        """Count rejections."""
        value = measurement.value
        if _is_accepted(value):
            return []
        self._rejected += 1
        details = {"reason": value.flaw, "used": 0, "of": 1, "rejected": self._rejected}
        return [PolicyEvent("rejected", details)]

    def state_dict(self) -> dict[str, Any]:
        """Return the count of rejections."""
        return {"rejected": self._rejected}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore it."""
        self._rejected = state["rejected"]


def _is_accepted(value: Estimate) -> bool:
    return value.usable and value.alpha_rel > 0
