"""Take the step α* asks for (thesis, figure 3.1, lines 13–15)."""

from __future__ import annotations

from typing import Any

from ..measurement import Measurement
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
        accepted = value.usable and value.alpha_rel > 0
        return self.options.scale * value.alpha_rel if accepted else 1.0

    def after_step(self, measurement: Measurement | None) -> list[PolicyEvent]:
        """Count rejections."""
        if measurement is None:
            return []
        value = measurement.value
        if value.usable and value.alpha_rel > 0:
            return []
        self._rejected += 1
        reason = "not positive" if value.usable else "undefined"
        return [PolicyEvent("rejected", {"reason": reason, "used": 0, "of": 1, "rejected": self._rejected})]

    def state_dict(self) -> dict[str, Any]:
        """Return the count of rejections."""
        return {"rejected": self._rejected}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore it."""
        self._rejected = state["rejected"]
