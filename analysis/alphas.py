"""Recorded α*, single values and summaries of windows, and their statistics."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ..store.queries import AlphaRow, Estimate, EstimateSummary
from .data import RunData
from .statistics import median, weighted_median

Scale = Literal["relative", "absolute"]
SCALES: tuple[Scale, ...] = ("relative", "absolute")
"""A factor on the step that was taken; a learning rate."""
Part = Literal["numerator", "denominator"]
"""Of α*_rel: −dᵀg and dᵀGd. The thesis prints them as those of the absolute α*, but d contains η."""
Quantity = Scale | Part
FIELD = {"relative": "alpha_rel", "absolute": "alpha_abs", "numerator": "slope", "denominator": "curvature"}
VANISHING = 1e-6
"""A rate below this share of a run's highest is the start of a warm-up, and its α* is left out."""


@dataclass(frozen=True)
class AlphaValue:
    """α* at one step (n = 1), or what was recorded of the n values of a window of steps.

    `step` is the 0-based step, or the middle of the window's. `error` is the standard error from the
    examples of the batch, NaN without one; `deviation` the SD of a window's values.
    """

    step: float
    n: int
    mean: float
    median: float
    deviation: float
    negative: float
    """Share of negative values."""
    undefined: int = 0
    error: float = math.nan

    @property
    def single(self) -> bool:
        """Whether it is one step's."""
        return math.isnan(self.deviation)


@dataclass(frozen=True)
class AlphaStatistics:
    """Of all values together; `median` is exact only where `exact`, else that of the windows' medians.

    `error` is the mean standard error of the single values, `noise` the mean of its square over the
    variance of the values: the share of their spread that the noise of their batches explains.
    """

    n: int
    undefined: int
    mean: float
    median: float
    deviation: float | None
    negative: float
    exact: bool
    error: float | None
    noise: float | None


def recorded_estimators(alphas: Iterable[AlphaRow]) -> list[str]:
    """Return the names of the estimators, in the order in which they come."""
    return list(dict.fromkeys(name for row in alphas for name in (*row.estimates, *row.summaries)))


def has_alphas(run: RunData) -> bool:
    """Return whether a run recorded any α*."""
    return any(row.estimates or row.summaries for row in run.alphas)


def after_vanishing_rates(run: RunData) -> list[AlphaRow]:
    """Return the α* of a run without the steps whose rate is negligible against its highest rate.

    A warm-up from nothing makes α*_rel of its first step meaningless: the thesis leaves that step out of
    every statistic (and counts 4,300 values all the same; without it there are 4,299).
    """
    rates = [row.learning_rate or 0.0 for row in run.alphas] + [row.lr_max for row in run.windows]
    least = VANISHING * max((rate for rate in rates if math.isfinite(rate)), default=0.0)
    return [row for row in run.alphas if row.learning_rate is None or row.learning_rate >= least]


def estimator_values(alphas: Iterable[AlphaRow], estimator: str, quantity: Quantity) -> list[AlphaValue]:
    """Return what was recorded of one estimator; a value that is undefined has n = 0."""
    alpha_values: list[AlphaValue] = []
    for row in alphas:
        if estimator in row.estimates:
            alpha_values += _values_of_step(row, row.estimates[estimator], quantity)
        elif estimator in row.summaries:
            alpha_values += _values_of_window(row, row.summaries[estimator], quantity)
    return alpha_values


def summarise_values(alpha_values: Sequence[AlphaValue]) -> AlphaStatistics | None:
    """Sum up values; None where none is defined."""
    defined = [value for value in alpha_values if value.n]
    if not defined:
        return None
    n = sum(value.n for value in defined)
    mean = math.fsum(value.n * value.mean for value in defined) / n
    deviation = _pooled_deviation(defined, n, mean)
    middle = weighted_median((value.median, value.n) for value in defined)
    errors = [value.error for value in defined if math.isfinite(value.error)]
    return AlphaStatistics(
        n=n,
        undefined=sum(value.undefined for value in alpha_values),
        mean=mean,
        median=math.nan if middle is None else middle,
        deviation=deviation,
        negative=math.fsum(value.n * value.negative for value in defined) / n,
        exact=all(value.single for value in defined),
        error=math.fsum(errors) / len(errors) if errors else None,
        noise=_noise_share(errors, deviation, n),
    )


def window_of(run: RunData) -> int:
    """Return the steps by which the values of a run are grouped: from window to window of its policy.

    Where every step measures, it is the window of the journal.
    """
    alpha = run.config_section("alpha")
    interval, count = alpha.get("interval") or 1, alpha.get("count") or 1
    return int(interval) if count < interval else int(run.config_section("log").get("every_steps", 1))


