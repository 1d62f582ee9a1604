"""What becomes of a submission whose submitter is killed, whose sbatch fails, or that meets another one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from alphagrid.cluster_profiles.loader import load_profile
from alphagrid.errors import SystemRefused
from alphagrid.jobs.specification.experiment import expand
from alphagrid.jobs.specification.file import read_spec
from alphagrid.jobs.submission import Submitted, submit
from alphagrid.slurm import sbatch
from alphagrid.store import submissions
from alphagrid.store.layout import Root

from tests.slurm.conftest import KILLED_BY_SBATCH
from tests.slurm.submitters import Submitters
from tests.slurm.waiting import until

pytestmark = pytest.mark.slurm

SPEC: dict[str, Any] = {
    "experiment": "faults",
    "base": {
        "workload": {"name": "least_squares", "batch_size": 16},
        "optimizer": {"name": "nadamw"},
        "eval": {"every_steps": 500},
        "stop": {"steps": 10},
        "device": "cpu",
    },
    "grid": {"optimizer.lr": [0.01, 0.02, 0.03]},
    "profile": "slurm-a100",
    "resources": {"memory": "1G", "cpus": 1, "max_array": 2, "partition": "a100"},
}
SINGLE = {"max_array": 1}
LATE = '{real} "$@" > /dev/null; exec sleep 60'
DEAF = "exec sleep 60"
SECOND_FAILS = """
echo >> {folder}/calls
if [ $(wc -l < {folder}/calls) -eq 2 ]; then exec {real} --partition=nowhere "$@"; fi
exec {real} "$@"
"""


class Case:
    """A specification with a root of its own; its jobs are named like its experiment."""

    def __init__(self, folder: Path, slurm: Any, name: str = "faults", **resources: Any) -> None:
        folder.mkdir(exist_ok=True)
        self.slurm, self.root, self.spec = slurm, folder / "runs", folder / "spec.yaml"
        self.name = name
        content = {**SPEC, "experiment": name, "resources": {**SPEC["resources"], **resources}}
        self.spec.write_text(json.dumps(content))

    def submit(self, **options: Any) -> Submitted:
        experiment = expand(read_spec(self.spec))
        return submit(
            experiment, load_profile("slurm-a100", experiment.resources), Root(self.root), **options
        )

    def recorded(self) -> dict[str, str]:
        """The newest job of each run."""
        past = submissions.read_all(Root(self.root).experiment(self.name))
        return {
            entry.id: one.jobs[entry.id].job_id for one in past for entry in one.runs if entry.id in one.jobs
        }

    def queued(self) -> dict[str, str]:
        """Why each job in the queue waits, by its id."""
        found: dict[str, str] = self.slurm.queue_of(self.name)
        return found

    def assert_whole(self) -> None:
        """Every run has one job, which is in the queue and not held, and nothing else is there."""
        jobs, queued = self.recorded(), self.queued()
        assert len(jobs) == 3
        assert sorted(jobs.values()) == sorted(queued)
        assert not {why for why in queued.values() if "Held" in why}


@pytest.fixture
def case(tmp_path: Path, slurm: Any, closed: None) -> Case:
    return Case(tmp_path, slurm)


@pytest.fixture
def submitters() -> Iterator[Submitters]:
    found = Submitters()
    yield found
    found.close()


def test_wherever_a_submit_is_killed_the_next_one_leaves_one_job_a_run(
    tmp_path: Path,
    slurm: Any,
    closed: None,
    submitters: Submitters,
    fault_row: Any,
) -> None:
    whole = Case(tmp_path / "whole", slurm, "whole")
    code, deeds = submitters.submit(whole.spec, whole.root)
    assert code == 0
    assert sum(one.startswith("sbatch") for one in deeds) == 2
    for point in range(1, len(deeds) + 1):
        case = Case(tmp_path / f"at-{point}", slurm, f"at-{point}")
        code, done = submitters.submit(case.spec, case.root, point)
        assert code == -9, (point, done)
        assert submitters.submit(case.spec, case.root)[0] == 0
        try:
            case.assert_whole()
        except AssertionError as error:
            raise AssertionError(f"killed before {deeds[point - 1]!r}") from error
    fault_row(
        "`submit` is killed (SIGKILL) before any of its deeds",
        f"wherever of {len(deeds)} places: the next `submit` leaves one job a run in the queue, and no other",
        "nothing",
    )


def test_a_submit_killed_while_sbatch_works_is_awaited_and_cleared_up(
    case: Case, instead_of: Any, monkeypatch: pytest.MonkeyPatch, fault_row: Any
) -> None:
    before = os.environ["PATH"]
    instead_of("sbatch", KILLED_BY_SBATCH)
    killed = Submitters()
    assert killed.submit(case.spec, case.root)[0] == -9
    killed.close()
    monkeypatch.setenv("PATH", before)
    assert len(case.submit().sent) == 3
    case.assert_whole()
    fault_row(
        "`submit` is killed while `sbatch` works, and `sbatch` lives on",
        "the next `submit` waits for its end, cancels the array that nobody wrote down, and sends the runs",
        "nothing",
    )


def test_runs_of_a_killed_submit_run_once(
    experiment: Any, slurm: Any, submitters: Submitters, fault_row: Any
) -> None:
    """Killed when the first array may run already, and the second is still held."""
    lab = experiment(200, grid={"optimizer.lr": [0.01, 0.02, 0.03]}, resources={"max_array": 2})
    root = lab.files.path.parent
    deeds = submitters.submit(lab.folder / "spec.yaml", lab.folder / "elsewhere")[1]
    slurm.clear()
    second = [number for number, one in enumerate(deeds, 1) if one.startswith("scontrol release")][1]
    assert submitters.submit(lab.folder / "spec.yaml", root, second)[0] == -9
    until(lambda: slurm.run("squeue", "--noheader", "--states=running"), "a run runs")
    assert "JobHeldUser" in slurm.run("squeue", "--noheader", "--format=%r")
    assert "sent 0 runs" in lab.submit()
    runs = lab.wait_for("completed")
    assert [(run["attempts"], run["step"]) for run in runs] == [(1, 200)] * 3
    until(lambda: not slurm.run("squeue", "--noheader").strip(), "the queue is empty")
    fault_row(
        "`submit` is killed while runs of its first array train, and its second is held",
        "those go on; the next `submit` releases the second, and every run runs once",
        "nothing",
    )


def test_an_array_that_is_refused_stops_the_rest_and_the_next_submit_sends_it(
    case: Case, instead_of: Any, monkeypatch: pytest.MonkeyPatch, fault_row: Any
) -> None:
    before = os.environ["PATH"]
    instead_of("sbatch", SECOND_FAILS)
    with pytest.raises(SystemRefused, match=r"invalid partition.*\(sent 2 of 3 runs\)"):
        case.submit()
    monkeypatch.setenv("PATH", before)
    assert len(case.queued()) == 2
    done = case.submit()
    assert (len(done.sent), len(done.kept["active"])) == (1, 2)
    case.assert_whole()
    fault_row(
        "`sbatch` refuses the second of two arrays",
        "the first is released, exit code 3 with Slurm's words; the next `submit` sends the second",
        "nothing",
    )


def test_a_job_whose_sbatch_never_answered_is_found_in_the_queue(
    case: Case, instead_of: Any, monkeypatch: pytest.MonkeyPatch, fault_row: Any
) -> None:
    monkeypatch.setattr(sbatch, "SECONDS", 15.0)
    instead_of("sbatch", LATE)
    assert len(case.submit().sent) == 3
    case.assert_whole()
    fault_row(
        "`sbatch` submits and does not answer", "the array is found in the queue by its comment", "nothing"
    )


def test_an_sbatch_that_does_not_answer_is_given_up_and_the_next_submit_sends_everything(
    case: Case, instead_of: Any, monkeypatch: pytest.MonkeyPatch, fault_row: Any
) -> None:
    before = os.environ["PATH"]
    monkeypatch.setattr(sbatch, "SECONDS", 0.5)
    instead_of("sbatch", DEAF)
    with pytest.raises(SystemRefused, match="did not answer"):
        case.submit()
    monkeypatch.setenv("PATH", before)
    monkeypatch.setattr(sbatch, "SECONDS", 60.0)
    assert len(case.submit().sent) == 3
    case.assert_whole()
    fault_row(
        "`sbatch` neither submits nor answers",
        "given up after a minute, exit code 3; the next `submit` sends everything",
        "nothing",
    )


def test_two_submits_at_once_send_every_run_once(case: Case, fault_row: Any) -> None:
    command = [str(Path(sys.executable).with_name("alphagrid")), "submit", str(case.spec)]
    command += ["--json", "--root", str(case.root)]

    def call() -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    with ThreadPoolExecutor() as pool:
        done = [one.result() for one in [pool.submit(call), pool.submit(call)]]
    assert [one.returncode for one in done] == [0, 0], done
    assert sorted(len(json.loads(one.stdout)["sent"]) for one in done) == [0, 3]
    case.assert_whole()
    fault_row("two `submit`s at once", "the second waits for the first, and sends nothing", "nothing")
