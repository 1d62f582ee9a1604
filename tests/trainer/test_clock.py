"""The clock counts what a budget pays, and nothing else."""

import os
import signal
import time
from multiprocessing import get_context
from pathlib import Path

import pytest
from alphagrid.jobs.worker.signals import requesting
from alphagrid.store.journal import Journal, Record, read
from alphagrid.store.layout import RunFiles
from alphagrid.trainer.clock import CATEGORIES, COUNTED, Clock
from alphagrid.trainer.config import TrainingConfig
from alphagrid.trainer.loop import train
from alphagrid.trainer.resume import prepare
from alphagrid.trainer.stopping import StopRequest
from alphagrid.trainer.timers import HostTimer
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
    clock = Clock(HostTimer(times))
    for category, seconds in charges:
        times.now += 7  # between sections nobody is charged
        with clock.charge(category):
            times.now += seconds
    assert clock.train_seconds == sum(seconds for category, seconds in charges if category in COUNTED)
    window = clock.take_window()["seconds"]
    for category in CATEGORIES:
        assert window[category] == sum(seconds for name, seconds in charges if name == category)
    assert not any(clock.take_window()["seconds"].values())


def test_a_resumed_clock_goes_on_from_where_it_stood() -> None:
    times = Times()
    first = Clock(HostTimer(times))
    with first.step("plain"), first.charge("optimizer"):
        times.now += 3
    times.now += 1000
    second = Clock(HostTimer(times))
    second.load_state_dict(first.state_dict())
    assert second.train_seconds == 3
    assert second.expected("plain") == 3
    assert second.take_window()["seconds"]["optimizer"] == 3


def test_a_step_is_expected_to_cost_the_median_of_its_kind() -> None:
    times = Times()
    clock = Clock(HostTimer(times))
    assert clock.expected("plain") == 0
    for kind, seconds in [("plain", 1), ("alpha", 50), ("plain", 90), ("plain", 2)]:
        with clock.step(kind), clock.charge("data"):
            times.now += seconds
    assert (clock.expected("plain"), clock.expected("alpha")) == (2, 50)


def test_a_suspension_is_not_counted() -> None:
    times = Times()
    clock = Clock(HostTimer(times))
    with clock.charge("forward_backward"):
        times.now += 2
        times.now += 3600  # suspended
        clock.forget_suspension()
        times.now += 1
    assert clock.train_seconds == 1


class Suspended(HostTimer):
    """A clock whose process is suspended as one of its marks is set, and only then learns of it."""

    def __init__(self, times: Times, at: int, late: bool) -> None:
        super().__init__(times)
        self.times = times
        self.marks_left = at
        self.late = late
        self.clock: Clock | None = None
        self.mark = self.mark_and_suspend

    def mark_and_suspend(self) -> float:
        read = self.times.now
        self.marks_left -= 1
        if self.marks_left == -1 and self.clock is not None:
            self.times.now += 3600
            read = self.times.now if self.late else read
            self.clock.forget_suspension()
        return read


@given(st.integers(0, 15), st.booleans())
def test_a_suspension_is_not_counted_wherever_it_falls(at: int, late: bool) -> None:
    """Beside a reading of the clock too, before the handler of SIGCONT has had its turn, or after."""
    times = Times()
    timer = Suspended(times, at, late)
    timer.clock = clock = Clock(timer)
    seconds = {"optimizer": 1, "data": 100, "alpha": 10_000}
    for _ in range(2):
        with clock.step("plain"):
            times.now += seconds["optimizer"]
            with clock.charge("data"):
                times.now += seconds["data"]
            with clock.charge("alpha"), clock.curvature():
                times.now += seconds["alpha"]
    step = sum(seconds.values())
    assert times.now == 2 * step + 3600  # it was suspended
    found = clock.take_window()["seconds"]
    assert step <= clock.train_seconds == sum(found.values()) <= 2 * step
    assert all(0 <= found[name] <= 2 * seconds.get(name, 0) for name in CATEGORIES)


