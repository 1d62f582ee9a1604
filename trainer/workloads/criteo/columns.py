"""The columns of Criteo's click logs, and what a row becomes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

DENSE = 13
"""Numbers of an example, after its label."""
CATEGORIES = 26
"""Categories of an example, its last columns."""
COLUMNS = 1 + DENSE + CATEGORIES
NAMES = (
    "label",
    *(f"I{number}" for number in range(1, DENSE + 1)),
    *(f"C{number}" for number in range(1, CATEGORIES + 1)),
)
"""As in the header of the files that have one."""

VOCABULARIES = (
    39884406, 39043, 17289, 7420, 20263, 3, 7120, 1543, 63, 38532951, 2953546, 403346, 10, 2208, 11938, 155,
    4, 976, 14, 39979771, 25641295, 39664984, 585935, 12972, 108, 36,
)  # fmt: skip
"""Values of each category in Criteo 1TB."""

Rows = NDArray[np.uint32]
"""Rows [N, 40] of 32 bits each: the label, 13 logarithms as bits of float32, 26 categories below their
vocabulary's size. What `data prepare` writes, and what batches are made of."""
ROW_BYTES = 4 * COLUMNS


def inputs_of(rows: Rows, float32_categories: bool = False) -> NDArray[np.float64]:
    """Return a batch's inputs [N, 39]: double precision holds the categories exactly.

    With `float32_categories` those are rounded to single precision, as AlgoPerf does.
    """
    inputs = np.empty((len(rows), DENSE + CATEGORIES))
    inputs[:, :DENSE] = rows[:, 1 : 1 + DENSE].view(np.float32)
    categories: NDArray[Any] = rows[:, 1 + DENSE :]
    inputs[:, DENSE:] = categories.astype(np.float32) if float32_categories else categories
    return inputs
