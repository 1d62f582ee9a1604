"""The `data` commands, and what a report says of synthetic data."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ALPHAGRID = [sys.executable, "-c", "from alphagrid.cli import app; app()"]


def run(*arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    found = subprocess.run([*ALPHAGRID, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert found.returncode == code, found.stderr
    return found


@pytest.mark.slow
def test_synthetic_logs_are_prepared_and_checked_quietly_in_a_pipe(tmp_path: Path) -> None:
    logs, out = tmp_path / "logs", tmp_path / "out"
    made = run("data", "synthesize", logs, "--rows", "300", "--days", "3", "--json")
    assert json.loads(made.stdout)["days"] == 3
    assert "validation loss of the model" in made.stderr
    prepared = run("data", "prepare", logs, out, "--jobs", "1", "--json")
    summary = json.loads(prepared.stdout)
    assert summary["rows"] == {"0": 100, "1": 100, "2": 100}
    assert summary["synthetic"]["rows"] == 300
    assert prepared.stderr.splitlines() == [
        "held out for validation and test: day 2 (of all of Criteo's, day 23)",
        f"prepared 300 rows of 3 days in {out} (48.4 kB)",
    ]
    assert "all 3 shards are as they were written" in run("data", "check", out).stderr
    shard = next(out.glob("day_01*.npy"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"\xff")
    assert f"{shard}: not what was written" in run("data", "check", out, code=1).stdout


@pytest.mark.slow
def test_what_may_be_a_mistake_in_logs_is_a_warning(tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "data" / "made_up_clicks" / "day_0").read_bytes()
    (tmp_path / "day_3").write_bytes(text[:-1])
    found = run("data", "prepare", tmp_path, tmp_path / "out", "--jobs", "1")
    told = found.stderr.replace("\n", " ")
    assert (
        "warning: other numbers of rows than Criteo has published: day 3: 200 instead of 181,115,208" in told
    )
    assert "day_3: the last line has no line end; the file may be cut off" in told


def test_what_is_wrong_is_said_without_a_traceback(tmp_path: Path) -> None:
    found = run("data", "prepare", tmp_path, tmp_path / "out", code=2)
    assert "holds no click logs" in found.stderr
    assert "Traceback" not in found.stderr
    found = run("data", "check", tmp_path, code=2)
    assert "alphagrid data prepare" in found.stderr


SPEC = """
experiment: clicks
base:
  workload: {{name: {workload}, batch_size: 16{options}}}
  optimizer: {{name: nadamw}}
  stop: {{steps: 2}}
  device: cpu
"""


@pytest.mark.slow
@pytest.mark.parametrize("workload", ["criteo1tb", "digits_mlp", "click_log"])
def test_every_report_says_that_data_are_synthetic(tmp_path: Path, workload: str) -> None:
    options = ""
    if workload == "criteo1tb":
        prepared = Path(__file__).parents[1] / "data" / "prepared_clicks"
        options = f", data_dir: '{prepared}', table_rows: 20, embedding_dim: 2, bottom: [4], top: [4]"
    elif workload == "click_log":
        options = ", evaluation_examples: 64"
    spec = tmp_path / "spec.yaml"
    spec.write_text(SPEC.format(workload=workload, options=options))
    run("submit", spec, "--profile", "debug", "--root", tmp_path)
    sentence = "trained on synthetic data"
    report = ("report", "clicks", "--root", tmp_path)
    said = [
        run(*report).stderr,
        run(*report, "--format", "csv").stderr,
        run(*report, "--format", "markdown").stdout,
        " ".join(json.loads(run(*report, "--json").stdout)["warnings"]),
        (tmp_path / "clicks" / "report" / "report.md").read_text(),
    ]
    assert [sentence in text for text in said] == [workload != "digits_mlp"] * len(said)
