"""Each page of docs/how-to/ is followed: its files written, its edits made, its commands run.

The pages change a copy of the package. A block's first line names the file that it writes or edits; a name
without a slash is a file of the working directory, the others are in the package.
"""

from __future__ import annotations

import csv
import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest
from alphagrid.store import journal
from alphagrid.store.layout import Root

REPOSITORY = Path(__file__).parent.parent
PAGES = REPOSITORY / "docs" / "how-to"
BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
NO_PACKAGES = {"tests", "docs", "benchmarks", "specs", "build", "dist", "runs", "report"}
ALPHAGRID = f"#!{sys.executable}\nfrom alphagrid.cli import app\napp()\n"


class Copy:
    """A copy of the package, and a working directory in which commands use it."""

    def __init__(self, folder: Path) -> None:
        self.package = folder / "site" / "alphagrid"
        self.work = folder / "work"
        self.root = Root(folder / "runs")
        self.output = ""
        shutil.copytree(REPOSITORY, self.package, ignore=_not_copied)
        self.work.mkdir()
        bin_folder = folder / "bin"
        bin_folder.mkdir()
        script = bin_folder / "alphagrid"
        script.write_text(ALPHAGRID)
        script.chmod(0o755)
        search = f"{bin_folder}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._environ = {
            **os.environ,
            "PATH": search,
            "PYTHONPATH": str(self.package.parent),
            "ALPHAGRID_ROOT": str(self.root.path),
            "COLUMNS": "200",
        }

    def follow(self, page: str) -> None:
        """Do what a page says, from its first block to its last."""
        text = (PAGES / page).read_text(encoding="utf-8")
        for _, language, block in BLOCK.findall(text):
            content = dedent(block)
            if language == "console":
                self._run(content)
            elif language == "diff":
                self._edit(*_named(content))
            else:
                name, _ = _named(content)
                self._path(name).write_text(content, encoding="utf-8")

    def _run(self, console: str) -> None:
        for command in re.findall(r"^\$ (.*)$", console, re.MULTILINE):
            arguments = command.split()
            ended = subprocess.run(
                arguments, cwd=self.work, env=self._environ, capture_output=True, text=True, check=False
            )
            self.output += ended.stdout
            assert ended.returncode == 0, f"{command}\n{ended.stdout}\n{ended.stderr}"

    def _edit(self, name: str, hunk: str) -> None:
        lines = hunk.splitlines(keepends=True)
        before = "".join(line[1:] for line in lines if line[0] in " -")
        after = "".join(line[1:] for line in lines if line[0] in " +")
        text = self._path(name).read_text(encoding="utf-8")
        assert text.count(before) == 1, f"{name} has not exactly one\n{before}"
        self._path(name).write_text(text.replace(before, after), encoding="utf-8")

    def _path(self, name: str) -> Path:
        return (self.package if "/" in name else self.work) / name

    def records(self, experiment: str, kind: str) -> list[dict[str, object]]:
        """Return the records of one kind of the experiment's first run."""
        path = next(self.root.experiment(experiment).path.glob("*/journal-0001.jsonl"))
        return [record for record in journal.read(path).records if record["kind"] == kind]


def _not_copied(folder: str, names: list[str]) -> set[str]:
    """Return what a copy of the package does without: caches, environments, and what is no package."""
    hidden = {name for name in names if name.startswith((".", "__pycache__"))}
    return hidden | (NO_PACKAGES & set(names) if Path(folder) == REPOSITORY else set())


def _named(content: str) -> tuple[str, str]:
    """Return the name of a block's file, and the rest of the block."""
    first, _, rest = content.partition("\n")
    assert first.startswith("# "), f"a block begins with the name of its file, not with {first!r}"
    return first.removeprefix("# "), rest


Follow = Callable[[str], Copy]


@pytest.fixture
def follow(tmp_path: Path) -> Follow:
    def follow(page: str) -> Copy:
        copy = Copy(tmp_path)
        copy.follow(page)
        return copy

    return follow


@pytest.mark.slow
def test_a_policy(follow: Follow) -> None:
    copy = follow("policy.md")
    rates = [event["value"] for event in copy.records("nudge", "event") if event["event"] == "learning_rate"]
    assert len(rates) == 10  # steps 5, 7, …, 23
    assert copy.records("nudge", "end")[0]["status"] == "completed"


@pytest.mark.slow
def test_an_estimator(follow: Follow) -> None:
    measured = follow("estimator.md").records("crossed", "alpha")
    assert len(measured) == 5
    for record in measured:
        estimates = record["estimates"]
        assert isinstance(estimates, dict)
        assert estimates["crossed"]["slope"] == estimates["biased"]["slope"]
        assert estimates["crossed"]["curvature"] == estimates["unbiased"]["curvature"]


@pytest.mark.slow
def test_an_optimizer(follow: Follow) -> None:
    printed = follow("optimizer.md").output
    rows = list(csv.DictReader(io.StringIO(printed[printed.index("budget,") :])))
    assert len(rows) == 2
    assert all(float(row["best_validation_loss"]) < 1 for row in rows)


@pytest.mark.slow
def test_a_report_section(follow: Follow) -> None:
    printed = follow("section.md").output
    section = printed[printed.index("## Evaluations\n") :]
    assert re.findall(r"\| lr \S+ \| (\d+) \| (\d+) \|", section) == [("1", "5"), ("1", "5")]


@pytest.mark.slow
def test_a_scheduler(follow: Follow) -> None:
    copy = follow("scheduler.md")
    assert "1 of 2 runs sent" in copy.output
    for root, runs in ((Root(copy.work / "injected"), 1), (copy.root, 2)):
        journals = root.experiment("two").path.glob("*/journal-0001.jsonl")
        ends = [journal.read(path).records[-1] for path in journals]
        assert [(end["status"], end["reason"]) for end in ends] == [("completed", None)] * runs


def test_a_profile(follow: Follow) -> None:
    printed = follow("profile.md").output
    assert re.search(r"gres +gpu:h100:1 +our-h100.yaml:4", printed)
    assert re.search(r"cpus +8 +\S*slurm-a100.yaml", printed)
    assert "GPU-hours at most: 36" in printed


def test_every_page_is_followed_and_linked() -> None:
    tests = (REPOSITORY / "tests" / "test_how_to.py").read_text(encoding="utf-8")
    for page in PAGES.glob("*.md"):
        assert f'follow("{page.name}")' in tests
        for index in ("README.md", "CONTRIBUTING.md"):
            assert f"docs/how-to/{page.name}" in (REPOSITORY / index).read_text(encoding="utf-8")
