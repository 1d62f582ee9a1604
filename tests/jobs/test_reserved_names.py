"""Names of runs, baselines and experiments never stand for a state, an option or another run's id."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from alphagrid.cli import app
from alphagrid.errors import UserError
from alphagrid.jobs.runs.states import STATES
from alphagrid.jobs.selection import select
from alphagrid.jobs.specification.experiment import expand
from alphagrid.jobs.specification.file import read_spec
from alphagrid.jobs.specification.reserved_names import meaning
from alphagrid.store import submissions
from typer.testing import CliRunner, Result

from tests.jobs.test_selection import Run

if TYPE_CHECKING:
    from tests.conftest import Lab


CRASHING = {"name": "least_squares", "features": 10**12}


def call(lab: Lab, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--root", str(lab.root.path)])


def spec(lab: Lab, **content: Any) -> str:
    base = {"workload": {"name": "least_squares"}, "optimizer": {"name": "sgd"}, "stop": {"steps": 20}}
    return str(lab.write({"experiment": "exp", "base": {**base, "device": "cpu"}, **content}))


@pytest.mark.parametrize("state", STATES)
def test_a_state_means_the_runs_in_it_whatever_runs_are_called(state: str) -> None:
    other = next(one for one in STATES if one != state)
    runs = [Run("a100000000", state, other), Run("b200000000", "plain", state)]
    assert [run.id for run in select(runs, [state])] == ["b200000000"]
    if state == "failed":
        assert [run.id for run in select(runs, [], failed=True)] == ["b200000000"]
    with pytest.raises(UserError) as refused:
        select(runs[:1], [state])
    assert "chosen by its id, a100000000" in str(refused.value.hint)


def test_a_whole_id_means_its_run_whatever_others_are_called() -> None:
    runs = [Run("a100000000", "b200000000", "failed"), Run("b200000000", "plain", "failed")]
    assert [run.name for run in select(runs, ["b200000000"])] == ["plain"]


def test_a_name_goes_before_the_beginning_of_an_id() -> None:
    runs = [Run("a100000000", "b2", "failed"), Run("b200000000", "plain", "failed")]
    assert [run.name for run in select(runs, ["b2"])] == ["b2"]


@pytest.mark.parametrize("option", [(), ("--dry-run",)], ids=["submit", "dry run"])
@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("failed", "the state 'failed'"),
        ("Unknown", "the state 'unknown'"),
        ("all", "all runs"),
        ("0123abcdef", "a run's id"),
    ],
)
def test_a_new_baseline_with_a_reserved_name_is_refused_where_it_stands(
    lab: Lab, name: str, what: str, option: tuple[str, ...]
) -> None:
    path = spec(lab, baselines={name: {"optimizer.lr": 0.5}, "plain": {"optimizer.lr": 0.25}})
    refused = call(lab, "submit", path, "--profile", "debug", *option)
    assert refused.exit_code == 2
    said = " ".join(refused.stderr.split())
    assert f"spec.yaml:1: baselines.{name}: cannot name a baseline" in said
    assert what in said
    assert not lab.files.submissions.exists()


@pytest.mark.parametrize("name", ["-x", "--failed", "a=b", "a b", "*", "a*until"])
def test_a_baseline_that_looks_like_an_option_or_a_condition_is_refused(lab: Lab, name: str) -> None:
    refused = call(lab, "submit", spec(lab, baselines={name: {"optimizer.lr": 0.5}}), "--dry-run")
    assert refused.exit_code == 2
    assert "cannot name a baseline" in refused.stderr


@pytest.mark.slow
def test_a_root_that_has_such_a_baseline_stays_usable(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was submitted by an older version; it can be continued, selected and reported."""
    baselines: dict[str, dict[str, Any]] = {"failed": {"optimizer.lr": 0.5}, "crash": {"workload": CRASHING}}
    path = spec(lab, baselines=baselines)
    with monkeypatch.context() as older:
        older.setattr("alphagrid.jobs.specification.reserved_names.meaning", lambda name: None)
        assert call(lab, "submit", path, "--profile", "debug").exit_code == 0
    longer = spec(lab, baselines={name: {**own, "stop": {"steps": 40}} for name, own in baselines.items()})
    assert call(lab, "submit", longer, "--profile", "debug").exit_code == 0
    runs = {run["name"]: run for run in json.loads(call(lab, "status", "exp", "--json").stdout)["runs"]}
    assert (runs["failed"]["state"], runs["failed"]["step"]) == ("completed", 40)
    assert runs["crash"]["state"] == "failed"
    before = len(list(lab.files.submissions.iterdir()))
    for selectors in (["failed"], ["--failed"]):
        said = call(lab, "retry", "exp", *selectors, "--fresh")
        assert said.exit_code == 0, said.stderr
    sent = [[entry.name for entry in one.runs] for one in submissions.read_all(lab.files)[before:]]
    assert sent == [["crash"], ["crash"]]
    assert call(lab, "prune", "exp", runs["failed"]["id"], "--dry-run").exit_code == 0
    reported = call(lab, "report", "exp", "--budget-steps", "30", "--json")
    assert "failed" in {run["name"] for run in json.loads(reported.stdout)["budgets"][0]["runs"]}


