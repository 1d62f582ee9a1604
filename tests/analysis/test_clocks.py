"""Laws of the normalised clock, and what pooling costs over runs means."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any, cast

import pytest
from alphagrid.analysis.clocks import Timeline, normalised, normalised_if_known
from alphagrid.analysis.costs import PooledCosts, StepCost, expected_steps, slow_nodes
from alphagrid.analysis.data import ExperimentData, RunData
from alphagrid.analysis.statistics import median, weighted_median
from alphagrid.store.queries import AttemptRow, EvaluationRow, RunRow, WindowRow
from hypothesis import given
from hypothesis import strategies as st

COSTS = st.floats(1e-4, 10.0)
WINDOWS = st.lists(
    st.integers(1, 20).flatmap(lambda steps: st.tuples(st.just(steps), st.integers(0, steps))), max_size=8
)
NORMAL = StepCost(plain=0.5, alpha=2.0, data=0.25)


def window(step: int, steps: int, alpha_steps: int, cost: StepCost, seconds: float = 0.0) -> WindowRow:
    costs = {"plain": cost.plain, "alpha": cost.alpha, "data": cost.data}
    if alpha_steps == 0:
        del costs["alpha"]
    if alpha_steps == steps:
        del costs["plain"]
    rates = (0.1, 0.1, 0.1)
    return WindowRow(
        step, seconds, 1, 0.0, steps, alpha_steps, 1.0, *rates, {}, cast(dict[str, float], costs)
    )


def run(
    name: str, shape: list[tuple[int, int]], cost: StepCost = NORMAL, config: dict[str, Any] | None = None
) -> RunData:
    """Return a run on the node called like it, with windows of this shape, every step at its cost."""
    windows, step, seconds = [], 0, 0.0
    for steps, alpha_steps in shape:
        step += steps
        seconds += cost.seconds(window(step, steps, alpha_steps, cost)) or 0.0
        windows.append(window(step, steps, alpha_steps, cost, seconds))
    evaluations = [
        EvaluationRow(w.step, w.train_seconds, 1, 0.0, {"validation": 1.0}, {}, 0.1, False) for w in windows
    ]
    given = {
        "key": 0,
        "id": name,
        "name": name,
        "params": {},
        "config": config or {"alpha": {"policy": "ema"}},
    }
    row = RunRow(
        **cast(
            Any, dict.fromkeys(RunRow.__dataclass_fields__) | given | {"step": step, "train_seconds": seconds}
        )
    )
    on = {"attempt": 1, "host": name, "device": "cpu"}
    attempt = AttemptRow(**cast(Any, dict.fromkeys(AttemptRow.__dataclass_fields__) | on))
    return RunData(row, tuple(evaluations), tuple(windows), (attempt,))


def times(data: ExperimentData) -> list[list[float]]:
    return [
        [row.train_seconds for row in one.evaluations] + [row.train_seconds for row in one.windows]
        for one in data.runs
    ]


def experiment(*runs: RunData) -> ExperimentData:
    return ExperimentData("exp", runs)


@given(WINDOWS, COSTS, COSTS, COSTS, st.lists(st.integers(0, 200), min_size=2))
def test_time_never_falls_from_step_to_step(
    shape: list[tuple[int, int]], plain: float, alpha: float, data: float, steps: list[int]
) -> None:
    timeline = Timeline.of(run("a", shape).windows, StepCost(plain, alpha, data))
    assert timeline is not None
    ordered = [timeline.at(step) for step in sorted(steps)]
    assert all(later >= earlier * (1 - 1e-12) for earlier, later in pairwise(ordered))
    assert timeline.at(0) == 0


@given(st.lists(WINDOWS.filter(bool), min_size=1, max_size=4), COSTS, COSTS, COSTS)
def test_where_every_step_costs_the_median_both_clocks_are_one(
    shapes: list[list[tuple[int, int]]], plain: float, alpha: float, data: float
) -> None:
    cost = StepCost(plain, alpha, data)
    runs = experiment(*(run(str(place), shape, cost) for place, shape in enumerate(shapes)))
    for found, measured in zip(times(normalised(runs)), times(runs), strict=True):
        assert found == pytest.approx(measured)


@given(WINDOWS.filter(bool), st.floats(1.0, 1e6), st.floats(1.0, 1e6))
def test_how_slow_one_slow_node_is_changes_no_normalised_time(
    shape: list[tuple[int, int]], one: float, other: float
) -> None:
    def with_slow_node(factor: float) -> ExperimentData:
        slow = StepCost(*(factor * cast(float, cost) for cost in (NORMAL.plain, NORMAL.alpha, NORMAL.data)))
        return experiment(run("a", shape), run("slow", shape, slow), run("b", shape))

    assert times(normalised(with_slow_node(one))) == times(normalised(with_slow_node(other)))
    alike = normalised(with_slow_node(one))
    assert times(alike)[1] == times(alike)[0]


@given(st.lists(st.tuples(st.floats(-5, 5), st.integers(1, 4)), min_size=1, max_size=8))
def test_a_weighted_median_is_the_median_of_repeated_values(pairs: list[tuple[float, int]]) -> None:
    repeated = [value for value, times in pairs for _ in range(times)]
    assert weighted_median(pairs) == pytest.approx(median(repeated))


def test_inside_a_window_time_is_shared_and_after_the_last_one_it_goes_on_at_the_mean() -> None:
    timeline = Timeline.of(run("a", [(10, 0), (10, 10)]).windows, StepCost(1.0, 3.0, 0.0))
    assert timeline is not None
    assert [timeline.at(step) for step in (0, 5, 10, 15, 20, 22)] == [0, 5, 10, 25, 40, 44]


def test_a_lost_window_is_filled_at_the_cost_of_the_next() -> None:
    windows = run("a", [(10, 0), (10, 0), (10, 10)]).windows
    timeline = Timeline.of((windows[0], windows[2]), StepCost(1.0, 3.0, 0.0))
    assert timeline is not None
    assert timeline.at(30) == 10 + 2 * 30


def test_plain_steps_are_pooled_over_methods_but_alpha_steps_only_where_alpha_is_computed_alike() -> None:
    workload = {"name": "w", "batch_size": 8}

    def method(batch: int = 8, **alpha: Any) -> dict[str, Any]:
        return {
            "workload": {**workload, "batch_size": batch},
            "optimizer": {"name": "o", "lr": 0.1},
            "alpha": alpha,
        }

    shape = [(10, 5)]
    fast, slow = StepCost(1.0, 2.0, 0.1), StepCost(3.0, 6.0, 0.3)
    one = run("a", shape, fast, method(policy="ema", estimator="lookahead", scale=1.0))
    scaled = run("b", shape, fast, method(policy="ema", estimator="lookahead", scale=2.0))
    other = run("c", shape, slow, method(policy="ema", estimator="unbiased"))
    larger = run("d", shape, slow, method(batch=16, policy="ema", estimator="lookahead"))
    pooled = PooledCosts.of([one, scaled, other, larger])
    assert pooled.cost(one) == pooled.cost(scaled) == fast
    assert pooled.cost(other) == replace(fast, alpha=6.0)
    assert pooled.cost(larger) == slow


def test_a_node_more_than_a_tenth_slower_is_slow_whatever_its_alpha_steps_cost() -> None:
    shape = [(10, 5)]
    nodes = [run("a", shape), run("b", shape), run("c", shape)]
    usual = run("usual", shape, StepCost(0.54, 9.0, 0.25))
    slow = run("slow", shape, StepCost(0.6, 2.0, 0.25))
    assert slow_nodes([*nodes, usual, slow]) == {"slow": pytest.approx(1.2)}


def test_steps_within_the_time_of_plain_ones() -> None:
    assert expected_steps(0.0, 70.0) == 1
    assert expected_steps(1.0, 2.0) == 0.5
    assert expected_steps(0.01, 70.0) == pytest.approx(1 / 1.69)
    assert StepCost(1.0, 2.0, 1.0).ratio == 1.5


def test_runs_that_have_not_begun_are_left_alone_and_without_any_step_there_is_no_other_clock() -> None:
    waiting = run("waiting", [])
    assert normalised(experiment(waiting)) == experiment(waiting)
    assert normalised_if_known(experiment(waiting)) is None
    both = normalised_if_known(experiment(waiting, run("a", [(10, 0)])))
    assert both is not None
    assert both.runs[0] is waiting


def test_without_weight_there_is_no_median() -> None:
    assert weighted_median([]) is None
    assert weighted_median([(1.0, 0.0)]) is None
