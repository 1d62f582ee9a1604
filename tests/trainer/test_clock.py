"""The clock counts what a budget pays, and nothing else."""

import os
import signal
import time
from multiprocessing import get_context
from pathlib import Path

import pytest
from alphagrid.jobs.signals import requesting
from alphagrid.store.journal import Journal, Record, read
from alphagrid.store.layout import RunFiles
from alphagrid.trainer.clock import CATEGORIES, COUNTED, Clock
from alphagrid.trainer.config import TrainingConfig
from alphagrid.trainer.loop import train
from alphagrid.trainer.resume import prepare
from alphagrid.trainer.stopping import StopRequest
from hypothesis import given
from hypothesis import strategies as st


class Times:
    """A clock that is told what time it is."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@given(st.lists(st.tuples(st.sampled_from(CATEGORIES), st.integers(0, 1000)), max_size=30))
def test_train_seconds_are_the_sum_of_what_counts(charges: list[tuple[str, int]]) -> None:
    times = Times()
    clock = Clock(times)
    for category, seconds in charges:
        times.now += 7  # between sections nobody is charged
        with clock.charge(category):
            times.now += seconds
    assert clock.train_seconds == sum(seconds for category, seconds in charges if category in COUNTED)
    window = clock.take_window()
    for category in CATEGORIES:
        assert window[category] == sum(seconds for name, seconds in charges if name == category)
    assert not any(clock.take_window().values())


def test_a_resumed_clock_goes_on_from_where_it_stood() -> None:
    times = Times()
    first = Clock(times)
    with first.step("plain"), first.charge("optimizer"):
        times.now += 3
    times.now += 1000
    second = Clock(times)
    second.load_state_dict(first.state_dict())
    assert second.train_seconds == 3
    assert second.expected("plain") == 3
    assert second.take_window()["optimizer"] == 3


def test_a_step_is_expected_to_cost_the_median_of_its_kind() -> None:
    times = Times()
    clock = Clock(times)
    assert clock.expected("plain") == 0
    for kind, seconds in [("plain", 1), ("alpha", 50), ("plain", 90), ("plain", 2)]:
        with clock.step(kind), clock.charge("data"):
            times.now += seconds
    assert (clock.expected("plain"), clock.expected("alpha")) == (2, 50)


def test_a_suspension_is_not_counted() -> None:
    times = Times()
    clock = Clock(times)
    with clock.charge("forward_backward"):
        times.now += 2
        times.now += 3600  # suspended
        clock.forget_suspension()
        times.now += 1
    assert clock.train_seconds == 1


CONFIG = {
    "workload": {"name": "digits_mlp", "hidden": [16]},
    "optimizer": {"name": "sgd"},
    "stop": {"train_seconds": 1.0},
    "log": {"every_steps": 10},
    "device": "cpu",
}


def train_under_signals(path: Path) -> None:
    """What a worker does, in a process of its own."""
    run, stop = RunFiles(path), StopRequest()
    journal = Journal.create(run.journal(1))
    with requesting(stop):
        train(TrainingConfig.model_validate(CONFIG), run, journal, 1, prepare(run), stop)
    journal.close()


@pytest.mark.slow
def test_a_suspended_process_pays_nothing_for_it(tmp_path: Path) -> None:
    process = get_context("spawn").Process(target=train_under_signals, args=(tmp_path,))
    process.start()
    assert process.pid is not None
    deadline = time.monotonic() + 60
    while not any(record["kind"] == "window" for record in records(tmp_path)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(3)
    os.kill(process.pid, signal.SIGCONT)
    process.join(60)
    assert process.exitcode == 0
    last = records(tmp_path)[-1]
    windows = [record for record in records(tmp_path) if record["kind"] == "window"]
    assert last["train_seconds"] < 1.1
    assert windows[-1]["time"] - windows[0]["time"] >= 3  # it did stand still in between
    assert max(sum(w["seconds"][category] for category in COUNTED) for w in windows) < 1.0


def records(path: Path) -> list[Record]:
    journal = RunFiles(path).journal(1)
    return read(journal).records if journal.exists() else []
