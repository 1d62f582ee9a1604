"""Local workers of two hosts that want one run, and see its folder through mounts whose caches are late."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from alphagrid.store.layout import Root

from tests.jobs import host_worker
from tests.mounts import CACHE_SECONDS, two_mounts
from tests.store import test_claims

if TYPE_CHECKING:
    from tests.conftest import Lab

pytestmark = pytest.mark.slow

SCRIPT = Path(host_worker.__file__)


class Host(test_claims.Host):
    """A host with slots of its own."""

    def start(self, run_id: str, folder: Path | None = None) -> subprocess.Popen[str]:
        """Start a worker on a run of the one submission, seen from here or not; see host_worker.py."""
        (submission,) = Root(self.mount.parent / "real" / "root").experiment("exp").submissions.iterdir()
        arguments = [self.mount.name, str(self.root.path), run_id, submission.stem]
        arguments += [] if folder is None else [str(folder)]
        environment = {**os.environ, "XDG_STATE_HOME": str(self.folder / f"state of {self.mount.name}")}
        command = [sys.executable, str(SCRIPT), *arguments]
        worker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        self.submitters.append(worker)
        return worker

    def train(self) -> tuple[str, subprocess.Popen[str]]:
        """Submit one run, and start a worker, which stands still with a checkpoint; return both."""
        (run_id,) = self.submit(300, workload=self.held(), checkpoint={"every_seconds": 1e-9}).sent
        worker = self.start(run_id)
        self.until(lambda: self.is_training(run_id) and bool(self.files.run(run_id).checkpoints()))
        return run_id, worker


def ending(worker: subprocess.Popen[str]) -> str:
    said, _ = worker.communicate(timeout=300)
    assert worker.returncode == 0
    return said.strip()


@pytest.fixture
def hosts(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Host, Host]]:
    """Two hosts on which no supervisor starts anything."""
    monkeypatch.setattr("alphagrid.jobs.schedulers.local.ensure_supervisor", lambda root: None)
    (lab.folder / "shared").mkdir()
    with two_mounts(lab.folder / "shared") as mounts:
        first, second = (Host(lab.folder, mount=mount) for mount in mounts)
        yield first, second
        first.close()
        second.close()


def test_of_two_workers_that_begin_at_once_one_trains(hosts: tuple[Host, Host]) -> None:
    """Both have looked for claims, and found none, before either makes its own."""
    first, _ = hosts
    for run_id in first.submit(20, [0.01, 0.02, 0.03]).sent:
        folder = first.folder / f"looks at {run_id}"
        folder.mkdir()
        workers = [host.start(run_id, folder) for host in hosts]
        assert sorted(map(ending, workers)) == ["completed", "elsewhere"]
        assert len(list(folder.iterdir())) == 2
        assert [attempt.end for attempt in first.attempts(run_id)] == ["completed"]


def test_a_worker_that_comes_later_leaves_the_run_until_the_first_one_s_heart_stops(
    hosts: tuple[Host, Host],
) -> None:
    """Its heart beats on while it trains, and stops with its process."""
    first, second = hosts
    run_id, worker = first.train()
    began = time.monotonic()
    while time.monotonic() - began < host_worker.STALE_SECONDS + CACHE_SECONDS:
        assert ending(second.start(run_id)) == "elsewhere"
    worker.kill()
    worker.wait()
    killed = time.monotonic()
    first.let_go()
    while (how := ending(second.start(run_id))) == "elsewhere":
        assert time.monotonic() - killed < 10 * host_worker.STALE_SECONDS
    assert how == "completed"
    assert time.monotonic() - killed > host_worker.STALE_SECONDS - CACHE_SECONDS
    lost, last = second.attempts(run_id)
    assert (lost.end, last.end, last.step) == (None, "completed", 300)
    assert last.resume_step > 0


def test_a_worker_that_was_suspended_finds_that_the_other_host_has_its_run(
    hosts: tuple[Host, Host],
) -> None:
    first, second = hosts
    run_id, worker = first.train()
    os.kill(worker.pid, signal.SIGSTOP)
    first.let_go()
    second.until(lambda: ending(second.start(run_id)) == "completed")
    os.kill(worker.pid, signal.SIGCONT)
    assert ending(worker) == "elsewhere"
    suspended, last = second.attempts(run_id)
    assert (suspended.end, suspended.superseded, last.end, last.step) == (None, True, "completed", 300)
