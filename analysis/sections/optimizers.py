"""Methods with several optimizers, on each workload: the best of each, and its regret."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from ..comparison import ReportData
from ..methods_by_optimizer import Crossing, Field, fields, percent_text
from ..plots.canvas import COLOURS, common_legend, legend_label, panels, plain_log
from ..plots.figure import Figure
from ..tables import Cell, Table, decimals_to_differ
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
"""Losses more than so many times the lowest are drawn at the upper edge."""


def applies(data: ReportData) -> bool:
    """Tell whether several optimizers ran on one workload, each with several methods."""
    return bool(fields(data.configurations))


def tables(data: ReportData) -> list[Table]:
    """Return one row for each workload, optimizer and method, the lowest loss first in each workload."""
    pairs = [
        (field, one)
        for field in fields(data.configurations)
        for one in sorted(field.crossings, key=lambda one: one.best.loss)
    ]
    finite = [one.best.loss for _, one in pairs if math.isfinite(one.best.loss)]
    decimals = decimals_to_differ(finite, at_most=5)
    shown = tuple(_shown(field, one, decimals) for field, one in pairs)
    rows = tuple(_raw(field, one) for field, one in pairs)
    return [Table("optimizers", TITLE, COLUMNS, shown, RAW_COLUMNS, rows, RIGHT, (REGRET,))]


def figures(data: ReportData) -> list[Figure]:
    """Return the best losses, a panel for each workload."""
    caption = (
        "Best validation loss of each method's best configuration, mean over seeds, bars: ± 1 SD. An arrow: "
        f"more than {HIGHEST} times the lowest."
    )
    return [Figure("optimizers", TITLE, caption, partial(_draw, fields(data.configurations)))]


def _shown(field: Field, one: Crossing, decimals: int) -> tuple[str, ...]:
    own = field.regret(one, one.optimizer)
    deviations = None if own is None else own.deviations
    return (
        field.workload,
        one.optimizer,
        one.method,
        str(one.k),
        loss_text(one.best.summary, decimals),
        percent_text(own),
        "–" if deviations is None else f"{deviations:+.1f}",
        percent_text(field.regret(one)),
        "–" if one.best.rate is None else f"{one.best.rate:g}",
    )


def _raw(field: Field, one: Crossing) -> tuple[Cell, ...]:
    own, overall, summary = field.regret(one, one.optimizer), field.regret(one), one.best.summary
    assert summary is not None
    return (
        field.workload,
        one.optimizer,
        one.method,
        one.k,
        summary.mean,
        summary.deviation,
        summary.n,
        None if own is None else own.percent,
        None if own is None else own.deviations,
        None if overall is None else overall.percent,
        one.best.rate,
        one.label,
    )


def _draw(found: list[Field]) -> Canvas:
    canvas, places = panels(len(found), 2, (4.6, 3.4), (2.2, 0.2))
    methods = list(dict.fromkeys(one.method for field in found for one in field.crossings))
    for axes, field in zip(places, found, strict=True):
        _panel(axes, field, methods)
    common_legend(canvas, places, "outside right upper")
    return canvas


def _panel(axes: Axes, field: Field, methods: list[str]) -> None:
    lowest = min(one.best.loss for one in field.crossings)
    highest = HIGHEST * lowest if lowest > 0 else math.inf
    for one in field.crossings:
        place = methods.index(one.method)
        shift = 0.5 * (place - (len(methods) - 1) / 2) / len(methods)
        _point(axes, one, field.optimizers.index(one.optimizer) + shift, place, highest)
    if any(lowest * 1.5 < one.best.loss <= highest for one in field.crossings) and lowest > 0:
        axes.set_yscale("log")
        plain_log(axes.yaxis)
    axes.set_xticks(range(len(field.optimizers)), field.optimizers)
    axes.set_xlim(-0.5, len(field.optimizers) - 0.5)
    axes.grid(visible=False, axis="x")
    axes.set_title(field.workload)
    axes.set_ylabel("best validation loss")


def _point(axes: Axes, one: Crossing, x: float, place: int, highest: float) -> None:
    beyond = one.best.loss > highest
    deviation = None if one.best.summary is None else one.best.summary.deviation
    axes.errorbar(
        x,
        min(one.best.loss, highest),
        yerr=None if beyond else deviation,
        fmt="^" if beyond else MARKERS[place % len(MARKERS)],
        markerfacecolor="white" if beyond else None,
        color=COLOURS[place % len(COLOURS)],
        markersize=7,
        capsize=3,
        label=None if beyond else legend_label(one.method),
    )
