"""Dispersion of the α* of observed runs: over all values, and from window to window."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .alphas import (
    AlphaValue,
    Quantity,
    after_vanishing_rates,
    estimator_values,
    group_by_window,
    recorded_estimators,
    summarise_values,
)
from .comparison import ReportData
from .configurations import Configuration
from .data import RunData
from .dispersion import coefficient_of_variation, range_relative_deviation, share_negative, value_range
from .statistics import mean, median, weighted_median


@dataclass(frozen=True)
class AlphaDispersion:
    """Statistics of one estimator's values in one run; the first step of a warm-up from nothing is left out.

    `spread` is the range of the single values; None where only summaries of windows were recorded. A window's
    mean and median are those of the values of one window of the policy (the thesis' chunks of 50).
    """

    n: int
    mean: float
    median: float
    deviation: float | None
    negative: float
    share_negative: float | None
    spread: float | None
    spread_of_means: float | None
    spread_of_medians: float | None

    @property
    def variation(self) -> float | None:
        """The coefficient of variation, SD / mean."""
        return coefficient_of_variation(self.mean, self.deviation)

    @property
    def relative_deviation(self) -> float | None:
        """The SD relative to the range (thesis, equation 4.2)."""
        return range_relative_deviation(self.deviation, self.spread)


def observed_configurations(data: ReportData) -> list[Configuration]:
    """Return the configurations that only observe α*."""
    return [
        configuration
        for configuration in data.configurations
        if _alpha_section(configuration).get("policy") == "observe"
    ]


def measured_configurations(data: ReportData) -> list[Configuration]:
    """Return the configurations that only observe α* and have recorded some."""
    observed = observed_configurations(data)
    return [configuration for configuration in observed if any(run.alphas for run in configuration.runs)]


def estimator_names(configuration: Configuration) -> list[str]:
    """Return the estimators of a configuration, and any others that were recorded."""
    alpha = _alpha_section(configuration)
    configured = [alpha.get("estimator") or "unbiased", *(alpha.get("also") or [])]
    recorded = recorded_estimators(row for run in configuration.runs for row in run.alphas)
    return list(dict.fromkeys([*configured, *recorded]))


def alpha_dispersion(run: RunData, estimator: str, quantity: Quantity) -> AlphaDispersion | None:
    """Return how an estimator's values spread in a run; None where none is defined."""
    alpha_values = estimator_values(after_vanishing_rates(run), estimator, quantity)
    overall = summarise_values(alpha_values)
    if overall is None:
        return None
    windows, single = group_by_window(alpha_values, run), [value.mean for value in alpha_values if value.n]
    all_single = all(value.single for value in alpha_values)
    return AlphaDispersion(
        n=overall.n,
        mean=overall.mean,
        median=overall.median,
        deviation=overall.deviation,
        negative=overall.negative * overall.n,
        share_negative=share_negative(single) if all_single else overall.negative,
        spread=value_range(single) if all_single else None,
        spread_of_means=value_range([window_mean(window) for window in windows]),
        spread_of_medians=value_range([window_median(window) for window in windows]),
    )


def window_mean(window: Sequence[AlphaValue]) -> float:
    """Return the mean of the values of a window."""
    return math.fsum(value.mean * value.n for value in window) / sum(value.n for value in window)


def window_median(window: Sequence[AlphaValue]) -> float:
    """Return the midpoint median of the values of a window (of summaries: the median of their medians)."""
    middle = weighted_median((value.median, value.n) for value in window)
    return math.nan if middle is None else middle


def window_deviation(window: Sequence[AlphaValue]) -> float:
    """Return the SD of the values of a window; 0 for a single one."""
    overall = summarise_values(window)
    return 0.0 if overall is None or overall.deviation is None else overall.deviation


def window_middle(window: Sequence[AlphaValue]) -> float:
    """Return the step in the middle of a window's values."""
    return median([value.step for value in window])


def over_seeds(configuration: Configuration, function: Callable[[RunData], float | None]) -> float | None:
    """Return the mean of `of` over a configuration's runs; None where it has no value for any run."""
    return mean(function(run) for run in configuration.runs)


def highest_rate(run: RunData) -> float | None:
    """Return the highest learning rate of a run."""
    return max((row.lr_max for row in run.windows if math.isfinite(row.lr_max)), default=None)


def _alpha_section(configuration: Configuration) -> Mapping[str, Any]:
    return configuration.runs[0].config_section("alpha")
