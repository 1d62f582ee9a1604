"""What is too much, too deep or not finite is refused before it takes memory or becomes a wrong number."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from alphagrid import documents
from alphagrid.cli import app
from alphagrid.cluster_profiles.loader import load_profile
from alphagrid.documents import parse_document, parse_value
from alphagrid.errors import UserError
from alphagrid.jobs.specification.grid import MOST_RUNS
from alphagrid.problems import MOST_LEVELS
from typer.testing import CliRunner, Result

if TYPE_CHECKING:
    from tests.conftest import Lab

BASE: dict[str, Any] = {
    "workload": {"name": "least_squares"},
    "optimizer": {"name": "sgd"},
    "stop": {"steps": 10},
}
TENFOLD = {f"k{n}": list(range(10)) for n in range(12)}


def submit(folder: Path, *options: str, **content: Any) -> Result:
    spec = folder / "spec.yaml"
    spec.write_text(json.dumps({"experiment": "exp", "base": BASE, **content}))
    return CliRunner().invoke(app, ["submit", str(spec), "--root", str(folder / "root"), *options])


def refusal(result: Result) -> str:
    assert result.exit_code == 2, (result.output, result.exception)
    return " ".join(result.stderr.split())


# Runs


@pytest.mark.parametrize("options", [(), ("--dry-run",), ("--dry-run", "--json")], ids=" ".join)
@pytest.mark.parametrize(
    ("content", "runs"),
    [
        ({"grid": TENFOLD}, 10**12),
        ({"grids": [{"grid": TENFOLD}, {"zip": TENFOLD}]}, 10**12 + 10),
        (
            {
                "grid": {"optimizer.lr": [1.0]},
                "seeds": list(range(1001)),
                "zip": {"optimizer.beta": [1.0] * 100},
            },
            100_100,
        ),
        (
            {"baselines": {f"b{n}": {} for n in range(400)}, "seeds": list(range(300))},
            300 * 401,
        ),
        ({"grid": TENFOLD, "exclude": [{"k0": 1}]}, 10**12),
    ],
    ids=["grid", "grids", "seeds", "baselines", "exclude"],
)
def test_too_many_runs_are_refused_before_any_is_made(
    tmp_path: Path, content: dict[str, Any], runs: int, options: tuple[str, ...]
) -> None:
    said = refusal(submit(tmp_path, *options, **content))
    assert f"has {runs:,} runs (before exclude), more than 100,000" in said
    assert f"--max-runs {runs}" in said
    assert not (tmp_path / "root").exists()


MEASURED = """
import json, sys
from alphagrid.cli import app
from typer.testing import CliRunner

