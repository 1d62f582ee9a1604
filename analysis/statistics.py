"""Statistics over seeds and over configurations."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class MeanAndSD:
    """Mean and standard deviation (n − 1 in the denominator; None for n = 1) of `n` values."""

    mean: float
    deviation: float | None
    n: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> MeanAndSD | None:
        """Summarise the finite values; None if there is none."""
        finite = [value for value in values if value is not None and math.isfinite(value)]
        if not finite:
            return None
        mean = math.fsum(finite) / len(finite)
        return cls(mean, _sample_deviation(finite, mean), len(finite))


def _sample_deviation(values: Sequence[float], mean: float) -> float | None:
    if len(values) < 2:
        return None
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of the finite values; None if there is none."""
    return mean_of(MeanAndSD.of(values))


def mean_of(summary: MeanAndSD | None) -> float | None:
    """Return the mean of a summary; None without one."""
    return None if summary is None else summary.mean


def deviation_of(summary: MeanAndSD | None) -> float | None:
    """Return the SD of a summary; None without one."""
    return None if summary is None else summary.deviation


def median(values: Sequence[float]) -> float:
    """Return the midpoint median of at least one value."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def weighted_median(pairs: Iterable[tuple[float, float]]) -> float | None:
    """Return the median of (value, weight) pairs: half of the weight is on either side of it.

    With weights of 1 it is the midpoint median. None where nothing has a weight above 0.
    """
    ordered = sorted((value, weight) for value, weight in pairs if weight > 0)
    half, below = math.fsum(weight for _, weight in ordered) / 2, 0.0
    for place, (value, weight) in enumerate(ordered):
        below += weight
        if math.isclose(below, half) and place + 1 < len(ordered):
            return (value + ordered[place + 1][0]) / 2
        if below > half:
            return value
    return ordered[-1][0] if ordered else None


def expected_best(losses: Sequence[float], k: int) -> float:
    """Return the mean of the least loss over all choices of `k` of the configurations.

    The i-th smallest of K losses (i from 0) is the least of C(K − 1 − i, k − 1) of the C(K, k) choices.
    It is infinite where a choice holds none that is finite.
    """
    if not 1 <= k <= len(losses):
        raise ValueError(f"cannot choose {k} of {len(losses)} configurations")
    ordered, size = sorted(losses), len(losses)
    choices = math.comb(size, k)
    return math.fsum(
        math.comb(size - 1 - i, k - 1) / choices * loss for i, loss in enumerate(ordered[: size - k + 1])
    )


@dataclass(frozen=True)
class Components:
    """One-way components of variance: `within` groups and `between` them, of `n` values in `groups`."""

    mean: float
    within: float
    between: float
    groups: int
    n: int

    @property
    def share_within(self) -> float | None:
        """The share of the variance of a single value that lies within groups."""
        total = self.within + self.between
        return self.within / total if total > 0 else None


def variance_components(groups: Iterable[Sequence[float]]) -> Components | None:
    """Part the variance of values that come in groups, by the mean squares of a one-way layout.

    An estimate of the variance between groups that comes out negative is 0. None for fewer than two groups,
    or where no group has two values.
    """
    groups = [group for group in groups if group]
    n, count = sum(map(len, groups)), len(groups)
    if count < 2 or n == count:
        return None
    mean = math.fsum(value for group in groups for value in group) / n
    means = [math.fsum(group) / len(group) for group in groups]
    within = math.fsum((x - m) ** 2 for group, m in zip(groups, means, strict=True) for x in group)
    within /= n - count
    between = math.fsum(len(group) * (m - mean) ** 2 for group, m in zip(groups, means, strict=True))
    between /= count - 1
    size = (n - math.fsum(len(group) ** 2 for group in groups) / n) / (count - 1)
    return Components(mean, within, max(0.0, (between - within) / size), count, n)


@dataclass(frozen=True)
class Correlation:
    """Pearson's r, its two-sided p under a normal null, and the number of pairs."""

    r: float
    p: float
    n: int


def p_of_r(r: float, n: int) -> float:
    """Return the two-sided p of Pearson's r over n pairs: of t with n − 2 degrees of freedom."""
    from scipy.stats import t

    statistic = math.inf if abs(r) >= 1 else abs(r) * math.sqrt((n - 2) / (1 - r * r))
    return float(2 * t.sf(statistic, n - 2))


def pearson(xs: Sequence[float], ys: Sequence[float]) -> Correlation | None:
    """Correlate pairs; None for fewer than three, or where one side does not vary."""
    if len(xs) < 3 or len(set(xs)) < 2 or len(set(ys)) < 2:
        return None
    from scipy.stats import pearsonr

    r = float(pearsonr(xs, ys).statistic)
    return Correlation(r, p_of_r(r, len(xs)), len(xs))
