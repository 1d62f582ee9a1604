"""The kind of an experiment, from its configs: observation of α*, a grid of medians, stops by time."""

from __future__ import annotations

from dataclasses import replace

from ..data import ExperimentData, RunData


def has_grid(data: ExperimentData) -> bool:
    """Return whether medians of α* act in some run that is no baseline."""
    return any(is_grid_of_medians(run) for run in data.runs)


def observes(data: ExperimentData) -> bool:
    """Return whether some run only observes α*."""
    return any(run.config_section("alpha").get("policy") == "observe" for run in data.runs)


def stops_by_time(data: ExperimentData) -> bool:
    """Return whether the grid's runs stop after a training time."""
    return any(run.stop.get("train_seconds") for run in data.runs if is_grid_of_medians(run))


def step_budgets(data: ExperimentData) -> list[str]:
    """Return the thesis' budgets of steps, half the schedule and the whole; none where runs stop by time."""
    first = next((run for run in data.runs if run.baseline is not None and run.schedule_steps), None)
    if first is None or not has_grid(data) or stops_by_time(data):
        return []
    return [f"0.5*until:{first.baseline}", f"until:{first.baseline}"]


def without_evaluations_at_stop(data: ExperimentData) -> ExperimentData:
    """Leave out the evaluations that took place because a run stopped, as the thesis made none of those.

    A run that was never evaluated otherwise but after its first step keeps them.
    """
    return replace(data, runs=tuple(map(_without_stop_evaluations, data.runs)))


def _without_stop_evaluations(run: RunData) -> RunData:
    evaluations = tuple(row for row in run.evaluations if not row.at_stop)
    return replace(run, evaluations=evaluations) if any(row.step > 1 for row in evaluations) else run


def is_grid_of_medians(run: RunData) -> bool:
    """Return whether a run is no baseline and medians of α* set its learning rate."""
    return run.baseline is None and run.config_section("alpha").get("policy") == "median"