@dataclass(frozen=True)
class WindowMedian:
    """The median of a window at its middle step, and the spread of one of its values.

    The spread is the median standard error of the single values, else the SD of the window's values.
    """

    step: float
    median: float
    spread: float


def group_by_window(alpha_values: Iterable[AlphaValue], run: RunData) -> list[list[AlphaValue]]:
    """Return the defined values of each window in which any is, in the order of steps."""
    start, length = int(run.config_section("alpha").get("start_step") or 0), window_of(run)
    windows: dict[int, list[AlphaValue]] = {}
    for value in alpha_values:
        if value.n:
            windows.setdefault(int(value.step - start) // length, []).append(value)
    return [window for _, window in sorted(windows.items())]


def window_medians(alpha_values: Sequence[AlphaValue], run: RunData) -> list[WindowMedian]:
    """Return the windows' medians, each with the spread of one value."""
    return [_window_median(window) for window in group_by_window(alpha_values, run)]


def _window_median(window: Sequence[AlphaValue]) -> WindowMedian:
    middle = weighted_median((value.median, value.n) for value in window)
    errors = [value.error for value in window if math.isfinite(value.error)]
    spreads = errors or [value.deviation for value in window if math.isfinite(value.deviation)]
    return WindowMedian(
        median([value.step for value in window]),
        math.nan if middle is None else middle,
        median(spreads) if spreads else math.nan,
    )


def _values_of_step(row: AlphaRow, estimate: Estimate, quantity: Quantity) -> list[AlphaValue]:
    """Return one step's value with its standard error."""
    value: float | None = getattr(estimate, FIELD[quantity])
    if value is None or (quantity == "absolute" and _has_no_absolute(estimate)):
        return []
    if not math.isfinite(value):
        return [AlphaValue(row.step, 0, math.nan, math.nan, math.nan, math.nan, undefined=1)]
    value = -value if quantity == "numerator" else value
    error = _standard_error(row, estimate, quantity)
    standard_error = math.nan if error is None else error
    return [AlphaValue(row.step, 1, value, value, math.nan, float(value < 0), error=standard_error)]


def _standard_error(row: AlphaRow, estimate: Estimate, quantity: Quantity) -> float | None:
    """Return a standard error; α*_abs = α*_rel · η, and so are their errors."""
    if quantity == "absolute":
        error, rate = estimate.alpha_rel_se, row.learning_rate
        return None if error is None or rate is None else error * rate
    return {
        "relative": estimate.alpha_rel_se,
        "numerator": estimate.slope_se,
        "denominator": estimate.curvature_se,
    }[quantity]


def _has_no_absolute(estimate: Estimate) -> bool:
    """Return whether the absolute α* is undefined for the optimizer, although the relative α* is defined."""
    relative, absolute = estimate.alpha_rel, estimate.alpha_abs
    return absolute is not None and math.isnan(absolute) and relative is not None and math.isfinite(relative)


def _values_of_window(
    row: AlphaRow, summaries: Mapping[str, EstimateSummary], quantity: Quantity
) -> list[AlphaValue]:
    """Return a window's values; those count as undefined that have a slope, but no α*."""
    if FIELD[quantity] not in summaries:
        return []
    summary, first = summaries[FIELD[quantity]], row.step if row.first_step is None else row.first_step
    if quantity == "numerator":
        summary = replace(summary, mean=-summary.mean, median=-summary.median, negative=1 - summary.negative)
    undefined = max(summaries["slope"].n - summary.n, 0) if "slope" in summaries else 0
    deviation = 0.0 if summary.sd is None else summary.sd
    middle = (first + row.step) / 2
    return [
        AlphaValue(middle, summary.n, summary.mean, summary.median, deviation, summary.negative, undefined)
    ]


def _pooled_deviation(defined: Sequence[AlphaValue], n: int, mean: float) -> float | None:
    """Return the SD of all values together, from those within and those between the windows."""
    if n < 2:
        return None
    within = math.fsum((value.n - 1) * value.deviation**2 for value in defined if not value.single)
    between = math.fsum(value.n * (value.mean - mean) ** 2 for value in defined)
    return math.sqrt((within + between) / (n - 1))


def _noise_share(errors: Sequence[float], deviation: float | None, n: int) -> float | None:
    """Return the share of the spread that batch noise explains; None with too few standard errors."""
    if not deviation or 2 * len(errors) < n:
        return None
    return math.fsum(error**2 for error in errors) / len(errors) / deviation**2
