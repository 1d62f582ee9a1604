"""A full disk stops a run cleanly, with that reason; with space it goes on as if nothing had happened."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from alphagrid.cli import app
from alphagrid.errors import SystemRefused
from alphagrid.jobs.schedulers import debug
from alphagrid.store import journal, submissions
from alphagrid.trainer import checkpoint_writer, loop
from typer.testing import CliRunner, Result

if TYPE_CHECKING:
    from tests.conftest import Lab
    from tests.faults.conftest import Watched

PAGE = 4096
RARELY: dict[str, Any] = {"checkpoint": {"every_seconds": 600}}


class Disk:
    """A disk of two megabytes below the root of all experiments."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ballast = root / "ballast"

    def mount(self) -> None:
        if shutil.which("mount") is None:
            pytest.skip("there is no `mount` here")
        self.root.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", "size=2m,nr_inodes=400", "none", str(self.root)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")

    def unmount(self) -> None:
        if self.root.is_mount():
            subprocess.run(["umount", "--lazy", str(self.root)], check=True)

    def fill(self, leave: int = 0) -> None:
        stat = os.statvfs(self.root)
        with self.ballast.open("ab", buffering=0) as file:
            file.write(bytes(max(0, stat.f_bavail * stat.f_bsize - leave)))

    def fill_inodes(self) -> None:
        (self.root / "many").mkdir()
        for number in range(os.statvfs(self.root).f_favail):
            (self.root / "many" / str(number)).touch()

    def free(self) -> None:
        self.ballast.unlink(missing_ok=True)
        for path in (self.root / "many").glob("*"):
            path.unlink()


@pytest.fixture
def disk(lab: Lab) -> Iterator[Disk]:
    found = Disk(lab.root.path)
    found.mount()
    yield found
    found.unmount()


@pytest.fixture
def call(watched: Watched) -> Callable[..., Result]:
    """Return a function that runs a command in this process."""
    environment = {"ALPHAGRID_ROOT": str(watched.lab.root.path), "PYTHONPATH": str(watched.lab.folder)}
    return lambda *command: CliRunner().invoke(app, [*map(str, command)], env=environment)


def fill_at(watched: Watched, disk: Disk, step: int, leave: int = 0) -> None:
    watched.trouble(f"fill@{step}", ALPHAGRID_TEST_BALLAST=f"{disk.ballast}:{leave}")


def assert_interrupted_cleanly(watched: Watched) -> None:
    """The run says why it stopped, and nothing is torn or left lying about."""
    reading = journal.read(watched.run.journals()[-1][1])
    assert (reading.bad, reading.tail) == ([], 0)
    last = reading.records[-1]
    assert (last["kind"], last["event"]) == ("event", "interrupted")
    assert last["reason"].startswith("disk full")
    assert set(watched.lab.states().values()) == {"interrupted"}
    assert [path for path in watched.run.path.iterdir() if path.name.startswith(".")] == []


def assert_goes_on(watched: Watched, disk: Disk, **changes: Any) -> None:
    watched.trouble(None)
    disk.free()
    watched.send(**changes)
    found = watched.status()
    assert (found.state, found.reason, found.step) == ("completed", None, 60)
    assert watched.differences(**changes) == []


@pytest.mark.parametrize("leave", [0, *(pytest.param(pages, marks=pytest.mark.slow) for pages in (1, 2))])
def test_full_while_journaling(watched: Watched, disk: Disk, leave: int) -> None:
    changes = {**RARELY, "log": {"every_steps": 1}}
    fill_at(watched, disk, 20, leave * PAGE)
    with pytest.raises(SystemRefused, match="disk full") as refused:
        watched.send(**changes)
    assert refused.value.exit_code == 3
    assert_interrupted_cleanly(watched)
    assert_goes_on(watched, disk, **changes)


