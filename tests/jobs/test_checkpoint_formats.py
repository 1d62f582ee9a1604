"""Runs whose checkpoints are of another format are refused at submit, and stay what they are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from alphagrid.cli import app
from alphagrid.errors import UserError
from alphagrid.jobs.submission import retry
from alphagrid.store import submissions
from alphagrid.trainer import checkpoint
from alphagrid.trainer.checkpoint import available, read
from typer.testing import CliRunner

if TYPE_CHECKING:
    from tests.conftest import Lab


WITHOUT_TORCH = """
import sys
from alphagrid.cli import app
try:
    app(sys.argv[1:])
except SystemExit as exit:
    print(exit.code, "with" if "torch" in sys.modules else "without", "torch")
"""


def write_as(lab: Lab, run_id: str, found: object, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a run's checkpoints as another version of alphagrid would have; return the newest."""
    run = lab.files.run(run_id)
    for file in available(run):
        state = read(file)
        file.path.unlink()
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "FORMAT", found)
            del state["format"]
            checkpoint.write(run, file.step, file.attempt, state, keep=9)
    return run.checkpoints()[-1]


def complete(lab: Lab, steps: int = 20) -> str:
    (run_id,) = lab.submit(steps, cluster="debug").sent
    return run_id


@pytest.mark.parametrize("found", [2, 4, "x"])
def test_a_completed_run_of_another_format_whose_stop_is_raised_stays_completed(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, found: object
) -> None:
    run_id = complete(lab)
    path = write_as(lab, run_id, found, monkeypatch)
    before = sorted(path.name for path in lab.files.path.rglob("*"))
    with pytest.raises(UserError) as caught:
        lab.submit(40, cluster="debug")
    name = submissions.read_all(lab.files)[-1].named[run_id].name
    assert f"run {name}: {path} is of format {found}, and this alphagrid reads format 3" in str(caught.value)
    assert f"alphagrid retry exp {name} --fresh" in str(caught.value.hint)
    assert lab.states() == {run_id: "completed"}
    assert sorted(path.name for path in lab.files.path.rglob("*")) == before


def test_unless_its_stop_is_raised_it_is_nobodys_business(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = complete(lab)
    write_as(lab, run_id, 2, monkeypatch)
    assert lab.submit(20, cluster="debug").kept == {"completed": (run_id,)}


def test_an_interrupted_run_of_another_format_is_refused_and_stays_interrupted(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = complete(lab)
    journal = lab.files.run(run_id).journal(1)
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:-1]))  # its end record
    write_as(lab, run_id, 2, monkeypatch)
    before = lab.states()
    with pytest.raises(UserError, match="is of format 2"):
        lab.submit(20, cluster="debug")
    with pytest.raises(UserError, match="is of format 2"):
        retry(lab.root, "exp", [run_id])
    assert lab.states() == before
    assert len(lab.attempts(run_id)) == 1


def test_what_the_hint_says_helps(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = complete(lab)
    write_as(lab, run_id, 2, monkeypatch)
    assert retry(lab.root, "exp", [run_id], fresh=True).sent == (run_id,)
    assert lab.states() == {run_id: "completed"}
    assert lab.submit(40, cluster="debug").sent == (run_id,)
    assert lab.attempts(run_id)[-1].step == 40


def test_a_damaged_one_of_another_format_gives_way(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = complete(lab)
    path = write_as(lab, run_id, 2, monkeypatch)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert lab.submit(40, cluster="debug").sent == (run_id,)
    assert lab.states() == {run_id: "completed"}


def test_the_command_ends_with_the_hint_and_without_torch(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = complete(lab)
    write_as(lab, run_id, 2, monkeypatch)
    arguments = ["submit", str(lab.spec(40)), "--profile", "debug", "--root", str(lab.root.path)]
    answer = CliRunner().invoke(app, arguments)
    assert answer.exit_code == 2
    assert "is of format 2" in answer.output
    assert "--fresh" in answer.output
    told = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *arguments], capture_output=True, text=True)
    assert told.stdout.splitlines()[-1] == "2 without torch", told.stderr
