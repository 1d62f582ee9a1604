"""Draw α* over steps: single values, the medians of windows, and the spread of a value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..alphas import AlphaValue, Scale, estimator_values, has_alphas, recorded_estimators, window_medians
from ..configurations import Configuration
from ..data import RunData
from ..statistics import median
from .canvas import COLOURS, add_common_legend, format_thousands, make_panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

FAR = 5
"""Estimators whose medians differ by more than this factor share no linear axis."""
COLOUR_OF = {"unbiased": COLOURS[0], "biased": COLOURS[1], "hybrid": COLOURS[2], "lookahead": COLOURS[3]}
RATE: dict[str, Any] = {
    "drawstyle": "steps-pre",
    "color": "#555555",
    "linewidth": 1.0,
    "zorder": 2.2,
    "label": "learning rate",
}
HIDDEN = 20
"""The axis leaves out the outermost 1/20 of the values on each side; tails of α* are heavy."""


def draw_alpha_panels(measured: Sequence[Configuration]) -> Canvas:
    """Draw one panel for the first seed of each configuration that measured."""
    canvas, panel_axes = make_panels(len(measured), 3, (3.9, 2.6), (0.6, 0.7))
    for axes, configuration in zip(panel_axes, measured, strict=True):
        _draw_panel(axes, configuration.label, next(filter(has_alphas, configuration.runs)))
    add_common_legend(canvas, panel_axes, "outside upper left", in_a_row=True)
    canvas.supxlabel("step", fontsize=10)
    return canvas


def _draw_panel(axes: Axes, title: str, run: RunData) -> None:
    scale = _scale_of(run)
    by_estimator = {
        name: estimator_values(run.alphas, name, scale) for name in recorded_estimators(run.alphas)
    }
    for name, alpha_values in by_estimator.items():
        _draw_estimator(axes, name, alpha_values, run)
    rates = _mean_rates(run) if scale == "absolute" else []
    if rates:
        axes.plot([step for step, _ in rates], [rate for _, rate in rates], **RATE)
    axes.axhline(0 if scale == "absolute" else 1, color="#444444", linewidth=0.8, linestyle=":")
    defined = [[value for value in alpha_values if value.n] for alpha_values in by_estimator.values()]
    _choose_axis(
        axes, [median([value.median for value in alpha_values]) for alpha_values in defined if alpha_values]
    )
    axes.set_ylim(
        *_value_limits(
            [value for alpha_values in defined for value in alpha_values], [rate for _, rate in rates]
        )
    )
    _thin_out_ticks(axes)
    _label_axes(axes, title, f"{scale} α*")


def _scale_of(run: RunData) -> Scale:
    """Return absolute if every estimator has such values, else relative."""
    has_absolute = [
        any(value.n for value in estimator_values(run.alphas, name, "absolute"))
        for name in recorded_estimators(run.alphas)
    ]
    return "absolute" if all(has_absolute) else "relative"


def _draw_estimator(axes: Axes, name: str, alpha_values: Sequence[AlphaValue], run: RunData) -> None:
    """Draw dots for the single values, and the windows' medians in their band."""
    colour = COLOUR_OF.get(name, COLOURS[4])
    single = [value for value in alpha_values if value.n and value.single]
    axes.plot(
        [value.step for value in single],
        [value.median for value in single],
        ".",
        markersize=3.5,
        color=colour,
        alpha=0.35,
        markeredgewidth=0,
    )
    windows = window_medians(alpha_values, run)
    steps, medians = [window.step for window in windows], [window.median for window in windows]
    low = [window.median - window.spread for window in windows]
    high = [window.median + window.spread for window in windows]
    axes.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0, zorder=1.8)
    axes.plot(steps, medians, "o-", markersize=2.5, linewidth=1.2, color=colour, label=name, zorder=2.5)


def _mean_rates(run: RunData) -> list[tuple[int, float]]:
    return [(row.step, row.lr_mean) for row in run.windows if math.isfinite(row.lr_mean)]


def _choose_axis(axes: Axes, medians: Sequence[float]) -> None:
    """Choose a linear axis, or one that is logarithmic beyond the smallest median if they differ a lot."""
    sizes = [abs(value) for value in medians if value]
    if sizes and max(sizes) > FAR * min(sizes):
        axes.set_yscale("symlog", linthresh=min(sizes))
    else:
        axes.ticklabel_format(axis="y", scilimits=(-3, 4))


def _thin_out_ticks(axes: Axes) -> None:
    """Remove the ticks near 0 of a symlog axis, whose labels would overlap that of 0."""
    if axes.get_yscale() == "symlog":
        near = 2 * axes.yaxis.get_transform().linthresh  # type: ignore[attr-defined]
        low, high = axes.get_ylim()
        axes.set_yticks([t for t in axes.get_yticks() if low <= t <= high and not 0 < abs(t) <= near])


def _value_limits(alpha_values: Sequence[AlphaValue], rates: Sequence[float]) -> tuple[float, float]:
    """Return limits without the outermost values on each side, but with the usual band of a summary."""
    ordered = sorted(value.median for value in alpha_values) or [0.0, 1.0]
    cut = len(ordered) // HIDDEN
    low = min([ordered[cut], *rates])
    high = max([ordered[len(ordered) - 1 - cut], *rates])
    bands = [value.deviation for value in alpha_values if not value.single]
    room = max(0.08 * (high - low), median(bands) if bands else 0.0) or max(abs(high), 1e-12)
    return low - room, high + room


def _label_axes(axes: Axes, title: str, quantity: str) -> None:
    axes.set_title(title, fontsize=9.5)
    axes.set_ylabel(quantity, fontsize=9)
    axes.set_xlim(left=0)
    axes.locator_params(axis="x", nbins=5)
    format_thousands(axes.xaxis)
