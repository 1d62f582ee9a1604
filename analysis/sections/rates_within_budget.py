"""The learning rates within each budget: mean, median, SD and range, and their course cell by cell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from ..comparison import Comparison, Entry, ReportData
from ..plots.figure import Figure
from ..plots.heatmap import heatmap_axes
from ..plots.rates_over_steps import draw_rates
from ..rates import rate_statistics
from ..reference import Key
from ..statistics import mean
from ..tables import Cell, Table
from ..thesis.compared_statistics import SCALE, Statistic, printed_column
from ..thesis.experiment_kind import is_grid_of_medians
from ..thesis.matching import (
    FULL_STEPS,
    NADAMW,
    RATE_FIGURES,
    SCHEDULE_TIME,
    WHOLE_TIME,
    baseline_item,
    budget_item,
    figure_note,
    thesis_cell,
)
from .base import ReportSection
from .best_and_worst import best_and_worst

TITLE = "Learning rates within a budget"
QUANTITIES = {"mean": "mean", "median": "median", "sd": "SD", "range": "range"}
FIELDS = {"mean": "mean", "median": "median", "sd": "deviation", "range": "spread"}
ITEMS = {
    FULL_STEPS: "exp2_steps.learning_rate",
    SCHEDULE_TIME: "exp2_time.budget_13699.learning_rate",
    WHOLE_TIME: "exp2_time.budget_61624.learning_rate",
}
NOTE = (
    "Of each run, then the mean over seeds; every step weighs the same. Mean and median: over all steps. "
    "SD and range (highest − lowest): from the first accepted median on; where no median of α* sets the "
    "rate, over all steps."
)
WARM_UP = (
    "The thesis' SD of its schedule, 7.70e-5, is that over all steps; without the warm-up it is 7.73e-5."
)
BEST_WORST = "best-worst"
MOST = 6
"""Grids with more values on an axis get no figure for each of them."""


class RatesWithinBudgetSection(ReportSection):
    """The section “Learning rates within a budget”."""

    title = TITLE

    def applies(self, data: ReportData) -> bool:
        """Return whether a policy set learning rates by medians of α*."""
        return any(is_grid_of_medians(run) and run.windows for run in data.experiment.runs)

    def tables(self, data: ReportData) -> list[Table]:
        """Return one table for each budget and clock."""
        return [_rates_table(data, comparison) for comparison in data.on_both_clocks]

    def figures(self, data: ReportData) -> list[Figure]:
        """Return figures of the longest budget of each kind: the best and the worst cell, and each row."""
        longest = {comparison.kind: comparison for comparison in sorted(data.comparisons, key=_budget_value)}
        return [figure for comparison in longest.values() for figure in _rate_figures(data, comparison)]

    def statistics(self, data: ReportData) -> list[Statistic]:
        """Return every statistic that a reference may print."""
        return [
            statistic
            for comparison in data.comparisons
            for entry in comparison.entries
            for statistic in _entry_statistics(data, comparison, entry)
        ]


def _entry_statistics(data: ReportData, comparison: Comparison, entry: Entry) -> Iterator[Statistic]:
    for quantity, value in _mean_rate_statistics(entry).items():
        words = f"{QUANTITIES[quantity]} of the rates, {entry.configuration.label}"
        for key in _reference_keys(data, comparison, entry, quantity):
            yield Statistic(comparison.title, words, value, key=key)


def _budget_value(comparison: Comparison) -> float:
    return comparison.budget.value or 0.0


def _rates_table(data: ReportData, comparison: Comparison) -> Table:
    entries = comparison.entries
    columns: dict[str, list[Cell]] = {"configuration": [entry.configuration.label for entry in entries]}
    columns["steps"] = [_mean_steps(entry) for entry in entries]
    printed = False
    of_entries = [_mean_rate_statistics(entry) for entry in entries]
    for quantity, words in QUANTITIES.items():
        columns[words] = [of_entry[quantity] for of_entry in of_entries]
        keys = [
            _first_printed_key(data, _reference_keys(data, comparison, entry, quantity)) for entry in entries
        ]
        thesis = printed_column(data.reference, words, keys)
        columns |= thesis
        printed = printed or bool(thesis)
    rows = list(zip(*columns.values(), strict=True))
    notes = [NOTE, *([WARM_UP, SCALE] if printed else [])]
    title = f"Learning rates within {comparison.title}"
    return Table.of(f"learning-rates-{comparison.slug}", title, list(columns), rows, notes)


def _first_printed_key(data: ReportData, keys: Sequence[Key]) -> Key | None:
    """Return the first key under which the reference prints anything."""
    return next((key for key in keys if data.reference and data.reference.value(key) is not None), None)


def _mean_steps(entry: Entry) -> int | None:
    return None if entry.steps_reached is None else round(entry.steps_reached.mean)


def _mean_rate_statistics(entry: Entry) -> dict[str, float | None]:
    """Return each statistic of the rates within the steps that the runs reached, as the mean over seeds."""
    of_runs = []
    for run, outcome in zip(entry.configuration.runs, entry.outcomes, strict=True):
        if outcome.steps_reached is not None:
            of_runs.append(rate_statistics(run, outcome.steps_reached))
    defined = [statistics for statistics in of_runs if statistics is not None]
    return {
        quantity: mean(getattr(statistics, field) for statistics in defined)
        for quantity, field in FIELDS.items()
    }


def _reference_keys(data: ReportData, comparison: Comparison, entry: Entry, quantity: str) -> list[Key]:
    """Return where a reference may print a statistic: of the cell or baseline, and of the best or worst."""
    item, cell = ITEMS.get(budget_item(data, comparison) or ""), thesis_cell(data, entry.configuration)
    if item is None:
        return []
    keys = [] if cell is None else [Key(item, quantity, cell)]
    if baseline_item(entry.configuration) == NADAMW:
        keys.append(Key(f"{item}.{NADAMW}", quantity))
    for name, end in zip(("best", "worst"), best_and_worst(comparison) or (), strict=False):
        keys += [Key(f"{item}.{name}", quantity)] if end is entry else []
    return keys


def _rate_figures(data: ReportData, comparison: Comparison) -> list[Figure]:
    """Return best and worst, then all cells of each value of the rows."""
    ends, axes = best_and_worst(comparison), heatmap_axes(data, comparison)
    shown = []
    if ends is not None:
        shown.append(_rate_figure(data, comparison, ends, BEST_WORST, "of the best and the worst cell"))
    if axes is None or max(len(axis.values) for axis in axes) > MOST:
        return shown
    rows, columns = axes
    for value, label in zip(rows.values, rows.labels, strict=True):
        cells = [e for e in comparison.cells if e.configuration.params.get(rows.key) == value]
        cells.sort(key=lambda entry: columns.index(entry.configuration.params.get(columns.key)) or 0)
        name = f"{rows.short}{label}"
        shown.append(_rate_figure(data, comparison, cells, name, f"with {rows.short} {label}"))
    return shown


def _rate_figure(
    data: ReportData, comparison: Comparison, entries: Sequence[Entry], name: str, words: str
) -> Figure:
    marks = [c for c in data.comparisons if c.kind == comparison.kind == "seconds" and c is not comparison]
    dots = "".join(f" A dot marks the step at which {mark.amount} had passed." for mark in marks)
    caption = (
        f"Rates of every step within {comparison.title}, each line to where its budget ended; further seeds "
        f"thin.{dots} Black: the baseline that follows a schedule."
        + figure_note(data, _figure_number(data, comparison, entries, name))
    )
    return Figure(
        f"learning-rates-{comparison.slug}-{name}",
        f"Learning rates {words}",
        caption,
        partial(draw_rates, data, comparison, list(entries), marks),
    )


def _figure_number(
    data: ReportData, comparison: Comparison, entries: Sequence[Entry], name: str
) -> str | None:
    """Return the number of the thesis' figure: of best and worst, or of one interval's cells."""
    numbers = RATE_FIGURES.get(budget_item(data, comparison) or "", {})
    if name == BEST_WORST:
        return numbers.get(name)
    cells = [thesis_cell(data, entry.configuration) for entry in entries]
    intervals = {cell[0] for cell in cells if cell is not None}
    return numbers.get(str(intervals.pop())) if len(intervals) == 1 else None
