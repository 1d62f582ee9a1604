"""Significance of the difference of two configurations over a few seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .statistics import MeanAndSD

LEVEL = 0.05
"""A corrected p below this counts as a difference."""


@dataclass(frozen=True)
class Difference:
    """The mean difference over pairs, its SD, and the two-sided p of Student's paired test.

    Deviation, half-width of the 95 % interval and p are None for a single pair, p also where all are equal.
    """

    mean: float
    deviation: float | None
    n: int
    half_width: float | None
    p: float | None

    @classmethod
    def of(cls, differences: Sequence[float]) -> Difference | None:
        """Summarise the differences that are finite; None if there is none."""
        summary = MeanAndSD.of(differences)
        if summary is None:
            return None
        if summary.deviation is None:
            return cls(summary.mean, None, summary.n, None, None)
        from scipy.stats import t

        error = summary.deviation / math.sqrt(summary.n)
        p = 2 * float(t.sf(abs(summary.mean) / error, summary.n - 1)) if error else None
        return cls(summary.mean, summary.deviation, summary.n, error * float(t.ppf(0.975, summary.n - 1)), p)


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """Return the p values corrected for multiple comparisons (Holm 1979); None stays None."""
    order = sorted((p, place) for place, p in enumerate(ps) if p is not None)
    corrected: list[float | None] = [None] * len(ps)
    highest = 0.0
    for rank, (p, place) in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p))
        corrected[place] = highest
    return corrected
