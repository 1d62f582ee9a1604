"""Whole runs: what the journal tells, when evaluations fall, how a run stops, diverges and resumes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import torch
from alphagrid.trainer import loop
from alphagrid.trainer.checkpoint import available, read
from alphagrid.trainer.config import TrainingConfig
from alphagrid.trainer.session import Session
from alphagrid.trainer.stopping import StopRequest
from pydantic import ValidationError
from torch import Tensor

if TYPE_CHECKING:
    from tests.trainer.conftest import Trained, TrainRun

BASE: dict[str, Any] = {
    "workload": {"name": "digits_mlp", "hidden": [16], "batch_size": 64, "dropout": 0.1},
    "optimizer": {"name": "nadamw", "lr": 1e-2},
    "schedule": {"name": "warmup_cosine", "total_steps": 60},
    "eval": {"every_steps": 20},
    "stop": {"steps": 60},
    "log": {"every_steps": 10},
    "device": "cpu",
}
MEDIAN = {"policy": "median", "interval": 15, "count": 4, "start_step": 10}


class StopAfter(StopRequest):
    """Asks for a stop once it has been looked at so many times."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self._left = looks

    def __bool__(self) -> bool:
        self._left -= 1
        if self._left < 0:
            self.request("test")
        return super().__bool__()


TICK = 2.0**-10
"""Seconds between two readings of the clock below: sums of it are exact in floating point."""


def ticking() -> Callable[[], float]:
    counter = itertools.count()
    return lambda: next(counter) * TICK


def final_model(trained: Trained) -> dict[str, Tensor]:
    model: dict[str, Tensor] = read(available(trained.run)[-1])["model"]
    return model


def test_training_lowers_the_loss_on_every_split(train_run: TrainRun) -> None:
    trained = train_run({**BASE, "schedule": None, "stop": {"steps": 300}})
    first, last = trained.of_kind("evaluation")[0]["splits"], trained.of_kind("evaluation")[-1]["splits"]
    assert all(last[split]["loss"] < 0.5 * first[split]["loss"] for split in ("train", "validation", "test"))
    assert [first[split]["examples"] for split in ("train", "validation", "test")] == [1197, 300, 300]


def test_evaluations_fall_after_step_one_then_every_k_and_at_the_stop(train_run: TrainRun) -> None:
    records = train_run(BASE).of_kind("evaluation")
    assert [(r["step"], r["at_stop"]) for r in records] == [(1, False), (21, False), (41, False), (60, True)]


def test_an_evaluation_due_at_the_stop_is_none_at_the_stop(train_run: TrainRun) -> None:
    records = train_run({**BASE, "stop": {"steps": 41}}).of_kind("evaluation")
    assert [(r["step"], r["at_stop"]) for r in records] == [(1, False), (21, False), (41, False)]


def test_evaluations_by_time_fall_when_a_multiple_has_passed(train_run: TrainRun) -> None:
    # a plain step reads the clock six times (itself, and in it data, forward and backward): it costs 5 ticks
    config = {**BASE, "eval": {"every_seconds": 50 * TICK}, "stop": {"steps": 35}}
    records = train_run(config, now=ticking()).of_kind("evaluation")
    assert [r["step"] for r in records] == [1, 10, 20, 30, 35]


def test_no_step_starts_that_would_pass_the_time_budget(train_run: TrainRun) -> None:
    trained = train_run({**BASE, "stop": {"train_seconds": 51 * TICK}}, now=ticking())
    assert trained.outcome.step == 10
    assert trained.outcome.train_seconds == 50 * TICK


def test_windows_add_up_to_all_steps_and_to_the_clock(train_run: TrainRun) -> None:
    trained = train_run({**BASE, "stop": {"steps": 57}, "alpha": MEDIAN})
    windows = trained.of_kind("window")
    assert [w["step"] for w in windows] == [10, 20, 30, 40, 50, 57]
    assert sum(w["steps"] for w in windows) == 57
    assert sum(w["alpha_steps"] for w in windows) == len(trained.of_kind("alpha"))
    counted = ("data", "forward_backward", "optimizer", "alpha")
    total = sum(w["seconds"][category] for w in windows for category in counted)
    assert total == pytest.approx(trained.outcome.train_seconds)


