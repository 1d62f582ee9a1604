"""What each policy does with the values it is given: windows, medians, rejections."""

from typing import Any

import pytest
import torch
from alphagrid.trainer.alpha.measurement import Measurement, Step
from alphagrid.trainer.alpha.options import ApplyOptions, MedianOptions, ObserveOptions
from alphagrid.trainer.alpha.policies.apply import Apply
from alphagrid.trainer.alpha.policies.base import Policy, PolicyEvent, Progress
from alphagrid.trainer.alpha.policies.median import Median
from alphagrid.trainer.alpha.quadratic import Quadratic
from pydantic import ValidationError


def measured(index: int, alpha_abs: float, curvature: float = 1.0, rate: float = 0.5) -> Measurement:
    """A measurement along d = −η·u whose α*_abs is uᵀg / uᵀGu as given."""
    parts = (alpha_abs * curvature, curvature, 0.0)
    quadratic = Quadratic.exact(*(torch.tensor(part, dtype=torch.float64) for part in parts))
    return Measurement(Step(index, -rate, rate, True), "unbiased", quadratics={"unbiased": quadratic})


def rate(policy: Policy, index: int, scheduled: float) -> float:
    return policy.learning_rate(Progress(index, 0.0), scheduled)


def median(**options: Any) -> Median:
    return Median(MedianOptions(policy="median", **{"interval": 10, "count": 3, "start_step": 5} | options))


def after(policy: Median, first: int, values: list[float]) -> list[PolicyEvent]:
    return [event for i, value in enumerate(values) for event in policy.update(measured(first + i, value))]


def test_windows_are_the_thesis_rule() -> None:
    options = ObserveOptions(policy="observe", start_step=2000, interval=1000, count=50)
    inside = [index for index in range(5000) if options.measures(index)]
    assert inside[:50] == list(range(2000, 2050))
    assert inside[50:100] == list(range(3000, 3050))
    assert len(inside) == 150
    assert [index for index in inside if options.ends_window(index)] == [2049, 3049, 4049]


def test_a_window_of_the_whole_interval_measures_every_step() -> None:
    options = ObserveOptions(policy="observe")
    assert all(options.measures(index) and options.ends_window(index) for index in range(10))


def test_schedule_acts_before_the_start_and_its_value_there_is_held_until_the_first_median() -> None:
    policy = median()
    assert rate(policy, 4, 0.4) == 0.4
    assert rate(policy, 5, 0.3) == 0.3
    assert rate(policy, 6, 0.2) == 0.3
    events = after(policy, 5, [1.0, 3.0, 2.0])
    assert [(event.name, event.details["value"]) for event in events] == [("learning_rate", 2.0)]
    assert events[0].details["window_start"] == 5
    assert rate(policy, 8, 0.1) == 2.0


def test_median_of_an_even_count_is_the_midpoint() -> None:
    policy = median(count=4)
    after(policy, 5, [1.0, 2.0, 4.0, 9.0])
    assert rate(policy, 9, 0.0) == 3.0


def test_scale_multiplies_what_is_applied_and_not_what_is_recorded() -> None:
    policy = median(scale=0.5)
    event = after(policy, 5, [1.0, 2.0, 3.0])[0]
    assert (event.details["value"], event.details["median"]) == (1.0, 2.0)


def test_a_median_that_is_not_positive_keeps_the_rate_and_is_counted() -> None:
    policy = median()
    rate(policy, 5, 0.3)
    event = after(policy, 5, [-1.0, -2.0, 5.0])[0]
    assert (event.name, event.details["rejected"]) == ("rejected", 1)
    assert rate(policy, 8, 0.1) == 0.3


def test_undefined_values_are_left_out_and_half_of_the_window_must_remain() -> None:
    nan = float("nan")
    policy = median(count=4, interval=10)
    assert after(policy, 5, [nan, 2.0, 4.0, nan])[0].details["value"] == 3.0
    assert after(policy, 15, [nan, 2.0, nan, nan])[0].name == "rejected"
    zero_curvature = [policy.update(measured(25 + i, 1.0, curvature=0.0)) for i in range(4)]
    assert zero_curvature[-1][0].details["used"] == 0


def test_window_in_progress_survives_a_checkpoint() -> None:
    whole, first = median(), median()
    for policy in (whole, first):
        rate(policy, 5, 0.3)
        after(policy, 5, [1.0, 7.0])
    resumed = median()
    resumed.load_state_dict(first.state_dict())
    assert after(whole, 7, [2.0]) == after(resumed, 7, [2.0])
    assert rate(whole, 8, 0.0) == rate(resumed, 8, 0.0) == 2.0


def test_apply_scales_the_step_and_keeps_the_plain_one_when_the_value_is_rejected() -> None:
    policy = Apply(ApplyOptions(policy="apply", scale=2.0))
    assert policy.factor(measured(0, 0.25)) == pytest.approx(1.0)  # 2 · 0.25 / η with η = 0.5
    assert policy.factor(measured(1, 1.0)) == pytest.approx(4.0)
    for index, value in enumerate([-1.0, float("inf"), float("nan")]):
        assert policy.factor(measured(index, value)) == 1.0
        assert policy.update(measured(index, value))[0].details["rejected"] == index + 1


@pytest.mark.parametrize(
    "mistake",
    [{"count": 11}, {"count": 0}, {"interval": -1}, {"also": ["unbiased"]}, {"also": ["biased", "biased"]}],
)
def test_impossible_windows_are_refused(mistake: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        MedianOptions(policy="median", **{"interval": 10, "count": 3} | mistake)


def test_absolute_alpha_does_not_depend_on_the_learning_rate_it_was_measured_under() -> None:
    tiny = measured(0, 3e-4, rate=2e-14).value
    usual = measured(0, 3e-4, rate=2e-4).value
    assert tiny.alpha_abs == usual.alpha_abs
    assert tiny.alpha_rel == pytest.approx(1.5e10, rel=1e-6)


def test_relative_only_where_the_step_is_no_multiple_of_the_rate() -> None:
    quadratic = Quadratic.exact(*torch.tensor([-2.0, 1.0, 0.0]))
    value = Measurement(Step(0, 1.0, 0.1, False), "unbiased", quadratics={"unbiased": quadratic})
    assert value.value.alpha_rel == 2.0
    assert value.value.alpha_abs != value.value.alpha_abs