@pytest.mark.parametrize(
    ("width", "leave", "background"),
    [
        (8, 2, False),
        (8, 2, True),
        (128, 20, False),
        pytest.param(128, 20, True, marks=pytest.mark.slow),
        pytest.param(128, 2, False, marks=pytest.mark.slow),
    ],
)
def test_full_while_a_checkpoint_is_written(
    watched: Watched, disk: Disk, monkeypatch: pytest.MonkeyPatch, width: int, leave: int, background: bool
) -> None:
    monkeypatch.setattr(checkpoint_writer, "BACKGROUND_BYTES", 0 if background else 1 << 30)
    workload = {"name": "watched_task:Watched", "hidden": [width], "batch_size": 64, "dropout": 0.1}

    def fill(step: int) -> None:
        if step >= 20:
            watched.lab.until(lambda: bool(watched.run.checkpoints()))  # one may be under way
            disk.fill(leave * PAGE)

    watched.on_step(fill)
    with pytest.raises(SystemRefused, match="disk full"):
        watched.send(workload=workload)
    watched.on_step(lambda step: None)
    assert_interrupted_cleanly(watched)
    assert watched.run.checkpoints()
    assert_goes_on(watched, disk, workload=workload)
    assert 0 < watched.attempts[-1].resume_step < 60


@pytest.mark.slow
def test_full_while_the_last_checkpoint_is_written(watched: Watched, disk: Disk) -> None:
    fill_at(watched, disk, 60, 2 * PAGE)
    with pytest.raises(SystemRefused, match="disk full"):
        watched.send(**RARELY)
    assert_interrupted_cleanly(watched)
    assert_goes_on(watched, disk, **RARELY)


@pytest.mark.slow
def test_full_again_is_interrupted_again_and_never_failed(watched: Watched, disk: Disk) -> None:
    for step in (20, 10):
        disk.free()
        fill_at(watched, disk, step)
        with pytest.raises(SystemRefused):
            watched.send()
        assert_interrupted_cleanly(watched)
    assert_goes_on(watched, disk)
    assert [attempt.event for attempt in watched.attempts] == ["interrupted"] * 2 + [None]


