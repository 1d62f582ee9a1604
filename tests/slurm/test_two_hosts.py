"""Two `submit`s of one experiment on hosts whose locks do not reach each other: every run is run once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from alphagrid.cli import app
from alphagrid.jobs.schedulers import slurm_duplicates
from alphagrid.store import submissions
from typer.testing import CliRunner

from tests.mounts import two_mounts
from tests.slurm import halting
from tests.slurm.conftest import LATER, Experiment, queued
from tests.slurm.waiting import SECONDS, until

if TYPE_CHECKING:
    from tests.slurm.conftest import Slurm

pytestmark = pytest.mark.slurm

RATES = [0.01, 0.02, 0.03]
HALTING = Path(__file__).with_name("halting.py")
Start = Callable[..., "Submitter"]


class Submitter:
    """A `submit` on one host that halts at a point."""

    def __init__(self, lab: Experiment, point: str, folder: Path) -> None:
        self.folder = folder
        arguments = ["submit", str(lab.folder / "spec.yaml"), "--root", str(lab.files.path.parent)]
        self.process = subprocess.Popen(
            [sys.executable, str(HALTING), point, str(folder), *arguments],
            stderr=subprocess.PIPE, text=True, cwd=lab.folder,
        )  # fmt: skip
        until(lambda: (folder / point).exists() or self.process.poll() is not None, f"it halts: {point}")
        assert self.process.poll() is None

    def go_on(self) -> str:
        """Let it end; return what it said."""
        (self.folder / "go").touch()
        _, said = self.process.communicate(timeout=SECONDS)
        assert self.process.returncode == 0, said
        return said


@pytest.fixture
def hosts(tmp_path: Path, slurm: Slurm) -> Iterator[tuple[Experiment, Experiment]]:
    """One experiment as two hosts see it."""
    with two_mounts(tmp_path) as (first, second):
        yield Experiment(first, "shared"), Experiment(second, "shared")
        slurm.clear()  # or a job of the mounts would be in their way


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a submitter; what is left of them is killed."""
    started: list[Submitter] = []

    def begin(lab: Experiment, point: str) -> Submitter:
        folder = tmp_path / f"{point}-{len(started)}"
        folder.mkdir()
        started.append(Submitter(lab, point, folder))
        return started[-1]

    yield begin
    for each in started:
        each.process.kill()
        each.process.communicate()


def write(lab: Experiment, later: bool = True, **resources: Any) -> None:
    """Write a specification of three runs, whose jobs stay in the queue, or start at once."""
    more = LATER["resources"] if later else {}
    lab.write(20, grid={"optimizer.lr": RATES}, resources={**more, **resources})


def check_each_is_queued_once(slurm: Slurm, first: Experiment, second: Experiment) -> None:
    """See that the queue holds one job of each run, not held, and that both hosts see so."""
    jobs = sorted(queued(slurm))
    assert len(jobs) == len(RATES)
    assert "Held" not in slurm.run("squeue", "--noheader", "--array", "--format=%r")
    for lab in (first, second):
        until(lambda lab=lab: sorted(lab.jobs().values()) == jobs, "it sees the jobs")  # type: ignore[misc]
        assert [run["state"] for run in lab.runs()] == ["pending"] * len(RATES)
        assert "sent 0 runs" in lab.submit()
    assert sorted(queued(slurm)) == jobs


def check_each_ran_once(slurm: Slurm, first: Experiment, second: Experiment) -> None:
    """See that each run completes in one attempt, that both hosts see so, and that no job is left."""
    until(lambda: not slurm.run("squeue", "--noheader").strip(), "the queue is empty")
    for lab in (first, second):
        runs = lab.wait_for("completed")
        assert [run["attempts"] for run in runs] == [1] * len(RATES)
        assert "sent 0 runs" in lab.submit()


@pytest.mark.parametrize("point", ["read", "written", "sent", "recorded"])
def test_one_submits_while_the_other_is_half_way(
    slurm: Slurm, hosts: tuple[Experiment, Experiment], start: Start, point: str
) -> None:
    first, second = hosts
    write(first, later=point != "sent", max_array=2)
    halted = start(first, point)
    said = second.submit()
    is_older = point in ("sent", "recorded")
    if point == "sent":
        assert "another submit sent 3 of the runs at the same time" in said
    assert ("sent 0 runs" in said) == is_older
    said = halted.go_on()
    assert ("another submit sent 3 of the runs" in said) != is_older
    (check_each_ran_once if point == "sent" else check_each_is_queued_once)(slurm, first, second)


def test_one_finds_that_the_other_s_runs_have_completed_meanwhile(
    slurm: Slurm, hosts: tuple[Experiment, Experiment], start: Start
) -> None:
    """It had decided to send them before; Slurm lists the other's jobs no more."""
    first, second = hosts
    write(first, later=False)
    halted = start(first, "read")
    assert "sent 3 runs" in second.submit()
    second.wait_for("completed")
    until(lambda: not slurm.run("squeue", "--noheader").strip(), "the queue is empty")
    halted.go_on()
    check_each_ran_once(slurm, first, second)


