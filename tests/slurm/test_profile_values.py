"""Values of a profile that would change a job's environment, on a real Slurm."""

import os
import pwd
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.slurm.conftest import Experiment, Slurm

pytestmark = pytest.mark.slurm

TASKS = """
import os, sys
from alphagrid.trainer.workloads.least_squares import LeastSquares

class Told(LeastSquares):
    def model(self):
        names = ("FROM_ENV", "FROM_SHELL", "HOME")
        print("told:", *(os.environ.get(name) for name in names), file=sys.stderr, flush=True)
        return super().model()
"""
MINE = {"workload": {"name": "tasks:Told", "batch_size": 16}}
Make = Callable[..., Experiment]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the submitter a home of the test's own, which is not the one in the list of users."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


def told(experiment: Experiment) -> list[str]:
    log = experiment.call("logs", experiment.name, experiment.runs()[0]["name"]).stdout
    return [line.removeprefix("told: ") for line in log.splitlines() if line.startswith("told:")]


@pytest.mark.parametrize("export", ["NONE", "EDITOR"])
def test_runs_complete_when_sbatch_exports_nothing(
    export: str, experiment: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FROM_SHELL", "of the submitter")
    resources = {"sbatch": {"export": export}, "env": {"FROM_ENV": "x ${HOME}"}}
    made = experiment(50, TASKS, base=MINE, resources=resources)
    made.submit()
    assert made.wait_for("completed", "failed")[0]["state"] == "completed", made.runs()
    on_the_node = pwd.getpwuid(os.geteuid()).pw_dir  # Slurm takes it from the list of users
    assert told(made) == [f"x {on_the_node} None {on_the_node}"]


def test_a_variable_of_the_node_is_expanded_there(
    experiment: Make, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FROM_SHELL", "$(a) 'b'")
    env = {"FROM_ENV": "${SLURM_JOB_PARTITION}/${FROM_SHELL}"}
    made = experiment(50, TASKS, base=MINE, resources={"env": env})
    assert "set-up was not tried" in made.submit()  # here there is no job, and that is no reason to refuse
    assert made.wait_for("completed", "failed")[0]["state"] == "completed", made.runs()
    assert told(made) == [f"a100/$(a) 'b' $(a) 'b' {home}"]


def test_a_run_whose_variable_is_missing_on_the_node_fails_with_its_name(
    experiment: Make, slurm: Slurm
) -> None:
    made = experiment(50, resources={"env": {"DATA": "${ALPHAGRID_NOWHERE}/data"}})
    made.submit()
    run = made.wait_for("completed", "failed")[0]
    assert run["state"] == "failed"
    assert "env.DATA: ${ALPHAGRID_NOWHERE} is not set" in run["reason"]


def test_a_root_whose_path_slurm_would_change_is_refused_and_others_are_not(
    experiment: Make, slurm: Slurm
) -> None:
    made = experiment(20)
    command = [str(Path(sys.executable).with_name("alphagrid")), "submit", "spec.yaml", "--wait", "--root"]
    refused = _call(made, [*command, str(made.folder / "50%j")])
    assert refused.returncode == 2
    assert "holds '%'" in refused.stderr
    assert slurm.run("squeue", "--noheader", "--name=cluster") == ""
    done = _call(made, [*command, str(made.folder / 'it\'s #1 "root"')])
    assert done.returncode == 0, done.stderr
    assert "file system of this machine" not in done.stderr  # the cluster is this machine


def _call(made: Experiment, command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=made.folder)
