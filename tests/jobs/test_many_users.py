"""Several users on one machine and under one root: nobody harms another's files, by accident or by intent.

Processes are forked from this one, which has everything imported, and give up root: the repository and its
environment may lie where other users cannot read.
"""

from __future__ import annotations

import grp
import json
import os
import pickle
import pwd
import shutil
import signal
import stat
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from alphagrid.cli import app
from alphagrid.cluster_profiles.loader import load_profile
from alphagrid.errors import SystemRefused, UserError
from alphagrid.jobs.schedulers import local_slots
from alphagrid.jobs.schedulers.local_queue import LocalQueue
from alphagrid.jobs.specification.experiment import expand
from alphagrid.jobs.specification.file import read_spec
from alphagrid.jobs.submission import submit
from alphagrid.store import folders, location, locks
from alphagrid.store.database import open_store
from alphagrid.store.files import open_regular
from alphagrid.store.layout import Root, RunFiles
from alphagrid.store.location import database_path
from alphagrid.store.locks import FileLock
from alphagrid.store.reserve import Reserve
from typer.testing import CliRunner

if TYPE_CHECKING:
    from tests.conftest import Lab

ALICE, BOB, STRANGER, GROUP, OTHERS = 4001, 4002, 4003, 4100, 4200
SECRET = "a thesis\n"
SECONDS = 300
"""After which a process of another user is killed: a deadline for crowded machines, not an expectation."""

Result = TypeVar("Result")

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start processes of several users")

WORKLOAD = """
from alphagrid.trainer.workloads.least_squares import LeastSquares

class Mine(LeastSquares):
    pass
"""
SPEC = """
experiment: {name}
base:
  workload: {{name: "mine:Mine", features: 3, examples: 32, batch_size: 8}}
  optimizer: {{name: sgd, lr: 0.05}}
  eval: {{every_steps: 10}}
  log: {{every_steps: 5}}
  stop: {{steps: 20}}
  device: cpu
grid:
  optimizer.lr: [0.02, 0.05]
profile: ../debug.yaml
"""


@dataclass(frozen=True)
class Machine:
    """A folder that every user can enter: homes, a root that a group shares, a place where all may write."""

    folder: Path

    @property
    def root(self) -> Root:
        return Root(self.folder / "shared")

    @property
    def public(self) -> Path:
        return self.folder / "public"

    def home(self, uid: int) -> Path:
        return self.folder / str(uid)

    def run(self, uid: int, function: Callable[[], Result], umask: int = 0o027) -> Result:
        """Return what a function returns, or raise what it raises, in a process of another user."""
        sys.stdout.flush()
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(SECONDS)
            try:
                os.close(reading)
                with open(writing, "wb") as pipe:  # noqa: PTH123
                    pipe.write(self._as_user(uid, function, umask))
            finally:
                os.kill(os.getpid(), signal.SIGKILL)  # leave nothing to what the test runner does at exit
        os.close(writing)
        with open(reading, "rb") as pipe:  # noqa: PTH123
            content = pipe.read()
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert status != -signal.SIGALRM, f"the process of user {uid} hung for {SECONDS} s"
        outcome, error, trace = pickle.loads(content)
        if error is not None:
            raise error
        assert not trace, trace
        return outcome  # type: ignore[no-any-return]

    def command(self, uid: int, *words: object, umask: int = 0o027) -> Any:
        """Run a command of alphagrid's as a user, under the shared root."""

        def call() -> tuple[int, str, str]:
            said = CliRunner().invoke(app, [*map(str, words), "--root", str(self.root.path)])
            if said.exception is not None and not isinstance(said.exception, SystemExit):
                raise said.exception
            return said.exit_code, said.stdout, said.stderr

        return self.run(uid, call, umask)

    def submit(self, uid: int, name: str, umask: int = 0o027, *words: str) -> Any:
        return self.command(uid, "submit", self.spec(uid, name), *words, umask=umask)

    def spec(self, uid: int, name: str) -> Path:
        path = self.home(uid) / f"{name}.yaml"
        path.write_text(SPEC.format(name=name))
        return path

    def _as_user(self, uid: int, function: Callable[[], Any], umask: int) -> bytes:
        """Return what a function returns, or the UserError that it raises, or another error's traceback."""
        try:
            os.setgroups([])
            os.setgid(OTHERS if uid == STRANGER else GROUP)
            os.setuid(uid)
            os.umask(umask)
            os.chdir("/")
            os.environ["HOME"] = str(self.home(uid))
            return pickle.dumps((function(), None, ""))
        except UserError as error:
            return pickle.dumps((None, error, ""))
        except BaseException:
            return pickle.dumps((None, None, traceback.format_exc()))


