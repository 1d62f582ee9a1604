"""The learning rates that were used, and the medians that were accepted and rejected."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from ..comparison import ReportData
from ..configurations import Configuration
from ..data import RunData
from ..plots.canvas import format_plain_log, format_thousands, new_canvas
from ..plots.configuration_curves import Points, add_legend, draw_lines
from ..plots.figure import Figure
from ..statistics import MeanAndSD, mean_of
from ..tables import Cell, Table
from .base import ReportSection

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

TITLE = "Learning rates"
COLUMNS = ("configuration", "mean", "lowest", "highest", "last", "accepted", "rejected")


class LearningRatesSection(ReportSection):
    """The section “Learning rates”."""

    title = TITLE

    def applies(self, data: ReportData) -> bool:
        """Return whether any window recorded a learning rate."""
        return any(_rate_points(run) for run in data.experiment.runs)

    def tables(self, data: ReportData) -> list[Table]:
        """Return the rates of each configuration: every step weighs the same, seeds are pooled."""
        rows = [_rates_row(configuration) for configuration in data.configurations]
        notes = (
            "Accepted and rejected count medians of α* that became, or did not become, the learning rate.",
        )
        acts = any(row[5] or row[6] for row in rows)
        if not acts:
            rows = [row[:5] for row in rows]
        return [
            Table.of("learning-rates", TITLE, COLUMNS if acts else COLUMNS[:5], rows, notes if acts else ())
        ]

    def figures(self, data: ReportData) -> list[Figure]:
        """Return the rates over steps."""
        caption = (
            "Mean rate of each window of steps; over several seeds their mean, shaded from lowest to highest."
        )
        return [Figure("learning-rates", TITLE, caption, partial(_draw_learning_rates, data))]


def _rates_row(configuration: Configuration) -> tuple[Cell, ...]:
    windows = [w for run in configuration.runs for w in run.windows if math.isfinite(w.lr_mean)]
    steps = sum(window.steps for window in windows)
    last = MeanAndSD.of(run.row.learning_rate for run in configuration.runs)
    return (
        configuration.label,
        math.fsum(w.lr_mean * w.steps for w in windows) / steps if steps else None,
        min((w.lr_min for w in windows), default=None),
        max((w.lr_max for w in windows), default=None),
        mean_of(last),
        _count_events(configuration.runs, "learning_rate"),
        _count_events(configuration.runs, "rejected"),
    )


def _count_events(runs: Sequence[RunData], event: str) -> int:
    return sum(row.event == event for run in runs for row in run.events)


def _draw_learning_rates(data: ReportData) -> Canvas:
    canvas = new_canvas(9, 4.3)
    axes = canvas.subplots()
    draw_lines(axes, data, _rate_points, steps=True)
    rates = [rate for run in data.experiment.runs for _, rate in _rate_points(run)]
    axes.set_ylim(max(min(rates), max(rates) / 3e3) / 1.3, max(rates) * 1.3)
    axes.set_yscale("log")
    format_plain_log(axes.yaxis)
    axes.set_xlim(left=0)
    format_thousands(axes.xaxis)
    axes.set_xlabel("step")
    axes.set_ylabel("learning rate (logarithmic)")
    add_legend(axes)
    return canvas


def _rate_points(run: RunData) -> Points:
    """Return (step, rate) at each window end; a rate of 0 has no place on a logarithmic axis."""
    ends = [(row.step, row.lr_mean) for row in run.windows if 0 < row.lr_mean < math.inf]
    start = run.windows[0].step - run.windows[0].steps if run.windows else 0
    return [(start, ends[0][1]), *ends] if ends else []
