"""Where the time of a step goes, and what an α* step costs beside a plain one."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ..comparison import ReportData
from ..configurations import Configuration
from ..figures import COLOURS, Figure, legend_beside, new_canvas
from ..tables import Cell, Table
from ..timings import CLOCK, OUTSIDE, Timing, timing

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

TITLE = "Step timings"
COLUMNS = ("configuration", *(f"{name} (ms/step)" for name in (*CLOCK, *OUTSIDE)), "plain step (ms)")
ALPHA_COLUMNS = ("one α* (ms)", "α* step / plain step")
NAMES = {"forward_backward": "forward and backward", "alpha": "α*"}
MOST = 40
"""So many configurations are drawn."""


def applies(data: ReportData) -> bool:
    """Tell whether any window with steps was recorded."""
    return bool(_timings(data))


def tables(data: ReportData) -> list[Table]:
    """Return the milliseconds per step of each configuration, seeds pooled."""
    found = _timings(data)
    measured = any(costs.alpha is not None for _, costs in found)
    columns = COLUMNS + ALPHA_COLUMNS if measured else COLUMNS
    rows = [_row(configuration, costs)[: len(columns)] for configuration, costs in found]
    notes = ["Diagnostics, evaluation and checkpoints are outside the clock that budgets are read from."]
    if any(costs.outside and costs.alpha is not None for _, costs in found):
        notes.append("Where α* only observes, its cost is diagnostics.")
    return [Table.of("step-timings", TITLE, columns, rows, notes)]


def figures(data: ReportData) -> list[Figure]:
    """Return the categories as stacked bars."""
    caption = "Mean over all steps, seeds pooled; only what the clock of a budget counts."
    return [Figure("step-timings", TITLE, caption, partial(_draw, _timings(data)[:MOST]))]


def _timings(data: ReportData) -> list[tuple[Configuration, Timing]]:
    found = [(configuration, timing(configuration)) for configuration in data.configurations]
    return [(configuration, costs) for configuration, costs in found if costs is not None]


def _row(configuration: Configuration, costs: Timing) -> tuple[Cell, ...]:
    per_step = [1e3 * costs.per_step[name] for name in (*CLOCK, *OUTSIDE)]
    alpha = None if costs.alpha is None else 1e3 * costs.alpha
    return (configuration.label, *per_step, 1e3 * costs.plain, alpha, costs.ratio)


def _draw(found: list[tuple[Configuration, Timing]]) -> Canvas:
    canvas = new_canvas(9, 0.3 * len(found) + 1.2)
    axes = canvas.subplots()
    left = [0.0] * len(found)
    for name, colour in zip(CLOCK, (COLOURS[5], COLOURS[0], COLOURS[2], COLOURS[1]), strict=True):
        widths = [1e3 * costs.per_step[name] for _, costs in found]
        axes.barh(
            range(len(found)), widths, left=left, color=colour, label=NAMES.get(name, name), height=0.72
        )
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.set_yticks(range(len(found)), [configuration.label for configuration, _ in found])
    axes.set_ylim(len(found) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("training time per step (ms)")
    legend_beside(axes)
    return canvas
