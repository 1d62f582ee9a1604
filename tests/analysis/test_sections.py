"""What each section of the report says, and when it stays away."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from alphagrid.analysis.compare_runs import compare
from alphagrid.analysis.comparison import ReportData
from alphagrid.analysis.data import ExperimentData, RunData
from alphagrid.analysis.plots.configuration_curves import MeanCurve, styles
from alphagrid.analysis.plots.heatmap import draw_heatmap, heatmap_axes
from alphagrid.analysis.report import report_json, report_markdown, report_tables, write_report
from alphagrid.analysis.sections import applicable_sections
from alphagrid.analysis.sections.alpha_observations import AlphaObservationsSection
from alphagrid.analysis.sections.attempts import AttemptsSection
from alphagrid.analysis.sections.budget import BudgetSection
from alphagrid.analysis.sections.correlations import CorrelationsSection
from alphagrid.analysis.sections.expected_best import ExpectedBestSection
from alphagrid.analysis.sections.learning_rates import LearningRatesSection
from alphagrid.analysis.sections.step_timings import StepTimingsSection
from alphagrid.store.queries import AlphaRow, Estimate, EvaluationRow, EventRow, RunRow, WindowRow

WINDOW = WindowRow(100, 2.0, 1, 0.0, 100, 0, 1.0, 0.1, 0.2, 0.3, {"forward_backward": 1.5, "optimizer": 0.5})


def run(
    name: str, params: dict[str, Any] | None = None, *, loss: float | None = None, **fields: Any
) -> RunData:
    """Return a finished run with (at most) one evaluation, at step 100."""
    given: dict[str, Any] = {"id": name, "name": name, "params": params or {}, "config": {"seed": 0}}
    given |= {"named": True, "attempts": 1, "superseded": 0}
    given |= {"step": 100, "train_seconds": 2.0, "end_status": "completed"}
    given |= {key: fields.pop(key) for key in list(fields) if key in RunRow.__dataclass_fields__}
    row = RunRow(**cast(Any, dict.fromkeys(RunRow.__dataclass_fields__) | given))
    evaluations = () if loss is None else (evaluation(100, 2.0, loss),)
    return RunData(row, **{"evaluations": evaluations, **fields})


def evaluation(step: int, seconds: float, loss: float) -> EvaluationRow:
    return EvaluationRow(step, seconds, 1, 0.0, {"validation": loss}, {}, 0.1, False)


def event(name: str) -> EventRow:
    return EventRow(1, 0.1, 0.0, 1, name, {})


def alpha(step: int, **estimates: Estimate) -> AlphaRow:
    return AlphaRow(step, 0, 1, 0.1, 0.1, estimates, None, None, None, None, None)


def data(*runs: RunData, steps: str = "100") -> ReportData:
    numbered = [replace(one, row=replace(one.row, key=key)) for key, one in enumerate(runs)]
    return compare(ExperimentData("exp", tuple(numbered)), steps=[steps])


def grid(rows: int, columns: int, loss: float = 0.5) -> list[RunData]:
    return [
        run(f"{row}-{column}", {"a.x": row, "a.y": column}, loss=loss + row / 10 + column / 100)
        for row in range(rows)
        for column in range(columns)
    ]


def test_an_experiment_without_records_has_a_report(tmp_path: Path) -> None:
    empty = compare(ExperimentData("exp", (run("a", key=0, step=0, train_seconds=0.0, end_status=None),)))
    assert [section.title for section in applicable_sections(empty)] == ["Best loss within a budget"]
    assert report_tables(empty)[0].shown[0][1] == "–"
    assert "nothing within the budget" in report_markdown(empty)
    assert [path.suffix for path in write_report(empty, tmp_path)] == [".md", ".csv", ".csv"]


def test_losses_that_are_never_finite_or_never_positive_make_no_trouble(tmp_path: Path) -> None:
    lost = data(run("a", {"x": 1}, loss=math.nan, windows=(WINDOW,)), run("b", {"x": 2}, loss=math.inf))
    negative = data(run("a", {"x": 1}, loss=-3.0), run("b", {"x": 2}, loss=0.0))
    for number, report in enumerate((lost, negative)):
        assert write_report(report, tmp_path / str(number))


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        (grid(3, 3), ("a.x", "a.y")),
        (grid(3, 1), None),  # one axis
        (grid(3, 3)[::4], None),  # a zip: a diagonal
        (grid(17, 2), None),  # too many for cells with text
        ([run("a", loss=0.5)], None),
    ],
)
def test_a_heatmap_needs_two_axes_and_a_rectangle(
    runs: list[RunData], expected: tuple[str, str] | None
) -> None:
    report = data(*runs)
    axes = heatmap_axes(report, report.comparisons[0])
    assert (axes and tuple(axis.key for axis in axes)) == expected
    assert BudgetSection().figures(report)[0].draw().axes


def test_two_configurations_in_one_cell_make_no_heatmap() -> None:
    other = run("other", {"a.x": 0, "a.y": 0}, loss=0.1, config={"seed": 0, "alpha": {"policy": "gen"}})
    report = data(*grid(2, 2), other)
    assert len(report.configurations) == 5
    assert heatmap_axes(report, report.comparisons[0]) is None


def test_baselines_look_different_each() -> None:
    report = data(*(run(str(number), baseline=str(number), loss=0.5) for number in range(8)))
    looks = {(style.colour, repr(style.dash)) for _, style in styles(report)}
    assert len(looks) == 8


def test_seeds_without_an_axis_go_by_their_method() -> None:
    seeds = [
        run(
            f"seed{seed}",
            {"seed": seed},
            loss=0.5,
            config={"seed": seed, "schedule": {"name": "warmup_cosine"}},
        )
        for seed in (0, 1)
    ]
    assert [configuration.label for configuration in data(*seeds).configurations] == ["warmup_cosine"]
    assert [configuration.label for configuration in data(seeds[0]).configurations] == ["seed0"]


def test_cells_that_lack_an_axis_look_different_each() -> None:
    cells = [{"a.x": 0}, {"a.x": 1}, {"a.y": 0}, {"a.y": 1}]  # two grids, each with an axis of its own
    report = data(*(run(str(params), params, loss=0.5) for params in cells))
    assert len({(style.colour, repr(style.dash)) for _, style in styles(report)}) == 4


def test_a_heatmap_has_every_loss_in_its_cell_and_the_baselines_beside_it() -> None:
    report = data(*grid(2, 2), run("b", baseline="sgd", loss=0.4))
    axes = heatmap_axes(report, report.comparisons[0])
    assert axes is not None
    cells, baselines, _ = draw_heatmap(report.comparisons[0], *axes).axes
    texts = {text.get_text() for text in cells.texts}
    assert {"0.5000", "0.5100", "0.6000", "0.6100"} <= texts
    assert [tick.get_text() for tick in baselines.get_yticklabels()] == ["sgd"]
    assert baselines.texts[0].get_text() == "0.4000"
    assert (cells.get_xlabel(), cells.get_ylabel()) == ("a.y", "a.x")


def test_one_wreck_does_not_take_all_the_colours() -> None:
    report = data(*grid(2, 2), run("wreck", baseline="wreck", loss=1e9))
    axes = heatmap_axes(report, report.comparisons[0])
    assert axes is not None
    cells = draw_heatmap(report.comparisons[0], *axes).axes[0]
    faces = {patch.get_facecolor() for patch in cells.patches}
    assert len(faces) >= 4


def test_configurations_are_ranked_by_loss_and_those_without_one_come_last() -> None:
    report = data(run("a", {"x": 1}, loss=0.5), run("b", {"x": 2}), run("c", {"x": 3}, loss=0.4))
    assert [row[0] for row in report_tables(report)[0].shown] == ["x 3", "x 1", "x 2"]


def test_the_share_done_is_of_the_schedule_else_of_the_stop() -> None:
    schedule = {"seed": 0, "schedule": {"total_steps": 400}, "stop": {"steps": 1000}}
    stop = {"seed": 0, "schedule": None, "stop": {"steps": 200}}
    runs = [run(n, {"x": n}, loss=0.5, config=config) for n, config in (("a", schedule), ("b", stop))]
    assert [row[6] for row in report_tables(data(*runs))[0].shown] == ["25 %", "50 %"]


def test_json_says_null_for_what_it_cannot_say() -> None:
    report = data(run("a", {"x": math.inf}, loss=math.nan))
    (found,) = report_json(report)["budgets"][0]["runs"]
    assert (found["best_validation_loss"], found["params"]) == (None, {"x": None})


def test_the_expected_best_of_k_stands_beside_the_baselines_with_what_it_costs() -> None:
    report = data(*grid(1, 3, loss=0.5), run("b", baseline="sgd", loss=0.4))
    (table,) = ExpectedBestSection().tables(report)
    assert [row[1] for row in table.shown] == ["1 of 3", "2 of 3", "3 of 3", "sgd (baseline)"]
    losses = [cast(float, row[5]) for row in table.rows]
    assert losses == pytest.approx([0.51, (0.5 + 0.5 + 0.51) / 3, 0.5, 0.4])
    assert [row[6] for row in table.rows] == [2.0, 4.0, 6.0, 2.0]


def test_correlations_leave_baselines_out_and_need_three_cells_that_vary() -> None:
    assert not CorrelationsSection().applies(data(*grid(1, 2)))
    (table,) = CorrelationsSection().tables(data(*grid(1, 3), run("b", baseline="sgd", loss=9.0)))
    ((_, quantity, r, _, n),) = table.rows
    assert (quantity, n) == ("a.y", 3)
    assert r == pytest.approx(1.0)


def test_learning_rates_weigh_every_step_the_same() -> None:
    longer = replace(WINDOW, step=400, steps=300, lr_mean=0.1)
    (table,) = LearningRatesSection().tables(
        data(run("a", windows=(WINDOW, longer), events=(event("rejected"),)))
    )
    assert table.rows[0][1] == pytest.approx((100 * 0.2 + 300 * 0.1) / 400)
    assert table.rows[0][-2:] == (0, 1)


def test_time_per_step_is_shown_by_category() -> None:
    (table,) = StepTimingsSection().tables(data(run("a", windows=(WINDOW, WINDOW))))
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert row["forward_backward (ms/step)"] == pytest.approx(15.0)


def test_what_an_alpha_step_costs_says_how_many_steps_fit_into_the_time_of_plain_ones() -> None:
    costs = {"plain": 0.018, "data": 0.002, "alpha": 0.058}
    measured = replace(WINDOW, alpha_steps=10, costs=costs)
    plain = replace(WINDOW, costs={"plain": 0.018, "data": 0.002})
    config = {"seed": 0, "alpha": {"policy": "median"}}
    runs = [run("a", {"x": 1}, windows=(plain,)), run("b", {"x": 2}, windows=(measured,), config=config)]
    _, table = StepTimingsSection().tables(data(*runs))
    first, second = (dict(zip(table.columns, row, strict=True)) for row in table.rows)
    assert (first["α* step (ms)"], first["steps in a plain run's time (%)"]) == (None, 100.0)
    assert second["α* step (ms)"] == pytest.approx(58.0)
    assert second["plain step (ms)"] == pytest.approx(18.0)
    assert second["wait for data (ms)"] == pytest.approx(2.0)
    assert second["α* step / plain step"] == pytest.approx(3.0)
    assert second["steps in a plain run's time (%)"] == pytest.approx(100 / 1.2)


def test_an_observed_alpha_costs_what_diagnostics_took_at_each_measured_step() -> None:
    observed = replace(
        WINDOW, seconds={**WINDOW.seconds, "diagnostics": 0.2}, costs={"plain": 0.02, "data": 0}
    )
    config = {"seed": 0, "alpha": {"policy": "observe"}}
    alphas = tuple(alpha(step, unbiased=Estimate(1.0)) for step in range(10))
    _, table = StepTimingsSection().tables(data(run("a", windows=(observed,), alphas=alphas, config=config)))
    assert dict(zip(table.columns, table.rows[0], strict=True))["observed α* (ms)"] == pytest.approx(20.0)


def test_alpha_statistics_leave_undefined_values_out_and_count_negative_ones() -> None:
    values = [Estimate(alpha_rel=value) for value in (1.0, -1.0, 3.0, math.nan)]
    alphas = tuple(alpha(step, biased=value) for step, value in enumerate(values))
    (table,) = AlphaObservationsSection().tables(data(run("a", alphas=alphas)))
    (row,) = table.rows
    assert row[:5] == ("a", "biased", "relative", 3, 1)
    assert row[5:] == pytest.approx((1.0, 1.0, 2.0, 100 / 3))


def test_alpha_panels_have_one_line_of_medians_for_each_estimator() -> None:
    config = {"seed": 0, "alpha": {"start_step": 0, "interval": 10, "count": 2}}
    both = {"unbiased": Estimate(1.0, 1e-4), "biased": Estimate(50.0, 5e-3)}
    alphas = tuple(alpha(step, **both) for step in (0, 1, 10, 11))
    (figure,) = AlphaObservationsSection().figures(data(run("a", alphas=alphas, config=config)))
    (panel,) = figure.draw().axes
    medians = {line.get_label(): list(cast(Any, line.get_xdata())) for line in panel.lines}
    assert medians["unbiased"] == medians["biased"] == [0.5, 10.5]
    assert panel.get_yscale() == "symlog"  # 50 times apart


def test_attempts_are_listed_where_something_was_interrupted() -> None:
    assert not AttemptsSection().applies(data(run("a", loss=0.5)))
    restarted = run("b", {"x": 2}, attempts=2, superseded=7, events=(event("interrupted"),))
    (table,) = AttemptsSection().tables(data(run("a", {"x": 1}), restarted))
    assert [row[:6] for row in table.rows] == [("b", 2, 1, 0, 0, 7)]


def test_a_line_joins_seeds_while_all_have_a_point_and_breaks_where_one_is_no_number() -> None:
    line = MeanCurve.of([[(1, 1.0), (2, math.nan), (3, 3.0), (4, 4.0)], [(1, 3.0), (2, 2.0), (5, 5.0)]])
    assert line.xs == [1, 2, 4]
    assert str(line.means) == "[2.0, nan, 4.0]"
    assert (line.lows[0], line.highs[0]) == (1.0, 3.0)