def test_alpha_is_measured_where_the_window_rule_says(train_run: TrainRun) -> None:
    trained = train_run({**BASE, "alpha": {**MEDIAN, "also": ["biased", "hybrid"]}})
    steps = [record["step"] for record in trained.of_kind("alpha")]
    assert steps == [i for i in range(60) if i >= 10 and (i - 10) % 15 < 4]
    record = trained.of_kind("alpha")[0]
    assert set(record["estimates"]) == {"unbiased", "biased", "hybrid"}
    unbiased, biased, hybrid = (record["estimates"][name] for name in ("unbiased", "biased", "hybrid"))
    assert hybrid["slope"] == unbiased["slope"]
    assert hybrid["curvature"] == biased["curvature"]
    assert unbiased["alpha_abs"] == pytest.approx(unbiased["alpha_rel"] * record["learning_rate"])
    assert unbiased["alpha_rel"] == pytest.approx(-unbiased["slope"] / unbiased["curvature"])


def test_medians_become_the_learning_rate_after_their_window(train_run: TrainRun) -> None:
    trained = train_run({**BASE, "alpha": MEDIAN})
    accepted = trained.events("learning_rate")
    assert accepted
    measured = {record["step"]: record["learning_rate"] for record in trained.of_kind("alpha")}
    assert measured[25] == accepted[0]["value"]


@pytest.mark.parametrize("route", ["jvp", "curvlinops", "thesis"])
@pytest.mark.parametrize("policy", ["median", "observe"])
def test_windows_with_alpha_part_its_seconds(train_run: TrainRun, route: str, policy: str) -> None:
    alpha = {**MEDIAN, "policy": policy, "route": route}
    workload = {"name": "digits_mlp", "hidden": [16]}
    windows = train_run({**BASE, "workload": workload, "alpha": alpha}).of_kind("window")
    assert ["alpha_parts" in w for w in windows] == [False, True, True, False, True, True]
    for window in windows:
        parts = window.get("alpha_parts", {"curvature": 0.0, "other": 0.0})
        spent = window["seconds"]["alpha"] + window["seconds"]["diagnostics"]
        assert parts["curvature"] + parts["other"] == pytest.approx(spent)
        assert parts["curvature"] <= spent


def test_both_routes_train_alike(train_run: TrainRun) -> None:
    runs = [
        train_run(
            {**BASE, "workload": {"name": "digits_mlp", "hidden": [16]}, "alpha": {**MEDIAN, "route": r}}, r
        )
        for r in ("jvp", "curvlinops")
    ]
    first, second = ([r["estimates"]["unbiased"]["alpha_abs"] for r in t.of_kind("alpha")][:4] for t in runs)
    assert first == pytest.approx(second, rel=1e-3)


def test_observing_changes_no_bit(train_run: TrainRun) -> None:
    plain = train_run(BASE, "0000000000")
    observed = train_run(
        {**BASE, "alpha": {"policy": "observe", "interval": 7, "count": 2, "also": ["biased"]}}, "0000000001"
    )
    assert all(
        torch.equal(a, b)
        for a, b in zip(final_model(plain).values(), final_model(observed).values(), strict=True)
    )
    losses = [[e["splits"] for e in t.of_kind("evaluation")] for t in (plain, observed)]
    assert losses[0] == losses[1]
    assert sum(w["seconds"]["alpha"] for w in observed.of_kind("window")) == 0