def test_full_when_the_end_is_to_be_said_the_end_is_said(
    watched: Watched, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = loop.train

    def filling(*arguments: Any, **options: Any) -> Any:
        outcome = train(*arguments, **options)
        disk.fill()
        return outcome

    monkeypatch.setattr(loop, "train", filling)
    watched.send()
    disk.free()
    assert watched.status().state == "completed"
    assert watched.differences() == []


def begin_with(watched: Watched, disk: Disk, pages: int) -> str:
    """Submit the run, and begin it when there are so many pages left; return its state then."""
    run_id = watched.hand_over()
    manifest = submissions.read_all(watched.files)[0]
    profile = {**manifest.profile, "cluster": "debug"}
    submissions.write(watched.files, manifest.model_copy(update={"profile": profile}))
    disk.fill(leave=pages * PAGE)
    with pytest.raises(SystemRefused, match=r"No space left|disk full"):
        debug.run_here(watched.files, "s1", [run_id])
    return watched.lab.states()[run_id]


@pytest.mark.parametrize(
    "pages", [3, *(pytest.param(pages, marks=pytest.mark.slow) for pages in (0, 1, 2, 4))]
)
def test_full_when_the_run_is_to_begin(watched: Watched, disk: Disk, pages: int) -> None:
    """Too little for the lock, what is set aside, the config's copy, the first record, in this order."""
    state = begin_with(watched, disk, pages)
    begun = bool(watched.files.runs() and watched.run.journals())
    assert state == ("interrupted" if begun else "unknown")
    if begun:
        assert_interrupted_cleanly(watched)
    assert_goes_on(watched, disk)


@pytest.mark.slow
def test_no_inode_left(watched: Watched, disk: Disk) -> None:
    deed = watched.on_step
    deed(lambda step: disk.fill_inodes() if step == 20 and not (disk.root / "many").exists() else None)
    with pytest.raises(SystemRefused, match="disk full"):
        watched.send()
    assert_interrupted_cleanly(watched)
    assert_goes_on(watched, disk)


# On the command line


def test_submitting_says_in_one_line_that_the_disk_is_full(
    watched: Watched, disk: Disk, call: Callable[..., Result]
) -> None:
    fill_at(watched, disk, 20)
    spec = watched.spec()
    refused = call("submit", spec, "--profile", "debug")
    assert_refused(refused, "error: run .* was interrupted: disk full")
    assert_interrupted_cleanly(watched)
    disk.fill()
    assert_refused(
        call("submit", spec, "--profile", "debug"), "error: cannot write .*: No space left on device"
    )
    assert len(submissions.read_all(watched.files)) == 1
    assert [path for path in watched.files.submissions.iterdir() if path.suffix != ".json"] == []
    assert_goes_on(watched, disk)


@pytest.mark.parametrize(
    "command",
    [
        ("status", "exp"),
        pytest.param(("report", "exp"), marks=pytest.mark.slow),
        pytest.param(("store", "rebuild"), marks=pytest.mark.slow),
        pytest.param(("store", "sync"), marks=pytest.mark.slow),
    ],
)
def test_an_index_that_finds_no_space_is_explained_and_loses_nothing(
    watched: Watched, disk: Disk, call: Callable[..., Result], command: tuple[str, str]
) -> None:
    watched.interrupt(30)
    disk.fill()
    assert_refused(call(*command), "error: cannot use .*")
    disk.free()
    assert call("status", "exp", "--json").exit_code == 0
    assert call("store", "check").exit_code == 0
    watched.send()
    disk.fill(leave=PAGE)  # the index is there, and cannot grow
    assert_refused(call(*command), "error: cannot use .*")
    assert_goes_on(watched, disk)


@pytest.mark.slow
def test_a_report_that_finds_no_space_is_explained(
    watched: Watched, disk: Disk, call: Callable[..., Result]
) -> None:
    watched.send()
    assert call("status", "exp").exit_code == 0
    disk.fill(leave=60_000)
    assert_refused(
        call("report", "exp", "--out", disk.root / "report"), "error: cannot write the report to .*"
    )
    assert_goes_on(watched, disk)


def assert_refused(found: Result, line: str) -> None:
    assert found.exit_code == 3, found.output
    lines = [text for text in found.stderr.splitlines() if not text.startswith("hint: ")]
    assert len(lines) == 1, found.stderr
    assert re.match(line, lines[0])


# With processes


@pytest.mark.slow
def test_full_wherever_it_falls(watched: Watched, disk: Disk) -> None:
    """The space that is left is made a page larger each time, until it suffices."""
    changes: dict[str, Any] = {"log": {"every_steps": 1}, "checkpoint": {"every_seconds": 0.01}}
    for pages in range(80):
        fill_at(watched, disk, 10, pages * PAGE)
        try:
            watched.send(**changes)
        except SystemRefused:
            assert_interrupted_cleanly(watched)
            assert_goes_on(watched, disk, **changes)
        else:
            assert pages > 10
            return
        finally:
            subprocess.run(["rm", "-r", str(watched.files.path)], check=True)
    pytest.fail("the disk is never large enough")


@pytest.mark.slow
def test_a_local_run_is_interrupted_by_a_full_disk_and_its_supervisor_ends(
    watched: Watched, disk: Disk
) -> None:
    changes = {**RARELY, "log": {"every_steps": 1}}
    fill_at(watched, disk, 20)
    watched.send("local", **changes)
    lab = watched.lab
    lab.until(lambda: bool(watched.attempts) and lab.supervisor() is None)
    assert_interrupted_cleanly(watched)
    watched.trouble(None)
    disk.free()
    watched.send("local", **changes)
    lab.until_all_are("completed")
    lab.until(lambda: lab.supervisor() is None)
    assert watched.differences(**changes) == []
