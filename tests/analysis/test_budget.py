"""The definitions of a comparison within a budget, by example."""

from __future__ import annotations

import math

import pytest
from alphagrid.analysis.budget import Curve
from alphagrid.analysis.configurations import Axis
from alphagrid.analysis.statistics import MeanAndSD, expected_best, median, pearson
from alphagrid.analysis.tables import Table, as_csv, as_markdown, decimals_to_differ, fixed, significant
from alphagrid.store.queries import EvaluationRow, WindowRow


def evaluation(step: int, seconds: float, loss: float, *, at_stop: bool = False) -> EvaluationRow:
    losses = {"validation": loss, "test": loss + 1}
    return EvaluationRow(step, seconds, 1, 0.0, losses, {}, 0.1, at_stop)


def window(step: int, seconds: float) -> WindowRow:
    return WindowRow(step, seconds, 1, 0.0, 10, 0, 1.0, 0.1, 0.1, 0.1, {})


def curve(*evaluations: EvaluationRow, windows: tuple[WindowRow, ...] = (), finished: bool = True) -> Curve:
    return Curve.of(evaluations, windows, finished=finished)


def test_the_best_is_the_least_validation_loss_within_the_budget_and_the_test_loss_is_from_there() -> None:
    run = curve(evaluation(1, 1.0, 0.9), evaluation(11, 2.0, 0.5), evaluation(21, 3.0, 0.4))
    outcome = run.outcome(2.0, "seconds")
    assert (outcome.best_validation_loss, outcome.test_loss_at_best) == (0.5, 1.5)
    assert (outcome.step_at_best, outcome.train_seconds_at_best) == (11, 2.0)


def test_the_earlier_of_equal_losses_is_best() -> None:
    run = curve(evaluation(1, 1.0, 0.5), evaluation(11, 2.0, 0.5))
    assert run.outcome(9.0, "seconds").step_at_best == 1


def test_a_loss_that_is_no_number_is_never_best_and_takes_nothing_from_earlier_ones() -> None:
    run = curve(evaluation(1, 1.0, math.nan), evaluation(11, 2.0, 0.5), evaluation(21, 3.0, -math.inf))
    assert run.outcome(1.5, "seconds").best_validation_loss is None
    assert run.outcome(9.0, "seconds").best_validation_loss == 0.5


def test_nothing_within_the_budget_gives_nothing() -> None:
    outcome = curve(evaluation(1, 1.0, 0.5), finished=False).outcome(0.5, "seconds")
    assert (outcome.best_validation_loss, outcome.step_at_best, outcome.steps_reached) == (None, None, None)
    assert outcome.complete  # it passed the budget


def test_an_evaluation_at_a_stop_that_was_raised_does_not_count() -> None:
    stopped = evaluation(10, 1.0, 0.1, at_stop=True)
    assert curve(stopped).outcome(9.0, "seconds").best_validation_loss == 0.1
    continued = curve(stopped, evaluation(21, 2.0, 0.3))
    assert continued.outcome(9.0, "seconds").best_validation_loss == 0.3
    waiting = Curve.of([stopped], [], finished=False, step=11)
    assert waiting.outcome(9.0, "seconds").best_validation_loss is None


def test_steps_reached_is_the_last_window_end_within_the_budget() -> None:
    run = curve(evaluation(15, 1.5, 0.5), windows=(window(10, 1.0), window(20, 2.0)))
    assert run.outcome(1.9, "seconds").steps_reached == 10
    assert run.outcome(2.0, "seconds").steps_reached == 20


def test_before_the_first_window_end_steps_reached_is_the_last_evaluation() -> None:
    assert (
        curve(evaluation(5, 0.5, 0.5), windows=(window(10, 1.0),)).outcome(0.7, "seconds").steps_reached == 5
    )


def test_complete_means_reached_or_finished() -> None:
    running = curve(evaluation(1, 1.0, 0.5), finished=False)
    assert running.outcome(1.0, "seconds").complete
    assert not running.outcome(1.1, "seconds").complete
    assert curve(evaluation(1, 1.0, 0.5)).outcome(1.1, "seconds").complete


def test_a_budget_of_steps_counts_steps() -> None:
    run = curve(evaluation(1, 100.0, 0.9), evaluation(11, 200.0, 0.5), evaluation(21, 300.0, 0.4))
    assert run.outcome(20.5, "steps").best_validation_loss == 0.5


