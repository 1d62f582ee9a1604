"""Numerators and denominators of observed α*, how two estimators go together, and what parts them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from itertools import combinations

from ..alphas import Quantity, after_vanishing_rates
from ..comparison import ReportData
from ..configurations import Configuration
from ..data import RunData
from ..estimator_pairs import Decomposition, correlation, decompose
from ..observed_alphas import alpha_dispersion, estimator_names, observed, over_seeds
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
    """Numerators and denominators of observed α*, how two estimators go together, and what parts them."""

    title = TITLE

    def applies(self, data: ReportData) -> bool:
        """Return whether α* was observed, or ought to be beside a reference."""
        return any(statistic.value is not None for statistic in self.statistics(data)) or bool(
            data.reference and observed(data)
        )

    def tables(self, data: ReportData) -> list[Table]:
        """Return the components, and what ties and parts the estimators."""
        found = observed(data)
        parts = [statistic for one in found for statistic in _components(one)]
        pairs = [statistic for one in found for statistic in _pairs(one)]
        reference = data.reference
        return [
            statistics_table("alpha-components", TITLE, parts, reference, [NOTE]),
            *([statistics_table("alpha-pairs", PAIR_TITLE, pairs, reference, [PAIRS])] if pairs else []),
        ]

    def figures(self, data: ReportData) -> list[Figure]:
        """Return numerators and denominators over steps."""
        found = [one for one in observed(data) if any(run.alphas for run in one.runs)]
        if not found or all(statistic.value is None for statistic in _components(found[0])):
            return []
        thesis = "" if data.reference is None else " Thesis, figure 4.6."
        caption = (
            "First configuration and seed: means of the windows. Where they lie far apart, the axis is "
            f"linear near 0 only.{thesis}"
        )
        return [Figure("alpha-components", TITLE, caption, partial(draw_components, found[0]))]

    def statistics(self, data: ReportData) -> list[Statistic]:
        """Return every number of the section."""
        return [statistic for one in observed(data) for statistic in (*_components(one), *_pairs(one))]


def _components(configuration: Configuration) -> Iterator[Statistic]:
    for name in estimator_names(configuration):
        for part in PARTS:
            spreads = [alpha_dispersion(run, name, part) for run in configuration.runs]
            item, label = f"exp1.{part}_{name}", f"{configuration.label}, {name}"
            means = mean(None if one is None else one.mean for one in spreads)
            medians = mean(None if one is None else one.median for one in spreads)
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
    found = [getattr(row, name) for row in after_vanishing_rates(run)]
    return mean(value for value in found if value is not None and math.isfinite(value))


def _pairs(configuration: Configuration) -> Iterator[Statistic]:
    names = estimator_names(configuration)
    for one, other in combinations(sorted(names), 2):
        for quantity in CORRELATED:
            yield from _correlated(configuration, one, other, quantity)
    if {"biased", "unbiased"} <= set(names):
        yield from _decomposed(configuration)


def _correlated(
    configuration: Configuration, one: str, other: str, quantity: Quantity
) -> Iterator[Statistic]:
    found = [correlation(after_vanishing_rates(run), one, other, quantity) for run in configuration.runs]
    item = f"exp1.{PRINTED_AS[quantity]}_{one}_vs_{other}"
    of, n = f"{configuration.label}, {one} and {other}", _least(found)
    r, p = (mean(None if c is None else getattr(c, name) for c in found) for name in ("r", "p"))
    if r is not None or (one, other) == ("biased", "unbiased"):
        yield Statistic(of, f"{_words(quantity)}, r", r, n, key=Key(item, "pearson_r"))
        yield Statistic(of, f"{_words(quantity)}, p", p, n, key=Key(item, "p"))


def _decomposed(configuration: Configuration) -> Iterator[Statistic]:
    found = [decompose(after_vanishing_rates(run)) for run in configuration.runs]
    n = min((one.n for one in found if one is not None), default=None)
    whole, of = "exp1.alpha_unbiased_minus_biased", f"{configuration.label}, biased and unbiased"

    def statistic(words: str, name: str, key: Key, factor: float = 1.0) -> Statistic:
        value = mean(_part(one, name) for one in found)
        return Statistic(of, words, None if value is None else factor * value, n, key=key)

    yield statistic("numerator's part", "numerator", Key("exp1.alpha_hybrid_minus_biased", "mean"))
    yield statistic("denominator's part", "denominator", Key("exp1.alpha_unbiased_minus_hybrid", "mean"))
    yield statistic("numerator's share (%)", "numerator_share", Key(whole, "numerator_share"), 100)
    yield statistic("denominator's share (%)", "denominator_share", Key(whole, "denominator_share"), 100)


def _part(found: Decomposition | None, name: str) -> float | None:
    return None if found is None else getattr(found, name)


def _least(found: list[Correlation | None]) -> int | None:
    return min((one.n for one in found if one is not None), default=None)


def _words(quantity: Quantity) -> str:
    return f"{quantity} α*" if quantity in ("relative", "absolute") else f"{quantity}s"
