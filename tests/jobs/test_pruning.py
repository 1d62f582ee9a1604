"""Pruning deletes what no run goes on from, and nothing else."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from alphagrid.cli import app
from typer.testing import CliRunner, Result

SPEC = """
experiment: tiny
base:
  workload: {name: least_squares, batch_size: 8}
  optimizer: {name: sgd, lr: 0.05}
  checkpoint: {every_seconds: 1e-6}
  stop: {steps: 2000}
  device: cpu
seeds: [0, 1]
profile: debug
"""
Call = Callable[..., Result]


@pytest.fixture
def call(tmp_path: Path) -> Call:
    spec = tmp_path / "tiny.yaml"
    spec.write_text(SPEC)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, [*arguments], env={"ALPHAGRID_ROOT": str(tmp_path / "runs")})

    run("submit", str(spec))
    return run


def checkpoints(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "runs").rglob("*.pt"))


def test_all_but_the_last_checkpoint_of_ended_runs_go(call: Call, tmp_path: Path) -> None:
    before = checkpoints(tmp_path)
    assert len(before) == 4
    torn = before[0].parent / ".checkpoint-0000000007-0001.tmp"
    torn.write_bytes(b"half a checkpoint")
    dry = call("prune", "tiny", "--all", "--dry-run")
    assert "would delete" in dry.stderr
    assert checkpoints(tmp_path) == before
    assert call("prune", "tiny", "--all").exit_code == 0
    assert {path.name[11:21] for path in checkpoints(tmp_path)} == {"0000002000"}
    assert not torn.exists()


def test_a_pruned_run_still_goes_on_when_its_stop_is_raised(call: Call, tmp_path: Path) -> None:
    call("prune", "tiny", "--all")
    call("submit", str(tmp_path / "tiny.yaml"), "--set", "base.stop.steps=2100")
    runs = json.loads(call("status", "tiny", "--json").stdout)["runs"]
    assert [(run["step"], run["attempts"]) for run in runs] == [(2100, 2)] * 2
    assert all(run["checkpoint_bytes"] > 0 and run["checkpoint_seconds"] > 0 for run in runs)


def test_the_last_one_goes_only_if_asked(call: Call, tmp_path: Path) -> None:
    call("prune", "tiny", "seed0", "--last")
    assert len({path.parent for path in checkpoints(tmp_path)}) == 1
