"""alphagrid's runs on a real Slurm: one array, one A100 a job, back after a preemption."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slurm

ALPHAGRID = str(Path(sys.executable).with_name("alphagrid"))
WORKLOAD = """
import os, sys
from alphagrid.trainer.workloads.least_squares import LeastSquares

class Watched(LeastSquares):
    def model(self):
        print("visible:", os.environ.get("CUDA_VISIBLE_DEVICES"), file=sys.stderr, flush=True)
        return super().model()
"""
SPEC = """
experiment: cluster
base:
  workload: {name: "tasks:Watched", batch_size: 16}
  optimizer: {name: nadamw, lr: 0.01}
  alpha: {policy: median, interval: 20, count: 5}
  eval: {every_steps: 500}
  stop: {steps: STEPS}
  device: cpu
grid:
  optimizer.lr: [0.01, 0.02, 0.03]
profile: slurm-a100
resources: {partition: a100, signal_seconds: 60}
"""


Runs = list[dict[str, Any]]
Settled = Callable[[Runs], bool]


class Experiment:
    """A folder with a spec, its workload and a root, and the commands on it."""

    def __init__(self, folder: Path, steps: int) -> None:
        self.folder = folder
        self.root = folder / "runs"
        (folder / "tasks.py").write_text(WORKLOAD)
        (folder / "spec.yaml").write_text(SPEC.replace("STEPS", str(steps)))

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [ALPHAGRID, *arguments, "--root", str(self.root)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=self.folder)

    def submit(self, *options: str) -> str:
        done = self.call("submit", "spec.yaml", *options)
        assert done.returncode == 0, done.stderr
        return done.stderr

    def runs(self) -> Runs:
        done = self.call("status", "cluster", "--json")
        assert done.returncode == 0, done.stderr
        found: Runs = json.loads(done.stdout)["runs"]
        return found

    def wait(
        self, settled: Callable[[list[dict[str, Any]]], bool], seconds: float = 150
    ) -> list[dict[str, Any]]:
        deadline = time.monotonic() + seconds
        while not settled(runs := self.runs()):
            assert time.monotonic() < deadline, [
                (r["name"], r["state"], r["reason"], r["step"]) for r in runs
            ]
            time.sleep(0.5)
        return runs


def all_in(*states: str) -> Settled:
    return lambda runs: all(run["state"] in states for run in runs)


def test_a_grid_is_one_array_and_every_job_has_one_a100(slurm: Any, tmp_path: Path) -> None:
    experiment = Experiment(tmp_path, steps=600)
    assert "sent 3 runs" in experiment.submit()
    runs = experiment.wait(all_in("completed"))
    jobs = {run["job"]["job_id"] for run in runs}
    assert len({job.split("_")[0] for job in jobs}) == 1
    assert len(jobs) == 3
    array = next(iter(jobs)).split("_")[0]
    sacct = ("sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={array}", "--format")
    asked = slurm.run(*sacct, "reqtres%80").split()
    assert len(asked) == 3
    assert all("gres/gpu:a100=1" in one or "gres/gpu=1" in one for one in asked)
    for run in runs:
        log = experiment.call("logs", "cluster", run["name"]).stdout
        visible = [line.split(": ")[1] for line in log.splitlines() if line.startswith("visible:")]
        assert len(visible) == 1
        assert visible[0] in {"0", "1", "2", "3"}
    assert "sent 0 runs" in experiment.submit()


def test_a_single_run_is_a_plain_job(slurm: Any, tmp_path: Path) -> None:
    experiment = Experiment(tmp_path, steps=200)
    experiment.submit("--set", "grid={optimizer.lr: [0.01]}")
    runs = experiment.wait(all_in("completed"))
    assert "_" not in runs[0]["job"]["job_id"]


def test_a_preempted_run_writes_a_checkpoint_is_requeued_and_completes(slurm: Any, tmp_path: Path) -> None:
    experiment = Experiment(tmp_path, steps=40_000)
    experiment.submit("--set", "grid={optimizer.lr: [0.01]}")
    experiment.wait(lambda runs: runs[0]["state"] == "running" and runs[0]["step"] > 500)
    urgent = slurm.run(
        "sbatch", "--parsable", "--partition=urgent", "--gres=gpu:a100:4", "--output=/dev/null",
        "--wrap", "sleep 20",
    ).strip()  # fmt: skip
    stopped = experiment.wait(lambda runs: runs[0]["state"] == "requeued")[0]
    assert stopped["checkpoint_step"] > 500
    slurm.run("scancel", urgent)
    slurm.run("scontrol", "update", f"JobId={stopped['job']['job_id']}", "StartTime=now")
    done = experiment.wait(all_in("completed"))[0]
    assert (done["attempts"], done["step"]) == (2, 40_000)


def test_cancelled_runs_stay_cancelled_until_they_are_retried(slurm: Any, tmp_path: Path) -> None:
    experiment = Experiment(tmp_path, steps=1_000_000)
    experiment.submit()
    experiment.wait(lambda runs: any(run["state"] == "running" and run["step"] > 100 for run in runs))
    assert experiment.call("cancel", "cluster", "--all").returncode == 0
    experiment.wait(all_in("cancelled"))
    assert "sent 0 runs" in experiment.submit()
    assert experiment.call("retry", "cluster", "lr0.02").returncode == 0
    experiment.wait(lambda runs: any(run["name"] == "lr0.02" and run["attempts"] == 2 for run in runs))
    experiment.call("cancel", "cluster", "--all")
    experiment.wait(all_in("cancelled"))


def test_without_slurm_the_error_says_what_to_do(tmp_path: Path) -> None:
    experiment = Experiment(tmp_path, steps=10)
    environment = {**os.environ, "PATH": "/nonexistent"}
    command = [ALPHAGRID, "submit", "spec.yaml", "--root", str(experiment.root)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 2
    assert "--profile local" in done.stderr
