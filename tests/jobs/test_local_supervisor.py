"""The local supervisor: what dies is started again, and nothing runs twice."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from alphagrid.jobs.schedulers import local_slots, local_supervisor
from alphagrid.jobs.schedulers.local import ensure_supervisor
from alphagrid.store.locks import FileLock, holder, is_held

if TYPE_CHECKING:
    from tests.conftest import Lab


@pytest.mark.slow
def test_a_killed_worker_is_started_again_from_its_checkpoint(lab: Lab) -> None:
    (run_id,) = lab.submit(300, workload=lab.held(), checkpoint={"every_seconds": 1e-9}).sent
    lab.until(lambda: lab.is_training(run_id) and bool(lab.files.run(run_id).checkpoints()))
    kill(lab.worker(run_id))
    lab.let_go()
    lab.until_all_are("completed")
    first, second = lab.attempts(run_id)
    assert first.end is None
    assert 0 < second.resume_step < 300
    assert second.step == 300


@pytest.mark.slow
def test_a_killed_supervisor_loses_nothing(lab: Lab) -> None:
    lab.submit(300, [0.01, 0.02, 0.03], workload=lab.held())
    lab.until(lambda: sum(map(lab.is_training, lab.states())) == 2)
    kill(lab.supervisor())
    lab.until(lambda: lab.supervisor() is None)
    assert sorted(lab.states().values()) == ["running", "running", "unknown"]

    again = lab.submit(300, [0.01, 0.02, 0.03], workload=lab.held())
    assert again.sent == ()
    lab.until(lambda: lab.supervisor() is not None)
    lab.let_go()
    lab.until_all_are("completed")
    assert [len(lab.attempts(run_id)) for run_id in lab.states()] == [1, 1, 1]


@pytest.mark.slow
def test_dying_twice_without_a_checkpoint_is_a_failure_with_a_reason(lab: Lab) -> None:
    (run_id,) = lab.submit(10**9).sent
    for attempt in (1, 2):
        lab.until(lambda: lab.is_training(run_id) and len(lab.attempts(run_id)) == attempt)  # noqa: B023
        kill(lab.worker(run_id))
    lab.until_all_are("failed")
    assert lab.reasons() == ["2 attempts without a new checkpoint; the last: its process died"]


def test_a_run_whose_processes_cannot_begin_is_given_up_with_a_reason(lab: Lab) -> None:
    experiment = lab.experiment(10)
    blocked = lab.files.run(experiment.runs[0].id)
    blocked.config.mkdir(parents=True)  # the worker cannot put its copy of the config there
    (run_id,) = lab.submit(10).sent
    lab.until_all_are("failed")
    assert "2 attempts without a new checkpoint" in str(lab.reasons()[0])
    assert len(lab.attempts(run_id)) == 2


def test_a_supervisor_without_work_ends_and_two_are_never_at_work(lab: Lab) -> None:
    ensure_supervisor(lab.root)
    lock = FileLock(lab.root.supervisor / "lock")
    lab.until(lambda: not is_held(lock.path))
    assert lock.acquire()
    ensure_supervisor(lab.root)
    assert lab.supervisor() == os.getpid()
    lock.release()


def test_a_lock_names_its_holder_and_is_free_when_released(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    assert not is_held(lock.path)
    assert lock.acquire()
    assert is_held(lock.path)
    assert holder(lock.path) == os.getpid()
    assert not FileLock(lock.path).acquire()
    lock.release()
    assert holder(lock.path) is None


def test_a_process_id_that_was_given_to_somebody_else_is_not_taken_for_the_holder(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    assert lock.acquire()
    lock.path.write_text(f"{os.getpid()} 1\n")  # as a killed holder of the same number would have left it
    assert is_held(lock.path)
    assert holder(lock.path) is None
    lock.release()


def test_slots_are_shared_and_belong_to_a_gpu_each(lab: Lab) -> None:
    first, second = local_slots.take(2, lambda: False), local_slots.take(2, lambda: False)
    assert first is not None
    assert second is not None
    assert local_slots.free(2) == 0
    assert [slot.gpu(("3", "5")) for slot in (first, second)] == ["3", "5"]
    assert first.gpu(()) is None
    asked = iter([False, True])
    assert local_slots.take(2, lambda: next(asked)) is None
    first.lock.release()
    assert local_slots.free(2) == 1
    second.lock.release()


HOUR = 3600.0


class Hours:
    """A clock of which every sleep takes an hour: files grow older, and a cleaner removes the old ones."""

    def __init__(self, folder: Path, oldest: float) -> None:
        self.folder, self.oldest, self.now = folder, oldest, 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, _: float) -> None:
        self.now += HOUR
        for path in self.folder.iterdir():
            age = time.time() - path.stat().st_mtime + HOUR
            if age > self.oldest:
                path.unlink()
            else:
                os.utime(path, (time.time() - age,) * 2)


def test_a_supervisor_keeps_slots_from_a_cleaner_of_old_files(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For as long as it is at work: a slot whose file is gone could be taken twice."""
    monkeypatch.setenv(local_slots.GPUS_VARIABLE, "")  # a supervisor sets it for its workers
    slot = local_slots.take(1, lambda: False)
    assert slot is not None
    hours = Hours(slot.lock.path.parent, oldest=2.5 * HOUR)
    monkeypatch.setattr(local_supervisor, "time", hours)
    monkeypatch.setattr(local_supervisor.Supervisor, "has_work", lambda self: hours.now < 10 * HOUR)
    lab.root.path.mkdir()
    local_supervisor.Supervisor(lab.root).work()
    assert hours.now == 10 * HOUR
    assert local_slots.free(1) == 0
    slot.lock.release()


def test_as_many_runs_as_asked_else_one_per_gpu_else_one_per_threads_worth_of_cores() -> None:
    cores = len(os.sched_getaffinity(0))
    assert local_slots.capacity(7, threads=1, gpus=2) == 7
    assert local_slots.capacity(None, threads=1, gpus=2) == 2
    assert local_slots.capacity(None, threads=1, gpus=0) == cores
    assert local_slots.capacity(None, threads=10 * cores, gpus=0) == 1


def test_gpus_are_counted_without_torch() -> None:
    assert local_slots.visible_gpus({"CUDA_VISIBLE_DEVICES": "2, 3"}) == ("2", "3")
    assert local_slots.visible_gpus({"CUDA_VISIBLE_DEVICES": ""}) == ()
    assert local_slots.visible_gpus({"CUDA_VISIBLE_DEVICES": "", "ALPHAGRID_GPUS": "1"}) == ("1",)


def kill(pid: int | None) -> None:
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
