"""Each definition of the thesis' analysis, by its laws and by worked examples."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from statistics import median, pstdev
from typing import Any, cast

import pytest
from alphagrid.analysis.clocks import waiting_share, without_data_wait
from alphagrid.analysis.costs import implied_alpha_cost, steps_with_alpha
from alphagrid.analysis.data import ExperimentData, RunData
from alphagrid.analysis.dispersion import (
    coefficient_of_variation,
    difference,
    range_relative_deviation,
    ratio,
    share_negative,
    value_range,
)
from alphagrid.analysis.estimator_pairs import correlation, decompose
from alphagrid.analysis.observed_alphas import alpha_dispersion
from alphagrid.analysis.rates import first_median, rate_statistics, stretches
from alphagrid.analysis.statistics import p_of_r, pearson
from alphagrid.analysis.targets import first_within
from alphagrid.store.queries import AlphaRow, Estimate, EvaluationRow, EventRow, RunRow, WindowRow
from hypothesis import given, settings
from hypothesis import strategies as st

# Multiples of 1/64, whose differences are exact, and no smaller than that.
VALUES = st.lists(st.integers(-(2**24), 2**24).map(lambda number: number / 64), min_size=2, max_size=30)
TOTAL, WARM_UP, PEAK = 85_328, 1706, 2.1857984424097966e-4


def run(**fields: Any) -> RunData:
    given: dict[str, Any] = {"key": 0, "id": "a", "name": "a", "params": {}, "config": {}, "named": True}
    given |= {"attempts": 1, "superseded": 0, "step": 100, "train_seconds": 1.0, "end_status": "completed"}
    given |= {key: fields.pop(key) for key in list(fields) if key in RunRow.__dataclass_fields__}
    return RunData(RunRow(**cast(Any, dict.fromkeys(RunRow.__dataclass_fields__) | given)), **fields)


def window(step: int, rates: list[float], seconds: float = 0.0, **more: float) -> WindowRow:
    place = (step, seconds, 1, 0.0, len(rates), 0, 1.0)
    return WindowRow(*place, min(rates), math.fsum(rates) / len(rates), max(rates), dict(more))


def accepted(start: int, count: int, value: float) -> EventRow:
    details = {"value": value, "window_start": start, "of": count}
    return EventRow(start + count, 0.0, 0.0, 1, "learning_rate", details)


def scheduled(step: int) -> float:
    if step < WARM_UP:
        return PEAK * (1e-10 + (1 - 1e-10) * step / WARM_UP)
    return PEAK * 0.5 * (1 + math.cos(math.pi * (step - WARM_UP) / (TOTAL - WARM_UP)))


def alpha(step: int, rate: float = 1e-4, **estimates: Estimate) -> AlphaRow:
    given = {"step": step, "repeat": 0, "attempt": 1, "train_seconds": 0.1, "learning_rate": rate}
    return AlphaRow(
        **cast(Any, dict.fromkeys(AlphaRow.__dataclass_fields__) | given)
        | {"estimates": estimates, "summaries": {}}
    )


def estimate(numerator: float, denominator: float, rate: float = 1e-4) -> Estimate:
    relative = numerator / denominator
    return Estimate(relative, relative * rate, -numerator, denominator)


@given(VALUES, st.floats(0.1, 100.0))
def test_relative_dispersion_does_not_depend_on_the_unit(values: list[float], unit: float) -> None:
    spread_of = value_range(values)
    scaled = value_range([unit * value for value in values])
    assert spread_of is not None
    assert scaled == pytest.approx(unit * spread_of)
    assert range_relative_deviation(unit * 2.0, scaled) == pytest.approx(
        cast(Any, range_relative_deviation(2.0, spread_of))
    )
    assert coefficient_of_variation(unit * 4.0, unit * 2.0) == pytest.approx(0.5)


@given(VALUES)
def test_the_sd_is_at_most_the_range(values: list[float]) -> None:
    found = range_relative_deviation(pstdev(values), value_range(values))
    assert found is None or 0 <= found <= 0.5 + 1e-9


@given(VALUES)
def test_negative_and_other_values_are_all_of_them(values: list[float]) -> None:
    negative, flipped = share_negative(values), share_negative([-value for value in values])
    assert negative is not None
    assert flipped is not None
    assert negative + flipped + sum(value == 0 for value in values) / len(values) == pytest.approx(1)


def test_what_is_not_known_stays_unknown() -> None:
    assert share_negative([]) is None
    assert value_range([1.0]) is None
    assert coefficient_of_variation(0.0, 1.0) is None
    assert range_relative_deviation(1.0, 0.0) is None
    assert ratio(1.0, None) is None
    assert difference(None, 1.0) is None


@given(st.integers(0, 5000), st.integers(0, 300), st.integers(1, 400), st.data())
def test_steps_with_alpha_are_those_that_the_rule_counts(
    steps: int, start: int, interval: int, data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, interval))
    counted = sum(step >= start and (step - start) % interval < count for step in range(steps))
    assert steps_with_alpha(steps, start, interval, count) == counted


@given(st.integers(1, 10_000), st.integers(1, 500), st.floats(0.01, 10.0), st.floats(0.01, 100.0))
def test_the_implied_cost_is_what_was_paid(steps: int, alpha_steps: int, plain: float, cost: float) -> None:
    seconds = steps * plain + alpha_steps * cost
    assert implied_alpha_cost(seconds, steps, alpha_steps, plain) == pytest.approx(cost, rel=1e-6)
    assert implied_alpha_cost(seconds, steps, 0, plain) is None


@settings(deadline=None)  # the first call imports scipy
@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), min_size=4, max_size=20))
def test_p_is_scipys(pairs: list[tuple[float, float]]) -> None:
    from scipy.stats import pearsonr

    xs, ys = [round(x, 3) for x, _ in pairs], [round(y, 3) for _, y in pairs]
    found = pearson(xs, ys)
    if found is not None and abs(found.r) < 1 - 1e-9:
        assert found.p == pytest.approx(float(pearsonr(xs, ys).pvalue), rel=1e-6, abs=1e-12)


def test_a_perfect_correlation_has_no_p_left() -> None:
    assert p_of_r(1.0, 9) == 0.0
    assert p_of_r(0.0, 9) == pytest.approx(1.0)


def test_of_the_thesis_schedule_the_statistics_are_those_it_prints() -> None:
    """Table B.1–B.3 and 4.3, last row; the SD is over all steps, without the warm-up it is 7.73e-5."""
    windows = [
        window(end, [scheduled(step) for step in range(end - 100, end)]) for end in range(100, TOTAL, 100)
    ]
    windows.append(window(TOTAL, [scheduled(step) for step in range(TOTAL - 28, TOTAL)]))
    found = rate_statistics(run(windows=tuple(windows)))
    assert found is not None
    assert found.mean == pytest.approx(1.0929e-4, abs=5e-9)
    assert found.median == pytest.approx(1.0929e-4, abs=5e-8)
    assert found.deviation == pytest.approx(7.70e-5, abs=5e-8)
    assert found.spread == pytest.approx(2.186e-4, abs=5e-8)
    after = rate_statistics(run(windows=tuple(windows[17:])))
    assert after is not None
    assert after.deviation == pytest.approx(7.73e-5, abs=1e-7)


MEDIAN = {"alpha": {"policy": "median", "start_step": 20, "interval": 30, "count": 5}}


def median_rates() -> list[float]:
    """A schedule up to step 20, its rate held until the median of steps 20–24 acts, then two more medians."""
    return [0.1 * step for step in range(20)] + [2.0] * 5 + [3.0] * 30 + [1.0] * 30 + [4.0] * 15


def median_run(length: int = 50) -> RunData:
    rates = median_rates()
    windows = [window(end, rates[end - length : end]) for end in range(length, 101, length)]
    events = (accepted(20, 5, 3.0), accepted(50, 5, 1.0), accepted(80, 5, 4.0))
    return run(config=MEDIAN, windows=tuple(windows), events=events)


@pytest.mark.parametrize("length", [5, 10, 25, 50])
def test_the_rates_of_medians_are_exact_wherever_windows_end(length: int) -> None:
    found = rate_statistics(median_run(length))
    rates = median_rates()
    acting = rates[25:]
    assert found is not None
    assert found.mean == pytest.approx(math.fsum(rates) / 100)
    assert found.deviation == pytest.approx(pstdev(acting))
    assert found.spread == max(acting) - min(acting)
    if length <= 10:  # a window ends where the medians begin, so that the rate before the first one is known
        assert found.median == pytest.approx(median(rates), abs=0.11)


def test_the_constant_rate_before_the_first_median_is_left_out_of_sd_and_range() -> None:
    held = run(config=MEDIAN, windows=(window(50, [2.0] * 50),))
    found = rate_statistics(held)
    assert found is not None
    assert (found.mean, found.deviation, found.spread) == (2.0, None, None)
    assert first_median(held) is None
    assert first_median(median_run()) == 25


def test_the_rates_end_with_the_budget_and_cover_every_step() -> None:
    found = stretches(median_run(10), 60)
    assert sum(stretch.steps for stretch in found) == 60
    assert all(one.end == other.start for one, other in pairwise(found))
    assert rate_statistics(median_run(10), 5) is None


def test_the_parts_of_the_difference_add_up_to_it_and_hybrid_need_not_be_recorded() -> None:
    rows = [alpha(step, biased=estimate(8.0 + step, 2.0), unbiased=estimate(3.0, 2.5)) for step in range(4)]
    found = decompose(rows)
    assert found is not None
    whole = [3.0 / 2.5 - (8.0 + step) / 2.0 for step in range(4)]
    assert found.numerator + found.denominator == pytest.approx(sum(whole) / 4)
    assert found.denominator == pytest.approx(3.0 / 2.5 - 3.0 / 2.0)
    assert (found.numerator_share or 0) + (found.denominator_share or 0) == pytest.approx(1)
    assert decompose([alpha(0, unbiased=estimate(1.0, 1.0))]) is None


def test_undefined_values_are_left_out_of_pairs() -> None:
    rows = [alpha(k, biased=estimate(k + 1.0, 2.0), unbiased=estimate(k + 2.0, 2.0)) for k in range(5)]
    rows.append(alpha(9, biased=Estimate(math.nan, math.nan, 1.0, 0.0), unbiased=estimate(1.0, 1.0)))
    found = correlation(rows, "biased", "unbiased", "relative")
    assert found is not None
    assert found.r == pytest.approx(1.0)
    assert found.n == 5


def test_the_first_step_of_a_warm_up_from_nothing_is_left_out() -> None:
    rows = [alpha(0, rate=1e-14, unbiased=estimate(1e10, 1.0))]
    rows += [alpha(step, unbiased=estimate(float(step), 1.0)) for step in range(1, 5)]
    observed = run(config={"alpha": {"policy": "observe", "interval": 2, "count": 2}}, alphas=tuple(rows))
    found = alpha_dispersion(observed, "unbiased", "relative")
    assert found is not None
    assert (found.n, found.mean, found.spread) == (4, 2.5, 3.0)
    constant = replace(observed, alphas=tuple(replace(row, learning_rate=1e-4) for row in rows))
    kept = alpha_dispersion(constant, "unbiased", "relative")
    assert kept is not None
    assert kept.n == 5


def test_ranges_of_windows_are_of_their_means_and_medians() -> None:
    values = [1.0, 2.0, 9.0, 5.0, 5.0, 8.0]
    rows = [alpha(10 * (k // 3) + k % 3, unbiased=estimate(value, 1.0)) for k, value in enumerate(values)]
    observed = run(config={"alpha": {"policy": "observe", "interval": 10, "count": 3}}, alphas=tuple(rows))
    found = alpha_dispersion(observed, "unbiased", "relative")
    assert found is not None
    assert found.spread_of_means == pytest.approx(2.0)  # 4 and 6
    assert found.spread_of_medians == pytest.approx(3.0)  # 2 and 5
    assert (found.negative, found.share_negative) == (0, 0.0)


SECONDS = st.floats(0.01, 10.0)


@given(st.lists(st.tuples(SECONDS, SECONDS), min_size=1, max_size=6))
def test_without_the_wait_for_data_time_is_what_was_measured_but_for_it(
    spent: list[tuple[float, float]],
) -> None:
    windows, seconds = [], 0.0
    for place, (work, wait) in enumerate(spent, 1):
        seconds += work + wait
        windows.append(window(10 * place, [0.1] * 10, seconds, forward_backward=work, data=wait))
    evaluations = tuple(
        EvaluationRow(row.step, row.train_seconds, 1, 0.0, {"validation": 1.0}, {}, 0.1, False)
        for row in windows
    )
    before = run(windows=tuple(windows), evaluations=evaluations, step=10 * len(spent), train_seconds=seconds)
    (after,) = without_data_wait(ExperimentData("exp", (before,))).runs
    share, waited = waiting_share(before), math.fsum(wait for _, wait in spent)
    assert after.row.train_seconds == pytest.approx(seconds - waited)
    assert after.evaluations[-1].train_seconds == pytest.approx(math.fsum(work for work, _ in spent))
    assert share == pytest.approx(waited / seconds)
    assert [row.step for row in after.windows] == [row.step for row in before.windows]


def test_a_target_is_reached_at_the_first_evaluation_at_most_it() -> None:
    def evaluated(*losses: float) -> RunData:
        rows = [
            EvaluationRow(10 * k, float(k), 1, 0.0, {"validation": loss}, {}, 0.1, False)
            for k, loss in enumerate(losses, 1)
        ]
        return run(evaluations=tuple(rows))

    runs = [evaluated(0.3, 0.2, 0.1), evaluated(0.3, 0.3, 0.2), evaluated(0.9)]
    found = first_within(runs, "validation", 0.2)
    assert (found.seeds, found.step, found.seconds) == (2, 25.0, 2.5)
    assert first_within(runs, "test", 0.2).seeds == 0
