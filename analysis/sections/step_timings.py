"""Time per step by category, and the cost of an α* step relative to a plain step."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from ..comparison import ReportData
from ..configurations import Configuration
from ..costs import PooledCosts, StepCost, expected_steps, slow_nodes_note
from ..dispersion import ratio
from ..plots.canvas import COLOURS, new_canvas, put_legend_beside
from ..plots.figure import Figure
from ..reference import Key
from ..tables import Cell, Table
from ..thesis.compared_statistics import Statistic, statistics_table
from ..timings import CLOCK, OUTSIDE, AlphaStep, Timing, alpha_step, configuration_timing
from .base import ReportSection

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

TITLE = "Step timings"
COST_TITLE = "Cost of a step"
COLUMNS = ("configuration", *(f"{name} (ms/step)" for name in (*CLOCK, *OUTSIDE)))
COST_COLUMNS = (
    "configuration",
    "plain step (ms)",
    "α* step (ms)",
    "wait for data (ms)",
    "α* step / plain step",
    "share of α* steps (%)",
    "steps in a plain run's time (%)",
    "observed α* (ms)",
)
MEASURED = (
    "As measured. Diagnostics, evaluation and checkpoints are outside the clock that budgets are read from."
)
POOLED = (
    "Medians, pooled over all comparable runs; plain and α* steps without their wait for data, the ratio r "
    "with it."
)
EXPECTED = (
    "Steps in the time that plain steps alone would take, as expected from the share f of α* steps: "
    "1 / (1 + f(r − 1))."
)
OBSERVED = "Observed α*: measuring at one step, outside the clock."
PARTS_TITLE = "What a step with α* is made of"
PARTS_NOTE = (
    "Seconds per step that measures α*, be it paid for or only observed: all of α* over those steps, the "
    "rest over all steps, seeds pooled. Products with G are told apart where the journal does "
    "(`alpha_parts`)."
)
NAMES = {"forward_backward": "forward and backward", "alpha": "α*"}
MOST = 40
"""The maximum number of configurations drawn."""


class StepTimingsSection(ReportSection):
    """The section “Step timings”."""

    title = TITLE

    def applies(self, data: ReportData) -> bool:
        """Return whether any window with steps was recorded."""
        return bool(_configuration_timings(data))

    def tables(self, data: ReportData) -> list[Table]:
        """Return the measured milliseconds per step of each configuration, and what each kind costs."""
        timings = _configuration_timings(data)
        rows = [_timing_row(configuration, costs) for configuration, costs in timings]
        timings_table = Table.of("step-timings", TITLE, COLUMNS, rows, [MEASURED])
        return [timings_table, *_cost_table(data, timings), *_parts_table(data)]

    def figures(self, data: ReportData) -> list[Figure]:
        """Return the categories as stacked bars."""
        caption = "Mean over all steps as measured, seeds pooled; only what the clock of a budget counts."
        return [
            Figure(
                "step-timings", TITLE, caption, partial(_draw_timings, _configuration_timings(data)[:MOST])
            )
        ]

    def statistics(self, data: ReportData) -> list[Statistic]:
        """Return the parts of a step with α*, of each configuration that has any."""
        return _alpha_step_statistics(data)


def _alpha_step_statistics(data: ReportData) -> list[Statistic]:
    steps = [(configuration.label, alpha_step(configuration)) for configuration in data.configurations]
    return [
        statistic for label, step in steps if step is not None for statistic in _alpha_step_parts(label, step)
    ]


def _configuration_timings(data: ReportData) -> list[tuple[Configuration, Timing]]:
    timings = [(configuration, configuration_timing(configuration)) for configuration in data.configurations]
    return [(configuration, costs) for configuration, costs in timings if costs is not None]


def _timing_row(configuration: Configuration, costs: Timing) -> tuple[Cell, ...]:
    return (configuration.label, *(1e3 * costs.per_step[name] for name in (*CLOCK, *OUTSIDE)))


def _cost_table(data: ReportData, timings: list[tuple[Configuration, Timing]]) -> list[Table]:
    """Return the costs of a step, where a journal has them; the last column only where α* is observed."""
    pooled = PooledCosts.of(data.experiment.runs)
    if not pooled.data:
        return []
    observes = any(timing.observed is not None for _, timing in timings)
    columns = COST_COLUMNS if observes else COST_COLUMNS[:-1]
    rows = [_cost_row(group, pooled.cost(group.runs[0]), timing)[: len(columns)] for group, timing in timings]
    slow = slow_nodes_note(data.experiment.runs)
    notes = [POOLED, EXPECTED, *([OBSERVED] if observes else []), *([slow] if slow else [])]
    return [Table.of("cost-of-a-step", COST_TITLE, columns, rows, notes)]


def _cost_row(configuration: Configuration, cost: StepCost, timing: Timing) -> tuple[Cell, ...]:
    share, ratio = timing.alpha_share, cost.ratio
    expected = 1.0 if not share else None
    if share and ratio is not None:
        expected = expected_steps(share, ratio)
    costs = (cost.plain, cost.alpha, cost.data)
    return (
        configuration.label,
        *(_scale_value(1e3, seconds) for seconds in costs),
        ratio,
        100 * share,
        _scale_value(100, expected),
        _scale_value(1e3, timing.observed),
    )


def _scale_value(factor: float, value: float | None) -> float | None:
    return None if value is None else factor * value


def _parts_table(data: ReportData) -> list[Table]:
    statistics = _alpha_step_statistics(data)
    parted = any(window.alpha_parts for run in data.experiment.runs for window in run.windows)
    printed = data.reference is not None and any(
        data.reference.find(statistic.key) for statistic in statistics
    )
    if not statistics or not (parted or printed):
        return []
    return [statistics_table("alpha-step", PARTS_TITLE, statistics, data.reference, [PARTS_NOTE])]


def _alpha_step_parts(label: str, step: AlphaStep) -> Iterator[Statistic]:
    def statistic(words: str, value: float | None, quantity: str) -> Statistic:
        return Statistic(label, words, value, where=label, key=Key("pretest", quantity))

    yield statistic("complete step (s)", step.complete, "seconds_per_step_complete")
    yield statistic("products with G (s)", step.curvature, "seconds_per_step_ggn_linear_operator")
    yield statistic("the rest of α* (s)", step.other, "seconds_per_step_other_alpha")
    yield statistic("without α* (s)", step.rest, "seconds_per_step_non_alpha")
    yield statistic(
        "share of products with G (%)", _share_of_step(step.curvature, step), "share_ggn_linear_operator"
    )
    yield statistic("share of all α* (%)", _share_of_step(step.alpha, step), "share_all_alpha")
    yield statistic("complete step over one without α*", ratio(step.complete, step.rest), "slowdown")


def _share_of_step(part: float | None, step: AlphaStep) -> float | None:
    return None if part is None else _scale_value(100, ratio(part, step.complete))


def _draw_timings(timings: list[tuple[Configuration, Timing]]) -> Canvas:
    canvas = new_canvas(9, 0.3 * len(timings) + 1.2)
    axes = canvas.subplots()
    offsets = [0.0] * len(timings)
    for name, colour in zip(CLOCK, (COLOURS[5], COLOURS[0], COLOURS[2], COLOURS[1]), strict=True):
        widths = [1e3 * costs.per_step[name] for _, costs in timings]
        axes.barh(
            range(len(timings)),
            widths,
            left=offsets,
            color=colour,
            label=NAMES.get(name, name),
            height=0.72,
        )
        offsets = [start + width for start, width in zip(offsets, widths, strict=True)]
    axes.set_yticks(range(len(timings)), [configuration.label for configuration, _ in timings])
    axes.set_ylim(len(timings) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("training time per step (ms)")
    put_legend_beside(axes)
    return canvas
