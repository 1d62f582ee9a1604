"""The learning rates that a run applied, step by step, from its windows and accepted medians.

A window of the journal knows the lowest, mean and highest rate of its steps, and an accepted median from
which step on it acts. So the rates of medians are exact if a window ends at `alpha.start_step`, and those of
a schedule are taken to lie between lowest and highest of a window, evenly if its mean lies midway, else bent
towards where it lies; means are exact always.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ..store.queries import WindowRow
from .data import RunData
from .statistics import weighted_median

FINENESS = 50
"""The number of rates that stand for a stretch of changing rates."""

WeightedRate = tuple[float, float]


@dataclass(frozen=True)
class RateStretch:
    """The rates of `steps` consecutive steps from the 0-based `start` on, from `low` to `high`."""

    start: int
    steps: int
    low: float
    mean: float
    high: float

    @property
    def end(self) -> int:
        """The first step after it."""
        return self.start + self.steps

    @property
    def constant(self) -> bool:
        """Whether all its steps had one rate."""
        return self.low == self.high

    @property
    def weighted(self) -> list[WeightedRate]:
        """Rates, each with its number of steps: low + (high − low)·uᵖ, u from 0 to 1, of the same mean."""
        if not self.low < self.mean < self.high or self.steps < 2:
            return [(self.mean, self.steps)]
        parts, width = min(self.steps, FINENESS), self.high - self.low
        power = (self.high - self.mean) / (self.mean - self.low)
        shares = [(part / (parts - 1)) ** power for part in range(parts)]
        return [(self.low + share * width, self.steps / parts) for share in shares]


@dataclass(frozen=True)
class RateStatistics:
    """Of the rates of a run up to some step; each step weighs the same.

    `mean` and `median` are over all steps, the warm-up too (thesis, tables B.1 and B.2). `deviation` and
    `spread` (largest minus smallest) are over the steps from the first accepted median on (tables 4.3, B.3,
    C.3–C.6: "only considering the learning rates applied by our method"), which leaves out the constant
    rate before it as well; without any median, as for a schedule, over all steps. For its schedule the
    thesis prints an SD of 7.70e-5, which is that over all steps, although the table's caption leaves out
    the warm-up (then it would be 7.73e-5).
    """

    mean: float
    median: float
    deviation: float | None
    spread: float | None


def stretches(run: RunData, until: float | None = None) -> list[RateStretch]:
    """Return the rates of a run in the windows that end within `until` steps (None: all of them)."""
    limit = math.inf if until is None else until
    windows = sorted((row for row in run.windows if row.steps > 0), key=lambda row: row.step)
    changes = _accepted_medians(run)
    within = [window for window in windows if window.step <= limit and math.isfinite(window.lr_mean)]
    return [stretch for window in within for stretch in _window_stretches(window, changes)]


def first_median(run: RunData) -> int | None:
    """Return the 0-based step from which on the first accepted median acted; None without one."""
    return min((step for step, _ in _accepted_medians(run)), default=None)


def rate_statistics(run: RunData, until: float | None = None) -> RateStatistics | None:
    """Return the statistics of the rates within `until` steps; None without any window."""
    rate_stretches = stretches(run, until)
    if not rate_stretches:
        return None
    steps = sum(stretch.steps for stretch in rate_stretches)
    middle = weighted_median(pair for stretch in rate_stretches for pair in stretch.weighted)
    from_first_median = _stretches_from_first_median(run, rate_stretches)
    return RateStatistics(
        mean=math.fsum(stretch.mean * stretch.steps for stretch in rate_stretches) / steps,
        median=math.nan if middle is None else middle,
        deviation=_rate_deviation(from_first_median),
        spread=_rate_range(from_first_median),
    )


def _rate_range(rate_stretches: Sequence[RateStretch]) -> float | None:
    if not rate_stretches:
        return None
    highest = max(stretch.high for stretch in rate_stretches)
    return highest - min(stretch.low for stretch in rate_stretches)


def _stretches_from_first_median(run: RunData, rate_stretches: Sequence[RateStretch]) -> list[RateStretch]:
    """Return what the method set: everything where no median sets the rate, nothing before the first one."""
    if run.config_section("alpha").get("policy") != "median":
        return list(rate_stretches)
    first = first_median(run)
    return [] if first is None else [stretch for stretch in rate_stretches if stretch.start >= first]


def _rate_deviation(rate_stretches: Sequence[RateStretch]) -> float | None:
    pairs = [pair for stretch in rate_stretches for pair in stretch.weighted]
    total = math.fsum(weight for _, weight in pairs)
    if not total:
        return None
    mean = math.fsum(rate * weight for rate, weight in pairs) / total
    return math.sqrt(math.fsum(weight * (rate - mean) ** 2 for rate, weight in pairs) / total)


def _accepted_medians(run: RunData) -> list[tuple[int, float]]:
    """Return the accepted medians with the 0-based step from which on each acts."""
    medians = []
    for event in run.events:
        if event.event == "learning_rate":
            details = event.details
            has_window = "window_start" in details and "of" in details
            step = int(details["window_start"]) + int(details["of"]) if has_window else event.step
            medians.append((step, float(details["value"])))
    return sorted(medians)


def _window_stretches(window: WindowRow, changes: Sequence[tuple[int, float]]) -> Iterator[RateStretch]:
    """Cut a window at the medians that began to act in it; the mean gives the rate before the first."""
    start, end = window.step - window.steps, window.step
    within = [(step, rate) for step, rate in changes if start < step < end]
    if window.lr_min == window.lr_max or not within:
        yield RateStretch(start, window.steps, window.lr_min, window.lr_mean, window.lr_max)
        return
    after_medians = [
        RateStretch(step, later - step, rate, rate, rate)
        for (step, rate), (later, _) in pairwise([*within, (end, math.nan)])
    ]
    first = within[0][0] - start
    before = (window.lr_mean * window.steps - math.fsum(s.mean * s.steps for s in after_medians)) / first
    yield RateStretch(start, first, before, before, before)
    yield from after_medians