CONFIG = {
    "workload": {"name": "digits_mlp", "hidden": [16]},
    "optimizer": {"name": "sgd"},
    "stop": {"train_seconds": 2.0},
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
    deadline = time.monotonic() + 300
    while not any(record["kind"] == "window" for record in records(tmp_path)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(6)
    os.kill(process.pid, signal.SIGCONT)
    process.join(300)
    assert process.exitcode == 0
    last = records(tmp_path)[-1]
    windows = [record for record in records(tmp_path) if record["kind"] == "window"]
    assert last["train_seconds"] < 4
    assert windows[-1]["time"] - windows[0]["time"] >= 6  # it did stand still in between
    assert max(sum(w["seconds"][category] for category in COUNTED) for w in windows) < 4


def records(path: Path) -> list[Record]:
    journal = RunFiles(path).journal(1)
    return read(journal).records if journal.exists() else []


class Device:
    """A timer whose marks pass when the device gets to them; the host only queues work."""

    def __init__(self) -> None:
        self.queued = 0.0
        self.done = 0.0

    def work(self, seconds: float) -> None:
        self.queued += seconds

    def mark(self) -> float:
        return self.queued

    def has_passed(self, mark: float) -> bool:
        return mark <= self.done

    def wait(self) -> None:
        self.done = self.queued

    def seconds(self, start: float, end: float) -> float:
        return end - start


def device_step(clock: Clock, device: Device, seconds: float, kind: str = "plain") -> None:
    with clock.step(kind):
        with clock.charge("forward_backward"):
            device.work(seconds)
        device.work(1)


def test_work_that_is_only_queued_is_charged_once_the_device_has_done_it() -> None:
    device = Device()
    clock = Clock(device)
    device_step(clock, device, 4)
    device_step(clock, device, 6)
    assert clock.train_seconds == 0
    device.done = 5
    device_step(clock, device, 8)
    assert clock.train_seconds == 5
    clock.settle()
    assert clock.train_seconds == 21
    assert clock.take_window()["seconds"]["forward_backward"] == 18


def test_steps_that_the_device_has_not_done_yet_are_expected_to_cost_what_others_did() -> None:
    device = Device()
    clock = Clock(device)
    device_step(clock, device, 4)
    clock.settle()
    device_step(clock, device, 99)
    assert clock.projected("plain") == 5 + 5 + 5
    clock.settle()
    assert clock.projected("plain") == 105 + 52.5


def test_a_section_is_charged_what_no_inner_one_is() -> None:
    times = Times()
    clock = Clock(HostTimer(times))
    with clock.step("plain"):
        times.now += 1
        with clock.charge("data"):
            times.now += 10
        times.now += 2
        with clock.charge("alpha"), clock.charge("diagnostics"):
            times.now += 100
    window = clock.take_window()
    assert {name: s for name, s in window["seconds"].items() if s} == {
        "data": 10,
        "optimizer": 3,
        "diagnostics": 100,
    }
    assert window["costs"] == {"plain": 3, "data": 10}
    assert clock.train_seconds == 13


def test_a_curvature_is_told_apart_within_the_seconds_of_alpha() -> None:
    times = Times()
    first = Clock(HostTimer(times))
    with first.charge("alpha"):
        times.now += 1
        with first.curvature():
            times.now += 20
    second = Clock(HostTimer(times))
    second.load_state_dict(first.state_dict())
    with second.charge("diagnostics"):
        times.now += 3
    window = second.take_window()
    assert second.train_seconds == window["seconds"]["alpha"] == 21
    assert window["alpha_parts"] == {"curvature": 20, "other": 4}
    assert "alpha_parts" not in second.take_window()


def test_a_curvature_that_is_only_queued_is_told_apart_once_the_device_has_found_it() -> None:
    device = Device()
    clock = Clock(device)
    with clock.step("alpha"), clock.charge("alpha"):
        device.work(1)
        with clock.curvature():
            device.work(9)
    device.work(5)
    clock.settle()
    assert clock.take_window()["alpha_parts"] == {"curvature": 9, "other": 1}


def test_a_suspension_is_forgotten_in_every_section_around_it() -> None:
    times = Times()
    clock = Clock(HostTimer(times))
    with clock.step("plain"):
        times.now += 1
        with clock.charge("data"):
            times.now += 3600
            clock.forget_suspension()
            times.now += 2
        times.now += 4
    assert clock.train_seconds == 6
