"""α* over batch sizes: series of configurations that differ only in the batch size."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .alphas import AlphaStatistics, estimator_values, recorded_estimators, summarise_values
from .configurations import Configuration
from .data import RunData
from .methods import UNTOLD, canonical_text, distinct_names, without_keys
from .statistics import MeanAndSD

FEWEST = 3
"""The minimum number of batch sizes of a series."""
SIZE_KEYS = ("workload.batch_size", "workload.accumulate")

Average = Literal["mean", "median"]
AVERAGES: tuple[Average, ...] = ("mean", "median")


@dataclass(frozen=True)
class BatchSizeStatistics:
    """One batch size: the statistics of α*_abs over the steps of each seed's run."""

    batch: int
    of_seeds: tuple[AlphaStatistics, ...]

    def summary(self, quantity: Average) -> MeanAndSD:
        """Return mean and SD over seeds of their means, or of their medians."""
        summary = MeanAndSD.of(getattr(seed, quantity) for seed in self.of_seeds)
        assert summary is not None
        return summary


@dataclass(frozen=True)
class BatchSizeSeries:
    """One estimator over batch sizes, the smallest first; `name` distinguishes the series of a report."""

    name: str
    estimator: str
    sizes: tuple[BatchSizeStatistics, ...]

    def growth(self, quantity: Average) -> list[float | None]:
        """Return the values over that at the smallest size; None where that is not positive."""
        first = self.sizes[0].summary(quantity).mean
        return [size.summary(quantity).mean / first if first > 0 else None for size in self.sizes]

    def exponent(self, quantity: Average) -> MeanAndSD | None:
        """Fit value ∝ batch^exponent to each seed, and summarise over those whose values are positive.

        The linear rule has exponent 1, the square-root rule ½.
        """
        fits = []
        for of_seed in zip(*(size.of_seeds for size in self.sizes), strict=False):
            averages = [getattr(seed, quantity) for seed in of_seed]
            if min(averages) > 0:
                fits.append(
                    least_squares_slope(
                        [math.log(s.batch) for s in self.sizes], [math.log(v) for v in averages]
                    )
                )
        return MeanAndSD.of(fits)


def least_squares_slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Return the slope of the least-squares line through points at two or more different xs."""
    middle_x, middle_y = math.fsum(xs) / len(xs), math.fsum(ys) / len(ys)
    spread = math.fsum((x - middle_x) ** 2 for x in xs)
    return math.fsum((x - middle_x) * (y - middle_y) for x, y in zip(xs, ys, strict=True)) / spread


def batch_of(config: Any) -> int:
    """Return the examples of a step: the batch size times how many batches it accumulates."""
    workload = config.get("workload") or {}
    return int(workload.get("batch_size") or 0) * int(workload.get("accumulate") or 1)


def batch_size_series(configurations: Iterable[Configuration]) -> list[BatchSizeSeries]:
    """Return each estimator over batch sizes, where there are enough with an absolute α*."""
    groups: dict[str, list[Configuration]] = {}
    for configuration in configurations:
        rest = without_keys(configuration.runs[0].row.config, *UNTOLD, *SIZE_KEYS)
        groups.setdefault(canonical_text(rest), []).append(configuration)
    configs = [without_keys(group[0].runs[0].row.config, *SIZE_KEYS) for group in groups.values()]
    names = distinct_names([""] * len(configs), configs) if len(configs) > 1 else [""]
    all_series = []
    for name, group in zip(names, groups.values(), strict=True):
        alphas = [row for configuration in group for run in configuration.runs for row in run.alphas]
        for estimator in recorded_estimators(alphas):
            all_series += _batch_size_series(name.strip(), estimator, group)
    return all_series


def _batch_size_series(name: str, estimator: str, group: Sequence[Configuration]) -> list[BatchSizeSeries]:
    sizes = [size for configuration in group for size in _batch_size_statistics(configuration, estimator)]
    if len({size.batch for size in sizes}) < FEWEST:
        return []
    return [BatchSizeSeries(name, estimator, tuple(sorted(sizes, key=lambda size: size.batch)))]


def _batch_size_statistics(configuration: Configuration, estimator: str) -> list[BatchSizeStatistics]:
    finished = [run for run in configuration.runs if run.finished]  # others would be at another phase
    ordered: list[RunData] = sorted(finished, key=lambda run: str(run.row.config.get("seed")))
    of_seeds = [summarise_values(estimator_values(run.alphas, estimator, "absolute")) for run in ordered]
    defined = tuple(statistics for statistics in of_seeds if statistics is not None)
    return [BatchSizeStatistics(batch_of(configuration.runs[0].row.config), defined)] if defined else []
