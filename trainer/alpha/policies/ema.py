"""The learning rate from running averages of slope and curvature, with no rate to tune.

Along u, the direction of a step d = −η·u, slopes n = uᵀg and curvatures c = uᵀGu at θ₀ are averaged apart
(after Balboni and Bacciu's averages of numerator and denominator): N ← βN + (1−β)n, C ← βC + (1−β)c. Their
ratio N/C is an α*_abs that a single batch's noise moves little; both start at zero, but the correction of
that bias, 1 − βᵗ, is the same above and below. Averages along d would weigh each step by its rate.
"""

from __future__ import annotations

import math
from typing import Any

from ..measurement import Measurement
from ..options import EmaOptions
from .base import Policy, PolicyEvent, Progress

PATIENCE = 10
"""Number of times that the averages may fill without giving a rate."""


class Ema(Policy):
    """η = scale · N/C · (warm-up and cooldown factors); never from a ratio that is not positive.

    Before `start_step` the schedule acts. A given learning rate acts until the averages are filled.
    """

    def __init__(self, options: EmaOptions) -> None:
        self.options = options
        self.patience = PATIENCE * options.fill_steps
        self._slope = 0.0
        self._curvature = 0.0
        self._measured = 0
        self._rate: float | None = None
        self._rejected = 0

    @property
    def misses(self) -> int:
        """Return how many measured steps have set no rate; 0 once a step has set one."""
        unfilled = min(self._measured, self.options.fill_steps - 1)  # what came later was rejected, too
        return unfilled + self._rejected if self._rate is None else 0

    def learning_rate(self, progress: Progress, scheduled: float) -> float:
        """Return the rate that the averages give, times the factors of warm-up and cooldown."""
        if progress.index < self.options.start_step or self._rate is None:
            return scheduled
        return self._rate * self._rate_factor(progress)

    def update(self, measurement: Measurement) -> list[PolicyEvent]:
        """Add one value to the averages and set the rate; a ratio that is not positive is a rejection."""
        value, rate, beta = measurement.value, measurement.step.learning_rate, self.options.beta
        if not (value.usable and math.isfinite(value.slope) and rate > 0):
            return [self._reject("undefined" if value.usable else value.flaw)]
        self._slope = beta * self._slope - (1 - beta) * value.slope / rate
        self._curvature = beta * self._curvature + (1 - beta) * value.curvature / rate**2
        self._measured += 1
        if self._measured < self.options.fill_steps:
            return []
        ratio = self._slope / self._curvature if self._curvature else math.nan
        if not (math.isfinite(ratio) and ratio > 0):
            return [self._reject("not positive")]
        aim = self.options.scale * ratio
        self._rate = aim if self._rate is None else min(aim, self._rate * self.options.max_growth)
        return []

    def state_dict(self) -> dict[str, Any]:
        """Return the averages, their number of values, the rate, and the count of rejections."""
        return {
            "slope": self._slope,
            "curvature": self._curvature,
            "measured": self._measured,
            "rate": self._rate,
            "rejected": self._rejected,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._slope, self._curvature = state["slope"], state["curvature"]
        self._measured, self._rate, self._rejected = state["measured"], state["rate"], state["rejected"]

    def _rate_factor(self, progress: Progress) -> float:
        """Return the product of the warm-up and cooldown factors; 1 without a total."""
        share = self._elapsed_share(progress)
        if share is None:
            return 1.0
        warmup, cooldown = self.options.warmup_fraction, self.options.cooldown_fraction
        rising = min(share / warmup, 1.0) if warmup else 1.0
        falling = min(max(1 - share, 0.0) / cooldown, 1.0) if cooldown else 1.0
        return rising * falling

    def _elapsed_share(self, progress: Progress) -> float | None:
        """Return the elapsed fraction of the whole training; None without a total."""
        if self.options.total_steps is not None:
            return progress.index / self.options.total_steps
        if self.options.total_seconds is not None:
            return progress.train_seconds / self.options.total_seconds
        return None

    def _reject(self, reason: str) -> PolicyEvent:
        self._rejected += 1
        details = {"reason": reason, "used": self._measured, "of": self._measured}
        return PolicyEvent("rejected", {**details, "rejected": self._rejected})
