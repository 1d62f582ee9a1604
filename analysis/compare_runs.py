"""Compare the runs of an experiment within budgets, on one clock and on the other clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .budget_labels import Budget, resolve_budgets
from .clocks import Clock, normalised, normalised_if_known, without_data_wait
from .comparison import Comparison, Entry, ReportData
from .configurations import Configuration, configurations, varying_axes
from .data import ExperimentData
from .reference import Reference
from .thesis.experiment_kind import step_budgets, without_evaluations_at_stop


def compare(
    data: ExperimentData,
    seconds: Sequence[str] = (),
    steps: Sequence[str] = (),
    clock: Clock = "measured",
    reference: Reference | None = None,
) -> ReportData:
    """Compare the runs of `data` within the requested budgets (or the default ones), on one clock.

    With a reference, evaluations at a run's stop are left out, and grids that stop after steps are
    compared within half a schedule and the whole one, unless budgets are requested.

    Raises:
        UserError: a budget does not apply to this experiment, or the clock is not available.
    """
    explicit = bool(seconds or steps)
    if reference is not None:
        data = without_evaluations_at_stop(data)
        steps = steps if explicit else step_budgets(data)
    data_on_clock, data_on_other_clock = _on_clock(data, clock)
    groups = tuple(configurations(data_on_clock.runs))
    comparisons = _compare_within(data_on_clock, groups, seconds, steps, clock)
    axes = tuple(varying_axes(data_on_clock.runs))
    report = ReportData(data_on_clock, groups, axes, tuple(comparisons), clock, explicit, reference)
    if data_on_other_clock is None:
        return report
    other_configurations = tuple(configurations(data_on_other_clock.runs))
    opposite = _compare_within(data_on_other_clock, other_configurations, seconds, steps, report.other_clock)
    both = tuple(_with_other_clock(*pair) for pair in zip(comparisons, opposite, strict=True))
    return replace(report, comparisons=both, on_other_clock=other_configurations)


def _on_clock(data: ExperimentData, clock: Clock) -> tuple[ExperimentData, ExperimentData | None]:
    """Return the runs on the requested clock, and on the other clock if that is available."""
    if clock == "measured":
        return data, normalised_if_known(data)
    return (normalised(data) if clock == "normalised" else without_data_wait(data)), data


def _compare_within(
    data: ExperimentData,
    groups: Sequence[Configuration],
    seconds: Sequence[str],
    steps: Sequence[str],
    clock: Clock,
) -> list[Comparison]:
    return [
        Comparison(budget, tuple(_compared_entry(budget, group) for group in groups), clock)
        for budget in resolve_budgets(data, seconds, steps)
    ]


def _with_other_clock(comparison: Comparison, other: Comparison) -> Comparison:
    return replace(comparison, on_other_clock=other) if comparison.kind == "seconds" else comparison


def _compared_entry(budget: Budget, group: Configuration) -> Entry:
    return Entry(group, tuple(run.curve.outcome(budget.limit(run), budget.kind) for run in group.runs))
