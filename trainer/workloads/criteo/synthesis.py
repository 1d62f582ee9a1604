"""Generate synthetic click logs in the layout of Criteo 1TB, with known true probabilities.

A click's log-odds are a sum of effects of the 13 numbers (of their logarithms, and of how far these lie from
the middle of their range) and of the 26 categories. The k most frequent values of a category cover all but
1 / (k + 1)² of the rows. Numbers follow Zipf's law. A missing number counts as 0, and a missing category is
a separate value.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....errors import SystemRefused, UserError
from ....store.files import write_atomically
from ..planted import Array, Integers, log_odds, mix, zipf
from .columns import CATEGORIES, DENSE, VOCABULARIES
from .sources import PUBLISHED_ROWS
from .splits import Splits, split

PROVENANCE = "synthetic.json"
VERSION = 1
"""Increase it when the same seed gives other logs."""
CHUNK = 1 << 16
LARGEST = 99_999
DIGITS = 5
MISSING_NUMBERS = np.array([0.45, 0.0, 0.2, 0.2, 0.03, 0.22, 0.04, 0.0, 0.04, 0.45, 0.04, 0.75, 0.2])
MISSING_CATEGORIES = np.array([0.0, 0.05, 0.0, 0.1, 0.0] * 5 + [0.3])
"""Fractions of blank fields, by column."""
OFFSETS = np.cumsum([0, *VOCABULARIES[:-1]]).astype(np.uint32)
NOBODY = np.arange(2**32 - CATEGORIES, 2**32, dtype=np.uint32)
"""Values of a missing category, by column."""
HEXADECIMAL = np.frombuffer(b"0123456789abcdef", np.uint8)

Letters = NDArray[np.uint8]


@dataclass(frozen=True)
class Chunk:
    """Synthetic rows: counts [N, 13], ranks of categories [N, 26], which of both are missing, and clicks [N].

    `odds` are the true log-odds of the clicks.
    """

    counts: Integers
    ranks: Integers
    no_count: NDArray[np.bool_]
    no_rank: NDArray[np.bool_]
    odds: Array
    clicks: NDArray[np.bool_]


def synthesize(
    folder: Path,
    rows: int,
    seed: int = 0,
    days: int = 24,
    on_rows: Callable[[int], None] = lambda written: None,
) -> dict[str, Any]:
    """Write `rows` rows to day_0, day_1, … and their provenance to `synthetic.json`; return the provenance.

    It holds the mean losses of the true log-odds and of the best constant, on test and validation.

    Raises:
        UserError: the folder is not empty, or there are too few rows.
        SystemRefused: the folder cannot be written.
    """
    if rows < 2 * days or rows < 50:
        raise UserError(f"{rows} rows are too few for {days} days", "at least 50, and two a day")
    by_day = rows_by_day(rows, days)
    losses = _Losses(split(by_day))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UserError(f"{folder} is not empty", "give a new folder")
        for day, count in enumerate(by_day):
            for chunk in _write_day(folder, day, count, seed):
                losses.add(chunk)
                on_rows(len(chunk.clicks))
        provenance = {
            "version": VERSION,
            "rows": rows,
            "days": days,
            "seed": seed,
            "losses": losses.as_dict(),
        }
        write_atomically(folder / PROVENANCE, json.dumps(provenance, indent=1).encode())
    except OSError as error:
        raise SystemRefused(f"cannot write to {folder}: {error.strerror}") from error
    return provenance


def read_provenance(source: Path) -> dict[str, Any] | None:
    """Return the provenance of synthetic logs, None for other logs."""
    path = (source if source.is_dir() else source.parent) / PROVENANCE
    if not path.exists():
        return None
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}", "synthesize the logs again") from error
    return content


def rows_by_day(rows: int, days: int) -> list[int]:
    """Return the number of rows of each day."""
    return [rows // days + (day < rows % days) for day in range(days)]


def expected_rows(synthetic: Mapping[str, Any] | None) -> tuple[dict[int, int], str]:
    """Return the expected number of rows of each day, and the source of that number as text.

    The source is `synthetic.json` for synthetic logs, and Criteo's publication for others.
    """
    if synthetic is None:
        return dict(enumerate(PUBLISHED_ROWS)), "Criteo has published"
    rows, days = synthetic.get("rows"), synthetic.get("days")
    if not (isinstance(rows, int) and isinstance(days, int)):
        return {}, ""
    return dict(enumerate(rows_by_day(rows, days))), "were synthesized"


def chunks_of(day: int, rows: int, seed: int) -> Iterator[Chunk]:
    """Yield a day's rows in chunks."""
    for number, start in enumerate(range(0, rows, CHUNK)):
        yield draw(np.random.Generator(np.random.SFC64([seed, day, number])), min(CHUNK, rows - start))


