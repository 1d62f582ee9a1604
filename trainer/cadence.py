"""Cadence of a recurring task: due after step 1, then every k steps or every n train_seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class Cadence:
    """Due after steps 1, 1 + k, 1 + 2k, …; or when train_seconds passes a multiple of `every_seconds`."""

    every_steps: int | None = None
    every_seconds: float | None = None
    ticks: int = 0

    def due(self, step: int, train_seconds: float) -> bool:
        """Return whether the task is due after `step` steps; call this once per step, in order."""
        first = step == 1
        if self.every_steps is not None:
            return first or (step - 1) % self.every_steps == 0
        if self.every_seconds is not None:
            ticks, self.ticks = self.ticks, int(train_seconds // self.every_seconds)
            return first or self.ticks > ticks
        return first

    def state_dict(self) -> dict[str, Any]:
        """Return how many multiples of `every_seconds` have passed."""
        return {"ticks": self.ticks}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.ticks = state["ticks"]
