"""Generated clicks in the layout of Criteo 1TB, and DLRM-small."""

from __future__ import annotations

import numpy as np
from torch import nn

from .clicks import Clicks
from .criteo.columns import DENSE, VOCABULARIES
from .dlrm import DLRM
from .options import DLRMSyntheticOptions
from .planted import Array, log_odds, mix, zipf

LARGEST = 100_000
"""Largest count among the dense features."""
SIZES = np.array([LARGEST] * DENSE + list(VOCABULARIES), dtype=np.float64)
OFFSETS = np.cumsum([0, *VOCABULARIES[:-1]]).astype(np.uint32)


class DLRMSynthetic(Clicks):
    """Clicks given logarithms of counts, and hashes of categories; both follow Zipf's law."""

    Options = DLRMSyntheticOptions
    prefetch = 2
    options: DLRMSyntheticOptions

    def impressions(self, random: np.random.Generator, count: int) -> tuple[Array, Array]:
        """Return 13 logarithms and 26 hashes of 32 bits [count, 39], and log-odds [count].

        Double precision holds the hashes exactly.
        """
        ranks = zipf(random, count, SIZES)
        logarithms = np.log1p(ranks[:, :DENSE])
        hashes = mix(ranks[:, DENSE:] + OFFSETS)
        standard = np.sqrt(12) * (logarithms / np.log1p(LARGEST) - 0.5)  # they are nearly uniform
        return np.hstack([logarithms, hashes]), log_odds(standard, hashes)

    def model(self) -> nn.Module:
        """Return DLRM-small with the options' sizes."""
        return DLRM.of(self.options)
