"""The thesis' policy: the median of N consecutive α*, every I steps, is the learning rate (figure 4.8)."""

from __future__ import annotations

from statistics import median
from typing import Any

from ..measurement import Measurement
from ..options import MedianOptions
from .base import Policy, PolicyEvent, Progress

PATIENCE = 10
"""Number of windows that may be rejected."""


class Median(Policy):
    """Before `start_step` the schedule acts; from there on it is the rate of `start_step` or of a median.

    η is constant within a window. After the window's last update the (midpoint) median of its usable
    α*_abs becomes η, times `scale`, if it is positive and rests on at least half of the window. The values
    stay on the device until then.
    """

    def __init__(self, options: MedianOptions) -> None:
        self.options = options
        self.patience = PATIENCE
        self._rate: float | None = None
        self._values: list[float] = []
        self._left_out: dict[str, int] = {}
        self._waiting: list[Measurement] = []
        self._rejected = 0

    @property
    def misses(self) -> int:
        """Return how many windows were rejected."""
        return self._rejected

    def learning_rate(self, progress: Progress, scheduled: float) -> float:
        """Return the schedule's η before `start_step`, then the current rate."""
        if progress.index < self.options.start_step:
            return scheduled
        if self._rate is None:
            self._rate = scheduled
        return self._rate

    def update(self, measurement: Measurement) -> list[PolicyEvent]:
        """Collect a window's values; at its end, set η or keep it."""
        self._waiting.append(measurement)
        index = measurement.step.index
        return [self._close_window(index)] if self.options.ends_window(index) else []

    def state_dict(self) -> dict[str, Any]:
        """Return the current rate, the window in progress, and the count of rejections."""
        self._read_values()
        left_out = {"left_out": dict(self._left_out)} if self._left_out else {}
        return {"rate": self._rate, "window": list(self._values), "rejected": self._rejected, **left_out}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._rate, self._values, self._rejected = state["rate"], list(state["window"]), state["rejected"]
        self._left_out = dict(state.get("left_out", {}))

    def _close_window(self, index: int) -> PolicyEvent:
        self._read_values()
        values, self._values = self._values, []
        count = self.options.count
        details: dict[str, Any] = {"used": len(values), "of": count, "window_start": index - count + 1}
        if self._left_out:
            details["left_out"] = self._left_out
            self._left_out = {}
        middle = median(values) if values else None
        if middle is not None and 2 * len(values) >= count and middle > 0:
            self._rate = self.options.scale * middle
            return PolicyEvent("learning_rate", {"value": self._rate, "median": middle, **details})
        self._rejected += 1
        too_few = middle is None or 2 * len(values) < count
        reason = "fewer than half of the values are defined" if too_few else "the median is not positive"
        return PolicyEvent(
            "rejected", {"reason": reason, "median": middle, **details, "rejected": self._rejected}
        )

    def _read_values(self) -> None:
        """Read the values from the device; leave undefined values out and count them by reason."""
        for measurement in self._waiting:
            estimate = measurement.value
            if estimate.usable:
                self._values.append(estimate.alpha_abs)
            else:
                self._left_out[estimate.flaw] = self._left_out.get(estimate.flaw, 0) + 1
        self._waiting.clear()