@pytest.mark.parametrize("point", ["read", "written", "sent"])
@pytest.mark.parametrize("max_array", [3, 1])
def test_both_are_half_way_and_go_on_together(
    slurm: Slurm, hosts: tuple[Experiment, Experiment], start: Start, point: str, max_array: int
) -> None:
    first, second = hosts
    write(first, later=point != "sent", max_array=max_array)
    halted = [start(first, point), start(second, point)]
    with ThreadPoolExecutor() as pool:
        said = list(pool.map(Submitter.go_on, halted))
    sent = [int(each.split("sent ")[-1].split()[0]) for each in said]
    assert sum(sent) == len(RATES), said
    (check_each_ran_once if point == "sent" else check_each_is_queued_once)(slurm, first, second)


def test_one_that_is_killed_half_way_loses_no_run(
    slurm: Slurm, hosts: tuple[Experiment, Experiment], start: Start
) -> None:
    """The other one leaves the runs to its jobs while it lives, and sends them when it is dead."""
    first, second = hosts
    write(first)
    halted = start(first, "sent")
    assert "sent 0 runs" in second.submit()
    halted.process.kill()
    halted.process.wait()
    assert "sent 3 runs" in second.submit()
    check_each_is_queued_once(slurm, first, second)


def test_a_submission_of_another_root_is_no_rival(
    slurm: Slurm,
    hosts: tuple[Experiment, Experiment],
    tmp_path: Path,
    start: Start,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Though its experiment has the same name, and its runs the same ids."""
    first, _ = hosts
    write(first)
    halted = start(first, "sent")
    (tmp_path / "elsewhere").mkdir()
    other = Experiment(tmp_path / "elsewhere", "shared")
    write(other)
    monkeypatch.setattr(slurm_duplicates, "SECONDS_TO_APPEAR", halting.SECONDS_TO_APPEAR)
    arguments = ["submit", str(other.folder / "spec.yaml"), "--root", str(other.files.path.parent)]
    done = CliRunner().invoke(app, arguments)
    assert (done.exit_code, "sent 3 runs" in done.stderr) == (0, True), done.output
    assert "another submit" not in done.stderr
    assert "sent 3 runs" in halted.go_on()
    assert sorted(queued(slurm)) == sorted([*first.jobs().values(), *other.jobs().values()])
    assert len(set(queued(slurm))) == 2 * len(RATES)
    assert "Held" not in slurm.run("squeue", "--noheader", "--array", "--format=%r")


def test_runs_that_only_one_of_two_sends_are_sent(
    slurm: Slurm, hosts: tuple[Experiment, Experiment], start: Start
) -> None:
    """Of three runs and two, two are the same; also when the older array has the newer submission."""
    first, second = hosts
    write(first)
    spec = json.loads((first.folder / "spec.yaml").read_text())
    (first.folder / "fewer.yaml").write_text(json.dumps({**spec, "grid": {"optimizer.lr": RATES[:2]}}))
    halted = start(first, "written")
    assert "sent 2 runs" in second.tell("submit", "fewer.yaml")
    said = halted.go_on()
    assert "another submit sent 2 of the runs at the same time" in said
    assert "sent 1 run" in said
    assert " due" not in said  # no limit was given
    check_each_is_queued_once(slurm, first, second)
    newest = {entry.id: one.id for one in submissions.read_all(first.files) for entry in one.runs}
    assert len(set(newest.values())) == 2


def test_what_cannot_be_cancelled_holds_no_other_job_back(
    slurm: Slurm,
    hosts: tuple[Experiment, Experiment],
    start: Start,
    instead_of: Callable[[str, str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = hosts
    write(first)
    spec = json.loads((first.folder / "spec.yaml").read_text())
    (first.folder / "fewer.yaml").write_text(json.dumps({**spec, "grid": {"optimizer.lr": RATES[:2]}}))
    path = os.environ["PATH"]
    instead_of("scancel", "echo 'scancel: error: Socket timed out' >&2; exit 1")
    halted = start(first, "written")
    assert "sent 2 runs" in second.tell("submit", "fewer.yaml")
    (halted.folder / "go").touch()
    _, said = halted.process.communicate(timeout=SECONDS)
    assert (halted.process.returncode, "Socket timed out" in said) == (3, True), said
    monkeypatch.setenv("PATH", path)
    reasons = slurm.run("squeue", "--noheader", "--array", "--format=%r").split()
    assert (len(reasons), reasons.count("JobHeldUser")) == (5, 2), reasons  # the third run's is released
    assert "sent 0 runs" in first.submit()  # and cancels the two that are superfluous
    until(lambda: len(queued(slurm)) == len(RATES), "the superfluous jobs are cancelled")
    check_each_is_queued_once(slurm, first, second)
