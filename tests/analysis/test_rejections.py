"""Rejected α* are counted by the reason, in `status` and in the report."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from alphagrid.cli import app
from alphagrid.store import queries
from alphagrid.store.database import open_store
from alphagrid.store.journal import Journal
from typer.testing import CliRunner

if TYPE_CHECKING:
    from tests.conftest import Lab

ZERO = "undefined: the curvature is zero"
TOO_FEW = "fewer than half of the values are defined"

TASK = """
from alphagrid.trainer.workloads.least_squares import LeastSquares

def absolute(outputs, targets):
    return (outputs - targets).abs().squeeze(-1)

class WithoutCurvature(LeastSquares):
    loss = staticmethod(absolute)
"""
POLICIES: list[tuple[dict[str, Any], dict[str, int]]] = [
    ({"policy": "apply", "interval": 5}, {ZERO: 4}),
    ({"policy": "ema", "fill_steps": 2}, {ZERO: 19}),
    ({"policy": "median", "interval": 5, "count": 2}, {ZERO: 8, TOO_FEW: 4}),
]


def call(lab: Lab, *arguments: str) -> str:
    done = CliRunner().invoke(app, [*arguments, "--root", str(lab.root.path)])
    assert done.exit_code == 0, done.output
    return done.stdout


def submitted(lab: Lab, steps: int = 20, **sections: Any) -> None:
    (lab.folder / "flat_task.py").write_text(TASK)
    workload = {"name": "flat_task:WithoutCurvature", "batch_size": 20}
    lab.submit(steps, [0.01, 0.02], cluster="debug", workload=workload, **sections)


@pytest.mark.parametrize(("alpha", "expected"), POLICIES)
def test_status_and_report_count_them(lab: Lab, alpha: dict[str, Any], expected: dict[str, int]) -> None:
    submitted(lab, alpha=alpha)
    for run in json.loads(call(lab, "status", "exp", "--json"))["runs"]:
        assert (run["state"], run["rejected"]) == ("completed", expected)
    text = call(lab, "status", "exp")
    for reason, count in expected.items():
        assert f"{2 * count} {reason} (in 2 runs)" in text
    report = call(lab, "report", "exp", "--format", "markdown")
    assert "## Rejected α" in report
    rows = [[cell.strip() for cell in line.split("|")] for line in report.splitlines()]
    for reason, count in expected.items():
        assert sum(row[2:5] == [reason, str(count), "1"] for row in rows) == 2


def test_a_run_that_fails_for_want_of_a_rate_tells_it_in_status(lab: Lab) -> None:
    (lab.folder / "flat_task.py").write_text(TASK)
    workload = {"name": "flat_task:WithoutCurvature", "batch_size": 20}
    lab.submit(
        60, cluster="debug", workload=workload, optimizer={"name": "nadamw"},
        alpha={"policy": "ema", "fill_steps": 2},
    )  # fmt: skip
    (run,) = json.loads(call(lab, "status", "exp", "--json"))["runs"]
    assert (run["state"], run["rejected"]) == ("failed", {ZERO: 20})
    assert "has found no learning rate" in run["reason"]


def test_what_was_never_rejected_has_no_line(lab: Lab) -> None:
    lab.submit(20, [0.01], cluster="debug", alpha={"policy": "median", "interval": 5, "count": 2})
    (run,) = json.loads(call(lab, "status", "exp", "--json"))["runs"]
    assert run["rejected"] == {}
    assert "rejected" not in call(lab, "status", "exp")


def test_strange_details_are_no_failure(lab: Lab) -> None:
    lab.submit(20, [0.01], cluster="debug")
    (run,) = lab.files.runs()
    with open_store(lab.root) as store:
        store.sync()
        key = queries.runs(store.db, "exp")[0].key
    journal = Journal.create(run.journal(2))
    for details in (
        {"reason": 3},
        {},
        {"left_out": [7]},
        {"left_out": {"x": "many", "y": 2}},
        {"left_out": 5},
        {"reason": "\ud800", "left_out": {"\ud800": 3, "z": 10**400, "y": -7}},
    ):
        journal.append("event", 20, 1.0, event="rejected", **details)
    journal.close()
    with open_store(lab.root) as store:
        store.sync()
        found = queries.rejections_of(store.db, "exp").get(key, {})
    assert (found.get("y"), found.get("?"), found.get("z")) == (2, 4, None)
    call(lab, "status", "exp")
    call(lab, "report", "exp", "--format", "markdown")


def test_accepted_rates_are_not_looked_at(lab: Lab) -> None:
    """Of 10,000 runs there are hundreds of thousands."""
    lab.submit(20, [0.01], cluster="debug", alpha={"policy": "median", "interval": 5, "count": 2})
    steps: list[int] = []
    with open_store(lab.root) as store:
        store.sync()
        key = queries.runs(store.db, "exp")[0].key
        store.db.executemany(
            "INSERT INTO event VALUES (?, 9, ?, 1, 1.0, 1.0, 'learning_rate', '{}')",
            [(key, number) for number in range(100_000)],
        )
        store.db.set_progress_handler(lambda: steps.append(1), 1000)
        assert queries.rejections_of(store.db, "exp") == {}
    assert len(steps) < 10
