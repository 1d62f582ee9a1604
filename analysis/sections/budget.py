"""Best validation loss within each budget: the table, and the heatmap with the baselines."""

from __future__ import annotations

from functools import partial

from ..comparison import Comparison, Entry, ReportData
from ..durations import duration
from ..plots.figure import Figure
from ..plots.heatmap import draw_heatmap, heatmap_axes
from ..plots.loss_ranking import draw_loss_ranking
from ..statistics import MeanAndSD, mean_of
from ..tables import Cell, Table, decimals_to_differ, fixed, show
from ..thesis.matching import FIGURES, budget_item, figure_note
from .base import ReportSection

TITLE = "Best loss within a budget"
ONE_SEED = "One seed each: the order is what these runs gave and claims no ranking."
UNREACHED = "The baseline has not reached the end of its schedule yet."
INCOMPLETE = "Incomplete: the run has neither reached the budget nor finished; its best may still improve."
NORMALISED = (
    "Normalised clock: the same runs on a common machine, from the medians of what plain steps, α* steps and "
    "waiting for data cost over all comparable runs."
)
STOPPED_EARLY = (
    "Some runs were stopped by measured time, before this budget was spent on the normalised clock: they "
    "could still have improved there."
)
WITHOUT_WAIT = (
    "Clock without data wait: as measured, but for the time that steps waited for their data. Runs that were "
    "stopped by measured time end earlier on it."
)
NEARLY = 0.99
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
    "clock",
    "other_clock",
    "value_on_other_clock",
    "best_validation_loss_on_other_clock",
    "steps_reached_on_other_clock",
)


class BudgetSection(ReportSection):
    """The section “Best loss within a budget”."""

    title = TITLE

    def applies(self, data: ReportData) -> bool:
        """Return whether there is a run."""
        return bool(data.experiment.runs)

    def tables(self, data: ReportData) -> list[Table]:
        """Return one table for each budget: configurations by their best loss."""
        return [_budget_table(data, comparison) for comparison in data.comparisons]

    def figures(self, data: ReportData) -> list[Figure]:
        """Return one figure for each budget within which anything was reached."""
        return [
            _budget_figure(data, comparison)
            for comparison in data.comparisons
            if any(e.best for e in comparison.entries)
        ]


def _budget_table(data: ReportData, comparison: Comparison) -> Table:
    places = _ranked_places(comparison)
    decimals = decimals_to_differ(
        [value for place in places for value in _losses_on_clock(comparison, place)]
    )
    columns = _column_names(comparison)
    return Table(
        name=f"budget-{comparison.slug}",
        title=f"Best validation loss within {comparison.title}",
        columns=columns,
        shown=tuple(_shown_row(comparison, place, decimals) for place in places),
        raw_columns=RAW_COLUMNS,
        rows=tuple(_raw_row(comparison, place) for place in places),
        right=(False, *(True for _ in columns[2:]), False),
        notes=tuple(_table_notes(data, comparison)),
    )


def _ranked_places(comparison: Comparison) -> list[int]:
    """Return the places of the entries in the order of their loss."""
    place = {id(entry): index for index, entry in enumerate(comparison.entries)}
    return [place[id(entry)] for entry in comparison.ranked]


def _column_names(comparison: Comparison) -> tuple[str, ...]:
    other = comparison.on_other_clock
    return (
        "configuration",
        "best validation loss",
        *(() if other is None else (f"… on the {other.clock} clock",)),
        "test loss at best",
        "at step",
        f"at {comparison.clock} time",
        "steps reached",
        *(() if other is None else (f"… on the {other.clock} clock",)),
        "share done",
        "notes",
    )


def _losses_on_clock(comparison: Comparison, place: int) -> list[float]:
    entry, other = comparison.entries[place], _entry_on_other_clock(comparison, place)
    losses = [entry.best, entry.test, None if other is None else other.best]
    return [summary.mean for summary in losses if summary is not None]


def _entry_on_other_clock(comparison: Comparison, place: int) -> Entry | None:
    """Return the same configuration on the other clock."""
    return None if comparison.on_other_clock is None else comparison.on_other_clock.entries[place]


