"""Draw a curve over steps or time per configuration, with colours and dashes that follow the axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..comparison import ReportData
from ..configurations import Configuration
from ..data import RunData
from ..statistics import MeanAndSD
from .canvas import BASELINE_COLOURS, COLOURS, DASHES, QUIET, legend_label, put_legend_beside

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Points = Sequence[tuple[float, float]]
MOST = 12
"""The maximum number of configurations with a label; the others are drawn grey."""


@dataclass(frozen=True)
class MeanCurve:
    """The mean over seeds at the k-th record of each, and the span of the seeds around it."""

    xs: list[float]
    means: list[float]
    lows: list[float]
    highs: list[float]

    @classmethod
    def of(cls, seeds: Sequence[Points]) -> MeanCurve:
        """Join the k-th points of all seeds, as long as all have one; non-finite values break the line."""
        line = cls([], [], [], [])
        for present in zip(*seeds, strict=False):
            values = [value for _, value in present]
            is_finite = all(math.isfinite(value) for value in values)
            line.xs.append(sum(x for x, _ in present) / len(present))
            line.means.append(sum(values) / len(values) if is_finite else math.nan)
            line.lows.append(min(values) if is_finite else math.nan)
            line.highs.append(max(values) if is_finite else math.nan)
        return line


@dataclass(frozen=True)
class Style:
    """How a configuration is drawn."""

    colour: str
    dash: Any
    width: float
    named: bool
    order: int


def draw_lines(
    axes: Axes, data: ReportData, points: Callable[[RunData], Points], *, steps: bool = False
) -> None:
    """Draw every configuration; with `steps`, values hold until the next point."""
    for configuration, style in styles(data):
        seeds = list(filter(None, map(points, configuration.runs)))
        if seeds:
            _draw_curve(axes, MeanCurve.of(seeds), configuration, style, "steps-pre" if steps else "default")


def add_legend(axes: Axes) -> None:
    """Add the legend beside the axes, if any curve has a label."""
    if axes.get_legend_handles_labels()[1]:
        put_legend_beside(axes, columns=1)


def styles(data: ReportData) -> list[tuple[Configuration, Style]]:
    """Return the configurations with their style: the first axis sets the colour, the second the dash."""
    baselines = [c for c in data.configurations if c.baseline is not None]
    cells = [c for c in data.configurations if c.baseline is None]
    labelled = _labelled_cells(data, cells)
    styled = [(cell, _cell_style(data, cell, index, labelled)) for index, cell in enumerate(cells)]
    return styled + [(baseline, _baseline_style(index)) for index, baseline in enumerate(baselines)]


def _draw_curve(
    axes: Axes, line: MeanCurve, configuration: Configuration, style: Style, drawstyle: Any
) -> None:
    colours: dict[str, Any] = {"color": style.colour, "zorder": style.order}
    label = legend_label(configuration.label) if style.named else None
    axes.plot(
        line.xs,
        line.means,
        label=label,
        linestyle=style.dash,
        linewidth=style.width,
        drawstyle=drawstyle,
        **colours,
    )
    if style.named and len(configuration.runs) > 1:
        step: Any = "pre" if drawstyle == "steps-pre" else None
        axes.fill_between(line.xs, line.lows, line.highs, step=step, alpha=0.15, linewidth=0, **colours)


def _labelled_cells(data: ReportData, cells: Sequence[Configuration]) -> set[int]:
    """Return the ids of the cells that get a label: all, or the best of the last comparison."""
    if len(cells) <= MOST or not data.comparisons:
        return {id(cell) for cell in cells[:MOST]}
    ranked = [entry.configuration for entry in data.comparisons[-1].ranked]
    return {id(cell) for cell in [c for c in ranked if c.baseline is None][: len(COLOURS)]}


def _cell_style(data: ReportData, cell: Configuration, index: int, labelled: set[int]) -> Style:
    if id(cell) not in labelled:
        return Style(QUIET, "-", 0.7, False, 1)
    dash, colour = divmod(index, len(COLOURS))
    if _colours_and_dashes_suffice(data):
        colour, dash = _style_indices(data, cell)
    return Style(COLOURS[colour % len(COLOURS)], DASHES[dash % len(DASHES)], 1.5, True, 3)


def _colours_and_dashes_suffice(data: ReportData) -> bool:
    """Return whether colours and dashes suffice: two axes identify all cells, with few values each."""
    sizes = [len(axis.values) for axis in data.axes]
    cells = [configuration for configuration in data.configurations if configuration.baseline is None]
    on_both = all(axis.key in cell.params for axis in data.axes for cell in cells)
    if len(sizes) != 2 or not on_both or len(cells) > math.prod(sizes):
        return False
    return sizes[0] <= len(COLOURS) and sizes[1] <= len(DASHES)


def _style_indices(data: ReportData, cell: Configuration) -> tuple[int, int]:
    places = [axis.index(cell.params.get(axis.key)) or 0 for axis in data.axes]
    return places[0], places[1]


def _baseline_style(index: int) -> Style:
    cycle, place = divmod(index, len(BASELINE_COLOURS))
    dash = DASHES[(place % 2 + 2 * cycle) % len(DASHES)]
    return Style(BASELINE_COLOURS[place], dash, 2.4, True, 4)


def final_losses(data: ReportData) -> list[float]:
    """Return the last finite mean of every configuration's runs: what the end of a figure must show."""
    summaries: Iterable[MeanAndSD | None] = (
        MeanAndSD.of([_last_loss(run) for run in configuration.runs]) for configuration in data.configurations
    )
    return [summary.mean for summary in summaries if summary is not None]


def _last_loss(run: RunData) -> float | None:
    losses = [row.losses.get("validation") for row in run.curve.evaluations]
    return next((loss for loss in reversed(losses) if loss is not None and math.isfinite(loss)), None)