def peak():  # of this program alone: ru_maxrss is also that of the process that started it
    (line,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024

def submit(path):
    return CliRunner().invoke(app, ["submit", path, "--dry-run", "--root", "never"])

small, *large = sys.argv[1:]
assert submit(small).exit_code == 0  # all is imported now
for path in large:
    before = peak()
    code = submit(path).exit_code
    print(json.dumps([code, peak() - before]))
"""


def test_what_is_too_much_is_refused_before_it_takes_memory(tmp_path: Path) -> None:
    """A million runs take gigabytes, and so do documents whose values are multiplied by aliases."""

    def write(name: str, text: str) -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    def grid(**content: Any) -> str:
        return json.dumps({"experiment": "exp", "base": BASE, **content})

    aliases = ["a0: &a0 [" + "1, " * 99 + "1]"]
    aliases += [f"a{n}: &a{n} [" + ", ".join([f"*a{n - 1}"] * 100) + "]" for n in range(1, 6)]
    paths = [
        write("small.yaml", grid(grid={"optimizer.lr": [0.1, 0.2]})),
        write("grid.yaml", grid(grid=TENFOLD)),
        write("seeds.yaml", grid(seeds=list(range(1001)), grid={"optimizer.lr": [0.1] * 1000})),
        write("excluded.yaml", grid(grid=TENFOLD, exclude=[{"k0": 1}])),
        write("deep.yaml", "a: " + "[" * 1_000_000),
        write("aliases.yaml", "\n".join(aliases)),
    ]
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *paths], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    measured = [json.loads(line) for line in done.stdout.splitlines()]
    assert [code for code, _ in measured] == [2] * 5
    assert all(megabytes < 50 for _, megabytes in measured), measured


def test_max_runs_sets_the_limit_of_runs(tmp_path: Path) -> None:
    content = {"grid": {"optimizer.lr": [0.1, 0.2, 0.3]}, "seeds": [0, 1]}
    said = refusal(submit(tmp_path, "--dry-run", "--max-runs", "5", **content))
    assert "has 6 runs" in said
    assert submit(tmp_path, "--dry-run", "--max-runs", "6", **content).exit_code == 0
    assert submit(tmp_path, "--dry-run", "--max-runs", "0", **content).exit_code == 2


def test_the_help_tells_the_limit_of_runs() -> None:
    said = " ".join(CliRunner().invoke(app, ["submit", "--help"]).stdout.replace("│", " ").split())
    assert f"({MOST_RUNS} by default)" in said


# YAML


def nested(levels: int) -> str:
    return "a: " + "[" * levels + "]" * levels


def test_a_document_is_read_down_to_its_deepest_level_that_is_allowed() -> None:
    parse_document(nested(MOST_LEVELS - 1), "f")


@pytest.mark.parametrize(
    "text",
    [
        nested(MOST_LEVELS),
        "a: " + "[" * 100_000,
        "\n".join("  " * level + f"k{level}:" for level in range(300)),
        "- " * 10_000 + "1",
    ],
    ids=["one too many", "never closed", "mappings", "sequences"],
)
def test_yaml_beyond_a_depth_is_refused_with_its_line(text: str) -> None:
    with pytest.raises(UserError, match=r"^f:\d+: is nested too deeply \(more than 100 levels\)"):
        parse_document(text, "f")


def test_depth_counts_what_aliases_add() -> None:
    """Each anchor is shallow; what the last alias stands for is not."""
    lines = ["a0: &a0 [1]"]
    lines += [f"a{n}: &a{n} {'[' * 50}*a{n - 1}{']' * 50}" for n in range(1, 40)]
    with pytest.raises(UserError, match="with its aliases it is nested too deeply"):
        parse_document("\n".join(lines), "f")


def test_more_values_than_a_file_may_have_are_refused_where_they_stand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(documents, "MOST_VALUES", 1000)
    text = "a:\n" + "  - 1\n" * 999
    with pytest.raises(UserError, match=r"f:\d+: holds more than 1,000 values"):
        parse_document(text + "[never, read", "f")


@pytest.mark.parametrize(
    "text",
    ["1e999", "-1e999", "1" + "0" * 400 + ".0", "9" * 5000, "0x" + "f" * 5000],
    ids=lambda text: text[:20],
)
def test_numbers_that_cannot_be_held_are_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"f:1: the number .*is too (large|long)"):
        parse_value(text, "f")


# Numbers of a specification, a profile, a report


def test_a_selector_with_a_number_too_large_is_refused(lab: Lab) -> None:
    lab.submit(20, [0.01], cluster="debug")
    conditions = {
        "optimizer.lr=1e999": "the number 1e999 is too large",
        "optimizer.lr=" + "[" * 2000: "is nested too deeply (more than 100 levels)",
    }
    for condition, expected in conditions.items():
        refused = CliRunner().invoke(app, ["prune", "exp", condition, "--root", str(lab.root.path)])
        said = refusal(refused)
        assert "optimizer.lr" in said
        assert expected in said


@pytest.mark.parametrize(
    ("options", "content"),
    [
        (("--set", "base.stop.steps=1e999"), {}),
        (("--set", "stop.train_seconds=.inf"), {}),
        (("--set", "base.stop.steps=9223372036854775808"), {}),
        ((), {"zip": {"log.every_steps": [10**390]}}),
        ((), {"resources": {"sbatch": {"nice": float("inf")}}}),
        ((), {"exclude": [{"optimizer.lr": float("nan")}]}),
    ],
    ids=["set", "set of every run", "set of an integer", "axis", "sbatch", "exclude"],
)
def test_numbers_of_a_specification_are_finite_and_can_be_stored(
    tmp_path: Path, options: tuple[str, ...], content: dict[str, Any]
) -> None:
    spec = tmp_path / "spec.yaml"
    text = json.dumps({"experiment": "exp", "base": BASE, "grid": {"optimizer.lr": [0.1]}, **content})
    spec.write_text(text.replace("Infinity", ".inf").replace("NaN", ".nan"))
    said = CliRunner().invoke(app, ["submit", str(spec), "--dry-run", *options])
    assert any(words in refusal(said) for words in ("is too large", "finite number", "less than 2^63"))


@pytest.mark.parametrize("line", ["sbatch: {nice: .inf}", "env: {SCALE: -.inf}", "hours: 1e999"])
def test_no_number_of_a_profile_is_infinite(tmp_path: Path, line: str) -> None:
    path = tmp_path / "ours.yaml"
    path.write_text(f"cluster: slurm\n{line}\n")
    with pytest.raises(UserError, match=r"finite number|too large"):
        load_profile(str(path))


@pytest.mark.parametrize("option", ["--budget", "--budget-steps"])
@pytest.mark.parametrize("budget", ["inf", "nan", "1e999", "-3", "0", "0.0", "1e-999", "0%", "1e400%"])
def test_budgets_are_finite_and_above_zero(lab: Lab, option: str, budget: str) -> None:
    lab.submit(20, [0.01], cluster="debug", stop={"steps": 20, "train_seconds": 1e6})
    said = CliRunner().invoke(app, ["report", "exp", option, budget, "--root", str(lab.root.path)])
    assert "is not valid" in refusal(said)


def test_a_share_of_a_stop_is_finite(lab: Lab) -> None:
    lab.submit(20, [0.01], cluster="debug", stop={"steps": 20, "train_seconds": 1e6})
    said = CliRunner().invoke(app, ["report", "exp", "--budget", "1e308%", "--root", str(lab.root.path)])
    assert "is not valid" in refusal(said)
