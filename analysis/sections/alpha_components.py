"""Numerators and denominators of observed α*, how two estimators go together, and what parts them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from itertools import chain, combinations

from ..alphas import Quantity, after_vanishing_rates
from ..comparison import ReportData
from ..configurations import Configuration
from ..data import RunData
from ..estimator_pairs import Decomposition, correlation, decompose
from ..observed_alphas import (
    alpha_dispersion,
    estimator_names,
    measured_configurations,
    observed_configurations,
    over_seeds,
)
from ..plots.alpha_windows import draw_components
from ..plots.figure import Figure
from ..reference import Key
from ..statistics import Correlation, mean
from ..tables import Table
from ..thesis.compared_statistics import Statistic, statistics_table
from .base import ReportSection

TITLE = "Numerators and denominators of α*"
PAIR_TITLE = "Two estimators at the same steps"
PARTS: tuple[Quantity, ...] = ("numerator", "denominator")
CORRELATED: tuple[Quantity, ...] = ("relative", "absolute", *PARTS)
PRINTED_AS = {
    "relative": "alpha_rel",
    "absolute": "alpha_abs",
    "numerator": "numerator",
    "denominator": "denominator",
}
COSINES = {
    "probe_cosine": ("mean cosine of d₂ and g₁", "exp1.cosine_d2_g1"),
    "cosine": ("mean cosine of d₂ and g₂", "exp1.cosine_d2_g2"),
    "lookahead_cosine": ("mean cosine of d₂ and the gradient of the next batch", None),
}
NOTE = "Relative α* is −dᵀg over dᵀGd, and d contains the rate. Of each run, then the mean over seeds."
PAIRS = (
    "r: Pearson's, over the steps at which both are finite; p two-sided for independent pairs, which "
    "consecutive steps are not. Numerator's part: mean of hybrid − biased; denominator's: mean of unbiased "
    "− hybrid (equation 4.1, relative α*); shares are of the sum of both absolute parts."
)


class AlphaComponentsSection(ReportSection):
    """The section “Numerators and denominators of α*”."""

    title = TITLE

    def applies(self, data: ReportData) -> bool:
        """Return whether α* was observed, or should be according to a reference."""
        return self.has_values(data) or bool(data.reference and observed_configurations(data))

    def tables(self, data: ReportData) -> list[Table]:
        """Return the components, and what ties and parts the estimators."""
        configurations = observed_configurations(data)
        parts = list(chain.from_iterable(map(_component_statistics, configurations)))
        pairs = list(chain.from_iterable(map(_pair_statistics, configurations)))
        reference = data.reference
        return [
            statistics_table("alpha-components", TITLE, parts, reference, [NOTE]),
            *([statistics_table("alpha-pairs", PAIR_TITLE, pairs, reference, [PAIRS])] if pairs else []),
        ]

    def figures(self, data: ReportData) -> list[Figure]:
        """Return numerators and denominators over steps."""
        configurations = measured_configurations(data)
        if not configurations:
            return []
        statistics = _component_statistics(configurations[0])
        if all(statistic.value is None for statistic in statistics):
            return []
        thesis = "" if data.reference is None else " Thesis, figure 4.6."
        caption = (
            "First configuration and seed: means of the windows. Where they lie far apart, the axis is "
            f"linear near 0 only.{thesis}"
        )
        return [Figure("alpha-components", TITLE, caption, partial(draw_components, configurations[0]))]

    def statistics(self, data: ReportData) -> list[Statistic]:
        """Return every number of the section."""
        return [
            statistic
            for configuration in observed_configurations(data)
            for statistic in (*_component_statistics(configuration), *_pair_statistics(configuration))
        ]


def _component_statistics(configuration: Configuration) -> Iterator[Statistic]:
    for name in estimator_names(configuration):
        for part in PARTS:
            spreads = [alpha_dispersion(run, name, part) for run in configuration.runs]
            item, label = f"exp1.{part}_{name}", f"{configuration.label}, {name}"
            means = mean(None if dispersion is None else dispersion.mean for dispersion in spreads)
            medians = mean(None if dispersion is None else dispersion.median for dispersion in spreads)
            yield Statistic(label, f"{part}, mean", means, key=Key(item, "mean"))
            yield Statistic(label, f"{part}, median", medians, key=Key(item, "median"))
    for name, (words, item_of) in COSINES.items():
        value = over_seeds(configuration, partial(mean_scalar, name))
        if value is not None or name != "lookahead_cosine":
            key = None if item_of is None else Key(item_of, "mean")
            yield Statistic(configuration.label, words, value, key=key)
    norm = over_seeds(configuration, partial(mean_scalar, "direction_norm"))
    yield Statistic(configuration.label, "mean norm of d", norm, key=Key("exp1.direction_norm", "mean"))


def mean_scalar(name: str, run: RunData) -> float | None:
    """Return the mean over steps of something that was recorded once a step (a norm, a cosine)."""
    scalars = [getattr(row, name) for row in after_vanishing_rates(run)]
    return mean(value for value in scalars if value is not None and math.isfinite(value))


def _pair_statistics(configuration: Configuration) -> Iterator[Statistic]:
    names = estimator_names(configuration)
    for first, second in combinations(sorted(names), 2):
        for quantity in CORRELATED:
            yield from _correlation_statistics(configuration, first, second, quantity)
    if {"biased", "unbiased"} <= set(names):
        yield from _decomposition_statistics(configuration)


def _correlation_statistics(
    configuration: Configuration, first: str, second: str, quantity: Quantity
) -> Iterator[Statistic]:
    correlations = [
        correlation(after_vanishing_rates(run), first, second, quantity) for run in configuration.runs
    ]
    item = f"exp1.{PRINTED_AS[quantity]}_{first}_vs_{second}"
    subject, n = f"{configuration.label}, {first} and {second}", _fewest_pairs(correlations)
    r = mean(None if correlated is None else correlated.r for correlated in correlations)
    p = mean(None if correlated is None else correlated.p for correlated in correlations)
    if r is not None or (first, second) == ("biased", "unbiased"):
        yield Statistic(subject, f"{_quantity_text(quantity)}, r", r, n, key=Key(item, "pearson_r"))
        yield Statistic(subject, f"{_quantity_text(quantity)}, p", p, n, key=Key(item, "p"))


def _decomposition_statistics(configuration: Configuration) -> Iterator[Statistic]:
    decompositions = [decompose(after_vanishing_rates(run)) for run in configuration.runs]
    n = min((decomposition.n for decomposition in decompositions if decomposition is not None), default=None)
    item, subject = "exp1.alpha_unbiased_minus_biased", f"{configuration.label}, biased and unbiased"

    def statistic(words: str, name: str, key: Key, factor: float = 1.0) -> Statistic:
        value = mean(_decomposition_part(decomposition, name) for decomposition in decompositions)
        return Statistic(subject, words, None if value is None else factor * value, n, key=key)

    yield statistic("numerator's part", "numerator", Key("exp1.alpha_hybrid_minus_biased", "mean"))
    yield statistic("denominator's part", "denominator", Key("exp1.alpha_unbiased_minus_hybrid", "mean"))
    yield statistic("numerator's share (%)", "numerator_share", Key(item, "numerator_share"), 100)
    yield statistic("denominator's share (%)", "denominator_share", Key(item, "denominator_share"), 100)


def _decomposition_part(decomposition: Decomposition | None, name: str) -> float | None:
    return None if decomposition is None else getattr(decomposition, name)


def _fewest_pairs(correlations: list[Correlation | None]) -> int | None:
    return min((correlated.n for correlated in correlations if correlated is not None), default=None)


def _quantity_text(quantity: Quantity) -> str:
    return f"{quantity} α*" if quantity in ("relative", "absolute") else f"{quantity}s"
