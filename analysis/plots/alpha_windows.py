"""Draw observed α* by window: relative means, absolute means with their SD, and components."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..alphas import AlphaValue, Quantity, after_vanishing_rates, estimator_values, group_by_window
from ..configurations import Configuration
from ..data import RunData
from ..observed_alphas import estimator_names, window_deviation, window_mean, window_median, window_middle
from ..statistics import median
from .alpha_panels import COLOUR_OF, RATE
from .canvas import COLOURS, format_thousands, new_canvas, put_legend_beside

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

FAR = 30
"""Values beyond this multiple of the usual value need a logarithmic axis."""
NUMERATOR, DENOMINATOR = COLOURS[0], COLOURS[4]


def draw_relative_means(configuration: Configuration) -> Canvas:
    """Draw each estimator's window means of the relative α*, with a line at 1."""
    canvas, run = new_canvas(8.5, 4.0), measuring(configuration)
    axes, sizes = canvas.subplots(), [1.0]
    for place, name in enumerate(estimator_names(configuration)):
        windows = _quantity_windows(run, name, "relative")
        means = _for_each_window(windows, window_mean)
        style: dict[str, Any] = {"marker": "osD^v"[place % 5], "markersize": 3.5, "linewidth": 1.1}
        axes.plot(_middle_steps(windows), means, color=_estimator_colour(name, place), label=name, **style)
        sizes += [abs(value) for value in means]
    axes.axhline(1, color="#444444", linestyle=":", linewidth=1.2, label="1: the rate in use", zorder=1.9)
    _choose_scale(axes, sizes, 1.0)
    _label_axes(axes, "relative α*, mean of a window")
    put_legend_beside(axes)
    return canvas


def draw_windows(configuration: Configuration, name: str) -> Canvas:
    """Draw one estimator's window means with ± 1 SD, its medians, and the learning rate."""
    canvas, run = new_canvas(8.5, 4.0), measuring(configuration)
    axes, colour = canvas.subplots(), COLOUR_OF.get(name, COLOURS[0])
    windows = _quantity_windows(run, name, "absolute")
    steps, means = _middle_steps(windows), _for_each_window(windows, window_mean)
    bars: dict[str, Any] = {"elinewidth": 0.9, "capsize": 1.8, "ecolor": colour, "alpha": 0.85}
    axes.errorbar(
        steps, means, yerr=_for_each_window(windows, window_deviation), fmt="o", markersize=4, color=colour,
        label="mean ± SD", **bars,
    )  # fmt: skip
    axes.plot(
        steps, _for_each_window(windows, window_median), "D", markersize=4, color=COLOURS[4], label="median",
        markeredgecolor="#5C4400", markeredgewidth=0.5, zorder=3,
    )  # fmt: skip
    rates = [(row.step - row.steps / 2, row.lr_mean) for row in run.windows if math.isfinite(row.lr_mean)]
    axes.plot([step for step, _ in rates], [rate for _, rate in rates], **{**RATE, "drawstyle": "default"})
    axes.axhline(0, color="#444444", linewidth=0.8, linestyle=":")
    axes.ticklabel_format(axis="y", scilimits=(-3, 4))
    _label_axes(axes, f"absolute α*, {name}")
    put_legend_beside(axes)
    return canvas


def draw_components(configuration: Configuration) -> Canvas:
    """Draw one panel for each estimator: window means of numerator and denominator."""
    run = measuring(configuration)
    names = [name for name in estimator_names(configuration) if _quantity_windows(run, name, "denominator")]
    across = min(2, len(names))
    down = math.ceil(len(names) / across)
    canvas = new_canvas(4.3 * across + 2.2, 3.0 * down + 0.4)
    panels = list(canvas.subplots(down, across, squeeze=False, sharex=True, sharey=True).flat)
    drawn = [_draw_estimator_components(axes, run, name) for axes, name in zip(panels, names, strict=False)]
    sizes = [abs(value) for means in drawn for value in means if value]
    _choose_scale(panels[0], sizes, 10 ** math.floor(math.log10(median(sizes))) if sizes else 1.0)
    for axes in panels:
        axes.label_outer()
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    canvas.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper")
    return canvas


def measuring(configuration: Configuration) -> RunData:
    """Return the first run that measured α*, else the first."""
    return next((run for run in configuration.runs if run.alphas), configuration.runs[0])


def _draw_estimator_components(axes: Axes, run: RunData, name: str) -> list[float]:
    drawn: list[float] = []
    looks: tuple[tuple[Quantity, str, str, str], ...] = (
        ("numerator", "numerator −dᵀg", NUMERATOR, "o"),
        ("denominator", "denominator dᵀGd", DENOMINATOR, "s"),
    )
    for quantity, label, colour, marker in looks:
        windows = _quantity_windows(run, name, quantity)
        means = _for_each_window(windows, window_mean)
        axes.plot(
            _middle_steps(windows),
            means,
            marker=marker,
            markersize=3.5,
            linewidth=1.1,
            color=colour,
            label=label,
        )
        drawn += means
    axes.set_title(name, fontsize=10)
    _label_axes(axes, "mean of a window")
    return drawn


def _quantity_windows(run: RunData, name: str, quantity: Quantity) -> list[list[AlphaValue]]:
    return group_by_window(estimator_values(after_vanishing_rates(run), name, quantity), run)


def _middle_steps(windows: Sequence[Sequence[AlphaValue]]) -> list[float]:
    return [window_middle(window) for window in windows]


def _for_each_window(
    windows: Sequence[Sequence[AlphaValue]], function: Callable[[Sequence[AlphaValue]], float]
) -> list[float]:
    return [function(window) for window in windows]


def _choose_scale(axes: Axes, sizes: Sequence[float], usual: float) -> None:
    """Choose a linear axis, or one that is linear up to ± `usual` only, where values go far beyond that."""
    if sizes and max(sizes) > FAR * usual:
        axes.set_yscale("symlog", linthresh=usual)
    else:
        axes.ticklabel_format(axis="y", scilimits=(-3, 4))
    axes.margins(y=0.08)


def _estimator_colour(name: str, place: int) -> str:
    return COLOUR_OF.get(name, COLOURS[place % len(COLOURS)])


def _label_axes(axes: Axes, quantity: str) -> None:
    axes.set_xlabel("step")
    axes.set_ylabel(quantity)
    axes.axvline(0, color="#BBBBBB", linewidth=0.8, zorder=0.5)
    axes.locator_params(axis="x", nbins=6)
    format_thousands(axes.xaxis)