@pytest.mark.parametrize("optimizer", ["nadamw", "schedule_free_adamw", "adamw"])
@pytest.mark.parametrize("looks", [17, 75])
def test_a_stopped_run_resumes_to_the_same_bits(train_run: TrainRun, optimizer: str, looks: int) -> None:
    config = {**BASE, "optimizer": {"name": optimizer, "lr": 1e-2}}
    if optimizer == "schedule_free_adamw":
        config["schedule"] = None
    else:
        config["alpha"] = MEDIAN
    whole = train_run(config, "0000000000")
    interrupted = train_run(config, "0000000001", stop_request=StopAfter(looks))
    assert interrupted.outcome.status == "interrupted"
    resumed = train_run(config, "0000000001")
    assert resumed.outcome.status == "completed"
    assert all(
        torch.equal(a, b)
        for a, b in zip(final_model(whole).values(), final_model(resumed).values(), strict=True)
    )
    for kind, fields in {"window": ("step", "loss", "learning_rate"), "alpha": ("step", "estimates")}.items():
        rows = [[tuple(r[f] for f in fields) for r in t.of_kind(kind)] for t in (whole, resumed)]
        assert rows[0] == rows[1]
    assert [(r["step"], r["splits"]) for r in whole.of_kind("evaluation")] == [
        (r["step"], r["splits"]) for r in resumed.of_kind("evaluation")
    ]


def test_a_run_that_is_to_stop_before_it_trains_spends_no_time_on_a_warm_up(
    train_run: TrainRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    warmed_up: list[Session] = []
    monkeypatch.setattr(loop, "warm_up", warmed_up.append)
    asked = StopRequest()
    asked.request("preempted")
    assert train_run(BASE, stop_request=asked).outcome.status == "interrupted"
    assert warmed_up == []
    train_run(BASE)
    assert len(warmed_up) == 1


def test_a_raised_stop_continues_to_the_same_bits(train_run: TrainRun) -> None:
    whole = train_run(BASE, "0000000000")
    train_run({**BASE, "stop": {"steps": 33}}, "0000000001")
    continued = train_run(BASE, "0000000001")
    assert all(
        torch.equal(a, b)
        for a, b in zip(final_model(whole).values(), final_model(continued).values(), strict=True)
    )
    assert continued.records[0]["step"] == 0


def test_a_damaged_checkpoint_falls_back_to_the_one_before(train_run: TrainRun) -> None:
    config = {**BASE, "checkpoint": {"every_seconds": TICK}}
    trained = train_run(config, now=ticking())
    newest = available(trained.run)[-1]
    newest.path.write_bytes(newest.path.read_bytes()[:-100] + bytes(100))
    again = train_run(config)
    assert [e["file"] for e in again.events("checkpoint_damaged")] == [newest.path.name]
    assert again.outcome.status == "completed"


def test_two_checkpoints_are_kept(train_run: TrainRun) -> None:
    config = {**BASE, "checkpoint": {"every_seconds": TICK}, "stop": {"steps": 300}}
    trained = train_run(config, now=ticking())
    kept = [file.step for file in available(trained.run)]
    assert len(trained.of_kind("checkpoint")) > 3
    assert kept == [record["step"] for record in trained.of_kind("checkpoint")][-2:]
    assert kept[-1] == 300


def test_a_loss_that_is_not_finite_ends_the_run_as_diverged(train_run: TrainRun) -> None:
    trained = train_run({**BASE, "optimizer": {"name": "sgd", "lr": 1e12}, "schedule": None})
    assert trained.outcome.status == "diverged"
    assert trained.outcome.step < 60


def test_policies_that_set_the_rate_refuse_an_optimizer_that_is_not_linear_in_it() -> None:
    config = {**BASE, "optimizer": {"name": "schedule_free_adamw"}, "schedule": None, "alpha": MEDIAN}
    with pytest.raises(ValidationError, match="does not allow"):
        TrainingConfig.model_validate(config)


def test_schedule_free_is_observed_relatively(train_run: TrainRun) -> None:
    config = {
        **BASE,
        "optimizer": {"name": "schedule_free_adamw"},
        "schedule": None,
        "alpha": {"policy": "observe", "interval": 20, "count": 2},
    }
    record = train_run(config).of_kind("alpha")[0]
    assert record["estimates"]["unbiased"]["alpha_rel"] > 0
    assert record["estimates"]["unbiased"]["alpha_abs"] != record["estimates"]["unbiased"]["alpha_abs"]
