"""How the best loss goes with the axes of the grid and with the steps that were reached."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..comparison import Comparison, Entry, ReportData
from ..reference import Key
from ..statistics import mean_of, pearson
from ..tables import Cell, Table, significant
from ..thesis.compared_statistics import Statistic, printed_column
from ..thesis.matching import budget_item
from .base import ReportSection

TITLE = "Correlations with the best loss"
COLUMNS = ("budget", "with", "r", "p", "n")
NOTE = (
    "Pearson's r between the best validation loss and each quantity; n cells (means over seeds), without the "
    "baselines; p two-sided, not corrected for looking several times."
)
STEPS = "steps reached"
PRINTED_AS = {"alpha.interval": "interval", "alpha.count": "count", STEPS: "steps"}


@dataclass(frozen=True)
class _Row:
    comparison: Comparison
    name: str
    r: float
    p: float
    n: int
    item: str

    def key(self, quantity: str) -> Key:
        return Key(self.item, quantity)


class CorrelationsSection(ReportSection):
    """The section “Correlations with the best loss”."""

    title = TITLE

    def applies(self, data: ReportData) -> bool:
        """Return whether there are three cells with a loss, and something that varies."""
        return bool(_correlation_rows(data))

    def tables(self, data: ReportData) -> list[Table]:
        """Return one table over all budgets and clocks; with a reference, also its r and p."""
        rows = _correlation_rows(data)
        rs, ps = (
            printed_column(data.reference, name, [row.key(quantity) for row in rows])
            for name, quantity in (("r", "pearson_r"), ("p", "p"))
        )
        columns = (*COLUMNS, *rs, *ps)
        raw = tuple(
            (row.comparison.title, row.name, row.r, row.p, row.n, *printed)
            for row, *printed in zip(rows, *rs.values(), *ps.values(), strict=True)
        )
        texts: list[Callable[[Cell], str]] = [str, str, _signed_text, _p_text, str]
        texts += [*(_signed_text for _ in rs), *(_p_text for _ in ps)]
        shown = tuple(tuple(text(cell) for text, cell in zip(texts, row, strict=True)) for row in raw)
        right = (False, False, *(True for _ in columns[2:]))
        return [Table("correlations", TITLE, columns, shown, columns, raw, right, (NOTE,))]

    def statistics(self, data: ReportData) -> list[Statistic]:
        """Return every r and p."""
        return [
            Statistic(row.comparison.title, f"{name} with {row.name}", value, row.n, key=row.key(quantity))
            for row in _correlation_rows(data)
            for name, quantity, value in (("r", "pearson_r", row.r), ("p", "p", row.p))
        ]


def _correlation_rows(data: ReportData) -> list[_Row]:
    rows = []
    for comparison in data.on_both_clocks:
        item = budget_item(data, comparison) or ""
        for name, pairs in _quantity_pairs(data, comparison):
            correlation = pearson([x for x, _ in pairs], [y for _, y in pairs])
            if correlation is not None:
                printed_as = f"{item}.{PRINTED_AS.get(name, name)}_vs_loss"
                rows.append(_Row(comparison, name, correlation.r, correlation.p, correlation.n, printed_as))
    return rows


def _quantity_pairs(
    data: ReportData, comparison: Comparison
) -> Iterator[tuple[str, list[tuple[float, float]]]]:
    """Yield each quantity with its pairs (value, best loss)."""
    cells = [entry for entry in comparison.cells if entry.best is not None]
    for axis in data.axes:
        if axis.numeric:
            yield (
                axis.key,
                [
                    pair
                    for entry in cells
                    for pair in _value_and_loss(entry, entry.configuration.params.get(axis.key))
                ],
            )
    reached = [(entry, mean_of(entry.steps_reached)) for entry in cells]
    yield STEPS, [pair for entry, steps in reached for pair in _value_and_loss(entry, steps)]


def _value_and_loss(entry: Entry, value: Cell) -> list[tuple[float, float]]:
    if entry.best is None or value is None:
        return []
    return [(float(value), entry.best.mean)]


def _signed_text(value: Cell) -> str:
    return f"{value:+.3f}" if isinstance(value, float) else "–"


def _p_text(value: Cell) -> str:
    return significant(value, 2) if isinstance(value, float) else "–"
