"""Summary of α* over a window of steps: number, mean, median and standard deviation."""

from __future__ import annotations

import math
from statistics import fmean, median, stdev
from typing import Any

from .measurement import Measurement

QUANTITIES = ("alpha_rel", "alpha_abs", "slope", "curvature")


class AlphaSummary:
    """Collects the values of complete measurements; a checkpoint holds them."""

    def __init__(self) -> None:
        self._first: int | None = None
        self._last = 0
        self._values: dict[str, dict[str, list[float]]] = {}
        self._scalars: dict[str, list[float]] = {}

    def add(self, measurement: Measurement) -> None:
        """Add one measurement; this waits for the device."""
        index = measurement.step.index
        self._first = index if self._first is None else self._first
        self._last = max(self._last, index)
        for name, scalar in measurement.scalars.items():
            self._scalars.setdefault(name, []).append(float(scalar))
        for name in measurement.estimators:
            estimate = measurement.estimate(name)
            values = self._values.setdefault(name, {quantity: [] for quantity in QUANTITIES})
            for quantity in QUANTITIES:
                values[quantity].append(getattr(estimate, quantity))

    def take(self) -> dict[str, Any] | None:
        """Return the fields of a windowed `alpha` record and start again; None without measurements.

        Norms, cosines, losses and reduction ratios are means over the window.
        """
        if self._first is None:
            return None
        estimates = {name: _describe_values(quantities) for name, quantities in self._values.items()}
        means = {name: _finite_mean(values) for name, values in self._scalars.items()}
        record = {"step": self._last, "first_step": self._first, "estimates": estimates, **means}
        self._first, self._last, self._values, self._scalars = None, 0, {}, {}
        return record

    def state_dict(self) -> dict[str, Any]:
        """Return the values collected so far."""
        values = {name: {q: list(v) for q, v in of.items()} for name, of in self._values.items()}
        scalars = {name: list(numbers) for name, numbers in self._scalars.items()}
        return {"first": self._first, "last": self._last, "values": values, "scalars": scalars}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._first, self._last = state["first"], state["last"]
        self._values = {name: {q: list(v) for q, v in of.items()} for name, of in state["values"].items()}
        self._scalars = {name: list(numbers) for name, numbers in state["scalars"].items()}


def _finite_mean(values: list[float]) -> float | None:
    finite = [value for value in values if math.isfinite(value)]
    return fmean(finite) if finite else None


def _describe_values(quantities: dict[str, list[float]]) -> dict[str, float]:
    """Return the number of values, and statistics of the finite ones per quantity."""
    record: dict[str, float] = {"n": len(quantities["slope"])}
    for quantity, values in quantities.items():
        finite = [value for value in values if math.isfinite(value)]
        if not finite:
            continue
        record[f"{quantity}_n"] = len(finite)
        record[f"{quantity}_mean"] = fmean(finite)
        record[f"{quantity}_median"] = median(finite)
        if len(finite) > 1:
            record[f"{quantity}_sd"] = stdev(finite)
        record[f"{quantity}_negative"] = sum(value < 0 for value in finite) / len(finite)
    return record
