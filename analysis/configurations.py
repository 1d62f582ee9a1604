"""Runs that differ only in their seed are one configuration; what differs between those is an axis."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .data import RunData

SEED = "seed"


@dataclass(frozen=True)
class Axis:
    """A dotted key that takes several values among the runs of the grid, in order."""

    key: str
    values: tuple[Any, ...]

    @property
    def short(self) -> str:
        """The last part of the key: `interval` for `alpha.interval`."""
        return self.key.rpartition(".")[2]

    @property
    def labels(self) -> list[str]:
        """The values as text: mappings by their name, else by position."""
        return [value_label(value, index) for index, value in enumerate(self.values)]

    @property
    def numeric(self) -> bool:
        """Whether every value is a number, so that one may correlate with it."""
        return all(_is_number(value) for value in self.values)

    def index(self, value: Any) -> int | None:
        """Return the place of `value` on the axis."""
        return self.values.index(value) if value in self.values else None


@dataclass(frozen=True)
class Configuration:
    """One cell of the grid, or one baseline, with its runs (one for each seed)."""

    label: str
    baseline: str | None
    params: dict[str, Any]
    runs: tuple[RunData, ...]

    @property
    def keys(self) -> list[int]:
        """The store keys of the runs."""
        return [run.row.key for run in self.runs]


def varying_axes(runs: Iterable[RunData]) -> list[Axis]:
    """Return the axes of the grid: keys with at least two values among the runs that are no baselines."""
    seen: dict[str, dict[str, Any]] = {}
    for run in runs:
        for key, value in run.row.params.items() if run.baseline is None else ():
            if key != SEED:
                seen.setdefault(key, {})[_canonical(value)] = value
    return [Axis(key, _ordered(values.values())) for key, values in seen.items() if len(values) > 1]


def configurations(runs: Sequence[RunData]) -> list[Configuration]:
    """Group the runs over seeds, in the order in which they come."""
    axes = varying_axes(runs)
    groups: dict[str, list[RunData]] = {}
    for run in runs:
        groups.setdefault(_identity(run), []).append(run)
    return [
        Configuration(_label(group[0], axes), group[0].baseline, _without_seed(group[0]), tuple(group))
        for group in groups.values()
    ]


def value_label(value: Any, position: int) -> str:
    """Return an axis value as short text."""
    if isinstance(value, dict):
        return str(value.get("name", f"#{position + 1}"))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _label(run: RunData, axes: Sequence[Axis]) -> str:
    if run.baseline is not None:
        return run.baseline
    parts = [
        f"{axis.short} {value_label(run.row.params[axis.key], axis.values.index(run.row.params[axis.key]))}"
        for axis in axes
        if axis.key in run.row.params
    ]
    return ", ".join(parts) or run.row.name


def _identity(run: RunData) -> str:
    return run.baseline if run.baseline is not None else _canonical(_without_seed(run))


def _without_seed(run: RunData) -> dict[str, Any]:
    return {key: value for key, value in run.row.params.items() if key != SEED}


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _ordered(values: Iterable[Any]) -> tuple[Any, ...]:
    """Sort numbers; leave anything else in the order in which it came."""
    found = list(values)
    return tuple(sorted(found) if all(_is_number(value) for value in found) else found)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