@pytest.mark.parametrize("name", ["failed", "unknown", "all", "0123abcdef"])
def test_an_experiment_may_be_called_like_a_state_and_is_none(lab: Lab, name: str) -> None:
    """Commands take an experiment where they expect one, and a state or an id after it."""
    runs = {"plain": {"optimizer.lr": 0.25}, "crash": {"workload": CRASHING}}
    for experiment in (name, "exp"):
        path = spec(lab, experiment=experiment, baselines=runs)
        assert call(lab, "submit", path, "--profile", "debug").exit_code == 0
    before = {path: path.stat().st_mtime_ns for path in lab.files.path.rglob("*")}

    def told(*arguments: str) -> str:
        done = call(lab, *arguments)
        assert done.exit_code == 0, done.output
        return " ".join(done.stderr.split())

    counts = {
        one["experiment"]: one["counts"]
        for one in json.loads(call(lab, "status", "--json").stdout)["experiments"]
    }
    assert counts[name] == counts["exp"] == {"completed": 2, "failed": 1}
    shown = json.loads(call(lab, "status", name, "--json").stdout)["runs"]
    assert {run["name"]: run["state"] for run in shown} == {
        "base": "completed", "plain": "completed", "crash": "failed",
    }  # fmt: skip
    assert "3 had ended before" in told("cancel", name, "--all")
    assert f"sent 1 run of {name}" in told("retry", name, "failed", "--fresh")
    assert f"sent 1 run of {name}" in told("retry", name, "--failed", "--fresh")
    assert f"of {name}" in told("prune", name, "completed", "--dry-run")
    assert call(lab, "report", name, "--json").exit_code == 0
    refused = call(lab, "cancel", name)
    assert (refused.exit_code, "which runs?" in refused.stderr) == (2, True)
    assert {path: path.stat().st_mtime_ns for path in lab.files.path.rglob("*")} == before


def test_a_cell_whose_name_would_look_like_an_id_carries_its_id(lab: Lab) -> None:
    """The key `dec` of a user's workload, set to 1234567, makes ten hexadecimal digits."""
    (lab.folder / "decimals.py").write_text(
        "from alphagrid.trainer.workloads.least_squares import LeastSquares\n"
        "class Options(LeastSquares.Options):\n"
        "    dec: int = 0\n"
        "class Task(LeastSquares):\n"
        "    Options = Options\n"
    )
    workload = {"name": "decimals:Task"}
    path = lab.spec(20, workload=workload)
    content = json.loads(path.read_text()) | {"grid": {"workload.dec": [1234567, 12]}}
    experiment = expand(read_spec(lab.write(content)))
    first, second = experiment.runs
    assert meaning("dec1234567") == "a run's id"
    assert (first.name, second.name) == (f"dec1234567-{first.id}", "dec12")
