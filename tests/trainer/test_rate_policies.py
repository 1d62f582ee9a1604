"""The policies that set a rate at every measured step: `ema` and `gen`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from alphagrid.trainer.alpha.measurement import Estimate, Measurement, Step
from alphagrid.trainer.alpha.options import EmaOptions, GenOptions
from alphagrid.trainer.alpha.policies.base import Policy, PolicyEvent, Progress
from alphagrid.trainer.alpha.policies.ema import Ema
from alphagrid.trainer.alpha.policies.gen import Gen
from alphagrid.trainer.config import TrainingConfig
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

if TYPE_CHECKING:
    from tests.trainer.conftest import TrainRun

RUN: dict[str, Any] = {
    "workload": {"name": "digits_mlp", "hidden": [16], "batch_size": 64},
    "optimizer": {"name": "nadamw"},
    "eval": {"every_steps": 100, "splits": ["validation"]},
    "stop": {"steps": 100},
    "log": {"every_steps": 1},
    "device": "cpu",
}


class Known(Measurement):
    """A measurement whose value is given: along u, slope n and curvature c, for a step at `rate`."""

    def __init__(self, n: float, c: float, rate: float = 0.1, index: int = 0) -> None:
        super().__init__(Step(index, -rate, rate, True), "lookahead")
        ratio = n / c if c else math.nan
        self._value = Estimate(ratio / rate, ratio, -rate * n, rate * rate * c)

    @property
    def value(self) -> Estimate:
        return self._value


def ema(**options: Any) -> Ema:
    return Ema(EmaOptions(policy="ema", **{"fill_steps": 1, "scale": 1.0} | options))


def rate_of(policy: Policy, index: int = 50, seconds: float = 0.0, scheduled: float = 0.123) -> float:
    return policy.learning_rate(Progress(index, seconds), scheduled)


@given(
    values=st.lists(
        st.tuples(st.floats(0.1, 10), st.floats(0.1, 10), st.floats(1e-6, 1.0)), min_size=1, max_size=20
    ),
    beta=st.floats(0, 0.99),
)
def test_the_rate_is_the_ratio_of_bias_corrected_averages_whatever_rates_were_used(
    values: list[tuple[float, float, float]], beta: float
) -> None:
    policy = ema(beta=beta, max_growth=1e9)
    for n, c, rate in values:
        policy.update(Known(n, c, rate))
    weights = [(1 - beta) * beta ** (len(values) - 1 - i) for i in range(len(values))]
    correction = 1 - beta ** len(values)
    slope = sum(w * n for w, (n, _, _) in zip(weights, values, strict=True)) / correction
    curvature = sum(w * c for w, (_, c, _) in zip(weights, values, strict=True)) / correction
    assert rate_of(policy) == pytest.approx(slope / curvature, rel=1e-9)


def test_until_the_averages_are_filled_the_given_rate_acts() -> None:
    policy = ema(fill_steps=3)
    for _ in range(2):
        policy.update(Known(1.0, 2.0))
        assert rate_of(policy) == 0.123
    policy.update(Known(1.0, 2.0))
    assert rate_of(policy) == 0.5


def test_scale_multiplies_the_ratio() -> None:
    policy = ema(scale=1.5)
    policy.update(Known(1.0, 2.0))
    assert rate_of(policy) == 0.75


def test_growth_is_bounded_and_decline_is_not() -> None:
    policy = ema(beta=0.0, max_growth=1.25)
    policy.update(Known(1.0, 1.0))
    policy.update(Known(8.0, 1.0))
    assert rate_of(policy) == 1.25
    policy.update(Known(8.0, 1.0))
    assert rate_of(policy) == 1.25**2
    policy.update(Known(0.01, 1.0))
    assert rate_of(policy) == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("n", "c", "reason"),
    [(-5.0, 1.0, "not positive"), (1.0, 0.0, "undefined"), (math.nan, 1.0, "undefined"), (1.0, math.inf, "")],
)
def test_a_ratio_that_is_not_positive_or_not_finite_keeps_the_rate_and_is_counted(
    n: float, c: float, reason: str
) -> None:
    policy = ema(beta=0.5)
    policy.update(Known(1.0, 1.0))
    (event,) = policy.update(Known(n, c))
    assert (event.name, event.details["rejected"]) == ("rejected", 1)
    assert reason in event.details["reason"]
    assert rate_of(policy) == 1.0
    assert rate_of(ema()) == 0.123
    for _ in range(500):  # nothing of it is left for ever
        policy.update(Known(9.0, 1.0))
    assert rate_of(policy) == pytest.approx(9.0, rel=0.01)


def test_warmup_rises_and_cooldown_falls_linearly_over_the_given_total() -> None:
    fractions = {"warmup_fraction": 0.1, "cooldown_fraction": 0.4}
    by_steps, by_time = ema(total_steps=100, **fractions), ema(total_seconds=50.0, **fractions)
    for policy in (by_steps, by_time):
        policy.update(Known(1.0, 1.0))
    for share, factor in [(0, 0), (0.05, 0.5), (0.1, 1), (0.3, 1), (0.6, 1), (0.8, 0.5), (1, 0), (1.5, 0)]:
        assert rate_of(by_steps, index=round(100 * share)) == pytest.approx(factor, abs=1e-12)
        assert rate_of(by_time, seconds=50 * share) == pytest.approx(factor, abs=1e-12)


def test_averages_survive_a_checkpoint() -> None:
    whole, first = ema(beta=0.9), ema(beta=0.9)
    for policy in (whole, first):
        policy.update(Known(1.0, 2.0))
        policy.update(Known(-9.0, 1.0))
    resumed = ema(beta=0.9)
    resumed.load_state_dict(first.state_dict())
    told: list[list[PolicyEvent]] = [p.update(Known(30.0, 2.0)) for p in (whole, resumed)]
    assert told[0] == told[1]
    assert rate_of(whole) == rate_of(resumed) != rate_of(first)


def test_ema_learns_without_a_learning_rate(train_run: TrainRun) -> None:
    trained = train_run({**RUN, "alpha": {"policy": "ema", "total_steps": 100}})
    rates = [window["learning_rate"]["mean"] for window in trained.of_kind("window")]
    assert rates[:10] == [1e-7] * 10
    assert max(rates) > 1e-3
    assert rates[-1] < 0.05 * max(rates)
    first, last = (trained.of_kind("evaluation")[i]["splits"]["validation"]["loss"] for i in (0, -1))
    assert last < 0.2 * first


def test_a_rate_may_be_left_out_with_ema_only() -> None:
    config = {**RUN, "alpha": {"policy": "ema"}}
    assert TrainingConfig.model_validate(config).optimizer.lr is None
    given = {**config, "optimizer": {"name": "nadamw", "lr": 0.0017486387539278373}}
    assert TrainingConfig.model_validate(given).optimizer.lr == 0.0017486387539278373
    assert TrainingConfig.model_validate(given).run_id() != TrainingConfig.model_validate(config).run_id()
    again = TrainingConfig.model_validate(TrainingConfig.model_validate(config).as_dict())
    assert again.run_id() == TrainingConfig.model_validate(config).run_id()
    with pytest.raises(ValidationError, match=r"only alpha\.policy 'ema'"):
        TrainingConfig.model_validate({**RUN, "optimizer": {"name": "nadamw", "lr": None}})
    with pytest.raises(ValidationError, match="leave out schedule"):
        TrainingConfig.model_validate({**config, "schedule": {"name": "constant"}})


@pytest.mark.parametrize(
    "mistake",
    [
        {"total_steps": 10, "total_seconds": 1.0},
        {"warmup_fraction": 0.1},
        {"total_steps": 10, "warmup_fraction": 0.6, "cooldown_fraction": 0.6},
        {"max_growth": 1.0},
    ],
)
def test_impossible_options_are_refused(mistake: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        EmaOptions(policy="ema", **mistake)


def gen(**options: Any) -> Gen:
    return Gen(GenOptions(policy="gen", **options))


def test_gen_moves_a_tenth_of_the_way_and_never_further_than_twofold() -> None:
    policy = gen()
    assert rate_of(policy, scheduled=0.1) == 0.1
    policy.update(Known(0.15, 1.0, rate=0.1))
    assert rate_of(policy) == pytest.approx(0.9 * 0.1 + 0.1 * 0.15)
    policy.update(Known(9.0, 1.0, rate=0.1))
    assert rate_of(policy) == pytest.approx(0.9 * 0.1 + 0.1 * 0.2)
    policy.update(Known(0.001, 1.0, rate=0.1))
    assert rate_of(policy) == pytest.approx(0.9 * 0.1 + 0.1 * 0.05)


def test_gen_rejects_what_has_no_minimum_ahead() -> None:
    policy = gen()
    rate_of(policy, scheduled=0.1)
    for n, c in ((-1.0, 1.0), (1.0, -1.0), (1.0, 0.0)):
        assert [event.name for event in policy.update(Known(n, c))] == ["rejected"]
    assert rate_of(policy) == 0.1
    assert policy.state_dict()["rejected"] == 3


def test_gen_fits_its_parabola_on_a_batch_of_its_own(train_run: TrainRun) -> None:
    config = {**RUN, "optimizer": {"name": "sgd", "lr": 1e-3}, "stop": {"steps": 60}}
    trained = train_run({**config, "alpha": {"policy": "gen", "interval": 2}})
    rates = [window["learning_rate"]["mean"] for window in trained.of_kind("window")]
    assert len(trained.of_kind("alpha")) == 30
    assert rates[-1] > 5 * rates[0]  # so small a rate is far from the parabola's minimum
    assert rates[0] != rates[1] == rates[2]
    with pytest.raises(ValidationError, match="parabola alone"):
        gen(also=["biased"])


def test_a_negative_curvature_is_called_that() -> None:
    gen, ema_ = Gen(GenOptions(policy="gen")), ema()
    for policy in (gen, ema_):
        (event,) = policy.update(Known(1.0, -1.0))
        assert event.details["reason"] == "the curvature is negative"


def test_a_parabola_has_no_other_curvature_than_the_losss() -> None:
    with pytest.raises(ValidationError, match="own curvature"):
        GenOptions(policy="gen", curvature="fisher")