def draw(random: np.random.Generator, rows: int) -> Chunk:
    """Draw rows."""
    counts = zipf(random, rows, np.full(DENSE, float(LARGEST)))
    tails = (1 - random.random((rows, CATEGORIES))) ** -0.5  # above k with probability 1/k²
    ranks = np.minimum(tails, VOCABULARIES).astype(np.uint32) - np.uint32(1)
    no_count = random.random((rows, DENSE)) < MISSING_NUMBERS
    no_rank = random.random((rows, CATEGORIES)) < MISSING_CATEGORIES
    features = np.sqrt(12) * (np.log1p(np.where(no_count, 0, counts)) / np.log1p(LARGEST) - 0.5)
    odds = log_odds(features, mix(np.where(no_rank, NOBODY, ranks + OFFSETS)))
    clicks = random.random(rows) < 1 / (1 + np.exp(-odds))
    return Chunk(counts, ranks, no_count, no_rank, odds, clicks)


def lines_of(chunk: Chunk) -> bytes:
    """Return rows as text of a log: write all fields in full width, then remove the void bytes."""
    rows = len(chunk.clicks)
    width = 2 + DENSE * (DIGITS + 1) + CATEGORIES * 9
    letters = np.zeros((rows, width), np.uint8)
    letters[:, 0] = ord("0") + chunk.clicks
    letters[:, 1] = ord("\t")
    numbers = letters[:, 2 : 2 + DENSE * (DIGITS + 1)].reshape(rows, DENSE, DIGITS + 1)
    numbers[:] = _format_decimal(chunk.counts, chunk.no_count)
    tokens = letters[:, 2 + DENSE * (DIGITS + 1) :].reshape(rows, CATEGORIES, 9)
    tokens[:] = _format_hexadecimal(mix(chunk.ranks + OFFSETS), chunk.no_rank)
    return letters.tobytes().translate(None, b"\0")


def _format_decimal(numbers: Integers, missing: NDArray[np.bool_]) -> Letters:
    """Return digits without leading zeros and a tab [N, C, digits + 1]; void is 0."""
    powers = 10 ** np.arange(DIGITS - 1, -1, -1, dtype=np.uint32)
    digits = numbers[:, :, None] // powers
    shown = (digits > 0) | (powers == 1)
    letters = np.where(shown & ~missing[:, :, None], digits % 10 + ord("0"), 0).astype(np.uint8)
    return np.concatenate([letters, np.full((*numbers.shape, 1), ord("\t"), np.uint8)], 2)


def _format_hexadecimal(words: Integers, missing: NDArray[np.bool_]) -> Letters:
    """Return eight digits and a tab, in the last column a newline [N, C, 9]; void is 0."""
    shifts = np.arange(28, -4, -4, dtype=np.uint32)
    letters = np.where(missing[:, :, None], 0, HEXADECIMAL[words[:, :, None] >> shifts & 15]).astype(np.uint8)
    ends = np.full((*words.shape, 1), ord("\t"), np.uint8)
    ends[:, -1] = ord("\n")
    return np.concatenate([letters, ends], 2)


def _write_day(folder: Path, day: int, rows: int, seed: int) -> Iterator[Chunk]:
    """Write a day's file, and yield each chunk of rows after writing it."""
    path = folder / f".day_{day}.tmp"
    with path.open("xb") as file:
        for chunk in chunks_of(day, rows, seed):
            file.write(lines_of(chunk))
            yield chunk
    path.rename(folder / f"day_{day}")


class _Losses:
    """Sums the losses of the true log-odds and the clicks, over the rows of test and validation."""

    def __init__(self, splits: Splits) -> None:
        self._ranges = {"test": splits.test, "validation": splits.validation}
        self._sums = {name: np.zeros(2) for name in self._ranges}
        self._row = 0

    def add(self, chunk: Chunk) -> None:
        """Add the next rows."""
        count = len(chunk.clicks)
        for name, rows in self._ranges.items():
            here = slice(max(rows.start - self._row, 0), max(min(rows.stop - self._row, count), 0))
            odds, clicks = chunk.odds[here], chunk.clicks[here]
            self._sums[name] += np.logaddexp(0, np.where(clicks, -odds, odds)).sum(), clicks.sum()
        self._row += count

    def as_dict(self) -> dict[str, dict[str, float]]:
        """Return mean losses by split."""
        losses = {}
        for name, rows in self._ranges.items():
            planted, rate = self._sums[name] / max(len(rows), 1)
            constant = -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate)) if 0 < rate < 1 else 0.0
            losses[name] = {"planted": float(planted), "constant": float(constant)}
        return losses
