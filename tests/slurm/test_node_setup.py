"""Set-up on the node, and code as it was submitted, on a real Slurm."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.conftest import Runs, standing
from tests.slurm.waiting import SECONDS, until

pytestmark = pytest.mark.slurm

ALPHAGRID = str(Path(sys.executable).with_name("alphagrid"))
WORKLOAD = """
import os, sys
import tuning
from alphagrid.trainer.workloads.least_squares import LeastSquares

class Told(LeastSquares):
    def model(self):
        told = [tuning.NAME, os.environ.get("FROM_ENV"), os.environ.get("FROM_SETUP")]
        print("told:", *told, file=sys.stderr, flush=True)
        return super().model()
"""
SPEC = """
experiment: nodes
base:
  workload: {name: "tasks:Told", batch_size: 16}
  optimizer: {name: sgd, lr: 0.01}
  eval: {every_steps: 10000}
  stop: {steps: STEPS}
  device: cpu
grid:
  optimizer.lr: [0.01, 0.02]
profile: ./site.yaml
"""


class Experiment:
    """A folder with a spec, its workload and a profile of its own, and the commands on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "tasks.py").write_text(WORKLOAD)
        (folder / "tuning.py").write_text("NAME = 'submitted'\n")
        self.spec(100)

    def spec(self, steps: int) -> None:
        (self.folder / "spec.yaml").write_text(SPEC.replace("STEPS", str(steps)))

    def profile(self, **keys: Any) -> None:
        content = {"extends": "slurm-a100", "partition": "a100", "memory": "1G", "cpus": 1, **keys}
        (self.folder / "site.yaml").write_text(json.dumps(content))

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [ALPHAGRID, *arguments, "--root", str(self.folder / "runs")]
        return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, cwd=self.folder)

    def submit(self, *options: str) -> str:
        done = self.call("submit", "spec.yaml", *options)
        assert done.returncode == 0, done.stderr
        return done.stderr

    def submit_one(self) -> None:
        assert "sent 1 run" in self.submit("--set", "grid={optimizer.lr: [0.01]}")

    def runs(self) -> Runs:
        return standing(self.folder / "runs", "nodes")

    def wait(self, settled: Callable[[Runs], bool], seconds: float = SECONDS) -> Runs:
        deadline = time.monotonic() + seconds
        while not settled(runs := self.runs()):
            told = [(run["name"], run["state"], run["reason"], run["step"]) for run in runs]
            assert time.monotonic() < deadline, told
            time.sleep(0.3)
        return runs

    def told(self) -> list[str]:
        """What the workload said of itself in each attempt of the first run."""
        log = self.call("logs", "nodes", self.runs()[0]["name"]).stdout
        return [line for line in log.splitlines() if line.startswith("told:")]

    def job(self) -> str:
        return str(self.runs()[0]["job"]["job_id"]).split("_")[0]


def all_in(state: str) -> Callable[[Runs], bool]:
    return lambda runs: all(run["state"] == state for run in runs)


@pytest.fixture
def experiment(tmp_path: Path, slurm: Any) -> Iterator[Experiment]:
    yield Experiment(tmp_path)
    slurm.clear()


def on_nodes(line: str) -> str:
    """A line of set-up that does nothing where it is tried before anything is sent."""
    return f'if [ -n "$SLURM_JOB_ID" ]; then {line}; fi'


def endings(slurm: Any, job: str) -> set[str]:
    """States of all the times that a job's tasks ran, requeued ones too."""
    told = accounted(slurm, job, "state")
    # as many as there are tasks: none was requeued
    assert len(told) <= 2, accounted(slurm, job, "jobid,jobidraw,jobname,state,submit,end")
    return set(told)


def seconds(slurm: Any, job: str) -> int:
    """How long the task that took longest had its node."""
    return max(map(int, accounted(slurm, job, "elapsedraw")))


def accounted(slurm: Any, job: str, column: str) -> list[str]:
    listed = ("sacct", "--noheader", "--parsable2", "--allocations", "--duplicates")
    found: str = slurm.run(*listed, f"--jobs={job}", f"--format=jobname,{column}")
    lines = [line.partition("|") for line in found.splitlines()]
    return [told for name, _, told in lines if name.startswith("nodes.")]


def test_a_failing_module_load_ends_jobs_in_seconds_with_its_reason(
    slurm: Any, experiment: Experiment
) -> None:
    experiment.profile(setup=["module load cuda/99"])
    said = experiment.submit()
    assert "set-up was not tried" in said  # here there is no `module` either, and that is no reason to refuse
    for run in experiment.wait(all_in("failed")):
        assert run["reason"].startswith("set-up failed: module load cuda/99 (exit code 127 on ")
        assert "module: command not found" in run["reason"]
        assert "command not found" in experiment.call("logs", "nodes", run["name"]).stdout
    until(lambda: endings(slurm, experiment.job()) == {"FAILED"}, "FAILED in accounting")
    assert seconds(slurm, experiment.job()) < 30
    until(lambda: slurm.queue_of("nodes") == {}, "nothing is queued")
    experiment.profile()
    assert "sent 2 runs" in experiment.submit()
    experiment.wait(all_in("completed"))


