"""The command line as a user meets it: results, exit codes, and errors for people."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from alphagrid.cli import app
from typer.testing import CliRunner, Result

Call = Callable[..., Result]

SPEC = """
experiment: tiny
base:
  workload: {name: least_squares, features: 3, examples: 32, batch_size: 8}
  optimizer: {name: sgd, lr: 0.05}
  eval: {every_steps: 10}
  log: {every_steps: 5}
  stop: {steps: 20}
  device: cpu
grid:
  optimizer.lr: [0.02, 0.05]
baselines:
  momentum: {optimizer: {name: sgd, lr: 0.02, momentum: 0.9}}
profile: debug
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(SPEC)
    return path


@pytest.fixture
def call(tmp_path: Path) -> Call:
    """Return a function that runs a command in this process, under a root of the test's own."""

    def run(*arguments: object, root: Path = tmp_path / "runs") -> Result:
        return CliRunner().invoke(app, [*map(str, arguments)], env={"ALPHAGRID_ROOT": str(root)})

    return run


def everything_under(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()
    }


def without_index(files: dict[str, int]) -> dict[str, int]:
    return {name: size for name, size in files.items() if "alphagrid.db" not in name}


def test_from_a_spec_to_a_budget_table_in_this_process(call: Call, spec: Path, tmp_path: Path) -> None:
    sent = call("submit", spec)
    assert sent.exit_code == 0
    assert "sent 3 runs of tiny" in sent.stderr
    found = json.loads(call("status", "tiny", "--json").stdout)
    assert found["counts"] == {"completed": 3}
    assert {run["name"]: run["baseline"] for run in found["runs"]} == {
        "lr0.02": None, "lr0.05": None, "momentum": "momentum",
    }  # fmt: skip
    assert all(run["attempts"] == 1 and run["step"] == 20 for run in found["runs"])

    report = json.loads(call("report", "tiny", "--json", "--budget-steps", 11, "--budget", "all").stdout)
    assert [(b["kind"], b["label"]) for b in report["budgets"]] == [("seconds", "all"), ("steps", "11")]
    within = report["budgets"][1]
    assert within["value"] == 11
    for run in within["runs"]:
        assert run["step_at_best"] in (1, 11)
        assert run["best_validation_loss"] > 0
        assert run["test_loss_at_best"] > 0
        assert run["complete"]


def test_submitting_again_sends_nothing_and_a_raised_stop_continues(call: Call, spec: Path) -> None:
    call("submit", spec)
    assert "sent 0 runs" in call("submit", spec).stderr
    raised = call("submit", spec, "--set", "base.stop.steps=30")
    assert "sent 3 runs" in raised.stderr
    runs = json.loads(call("status", "tiny", "--json").stdout)["runs"]
    assert [(run["step"], run["attempts"]) for run in runs] == [(30, 2)] * 3


def test_dry_run_says_everything_and_writes_nothing(call: Call, spec: Path, tmp_path: Path) -> None:
    plan = json.loads(call("submit", spec, "--dry-run", "--json", "--profile", "slurm-a100").stdout)
    assert plan["experiment"] == "tiny"
    assert plan["sbatch_calls"] == 1
    assert plan["gpu_hours"] == 3 * 24
    assert [run["params"] for run in plan["runs"]] == [{"optimizer.lr": 0.02}, {"optimizer.lr": 0.05}, {}]
    assert plan["runs"][0]["config"]["optimizer"]["lr"] == 0.02
    assert not (tmp_path / "runs").exists()


def test_reading_commands_change_nothing_but_the_index(call: Call, spec: Path, tmp_path: Path) -> None:
    call("submit", spec)
    before = without_index(everything_under(tmp_path))
    for command in (
        ["status"], ["status", "tiny"], ["status", "tiny", "--json"], ["report", "tiny", "--json"],
        ["report", "tiny", "--format", "csv"], ["store", "sync"], ["store", "check"], ["store", "path"],
    ):  # fmt: skip
        assert call(*command).exit_code == 0, command
    assert without_index(everything_under(tmp_path)) == before


def test_report_writes_tables_and_figures_and_says_where(call: Call, spec: Path, tmp_path: Path) -> None:
    call("submit", spec)
    result = call("report", "tiny", "--out", tmp_path / "out")
    assert result.exit_code == 0
    assert "Best validation loss" in result.stdout
    assert str(tmp_path / "out" / "report.md") in result.stderr
    assert {path.suffix for path in (tmp_path / "out").rglob("*") if path.is_file()} == {
        ".md",
        ".csv",
        ".svg",
        ".png",
    }


def test_csv_and_markdown_are_for_programs_and_pages(call: Call, spec: Path) -> None:
    call("submit", spec)
    csv = call("report", "tiny", "--format", "csv").stdout.splitlines()
    assert len({line.count(",") for line in csv}) == 1
    assert call("report", "tiny", "--format", "markdown").stdout.startswith("# tiny\n")


