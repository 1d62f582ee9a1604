"""What the documentation says is what the code does."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from alphagrid.cli import app
from typer.testing import CliRunner, Result

Call = Callable[..., Result]

REPOSITORY = Path(__file__).parent.parent
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


PRINT_PAGES = """
import json, sys
sys.path.insert(0, "docs")
import reference
print(json.dumps(reference.pages()))
"""


def test_reference_pages_are_those_the_code_gives() -> None:
    command = [sys.executable, "-c", PRINT_PAGES]
    told = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    for name, text in json.loads(told.stdout).items():
        page = REPOSITORY / "docs" / "reference" / name
        assert page.read_text(encoding="utf-8") == text, "run `make docs`"


@pytest.fixture
def call(tmp_path: Path) -> Call:
    return lambda *arguments: CliRunner().invoke(
        app, [*map(str, arguments)], env={"ALPHAGRID_ROOT": str(tmp_path / "runs")}
    )


def test_the_readmes_grid_is_a_grid(call: Call, tmp_path: Path) -> None:
    (tmp_path / "my-first.yaml").write_text(blocks("yaml")[0], encoding="utf-8")
    plan = json.loads(call("submit", tmp_path / "my-first.yaml", "--dry-run", "--json").stdout)
    assert len(plan["runs"]) == 3 * (4 + 1)
    assert "interval200-count10-seed2" in {run["name"] for run in plan["runs"]}


def test_the_readmes_workload_trains(call: Call, tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text(blocks("python")[0], encoding="utf-8")
    spec = tmp_path / "spirals.yaml"
    spec.write_text("""
experiment: spirals
base:
  workload: {name: "tasks:Spirals", batch_size: 100}
  optimizer: {name: nadamw, lr: 1e-2, weight_decay: 0.0}
  alpha: {policy: median, interval: 50, count: 5, start_step: 50}
  stop: {steps: 400}
  device: cpu
profile: debug
""")
    sent = call("submit", spec)
    assert sent.exit_code == 0, sent.output
    run = json.loads(call("status", "spirals", "--json").stdout)["runs"][0]
    assert run["state"] == "completed", run["reason"]
    assert run["best_validation_loss"] < 0.6


PAGES = [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")]
OF_THE_REPOSITORY = (
    r"\b(?:analysis|benchmarks|cluster_profiles|docs|jobs|slurm|store|tests|trainer)/[\w/-]+\.py\b"
)


def test_every_file_the_documentation_points_to_exists() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} points to {target}"


def test_every_module_the_documentation_names_exists() -> None:
    for page in PAGES:
        if page.name == "CHANGELOG.md":  # its older entries name what there was
            continue
        prose = re.sub(
            r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
        )
        for name in re.findall(OF_THE_REPOSITORY, prose):
            assert (REPOSITORY / name).exists(), f"{page.name} names {name}"


def test_every_spec_that_is_shipped_is_valid(call: Call) -> None:
    for spec in (REPOSITORY / "specs").glob("*.yaml"):
        result = call("submit", spec, "--dry-run")
        assert result.exit_code == 0, f"{spec}: {result.output}"