def test_jobs_that_cannot_import_alphagrid_fail_in_seconds_with_that_reason(
    slurm: Any, experiment: Experiment
) -> None:
    broken = experiment.folder / "broken" / "alphagrid"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('this node has no alphagrid')")
    experiment.profile(setup=[on_nodes(f"export PYTHONPATH={broken.parent}")])
    assert "sent 2 runs" in experiment.submit()
    for run in experiment.wait(all_in("failed")):
        assert run["reason"].startswith("ended before the run could begin (exit code 1 on ")
        assert "ImportError: this node has no alphagrid" in run["reason"]
    until(lambda: endings(slurm, experiment.job()) == {"FAILED"}, "FAILED in accounting")
    assert seconds(slurm, experiment.job()) < 30
    assert "sent 2 runs" in experiment.submit()  # failed ones go out once more
    experiment.wait(lambda runs: all(run["attempts"] == 2 and run["state"] == "failed" for run in runs))
    assert "sent 0 runs" in experiment.submit()


def test_an_import_that_fails_here_is_refused_before_anything_is_sent(
    slurm: Any, experiment: Experiment
) -> None:
    broken = experiment.folder / "broken" / "alphagrid"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('nor has this machine')")
    experiment.profile(env={"PYTHONPATH": str(broken.parent)})
    refused = experiment.call("submit", "spec.yaml")
    assert refused.returncode == 2
    assert "ImportError: nor has this machine" in refused.stderr
    assert slurm.queue_of("nodes") == {}
    assert not list((experiment.folder / "runs" / "nodes").glob("submissions/*"))


def test_set_up_variables_and_mail_reach_the_job(slurm: Any, experiment: Experiment) -> None:
    experiment.profile(
        setup=[on_nodes("export FROM_SETUP=set-up")], env={"FROM_ENV": "a 'b'"}, mail_user="me@example.org"
    )
    experiment.submit_one()
    shown = slurm.run("scontrol", "show", "job", experiment.job())
    assert "MailUser=me@example.org" in shown
    assert "MailType=END,FAIL" in shown
    experiment.wait(all_in("completed"))
    assert experiment.told() == ["told: submitted a 'b' set-up"]


def test_a_job_that_is_killed_during_set_up_has_not_failed(slurm: Any, experiment: Experiment) -> None:
    marker = experiment.folder / "begun"
    experiment.profile(setup=[on_nodes(f"touch {marker}; [ -e {marker}-late ] || sleep 600")])

    def begun() -> None:
        experiment.wait(lambda runs: marker.exists())
        marker.unlink()

    experiment.submit_one()
    begun()
    job = experiment.job()
    slurm.run("scontrol", "requeue", job)
    experiment.wait(lambda runs: runs[0]["state"] == "pending")
    slurm.release(job)
    begun()
    urgent = slurm.run(
        "sbatch", "--parsable", "--partition=urgent", "--gres=gpu:a100:4", "--output=/dev/null",
        "--wrap", "sleep 600",
    ).strip()  # fmt: skip
    experiment.wait(lambda runs: runs[0]["state"] == "pending")
    assert experiment.runs()[0]["attempts"] == 0
    slurm.run("scancel", urgent)
    Path(f"{marker}-late").touch()
    slurm.release(job)
    assert experiment.wait(all_in("completed"))[0]["attempts"] == 1


def test_a_job_that_is_cancelled_during_set_up_has_not_failed(slurm: Any, experiment: Experiment) -> None:
    marker = experiment.folder / "begun"
    experiment.profile(setup=[on_nodes(f"touch {marker}; sleep 600")])
    experiment.submit_one()
    experiment.wait(lambda runs: marker.exists())
    slurm.run("scancel", experiment.job())
    run = experiment.wait(lambda runs: runs[0]["state"] not in ("running", "pending"))[0]
    assert (run["state"] != "failed", run["attempts"]) == (True, 0)


def test_a_job_runs_the_code_that_was_submitted_also_when_it_comes_back(
    slurm: Any, experiment: Experiment
) -> None:
    experiment.profile(sbatch={"begin": "now+4"})
    experiment.spec(1_000_000)
    experiment.submit_one()
    (experiment.folder / "tuning.py").write_text("NAME = 'edited'\n")
    experiment.wait(lambda runs: runs[0]["step"] > 100)
    job = experiment.job()
    (experiment.folder / "tuning.py").write_text("raise RuntimeError('edited again')\n")
    slurm.run("scontrol", "requeue", job)
    experiment.wait(lambda runs: runs[0]["state"] == "requeued")
    slurm.release(job)
    experiment.wait(lambda runs: len(experiment.told()) == 2)
    assert experiment.call("cancel", "nodes", "--all").returncode == 0
    experiment.wait(all_in("cancelled"))
    (experiment.folder / "tuning.py").write_text("NAME = 'edited'\n")
    refused = experiment.call("retry", "nodes", "--all")
    assert refused.returncode == 2
    assert "tuning.py" in refused.stderr
    assert "--allow-code-change" in refused.stderr
    experiment.call("retry", "nodes", "--all", "--allow-code-change")
    experiment.wait(lambda runs: len(experiment.told()) == 3)
    experiment.call("cancel", "nodes", "--all")
    assert experiment.wait(all_in("cancelled"))[0]["attempts"] == 3
    submitted = "told: submitted None None"
    assert experiment.told() == [submitted, submitted, "told: edited None None"]
