"""Draw learning rates over steps, one curve per cell, up to the end of its budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..comparison import Comparison, Entry, ReportData
from ..data import RunData
from ..rates import RateStretch, stretches
from .canvas import BASELINE_COLOURS, COLOURS, label_rates_over_steps, new_canvas, put_legend_beside

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

THIN = 0.35


def draw_rates(
    data: ReportData, comparison: Comparison, entries: Sequence[Entry], marks: Sequence[Comparison]
) -> Canvas:
    """Draw the rates of some cells and of the scheduled baseline; a dot at each budget in `marks`."""
    canvas = new_canvas(9, 4.2)
    axes = canvas.subplots()
    for entry in comparison.baselines:
        if entry.configuration.is_scheduled:
            _draw_rates_of_entry(axes, comparison, entry, [], BASELINE_COLOURS[0], 1.1)
    for place, entry in enumerate(entries):
        _draw_rates_of_entry(axes, comparison, entry, marks, COLOURS[place % len(COLOURS)], 1.7)
    label_rates_over_steps(axes)
    put_legend_beside(axes)
    return canvas


def rate_points(run: RunData, until: float) -> list[tuple[float, float]]:
    """Return the rates as a line: both ends of a stretch of one rate, the middle of one that changes."""
    rate_stretches = stretches(run, until)
    return _first_point(rate_stretches) + [
        point for stretch in rate_stretches for point in _stretch_points(stretch)
    ]


def _first_point(rate_stretches: Sequence[RateStretch]) -> list[tuple[float, float]]:
    """Return where the line begins if its first stretch changes: low if it then rises, else high."""
    if len(rate_stretches) < 2 or rate_stretches[0].constant:
        return []
    rises = rate_stretches[1].mean > rate_stretches[0].mean
    return [(rate_stretches[0].start, rate_stretches[0].low if rises else rate_stretches[0].high)]


def _stretch_points(stretch: RateStretch) -> list[tuple[float, float]]:
    if stretch.constant:
        return [(stretch.start, stretch.mean), (stretch.end, stretch.mean)]
    return [((stretch.start + stretch.end) / 2, stretch.mean)]


def _draw_rates_of_entry(
    axes: Axes, comparison: Comparison, entry: Entry, marks: Sequence[Comparison], colour: str, width: float
) -> None:
    """Draw the first seed under the configuration's name, and the others thin."""
    for place, (run, outcome) in enumerate(zip(entry.configuration.runs, entry.outcomes, strict=True)):
        line = rate_points(run, outcome.steps_reached or 0)
        style: dict[str, Any] = {"color": colour, "linewidth": width if place == 0 else 0.5 * width}
        style |= {"alpha": 1.0 if place == 0 else THIN, "zorder": 3 if place == 0 else 2}
        label = entry.configuration.label if place == 0 else None
        axes.plot([step for step, _ in line], [rate for _, rate in line], label=label, **style)
        for mark in marks if place == 0 else ():
            _mark_rate(axes, line, _steps_reached_at(mark, run), colour)


def _steps_reached_at(mark: Comparison, run: RunData) -> int | None:
    limit = mark.budget.limit(run)
    return None if limit is None else run.curve.steps_reached(limit, mark.kind)


def _mark_rate(axes: Axes, line: Sequence[tuple[float, float]], step: int | None, colour: str) -> None:
    """Mark the rate at a step, unless the line does not reach it."""
    if step is None or not line or step > line[-1][0]:
        return
    rate = next(rate for point_step, rate in line if point_step >= step)
    axes.plot([step], [rate], "o", markersize=7, color=colour, markeredgecolor="black", zorder=5)
