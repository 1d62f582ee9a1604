"""How large observed α* are, and how they spread: over all values, and from window to window."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import chain

from ..alphas import FIELD, SCALES, Scale
from ..comparison import ReportData
from ..configurations import Configuration
from ..dispersion import ratio
from ..observed_alphas import (
    AlphaDispersion,
    alpha_dispersion,
    estimator_names,
    highest_rate,
    measured_configurations,
    observed_configurations,
    over_seeds,
)
from ..plots.alpha_windows import draw_relative_means, draw_windows
from ..plots.figure import Figure
from ..reference import Key
from ..statistics import mean
from ..tables import Table
from ..thesis.compared_statistics import Statistic, as_whole_number, statistics_table
from .base import ReportSection

TITLE = "Size and spread of α*"
QUANTITIES: Mapping[str, tuple[str, Callable[[AlphaDispersion], float | None]]] = {
    "mean": ("mean", lambda s: s.mean),
    "median": ("median", lambda s: s.median),
    "sd": ("SD", lambda s: s.deviation),
    "range": ("range", lambda s: s.spread),
    "range_of_chunk_means": ("range of the windows' means", lambda s: s.spread_of_means),
    "range_of_chunk_medians": ("range of the windows' medians", lambda s: s.spread_of_medians),
    "n": ("values", lambda s: float(s.n)),
    "n_negative": ("negative values", lambda s: s.negative),
    "share_negative": ("negative (%)", lambda s: _as_percent(s.share_negative)),
    "cv": ("CV: SD / mean", lambda s: s.variation),
    "rsd_range": ("SD / range (equation 4.2)", lambda s: s.relative_deviation),
}
"""By the name under which the thesis' values stand: words, and the definition."""
COUNTS = ("n", "n_negative")
RATIOS = ("mean", "median", "sd", "range", "range_of_chunk_means", "range_of_chunk_medians")
TO_HIGHEST = ("mean", "median")
WANTED = {"relative": ("mean", "median"), "absolute": tuple(QUANTITIES)}
MeanQuantities = Mapping[tuple[Scale, str], float | None]
NOTE = (
    "Of each run, then the mean over seeds. The value at a rate below 1e-6 of the run's highest is left out: "
    "relative α* of the first step of a warm-up from nothing means nothing. Windows are those of the policy; "
    "n counts one run's values."
)
DOUBTFUL = (
    "The thesis prints SD / range as 3.56 (unbiased) and 0.996 (biased); its own SDs and ranges give 0.092 "
    "and 0.160, so that the order is the other way round."
)


class AlphaDispersionSection(ReportSection):
    """The section “Size and spread of α*”."""

    title = TITLE

    def applies(self, data: ReportData) -> bool:
        """Return whether α* was observed, or should be according to a reference."""
        return self.has_values(data) or bool(data.reference and observed_configurations(data))

    def tables(self, data: ReportData) -> list[Table]:
        """Return the statistics of each estimator, and how they compare with `unbiased` and with the rate."""
        notes = [NOTE, *([DOUBTFUL] if data.reference is not None else [])]
        return [statistics_table("alpha-dispersion", TITLE, self.statistics(data), data.reference, notes)]

    def figures(self, data: ReportData) -> list[Figure]:
        """Return relative α* over steps, and absolute α* of each estimator beside the learning rate."""
        configurations = measured_configurations(data)
        if not configurations:
            return []
        first = configurations[0]
        thesis = "" if data.reference is None else " Thesis, figure 4.3."
        relative = Figure(
            "alpha-relative-means",
            "Relative α*: means of the windows",
            "First configuration and seed. Dotted: 1, where α* is the rate in use. Where values go far "
            f"beyond it, the axis is linear up to ±1 only.{thesis}",
            partial(draw_relative_means, first),
        )
        absolute = [
            _absolute_figure(data, first, name)
            for name in estimator_names(first)
            if _has_absolute(first, name)
        ]
        return [relative, *absolute]

    def statistics(self, data: ReportData) -> list[Statistic]:
        """Return every statistic of every estimator that is observed."""
        return list(chain.from_iterable(map(_configuration_statistics, observed_configurations(data))))


