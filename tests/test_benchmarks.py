"""The benchmarks that print JSON run, and say what they are asked for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[1]
KEYS = {
    *("model", "route", "estimator", "curvature_fraction", "ratio_to_plain", "seconds"),
    *("peak_bytes", "device"),
}
ROUTES = {"plain", "jvp", "finite_difference", "curvlinops", "curvlinops_checked", "gen", "thesis"}


def lines(module: str, *options: str) -> list[dict[str, object]]:
    command = [sys.executable, "-m", f"benchmarks.{module}", "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_cost_of_a_step_is_told_for_every_route() -> None:
    found = lines("alpha_step", "--models", "digits_mlp", "--repetitions", "3")
    assert all(set(row) == KEYS for row in found)
    assert {row["route"] for row in found} == ROUTES
    assert {row["curvature_fraction"] for row in found if row["estimator"] == "lookahead"} == {1, 0.25, 0.125}
    assert next(row["ratio_to_plain"] for row in found if row["route"] == "plain") == 1


def test_the_steps_that_alpha_leaves_are_told_for_every_cell() -> None:
    found = lines("alpha_share", "--models", "digits_mlp", "--steps", "20")
    cells = {(row["method"], row["interval"], row["count"]) for row in found}
    assert len(cells) == len(found) == 19
    assert all(float(str(row["share"])) > 0 for row in found)
