"""Best validation loss within each budget: the table, and the heatmap beside the baselines."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ..comparison import Comparison, Entry, ReportData
from ..dots import draw_dots
from ..figures import Figure, duration
from ..heatmap import draw_heatmap, heatmap_axes
from ..statistics import Summary
from ..tables import Cell, Table, decimals_to_differ, fixed, show

TITLE = "Best loss within a budget"
ONE_SEED = "One seed each: the order is what these runs gave and claims no ranking."
COLUMNS = (
    "configuration",
    "best validation loss",
    "test loss at best",
    "at step",
    "at time",
    "steps reached",
    "share done",
    "notes",
)
RAW_COLUMNS = (
    "budget",
    "kind",
    "value",
    "configuration",
    "baseline",
    "seeds",
    "best_validation_loss",
    "best_validation_loss_sd",
    "n",
    "test_loss_at_best",
    "test_loss_at_best_sd",
    "step_at_best",
    "train_seconds_at_best",
    "steps_reached",
    "share_done",
    "complete",
    "diverged",
)


def applies(data: ReportData) -> bool:
    """Tell whether there is a run."""
    return bool(data.experiment.runs)


def tables(data: ReportData) -> list[Table]:
    """Return one table for each budget: configurations by their best loss."""
    return [_table(data, comparison) for comparison in data.comparisons]


def figures(data: ReportData) -> list[Figure]:
    """Return one figure for each budget within which anything was reached."""
    return [
        _figure(data, comparison)
        for comparison in data.comparisons
        if any(e.best for e in comparison.entries)
    ]


def _table(data: ReportData, comparison: Comparison) -> Table:
    ranked = comparison.ranked
    decimals = decimals_to_differ([value for entry in ranked for value in _losses(entry)])
    return Table(
        name=f"budget-{comparison.slug}",
        title=f"Best validation loss within {comparison.title}",
        columns=COLUMNS,
        shown=tuple(_shown(entry, decimals) for entry in ranked),
        raw_columns=RAW_COLUMNS,
        rows=tuple(_raw(comparison, entry) for entry in ranked),
        right=(False, True, True, True, True, True, True, False),
        notes=tuple(_notes(data, comparison)),
    )


def _losses(entry: Entry) -> list[float]:
    return [summary.mean for summary in (entry.best, entry.test) if summary is not None]


def _shown(entry: Entry, decimals: int) -> tuple[str, ...]:
    mark = "" if entry.configuration.baseline is None else " (baseline)"
    share = entry.share_done
    return (
        f"{entry.configuration.label}{mark}",
        loss_text(entry.best, decimals),
        loss_text(entry.test, decimals),
        _whole(entry.step_at_best),
        "–" if entry.seconds_at_best is None else duration(entry.seconds_at_best.mean),
        _whole(entry.steps_reached),
        "–" if share is None else f"{100 * share:.0f} %",
        ", ".join(entry.notes),
    )


def loss_text(loss: Summary | None, decimals: int) -> str:
    """Return `mean`, or `mean ± SD (n)` over several seeds."""
    if loss is None:
        return "–"
    mean = fixed(loss.mean, decimals)
    return (
        mean
        if loss.deviation is None
        else f"{mean} ± {fixed(loss.deviation, decimals, loss.mean)} ({loss.n})"
    )


def _whole(summary: Summary | None) -> str:
    return "–" if summary is None else show(round(summary.mean))


def _raw(comparison: Comparison, entry: Entry) -> tuple[Cell, ...]:
    return (
        comparison.budget.label,
        comparison.kind,
        comparison.budget.value,
        entry.configuration.label,
        entry.configuration.baseline,
        len(entry.outcomes),
        *_mean_deviation(entry.best),
        entry.best.n if entry.best else 0,
        *_mean_deviation(entry.test),
        _mean(entry.step_at_best),
        _mean(entry.seconds_at_best),
        _mean(entry.steps_reached),
        entry.share_done,
        int(entry.complete),
        int(entry.diverged),
    )


def _mean(summary: Summary | None) -> float | None:
    return None if summary is None else summary.mean


def _mean_deviation(summary: Summary | None) -> tuple[float | None, float | None]:
    return (None, None) if summary is None else (summary.mean, summary.deviation)


def _notes(data: ReportData, comparison: Comparison) -> Sequence[str]:
    notes = []
    if comparison.budget.value is None and comparison.budget.label.find("until:") >= 0:
        notes.append("The baseline has not reached the end of its schedule yet.")
    if data.most_seeds == 1 and len(comparison.entries) > 1:
        notes.append(ONE_SEED)
    if data.most_seeds > 1:
        notes.append("Mean ± SD (n) over seeds.")
    if any(not entry.complete for entry in comparison.entries):
        notes.append(
            "Incomplete: the run has neither reached the budget nor finished; its best may still improve."
        )
    return notes


def _figure(data: ReportData, comparison: Comparison) -> Figure:
    axes = heatmap_axes(data, comparison)
    draw = partial(draw_heatmap, comparison, *axes) if axes else partial(draw_dots, comparison)
    return Figure(
        name=f"budget-{comparison.slug}",
        title=f"Best validation loss within {comparison.title}",
        caption="Least validation loss over the evaluations within the budget. The lower the better.",
        draw=draw,
    )