def _absolute_figure(data: ReportData, configuration: Configuration, name: str) -> Figure:
    number = {"unbiased": "4.4", "biased": "4.5"}.get(name)
    thesis = f" Thesis, figure {number}." if data.reference is not None and number else ""
    return Figure(
        f"alpha-absolute-{name}",
        f"Absolute α*, {name}: mean, median and SD of the windows",
        f"First configuration and seed. Bars: ± 1 SD of a window's values around their mean.{thesis}",
        partial(draw_windows, configuration, name),
    )


def _has_absolute(configuration: Configuration, name: str) -> bool:
    return any(alpha_dispersion(run, name, "absolute") is not None for run in configuration.runs)


def _configuration_statistics(configuration: Configuration) -> Iterator[Statistic]:
    names = estimator_names(configuration)
    by_estimator = {name: _mean_quantities(configuration, name) for name in names}
    for name in names:
        for scale in SCALES:
            yield from _value_statistics(configuration, name, scale, by_estimator[name])
    for name in names:
        if name != "unbiased" and "unbiased" in names:
            yield from _ratio_statistics(configuration, name, by_estimator[name], by_estimator["unbiased"])
    highest = over_seeds(configuration, highest_rate)
    for name in names:
        yield from _highest_rate_statistics(configuration, name, by_estimator[name], highest)


def _mean_quantities(configuration: Configuration, name: str) -> MeanQuantities:
    """Return every quantity of an estimator on either scale, as the mean over seeds."""
    means: dict[tuple[Scale, str], float | None] = {}
    for scale in SCALES:
        dispersions = [alpha_dispersion(run, name, scale) for run in configuration.runs]
        defined = [dispersion for dispersion in dispersions if dispersion is not None]
        for quantity, (_, definition) in QUANTITIES.items():
            means[scale, quantity] = mean(map(definition, defined))
    return means


def _value_statistics(
    configuration: Configuration, name: str, scale: Scale, quantities: MeanQuantities
) -> Iterator[Statistic]:
    item = f"exp1.{FIELD[scale]}_{name}"
    for quantity in WANTED[scale]:
        words = f"{scale}, {QUANTITIES[quantity][0]}"
        value = quantities[scale, quantity]
        shown = as_whole_number(value) if quantity in COUNTS else value
        yield Statistic(_estimator_label(configuration, name), words, shown, key=Key(item, quantity))


def _ratio_statistics(
    configuration: Configuration, name: str, quantities: MeanQuantities, unbiased: MeanQuantities
) -> Iterator[Statistic]:
    for quantity in RATIOS:
        place: tuple[Scale, str] = ("absolute", quantity)
        words = f"absolute, {QUANTITIES[quantity][0]} over that of unbiased"
        key = Key(f"exp1.alpha_abs_{name}", f"{quantity}_ratio_to_unbiased")
        yield Statistic(
            _estimator_label(configuration, name), words, ratio(quantities[place], unbiased[place]), key=key
        )


def _highest_rate_statistics(
    configuration: Configuration, name: str, quantities: MeanQuantities, highest: float | None
) -> Iterator[Statistic]:
    for quantity in TO_HIGHEST:
        words = f"absolute, {quantity} over the highest learning rate"
        key = Key(f"exp1.alpha_abs_{name}", f"{quantity}_ratio_to_schedule_max")
        yield Statistic(
            _estimator_label(configuration, name),
            words,
            ratio(quantities["absolute", quantity], highest),
            key=key,
        )


def _estimator_label(configuration: Configuration, name: str) -> str:
    return f"{configuration.label}, {name}"


def _as_percent(share: float | None) -> float | None:
    return None if share is None else 100 * share
