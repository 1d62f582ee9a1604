"""Draw the validation loss over time or steps: the whole run, and the part where the runs differ."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..budget import Kind, position
from ..comparison import ReportData
from ..data import RunData
from ..durations import time_unit
from ..statistics import median
from .canvas import format_plain_log, format_thousands, new_canvas
from .configuration_curves import Points, add_legend, draw_lines, final_losses

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas


def has_losses(data: ReportData) -> bool:
    """Return whether any run has a finite validation loss."""
    return bool(_lowest_losses(data))


def draw_losses(data: ReportData, kind: Kind) -> Canvas:
    """Draw both panels, with a dotted line at each budget of this kind."""
    canvas = new_canvas(11, 4.3)
    whole_axes, near_axes = canvas.subplots(1, 2)
    unit = _axis_unit(data, kind)
    for axes in (whole_axes, near_axes):
        draw_lines(axes, data, lambda run: _loss_points(run, kind, unit[0]))
        _label_axis(axes, kind, f"{unit[1]}, {data.clock} clock")
        axes.set_ylabel("validation loss")
    whole_axes.set_title("the whole run")
    if min(_lowest_losses(data)) > 0:
        whole_axes.set_yscale("log")
        format_plain_log(whole_axes.yaxis)
        whole_axes.set_title("the whole run (logarithmic)")
    near_axes.set_title("near the lowest losses")
    near_axes.set_ylim(*_limits_near_lowest(data))
    near_axes.set_xlim(left=_first_position_below(data, kind, near_axes.get_ylim()[1]) / unit[0])
    for axes in (whole_axes, near_axes):
        _draw_budget_lines(axes, data, kind, unit[0])
    add_legend(near_axes)
    return canvas


def _loss_points(run: RunData, kind: Kind, unit: float) -> Points:
    rows = [(row, row.losses.get("validation")) for row in run.curve.evaluations]
    return [(position(row, kind) / unit, loss) for row, loss in rows if loss is not None]


def _axis_unit(data: ReportData, kind: Kind) -> tuple[float, str]:
    if kind == "steps":
        return 1.0, "steps"
    return time_unit(max(run.curve.train_seconds for run in data.experiment.runs))


def _label_axis(axes: Axes, kind: Kind, unit: str) -> None:
    axes.set_xlabel("step" if kind == "steps" else f"training time ({unit})")
    axes.set_xlim(left=0)
    if kind == "steps":
        format_thousands(axes.xaxis)


def _lowest_losses(data: ReportData) -> list[float]:
    """Return the lowest finite loss of each run that has one."""
    best_losses = [run.best_loss for run in data.experiment.runs]
    return [loss for loss in best_losses if loss is not None]


def _limits_near_lowest(data: ReportData) -> tuple[float, float]:
    """Return limits from the lowest loss to a little above where the usual run ends."""
    low = min(_lowest_losses(data))
    final = final_losses(data)
    reach = max(min(max(final), low + 3 * (median(final) - low)) - low, abs(low) * 1e-3, 1e-12)
    return low - 0.08 * reach, low + 1.6 * reach


def _first_position_below(data: ReportData, kind: Kind, top: float) -> float:
    """Return where the first curve comes below `top`."""
    rows = [row for run in data.experiment.runs for row in run.curve.evaluations]
    below = [position(row, kind) for row in rows if row.losses.get("validation", math.inf) <= top]
    return 0.9 * min(below, default=0.0)


def _draw_budget_lines(axes: Axes, data: ReportData, kind: Kind, unit: float) -> None:
    """Mark the budgets of this kind, but for the one that is the end of everything."""
    right = axes.get_xlim()[1]
    for comparison in data.comparisons:
        value = comparison.budget.value
        marked = comparison.kind == kind and comparison.budget.label != "all"
        if marked and value is not None and value / unit < right:
            axes.axvline(value / unit, color="#444444", linestyle=":", linewidth=1, zorder=2)
            axes.annotate(
                comparison.budget.label,
                (value / unit, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(3, -3),
                textcoords="offset points",
                fontsize=8,
                color="#444444",
                va="top",
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
            )
