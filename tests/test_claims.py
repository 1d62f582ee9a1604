"""A run is one process' at a time, also where locks do not reach from host to host."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from alphagrid.jobs.schedulers import slurm_duplicates
from alphagrid.store import claims, locks
from alphagrid.store.claims import Claim, Owner
from alphagrid.store.layout import Root
from alphagrid.store.submissions import Submission

from tests import conftest
from tests.mounts import two_mounts

if TYPE_CHECKING:
    from tests.conftest import Lab

ABROAD = Owner(host="abroad", realm="another machine", pid=os.getpid(), born="1")


def write(folder: Path, content: str, age: float = 0.0) -> Path:
    """Write the first claim on a run, last touched `age` seconds ago."""
    folder.mkdir(exist_ok=True)
    path = folder / "claim-0001"
    path.write_text(content)
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_a_claim_is_one_process_s_until_it_is_released(tmp_path: Path) -> None:
    first, second = Claim(tmp_path), Claim(tmp_path)
    assert not claims.is_held(tmp_path)
    assert first.acquire()
    assert not second.acquire()
    assert claims.is_held(tmp_path)
    first.release()
    assert not claims.is_held(tmp_path)
    assert second.acquire()
    second.release()


def test_a_list_of_the_folder_that_is_out_of_date_gives_nobody_a_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two take over a claim that is over, and the slower one does not know of the faster."""
    old = write(tmp_path, "released\n")
    first, second = Claim(tmp_path), Claim(tmp_path)
    assert first.acquire()
    monkeypatch.setattr(claims, "_newest", lambda folder: (1, old))
    assert not second.acquire()
    monkeypatch.setattr(claims, "_newest", lambda folder: None)
    assert not second.acquire()
    first.release()


def test_a_process_of_this_machine_that_has_ended_has_no_claim_at_once(tmp_path: Path) -> None:
    """Also one that nobody has waited for yet; and one whose process id another one has by now."""
    process = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.DEVNULL)
    owner = Owner.current().model_copy(update={"pid": process.pid})
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie now
    write(tmp_path, owner.model_dump_json())
    assert not claims.is_held(tmp_path)
    process.wait()
    assert not claims.is_held(tmp_path)
    write(tmp_path, Owner.current().model_copy(update={"born": "1"}).model_dump_json())
    assert not claims.is_held(tmp_path)


@pytest.mark.parametrize(
    "content",
    [ABROAD.model_dump_json(), "", "[]", "\udcff", '{"pid": "x"}'],
    ids=["another host", "empty", "list", "no text", "damaged"],
)
def test_where_the_process_cannot_be_seen_the_heartbeat_decides(tmp_path: Path, content: str) -> None:
    """Of another host; and of a claim that is damaged, or not written yet."""
    path = tmp_path / "claim-0001"
    path.write_bytes(content.encode(errors="surrogateescape"))
    assert claims.is_held(tmp_path)
    assert not Claim(tmp_path).acquire()
    os.utime(path, (time.time() - claims.STALE_SECONDS - 1,) * 2)
    assert not claims.is_held(tmp_path)


def test_a_living_claim_is_touched_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "HEARTBEAT_SECONDS", 0.01)
    claim = Claim(tmp_path)
    assert claim.acquire()
    os.utime(tmp_path / "claim-0001", (0, 0))
    deadline = time.monotonic() + 60
    while (tmp_path / "claim-0001").stat().st_mtime == 0:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    claim.release()


def test_a_submitter_may_be_submitting_while_it_lives_or_for_ten_minutes() -> None:
    mine = Owner.current()
    parent = mine.model_copy(update={"pid": os.getppid(), "born": locks.birth(os.getppid())})
    dead = mine.model_copy(update={"born": "1"})

    def at_work(submitter: Owner | None, age: float) -> bool:
        submission = Submission(
            id="s", created=1000.0, experiment="e", profile={}, runs=[], named={}, submitter=submitter
        )
        return slurm_duplicates.may_be_submitting(submission, 1000.0 + age)

    assert at_work(parent, 1e6)
    assert at_work(ABROAD, slurm_duplicates.SECONDS_TO_SUBMIT - 1)
    assert not at_work(ABROAD, slurm_duplicates.SECONDS_TO_SUBMIT + 1)
    assert not any(at_work(submitter, 1.0) for submitter in (None, dead, mine))


@pytest.mark.slow
def test_a_run_of_another_host_is_left_alone_until_that_host_is_silent(lab: Lab) -> None:
    claimed, free = (run.id for run in lab.experiment(100, [0.01, 0.02]).runs)
    lab.files.path.mkdir(parents=True)
    path = write(lab.files.run(claimed).path, ABROAD.model_dump_json())
    lab.submit(100, [0.01, 0.02])
    lab.until(lambda: lab.states()[free] == "completed")
    assert lab.states()[claimed] == "running"
    assert lab.attempts(claimed) == []
    os.utime(path, (0, 0))
    lab.until_all_are("completed")


@dataclass
class Host(conftest.Lab):
    """A host that has the root below a mount of its own."""

    mount: Path = Path()

    @property
    def root(self) -> Root:
        return Root(self.mount / "root")


@pytest.fixture
def hosts(lab: Lab) -> Iterator[tuple[Host, Host]]:
    (lab.folder / "shared").mkdir()
    with two_mounts(lab.folder / "shared") as (first, second):
        yield Host(lab.folder, mount=first), Host(lab.folder, mount=second)
        lab.close()


@pytest.mark.slow
def test_a_second_host_s_supervisor_starts_no_run_that_the_first_one_s_runs(hosts: tuple[Host, Host]) -> None:
    """It takes a run over when its worker has died, and runs what nobody runs."""
    first, second = hosts
    (shared,) = first.submit(300, [0.01], workload=first.held(), checkpoint={"every_seconds": 1e-9}).sent
    first.until(lambda: first.is_training(shared))
    os.kill(first.supervisor() or 0, signal.SIGKILL)
    second.submit(300, [0.01, 0.02], workload=first.held(), checkpoint={"every_seconds": 1e-9})
    (other,) = set(second.states()) - {shared}
    second.until(lambda: second.is_training(other))  # its supervisor has looked at the run before
    assert second.states() == {shared: "running", other: "running"}
    assert len(first.attempts(shared)) == 1
    os.kill(first.worker(shared) or 0, signal.SIGKILL)
    second.until(lambda: len(second.attempts(shared)) == 2)
    first.let_go()
    second.until_all_are("completed")
    assert [len(second.attempts(run_id)) for run_id in (shared, other)] == [2, 1]
