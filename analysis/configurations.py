"""Runs that differ only in their seed are one configuration; what differs between those is an axis."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..printable import visible
from .data import RunData
from .methods import (
    UNTOLD,
    alpha_acts,
    canonical_text,
    distinct_names,
    method_names,
    scalar_text,
    without_keys,
)

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
    def is_scheduled(self) -> bool:
        """Whether a schedule alone sets the learning rate."""
        run = self.runs[0]
        return run.schedule_steps is not None and not alpha_acts(run.row.config)


def varying_axes(runs: Iterable[RunData]) -> list[Axis]:
    """Return the axes of the grid: keys with at least two values among the runs that are no baselines."""
    values_by_key: dict[str, dict[str, Any]] = {}
    for run in runs:
        for key, value in run.row.params.items() if run.baseline is None else ():
            if key != SEED:
                values_by_key.setdefault(key, {})[canonical_text(value)] = value
    return [
        Axis(key, _order_values(values.values())) for key, values in values_by_key.items() if len(values) > 1
    ]


def configurations(runs: Sequence[RunData]) -> list[Configuration]:
    """Group the runs over seeds, in the order in which they come."""
    groups: dict[str, list[RunData]] = {}
    for run in runs:
        groups.setdefault(_configuration_key(run), []).append(run)
    labels = _configuration_labels(list(groups.values()), varying_axes(runs))
    return [
        Configuration(visible(label), group[0].baseline, _without_seed(group[0]), tuple(group))
        for label, group in zip(labels, groups.values(), strict=True)
    ]


def value_label(value: Any, position: int) -> str:
    """Return an axis value as short text."""
    if isinstance(value, dict):
        return visible(str(value.get("name", f"#{position + 1}")))
    return visible(scalar_text(value))


def _configuration_labels(groups: Sequence[Sequence[RunData]], axes: Sequence[Axis]) -> list[str]:
    """Return a label for each: its values on the axes, after its method where these are ambiguous.

    Grids of one file may differ in what is no axis, their changes to the base. The name of a run is that of
    its seed where there is no axis at all; several seeds go by their method.
    """
    runs = [group[0] for group in groups]
    values = [_axis_values_text(run, axes) for run in runs]
    configs = [without_keys(run.row.config, *(axis.key for axis in axes)) for run in runs]
    methods = method_names(configs)
    seedless_labels = [
        run.row.name if len(group) == 1 else name
        for run, group, name in zip(runs, groups, methods, strict=True)
    ]
    labels = [
        run.baseline or value or other
        for run, value, other in zip(runs, values, seedless_labels, strict=True)
    ]
    if len(set(labels)) == len(labels):
        return labels
    parts = zip(runs, methods, values, strict=True)
    labels = [run.baseline or ", ".join(filter(None, (method, value))) for run, method, value in parts]
    return distinct_names(labels, [run.row.config for run in runs])


def _axis_values_text(run: RunData, axes: Sequence[Axis]) -> str:
    return ", ".join(
        f"{axis.short} {value_label(run.row.params[axis.key], axis.values.index(run.row.params[axis.key]))}"
        for axis in axes
        if axis.key in run.row.params
    )


def _configuration_key(run: RunData) -> str:
    """Return what is the same for all seeds of a configuration, and for no other."""
    if run.baseline is not None:
        return run.baseline
    return canonical_text([_without_seed(run), without_keys(run.row.config, *UNTOLD)])


def _without_seed(run: RunData) -> dict[str, Any]:
    return {key: value for key, value in run.row.params.items() if key != SEED}


def _order_values(values: Iterable[Any]) -> tuple[Any, ...]:
    """Sort numbers; leave anything else in the order in which it came."""
    ordered = list(values)
    return tuple(sorted(ordered) if all(_is_number(value) for value in ordered) else ordered)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
