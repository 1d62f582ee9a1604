"""How α* grows with the batch, beside the rules by which learning rates are scaled."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from ..alpha_by_batch_size import AVERAGES, Average, BatchSizeSeries, series
from ..comparison import ReportData
from ..plots.canvas import COLOURS, new_canvas, plain_log
from ..plots.figure import Figure
from ..statistics import MeanAndSD
from ..tables import Cell, Table
from .base import ReportSection

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

TITLE = "α* over batch sizes"
COLUMNS = (
    "estimator",
    "batch",
    "seeds",
    "values",
    "mean α*_abs",
    "SE of the mean",
    "median α*_abs",
    "SE of the median",
    "mean / smallest batch's",
    "median / smallest batch's",
    "linear rule",
    "square-root rule",
)
FIT_COLUMNS = ("estimator", "of", "exponent", "SE", "seeds")
VALUES = (
    "Mean and median over the steps of each run, then the mean over seeds that have finished, with its "
    "standard error (SE). The "
    "rules are factors on the smallest batch's value."
)
CONFOUND = (
    "After equal numbers of steps larger batches have seen more data, and the direction comes from the "
    "batch, too: this is α* as training meets it, not at one and the same θ."
)
FIT = (
    "Least squares through the logarithms, for each seed by itself; mean and SE over the seeds whose values "
    "are all positive. The linear rule has exponent 1, the square-root rule ½."
)
MARKERS = ("o", "s", "^", "D", "v")


class BatchScalingSection(ReportSection):
    """How α* grows with the batch, beside the rules by which learning rates are scaled."""

    title = TITLE

    def applies(self, data: ReportData) -> bool:
        """Return whether an absolute α* was recorded at three or more batch sizes, all else being equal."""
        return bool(series(data.configurations))

    def tables(self, data: ReportData) -> list[Table]:
        """Return the values at each batch size, and the exponents fitted to them."""
        found = series(data.configurations)
        rows = [row for one in found for row in _rows(one)]
        fits = [row for one in found for row in _fits(one)]
        return [
            Table.of("batch-scaling", TITLE, COLUMNS, rows, [VALUES, CONFOUND]),
            Table.of("batch-exponents", "Exponents of α* in the batch size", FIT_COLUMNS, fits, [FIT]),
        ]

    def figures(self, data: ReportData) -> list[Figure]:
        """Return mean and median over batch sizes, with both rules."""
        caption = (
            "Mean over seeds of the runs' means (left) and medians (right), bars: ± 1 standard error over "
            "seeds; lines: fitted exponents (mean ± SE). Both rules start from the first estimator's "
            "smallest batch."
        )
        return [Figure("batch-scaling", TITLE, caption, partial(_draw, series(data.configurations)))]


def _name(one: BatchSizeSeries) -> str:
    return f"{one.estimator} {one.name}".strip()


def _rows(one: BatchSizeSeries) -> list[tuple[Cell, ...]]:
    smallest = one.sizes[0].batch
    growths = zip(one.growth("mean"), one.growth("median"), strict=True)
    return [
        (
            _name(one),
            size.batch,
            len(size.of_seeds),
            sum(seed.n for seed in size.of_seeds),
            *_with_error(size.summary("mean")),
            *_with_error(size.summary("median")),
            *growth,
            size.batch / smallest,
            math.sqrt(size.batch / smallest),
        )
        for size, growth in zip(one.sizes, growths, strict=True)
    ]


def _fits(one: BatchSizeSeries) -> list[tuple[Cell, ...]]:
    found = [(quantity, one.exponent(quantity)) for quantity in AVERAGES]
    return [(_name(one), q, *_with_error(fit), fit.n) for q, fit in found if fit is not None]


def _with_error(summary: MeanAndSD) -> tuple[float, float | None]:
    return summary.mean, _error(summary)


def _error(summary: MeanAndSD) -> float | None:
    return None if summary.deviation is None else summary.deviation / math.sqrt(summary.n)


def _draw(found: list[BatchSizeSeries]) -> Canvas:
    canvas = new_canvas(9.6, 4.2)
    panels = canvas.subplots(1, 2, sharey=True)
    for axes, quantity in zip(panels, AVERAGES, strict=True):
        _panel(axes, found, quantity)
    panels[0].set_ylabel("absolute α* (logarithmic)")
    return canvas


def _panel(axes: Axes, found: list[BatchSizeSeries], quantity: Average) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    for place, one in enumerate(found):
        _points(axes, one, quantity, place)
    _rules(axes, found[0], quantity)
    axes.set_xticks([size.batch for size in found[0].sizes], [f"{s.batch:,}" for s in found[0].sizes])
    axes.minorticks_off()
    plain_log(axes.yaxis)
    axes.set_title(f"{quantity} of a run")
    axes.set_xlabel("batch size (logarithmic)")
    axes.legend(loc="best")


def _points(axes: Axes, one: BatchSizeSeries, quantity: Average, place: int) -> None:
    colour, fit = COLOURS[place % len(COLOURS)], one.exponent(quantity)
    summaries = [(size.batch, size.summary(quantity)) for size in one.sizes]
    shown = [(batch, summary) for batch, summary in summaries if summary.mean > 0]
    label = _name(one) if fit is None else f"{_name(one)}: exponent {_exponent(fit)}"
    axes.errorbar(
        [batch for batch, _ in shown],
        [summary.mean for _, summary in shown],
        yerr=[_error(summary) or 0.0 for _, summary in shown],
        fmt=MARKERS[place % len(MARKERS)],
        color=colour,
        capsize=3,
        label=label,
        zorder=3,
    )
    if fit is not None and len(shown) == len(summaries):
        _line(axes, one, quantity, fit.mean, colour)


def _exponent(fit: MeanAndSD) -> str:
    error = _error(fit)
    return f"{fit.mean:.2f}" if error is None else f"{fit.mean:.2f} ± {error:.2f}"


def _line(axes: Axes, one: BatchSizeSeries, quantity: Average, exponent: float, colour: str) -> None:
    """Draw the fitted line through the points' common middle."""
    logs = [(math.log(size.batch), math.log(size.summary(quantity).mean)) for size in one.sizes]
    x, y = (math.fsum(part) / len(logs) for part in zip(*logs, strict=True))
    axes.plot(
        [math.exp(at) for at, _ in logs],
        [math.exp(y + exponent * (at - x)) for at, _ in logs],
        color=colour,
        linewidth=1.2,
    )


def _rules(axes: Axes, one: BatchSizeSeries, quantity: Average) -> None:
    first = one.sizes[0].summary(quantity).mean
    if first <= 0:
        return
    batches = [size.batch for size in one.sizes]
    for power, dash, label in ((1.0, "--", "linear rule"), (0.5, ":", "square-root rule")):
        levels = [first * (batch / batches[0]) ** power for batch in batches]
        axes.plot(batches, levels, linestyle=dash, color="#555555", linewidth=1.2, label=label, zorder=2)
