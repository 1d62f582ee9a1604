"""The order in which rows train, as a function: no permutation is ever written down.

A bijection of k-bit numbers is walked until it comes back below n, which makes it one of 0 … n − 1 (Black and
Rogaway 2002, cycle walking). So a batch costs what its own rows cost, however many there are.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.int64]
ROUNDS = 4


class BlockOrder:
    """Rows 0 … n − 1, in another order each epoch: blocks of rows, and the rows within each."""

    def __init__(self, rows: int, block_rows: int, seed: int) -> None:
        self._rows = rows
        self._block_rows = block_rows
        self._blocks = -(-rows // block_rows)
        self._seed = seed
        self._epoch_blocks = lru_cache(maxsize=2)(self._draw_blocks)

    def rows(self, epoch: int, start: int, stop: int) -> Positions:
        """Return the rows at the positions from `start` to `stop` of an epoch."""
        blocks, starts = self._epoch_blocks(epoch)
        positions = np.arange(start, stop)
        place = np.searchsorted(starts, positions, "right") - 1
        rows = np.empty_like(positions)
        for at in np.unique(place):
            here, block = place == at, int(blocks[at])
            size = min(self._block_rows, self._rows - block * self._block_rows)
            within = permuted(positions[here] - starts[at], size, _derive_seed(self._seed, epoch, block + 1))
            rows[here] = block * self._block_rows + within
        return rows

    def _draw_blocks(self, epoch: int) -> tuple[Positions, Positions]:
        """Return an epoch's blocks in order, and the position at which each begins."""
        blocks = permuted(np.arange(self._blocks), self._blocks, _derive_seed(self._seed, epoch, 0))
        sizes = np.minimum(self._block_rows, self._rows - blocks * self._block_rows)
        return blocks, np.cumsum([0, *sizes[:-1]])


def permuted(numbers: Positions, size: int, seed: int) -> Positions:
    """Return where a permutation of 0 … size − 1 takes these numbers; a seed has one for each size."""
    bits = max(2, (size - 1).bit_length())
    keys = np.random.SFC64(seed).random_raw(2 * ROUNDS).reshape(ROUNDS, 2)
    images = _mix_numbers(numbers.astype(np.uint64), bits, keys)
    outside = np.flatnonzero(images >= size)
    while len(outside):
        images[outside] = _mix_numbers(images[outside], bits, keys)
        outside = outside[images[outside] >= size]
    return images.astype(np.int64)


def _mix_numbers(numbers: NDArray[np.uint64], bits: int, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Map numbers of so many bits one to one: add keys, fold high bits into low, multiply by odd factors."""
    mask, half = np.uint64((1 << bits) - 1), np.uint64(bits // 2)
    for added, factor in keys:
        numbers = (numbers + added) & mask
        numbers = numbers ^ (numbers >> half)
        numbers = (numbers * (factor | np.uint64(1))) & mask
    return numbers ^ (numbers >> half)


def _derive_seed(seed: int, epoch: int, purpose: int) -> int:
    """Return a seed for one permutation of an epoch."""
    return int(np.random.SFC64([seed, epoch, purpose]).random_raw())
