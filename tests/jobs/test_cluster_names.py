"""A scheduler's name is compared in the registry of schedulers and in `Profile` alone."""

from __future__ import annotations

import ast
from pathlib import Path

import alphagrid
import pytest
from alphagrid.cluster_profiles.loader import load_profile, profile_names
from alphagrid.jobs.schedulers import SCHEDULERS

PACKAGE = Path(alphagrid.__file__).parent
NAMES = {"slurm", "local", "debug"}
ALLOWED = {"jobs/schedulers/__init__.py", "cluster_profiles/profile.py"}
SOURCES = [
    path
    for folder in ("analysis", "cluster_profiles", "jobs", "slurm", "store", "trainer")
    for path in sorted((PACKAGE / folder).rglob("*.py"))
]


def comparisons(path: Path) -> list[int]:
    """Return the lines that compare something with a scheduler's name, or match one."""
    lines = []
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Compare | ast.MatchValue):
            continue
        operands = [node.left, *node.comparators] if isinstance(node, ast.Compare) else [node.value]
        constants = {
            leaf.value for each in operands for leaf in ast.walk(each) if isinstance(leaf, ast.Constant)
        }
        if constants & NAMES:
            lines.append(node.lineno if isinstance(node, ast.Compare) else node.value.lineno)
    return lines


def test_no_other_module_compares_a_schedulers_name() -> None:
    sources = [*SOURCES, *PACKAGE.glob("*.py")]
    assert len(sources) > 100
    found = {str(path.relative_to(PACKAGE)): comparisons(path) for path in sources}
    assert {name: lines for name, lines in found.items() if lines and name not in ALLOWED} == {}


@pytest.mark.parametrize(
    "text",
    ['x == "slurm"', '"local" != x["cluster"]', 'x in ("slurm", "debug")', 'match x:\n case "local": 1'],
)
def test_a_comparison_is_found(tmp_path: Path, text: str) -> None:
    path = tmp_path / "module.py"
    path.write_text(text)
    assert comparisons(path)


def test_every_profile_has_a_scheduler() -> None:
    assert set(SCHEDULERS) == NAMES
    assert {load_profile(name).cluster for name in profile_names()} <= set(SCHEDULERS)
