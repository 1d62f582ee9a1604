"""What may be said over seeds and over configurations, and no more than that."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Summary:
    """Mean and standard deviation (n − 1 in the denominator; None for n = 1) of `n` values."""

    mean: float
    deviation: float | None
    n: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Summary | None:
        """Summarise the finite values; None if there is none."""
        finite = [value for value in values if value is not None and math.isfinite(value)]
        if not finite:
            return None
        mean = math.fsum(finite) / len(finite)
        return cls(mean, _deviation(finite, mean), len(finite))


def _deviation(values: Sequence[float], mean: float) -> float | None:
    if len(values) < 2:
        return None
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def median(values: Sequence[float]) -> float:
    """Return the midpoint median of at least one value."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def expected_best(losses: Sequence[float], k: int) -> float:
    """Return the mean of the least loss over all choices of `k` of the configurations.

    The i-th smallest of K losses (i from 0) is the least of C(K − 1 − i, k − 1) of the C(K, k) choices.
    """
    if not 1 <= k <= len(losses):
        raise ValueError(f"cannot choose {k} of {len(losses)} configurations")
    ordered, size = sorted(losses), len(losses)
    choices = math.comb(size, k)
    return math.fsum(math.comb(size - 1 - i, k - 1) / choices * loss for i, loss in enumerate(ordered))


@dataclass(frozen=True)
class Correlation:
    """Pearson's r, its two-sided p under a normal null, and the number of pairs."""

    r: float
    p: float
    n: int


def pearson(xs: Sequence[float], ys: Sequence[float]) -> Correlation | None:
    """Correlate pairs; None for fewer than three, or where one side does not vary."""
    if len(xs) < 3 or len(set(xs)) < 2 or len(set(ys)) < 2:
        return None
    from scipy.stats import pearsonr

    result = pearsonr(xs, ys)
    return Correlation(float(result.statistic), float(result.pvalue), len(xs))