def _shown_row(comparison: Comparison, place: int, decimals: int) -> tuple[str, ...]:
    entry, other = comparison.entries[place], _entry_on_other_clock(comparison, place)
    mark = "" if entry.configuration.baseline is None else " (baseline)"
    share = entry.share_done
    return (
        f"{entry.configuration.label}{mark}",
        loss_text(entry.best, decimals),
        *(() if other is None else (loss_text(other.best, decimals),)),
        loss_text(entry.test, decimals),
        _whole_text(entry.step_at_best),
        "–" if entry.seconds_at_best is None else duration(entry.seconds_at_best.mean),
        _whole_text(entry.steps_reached),
        *(() if other is None else (_whole_text(other.steps_reached),)),
        "–" if share is None else f"{100 * share:.0f} %",
        ", ".join(entry.notes),
    )


def loss_text(loss: MeanAndSD | None, decimals: int) -> str:
    """Return `mean`, or `mean ± SD (n)` over several seeds."""
    if loss is None:
        return "–"
    mean = fixed(loss.mean, decimals)
    if loss.deviation is None:
        return mean
    return f"{mean} ± {fixed(loss.deviation, decimals, loss.mean)} ({loss.n})"


def _whole_text(summary: MeanAndSD | None) -> str:
    return "–" if summary is None else show(round(summary.mean))


def _raw_row(comparison: Comparison, place: int) -> tuple[Cell, ...]:
    entry, other = comparison.entries[place], _entry_on_other_clock(comparison, place)
    on_other_clock = comparison.on_other_clock
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
        mean_of(entry.step_at_best),
        mean_of(entry.seconds_at_best),
        mean_of(entry.steps_reached),
        entry.share_done,
        int(entry.complete),
        int(entry.diverged),
        comparison.clock,
        None if on_other_clock is None else on_other_clock.clock,
        None if on_other_clock is None else on_other_clock.budget.value,
        None if other is None else mean_of(other.best),
        None if other is None else mean_of(other.steps_reached),
    )


def _mean_deviation(summary: MeanAndSD | None) -> tuple[float | None, float | None]:
    return (None, None) if summary is None else (summary.mean, summary.deviation)


def _table_notes(data: ReportData, comparison: Comparison) -> list[str]:
    several = data.most_seeds > 1
    late = (
        comparison.kind == "seconds"
        and "normalised" in _clock_names(comparison)
        and _stopped_early(comparison)
    )
    notes = [
        (UNREACHED, comparison.budget.value is None and "until:" in comparison.budget.label),
        (ONE_SEED, not several and len(comparison.entries) > 1),
        ("Mean ± SD (n) over seeds.", several),
        (INCOMPLETE, any(not entry.complete for entry in comparison.entries)),
        (_clock_note(comparison, NORMALISED), "normalised" in _clock_names(comparison)),
        (_clock_note(comparison, WITHOUT_WAIT), "without-data-wait" in _clock_names(comparison)),
        (STOPPED_EARLY, late),
    ]
    return [text for text, applies in notes if applies]


def _clock_names(comparison: Comparison) -> list[str]:
    """Return the clocks of a table of time."""
    comparisons = (comparison, comparison.on_other_clock)
    return [on_clock.clock for on_clock in comparisons if on_clock is not None]


def _clock_note(comparison: Comparison, explained: str) -> str:
    """Return the explanation of a clock, with the budget on the other clock where it differs."""
    other = comparison.on_other_clock
    if other is None or other.budget.value in (comparison.budget.value, None):
        return explained
    return f"{explained} On the {other.clock} clock the budget is {other.amount}."


def _stopped_early(comparison: Comparison) -> bool:
    """Return whether a stop by measured time ended a run before the budget on the normalised clock."""
    within = comparison if comparison.clock == "normalised" else comparison.on_other_clock
    if within is None:
        return False
    for run in within.runs:
        limit = within.budget.limit(run)
        stopped = run.finished and run.stop.get("train_seconds")
        if limit is not None and stopped and run.curve.train_seconds < NEARLY * limit:
            return True
    return False


def _budget_figure(data: ReportData, comparison: Comparison) -> Figure:
    axes = heatmap_axes(data, comparison)
    draw = partial(draw_heatmap, comparison, *axes) if axes else partial(draw_loss_ranking, comparison)
    return Figure(
        name=f"budget-{comparison.slug}",
        title=f"Best validation loss within {comparison.title}",
        caption="Least validation loss over the evaluations within the budget. The lower the better."
        + figure_note(data, FIGURES.get(budget_item(data, comparison) or "")),
        draw=draw,
    )