def test_the_time_of_a_step_between_two_records_is_interpolated() -> None:
    run = curve(windows=(window(10, 1.0), window(20, 3.0)))
    assert run.seconds_at(20) == 3.0
    assert run.seconds_at(15) == pytest.approx(2.0)
    assert run.seconds_at(5) == pytest.approx(0.5)
    assert run.seconds_at(21) is None


def test_one_value_has_no_deviation_and_several_have_that_of_a_sample() -> None:
    assert MeanAndSD.of([2.0, None]) == MeanAndSD(2.0, None, 1)
    assert MeanAndSD.of([1.0, 3.0]) == MeanAndSD(2.0, math.sqrt(2), 2)
    assert MeanAndSD.of([None, math.nan]) is None


def test_the_median_of_an_even_number_is_the_midpoint() -> None:
    assert (median([3.0, 1.0, 2.0]), median([4.0, 1.0, 2.0, 3.0])) == (2.0, 2.5)


def test_the_expected_best_runs_from_the_mean_to_the_minimum() -> None:
    losses = [3.0, 1.0, 2.0]
    assert [expected_best(losses, k) for k in (1, 2, 3)] == pytest.approx([2.0, (1 + 1 + 2) / 3, 1.0])


@pytest.mark.parametrize(("r", "p"), [(-0.412, 0.270), (0.721, 0.028), (-0.830, 0.006)])
def test_p_follows_from_r_as_in_the_thesis(r: float, p: float) -> None:
    """Its printed p with nine cells, from data that were made to have its r."""
    xs = [float(value) for value in range(-4, 5)]
    noise = [1.0, -1.0, -1.0, 1.0, 0.0, 1.0, -1.0, -1.0, 1.0]  # even: orthogonal to xs
    mean = sum(noise) / 9
    residual = [value - mean for value in noise]
    scale = math.sqrt(sum(x * x for x in xs) / sum(value * value for value in residual))
    ys = [r * x + math.sqrt(1 - r * r) * scale * value for x, value in zip(xs, residual, strict=True)]
    found = pearson(xs, ys)
    assert found is not None
    assert found.n == 9
    assert found.r == pytest.approx(r)
    assert found.p == pytest.approx(p, abs=1.2e-3)


def test_no_correlation_without_three_pairs_and_variation() -> None:
    assert pearson([1.0, 2.0], [1.0, 2.0]) is None
    assert pearson([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) is None


def test_digits_are_added_until_values_differ() -> None:
    assert decimals_to_differ([0.124372, 0.124286, 0.2]) == 4
    assert decimals_to_differ([0.124372, 0.124373]) == 6
    assert decimals_to_differ([0.5, 0.5]) == 4


def test_losses_too_small_or_large_for_decimals_are_shown_scientifically_and_their_spread_too() -> None:
    assert [fixed(value, 4) for value in (0.0, 0.12345, 1.5e-9, 2e9)] == [
        "0.0000",
        "0.1235",
        "1.500e-09",
        "2.000e+09",
    ]
    assert fixed(0.00012, 4, of=0.5) == "0.0001"
    assert decimals_to_differ([0.1, 1.1e-9, 1.2e-9]) == 4


def test_numbers_are_shown_with_significant_digits() -> None:
    assert [significant(value) for value in (0.0, 1234.2, 0.01234567, 2.18573e-4, math.nan)] == [
        "0", "1,234", "0.01235", "2.186e-04", "nan"
    ]  # fmt: skip


def test_tables_leave_nothing_empty_in_csv_and_escape_in_markdown() -> None:
    table = Table.of("t", "T", ("name", "value"), [("a|b", 0.5), ("c,d", None)], ["A note."])
    assert as_csv(table) == 'name,value\na|b,0.5\n"c,d",\n'
    assert as_markdown(table).splitlines() == [
        "## T", "", "| name | value |", "| --- | ---: |", "| a\\|b | 0.5000 |", "| c,d | – |", "", "*A note.*"
    ]  # fmt: skip


def test_axis_values_that_are_mappings_go_by_their_name() -> None:
    axis = Axis("optimizer", ({"name": "sgd", "lr": 0.1}, {"lr": 1}))
    assert (axis.labels, axis.numeric) == (["sgd", "#2"], False)
