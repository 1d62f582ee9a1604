"""`submit --canary` and `submit --prune`, on the real Slurm."""

from __future__ import annotations

from typing import Any

import pytest

from tests.slurm.conftest import Slurm
from tests.slurm.waiting import until

pytestmark = pytest.mark.slurm

TASKS = """
import time
from pathlib import Path
from alphagrid.errors import UserError
from alphagrid.trainer.workloads.least_squares import LeastSquares

HERE = Path("{folder}")

class Gated(LeastSquares):
    def model(self):
        (HERE / "begun").touch()
        while not (HERE / "go").exists():
            time.sleep(0.05)
        if "fail" in (HERE / "go").read_text():
            raise UserError("the canary fell silent")
        return super().model()
"""
GRID = {"grid": {"optimizer.lr": [0.01, 0.02, 0.03]}}
TWO = ("--set", "grid={optimizer.lr: [0.01, 0.02]}")


@pytest.fixture
def lab(experiment: Any, tmp_path: Any) -> Any:
    """Three runs that begin when a file `go` appears, and fail if it says so."""
    base = {"workload": {"name": "tasks:Gated", "batch_size": 16}}
    return experiment(200, TASKS.format(folder=tmp_path), base=base, **GRID)


def states(lab: Any) -> list[tuple[str, str | None]]:
    return [(run["state"], run["reason"]) for run in lab.runs()]


def queued(slurm: Slurm) -> list[str]:
    return slurm.run("squeue", "--noheader", "--array", "--format=%r").split()


def test_the_others_start_when_the_canary_has_evaluated(slurm: Slurm, lab: Any, tmp_path: Any) -> None:
    told = lab.submit("--canary")
    assert "lr0.01 goes first, the others at its first evaluation" in told
    until((tmp_path / "begun").exists, "the canary has begun")
    waits = ("pending", "waits for the canary lr0.01 to reach its first evaluation")
    assert states(lab)[1:] == [waits, waits]
    assert "sent 0 runs" in lab.submit("--canary")
    assert states(lab)[1:] == [waits, waits]
    (tmp_path / "go").touch()
    lab.wait_for("completed")


def test_a_canary_that_fails_holds_the_others_back_and_the_next_submit_sends_them(
    slurm: Slurm, lab: Any, tmp_path: Any
) -> None:
    (tmp_path / "go").write_text("fail")
    lab.submit("--canary", *TWO)
    lab.wait(lambda runs: runs[0]["state"] == "failed")
    state, reason = states(lab)[1]
    assert state == "interrupted"
    assert reason is not None
    assert "held back: the canary lr0.01 is failed" in reason
    assert "fell silent" in reason
    assert "the next submit sends this run" in reason
    assert queued(slurm).count("JobHeldUser") == 1
    (tmp_path / "go").write_text("")
    assert "sent 2 runs" in lab.submit(*TWO)
    lab.wait_for("completed")
    until(lambda: not queued(slurm), "nothing is left in the queue")


def test_submitting_without_a_canary_lets_those_go_that_wait_for_one(
    slurm: Slurm, lab: Any, tmp_path: Any
) -> None:
    lab.submit("--canary", *TWO)
    until((tmp_path / "begun").exists, "the canary has begun")
    assert "sent 0 runs" in lab.submit(*TWO)
    lab.wait(lambda runs: {run["state"] for run in runs} == {"running"})
    lab.tell("cancel", lab.name, "--all")


def test_runs_that_left_the_spec_are_pruned_once_the_new_ones_are_accepted(
    slurm: Slurm, lab: Any, tmp_path: Any
) -> None:
    lab.submit("--canary")
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
