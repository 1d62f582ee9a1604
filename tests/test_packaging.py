"""What is listed by hand agrees with what is there."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
HEAVY = ("torch", "scipy", "matplotlib", "sklearn", "pandas", "submitit", "sqlite_utils", "curvlinops")
TOP = ("analysis", "cluster_profiles", "jobs", "slurm", "store", "trainer")


def test_every_package_of_the_tree_is_listed() -> None:
    found = {
        ".".join(["alphagrid", *path.parent.relative_to(REPOSITORY).parts])
        for room in TOP
        for path in (REPOSITORY / room).rglob("__init__.py")
    }
    assert {"alphagrid", *found} == set(PROJECT["tool"]["setuptools"]["packages"])


def test_starting_the_command_line_imports_nothing_heavy() -> None:
    code = f"import sys, alphagrid.cli; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "\n"
    )


@pytest.mark.parametrize(
    "module", ["alphagrid.trainer.config", "alphagrid.jobs.specification.experiment", "alphagrid.jobs.status"]
)
def test_torch_is_imported_by_training_only(module: str) -> None:
    code = f"import sys, {module}; print('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "False\n"
    )


def test_no_module_inside_the_package_imports_it_by_its_name() -> None:
    absolute = [
        f"{path.relative_to(REPOSITORY)}:{number}"
        for room in TOP
        for path in (REPOSITORY / room).rglob("*.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if line.lstrip().startswith(("import alphagrid", "from alphagrid"))
    ]
    assert absolute == []
