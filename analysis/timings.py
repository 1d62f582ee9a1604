"""What steps cost: seconds per step by category, and an α* step beside a plain one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..store.queries import WindowRow
from .configurations import Configuration
from .statistics import median

CLOCK = ("data", "forward_backward", "optimizer", "alpha")
"""Categories that a budget pays for."""
OUTSIDE = ("diagnostics", "evaluation", "checkpoint")
"""Categories that it does not pay for."""


@dataclass(frozen=True)
class Timing:
    """Costs of one configuration over all its windows, in seconds.

    `per_step` has the mean per step of each category. `plain` is the median over windows of the clock's
    time per step without α*; `alpha` that of what one α* measurement adds, None where there was none;
    `outside` tells that this was measured outside the clock, because nothing acted on it.
    """

    per_step: dict[str, float]
    plain: float
    alpha: float | None
    outside: bool

    @property
    def ratio(self) -> float | None:
        """The cost of a step with α* in plain steps."""
        return None if self.alpha is None or self.plain <= 0 else (self.plain + self.alpha) / self.plain


def timing(configuration: Configuration) -> Timing | None:
    """Return the timing of a configuration; None without a window that has steps."""
    windows = [w for run in configuration.runs for w in run.windows if w.steps > 0]
    if not windows:
        return None
    steps = sum(window.steps for window in windows)
    per_step = {
        name: math.fsum(w.seconds.get(name) or 0 for w in windows) / steps for name in (*CLOCK, *OUTSIDE)
    }
    measured = [window for window in windows if window.alpha_steps]
    acting = any(window.seconds.get("alpha") for window in measured)
    return Timing(
        per_step, _plain(windows), _alpha(measured, "alpha" if acting else "diagnostics"), not acting
    )


def _plain(windows: Sequence[WindowRow]) -> float:
    return median([sum(w.seconds.get(name) or 0 for name in CLOCK[:-1]) / w.steps for w in windows])


def _alpha(windows: Sequence[WindowRow], category: str) -> float | None:
    costs = [(window.seconds.get(category) or 0) / window.alpha_steps for window in windows]
    return median(costs) if costs else None
