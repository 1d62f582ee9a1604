"""Two estimators of α* at the same steps: how they go together, and what makes their difference.

With d and its own batch B₂, and a second batch B₁: biased is −d₂ᵀg₂ / d₂ᵀG₂d₂, unbiased −d₂ᵀg₁ / d₂ᵀG₁d₂, and
hybrid the numerator of unbiased over the denominator of biased, −d₂ᵀg₁ / d₂ᵀG₂d₂ (thesis, section 4.3.2).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..store.queries import AlphaRow, Estimate
from .alphas import FIELD, Quantity
from .statistics import Correlation, pearson


@dataclass(frozen=True)
class Decomposition:
    """Means over n steps of the two parts of (unbiased − biased), for the relative α*.

    (hybrid − biased) is the numerator's part, (unbiased − hybrid) the denominator's.
    """

    numerator: float
    denominator: float
    n: int

    @property
    def numerator_share(self) -> float | None:
        """Return |numerator's part| over the sum of both absolute parts; None where both are zero.

        The thesis says "more than 98 %"; its equation 4.1 gives 98.73 %. The sum of the printed parts,
        −1670.52, misses the difference of the printed means, −1670.91.
        """
        total = abs(self.numerator) + abs(self.denominator)
        return abs(self.numerator) / total if total else None

    @property
    def denominator_share(self) -> float | None:
        """Return what is left of the whole."""
        share = self.numerator_share
        return None if share is None else 1 - share


def decompose(alphas: Iterable[AlphaRow]) -> Decomposition | None:
    """Decompose the difference where biased and unbiased were measured at one step; None where never.

    Hybrid is taken from them, so that it need not have been recorded.
    """
    parts = [
        _difference_parts(row.estimates["biased"], row.estimates["unbiased"])
        for row in _rows_with_both(alphas)
    ]
    finite_parts = [part for part in parts if part is not None]
    if not finite_parts:
        return None
    first = math.fsum(numerator for numerator, _ in finite_parts) / len(finite_parts)
    second = math.fsum(denominator for _, denominator in finite_parts) / len(finite_parts)
    return Decomposition(first, second, len(finite_parts))


def correlation(
    alphas: Iterable[AlphaRow], first: str, second: str, quantity: Quantity
) -> Correlation | None:
    """Correlate a quantity of two estimators over the steps at which both are finite."""
    pairs = finite_pairs(alphas, first, second, quantity)
    return pearson([x for x, _ in pairs], [y for _, y in pairs])


def finite_pairs(
    alphas: Iterable[AlphaRow], first: str, second: str, quantity: Quantity
) -> Sequence[tuple[float, float]]:
    """Return the finite pairs of a quantity of two estimators, by step; a slope keeps its sign."""
    name = FIELD[quantity]
    pairs = [
        (getattr(row.estimates[first], name), getattr(row.estimates[second], name))
        for row in alphas
        if first in row.estimates and second in row.estimates
    ]
    return [(x, y) for x, y in pairs if _is_finite(x) and _is_finite(y)]


def _rows_with_both(alphas: Iterable[AlphaRow]) -> list[AlphaRow]:
    return [row for row in alphas if {"biased", "unbiased"} <= set(row.estimates)]


def _difference_parts(biased: Estimate, unbiased: Estimate) -> tuple[float, float] | None:
    numerator, denominator = unbiased.slope, biased.curvature
    values = (biased.alpha_rel, unbiased.alpha_rel, numerator, denominator)
    if not all(_is_finite(value) for value in values) or not denominator:
        return None
    assert biased.alpha_rel is not None
    assert unbiased.alpha_rel is not None
    assert numerator is not None
    hybrid = -numerator / denominator
    return hybrid - biased.alpha_rel, unbiased.alpha_rel - hybrid


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
