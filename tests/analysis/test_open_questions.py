"""What the report says of the thesis' open questions, and when these sections stay away."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import pytest
from alphagrid.analysis.alpha_by_batch_size import least_squares_slope
from alphagrid.analysis.compare_runs import compare
from alphagrid.analysis.comparison import ReportData
from alphagrid.analysis.data import ExperimentData, RunData
from alphagrid.analysis.sections.baseline_differences import BaselineDifferencesSection
from alphagrid.analysis.sections.batch_scaling import BatchScalingSection
from alphagrid.analysis.sections.bias_over_passes import BiasOverPassesSection
from alphagrid.analysis.sections.optimizers import OptimizersSection
from alphagrid.analysis.sections.time_to_result import TimeToResultSection
from alphagrid.analysis.significance import Difference, holm
from alphagrid.store.queries import AlphaRow, Estimate, EvaluationRow, EventRow, RunRow
from hypothesis import given
from hypothesis import strategies as st

COSINE = {"name": "warmup_cosine", "total_steps": 100}


def run(
    losses: Sequence[float],
    seed: int = 0,
    *,
    baseline: str | None = None,
    params: dict[str, Any] | None = None,
    alphas: Sequence[AlphaRow] = (),
    rows: int | None = None,
    **config: Any,
) -> RunData:
    """Return a finished run, evaluated every 10 steps of a second each."""
    whole: dict[str, Any] = {
        "workload": {"name": "clicks"},
        "optimizer": {"name": "nadamw", "lr": 1.0},
        "seed": seed,
        **config,
    }
    name = f"{baseline}-{params}-{config}-{seed}"
    step = 10 * len(losses)
    given: dict[str, Any] = {
        "id": name,
        "name": name,
        "baseline": baseline,
        "params": params or {},
        "config": whole,
    }
    given |= {"named": True, "attempts": 1, "superseded": 0, "step": step, "train_seconds": float(step)}
    row = RunRow(
        **cast(Any, dict.fromkeys(RunRow.__dataclass_fields__) | given | {"end_status": "completed"})
    )
    evaluations = tuple(
        EvaluationRow(10 * n, 10.0 * n, 1, 0.0, {"validation": loss}, {}, 0.1, False)
        for n, loss in enumerate(losses, 1)
    )
    events = (EventRow(0, 0.0, 0.0, 1, "training_started", {"train_examples": rows}),) if rows else ()
    return RunData(row, evaluations, events=events, alphas=tuple(alphas))


def report(*runs: RunData) -> ReportData:
    numbered = [_numbered(one, key) for key, one in enumerate(runs)]
    return compare(ExperimentData("exp", tuple(numbered)), steps=["all"])


def _numbered(one: RunData, key: int) -> RunData:
    return replace(one, row=replace(one.row, key=key))


def alpha(step: int, **estimates: Estimate) -> AlphaRow:
    return AlphaRow(step, 0, 1, 0.1, 0.1, estimates, None, None, None, None, None)


@given(st.lists(st.floats(0, 1) | st.none(), max_size=8))
def test_holm_never_lowers_a_p_and_keeps_their_order(ps: list[float | None]) -> None:
    corrected = holm(ps)
    pairs = [(p, q) for p, q in zip(ps, corrected, strict=True) if p is not None and q is not None]
    assert [p is None for p in ps] == [q is None for q in corrected]
    assert all(p <= q <= 1 for p, q in pairs)
    assert all(q1 <= q2 for p1, q1 in pairs for p2, q2 in pairs if p1 < p2)


def test_holm_is_that_of_the_literature() -> None:
    assert holm([0.01, 0.04, 0.03, None, 0.005]) == [pytest.approx(0.03), 0.06, 0.06, None, 0.02]


def test_a_difference_is_students_paired_test() -> None:
    from scipy.stats import ttest_rel

    mine, theirs = [1.0, 2.0, 4.0, 3.5], [0.5, 2.5, 2.0, 3.0]
    found = Difference.of([a - b for a, b in zip(mine, theirs, strict=True)])
    expected = ttest_rel(mine, theirs)
    interval = expected.confidence_interval()
    assert found is not None
    assert found.p == pytest.approx(expected.pvalue)
    assert found.mean + cast(float, found.half_width) == pytest.approx(interval.high)
    assert Difference.of([]) is None
    assert Difference.of([1.0]) == Difference(1.0, None, 1, None, None)


def test_differences_to_a_baseline_are_tested_seed_by_seed() -> None:
    noise = (0.3, 0.0, -0.2)  # what seeds share; a comparison that is not paired would drown in it
    base = [run([1 + n, 1 + n], s, baseline="sgd", schedule=COSINE) for s, n in enumerate(noise)]
    better = [run([0.9 + n + s / 1000], s, params={"x": 1}, x=1) for s, n in enumerate(noise)]
    same = [run([1 + n + 0.1 * (s - 1)], s, params={"x": 2}, x=2) for s, n in enumerate(noise)]
    (table,) = BaselineDifferencesSection().tables(report(*better, *same, *base))
    assert (table.columns[-1], table.raw_columns[-1]) == ("significant", "told apart")
    first, second = (dict(zip(table.raw_columns, row, strict=True)) for row in table.rows)
    assert (first["configuration"], first["told apart"], first["n"]) == ("x 1", "better", 3)
    assert first["difference of the best loss"] == pytest.approx(-0.099)
    assert first["steps in the baseline's (%)"] == pytest.approx(50)
    assert second["told apart"] == "no"
    (figure,) = BaselineDifferencesSection().figures(report(*better, *same, *base))
    assert len(figure.draw().axes) == 1
    assert not BaselineDifferencesSection().applies(report(*better, *same))


def test_a_single_seed_tells_nothing_apart() -> None:
    (table,) = BaselineDifferencesSection().tables(
        report(run([0.1], params={"x": 1}), run([1.0], baseline="sgd"))
    )
    ((*_, p, corrected, verdict),) = table.rows
    assert (p, corrected, verdict) == (None, None, "no")


def search(seed: int) -> list[RunData]:
    """Return a schedule at three rates, of 30, 40 and 50 s, and `ema` without any choice."""
    curves = {1e-3: [3.0, 2.0, 1.5], 1e-2: [3.0, 1.2, 1.0, 1.0], 1e-1: [5.0, 4.0, 3.0, 2.0, 2.0]}
    found = [
        run(
            curve,
            seed,
            params={"optimizer.lr": rate},
            schedule=COSINE,
            optimizer={"name": "nadamw", "lr": rate},
        )
        for rate, curve in curves.items()
    ]
    ema = {"policy": "ema", "estimator": "lookahead"}
    return [*found, run([2.0, 1.1, 0.9, 0.8], seed, alpha=ema, optimizer={"name": "nadamw", "lr": None})]


def test_a_search_pays_for_its_losers_and_for_the_winner_until_the_target() -> None:
    (table,) = TimeToResultSection().tables(report(*search(0), *search(1)))
    ema, cosine = (dict(zip(table.raw_columns, row, strict=True)) for row in table.rows)
    assert (cosine["method"], cosine["searched"], cosine["result"]) == ("warmup_cosine", 3, 1.0)
    assert cosine["seconds_of_all_runs"] == 30 + 40 + 50
    assert cosine["seconds_to_target"] == 30 + 50 + 30  # the winner gets there with its third evaluation
    assert (ema["method"], ema["searched"], ema["seconds_to_target"]) == ("ema", 1, 30)
    assert ema["in_the_references"] == pytest.approx(30 / 110)
    (figure,) = TimeToResultSection().figures(report(*search(0), *search(1)))
    lines = {line.get_label(): line for line in figure.draw().axes[0].lines}
    assert list(cast(Any, lines["warmup_cosine (3)"].get_xdata())) == pytest.approx([40, 80, 120])
    assert list(cast(Any, lines["ema"].get_ydata())) == [2.0, 1.1, 0.9, 0.8]


def test_a_method_that_stays_above_the_target_has_no_time_to_it() -> None:
    runs = [*search(0)[:3], run([2.0, 1.01], alpha={"policy": "ema"})]
    (table,) = TimeToResultSection().tables(report(*runs))
    assert table.rows[-1][table.raw_columns.index("seconds_to_target")] is None
    assert dict(zip(table.columns, table.shown[-1], strict=True))["seeds that reach the target"] == "0 of 1"


def test_workloads_that_differ_in_their_fourth_key_have_names_and_times_of_their_own() -> None:
    options = [(1, 1, 1, 1), (1, 1, 1, 2), (2, 2, 2, 2)]  # the first two alike in three keys
    workloads = [{"name": "clicks", **dict(zip("abcd", values, strict=True))} for values in options]
    runs = [
        run(
            losses,
            workload=workload,
            params={"workload": workload, **params},
            optimizer={"name": "nadamw", **params},
            **method,
        )
        for workload in workloads
        for losses, params, method in (
            ([2.0, 1.0], {"lr": 0.1}, {"schedule": COSINE}),
            ([2.0, 1.5], {"lr": 0.2}, {"schedule": COSINE}),
            ([2.0, 0.9], {"lr": None}, {"alpha": {"policy": "ema"}}),
        )
    ]
    (table,) = TimeToResultSection().tables(report(*runs))
    assert len({row[:2] for row in table.rows}) == len(table.rows) == 6


def test_a_search_with_a_run_that_diverged_expects_a_result_once_no_choice_is_of_such_runs_alone() -> None:
    rate = {"name": "nadamw", "lr": 10.0}
    nothing = run([math.nan] * 4, params={"optimizer.lr": 10.0}, schedule=COSINE, optimizer=rate)
    (figure,) = TimeToResultSection().figures(report(*search(0), nothing))
    lines = {line.get_label(): line for line in figure.draw().axes[0].lines}
    expected = list(cast(Any, lines["warmup_cosine (4)"].get_ydata()))
    assert expected[0] == math.inf
    assert all(map(math.isfinite, expected[1:]))


def test_a_search_that_has_not_ended_with_any_seed_is_no_contest() -> None:
    first, *others = search(0)
    waiting = replace(first, row=replace(first.row, end_status=None))
    assert TimeToResultSection().applies(report(*search(0)))
    assert not TimeToResultSection().applies(report(waiting, *others))


def test_methods_are_held_against_the_schedule_of_their_optimizer_and_of_the_workload() -> None:
    losses = {
        ("nadamw", 1e-3): 0.5, ("nadamw", 1e-2): 0.4, ("sgd", 1e-2): 0.8, ("sgd", 1e-1): 0.6,
    }  # fmt: skip
    runs = [
        run([loss + seed / 100], seed, params={"optimizer": {"name": name, "lr": rate}}, schedule=COSINE,
            optimizer={"name": name, "lr": rate})
        for (name, rate), loss in losses.items() for seed in (0, 1)
    ] + [
        run([loss], params={"optimizer": {"name": name}}, alpha={"policy": "ema"}, optimizer={"name": name})
        for name, loss in (("nadamw", 0.41), ("sgd", 0.66))
    ]  # fmt: skip
    (table,) = OptimizersSection().tables(report(*runs))
    rows = {(row[1], row[2]): dict(zip(table.raw_columns, row, strict=True)) for row in table.rows}
    assert rows["nadamw", "warmup_cosine"]["best_validation_loss"] == pytest.approx(0.405)
    assert rows["nadamw", "warmup_cosine"]["configurations"] == 2
    ema = rows["sgd", "ema"]
    assert ema["regret_in_optimizer_percent"] == pytest.approx(100 * (0.66 / 0.605 - 1))
    assert ema["regret_in_workload_percent"] == pytest.approx(100 * (0.66 / 0.405 - 1))
    (figure,) = OptimizersSection().figures(report(*runs))
    (panel,) = figure.draw().axes
    assert [tick.get_text() for tick in panel.get_xticklabels()] == ["nadamw", "sgd"]
    assert not OptimizersSection().applies(report(*runs[:4], runs[-2]))


def batch_runs(exponent: float, level: float = 1e-3) -> list[RunData]:
    found = []
    for size in (32, 64, 128):
        values = [level * size**exponent * factor for factor in (0.5, 1.0, 2.0)]
        alphas = [alpha(step, unbiased=Estimate(1.0, value)) for step, value in enumerate(values)]
        workload = {"name": "clicks", "batch_size": size // 2, "accumulate": 2}
        params = {"workload.batch_size": size // 2}
        found += [run([1.0], seed, params=params, workload=workload, alphas=alphas) for seed in (0, 1)]
    return found


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_the_exponent_of_alpha_in_the_batch_is_found(exponent: float) -> None:
    data = report(*batch_runs(exponent))
    values, fits = BatchScalingSection().tables(data)
    assert [row[2] for row in fits.rows] == pytest.approx([exponent, exponent])
    assert [row[1] for row in values.rows] == [32, 64, 128]
    ratios = [cast(float, row[values.columns.index("median / smallest batch's")]) for row in values.rows]
    assert ratios == pytest.approx([1.0, 2**exponent, 4**exponent])
    assert values.rows[-1][-2:] == (4.0, 2.0)  # the linear rule, and that of the square root
    (figure,) = BatchScalingSection().figures(data)
    assert len(figure.draw().axes) == 2


def test_batches_need_three_sizes_and_values_above_zero_for_an_exponent() -> None:
    assert not BatchScalingSection().applies(report(*batch_runs(1.0)[:4]))
    values, fits = BatchScalingSection().tables(report(*batch_runs(1.0, level=-1e-3)))
    assert len(values.rows) == 3
    assert fits.rows == ()
    (figure,) = BatchScalingSection().figures(report(*batch_runs(1.0, level=-1e-3)))
    assert len(figure.draw().axes) == 2


@given(st.floats(-3, 3), st.floats(-10, 10), st.lists(st.floats(-5, 5), min_size=2, unique=True))
def test_the_slope_of_points_on_a_line_is_the_lines(power: float, start: float, xs: list[float]) -> None:
    if max(xs) - min(xs) > 1e-2:
        assert math.isclose(least_squares_slope(xs, [start + power * x for x in xs]), power, abs_tol=1e-6)


def test_the_bias_of_both_parts_is_told_by_passes() -> None:
    alphas = [
        alpha(step, biased=Estimate(slope=-4.0, curvature=2.0), unbiased=Estimate(slope=s, curvature=c))
        for step, s, c in [(0, -2.0, 2.0), (9, -2.0, 2.0), (10, -1.0, 1.0), (25, 1.0, 0.5), (39, -1.0, 0.5)]
    ]
    runs = [
        run([1.0], seed, rows=100, workload={"name": "clicks", "batch_size": 10}, alphas=alphas)
        for seed in (0, 1)
    ]
    (table,) = BiasOverPassesSection().tables(report(*runs))
    named = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert [(row["passes"], row["n"]) for row in named] == [("1", 4), ("2", 2), ("3–4", 4)]
    assert [row["numerator: bias (%)"] for row in named] == pytest.approx([50, 75, 100])
    assert [row["denominator: bias (%)"] for row in named] == pytest.approx([0, 50, 75])
    assert named[0]["numerator: biased"] == 4.0
    (figure,) = BiasOverPassesSection().figures(report(*runs))
    assert len(figure.draw().axes) == 2


def test_data_without_a_known_size_or_without_a_second_pass_has_no_passes() -> None:
    both = [
        alpha(5, biased=Estimate(slope=-1.0, curvature=1.0), unbiased=Estimate(slope=-1.0, curvature=1.0))
    ]
    workload = {"name": "clicks", "batch_size": 10}
    assert not BiasOverPassesSection().applies(report(run([1.0], workload=workload, alphas=both)))
    assert not BiasOverPassesSection().applies(report(run([1.0], rows=100, workload=workload, alphas=both)))
    assert BiasOverPassesSection().applies(report(run([1.0], rows=30, workload=workload, alphas=both)))
