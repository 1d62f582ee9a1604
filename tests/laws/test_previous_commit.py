"""A checkpoint that the previous commit wrote is resumed exactly, or refused with a reason."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import alphagrid
import pytest
from alphagrid.errors import UserError
from alphagrid.store.database import open_store
from alphagrid.store.layout import Root, RunFiles

if TYPE_CHECKING:
    from tests.laws.conftest import Bench, Config

pytestmark = pytest.mark.slow

CHECKOUT = Path(alphagrid.__file__).parent
STOPPED = 9
"""Where the previous commit stops: an evaluation and a window end there, and a window of α* goes on."""
SECTIONS: dict[str, Any] = {"eval": {"every_steps": 8}, "log": {"every_steps": 3}, "stop": {"steps": 25}}
ALPHA = {"policy": "median", "start_step": 1, "interval": 7, "count": 3}
USAGE = 2
OF_TIME = "seconds|costs|alpha_parts|clock"

SUBMIT = """
import sys
import alphagrid
from alphagrid.cli import app
print(alphagrid.__file__, file=sys.stderr)
app(["submit", sys.argv[1], "--profile", "debug", "--root", sys.argv[2]])
"""


@pytest.fixture
def previous(tmp_path: Path) -> Path:
    """Return a folder with the package as the previous commit has it."""
    if git("rev-parse", "--verify", "--quiet", "HEAD^").returncode:
        pytest.skip("there is no previous commit here (no history, or a shallow one)")
    package = tmp_path / "previous" / "alphagrid"
    package.mkdir(parents=True)
    archive = git("archive", "HEAD^")
    assert archive.returncode == 0
    subprocess.run(["tar", "-xf", "-"], input=archive.stdout, cwd=package, check=True)
    return package.parent


def git(*args: str) -> subprocess.CompletedProcess[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return subprocess.run(["git", *args], cwd=CHECKOUT, env=environment, capture_output=True, check=False)


def train_there(previous: Path, config: Config, root: Path) -> RunFiles:
    """Submit a run with the code in `previous`; return its files."""
    spec = root.with_suffix(".yaml")
    spec.write_text(json.dumps({"experiment": "exp", "base": config}))
    submitted = subprocess.run(
        [sys.executable, "-c", SUBMIT, str(spec), str(root)],
        env={**os.environ, "PYTHONPATH": str(previous)},
        cwd=previous,
        capture_output=True,
        text=True,
        check=False,
    )
    assert str(previous / "alphagrid") in submitted.stderr, "another alphagrid was imported"
    if submitted.returncode == USAGE:
        pytest.skip(f"the previous commit does not read this specification: {submitted.stderr}")
    assert submitted.returncode == 0, submitted.stderr
    (run,) = Root(root).experiment("exp").runs()
    return run


@pytest.mark.parametrize("name", ["nadamw", "schedule_free_adamw"])
def test_a_checkpoint_of_the_previous_commit_is_resumed_exactly_or_refused(
    bench: Bench, previous: Path, tmp_path: Path, name: str
) -> None:
    config = bench.config(name, None, "digits_mlp", **SECTIONS)
    if name == "nadamw":
        config["alpha"] = ALPHA
    run = train_there(previous, {**config, "stop": {"steps": STOPPED}}, tmp_path / "root")
    assert [int(path.name.split("-")[1]) for path in run.checkpoints()][-1] == STOPPED
    try:
        bench.attempt(config, run)
    except UserError:
        return
    with open_store(Root(tmp_path / "root")) as store:
        store.sync()
        resumed = bench.read_back(store.db, run)
    calm = bench.whole(config).values
    names = [name for name in calm.keys() | resumed.keys() if not re.search(OF_TIME, name)]
    assert sorted(name for name in names if calm.get(name) != resumed.get(name)) == []
