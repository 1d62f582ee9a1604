"""What each method costs until it has a result, every run of the search for its settings included."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from ...store.queries import EvaluationRow
from ..comparison import ReportData
from ..dispersion import ratio
from ..durations import duration, time_unit
from ..plots.canvas import COLOURS, DASHES, format_plain_log, new_canvas, put_legend_beside
from ..plots.figure import Figure
from ..search_cost import Search, SearchComparison, search_comparisons
from ..statistics import MeanAndSD, deviation_of, mean_of
from ..tables import Cell, Table, decimals_to_differ, fixed
from .base import ReportSection
from .budget import loss_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

TITLE = "Time to result, with the search for settings"
TIMES = ("time of all runs", "time to the target, with the search", "in the reference's")
COLUMNS = (
    "workload",
    "method",
    "searched",
    "result (best validation loss)",
    "seeds that reach the target",
    *TIMES,
)
RAW_COLUMNS = (
    "workload",
    "method",
    "searched",
    "result",
    "result_sd",
    "seeds",
    "seconds_of_all_runs",
    "target",
    "seeds_that_reach_it",
    "seconds_to_target",
    "seconds_to_target_sd",
    "in_the_references",
    "reference",
)
RAW_BESIDE = (
    "other_clock",
    "seconds_of_all_runs_on_it",
    "seconds_to_target_on_it",
    "in_the_references_on_it",
)
METHOD = (
    "A method's search: all of its configurations, each trained to its end with one and the same seed; the "
    "winner is the one with the lowest loss. Time to the target: of all the others, and of the winner until "
    "an evaluation is at or below the target; mean over the seeds that get there."
)
POINTS = "o", "s", "^", "D", "v", "P", "X"


class TimeToResultSection(ReportSection):
    """The section “Time to result, with the search for settings”."""

    title = TITLE

    def applies(self, data: ReportData) -> bool:
        """Return whether a schedule and another method ran, one of them with several configurations."""
        return bool(search_comparisons(data.configurations))

    def tables(self, data: ReportData) -> list[Table]:
        """Return one row for each method, the soonest at the target first."""
        comparisons = search_comparisons(data.configurations)
        ranked = [
            (comparison, search) for comparison in comparisons for search in _ranked_searches(comparison)
        ]
        decimals = decimals_to_differ([s.result.mean for _, s in ranked if s.result is not None], at_most=6)
        shown = [_shown_row(comparison, search, decimals) for comparison, search in ranked]
        rows = [_raw_row(comparison, search) for comparison, search in ranked]
        columns: tuple[str, ...] = COLUMNS
        raw_columns: tuple[str, ...] = RAW_COLUMNS
        if data.on_other_clock is not None:
            on_other_clock = _searches_by_name(search_comparisons(data.on_other_clock))
            pairs = [on_other_clock[comparison.workload, search.name] for comparison, search in ranked]
            shown = [(*row, *_shown_times(*pair)) for row, pair in zip(shown, pairs, strict=True)]
            rows = [
                (*row, data.other_clock, *_search_times(*pair)) for row, pair in zip(rows, pairs, strict=True)
            ]
            columns = (*COLUMNS, *(f"{name}, {data.other_clock} clock" for name in TIMES))
            raw_columns = (*RAW_COLUMNS, *RAW_BESIDE)
        right = (False, False, *(True for _ in columns[2:]))
        notes = (
            METHOD,
            *map(_target_note, comparisons),
            f"Times are on the {data.clock} clock where no other is named.",
        )
        return [Table("time-to-result", TITLE, columns, tuple(shown), raw_columns, tuple(rows), right, notes)]

    def figures(self, data: ReportData) -> list[Figure]:
        """Return loss against the time paid for it, a panel for each workload."""
        caption = (
            "Marks: what a search over 1, 2, … of a method's configurations may expect, at the time of so "
            "many runs (means over all choices and over seeds), from where no choice has diverged runs "
            "alone. Lines without marks: a method with nothing to choose, "
            "its best loss so far (mean over seeds). Dotted: the target, the worst seed's result of the "
            "searched schedule. "
            f"Times are on the {data.clock} clock."
        )
        return [
            Figure(
                "time-to-result",
                TITLE,
                caption,
                partial(_draw_comparisons, search_comparisons(data.configurations)),
            )
        ]


def _ranked_searches(comparison: SearchComparison) -> list[Search]:
    def seconds(search: Search) -> float:
        summary = search.seconds_to(comparison.target)
        return math.inf if summary is None else summary.mean

    return sorted(comparison.searches, key=seconds)


def _ratio_to_reference(comparison: SearchComparison, search: Search) -> float | None:
    seconds = mean_of(search.seconds_to(comparison.target))
    return ratio(seconds, mean_of(comparison.reference.seconds_to(comparison.target)))


def _shown_row(comparison: SearchComparison, search: Search, decimals: int) -> tuple[str, ...]:
    reached = search.seconds_to(comparison.target)
    reference = " (reference)" if search is comparison.reference else ""
    return (
        comparison.workload,
        f"{search.name}{reference}",
        str(search.k),
        loss_text(search.result, decimals),
        f"{0 if reached is None else reached.n} of {len(search.seeds)}",
        *_shown_times(comparison, search),
    )


def _shown_times(comparison: SearchComparison, search: Search) -> tuple[str, str, str]:
    reached, factor = search.seconds_to(comparison.target), _ratio_to_reference(comparison, search)
    return duration(mean_of(search.seconds)), _time_text(reached), "–" if factor is None else f"{factor:.3g}"


def _search_times(comparison: SearchComparison, search: Search) -> tuple[Cell, Cell, Cell]:
    return (
        mean_of(search.seconds),
        mean_of(search.seconds_to(comparison.target)),
        _ratio_to_reference(comparison, search),
    )


def _searches_by_name(
    comparisons: Iterable[SearchComparison],
) -> dict[tuple[str, str], tuple[SearchComparison, Search]]:
    return {
        (comparison.workload, search.name): (comparison, search)
        for comparison in comparisons
        for search in comparison.searches
    }


def _time_text(reached: MeanAndSD | None) -> str:
    if reached is None or reached.deviation is None:
        return duration(mean_of(reached))
    return f"{duration(reached.mean)} ± {duration(reached.deviation)} ({reached.n})"


def _raw_row(comparison: SearchComparison, search: Search) -> tuple[Cell, ...]:
    reached, result = search.seconds_to(comparison.target), search.result
    return (
        comparison.workload,
        search.name,
        search.k,
        mean_of(result),
        deviation_of(result),
        len(search.seeds),
        mean_of(search.seconds),
        comparison.target,
        0 if reached is None else reached.n,
        mean_of(reached),
        deviation_of(reached),
        _ratio_to_reference(comparison, search),
        comparison.reference.name,
    )


def _target_note(comparison: SearchComparison) -> str:
    reference = comparison.reference
    return (
        f"{comparison.workload}: the target is {fixed(comparison.target, 6)}, the highest result over the "
        f"{len(reference.seeds)} seeds of the search over {reference.k} configurations of {reference.name}."
    )


def _draw_comparisons(comparisons: list[SearchComparison]) -> Canvas:
    canvas = new_canvas(8.8, 3.8 * len(comparisons))
    for axes, comparison in zip(
        canvas.subplots(len(comparisons), 1, squeeze=False)[:, 0], comparisons, strict=True
    ):
        _draw_panel(axes, comparison)
    return canvas


def _draw_panel(axes: Axes, comparison: SearchComparison) -> None:
    longest = max(search.expected(search.k)[0] for search in comparison.searches)
    unit, name = time_unit(longest)
    for place, search in enumerate(comparison.searches):
        points = list(_search_points(search))
        axes.plot(
            [seconds / unit for seconds, _ in points],
            [loss for _, loss in points],
            marker=POINTS[place % len(POINTS)] if search.k > 1 else None,
            linestyle=DASHES[place // len(COLOURS) % len(DASHES)],
            color=COLOURS[place % len(COLOURS)],
            markersize=5,
            label=f"{search.name} ({search.k})" if search.k > 1 else search.name,
        )
    axes.axhline(comparison.target, linestyle=":", color="#444444", linewidth=1.1, label="target")
    axes.set_xscale("log")
    _set_limits(axes, comparison, unit)
    format_plain_log(axes.xaxis)
    axes.set_title(comparison.workload)
    axes.set_xlabel(f"training time of all runs [{name}] (logarithmic)")
    axes.set_ylabel("best validation loss")
    put_legend_beside(axes)


def _set_limits(axes: Axes, comparison: SearchComparison, unit: float) -> None:
    """Set limits that show the results, and the range above them."""
    results = [search.result.mean for search in comparison.searches if search.result is not None]
    low = min(results)
    room = max(max(results), comparison.target) - low or abs(low) * 0.1
    top = low + 2.2 * room
    shown = [s / unit for search in comparison.searches for s, loss in _search_points(search) if loss <= top]
    axes.set_ylim(low - 0.15 * room, top)
    axes.set_xlim(min(shown) / 1.15, max(shown) * 1.15)


def _search_points(search: Search) -> Iterator[tuple[float, float]]:
    """Yield (seconds, loss): of searches over more and more configurations, or of the one there is."""
    if search.k > 1:
        yield from (search.expected(k) for k in range(1, search.k + 1))
        return
    so_far = [_best_so_far(seed.runs[0].curve.evaluations) for seed in search.seeds]
    for points in zip(*so_far, strict=False):
        seconds, losses = (math.fsum(part) / len(points) for part in zip(*points, strict=True))
        yield seconds, losses


def _best_so_far(evaluations: Iterable[EvaluationRow]) -> Iterator[tuple[float, float]]:
    best = math.inf
    for row in evaluations:
        loss = row.losses.get("validation", math.nan)
        best = min(best, loss) if math.isfinite(loss) else best
        if math.isfinite(best) and row.train_seconds > 0:
            yield row.train_seconds, best
