"""Split the rows into training, validation and test.

As in AlgoPerf: of Criteo's 24 days the last is test (95,000,000 rows) and validation (83,274,637), the days
before it train, and a sample of those stands for the training split. Other logs are split in proportion.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .order import permuted

TEST_ROWS, LAST_DAY_ROWS, ALL_ROWS = 95_000_000, 178_274_637, 4_373_472_329
"""Of Criteo 1TB."""
PIECE = 8192
"""Rows of an evaluated batch, which lie together."""
SAMPLE_SEED = 0


@dataclass(frozen=True)
class Splits:
    """Ranges of rows, counted over all days."""

    training: range
    """Rows of the training steps."""
    test: range
    validation: range

    def pieces(self, split: str, most: int | None = None) -> list[range]:
        """Return the batches of a split; with `most`, so many rows at most, in pieces spread evenly.

        `train` is a sample of the training rows, as large as `validation`, rounded up to whole pieces.
        """
        if split == "train":
            pieces = self._training_sample()
        else:
            pieces = _cut_into_pieces(self.test if split == "test" else self.validation)
        return pieces if most is None else _thin_pieces(pieces, most)

    def _training_sample(self) -> list[range]:
        """Return a fixed random sample of pieces of the training rows."""
        count, available = math.ceil(len(self.validation) / PIECE), len(self.training) // PIECE
        if count >= available:
            return _cut_into_pieces(self.training)
        drawn = np.sort(permuted(np.arange(count), available, SAMPLE_SEED))
        return [range(start, start + PIECE) for start in (drawn * PIECE).tolist()]


def split(rows_by_day: Sequence[int]) -> Splits:
    """Return the splits of days with `rows_by_day` rows, in order.

    Of the last day the first 53.3 % are test and the others validation. A single day lends its last 4.1 %
    (the last day's share of Criteo 1TB) for that.
    """
    total = sum(rows_by_day)
    held_out = rows_by_day[-1] if len(rows_by_day) > 1 else math.ceil(total * LAST_DAY_ROWS / ALL_ROWS)
    start = total - held_out
    middle = start + held_out * TEST_ROWS // LAST_DAY_ROWS
    return Splits(range(start), range(start, middle), range(middle, total))


def _cut_into_pieces(rows: range) -> list[range]:
    return [rows[start : start + PIECE] for start in range(0, len(rows), PIECE)]


def _thin_pieces(pieces: list[range], most: int) -> list[range]:
    if sum(map(len, pieces)) <= most:
        return pieces
    count = math.ceil(most / PIECE)
    selection = [pieces[position * len(pieces) // count] for position in range(count)]
    return [*selection[:-1], selection[-1][: most - PIECE * (count - 1)]]
