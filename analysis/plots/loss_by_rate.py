"""Draw the best loss over starting rates: a curve per method, a level per method without a rate."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..regret import Method, RateComparison, Trial
from .canvas import COLOURS, DASHES, add_common_legend, format_plain_log, legend_label, make_panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
WIDE = 3
"""A loss that varies by more than this factor is drawn logarithmically."""
HIGHEST = 100
"""Losses above this multiple of the lowest are not drawn."""
APART = 1.03
"""Factor on the rates from one method to the next, so that equal losses do not hide one another."""


def draw_losses_by_rate(comparisons: Sequence[RateComparison]) -> Canvas:
    """Draw one panel for each workload; a method has the same colour and mark in all of them."""
    canvas, panel_axes = make_panels(len(comparisons), 2, (4.6, 3.5), (2.2, 0.3))
    names = list(dict.fromkeys(method.name for comparison in comparisons for method in comparison.methods))
    for axes, comparison in zip(panel_axes, comparisons, strict=True):
        _draw_panel(axes, comparison, names)
    add_common_legend(canvas, panel_axes, "outside right upper")
    return canvas


def _draw_panel(axes: Axes, comparison: RateComparison, names: Sequence[str]) -> None:
    axes.set_xscale("log")
    for method in comparison.methods:
        place = names.index(method.name)
        if method.trials:
            _draw_method(axes, method, place, len(names))
        if method.free is not None:
            _draw_level(axes, method, method.free, place)
    if comparison.reference is not None and comparison.reference.best is not None:
        _mark_reference(axes, comparison.reference.best, names.index(comparison.reference.name), len(names))
    _set_loss_scale(axes, list(_trial_losses(comparison)))
    axes.set_title(comparison.workload)
    axes.set_xlabel("starting learning rate (logarithmic)")
    axes.set_ylabel("best validation loss")


def _rate_position(trial: Trial, place: int, count: int) -> float:
    """Return the rate at which a trial of the method at `place` of `of` methods is drawn."""
    return math.nan if trial.rate is None else trial.rate * APART ** (place - (count - 1) / 2)


def _mark_reference(axes: Axes, trial: Trial, place: int, count: int) -> None:
    """Mark the reference of the regrets."""
    style: Any = {"color": "#444444", "linewidth": 0.9, "linestyle": ":"}
    axes.axhline(trial.loss, label="best of the reference (circled)", zorder=1.5, **style)
    axes.plot(
        [_rate_position(trial, place, count)],
        [trial.loss],
        "o",
        markersize=12,
        markerfacecolor="none",
        **style,
    )


def _draw_method(axes: Axes, method: Method, place: int, count: int) -> None:
    """Draw mean and SD over seeds at each rate; a rate at which a seed has no loss breaks the line."""
    means = [trial.loss if math.isfinite(trial.loss) else math.nan for trial in method.trials]
    axes.errorbar(
        [_rate_position(trial, place, count) for trial in method.trials],
        means,
        yerr=[_deviation_or_zero(trial) for trial in method.trials],
        fmt=MARKERS[place % len(MARKERS)],
        linestyle=DASHES[place // len(COLOURS) % len(DASHES)],
        color=COLOURS[place % len(COLOURS)],
        markersize=5,
        elinewidth=1.1,
        capsize=2.5,
        label=legend_label(method.name),
        zorder=3,
    )


def _draw_level(axes: Axes, method: Method, trial: Trial, place: int) -> None:
    if not math.isfinite(trial.loss):
        return
    colour, spread = COLOURS[place % len(COLOURS)], _deviation_or_zero(trial)
    axes.axhline(
        trial.loss,
        color=colour,
        linewidth=1.8,
        linestyle=(0, (6, 2)),
        label=f"{method.name}, no rate",
        zorder=2.5,
    )
    axes.axhspan(trial.loss - spread, trial.loss + spread, color=colour, alpha=0.15, linewidth=0, zorder=1)


def _deviation_or_zero(trial: Trial) -> float:
    deviation = None if trial.summary is None else trial.summary.deviation
    return 0.0 if deviation is None else deviation


def _trial_losses(comparison: RateComparison) -> Iterator[float]:
    for method in comparison.methods:
        yield from (trial.loss for trial in (*method.trials, method.free) if trial is not None)


def _set_loss_scale(axes: Axes, levels: Sequence[float]) -> None:
    finite = [level for level in levels if math.isfinite(level)]
    low, high = min(finite), max(finite)
    if low > 0 and high > WIDE * low:
        axes.set_yscale("log")
        axes.set_ylim(low / 1.25, min(high, HIGHEST * low) * 1.25)
        format_plain_log(axes.yaxis)
    else:
        room = 0.1 * (high - low) or abs(low) * 0.1 or 1.0
        axes.set_ylim(low - room, high + room)
