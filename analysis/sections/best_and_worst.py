"""The best and the worst cell of the grid within each budget, and their differences to the baselines."""

from __future__ import annotations

from collections.abc import Iterator

from ..comparison import Comparison, Entry, ReportData
from ..dispersion import difference
from ..reference import Key
from ..statistics import MeanAndSD
from ..tables import Table
from ..thesis.compared_statistics import Statistic, as_whole_number, statistics_table
from ..thesis.matching import baseline_item, budget_item
from .base import ReportSection

TITLE = "Best and worst of the grid"
NOTE = (
    "Validation losses are means over n seeds. The best of several configurations is lower than a fair one "
    "of them would be (see the expected best of k); differences are of means, with no claim beyond them."
)
PRINT = (
    "Evaluations at a run's stop are left out beside the thesis, which made none there (`--reference none` "
    "keeps them)."
)


class BestAndWorstSection(ReportSection):
    """The section “Best and worst of the grid”."""

    title = TITLE

    def applies(self, data: ReportData) -> bool:
        """Return whether there is a best and a worst: two cells of one workload with a loss."""
        workloads = {str(run.config_section("workload").get("name")) for run in data.experiment.runs}
        return len(workloads) < 2 and bool(_comparisons_with_best_and_worst(data))

    def tables(self, data: ReportData) -> list[Table]:
        """Return one table over all budgets."""
        notes = [NOTE, *([PRINT] if data.reference is not None else [])]
        return [statistics_table("best-and-worst", TITLE, self.statistics(data), data.reference, notes)]

    def statistics(self, data: ReportData) -> list[Statistic]:
        """Return losses, their differences, and the most and the fewest steps, by budget and clock."""
        comparisons = _comparisons_with_best_and_worst(data)
        return [statistic for budget in comparisons for statistic in _budget_statistics(data, budget)]


def best_and_worst(comparison: Comparison) -> tuple[Entry, Entry] | None:
    """Return the cells with the lowest and the highest mean loss; None for fewer than two with a loss."""
    with_loss = [entry for entry in comparison.ranked if entry.best and entry.configuration.baseline is None]
    return (with_loss[0], with_loss[-1]) if len(with_loss) > 1 else None


def _comparisons_with_best_and_worst(data: ReportData) -> list[Comparison]:
    """Return the budgets, on each clock, with a best and a worst cell, and those of the reference."""
    return [
        comparison
        for comparison in data.on_both_clocks
        if best_and_worst(comparison) or (data.reference is not None and budget_item(data, comparison))
    ]


def _budget_statistics(data: ReportData, comparison: Comparison) -> Iterator[Statistic]:
    item, ends = budget_item(data, comparison) or "", best_and_worst(comparison)
    best, worst = ends or (None, None)
    grid = f"{item}.grid"
    unit = "s" if comparison.kind == "seconds" else "steps"
    yield Statistic(
        comparison.title, f"budget ({unit})", comparison.budget.value or None, key=Key(item, "budget")
    )
    yield _loss_statistic(comparison, "best cell", best, Key(grid, "best_validation_loss"))
    yield _loss_statistic(comparison, "worst cell", worst, Key(grid, "worst_validation_loss"))
    gap = difference(_mean_best_loss(worst), _mean_best_loss(best))
    yield Statistic(comparison.title, "worst − best", gap, key=Key(grid, "worst_minus_best_validation_loss"))
    for entry in comparison.baselines:
        name, printed_name = entry.configuration.label, baseline_item(entry.configuration)
        yield _loss_statistic(
            comparison, name, entry, Key(f"{item}.{printed_name}", "best_validation_loss"), ""
        )
        gap = difference(_mean_best_loss(best), _mean_best_loss(entry))
        yield Statistic(
            comparison.title, f"best cell − {name}", gap, key=Key(grid, f"difference_to_{printed_name}")
        )
    if comparison.kind == "seconds":
        yield from _steps_statistics(comparison, grid)


def _steps_statistics(comparison: Comparison, grid: str) -> Iterator[Statistic]:
    """Yield the most and the fewest steps of a cell within a budget of time.

    At 61,624 s the thesis names 16,025 (1000, 50) as the fewest; its table C.2 has 14,031 (2000, 50).
    """
    with_steps = [(e.steps_reached.mean, e) for e in comparison.cells if e.steps_reached is not None]
    ordered = sorted(with_steps, key=lambda pair: pair[0])
    for words, quantity, pairs in (
        ("most steps", "steps_reached_highest", ordered[-1:]),
        ("fewest steps", "steps_reached_lowest", ordered[:1]),
    ):
        steps, where = (pairs[0][0], pairs[0][1].configuration.label) if pairs else (None, "")
        yield Statistic(comparison.title, words, as_whole_number(steps), where=where, key=Key(grid, quantity))


def _loss_statistic(
    comparison: Comparison, words: str, entry: Entry | None, key: Key, where: str | None = None
) -> Statistic:
    best: MeanAndSD | None = None if entry is None else entry.best
    label = "" if entry is None else entry.configuration.label
    value, n = (None, None) if best is None else (best.mean, best.n)
    return Statistic(comparison.title, words, value, n, label if where is None else where, key)


def _mean_best_loss(entry: Entry | None) -> float | None:
    return None if entry is None or entry.best is None else entry.best.mean
