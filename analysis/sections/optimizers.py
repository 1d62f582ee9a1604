"""Methods with several optimizers, on each workload: the best of each, and its regret."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from ..comparison import ReportData
from ..methods_by_optimizer import OptimizerComparison, OptimizerMethod, optimizer_comparisons, percent_text
from ..plots.canvas import COLOURS, add_common_legend, format_plain_log, legend_label, make_panels
from ..plots.figure import Figure
from ..tables import Cell, Table, decimals_to_differ
from .base import ReportSection
from .budget import loss_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

TITLE = "Methods by optimizer and workload"
COLUMNS = (
    "workload",
    "optimizer",
    "method",
    "configurations",
    "best validation loss",
    "regret in its optimizer (%)",
    "in SDs",
    "regret in the workload (%)",
    "rate of the best",
)
RAW_COLUMNS = (
    "workload",
    "optimizer",
    "method",
    "configurations",
    "best_validation_loss",
    "best_validation_loss_sd",
    "n",
    "regret_in_optimizer_percent",
    "regret_in_optimizer_sds",
    "regret_in_workload_percent",
    "best_rate",
    "best_configuration",
)
RIGHT = (False, False, False, True, True, True, True, True, True)
REGRET = (
    "Best: the configuration with the lowest mean over seeds of the best validation loss over the full runs, "
    "mean ± SD (n); a best of more configurations has had more chances. Regret: how much higher that is than "
    "the tuned schedule with the same optimizer, in per cent and in the larger of the two SDs, and than the "
    "best tuned schedule with any optimizer."
)
MARKERS = "os^DvPX"
HIGHEST = 3
"""Losses above this multiple of the lowest are drawn at the upper edge."""


class OptimizersSection(ReportSection):
    """The section “Methods by optimizer and workload”."""

    title = TITLE

    def applies(self, data: ReportData) -> bool:
        """Return whether several optimizers ran on one workload, each with several methods."""
        return bool(optimizer_comparisons(data.configurations))

    def tables(self, data: ReportData) -> list[Table]:
        """Return one row for each workload, optimizer and method, the lowest loss first in each workload."""
        pairs = [
            (comparison, method)
            for comparison in optimizer_comparisons(data.configurations)
            for method in sorted(comparison.methods, key=lambda method: method.best.loss)
        ]
        finite = [method.best.loss for _, method in pairs if math.isfinite(method.best.loss)]
        decimals = decimals_to_differ(finite, at_most=5)
        shown = tuple(_shown_row(comparison, method, decimals) for comparison, method in pairs)
        rows = tuple(_raw_row(comparison, method) for comparison, method in pairs)
        return [Table("optimizers", TITLE, COLUMNS, shown, RAW_COLUMNS, rows, RIGHT, (REGRET,))]

    def figures(self, data: ReportData) -> list[Figure]:
        """Return the best losses, a panel for each workload."""
        caption = (
            "Best validation loss of each method's best configuration, mean over seeds, bars: ± 1 SD. An "
            f"arrow: more than {HIGHEST} times the lowest."
        )
        return [
            Figure(
                "optimizers",
                TITLE,
                caption,
                partial(_draw_comparisons, optimizer_comparisons(data.configurations)),
            )
        ]


def _shown_row(comparison: OptimizerComparison, method: OptimizerMethod, decimals: int) -> tuple[str, ...]:
    optimizer_regret = comparison.regret(method, method.optimizer)
    deviations = None if optimizer_regret is None else optimizer_regret.deviations
    return (
        comparison.workload,
        method.optimizer,
        method.method,
        str(method.k),
        loss_text(method.best.summary, decimals),
        percent_text(optimizer_regret),
        "–" if deviations is None else f"{deviations:+.1f}",
        percent_text(comparison.regret(method)),
        "–" if method.best.rate is None else f"{method.best.rate:g}",
    )


def _raw_row(comparison: OptimizerComparison, method: OptimizerMethod) -> tuple[Cell, ...]:
    optimizer_regret, overall, summary = (
        comparison.regret(method, method.optimizer),
        comparison.regret(method),
        method.best.summary,
    )
    assert summary is not None
    return (
        comparison.workload,
        method.optimizer,
        method.method,
        method.k,
        summary.mean,
        summary.deviation,
        summary.n,
        None if optimizer_regret is None else optimizer_regret.percent,
        None if optimizer_regret is None else optimizer_regret.deviations,
        None if overall is None else overall.percent,
        method.best.rate,
        method.label,
    )


def _draw_comparisons(comparisons: list[OptimizerComparison]) -> Canvas:
    canvas, places = make_panels(len(comparisons), 2, (4.6, 3.4), (2.2, 0.2))
    methods = list(
        dict.fromkeys(method.method for comparison in comparisons for method in comparison.methods)
    )
    for axes, comparison in zip(places, comparisons, strict=True):
        _draw_panel(axes, comparison, methods)
    add_common_legend(canvas, places, "outside right upper")
    return canvas


def _draw_panel(axes: Axes, comparison: OptimizerComparison, methods: list[str]) -> None:
    lowest = min(method.best.loss for method in comparison.methods)
    highest = HIGHEST * lowest if lowest > 0 else math.inf
    for method in comparison.methods:
        place = methods.index(method.method)
        shift = 0.5 * (place - (len(methods) - 1) / 2) / len(methods)
        _draw_method(axes, method, comparison.optimizers.index(method.optimizer) + shift, place, highest)
    if any(lowest * 1.5 < method.best.loss <= highest for method in comparison.methods) and lowest > 0:
        axes.set_yscale("log")
        format_plain_log(axes.yaxis)
    axes.set_xticks(range(len(comparison.optimizers)), comparison.optimizers)
    axes.set_xlim(-0.5, len(comparison.optimizers) - 0.5)
    axes.grid(visible=False, axis="x")
    axes.set_title(comparison.workload)
    axes.set_ylabel("best validation loss")


def _draw_method(axes: Axes, method: OptimizerMethod, x: float, place: int, highest: float) -> None:
    beyond = method.best.loss > highest
    deviation = None if method.best.summary is None else method.best.summary.deviation
    axes.errorbar(
        x,
        min(method.best.loss, highest),
        yerr=None if beyond else deviation,
        fmt="^" if beyond else MARKERS[place % len(MARKERS)],
        markerfacecolor="white" if beyond else None,
        color=COLOURS[place % len(COLOURS)],
        markersize=7,
        capsize=3,
        label=None if beyond else legend_label(method.method),
    )
