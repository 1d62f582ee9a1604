"""GeN's rule (Bu and Xu, "Gradient descent with generalized Newton's method", arXiv 2407.02772).

The nearest published relative of α*: a parabola through three losses on a fresh batch, instead of slope
and curvature by differentiation. Its package (gen-optim 0.1.1) accepts the minimum only if both
coefficients are positive and R² > 0.99; through three points the fit is exact, so that R² is 1 always.
"""

from __future__ import annotations

import math
from typing import Any

from ..measurement import Measurement
from ..options import GenOptions
from .base import Policy, PolicyEvent, Progress

MOST_CHANGE = 2.0
"""The minimum is clamped to the present rate divided and multiplied by this, before it is averaged in."""

PATIENCE = 100
"""Values that may be rejected."""


class Gen(Policy):
    """η ← s·η + (1 − s) · scale · clamp(α*_abs, η/2, 2η), with s the smoothing, after each measured step."""

    def __init__(self, options: GenOptions) -> None:
        self.options = options
        self.patience = PATIENCE
        self._rate: float | None = None
        self._rejected = 0

    @property
    def misses(self) -> int:
        """How many values were rejected."""
        return self._rejected

    def learning_rate(self, progress: Progress, scheduled: float) -> float:
        """Return the schedule's η before `start_step`, then the one held."""
        if progress.index < self.options.start_step:
            return scheduled
        if self._rate is None:
            self._rate = scheduled
        return self._rate

    def update(self, measurement: Measurement) -> list[PolicyEvent]:
        """Move the rate towards the parabola's minimum, or count a rejection."""
        value = measurement.value
        if not (value.usable and value.alpha_rel > 0 and math.isfinite(value.alpha_abs)):
            self._rejected += 1
            details = {"reason": value.flaw, "used": 0, "of": 1, "rejected": self._rejected}
            return [PolicyEvent("rejected", details)]
        rate, smoothing = measurement.step.learning_rate, self.options.smoothing
        aim = min(max(value.alpha_abs, rate / MOST_CHANGE), rate * MOST_CHANGE)
        self._rate = smoothing * rate + (1 - smoothing) * self.options.scale * aim
        return []

    def state_dict(self) -> dict[str, Any]:
        """Return the rate held and the count of rejections."""
        return {"rate": self._rate, "rejected": self._rejected}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore them."""
        self._rate, self._rejected = state["rate"], state["rejected"]
