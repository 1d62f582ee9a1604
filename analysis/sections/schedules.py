"""The schedule that was followed, and the schedule of the benchmark that the thesis scaled."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ..comparison import ReportData
from ..configurations import Configuration
from ..data import RunData
from ..observed_alphas import highest_rate, over_seeds
from ..plots.canvas import COLOURS, label_rates_over_steps, new_canvas
from ..plots.figure import Figure
from ..plots.rates_over_steps import rate_points
from ..rates import rate_statistics
from ..reference import Key, Reference
from ..tables import Table
from ..thesis.compared_statistics import Statistic, statistics_table
from ..thesis.matching import scheduled_configuration
from .base import ReportSection

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

TITLE = "The learning rate schedule"
NOTE = "Of the first configuration that only follows a schedule; every step weighs the same."


class SchedulesSection(ReportSection):
    """The section “The learning rate schedule”."""

    title = TITLE

    def applies(self, data: ReportData) -> bool:
        """Return whether a run follows nothing but a schedule."""
        return scheduled_configuration(data) is not None and self.has_values(data)

    def tables(self, data: ReportData) -> list[Table]:
        """Return length, highest, mean and median rate."""
        return [statistics_table("schedule", TITLE, self.statistics(data), data.reference, [NOTE])]

    def figures(self, data: ReportData) -> list[Figure]:
        """Return the schedule; with the thesis as reference, also before its scaling."""
        configuration = scheduled_configuration(data)
        if configuration is None or not configuration.runs[0].windows:
            return []
        factors = None if data.reference is None else _thesis_scaling(data.reference)
        caption = "First seed: the rates as they were applied, the mean of each window."
        if factors is not None:
            caption += (
                " Dashed: before it was scaled (thesis, figure 4.1: a shorter schedule, a higher rate)."
            )
        return [Figure("schedule", TITLE, caption, partial(_draw_schedule, configuration, factors))]

    def statistics(self, data: ReportData) -> list[Statistic]:
        """Return the statistics of the schedule that was followed."""
        configuration = scheduled_configuration(data)
        if configuration is None:
            return []
        of = configuration.label
        steps = configuration.runs[0].schedule_steps
        return [
            Statistic(
                of,
                "steps of the schedule",
                steps,
                key=Key("schedule", "total_steps"),
            ),
            Statistic(
                of, "highest rate", over_seeds(configuration, highest_rate), key=Key("schedule", "max")
            ),
            Statistic(of, "mean rate", over_seeds(configuration, _mean_rate), key=Key("schedule", "mean")),
            Statistic(
                of, "median rate", over_seeds(configuration, _median_rate), key=Key("schedule", "median")
            ),
        ]


def _thesis_scaling(reference: Reference) -> tuple[float, float] | None:
    """Return by what the thesis multiplied the length of the schedule and divided its rates."""
    length = reference.value(Key("setup", "schedule_length_scale_factor"))
    rates = reference.value(Key("setup", "learning_rate_scale_factor"))
    return None if length is None or rates is None else (length, rates)


def _mean_rate(run: RunData) -> float | None:
    statistics = rate_statistics(run, run.schedule_steps)
    return None if statistics is None else statistics.mean


def _median_rate(run: RunData) -> float | None:
    statistics = rate_statistics(run, run.schedule_steps)
    return None if statistics is None else statistics.median


def _draw_schedule(configuration: Configuration, factors: tuple[float, float] | None) -> Canvas:
    canvas = new_canvas(7.5, 3.8)
    axes = canvas.subplots()
    line = rate_points(configuration.runs[0], float("inf"))
    steps, rates = [step for step, _ in line], [rate for _, rate in line]
    axes.plot(steps, rates, color=COLOURS[0], linewidth=2, label=f"{configuration.label} (as applied)")
    if factors is not None:
        length, scale = factors
        axes.plot(
            [step / length for step in steps],
            [rate * scale for rate in rates],
            color=COLOURS[1],
            linewidth=2,
            linestyle="--",
            label=f"before scaling: 1/{length:g} of the steps, {scale:g} × the rate",
        )
    label_rates_over_steps(axes)
    axes.legend(loc="upper right")
    return canvas