MISTAKES = {
    "unknown key": ("lr: 0.05}", "lrr: 0.05}", "did you mean 'lr'"),
    "wrong type": ("features: 3", 'features: "3"', "workload.features"),
    "NaN learning rate": ("[0.02, 0.05]", "[0.02, .nan]", "optimizer.lr"),
    "unknown optimizer": ("name: sgd, lr: 0.05", "name: sdg, lr: 0.05", "did you mean 'sgd'"),
    "empty grid": ("optimizer.lr: [0.02, 0.05]", "optimizer.lr: []", "optimizer.lr"),
    "duplicate runs": ("[0.02, 0.05]", "[0.02, 0.02]", "same"),
    "duplicate keys": ("device: cpu", "device: cpu\n  device: cpu", "device"),
    "a tag": ("device: cpu", "device: !!python/name:os.system cpu", "tag"),
    "a slash": ("experiment: tiny", "experiment: ti/ny", "experiment"),
    "dots": ("experiment: tiny", "experiment: ti..ny", "experiment"),
    "no profile": ("profile: debug", "profile: debugg", "did you mean 'debug'"),
    "stop missing": ("stop: {steps: 20}", "stop: {}", "stop"),
    "zero interval": ("device: cpu", "alpha: {policy: median, interval: 0, count: 1}", "alpha.interval"),
    "negative count": ("device: cpu", "alpha: {policy: median, interval: 5, count: -1}", "alpha.count"),
    "count over interval": ("device: cpu", "alpha: {policy: median, interval: 5, count: 6}", "count"),
    "stop as an axis": ("optimizer.lr: [0.02, 0.05]", "stop.steps: [5, 10]", "stop"),
    "another type": ("features: 3", "features: true", "workload.features"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_bad_input_is_an_error_for_people_and_writes_nothing(
    call: Call, spec: Path, tmp_path: Path, mistake: str
) -> None:
    right, wrong, said = MISTAKES[mistake]
    assert SPEC.count(right) >= 1
    spec.write_text(SPEC.replace(right, wrong, 1))
    result = call("submit", spec)
    assert result.exit_code == 2
    assert "error:" in result.stderr
    assert said in result.stderr
    assert "Traceback" not in result.output
    assert not (tmp_path / "runs").exists()


def test_errors_name_file_line_and_key(call: Call, spec: Path) -> None:
    spec.write_text(SPEC.replace("lr: 0.05}", "lrr: 0.05}", 1))
    line = next(number for number, text in enumerate(spec.read_text().splitlines(), 1) if "lrr" in text)
    assert f"{spec}:{line}: optimizer.lrr" in call("submit", spec).stderr.replace("\n", "")


@pytest.mark.parametrize("content", [b"", b"\x00\x01\x02", b"\xff\xfe", None])
def test_a_file_that_is_no_spec(call: Call, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "spec.yaml"
    if content is not None:
        path.write_bytes(content)
    result = call("submit", path)
    assert result.exit_code == 2
    assert "spec.yaml" in result.stderr.replace("\n", "")


def test_a_root_that_cannot_be_written(call: Call, spec: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = call("submit", spec, root=tmp_path / "file" / "runs")
    assert result.exit_code == 2
    assert "error:" in result.stderr


def test_an_edited_base_is_refused_and_loses_nothing(call: Call, spec: Path, tmp_path: Path) -> None:
    call("submit", spec)
    before = without_index(everything_under(tmp_path / "runs"))
    spec.write_text(SPEC.replace("features: 3", "features: 4"))
    result = call("submit", spec)
    assert result.exit_code == 2
    assert "features" in result.stderr
    assert without_index(everything_under(tmp_path / "runs")) == before


def test_a_store_from_a_newer_version_is_refused_untouched(call: Call, spec: Path, tmp_path: Path) -> None:
    import sqlite3

    call("submit", spec)
    call("status", "tiny")
    path = Path(call("store", "path").stdout.strip())
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 9999")
    db.close()
    result = call("status", "tiny")
    assert result.exit_code == 2
    assert "newer" in result.stderr


@pytest.mark.parametrize("command", [["status", "tinny"], ["report", "tinny"], ["logs", "tinny", "x"]])
def test_an_experiment_that_does_not_exist(call: Call, spec: Path, command: list[str]) -> None:
    call("submit", spec)
    result = call(*command)
    assert result.exit_code == 2
    assert "tiny" in result.stderr


def test_a_slurm_profile_without_slurm(call: Call, spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    result = call("submit", spec, "--profile", "slurm-a100")
    assert result.exit_code == 2
    assert "--profile local" in result.stderr


def test_profiles_and_schema_are_shown(call: Call) -> None:
    assert "slurm-a100" in call("profiles", "list").stdout
    shown = json.loads(call("profiles", "show", "slurm-a100", "--json").stdout)
    assert (shown["gres"], shown["cpus"], shown["memory"], shown["hours"]) == ("gpu:a100:1", 8, "80G", 24.0)
    assert "experiment" in json.loads(call("schema").stdout)["properties"]


def test_the_store_can_be_deleted_and_rebuilt(call: Call, spec: Path) -> None:
    call("submit", spec)
    before = json.loads(call("status", "tiny", "--json").stdout)
    Path(call("store", "path").stdout.strip()).unlink()
    assert call("store", "rebuild").exit_code == 0
    assert json.loads(call("status", "tiny", "--json").stdout) == before


SUBCOMMANDS = ("profiles list", "profiles show", "store path", "store sync", "store rebuild", "store check")
COMMANDS = ("submit", "status", "report", "logs", "cancel", "retry", "schema", "store export", *SUBCOMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(call: Call, command: str) -> None:
    result = call(*command.split(), "--help")
    assert result.exit_code == 0
    assert f"alphagrid {command}" in result.stdout or "Usage:" in result.stdout
    assert len(result.stdout.splitlines()) > 5


def test_a_run_whose_submission_is_gone_is_shown_and_breaks_nothing(
    call: Call, spec: Path, tmp_path: Path
) -> None:
    call("submit", spec)
    for path in (tmp_path / "runs" / "tiny" / "submissions").iterdir():
        path.unlink()
    found = call("status", "tiny", "--json")
    assert found.exit_code == 0, found.output
    assert len(json.loads(found.stdout)["runs"]) == 3
    assert call("status").exit_code == 0


def test_a_damaged_line_is_told_by_status_and_report(call: Call, spec: Path, tmp_path: Path) -> None:
    call("submit", spec)
    journal = next((tmp_path / "runs").rglob("journal-*.jsonl"))
    journal.write_bytes(journal.read_bytes().replace(b'"kind":"evaluation"', b'"kind":"evaluatiom"', 1))
    assert "damaged" in call("status", "tiny").stdout
    assert journal.name in json.loads(call("status", "tiny", "--json").stdout)["damaged"][0]
    assert "damaged" in call("report", "tiny").stderr
    assert "damaged" in json.loads(call("report", "tiny", "--json").stdout)["warnings"][0]
    assert call("store", "check").exit_code == 1


def test_finished_runs_are_complete_and_an_end_out_of_reach_is_no_budget(call: Call, spec: Path) -> None:
    spec.write_text(SPEC.replace("eval:", "schedule: {name: warmup_cosine, total_steps: 1000}\n  eval:"))
    call("submit", spec)
    asked = json.loads(call("report", "tiny", "--json").stdout)["budgets"]
    assert [budget["label"] for budget in asked] == ["all"]
    until = json.loads(call("report", "tiny", "--json", "--budget", "until:momentum").stdout)["budgets"][0]
    assert until["value"] is None
    assert all(run["complete"] and run["best_validation_loss"] is None for run in until["runs"])


def test_status_shows_the_latest_rate(call: Call, spec: Path) -> None:
    spec.write_text(
        SPEC.replace("eval:", "schedule: {name: warmup_linear, total_steps: 20, warmup_fraction: 0}\n  eval:")
    )
    call("submit", spec)
    runs = json.loads(call("status", "tiny", "--json").stdout)["runs"]
    assert runs[0]["learning_rate"] == pytest.approx(0.02 / 20)


def test_a_value_given_twice_and_a_missing_variable_are_located(
    call: Call, spec: Path, tmp_path: Path
) -> None:
    spec.write_text(SPEC.replace("[0.02, 0.05]", "[0.02, 0.02]"))
    line = next(n for n, text in enumerate(spec.read_text().splitlines(), 1) if "[0.02" in text)
    assert f"{spec}:{line}: grid.optimizer.lr" in call("submit", spec).stderr.replace("\n", "")
    (tmp_path / "variable_task.py").write_text(
        "from alphagrid.trainer.workloads.least_squares import LeastSquares\n"
        "from alphagrid.trainer.workloads.options import LeastSquaresOptions\n"
        "class Options(LeastSquaresOptions):\n    data_dir: str\n"
        "class Task(LeastSquares):\n    Options = Options\n"
    )
    spec.write_text(
        SPEC.replace("name: least_squares", 'name: "variable_task:Task", data_dir: "${NO_SUCH_DIR}"')
    )
    line = next(n for n, text in enumerate(spec.read_text().splitlines(), 1) if "NO_SUCH" in text)
    refused = call("submit", spec)
    assert refused.exit_code == 2
    assert f"{spec}:{line}: base.workload.data_dir" in refused.stderr.replace("\n", "")
    assert not (tmp_path / "runs").exists()