def place_for_all() -> Path:
    """Return a folder for temporary files into which every user can go."""
    for place in (Path(tempfile.gettempdir()), Path("/var/tmp")):
        if all(folder.stat().st_mode & stat.S_IXOTH for folder in (place, *place.resolve().parents)):
            return place
    pytest.fail("other users can enter neither the folder for temporary files nor /var/tmp")


@pytest.fixture
def machine(everything_imported: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    folder = Path(tempfile.mkdtemp(prefix="alphagrid-users-", dir=place_for_all()))
    folder.chmod(0o755)
    found = Machine(folder)
    for uid in (ALICE, BOB, STRANGER):
        found.home(uid).mkdir(mode=0o755)
        (found.home(uid) / "mine.py").write_text(WORKLOAD)
        shutil.chown(found.home(uid), uid, GROUP)
    (folder / "debug.yaml").write_text("cluster: debug\n")
    found.public.mkdir()
    found.public.chmod(0o1777)
    found.root.path.mkdir()
    shutil.chown(found.root.path, ALICE, GROUP)
    found.root.path.chmod(0o2770)
    monkeypatch.setattr(folders, "SHARED", found.public)
    monkeypatch.setattr(
        "alphagrid.jobs.worker.environment_record.packages_distributions", dict
    )  # which takes its time
    monkeypatch.setenv("TMPDIR", str(found.public))
    monkeypatch.setattr("tempfile.tempdir", None)
    for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME", "ALPHAGRID_ROOT"):
        monkeypatch.delenv(name, raising=False)
    yield found
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def everything_imported(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Use every command once here, so that processes of other users find all modules in memory."""
    folder = tmp_path_factory.mktemp("imported")
    (folder / "specs").mkdir()
    (folder / "debug.yaml").write_text("cluster: debug\n")
    spec = folder / "specs" / "spec.yaml"
    spec.write_text(SPEC.format(name="exp"))
    (folder / "specs" / "mine.py").write_text(WORKLOAD)
    commands = (
        ["submit", str(spec)], ["status"], ["status", "exp"], ["report", "exp", "--json"],
        ["prune", "exp", "--all"], ["cancel", "exp", "--all"], ["retry", "exp", "--all"],
        ["logs", "exp", "lr0.02"], ["store", "path"],
    )  # fmt: skip
    for words in commands:
        CliRunner().invoke(app, [*words, "--root", str(folder / "root")])
    sys.modules.pop("mine", None)


def everything(folder: Path) -> dict[str, tuple[Any, ...]]:
    """Return what can be told of every file below a folder but the owner's index."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        is_file = stat.S_ISREG(status.st_mode)
        if not path.name.startswith("alphagrid.db"):
            content = (path.read_bytes(), status.st_mtime_ns) if is_file else ()
            found[str(path)] = (oct(status.st_mode), status.st_uid, status.st_gid, *content)
    return found


# Links, and folders that somebody made before


def linked(path: Path, kind: str) -> Path:
    """Put a link to a file of the user's where alphagrid is about to write; return that file."""
    path.parent.mkdir(exist_ok=True, parents=True)
    secret = path.parent.parent / "secret"
    secret.write_text(SECRET)
    if kind == "symbolic":
        path.symlink_to(secret)
    elif kind == "hard":
        os.link(secret, path)
    else:
        os.mkfifo(path)
    return secret


@pytest.mark.parametrize("kind", ["symbolic", "hard", "pipe"])
def test_a_lock_file_is_a_regular_file_with_one_name_or_refused(tmp_path: Path, kind: str) -> None:
    lock = FileLock(tmp_path / "run" / "lock")
    secret = linked(lock.path, kind)
    with pytest.raises(SystemRefused, match="regular file"):
        lock.acquire()
    if kind == "hard":  # looking writes nothing
        assert not locks.is_held(lock.path)
    else:
        with pytest.raises(SystemRefused, match="regular file"):
            locks.is_held(lock.path)
    assert secret.read_text() == SECRET


def test_a_copy_of_a_root_that_shares_its_files_can_be_looked_at(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `cp -al` makes one; it does not share the index."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(lab.folder / "cache"))
    monkeypatch.setattr("alphagrid.jobs.schedulers.local.ensure_supervisor", lambda root: None)
    (run_id,) = lab.submit(20, [0.1]).sent
    assert FileLock(lab.files.run(run_id).lock).acquire()
    assert lab.states() == {run_id: "running"}
    call(lab.root.path, "status")
    copy = lab.folder / "copy"
    shutil.copytree(lab.root.path, copy, copy_function=os.link)
    assert lab.files.run(run_id).lock.stat().st_nlink == 2
    before = everything(lab.root.path)
    for words in (["status"], ["status", "exp", "--json"], ["store", "rebuild"]):
        shown = call(copy, *words)
        assert "running" in shown or words[0] == "store"
    assert everything(lab.root.path) == before
    assert database_path(Root(copy), os.environ).is_relative_to(lab.folder / "cache")


def call(root: Path, *words: str) -> str:
    said = CliRunner().invoke(app, [*words, "--root", str(root)])
    assert said.exit_code == 0, said.output
    return said.stdout


@pytest.mark.parametrize("kind", ["symbolic", "hard"])
def test_the_space_that_a_run_reserves_is_not_written_through_a_link(tmp_path: Path, kind: str) -> None:
    run = RunFiles(tmp_path / "run")
    secret = linked(run.reserve, kind)
    with pytest.raises(SystemRefused, match="regular file"):
        Reserve.take(run.reserve)
    assert secret.read_text() == SECRET


def test_a_checkpoint_is_not_written_through_a_link(tmp_path: Path) -> None:
    from alphagrid.trainer import checkpoint

    run = RunFiles(tmp_path / "run")
    secret = linked(run.path / ".checkpoint-0000000007-0001.tmp", "symbolic")
    written = checkpoint.write(run, 7, 1, {"step": 7}, keep=2)
    assert written is not None
    assert not written.is_symlink()
    assert secret.read_text() == SECRET


def test_a_supervisors_log_is_not_written_through_a_link(tmp_path: Path) -> None:
    from alphagrid.jobs.schedulers.local import ensure_supervisor

    root = Root(tmp_path / "root")
    secret = linked(root.supervisor / "log", "symbolic")
    with pytest.raises(SystemRefused, match="is a link"):
        ensure_supervisor(root)
    assert secret.read_text() == SECRET


@pytest.mark.slow
def test_a_report_is_not_written_through_a_link(tmp_path: Path) -> None:
    path = tmp_path / "specs" / "spec.yaml"
    path.parent.mkdir()
    (tmp_path / "debug.yaml").write_text("cluster: debug\n")
    (path.parent / "mine.py").write_text(WORKLOAD)
    path.write_text(SPEC.format(name="exp"))
    root = tmp_path / "root"
    assert CliRunner().invoke(app, ["submit", str(path), "--root", str(root)]).exit_code == 0
    secrets = [
        linked(root / "exp" / "report" / name, "symbolic")
        for name in ("report.md", "tables/runs.csv", "figures/curves-all.svg")
    ]
    said = CliRunner().invoke(app, ["report", "exp", "--root", str(root)])
    assert said.exit_code == 0, said.output
    assert [secret.read_text() for secret in secrets] == [SECRET] * 3


def test_who_waits_for_a_deleted_lock_file_does_not_get_in_beside_its_successor(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first = FileLock(path)
    assert first.acquire()
    waiting = os.open(path, os.O_RDWR)  # opened before a cleaner came, locked after the holder has gone
    opened = [waiting]

    def open_waiting(path: Path, flags: int) -> int:
        return opened.pop() if opened else open_regular(path, flags)

    path.unlink()
    second = FileLock(path)
    assert second.acquire()
    first.release()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("alphagrid.store.locks.open_regular", open_waiting)
        assert not FileLock(path).acquire()
    assert opened == []
    second.release()
    assert FileLock(path).acquire()


def test_slots_are_the_same_whatever_the_folder_for_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    first = local_slots.take(1, lambda: False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    assert first is not None
    assert local_slots.free(1) == 0
    first.lock.release()


def test_slots_lie_on_a_local_disk_or_are_named_after_the_machine(tmp_path: Path) -> None:
    def local(*places: Path) -> Callable[[Path], str]:
        return lambda path: "ext4" if any(path.is_relative_to(place) for place in places) else "nfs"

    home, environ = tmp_path / "home", {"HOME": str(tmp_path / "home")}
    home.mkdir()
    in_home = home / ".local/state/alphagrid"
    assert location.slots_folder(environ, local(home)) == in_home / "slots"
    everywhere = folders.SHARED / f"alphagrid-{os.geteuid()}" / "slots"
    assert location.slots_folder(environ, local(folders.SHARED)) == everywhere
    assert location.slots_folder(environ, local()) == in_home / f"slots-{os.uname().nodename}"


def test_a_supervisor_keeps_held_slots_from_looking_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    slot = local_slots.take(1, lambda: False)
    assert slot is not None
    os.utime(slot.lock.path, (0, 0))
    local_slots.keep()
    assert slot.lock.path.stat().st_mtime > 0
    slot.lock.release()


def test_a_folder_of_ones_own_is_closed_to_others_even_if_an_older_version_left_it_open(
    tmp_path: Path,
) -> None:
    old, umask = tmp_path / "cache" / "alphagrid", os.umask(0o002)
    try:
        old.mkdir(parents=True)
        folders.make_private(old)
        folders.make_private(tmp_path / "state" / "alphagrid")
    finally:
        os.umask(umask)
    assert stat.S_IMODE(old.stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "state" / "alphagrid").stat().st_mode) == 0o700


def without_home(machine: Machine) -> None:
    """Leave a user no home to write to, so that a place where all may write has to do."""
    os.environ["HOME"] = str(machine.folder / "nowhere")


@needs_root
@pytest.mark.parametrize("trap", ["folder", "link", "open"])
def test_slots_in_a_folder_that_another_user_prepared_are_refused_before_anything_is_sent(
    machine: Machine, trap: str
) -> None:
    secret, prepared = machine.home(ALICE) / "secret", machine.public / f"alphagrid-{ALICE}"
    spec = machine.spec(ALICE, "hers")

    def prepare() -> None:
        if trap == "link":
            prepared.symlink_to(machine.home(ALICE))
            return
        prepared.mkdir()
        prepared.chmod(0o777)
        for folder in (prepared, prepared / "slots"):  # where versions before looked, and where this one does
            folder.mkdir(exist_ok=True)
            (folder / "slot-000.lock").symlink_to(secret)

    def use() -> None:
        secret.write_text(SECRET)
        without_home(machine)
        with pytest.raises(SystemRefused, match=rf"alphagrid-{ALICE} (belongs to|is a link|can be entered)"):
            local_slots.take(1, lambda: False)
        profile = load_profile(str(machine.folder / "local.yaml"))
        with pytest.raises(SystemRefused, match=f"alphagrid-{ALICE}"):
            submit(expand(read_spec(spec)), profile, machine.root)

    (machine.folder / "local.yaml").write_text("cluster: local\n")
    machine.run(ALICE if trap == "open" else BOB, prepare)
    machine.run(ALICE, use)
    assert secret.read_text() == SECRET
    assert list(machine.root.path.iterdir()) == []


@needs_root
def test_an_index_in_a_folder_that_another_user_prepared_is_refused(machine: Machine) -> None:
    machine.submit(ALICE, "hers")
    prepared = machine.public / f"alphagrid-{BOB}"

    def prepare() -> None:
        prepared.mkdir()
        prepared.chmod(0o777)

    def use() -> None:
        without_home(machine)
        with pytest.raises(SystemRefused, match="belongs to the user 4003"), open_store(machine.root):
            pass

    machine.run(STRANGER, prepare)
    machine.run(BOB, use)
    assert list(prepared.iterdir()) == []


@needs_root
def test_a_place_where_all_may_write_holds_a_folder_of_each_user_alone(machine: Machine) -> None:
    def use() -> None:
        without_home(machine)
        slot = local_slots.take(1, lambda: False)
        assert slot is not None
        slot.lock.release()

    machine.run(ALICE, use, umask=0o002)
    machine.run(BOB, use, umask=0o002)
    for uid in (ALICE, BOB):
        folder = machine.public / f"alphagrid-{uid}"
        assert (folder.stat().st_uid, stat.S_IMODE(folder.stat().st_mode)) == (uid, 0o700)


@needs_root
def test_a_place_that_all_may_write_without_a_sticky_bit_is_refused(machine: Machine) -> None:
    machine.public.chmod(0o777)

    def use() -> None:
        without_home(machine)
        local_slots.take(1, lambda: False)

    with pytest.raises(SystemRefused, match="can be replaced by every user"):
        machine.run(ALICE, use)


@needs_root
@pytest.mark.parametrize("place", ["cache", "."])
def test_a_folder_that_the_group_may_replace_is_refused(machine: Machine, place: str) -> None:
    """Also in the home: a group may be many people's, and then its members could put another in its place."""
    above = machine.home(ALICE) / place
    above.mkdir(exist_ok=True)
    shutil.chown(above, ALICE, GROUP)
    above.chmod(0o770)
    with pytest.raises(SystemRefused, match=f"can be replaced by the group {GROUP}"):
        machine.run(ALICE, lambda: folders.make_private(above / "alphagrid"))
    above.chmod(0o1770)
    machine.run(ALICE, lambda: folders.make_private(above / "alphagrid"))
    assert stat.S_IMODE((above / "alphagrid").stat().st_mode) == 0o700


def test_a_folder_below_one_of_the_users_private_group_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def user(name: str) -> Any:
        return lambda uid: pwd.struct_passwd((name, "x", uid, tmp_path.stat().st_gid, "", "/", "/bin/sh"))

    (group,) = {grp.getgrgid(tmp_path.stat().st_gid).gr_name}
    tmp_path.chmod(0o770)
    monkeypatch.setattr(pwd, "getpwuid", user(group))
    folders.make_private(tmp_path / "mine")
    monkeypatch.setattr(pwd, "getpwuid", user("ada"))
    with pytest.raises(SystemRefused, match="can be replaced by the group"):
        folders.make_private(tmp_path / "others")


def test_a_link_in_place_of_a_folder_of_ones_own_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o755)
    (tmp_path / "alphagrid").symlink_to("elsewhere")
    with pytest.raises(SystemRefused, match="is a link"):
        folders.make_private(tmp_path / "alphagrid")
    assert stat.S_IMODE((tmp_path / "elsewhere").stat().st_mode) == 0o755


# One root, several users


@needs_root
@pytest.mark.slow
@pytest.mark.parametrize("umask", [0o002, 0o027])
def test_a_colleague_sees_everything_and_changes_nothing(machine: Machine, umask: int) -> None:
    """Law 8, with two users."""
    machine.submit(ALICE, "hers", umask)
    log(machine, "hers", umask)
    machine.command(ALICE, "status", umask=umask)
    before = everything(machine.root.path)
    for words in (
        ["status"], ["status", "hers"], ["status", "hers", "--json"], ["logs", "hers", "lr0.02"],
        ["report", "hers"], ["report", "hers", "--json"], ["store", "check"], ["store", "rebuild"],
    ):  # fmt: skip
        code, out, err = machine.command(BOB, *words, umask=umask)
        assert code == 0, (words, err)
        assert words[0] != "report" or words[-1] == "--json" or "no files written" in err
        assert words[0] != "status" or "hers" in out
        assert words[0] != "logs" or "a log of hers" in out
    assert everything(machine.root.path) == before
    mine, hers = (machine.command(uid, "store", "path")[1].strip() for uid in (BOB, ALICE))
    assert Path(mine).is_relative_to(machine.home(BOB))
    assert Path(hers) == machine.root.path / "alphagrid.db"
    assert not list(machine.root.path.glob("alphagrid.db*")) or Path(hers).stat().st_uid == ALICE
    code, out, err = machine.command(ALICE, "status", "hers", umask=umask)
    assert (code, "completed" in out) == (0, True), err
    assert everything(machine.root.path) == before


def log(machine: Machine, experiment: str, umask: int) -> None:
    """Give a run a log, which the profile debug does not."""

    def write() -> None:
        files = machine.root.experiment(experiment)
        for run in files.runs():
            folder = files.submitit / run.id
            folder.mkdir(parents=True)
            (folder / "1_0_log.out").write_text(f"a log of {experiment}\n")

    machine.run(ALICE, write, umask)


@needs_root
@pytest.mark.parametrize("umask", [0o002, 0o022, 0o027])
def test_modes_follow_the_umask(machine: Machine, umask: int) -> None:
    code, _, err = machine.submit(ALICE, "hers", umask)
    assert code == 0, err

    def cancel_and_lock() -> None:
        from alphagrid.jobs.runs import cancel_marker

        run = machine.root.experiment("hers").runs()[0]
        cancel_marker.write(run, ["s"], 1.0)
        Reserve.take(run.reserve)
        FileLock(machine.root.supervisor / "lock").acquire()

    machine.run(ALICE, cancel_and_lock, umask)
    endings = set()
    for path in machine.root.path.rglob("*"):
        status, writable = path.lstat(), "code" not in path.parts or path.parent.name == "code"
        if path.name.startswith("alphagrid.db"):  # the owner's alone
            continue
        full = 0o2777 if path.is_dir() else 0o666 if writable else 0o444
        assert oct(stat.S_IMODE(status.st_mode)) == oct(full & ~umask), path
        assert (status.st_uid, status.st_gid) == (ALICE, GROUP), path
        endings.add(path.suffix or path.name)
    assert {".json", ".jsonl", ".pt", ".py", ".lock", "lock", ".reserve"} <= endings


@needs_root
@pytest.mark.slow
@pytest.mark.parametrize("umask", [0o002, 0o027])
def test_two_users_submit_different_experiments(machine: Machine, umask: int) -> None:
    for uid, name in ((ALICE, "hers"), (BOB, "his")):
        code, _, err = machine.submit(uid, name, umask)
        assert (code, f"sent 2 runs of {name}" in err) == (0, True), err
    for uid in (ALICE, BOB):
        code, out, _ = machine.command(uid, "status", umask=umask)
        assert (code, "hers" in out, "his" in out) == (0, True, True)
    again = [machine.submit(uid, name, umask) for uid, name in ((ALICE, "hers"), (BOB, "his"))]
    assert all(code == 0 and "2 completed" in err for code, _, err in again), again


@needs_root
@pytest.mark.parametrize("umask", [0o002, 0o027])
def test_who_would_change_anothers_runs_is_told_whose_they_are(machine: Machine, umask: int) -> None:
    machine.submit(ALICE, "hers", umask)
    before = everything(machine.root.path)
    for verb in ("submit", "retry", "cancel", "prune"):
        words = [machine.spec(BOB, "hers")] if verb == "submit" else ["hers", "--all"]
        code, _, err = machine.command(BOB, verb, *words, umask=umask)
        assert (code, f"belongs to the user {ALICE}" in " ".join(err.split())) == (2, True), (verb, err)
        assert everything(machine.root.path) == before


@needs_root
def test_a_name_of_ones_own_is_what_the_hint_says(machine: Machine) -> None:
    machine.submit(ALICE, "hers")
    _, _, err = machine.submit(BOB, "hers")
    assert "--set experiment=NAME" in err
    code, _, err = machine.submit(BOB, "hers", 0o027, "--set", "experiment=his")
    assert code == 0, err


@needs_root
@pytest.mark.parametrize(
    ("mode", "umask"), [(0o2770, 0o077), (0o770, 0o077), (0o2750, 0o067), (0o770, 0o037)]
)
def test_a_umask_that_hides_runs_from_the_roots_group_is_refused(
    machine: Machine, mode: int, umask: int
) -> None:
    machine.root.path.chmod(mode)
    code, _, err = machine.submit(ALICE, "hers", umask)
    assert (code, f"umask {umask:04o}" in " ".join(err.split())) == (2, True), err
    assert list(machine.root.path.iterdir()) == []


@needs_root
def test_a_retry_does_not_hide_runs_either(machine: Machine) -> None:
    machine.submit(ALICE, "hers")
    before = everything(machine.root.path)
    assert machine.command(ALICE, "retry", "hers", "--all", "--fresh", umask=0o077)[0] == 2
    assert everything(machine.root.path) == before


@needs_root
def test_a_new_root_below_a_shared_folder_is_shared(machine: Machine) -> None:
    spec, root = machine.spec(ALICE, "hers"), machine.root.path / "runs"

    def call() -> int:
        return CliRunner().invoke(app, ["submit", str(spec), "--root", str(root)]).exit_code

    assert machine.run(ALICE, call, 0o077) == 2
    assert not root.exists()
    assert machine.run(ALICE, call, 0o027) == 0


@needs_root
@pytest.mark.parametrize("mode", [0o700, 0o755, 0o2700])
def test_in_a_root_of_ones_own_any_umask_is_fine(machine: Machine, mode: int) -> None:
    machine.root.path.chmod(mode)
    code, _, err = machine.submit(ALICE, "hers", 0o077)
    assert code == 0, err
    assert "warning" not in err
    assert machine.command(ALICE, "status", "hers", umask=0o077)[0] == 0


@needs_root
@pytest.mark.parametrize(
    ("mode", "umask", "named"),
    [(0o1777, 0o022, "shared"), (0o777, 0o022, "shared"), (0o755, 0o000, "umask 0000")],
)
def test_what_every_user_may_write_is_warned_about(
    machine: Machine, mode: int, umask: int, named: str
) -> None:
    machine.root.path.chmod(mode)
    code, _, err = machine.submit(ALICE, "hers", umask)
    assert code == 0
    warning = " ".join(err.split())
    assert "warning" in warning
    assert "every user" in warning
    assert named in warning


@needs_root
def test_a_folder_that_a_user_keeps_to_himself_ends_no_colleagues_status(machine: Machine) -> None:
    machine.submit(BOB, "his")
    machine.submit(ALICE, "hers")
    (machine.root.path / "hers").chmod(0o700)
    code, out, _ = machine.command(BOB, "status")
    assert (code, "his" in out, "hers" in out) == (0, True, False)


@needs_root
@pytest.mark.parametrize(
    ("what", "seen_before"),
    [
        ("run", False), ("run", True), ("run that can be listed", True), ("submissions", True),
        ("experiment", False),
    ],
)  # fmt: skip
def test_a_folder_that_cannot_be_listed_keeps_nothing_from_all_else(
    machine: Machine, what: str, seen_before: bool
) -> None:
    machine.submit(ALICE, "hers")
    machine.submit(ALICE, "others")
    files = machine.root.experiment("hers")
    closed, *_ = files.runs()
    for path in machine.root.path.glob("alphagrid.db*"):
        path.unlink()
    if seen_before:
        machine.command(ALICE, "status")
    folder = {"submissions": files.submissions, "experiment": files.path}.get(what, closed.path)
    folder.chmod(0o110 if what in ("submissions", "experiment") else 0o440 if "can be" in what else 0)
    for words in (["status"], ["status", "others"], ["report", "others", "--json"], ["status", "hers"]):
        code, out, err = machine.command(ALICE, *words)
        assert code == 0 or (words[-1] == "hers" and not seen_before), (words, err)
        assert words != ["status"] or "2 completed" in out
    if what.startswith("run"):
        code, out, err = machine.command(ALICE, "status", "hers", "--json")
        states = {run["id"]: run["state"] for run in json.loads(out)["runs"]}
        (damaged,) = {name.split("/")[0] for name in json.loads(out)["damaged"]}
        assert damaged == closed.id
        assert "completed" in [states[run] for run in states if run != closed.id]
        assert not seen_before or "can be" in what or states[closed.id] == "completed"
        code, out, err = machine.command(ALICE, "report", "hers", "--json")
        assert code == 0, err
    named = {"submissions": "hers/submissions/", "experiment": "hers/./"}.get(what, f"hers/{closed.id}/")
    code, out, err = machine.command(ALICE, "store", "check")
    assert (code, named in out) == (1, True), out + err
    code, out, err = machine.command(ALICE, "prune", "hers", "--all", "--dry-run")
    assert code == (0 if seen_before or "run" in what else 2), err
    folder.chmod(0o770)
    assert machine.command(ALICE, "store", "check")[0] == 0


@needs_root
def test_the_owner_does_not_use_an_index_that_others_put_into_the_root(machine: Machine) -> None:
    machine.submit(ALICE, "hers")
    secret = machine.home(ALICE) / "secret"
    machine.run(ALICE, lambda: secret.write_text(""))
    for path in machine.root.path.glob("alphagrid.db*"):
        path.unlink()
    machine.run(BOB, lambda: (machine.root.path / "alphagrid.db-wal").symlink_to(secret))
    code, out, err = machine.command(ALICE, "status", "hers")
    assert (code, "completed" in out) == (0, True), err
    assert Path(machine.command(ALICE, "store", "path")[1].strip()).is_relative_to(machine.home(ALICE))
    assert secret.read_bytes() == b""


@needs_root
def test_local_runs_are_run_by_their_own_users_supervisor(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alphagrid.jobs.schedulers.local.ensure_supervisor", lambda root: None)
    (machine.folder / "local.yaml").write_text("cluster: local\n")
    spec = machine.spec(BOB, "his")

    def send() -> None:
        profile = load_profile(str(machine.folder / "local.yaml"))
        submit(expand(read_spec(spec)), profile, machine.root)
        machine.root.supervisor.mkdir()

    def supervise() -> list[str]:
        machine.root.supervisor.mkdir(exist_ok=True)
        backlog = LocalQueue(machine.root, ())
        backlog.refresh()
        waiting = []
        while (job := backlog.next()) is not None:
            backlog.remove(job)
            waiting.append(job.files.name)
        return waiting

    machine.run(BOB, send)
    assert machine.run(ALICE, supervise) == []
    assert machine.run(BOB, supervise) == ["his", "his"]
    hers, his = (FileLock(machine.root.supervisor_of(uid) / "lock") for uid in (ALICE, BOB))
    assert hers.acquire()
    for path in (hers.path, his.path.parent):
        path.chmod(0o644 if path.is_file() else 0o755)
    states = machine.command(ALICE, "status", "his", "--json")[1]
    assert '"pending"' not in states
    assert his.acquire()
    his.path.chmod(0o644)
    assert '"pending": 2' in machine.command(ALICE, "status", "his", "--json")[1]
    hers.release()
    his.release()


def test_an_experiment_of_ones_own_is_recognised_where_a_file_system_changes_owners(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alphagrid.store import ownership

    files = Root(tmp_path).experiment("exp")
    files.path.mkdir()
    monkeypatch.setattr("os.geteuid", lambda: 12345)
    with pytest.raises(UserError, match="belongs to"):
        ownership.check(files, "cancel")
    monkeypatch.setattr(ownership, "filesystem_type", lambda path: "nfs4")
    ownership.check(files, "cancel")


def test_in_a_root_of_ones_own_nothing_is_written_to_find_out_whose_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alphagrid.store import ownership

    files = Root(tmp_path).experiment("exp")
    files.path.mkdir()
    monkeypatch.setattr(ownership, "filesystem_type", lambda path: "nfs4")
    made: list[Any] = []
    monkeypatch.setattr("tempfile.TemporaryFile", lambda **options: made.append(options))
    assert ownership.other_owner(files) is None
    assert made == []


@needs_root
def test_a_supervisors_folder_that_another_user_prepared_is_not_used(machine: Machine) -> None:
    (machine.root.path / ".supervisor").mkdir()
    os.chown(machine.root.path / ".supervisor", BOB, GROUP)
    assert machine.run(ALICE, lambda: machine.root.supervisor.name) == f".supervisor-{ALICE}"
