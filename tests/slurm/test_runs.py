"""alphagrid's runs on a real Slurm: one array, one A100 a job, cancelled and retried."""

import re
from typing import Any

import pytest

pytestmark = pytest.mark.slurm

WORKLOAD = """
import os, sys
from alphagrid.trainer.workloads.least_squares import LeastSquares

class Watched(LeastSquares):
    def model(self):
        print("visible:", os.environ.get("CUDA_VISIBLE_DEVICES"), file=sys.stderr, flush=True)
        return super().model()
"""
SPEC: dict[str, Any] = {
    "base": {
        "workload": {"name": "tasks:Watched", "batch_size": 16},
        "alpha": {"policy": "median", "interval": 20, "count": 5},
    },
    "grid": {"optimizer.lr": [0.01, 0.02, 0.03]},
    "resources": {"signal_seconds": 60},
}
ONE = ("--set", "grid={optimizer.lr: [0.01]}")


def test_a_grid_is_one_array_and_every_job_has_one_a100(slurm: Any, experiment: Any) -> None:
    lab = experiment(600, WORKLOAD, **SPEC)
    assert "sent 3 runs" in lab.submit()
    runs = lab.wait_for("completed")
    jobs = {run["job"]["job_id"] for run in runs}
    assert len({job.split("_")[0] for job in jobs}) == 1
    assert len(jobs) == 3
    array = next(iter(jobs)).split("_")[0]
    shown = slurm.run("scontrol", "show", "job", array)
    assert re.findall(r"TresPerNode=(\S+)", shown) == ["gres:gpu:a100:1"] * 3
    assert re.findall(r"[,=]gres/gpu=(\d+)", shown) == ["1"] * 3
    for run in runs:
        log = lab.call("logs", "cluster", run["name"]).stdout
        visible = [line.split(": ")[1] for line in log.splitlines() if line.startswith("visible:")]
        assert len(visible) == 1
        assert visible[0] in {"0", "1", "2", "3"}
    assert "sent 0 runs" in lab.submit()


def test_a_single_run_is_a_plain_job(slurm: Any, experiment: Any) -> None:
    lab = experiment(200, WORKLOAD, **SPEC)
    lab.submit(*ONE)
    runs = lab.wait_for("completed")
    assert "_" not in runs[0]["job"]["job_id"]


def test_cancelled_runs_stay_cancelled_until_they_are_retried(slurm: Any, experiment: Any) -> None:
    lab = experiment(1_000_000, WORKLOAD, **SPEC)
    lab.submit()
    lab.wait(lambda runs: all(run["state"] == "running" and run["step"] > 100 for run in runs))
    assert lab.call("cancel", "cluster", "--all").returncode == 0
    lab.wait_for("cancelled")
    assert "sent 0 runs" in lab.submit()
    assert lab.call("retry", "cluster", "lr0.02").returncode == 0
    lab.wait(lambda runs: any(run["name"] == "lr0.02" and run["attempts"] == 2 for run in runs))
    lab.call("cancel", "cluster", "--all")
    lab.wait_for("cancelled")


def test_without_slurm_the_error_says_what_to_do(experiment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = experiment(10, WORKLOAD, **SPEC)
    monkeypatch.setenv("PATH", "/nonexistent")
    done = lab.call("submit", "spec.yaml")
    assert done.returncode == 2
    assert "--profile local" in done.stderr
