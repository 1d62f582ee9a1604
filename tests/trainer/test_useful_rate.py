"""A policy that rejects every value says why, and does not train on at a rate of no use."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from alphagrid.errors import UserError
from alphagrid.store.journal import read
from alphagrid.store.layout import Root
from alphagrid.trainer.alpha.measurement import Estimate, Measurement, Step
from alphagrid.trainer.alpha.options import MedianOptions
from alphagrid.trainer.alpha.policies.median import Median
from alphagrid.trainer.workloads.least_squares import LeastSquares
from torch import Tensor

if TYPE_CHECKING:
    from pathlib import Path

    from tests.trainer.conftest import TrainRun

Config = dict[str, Any]
RUN: Config = {
    "workload": {"name": "least_squares", "examples": 96, "features": 4, "batch_size": 24},
    "optimizer": {"name": "nadamw", "lr": 1e-3},
    "eval": {"every_steps": 1000, "splits": ["validation"]},
    "stop": {"steps": 200},
    "device": "cpu",
}
RISING = {"name": "warmup_cosine", "total_steps": 200, "warmup_fraction": 0.5}
MEDIAN = {"policy": "median", "interval": 5, "count": 2}


def absolute(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).abs().squeeze(-1)


@pytest.fixture
def without_curvature(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LeastSquares, "loss", staticmethod(absolute))


def reasons(folder: Path) -> list[str]:
    """Return why values were rejected in the run that a test has trained, as far as it came."""
    (_, journal), *_ = Root(folder).experiment("test").run("0123456789").journals()
    return [record["reason"] for record in read(journal).records if record.get("event") == "rejected"]


def without_rate(**alpha: Any) -> Config:
    return {**RUN, "optimizer": {"name": "nadamw"}, "alpha": {"policy": "ema", **alpha}}


@pytest.mark.parametrize("alpha", [{}, {"fill_steps": 3}, {"fill_steps": 2, "interval": 3, "count": 2}])
def test_ema_that_is_given_no_rate_and_finds_none_fails_with_the_reason(
    without_curvature: None, train_run: TrainRun, tmp_path: Path, alpha: Config
) -> None:
    measured = 10 * alpha.get("fill_steps", 10)
    match = rf"ema has found no learning rate: {measured} values .*the curvature is zero.*rate of 1e-07"
    with pytest.raises(UserError, match=match) as raised:
        train_run(without_rate(**alpha))
    assert "optimizer.lr" in str(raised.value.hint)
    assert reasons(tmp_path) == ["undefined: the curvature is zero"] * measured


def test_a_resumed_run_fails_at_the_same_step(
    without_curvature: None, train_run: TrainRun, tmp_path: Path
) -> None:
    config = without_rate(fill_steps=3)
    train_run({**config, "stop": {"steps": 17}})
    with pytest.raises(UserError, match="30 values"):
        train_run(config)
    found = Root(tmp_path).experiment("test").run("0123456789")
    counts = [len([r for r in read(p).records if r.get("event") == "rejected"]) for _, p in found.journals()]
    assert sum(counts) == 30


@pytest.mark.parametrize(
    ("policy", "rejected"),
    [(MEDIAN, 10), ({"policy": "gen"}, 100), ({**MEDIAN, "estimator": "lookahead"}, 10)],
)
def test_a_rate_from_the_start_of_a_warm_up_is_not_kept_for_ever(
    without_curvature: None, train_run: TrainRun, policy: Config, rejected: int
) -> None:
    config = {**RUN, "optimizer": {"name": "nadamw", "lr": 0.1}, "schedule": RISING, "alpha": policy}
    if policy["policy"] == "gen":  # its parabola has a curvature, where an output passes its target
        config["workload"] = {**RUN["workload"], "noise": 100.0}
    with pytest.raises(UserError, match=rf"{rejected} values or windows .*rejected") as raised:
        train_run(config)
    assert "start_step" in str(raised.value.hint)


def test_a_rate_from_the_end_of_a_schedule_is_not_kept_for_ever(train_run: TrainRun) -> None:
    ended = {**RISING, "total_steps": 10}
    with pytest.raises(UserError, match=r"steps are taken at a rate of 0$"):
        train_run({**RUN, "schedule": ended, "alpha": {"policy": "gen", "start_step": 20}})


@pytest.mark.parametrize("alpha", [MEDIAN, {"policy": "ema", "fill_steps": 2}, {"policy": "apply"}])
def test_a_given_rate_goes_on_where_every_value_is_rejected(
    without_curvature: None, train_run: TrainRun, alpha: Config
) -> None:
    trained = train_run({**RUN, "alpha": alpha, "stop": {"steps": 60}})
    assert trained.outcome.status == "completed"
    assert trained.events("rejected")
    assert not trained.events("learning_rate")


def test_a_run_that_ends_before_a_rate_was_found_says_so(train_run: TrainRun) -> None:
    config = without_rate()
    (warning,) = train_run({**config, "stop": {"steps": 8}}).events("warning")
    assert "has set no learning rate in 8 steps" in warning["message"]
    again = train_run({**config, "stop": {"steps": 40}})
    assert len(again.events("warning")) == 1
    assert again.of_kind("window")[-1]["learning_rate"]["last"] > 1e-5


class Known(Measurement):
    def __init__(self, index: int, slope: float, curvature: float) -> None:
        super().__init__(Step(index, -0.1, 0.1, True), "unbiased")
        ratio = -slope / curvature if curvature else math.nan
        self._value = Estimate(ratio, 0.1 * ratio, slope, curvature)

    @property
    def value(self) -> Estimate:
        return self._value


VALUES = [(-1.0, 2.0), (-1.0, 0.0), (0.0, 0.0), (-1.0, -2.0), (math.nan, 1.0), (-1.0, math.inf), (-1.0, 1.0)]
LEFT_OUT = {
    "undefined: the curvature is zero": 1,
    "undefined: the step is zero": 1,
    "the curvature is negative": 1,
    "undefined: not finite": 2,
}


@pytest.mark.parametrize("cut", range(len(VALUES)))
def test_what_is_left_out_of_a_window_is_counted_by_the_reason_across_a_checkpoint(cut: int) -> None:
    def policy() -> Median:
        return Median(MedianOptions(policy="median", interval=10, count=len(VALUES)))

    first, second = policy(), policy()
    for index, value in enumerate(VALUES):
        if index == cut:
            second.load_state_dict(first.state_dict())
        events = (first if index < cut else second).update(Known(index, *value))
    (event,) = events
    assert event.details["left_out"] == LEFT_OUT
    assert event.name == "rejected"
    for index in range(10, 10 + len(VALUES)):
        events = second.update(Known(index, -1.0, 2.0))
    assert "left_out" not in events[0].details
