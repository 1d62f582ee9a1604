"""A run warns of what its steps depend on and no checkpoint holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from alphagrid.trainer import repeatability
from alphagrid.trainer.streams import are_same

if TYPE_CHECKING:
    from tests.trainer.conftest import TrainRun

STREAM = "the stream is no function of its index"
MODEL = "keeps a state"


@pytest.fixture(autouse=True)
def _tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def warnings(train_run: TrainRun, task: str = "Memory", **options: Any) -> list[str]:
    config = {
        "workload": {"name": f"memory_task:{task}", "batch_size": 10, **options},
        "optimizer": {"name": "sgd", "lr": 0.01},
        "eval": {"every_steps": 1000},
        "stop": {"steps": 3},
        "device": "cpu",
    }
    return [event["message"] for event in train_run(config).events("warning")]


@pytest.mark.parametrize(
    ("memory", "told"),
    [
        ("hidden", "(changed: 0.kept.0)"),
        ("counter", "(changed: 0.passes)"),
        ("unregistered", "(changed: 0.norms.0.running_mean)"),
        ("elsewhere", "keeps a state that"),
    ],
)
def test_a_state_that_is_no_buffer_is_warned_of(train_run: TrainRun, memory: str, told: str) -> None:
    (message,) = warnings(train_run, memory=memory)
    assert MODEL in message
    assert told in message


@pytest.mark.parametrize("memory", ["harmless", "in_place", "inference"])
def test_what_changes_no_result_is_not(train_run: TrainRun, memory: str) -> None:
    assert warnings(train_run, memory=memory) == []


@pytest.mark.parametrize("task", ["Memory", "ReadAhead"])
@pytest.mark.parametrize("data", ["counting", "own"])
def test_a_stream_with_a_memory_is_warned_of(train_run: TrainRun, task: str, data: str) -> None:
    (message,) = warnings(train_run, task, data=data)
    assert STREAM in message


def test_a_check_that_fails_ends_no_run(train_run: TrainRun) -> None:
    (message,) = warnings(train_run, memory="once")
    assert "was not checked" in message
    assert "no more passes" in message


def test_a_stream_that_cannot_be_read_again_ends_no_run(train_run: TrainRun) -> None:
    (message,) = warnings(train_run, "ReadAhead", data="in_order")
    assert "LookupError: read before" in message


@pytest.mark.parametrize("accumulate", [1, 3])
def test_no_step_pays_for_the_comparison(
    train_run: TrainRun, monkeypatch: pytest.MonkeyPatch, accumulate: int
) -> None:
    now = [0.0]

    def slow(left: Any, right: Any) -> bool:
        now[0] += 1000
        return are_same(left, right)

    monkeypatch.setattr(repeatability, "are_same", slow)
    config = {
        "workload": {
            "name": "memory_task:Memory", "batch_size": 10, "data": "counting", "memory": "in_place",
            "accumulate": accumulate,
        },
        "optimizer": {"name": "sgd", "lr": 0.01},
        "eval": {"every_steps": 1000},
        "stop": {"steps": 3},
        "device": "cpu",
    }  # fmt: skip
    for _ in range(2):  # each attempt makes it once
        trained = train_run(config, now=lambda: now[0])
        config["stop"] = {"steps": 6}
    assert now[0] == 2000
    assert trained.outcome.train_seconds == 0
    assert len(trained.events("warning")) == 2


def test_a_stream_may_draw_from_the_generators_that_are_restored(train_run: TrainRun) -> None:
    assert warnings(train_run, data="global") == []


def test_but_not_when_it_is_read_ahead(train_run: TrainRun) -> None:
    (message,) = warnings(train_run, "ReadAhead", data="global")
    assert STREAM in message
