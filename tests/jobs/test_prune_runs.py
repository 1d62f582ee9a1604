"""`submit --prune`: what the specification names no more is cancelled, if somebody agrees."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from alphagrid.cli import app
from typer.testing import CliRunner

if TYPE_CHECKING:
    from tests.conftest import Lab

RATES = [0.01, 0.02]


def command(lab: Lab, *options: str) -> list[str]:
    spec = lab.spec(10**9, RATES[:1])
    root = ("--root", str(lab.root.path), "--profile", "local")
    return [str(Path(sys.executable).with_name("alphagrid")), "submit", str(spec), *root, *options]


def test_in_a_pipe_nothing_is_sent_unless_it_may_be_pruned_unasked(lab: Lab) -> None:
    done = CliRunner().invoke(app, command(lab, "--prune")[1:])
    assert done.exit_code == 2
    assert "--yes" in done.stderr
    assert not lab.root.path.exists()


@pytest.mark.slow
def test_runs_under_way_are_pruned_if_somebody_agrees_and_finished_ones_never(lab: Lab) -> None:
    lab.submit(20, [0.5], cluster="debug")
    kept, gone = lab.submit(10**9, RATES).sent
    lab.until(lambda: lab.is_training(gone))
    assert "left alone" in on_a_terminal(command(lab, "--prune"), "n")
    assert lab.is_training(gone)
    told = on_a_terminal(command(lab, "--prune"), "y")
    assert "no longer in the spec, but under way: lr0.02" in told
    lab.until(lambda: lab.states()[gone] == "cancelled")
    lab.until(lambda: lab.is_training(kept))
    assert sorted(lab.states().values()) == ["cancelled", "completed", "running"]
    done = subprocess.run(command(lab, "--prune", "--yes"), capture_output=True, text=True, check=True)
    assert "nothing to cancel" in done.stderr


def on_a_terminal(line: list[str], answer: str) -> str:
    """Run a command on a terminal, type an answer, and return what was said."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        line, stdin=theirs, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    os.close(theirs)
    os.write(ours, f"{answer}\n".encode())
    _, said = process.communicate(timeout=300)
    os.close(ours)
    return said
