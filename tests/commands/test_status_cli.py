"""status, logs and retry as a user meets them, where no cluster is needed."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from alphagrid.cli import app
from alphagrid.errors import UserError
from alphagrid.jobs.excluded_nodes import keeping_off
from alphagrid.jobs.failure_groups import Cause
from alphagrid.jobs.status import ExperimentStatus
from alphagrid.terminal import causes_views
from rich.console import Console, Group
from typer.testing import CliRunner, Result

if TYPE_CHECKING:
    from tests.conftest import Lab


def call(lab: Lab, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--root", str(lab.root.path)])


@pytest.mark.parametrize(
    "arguments",
    [("status", "exp", "--json"), ("status", "exp"), ("status",), ("report", "exp", "--json"), ("schema",)],
    ids=" ".join,
)
def test_a_reader_that_leaves_early_is_no_failure(lab: Lab, arguments: tuple[str, ...]) -> None:
    lab.submit(20, [0.01], cluster="debug")
    reader, writer = os.pipe()
    os.close(reader)
    alphagrid = str(Path(sys.executable).with_name("alphagrid"))
    environment = {**os.environ, "ALPHAGRID_ROOT": str(lab.root.path)}
    try:
        done = subprocess.run(
            [alphagrid, *arguments], stdout=writer, stderr=subprocess.PIPE, env=environment, timeout=300
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_retrying_a_completed_run_tells_how_to_begin_it_anew(lab: Lab) -> None:
    lab.submit(20, [0.01], cluster="debug")
    said = call(lab, "retry", "exp", "completed")
    assert said.exit_code == 0
    assert "sent 0 runs" in said.stderr
    assert "alphagrid retry exp completed --fresh" in said.stderr
    again = call(lab, "retry", "exp", "completed", "--fresh")
    assert "sent 1 run" in again.stderr
    assert "--fresh" not in again.stderr


def test_there_are_no_nodes_to_keep_off_on_this_machine(lab: Lab) -> None:
    lab.submit(20, [0.01], cluster="debug")
    refused = call(lab, "retry", "exp", "--all", "--fresh", "--exclude-node", "gpu07")
    assert refused.exit_code == 2
    assert "leave out --exclude-node" in refused.stderr


def test_nodes_are_excluded_on_top_of_the_profiles_own() -> None:
    profile = {"cluster": "slurm", "exclude": "gpu[01,03]"}
    assert (
        keeping_off(profile, ["gpu07", "gpu08,gpu09", "gpu07"])["exclude"] == "gpu[01,03],gpu07,gpu08,gpu09"
    )
    assert keeping_off({"cluster": "slurm", "exclude": None}, ["gpu07"])["exclude"] == "gpu07"
    assert keeping_off(profile, []) == profile
    with pytest.raises(UserError, match="no node's name"):
        keeping_off(profile, ["gpu07 --wrap"])


def test_a_debug_run_has_no_log_and_the_hint_says_where_it_wrote(lab: Lab) -> None:
    lab.submit(20, [0.01], cluster="debug")
    (name,) = [run["name"] for run in json.loads(call(lab, "status", "exp", "--json").stdout)["runs"]]
    for options in ((), ("-f",)):
        said = call(lab, "logs", "exp", name, *options)
        assert "terminal of its submit" in said.stderr
        assert said.stdout == ""


def test_failures_are_grouped_for_people_and_for_programs(lab: Lab) -> None:
    lab.submit(20, [0.01, 0.02], cluster="debug", workload={"name": "digits_mlp", "hidden": [10**12]})
    found = json.loads(call(lab, "status", "exp", "--json").stdout)
    (cause,) = found["causes"]
    assert (cause["state"], len(cause["runs"]), len(cause["hosts"])) == ("failed", 2, 1)
    assert "2 failed: " in call(lab, "status", "exp").stdout


def test_a_cause_names_a_few_of_its_runs_and_counts_the_others() -> None:
    names = tuple(f"lr{number}" for number in range(14))
    cause = Cause("failed", "CUDA out of memory", names, names, ("gpu1",), ("Traceback", "Boom"))
    many = [cause, *(Cause("unknown", f"cause {letter}", ("x",), ("x",)) for letter in "abcdefgh")]
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(Group(*causes_views(ExperimentStatus("e", (), causes=tuple(many)))))
    text = console.export_text()
    assert "14 failed: CUDA out of memory" in text
    assert "lr0, lr1, lr2, lr3, lr4 and 9 more; on gpu1" in text
    assert "│ Boom" in text
    assert "and 3 more causes (--all shows them)" in text
