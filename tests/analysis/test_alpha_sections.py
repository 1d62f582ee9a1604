"""What the report says of α*: intervals, summaries of windows, batch noise, diagnostics."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from alphagrid.analysis.alphas import estimator_values, summarise_values, window_medians
from alphagrid.analysis.compare_runs import compare
from alphagrid.analysis.comparison import ReportData
from alphagrid.analysis.data import ExperimentData, RunData
from alphagrid.analysis.report import write_report
from alphagrid.analysis.sections.alpha_diagnostics import AlphaDiagnosticsSection
from alphagrid.analysis.sections.alpha_noise import AlphaNoiseSection
from alphagrid.analysis.sections.alpha_observations import AlphaObservationsSection
from alphagrid.analysis.statistics import Components, variance_components
from alphagrid.store.queries import AlphaRow, Estimate, EstimateSummary, RunRow
from hypothesis import given
from hypothesis import strategies as st

OBSERVE = {"policy": "observe", "interval": 10, "count": 5, "start_step": 0}


def row(step: int, repeat: int = 0, lr: float = 0.5, **fields: Any) -> AlphaRow:
    given: dict[str, Any] = {
        "step": step,
        "repeat": repeat,
        "attempt": 1,
        "train_seconds": 0.1,
        "learning_rate": lr,
    }
    given |= {"estimates": {}, "summaries": {}, **fields}
    return AlphaRow(**cast(Any, dict.fromkeys(AlphaRow.__dataclass_fields__) | given))


def single(step: int, value: float, error: float | None = None, **fields: Any) -> AlphaRow:
    estimate = Estimate(value, value * 0.5, -value, 1.0, alpha_rel_se=error)
    return row(step, estimates={"unbiased": estimate}, **fields)


def summed(first: int, found: list[float]) -> AlphaRow:
    """Return the summary that the trainer would write of these values, one a step."""
    n = len(found)
    mean = sum(found) / n
    deviation = math.sqrt(sum((x - mean) ** 2 for x in found) / (n - 1)) if n > 1 else None
    middle = sorted(found)[n // 2] if n % 2 else sum(sorted(found)[n // 2 - 1 : n // 2 + 1]) / 2
    one = EstimateSummary(n, mean, middle, deviation, sum(x < 0 for x in found) / n)
    slope = replace(one, n=n + 1)  # at one more step the curvature was zero
    last = first + n
    return row(
        last, first_step=first, summaries={"unbiased": {"alpha_rel": one, "alpha_abs": one, "slope": slope}}
    )


def run(*alphas: AlphaRow, **alpha: Any) -> RunData:
    config = {"seed": 0, "alpha": {**OBSERVE, **alpha}, "log": {"every_steps": 20}}
    given = {"key": 0, "id": "a", "name": "a", "params": {}, "config": config, "named": True, "attempts": 1}
    given |= {"superseded": 0, "step": 100, "train_seconds": 1.0, "end_status": "completed"}
    found = RunRow(**cast(Any, dict.fromkeys(RunRow.__dataclass_fields__) | given))
    return RunData(found, alphas=alphas)


def report(*alphas: AlphaRow, **alpha: Any) -> ReportData:
    return compare(ExperimentData("exp", (run(*alphas, **alpha),)), steps=["100"])


def first_row(data: ReportData) -> dict[str, Any]:
    (table,) = AlphaObservationsSection().tables(data)
    return dict(zip(table.columns, table.rows[0], strict=True))


def test_the_mean_standard_error_and_the_share_of_batch_noise_stand_beside_the_spread() -> None:
    data = report(single(0, 1.0, 0.5), single(1, 3.0, 1.5), single(2, math.nan, math.nan))
    relative, absolute = AlphaObservationsSection().tables(data)[0].rows
    assert relative[3:5] == (2, 1)
    assert relative[9] == pytest.approx(1.0)
    assert relative[10] == pytest.approx(100 * (0.25 + 2.25) / 2 / 2)
    assert absolute[9] == pytest.approx(0.5)  # times the learning rate
    assert absolute[10] == pytest.approx(relative[10])


def test_without_standard_errors_there_is_no_column_for_them() -> None:
    (table,) = AlphaObservationsSection().tables(report(single(0, 1.0), single(1, 3.0)))
    assert "mean SE" not in table.columns


@given(st.lists(st.lists(st.floats(-10, 10), min_size=1, max_size=6), min_size=1, max_size=5))
def test_summaries_say_the_same_as_the_values_they_sum_up_but_for_the_median(
    windows: list[list[float]],
) -> None:
    every = [value for window in windows for value in window]
    apart = summarise_values(
        estimator_values([single(k, value) for k, value in enumerate(every)], "unbiased", "relative")
    )
    together = summarise_values(
        estimator_values([summed(10 * k, window) for k, window in enumerate(windows)], "unbiased", "relative")
    )
    assert apart is not None
    assert together is not None
    assert (together.n, together.undefined) == (apart.n, len(windows))
    assert together.mean == pytest.approx(apart.mean, abs=1e-9)
    assert together.negative == pytest.approx(apart.negative)
    assert (together.deviation or 0.0) == pytest.approx(apart.deviation or 0.0, abs=1e-7)
    assert (apart.exact, together.exact) == (True, False)


def test_the_median_of_summaries_is_marked_and_mixed_with_single_values_weighs_by_steps() -> None:
    data = report(summed(0, [1.0, 2.0, 3.0]), single(20, 9.0))
    (table,) = AlphaObservationsSection().tables(data)
    assert first_row(data)["n"] == 4
    assert first_row(data)["median"] == 2.0
    assert table.shown[0][6].startswith("≈")
    assert any(note.startswith("≈") for note in table.notes)


def test_the_band_is_the_standard_error_of_a_single_value_and_of_a_summary_its_spread() -> None:
    found = run(single(0, 1.0, 0.1), single(1, 3.0, 0.3), single(2, 5.0, 0.2), summed(20, [0.0, 2.0]))
    first, second = window_medians(estimator_values(found.alphas, "unbiased", "relative"), found)
    assert (first.step, first.median, first.spread) == (1, 3.0, 0.2)
    assert (second.step, second.median) == (21, 1.0)
    assert second.spread == pytest.approx(math.sqrt(2))


def test_where_every_step_measures_values_are_grouped_by_the_windows_of_the_journal() -> None:
    found = run(*(single(step, float(step), 0.1) for step in range(40)), interval=1, count=1)
    assert [
        window.step
        for window in window_medians(estimator_values(found.alphas, "unbiased", "relative"), found)
    ] == [
        9.5,
        29.5,
    ]


def test_the_panel_draws_single_values_summaries_and_a_band() -> None:
    data = report(*(single(step, 1.0 + step, 0.1) for step in range(3)), summed(20, [0.0, 2.0]))
    (figure,) = AlphaObservationsSection().figures(data)
    assert "± 1 standard error" in figure.caption
    (panel,) = figure.draw().axes
    dots, line, *_ = panel.lines
    assert list(cast(Any, dots.get_xdata())) == [0, 1, 2]
    assert list(cast(Any, line.get_xdata())) == [1, 21]
    assert len(panel.collections) == 1


def test_batch_noise_and_movement_are_told_apart_where_they_are_known() -> None:
    draw = random.Random(0)
    levels = [draw.gauss(0, 3.0) for _ in range(400)]
    alphas = [
        single(step, level + draw.gauss(0, 1.0), 1.0, repeat=repeat)
        for step, level in enumerate(levels)
        for repeat in range(4)
    ]
    data = report(*alphas, repeat=4)
    (table,) = AlphaNoiseSection().tables(data)
    found = dict(zip(table.columns, table.rows[0], strict=True))
    assert (found["steps"], found["n"]) == (400, 1600)
    assert found["variance within a step"] == pytest.approx(1.0, rel=0.1)
    assert found["variance between steps"] == pytest.approx(9.0, rel=0.15)
    assert found["within (%)"] == pytest.approx(10.0, rel=0.2)
    assert found["mean SE²"] == pytest.approx(1.0)


def test_without_repetitions_noise_and_movement_are_not_told_apart() -> None:
    assert not AlphaNoiseSection().applies(report(*(single(step, float(step)) for step in range(5))))


def test_an_estimator_that_was_not_repeated_has_no_components() -> None:
    biased = Estimate(1.0, 0.5)
    alphas = [single(step, float(step + repeat), repeat=repeat) for step in range(3) for repeat in range(2)]
    alphas = [
        replace(one, estimates={**one.estimates, "biased": biased}) if one.repeat == 0 else one
        for one in alphas
    ]
    (table,) = AlphaNoiseSection().tables(report(*alphas, repeat=2))
    assert {row[1] for row in table.rows} == {"unbiased"}


def test_components_follow_a_worked_example() -> None:
    """Groups (1, 3) and (5, 7): mean squares 2 within and 16 between, so (16 − 2) / 2 = 7 between."""
    assert variance_components([[1.0, 3.0], [5.0, 7.0]]) == Components(4.0, 2.0, 7.0, 2, 4)
    assert variance_components([[1.0, 3.0], [1.0, 3.0]]) == Components(2.0, 2.0, 0.0, 2, 4)
    assert variance_components([[1.0], [2.0]]) is None
    assert variance_components([[1.0, 2.0]]) is None


def test_reduction_ratios_and_cosines_have_a_table_where_they_were_recorded(tmp_path: Path) -> None:
    assert not AlphaDiagnosticsSection().applies(report(single(0, 1.0)))
    ratios = [0.5, 1.0, 3.0, math.nan]
    data = report(*(single(k, 1.0, reduction_ratio=ratio, cosine=-0.5) for k, ratio in enumerate(ratios)))
    (table,) = AlphaDiagnosticsSection().tables(data)
    ratio, cosine = table.rows
    assert ratio[1:5] == ("reduction ratio", 3, 1.5, 1.0)
    assert cosine[2:] == (4, -0.5, -0.5, 0.0)
    assert (tmp_path / "tables" / "alpha-diagnostics.csv") in write_report(data, tmp_path)
