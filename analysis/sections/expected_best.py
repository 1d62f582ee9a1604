"""What a search over k of the configurations may expect, and what it costs."""

from __future__ import annotations

from ..comparison import Comparison, Entry, ReportData
from ..durations import duration
from ..statistics import expected_best
from ..tables import Cell, Table, decimals_to_differ, fixed
from .base import ReportSection

TITLE = "Expected best of k configurations"
COLUMNS = ("budget", "searched", "expected best validation loss", "training time of the search")
RAW_COLUMNS = ("budget", "kind", "clock", "searched", "k", "expected_best_validation_loss", "train_seconds")
NOTE = (
    "Expected: the mean over all choices of k configurations, of those with a loss within the budget. "
    "Every seed of a configuration is paid for."
)

SearchRow = tuple[str, int | None, float, float]
"""What was searched, k, the loss, and the train_seconds spent."""


class ExpectedBestSection(ReportSection):
    """The section “Expected best of k configurations”."""

    title = TITLE

    def applies(self, data: ReportData) -> bool:
        """Return whether there is a choice: at least two configurations of the grid with a loss."""
        return any(len(_cells_with_loss(comparison)) > 1 for comparison in data.comparisons)

    def tables(self, data: ReportData) -> list[Table]:
        """Return one table over all budgets."""
        shown: list[tuple[str, ...]] = []
        rows: list[tuple[Cell, ...]] = []
        for comparison in data.on_both_clocks:
            if len(_cells_with_loss(comparison)) < 2:
                continue
            searches = _search_rows(comparison)
            decimals = decimals_to_differ([loss for _, _, loss, _ in searches], at_most=6)
            for name, k, loss, cost in searches:
                shown.append((comparison.title, name, fixed(loss, decimals), duration(cost)))
                rows.append((comparison.budget.label, comparison.kind, comparison.clock, name, k, loss, cost))
        right = (False, False, True, True)
        clock = f"Times are on the {data.clock} clock where no other is named."
        return [Table("search", TITLE, COLUMNS, tuple(shown), RAW_COLUMNS, tuple(rows), right, (NOTE, clock))]


def _search_rows(comparison: Comparison) -> list[SearchRow]:
    """Return k = 1, 2, 5, … of the grid, and each baseline."""
    cells = _cells_with_loss(comparison)
    losses = [entry.best.mean for entry in cells if entry.best is not None]
    mean_cost = sum(_seconds_spent(comparison, entry) for entry in cells) / len(cells)
    lines: list[SearchRow] = [
        (f"{k} of {len(losses)}", k, expected_best(losses, k), k * mean_cost)
        for k in _search_sizes(len(losses))
    ]
    for entry in comparison.baselines:
        if entry.best is not None:
            lines.append(
                (
                    f"{entry.configuration.label} (baseline)",
                    None,
                    entry.best.mean,
                    _seconds_spent(comparison, entry),
                )
            )
    return lines


def _cells_with_loss(comparison: Comparison) -> list[Entry]:
    return [entry for entry in comparison.cells if entry.best is not None]


def _search_sizes(count: int) -> list[int]:
    """Return 1, 2, 5, 10, … and all."""
    steps = [factor * 10**power for power in range(len(str(count))) for factor in (1, 2, 5)]
    return [k for k in steps if k < count] + [count]


def _seconds_spent(comparison: Comparison, entry: Entry) -> float:
    """Return the train_seconds that the runs of `entry` spent within the budget."""
    limits = [(run.curve, comparison.budget.limit(run)) for run in entry.configuration.runs]
    return sum(curve.seconds_within(limit, comparison.kind) for curve, limit in limits if limit is not None)
