"""Match cells, baselines and budgets of an experiment with those that the thesis prints, by structure.

* A **cell** of a 3 × 3 grid over `alpha.interval` and `alpha.count` stands where it stands in the thesis'
  grid: the smallest interval for 1000, the next for 2000, and so on.
* A **baseline** is the thesis' Schedule-Free one by its optimizer, and its NAdamW with schedule if it
  follows a schedule and has no α* that acts.
* A **budget** is the thesis' by what it means: the whole schedule of that baseline or half of it where runs
  stop after steps; the baseline's time for its schedule, or the whole of `stop.train_seconds`, where they
  stop by time. The printed amounts mean the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..budget_labels import UNTIL
from ..comparison import Comparison, ReportData
from ..configurations import Configuration
from ..reference import Place
from .experiment_kind import has_grid, stops_by_time

CLOSE = 1e-3
INTERVALS, COUNTS = (1000, 2000, 5000), (10, 25, 50)
AXES = ("alpha.interval", "alpha.count")
NADAMW, SCHEDULE_FREE = "nadamw_schedule", "schedule_free_adamw"
FULL_STEPS, HALF_STEPS = "exp2_steps.budget_85328", "exp2_steps.budget_half"
SCHEDULE_TIME, WHOLE_TIME = "exp2_time.budget_13699", "exp2_time.budget_61624"
FIGURES = {FULL_STEPS: "4.9", HALF_STEPS: "B.1", SCHEDULE_TIME: "4.11", WHOLE_TIME: "4.12"}
"""The thesis' heatmaps of its budgets."""
RATE_FIGURES = {
    FULL_STEPS: {"best-worst": "4.10", "1000": "B.2–B.4", "2000": "B.2–B.4", "5000": "B.2–B.4"},
    WHOLE_TIME: {"best-worst": "4.13", "1000": "C.1", "2000": "4.14", "5000": "C.2"},
}
"""Its figures of learning rates: of the best and the worst cell, and of all cells of an interval."""
PRINTED = {85328.0: FULL_STEPS, 42664.0: HALF_STEPS, 13699.45: SCHEDULE_TIME, 61624.0: WHOLE_TIME}
FACTORS = {("steps", 1.0): FULL_STEPS, ("steps", 0.5): HALF_STEPS, ("seconds", 1.0): SCHEDULE_TIME,
           ("seconds", 4.5): WHOLE_TIME}  # fmt: skip
"""What a multiple of `until:` the scheduled baseline means; 61,624 s are 4.498 times 13,699.45 s."""


def thesis_cell(data: ReportData, configuration: Configuration) -> Place | None:
    """Return the cell of the thesis' grid that a configuration corresponds to; None if it is no such cell."""
    axes = {axis.key: axis for axis in data.axes}
    if configuration.baseline is not None or set(axes) != set(AXES):
        return None
    if any(len(axis.values) != 3 for axis in axes.values()):
        return None
    places = [axes[key].index(configuration.params.get(key)) for key in AXES]
    return None if None in places else (INTERVALS[places[0] or 0], COUNTS[places[1] or 0])


def baseline_item(configuration: Configuration) -> str | None:
    """Return the thesis' name of a baseline; None for one that it did not have."""
    if configuration.baseline is None:
        return None
    config = configuration.runs[0].row.config
    if (config.get("optimizer") or {}).get("name") == "schedule_free_adamw":
        return SCHEDULE_FREE
    return NADAMW if configuration.is_scheduled else None


def scheduled_configuration(data: ReportData) -> Configuration | None:
    """Return the first baseline (else the first configuration) that only follows a schedule."""
    scheduled = [configuration for configuration in data.configurations if configuration.is_scheduled]
    baselines = [configuration for configuration in scheduled if configuration.baseline is not None]
    return next(iter([*baselines, *scheduled]), None)


def budget_item(data: ReportData, comparison: Comparison) -> str | None:
    """Return the thesis' name of a budget; None without a matching budget, as on the other clock."""
    if comparison.clock != data.clock:
        return None
    if not has_grid(data.experiment) or (comparison.kind == "seconds") != stops_by_time(data.experiment):
        return None
    label, value = comparison.budget.label, comparison.budget.value
    until = UNTIL.fullmatch(label)
    if until is not None:
        return FACTORS.get((comparison.kind, float(until["factor"] or 1)))
    return _item_of_amount(value, PRINTED) or _item_by_extent(data, comparison)


def figure_note(data: ReportData, number: str | None) -> str:
    """Return a note that names the corresponding figure of the thesis; empty without one."""
    return f" Thesis, figure {number}." if data.reference is not None and number else ""


def _item_by_extent(data: ReportData, comparison: Comparison) -> str | None:
    value, label, runs = comparison.budget.value, comparison.budget.label, data.experiment.runs
    if comparison.kind == "seconds":
        stop_seconds = max((run.stop.get("train_seconds") or 0.0 for run in runs), default=0.0)
        return WHOLE_TIME if label == "all" else _item_of_amount(value, {stop_seconds: WHOLE_TIME})
    steps = max((run.schedule_steps or 0 for run in runs), default=0)
    return _item_of_amount(value, {float(steps): FULL_STEPS, steps / 2: HALF_STEPS})


def _item_of_amount(value: float | None, names: Mapping[float, str]) -> str | None:
    """Return the name of an amount, to a thousandth: 13,699 s, or the last step but one, mean the same."""
    matches = (name for amount, name in names.items() if math.isclose(value or 0.0, amount, rel_tol=CLOSE))
    return next(matches, None)
