"""Measures of dispersion, each defined once; notes where the thesis' print differs.

`values` are finite; SDs have n − 1 in the denominator.
"""

from __future__ import annotations

from collections.abc import Sequence


def value_range(values: Sequence[float]) -> float | None:
    """Return the largest value minus the smallest; None for fewer than two."""
    return max(values) - min(values) if len(values) > 1 else None


def share_negative(values: Sequence[float]) -> float | None:
    """Return the share of values below zero; None without values.

    The thesis counts 1,102 of 4,300 (25.63 %), although it says that the first value is left out of every
    statistic, which makes n = 4,299 and the share the same in the digits printed.
    """
    return sum(value < 0 for value in values) / len(values) if values else None


def coefficient_of_variation(mean: float | None, deviation: float | None) -> float | None:
    """Return SD / mean; None where either is unknown or the mean is zero.

    The print follows from its own means and SDs: 0.914 (biased) and, within rounding, 1.846 (unbiased).
    """
    return None if deviation is None or not mean else deviation / mean


def range_relative_deviation(deviation: float | None, spread: float | None) -> float | None:
    """Return SD / (largest − smallest), the thesis' equation 4.2; None where either is unknown or zero.

    Its print does not follow: 3.56 (unbiased) and 0.996 (biased), where its own SDs and ranges give 0.092 and
    0.160. By the formula biased α* spreads *more* relative to its range, not less as its section 4.4.3 says.
    """
    return None if deviation is None or not spread else deviation / spread


def ratio(numerator: float | None, denominator: float | None) -> float | None:
    """Return one / other; None where either is unknown or the divisor is zero."""
    return None if numerator is None or not denominator else numerator / denominator


def difference(minuend: float | None, subtrahend: float | None) -> float | None:
    """Return one − other; None where either is unknown."""
    return None if minuend is None or subtrahend is None else minuend - subtrahend
