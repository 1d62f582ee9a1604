"""How often checkpoints are written, and that nobody writes them when training has ended."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from alphagrid.store.layout import RunFiles
from alphagrid.trainer import checkpoint_writer, loop
from alphagrid.trainer.checkpoint_writer import CheckpointWriter
from alphagrid.trainer.config import CheckpointOptions
from alphagrid.trainer.session import Session
from alphagrid.trainer.step import StepResult, take_step

if TYPE_CHECKING:
    from tests.trainer.conftest import TrainRun


class Times:
    """A clock that goes on by `step` seconds each time it is read."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def writer(path: Path, times: Times, every_seconds: float = 10.0) -> CheckpointWriter:
    return CheckpointWriter(RunFiles(path), 1, CheckpointOptions(every_seconds=every_seconds), times)


def seconds_until_due(one: CheckpointWriter, times: Times) -> float:
    since, times.step = times.now, 0.125
    while not one.due():
        assert times.now < since + 1e6
    return times.now - since


def test_a_cheap_checkpoint_is_due_as_often_as_asked(tmp_path: Path) -> None:
    times = Times(0.0)
    one = writer(tmp_path, times)
    one.write(1, 0.0, {"model": torch.zeros(3)})
    assert 10.0 <= seconds_until_due(one, times) <= 10.25


def test_one_that_holds_training_up_is_due_so_seldom_that_it_costs_two_per_cent(tmp_path: Path) -> None:
    times = Times(0.5)
    one = writer(tmp_path, times)
    before = times.now
    one.write(1, 0.0, {"model": torch.zeros(3)})
    held_up = times.now - before - times.step  # from its first reading of the clock to its last
    waited = seconds_until_due(one, times)
    assert waited > 10.5
    assert held_up / (held_up + waited) <= 0.0205


def test_after_an_error_nothing_writes_behind_training_any_more(
    train_run: TrainRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing = threading.Event()
    save = torch.save

    def slowly(state: dict[str, Any], file: Any) -> None:
        writing.set()
        time.sleep(0.5)
        save(state, file)

    def failing(session: Session) -> StepResult:
        if writing.is_set():
            raise RuntimeError("boom")
        return take_step(session)

    monkeypatch.setattr(torch, "save", slowly)
    monkeypatch.setattr(loop, "take_step", failing)
    monkeypatch.setattr(checkpoint_writer, "BACKGROUND_BYTES", 0)
    config = {
        "workload": {"name": "least_squares"},
        "optimizer": {"name": "sgd", "lr": 0.01},
        "checkpoint": {"every_seconds": 1e-6},
        "stop": {"steps": 1000},
        "device": "cpu",
    }
    with pytest.raises(RuntimeError, match="boom"):
        train_run(config)
    names = [path.name for path in tmp_path.rglob("*checkpoint-*")]
    assert names
    assert not [name for name in names if name.endswith(".tmp")]
