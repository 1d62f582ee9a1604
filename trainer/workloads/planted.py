"""Clicks whose probability is known: effects that look random and are always the same, and Zipf's law."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Integers = NDArray[np.uint32]

BIAS = -3.0
"""Log-odds of a click where all else is zero."""
SCALE = 2.0
"""Size of each group of effects."""

SHIFTS = np.array([16, 13], dtype=np.uint32)
MULTIPLIERS = np.array([0x85EBCA6B, 0xC2B2AE35], dtype=np.uint32)
GOLDEN = np.uint32(0x9E3779B9)


def zipf(random: np.random.Generator, count: int, sizes: Array) -> Integers:
    """Return ranks [count, columns] from 0; P(rank < k) = log(k + 1) / log(size + 1) in each column."""
    uniform = random.random((count, len(sizes)))
    ranks: Integers = (np.exp(uniform * np.log(sizes + 1)) - 1).astype(np.uint32)
    return ranks


def mix(keys: Integers) -> Integers:
    """Return keys scattered over 32 bits, one to one (the finaliser of Appleby's MurmurHash3)."""
    keys = keys ^ (keys >> SHIFTS[0])
    keys = keys * MULTIPLIERS[0]
    keys = keys ^ (keys >> SHIFTS[1])
    keys = keys * MULTIPLIERS[1]
    mixed: Integers = keys ^ (keys >> SHIFTS[0])
    return mixed


def log_odds(features: Array, keys: Integers) -> Array:
    """Return log-odds [count] from features [count, D] of unit size and keys [count, C], one a category.

    They are a sum of effects of the features, of their absolute values, and of the categories. (Products of
    features held some seeds, and not others, for long on the loss of a model without them.)
    """
    signed, absolute = _effects(np.arange(2 * features.shape[1], dtype=np.uint32)).reshape(2, -1)
    of_features: Array = (features @ signed + np.abs(features) @ absolute) / np.sqrt(features.shape[1])
    of_categories: Array = _effects(keys).sum(1) / np.sqrt(keys.shape[1])
    return BIAS + SCALE * (of_features + of_categories)


def _effects(keys: Integers) -> Array:
    """Return a number in [−1, 1) for each key that looks random and is always the same."""
    return mix(keys ^ GOLDEN).astype(np.float64) / 2**31 - 1
