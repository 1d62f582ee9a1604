"""What a run warns of in its journal is repeated by `status` and `report`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from alphagrid.cli import app
from typer.testing import CliRunner, Result

if TYPE_CHECKING:
    from tests.conftest import Lab


def call(lab: Lab, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--root", str(lab.root.path)])


def submit(lab: Lab, model: str, rates: list[float], policy: str = "observe") -> None:
    shutil.copy(Path(__file__).parents[1] / "trainer" / "guarded_tasks.py", lab.folder)
    lab.submit(
        3,
        rates,
        cluster="debug",
        workload={"name": "guarded_tasks:Guarded", "model": model, "batch_size": 32},
        alpha={"policy": policy},
    )


def test_a_warning_is_repeated_once_for_all_runs_that_have_it(lab: Lab) -> None:
    submit(lab, "ListedParameter", [0.01, 0.02])
    (warning,) = json.loads(call(lab, "status", "exp", "--json").stdout)["warnings"]
    assert "not to be trusted" in warning["message"]
    assert len(warning["runs"]) == 2
    shown = call(lab, "status", "exp").stdout
    assert shown.count("not to be trusted") == 1
    assert "and 1 more" in shown
    report = json.loads(call(lab, "report", "exp", "--json").stdout)
    assert [said for said in report["warnings"] if "not to be trusted" in said]
    assert "not to be trusted" in call(lab, "report", "exp", "--format", "csv").stderr
    assert "not to be trusted" in call(lab, "report", "exp", "--format", "markdown").stdout


def test_the_operation_that_finite_differences_stand_in_for_is_named(lab: Lab) -> None:
    submit(lab, "CustomRight", [0.01])
    for command in (["status", "exp"], ["report", "exp", "--format", "markdown"]):
        assert "finite differences" in call(lab, *command).stdout


def test_a_run_without_warnings_has_none(lab: Lab) -> None:
    submit(lab, "Net", [0.01])
    assert json.loads(call(lab, "status", "exp", "--json").stdout)["warnings"] == []
    assert "warning" not in call(lab, "status", "exp").stdout


def test_a_policy_that_acts_on_a_wrong_value_fails_with_the_reason(lab: Lab) -> None:
    submit(lab, "ListedParameter", [0.01], policy="apply")
    (run,) = json.loads(call(lab, "status", "exp", "--json").stdout)["runs"]
    assert run["state"] == "failed"
    assert "α* would be wrong" in run["reason"]
