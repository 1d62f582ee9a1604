"""How the best loss goes with the axes of the grid and with the steps that were reached."""

from __future__ import annotations

from collections.abc import Iterator

from ..comparison import Comparison, Entry, ReportData
from ..figures import Figure
from ..statistics import pearson
from ..tables import Cell, Table, significant

TITLE = "Correlations with the best loss"
COLUMNS = ("budget", "with", "r", "p", "n")
NOTE = (
    "Pearson's r between the best validation loss and each quantity; n cells (means over seeds), without the "
    "baselines; p two-sided, not corrected for looking several times."
)


def applies(data: ReportData) -> bool:
    """Tell whether there are three cells with a loss, and something that varies."""
    return bool(_rows(data))


def tables(data: ReportData) -> list[Table]:
    """Return one table over all budgets."""
    rows = _rows(data)
    shown = tuple((str(b), str(w), f"{r:+.3f}", significant(p, 2), str(n)) for b, w, r, p, n in rows)
    right = (False, False, True, True, True)
    return [Table("correlations", TITLE, COLUMNS, shown, COLUMNS, tuple(rows), right, (NOTE,))]


def figures(data: ReportData) -> list[Figure]:
    """Return none."""
    return []


def _rows(data: ReportData) -> list[tuple[str, str, float, float, int]]:
    rows = []
    for comparison in data.comparisons:
        for name, pairs in _quantities(data, comparison):
            found = pearson([x for x, _ in pairs], [y for _, y in pairs])
            if found is not None:
                rows.append((comparison.title, name, found.r, found.p, found.n))
    return rows


def _quantities(data: ReportData, comparison: Comparison) -> Iterator[tuple[str, list[tuple[float, float]]]]:
    """Yield each quantity with its pairs (value, best loss)."""
    cells = [entry for entry in comparison.cells if entry.best is not None]
    for axis in data.axes:
        if axis.numeric:
            yield (
                axis.key,
                [pair for entry in cells for pair in _pair(entry, entry.configuration.params.get(axis.key))],
            )
    reached = [(entry, entry.steps_reached.mean if entry.steps_reached else None) for entry in cells]
    yield "steps reached", [pair for entry, steps in reached for pair in _pair(entry, steps)]


def _pair(entry: Entry, value: Cell) -> list[tuple[float, float]]:
    if entry.best is None or value is None:
        return []
    return [(float(value), entry.best.mean)]
