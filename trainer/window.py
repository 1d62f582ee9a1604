"""The window of steps that the next `window` record summarises."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Window:
    """Losses (summed on the device), learning rates and counts since the last record."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._rates: tuple[float, float, float]
        self._clear()

    def add(self, loss: Tensor, learning_rate: float, paid: bool) -> None:
        """Add one step; `paid`: its cost includes α*. `loss` stays on the device."""
        self._loss += loss
        self.steps += 1
        self._alpha_steps += paid
        self._last_rate = learning_rate
        self._rates = (
            min(self._rates[0], learning_rate),
            self._rates[1] + learning_rate,
            max(self._rates[2], learning_rate),
        )

    def take(self) -> dict[str, Any]:
        """Return the fields of a `window` record and start again; this waits for the device."""
        lowest, total, highest = self._rates
        record = {
            "steps": self.steps,
            "alpha_steps": self._alpha_steps,
            "loss": float(self._loss) / self.steps,
            "learning_rate": {
                "min": lowest,
                "mean": total / self.steps,
                "max": highest,
                "last": self._last_rate,
            },
        }
        self._clear()
        return record

    def state_dict(self) -> dict[str, Any]:
        """Return the sums so far."""
        return {
            "loss": self._loss.clone(),
            "steps": self.steps,
            "alpha_steps": self._alpha_steps,
            "rates": [*self._rates, self._last_rate],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._loss = state["loss"].to(self._device)
        self.steps, self._alpha_steps = state["steps"], state["alpha_steps"]
        *rates, self._last_rate = state["rates"]
        self._rates = tuple(rates)

    def _clear(self) -> None:
        self._loss = torch.zeros((), dtype=torch.float64, device=self._device)
        self.steps = 0
        self._alpha_steps = 0
        self._last_rate = 0.0
        self._rates = (float("inf"), 0.0, float("-inf"))
