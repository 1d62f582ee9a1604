"""How tests wait for what Slurm, its accounting or a run comes to a moment later."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

SECONDS = 300.0
"""A deadline for crowded machines, not an expectation: four runs at a time may import torch on two cores."""


def until(condition: Callable[[], Any], what: str = "", seconds: float = SECONDS) -> None:
    """Wait until a condition holds, looking often; `what` is said if it never does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"still not: {what or condition}"
        time.sleep(0.05)
