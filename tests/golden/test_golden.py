"""Short runs come to exactly the losses that are kept here: no change of code alters results unnoticed.

`make golden` writes them anew; the changelog then says why.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parent
KEPT = {path.stem: json.loads(path.read_text()) for path in FOLDER.glob("*.json")}


@pytest.fixture(scope="module")
def recorded() -> Any:
    command = [sys.executable, str(FOLDER / "record.py")]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def test_every_golden_run_is_kept(recorded: dict[str, Any]) -> None:
    assert set(recorded) == set(KEPT)
    assert all(recorded[name]["config"] == kept["config"] for name, kept in KEPT.items())


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="kept for x86-64 processors")
@pytest.mark.parametrize("name", KEPT)
def test_a_golden_run_comes_to_exactly_its_numbers(recorded: dict[str, Any], name: str) -> None:
    kept = KEPT[name]
    if kept["torch"] != torch.__version__.partition("+")[0]:
        pytest.skip(f"kept for torch {kept['torch']}")
    assert recorded[name] == kept, "if that is intended: make golden, and say why in the changelog"
