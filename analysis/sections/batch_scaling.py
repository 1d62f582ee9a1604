"""α* over batch sizes, compared with the rules by which learning rates are scaled."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from ..alpha_by_batch_size import AVERAGES, Average, BatchSizeSeries, BatchSizeStatistics, batch_size_series
from ..comparison import ReportData
from ..plots.canvas import COLOURS, format_plain_log, new_canvas
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
    """The section “α* over batch sizes”."""

    title = TITLE

    def applies(self, data: ReportData) -> bool:
        """Return whether an absolute α* was recorded at three or more batch sizes, all else being equal."""
        return bool(batch_size_series(data.configurations))

    def tables(self, data: ReportData) -> list[Table]:
        """Return the values at each batch size, and the exponents fitted to them."""
        all_series = batch_size_series(data.configurations)
        rows = [row for one_series in all_series for row in _size_rows(one_series)]
        fits = [row for one_series in all_series for row in _fit_rows(one_series)]
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
        return [
            Figure(
                "batch-scaling",
                TITLE,
                caption,
                partial(_draw_scaling, batch_size_series(data.configurations)),
            )
        ]


def _series_name(estimator_series: BatchSizeSeries) -> str:
    return f"{estimator_series.estimator} {estimator_series.name}".strip()


def _size_rows(estimator_series: BatchSizeSeries) -> list[tuple[Cell, ...]]:
    growths = zip(estimator_series.growth("mean"), estimator_series.growth("median"), strict=True)
    sizes = zip(estimator_series.sizes, growths, strict=True)
    return [_size_row(estimator_series, size, growth) for size, growth in sizes]


def _size_row(
    estimator_series: BatchSizeSeries, size: BatchSizeStatistics, growth: tuple[float | None, float | None]
) -> tuple[Cell, ...]:
    factor = size.batch / estimator_series.sizes[0].batch
    return (
        _series_name(estimator_series),
        size.batch,
        len(size.of_seeds),
        sum(seed.n for seed in size.of_seeds),
        *_mean_and_error(size.summary("mean")),
        *_mean_and_error(size.summary("median")),
        *growth,
        factor,
        math.sqrt(factor),
    )


def _fit_rows(estimator_series: BatchSizeSeries) -> list[tuple[Cell, ...]]:
    fits = [(quantity, estimator_series.exponent(quantity)) for quantity in AVERAGES]
    return [
        (_series_name(estimator_series), q, *_mean_and_error(fit), fit.n)
        for q, fit in fits
        if fit is not None
    ]


def _mean_and_error(summary: MeanAndSD) -> tuple[float, float | None]:
    return summary.mean, _standard_error(summary)


def _standard_error(summary: MeanAndSD) -> float | None:
    return None if summary.deviation is None else summary.deviation / math.sqrt(summary.n)


def _draw_scaling(all_series: list[BatchSizeSeries]) -> Canvas:
    canvas = new_canvas(9.6, 4.2)
    panels = canvas.subplots(1, 2, sharey=True)
    for axes, quantity in zip(panels, AVERAGES, strict=True):
        _draw_panel(axes, all_series, quantity)
    panels[0].set_ylabel("absolute α* (logarithmic)")
    return canvas


def _draw_panel(axes: Axes, all_series: list[BatchSizeSeries], quantity: Average) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    for place, estimator_series in enumerate(all_series):
        _draw_sizes(axes, estimator_series, quantity, place)
    _draw_rules(axes, all_series[0], quantity)
    axes.set_xticks(
        [size.batch for size in all_series[0].sizes], [f"{s.batch:,}" for s in all_series[0].sizes]
    )
    axes.minorticks_off()
    format_plain_log(axes.yaxis)
    axes.set_title(f"{quantity} of a run")
    axes.set_xlabel("batch size (logarithmic)")
    axes.legend(loc="best")


def _draw_sizes(axes: Axes, estimator_series: BatchSizeSeries, quantity: Average, place: int) -> None:
    colour, fit = COLOURS[place % len(COLOURS)], estimator_series.exponent(quantity)
    summaries = [(size.batch, size.summary(quantity)) for size in estimator_series.sizes]
    shown = [(batch, summary) for batch, summary in summaries if summary.mean > 0]
    label = (
        _series_name(estimator_series)
        if fit is None
        else f"{_series_name(estimator_series)}: exponent {_exponent_text(fit)}"
    )
    axes.errorbar(
        [batch for batch, _ in shown],
        [summary.mean for _, summary in shown],
        yerr=[_standard_error(summary) or 0.0 for _, summary in shown],
        fmt=MARKERS[place % len(MARKERS)],
        color=colour,
        capsize=3,
        label=label,
        zorder=3,
    )
    if fit is not None and len(shown) == len(summaries):
        _draw_fit(axes, estimator_series, quantity, fit.mean, colour)


def _exponent_text(fit: MeanAndSD) -> str:
    error = _standard_error(fit)
    return f"{fit.mean:.2f}" if error is None else f"{fit.mean:.2f} ± {error:.2f}"


def _draw_fit(
    axes: Axes, estimator_series: BatchSizeSeries, quantity: Average, exponent: float, colour: str
) -> None:
    """Draw the fitted line through the points' common middle."""
    logs = [(math.log(size.batch), math.log(size.summary(quantity).mean)) for size in estimator_series.sizes]
    x, y = (math.fsum(part) / len(logs) for part in zip(*logs, strict=True))
    axes.plot(
        [math.exp(log_batch) for log_batch, _ in logs],
        [math.exp(y + exponent * (log_batch - x)) for log_batch, _ in logs],
        color=colour,
        linewidth=1.2,
    )


def _draw_rules(axes: Axes, estimator_series: BatchSizeSeries, quantity: Average) -> None:
    first = estimator_series.sizes[0].summary(quantity).mean
    if first <= 0:
        return
    batches = [size.batch for size in estimator_series.sizes]
    for power, dash, label in ((1.0, "--", "linear rule"), (0.5, ":", "square-root rule")):
        levels = [first * (batch / batches[0]) ** power for batch in batches]
        axes.plot(batches, levels, linestyle=dash, color="#555555", linewidth=1.2, label=label, zorder=2)
