"""A run is one process' at a time, also where locks do not reach from host to host."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from alphagrid.errors import SystemRefused
from alphagrid.jobs.schedulers import slurm_duplicates
from alphagrid.store import claims, locks
from alphagrid.store.claims import Claim, Owner
from alphagrid.store.database import open_store
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
    monkeypatch.setattr(claims, "_newest_claim", lambda folder: (1, old))
    assert not second.acquire()
    monkeypatch.setattr(claims, "_newest_claim", lambda folder: None)
    assert not second.acquire()
    first.release()


def test_a_process_of_this_machine_that_has_ended_has_no_claim_at_once(tmp_path: Path) -> None:
    """Also one that nobody has waited for yet; and one whose process id another one has by now."""
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    owner = Owner.current().model_copy(update={"pid": process.pid, "born": locks.birth(process.pid)})
    write(tmp_path, owner.model_dump_json())
    assert claims.is_held(tmp_path)
    assert process.stdin is not None
    process.stdin.close()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie now
    assert locks.birth(process.pid) == owner.born
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


NO_CLAIMS: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "folder": Path.mkdir,
    "dangling link": lambda path: path.symlink_to("nowhere"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "endless device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("kind", NO_CLAIMS)
def test_what_is_no_file_holds_a_run_no_longer_than_a_silent_host_does(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "claim-0001"
    NO_CLAIMS[kind](path)
    assert claims.is_held(tmp_path)
    assert not Claim(tmp_path).acquire()
    os.utime(path, (time.time() - claims.STALE_SECONDS - 1,) * 2, follow_symlinks=False)
    assert not claims.is_held(tmp_path)
    claim = Claim(tmp_path)
    assert claim.acquire()
    claim.release()


def test_a_claim_that_no_clock_can_have_written_holds_no_run(tmp_path: Path) -> None:
    """The clock of a host may be ahead, but not by years."""
    path = write(tmp_path, ABROAD.model_dump_json(), age=-600)
    assert claims.is_held(tmp_path)
    os.utime(path, (time.time() + 10**9,) * 2)
    assert not claims.is_held(tmp_path)


@pytest.mark.parametrize("code", [errno.ENOENT, errno.ESTALE])
def test_a_claim_that_is_listed_and_has_not_arrived_is_another_host_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    write(tmp_path, "released\n", age=1e6)

    def open_late(path: Path) -> None:
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(claims, "open_file", open_late)
    assert claims.is_held(tmp_path)


@pytest.mark.parametrize("name", ["claim-٠٠٠٩", "claim-00012", "claim-1", "claim-9999999999"])
def test_a_file_whose_name_is_no_claim_s_is_none(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(ABROAD.model_dump_json())
    assert not claims.is_held(tmp_path)
    claim = Claim(tmp_path)
    assert claim.acquire()
    claim.release()


def test_a_run_whose_claims_have_no_number_left_says_so(tmp_path: Path) -> None:
    (tmp_path / "claim-999999999").write_text("released\n")
    for _ in range(2):
        with pytest.raises(SystemRefused, match="claim-999999999"):
            Claim(tmp_path).acquire()


def test_store_check_names_what_is_no_claim(tmp_path: Path) -> None:
    run = Root(tmp_path).experiment("exp").run("0123456789")
    (tmp_path / "exp" / "submissions").mkdir(parents=True)
    write(run.path, "released\n")
    for number, (kind, make) in enumerate(NO_CLAIMS.items(), 2):
        make(run.path / f"claim-{number:04d}")
        assert kind
    (run.path / "claim-0020").write_text("{}")
    (run.path / "claim-0021").write_text("")
    os.utime(run.path / "claim-0021", (0, 0))
    (run.path / "claim-0022").write_text("")  # is being written
    (run.path / "claim-0023").write_text(ABROAD.model_dump_json())
    with open_store(Root(tmp_path)) as store:
        found = {problem.file for problem in store.check()}
    numbers = (*range(2, 2 + len(NO_CLAIMS)), 20, 21)
    assert found == {f"0123456789/claim-{number:04d}" for number in numbers}


def test_a_file_system_that_hangs_does_not_keep_a_worker_from_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging, over = threading.Event(), threading.Event()

    def hang(*_: object, **options: object) -> None:
        hanging.set()
        over.wait()

    monkeypatch.setattr(claims, "HEARTBEAT_SECONDS", 0.01)
    monkeypatch.setattr(claims, "RELEASE_SECONDS", 0.1)
    monkeypatch.setattr(os, "utime", hang)
    claim = Claim(tmp_path)
    assert claim.acquire()
    assert hanging.wait(60)
    releasing = threading.Thread(target=claim.release, daemon=True)
    releasing.start()
    releasing.join(60)
    assert not releasing.is_alive()
    over.set()


def test_a_claim_is_released_and_touched_through_no_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "HEARTBEAT_SECONDS", 0.01)
    secret = tmp_path / "secret"
    secret.write_text("a thesis\n")
    os.utime(secret, (0, 0))
    claim = Claim(tmp_path / "run")
    (tmp_path / "run").mkdir()
    assert claim.acquire()
    (tmp_path / "run" / "link").symlink_to(secret)
    (tmp_path / "run" / "link").replace(tmp_path / "run" / "claim-0001")
    time.sleep(0.1)
    claim.release()
    assert (secret.read_text(), secret.stat().st_mtime) == ("a thesis\n", 0)


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
