"""The α* that were measured: every value over steps with the medians of the windows, by estimator."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from ...store.queries import AlphaRow
from ..comparison import ReportData
from ..configurations import Configuration
from ..data import RunData
from ..figures import COLOURS, Figure, new_canvas, thousands
from ..statistics import Summary, median
from ..tables import Cell, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

TITLE = "α* observations"
COLUMNS = ("configuration", "estimator", "α*", "n", "undefined", "mean", "median", "SD", "negative")
MOST = 12
"""So many configurations are drawn."""
FAR = 5
"""Estimators whose medians differ by more than this factor share no linear axis."""
COLOUR_OF = {"unbiased": COLOURS[0], "biased": COLOURS[1], "hybrid": COLOURS[2], "lookahead": COLOURS[3]}


def applies(data: ReportData) -> bool:
    """Tell whether any α* was recorded."""
    return any(run.alphas for run in data.experiment.runs)


def tables(data: ReportData) -> list[Table]:
    """Return the statistics of each configuration and estimator, seeds pooled."""
    rows = [row for configuration in _measured(data) for row in _rows(configuration)]
    notes = (
        "Relative: a factor on the step taken; absolute: a learning rate. Undefined values are left out.",
    )
    return [Table.of("alpha-observations", TITLE, COLUMNS, rows, notes)]


def figures(data: ReportData) -> list[Figure]:
    """Return one panel for each configuration that measured."""
    caption = (
        "First seed of each. Dots: single values, without the outer 2 % on each side; lines: medians of the "
        "windows. Absolute values where all have one, else relative ones."
    )
    return [Figure("alpha-observations", TITLE, caption, partial(_draw, _measured(data)[:MOST]))]


def _measured(data: ReportData) -> list[Configuration]:
    return [c for c in data.configurations if any(run.alphas for run in c.runs)]


def _rows(configuration: Configuration) -> list[tuple[Cell, ...]]:
    alphas = [row for run in configuration.runs for row in run.alphas]
    found = []
    for estimator in _estimators(alphas):
        mine = [row.estimates[estimator] for row in alphas if estimator in row.estimates]
        found.append(
            _row(configuration.label, estimator, "relative", [estimate.alpha_rel for estimate in mine])
        )
        if any(estimate.alpha_abs is not None for estimate in mine):
            found.append(
                _row(configuration.label, estimator, "absolute", [estimate.alpha_abs for estimate in mine])
            )
    return found


def _estimators(alphas: Iterable[AlphaRow]) -> list[str]:
    return list(dict.fromkeys(name for row in alphas for name in row.estimates))


def _row(label: str, estimator: str, scale: str, values: Sequence[float | None]) -> tuple[Cell, ...]:
    finite = _finite(values)
    summary = Summary.of(finite)
    if summary is None:
        return (label, estimator, scale, 0, len(values), None, None, None, None)
    negative = f"{100 * sum(value < 0 for value in finite) / len(finite):.1f} %"
    undefined = len(values) - len(finite)
    return (
        label,
        estimator,
        scale,
        len(finite),
        undefined,
        summary.mean,
        median(finite),
        summary.deviation,
        negative,
    )


def _finite(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None and math.isfinite(value)]


def _draw(measured: Sequence[Configuration]) -> Canvas:
    across = min(3, len(measured))
    down = math.ceil(len(measured) / across)
    canvas = new_canvas(3.9 * across + 0.6, 2.5 * down + 0.7)
    panels = list(canvas.subplots(down, across, squeeze=False).flat)
    for axes, configuration in zip(panels, measured, strict=False):
        _panel(axes, configuration.label, next(run for run in configuration.runs if run.alphas))
    for axes in panels[len(measured) :]:
        axes.set_visible(False)
    handles = {
        label: handle
        for axes in panels
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    canvas.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=len(handles))
    canvas.supxlabel("step", fontsize=10)
    return canvas


def _panel(axes: Axes, title: str, run: RunData) -> None:
    absolute = all(part.alpha_abs is not None for row in run.alphas for part in row.estimates.values())
    by_estimator: list[list[float]] = []
    for estimator in _estimators(run.alphas):
        points = _points(run.alphas, estimator, absolute)
        colour = COLOUR_OF.get(estimator, COLOURS[4])
        axes.plot(*_columns(points), ".", markersize=4, color=colour, alpha=0.4, markeredgewidth=0)
        medians = _window_medians(points, run)
        axes.plot(*_columns(medians), "o-", markersize=3, linewidth=1.2, color=colour, label=estimator)
        by_estimator.append([value for _, value in points])
    if absolute:
        rates = [(row.step, row.lr_mean) for row in run.windows if math.isfinite(row.lr_mean)]
        axes.plot(
            *_columns(rates),
            drawstyle="steps-pre",
            color="#777777",
            linewidth=0.9,
            zorder=1.5,
            label="learning rate",
        )
    axes.axhline(0 if absolute else 1, color="#444444", linewidth=0.8, linestyle=":")
    _scale(axes, [median(values) for values in by_estimator if values])
    axes.set_ylim(*_limits([value for values in by_estimator for value in values]))
    _label(axes, title, "absolute α*" if absolute else "relative α*")


def _scale(axes: Axes, medians: Sequence[float]) -> None:
    """Choose a linear axis, or one that is logarithmic beyond the smallest median if they lie far apart."""
    sizes = [abs(value) for value in medians if value]
    if sizes and max(sizes) > FAR * min(sizes):
        axes.set_yscale("symlog", linthresh=min(sizes))
    else:
        axes.ticklabel_format(axis="y", scilimits=(-2, 3))


def _label(axes: Axes, title: str, quantity: str) -> None:
    axes.set_title(title, fontsize=9.5)
    axes.set_ylabel(quantity, fontsize=9)
    axes.set_xlim(left=0)
    axes.locator_params(axis="x", nbins=5)
    thousands(axes.xaxis)


def _points(alphas: Sequence[AlphaRow], estimator: str, absolute: bool) -> list[tuple[float, float]]:
    parts = [(row.step, row.estimates[estimator]) for row in alphas if estimator in row.estimates]
    values = [(step, part.alpha_abs if absolute else part.alpha_rel) for step, part in parts]
    return [(step, value) for step, value in values if value is not None and math.isfinite(value)]


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _window_medians(points: Sequence[tuple[float, float]], run: RunData) -> list[tuple[float, float]]:
    """Return (middle step, median) of each window of the run's policy."""
    alpha = run.row.config.get("alpha") or {}
    start, interval = alpha.get("start_step", 0), alpha.get("interval") or 1
    windows: dict[int, list[tuple[float, float]]] = {}
    for step, value in points:
        windows.setdefault(int(step - start) // max(interval, 1), []).append((step, value))
    return [(median([x for x, _ in window]), median([y for _, y in window])) for window in windows.values()]


def _limits(found: Sequence[float]) -> tuple[float, float]:
    """Return limits without the outer 2 % on each side; tails of α* are heavy."""
    values = sorted(found) or [0.0, 1.0]
    cut = len(values) // 50
    low, high = values[cut], values[len(values) - 1 - cut]
    room = 0.08 * (high - low) or max(abs(high), 1e-12)
    return low - room, high + room
