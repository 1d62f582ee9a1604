"""`submit --limit` and `submit --prune` on the real Slurm, and what an older version's `--canary` left."""

from __future__ import annotations

import json
from typing import Any

import pytest
from alphagrid.store import submissions

from tests.slurm.conftest import Slurm
from tests.slurm.waiting import until

pytestmark = pytest.mark.slurm

TASKS = """
import time
from pathlib import Path
from alphagrid.trainer.workloads.least_squares import LeastSquares

HERE = Path("{folder}")

class Gated(LeastSquares):
    def model(self):
        while not (HERE / "go").exists():
            time.sleep(0.05)
        return super().model()
"""
GRID = {"grid": {"optimizer.lr": [0.01, 0.02, 0.03]}}


@pytest.fixture
def lab(experiment: Any, tmp_path: Any) -> Any:
    """Three runs that begin when a file `go` appears."""
    base = {"workload": {"name": "tasks:Gated", "batch_size": 16}}
    return experiment(200, TASKS.format(folder=tmp_path), base=base, **GRID)


def queued(slurm: Slurm) -> list[str]:
    return slurm.run("squeue", "--noheader", "--array", "--format=%r").split()


def test_a_limit_sends_the_first_of_the_due_runs_and_the_next_submit_the_others(
    slurm: Slurm, lab: Any, tmp_path: Any
) -> None:
    told = lab.submit("--limit", "1")
    assert "sent 1 run" in told
    assert "1 of 3 due" in told
    assert [run["name"] for run in lab.runs()] == ["lr0.01"]
    (tmp_path / "go").touch()
    lab.wait_for("completed")
    assert "sent 2 runs" in lab.submit("--wait")
    assert [run["state"] for run in lab.runs()] == ["completed"] * 3


def test_runs_that_left_the_spec_are_pruned_once_the_new_ones_are_accepted(
    slurm: Slurm, lab: Any, tmp_path: Any
) -> None:
    lab.submit()
    refused = lab.call("submit", "spec.yaml", "--set", "grid={optimizer.lr: [0.04]}", "--prune")
    assert refused.returncode == 2
    assert "--yes" in refused.stderr
    told = lab.submit("--set", "grid={optimizer.lr: [0.03, 0.04]}", "--prune", "--yes")
    assert "sent 1 run" in told
    assert "cancelled 2 runs" in told
    named = {run["name"]: run["state"] for run in lab.runs()}
    assert [named[name] for name in ("lr0.01", "lr0.02")] == ["cancelled", "cancelled"]
    (tmp_path / "go").touch()
    lab.wait(lambda runs: {run["state"] for run in runs} == {"cancelled", "completed"})


@pytest.mark.parametrize("by", ["submit", "retry"])
def test_jobs_that_an_older_versions_canary_holds_back_are_cancelled_and_their_runs_sent_again(
    slurm: Slurm, experiment: Any, by: str
) -> None:
    lab = experiment(10, resources={"sbatch": {"begin": "now+1hour"}}, **GRID)
    lab.submit()
    jobs = lab.jobs()
    first, *others = (run["id"] for run in lab.runs())
    (path,) = submissions.submission_files(lab.files)
    path.write_text(json.dumps({**json.loads(path.read_text()), "canary": first}))
    for run_id in others:
        slurm.run("scontrol", "uhold", jobs[run_id])  # as sbatch --hold does
    until(lambda: queued(slurm).count("JobHeldUser") == 2, "they are held")
    assert {run["state"] for run in lab.runs()} == {"pending"}
    told = lab.submit() if by == "submit" else lab.tell("retry", lab.name, *others)
    assert "sent 2 runs" in told
    until(lambda: "JobHeldUser" not in queued(slurm), "the held jobs are cancelled")
    assert [lab.jobs()[run_id] == jobs[run_id] for run_id in (first, *others)] == [True, False, False]
    assert {run["state"] for run in lab.runs()} == {"pending"}
    assert "sent 0 runs" in lab.submit()
