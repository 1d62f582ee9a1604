"""Expand a specification into cells: the combinations of values that become runs, before validation."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from ...documents import Document
from ...errors import UserError
from ...problems import KeyPath, Problem, dotted, nearest, refuse
from .file import GridPart, Spec
from .overrides import Config, Override, apply, key_path, overrides_in, sections_first
from .set_options import has_section

OUTSIDE_IDENTITY = ("stop", "checkpoint")
MOST_RUNS = 100_000
"""Default maximum number of runs: a mistake in an axis must not fill the memory."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One future run: its overrides and the resulting config."""

    baseline: str | None
    grid: int
    """Index of its grid in the file: 0 for `grid` and `zip`, then the entries of `grids`."""
    params: dict[str, Any]
    """Values that grid, zip and seeds set; a mapping is replaced by its name or position."""
    overrides: Sequence[Override]
    config: Config


@dataclass(frozen=True)
class _Choice:
    """One value of an axis, or one row of a zip: its params and overrides."""

    params: Mapping[str, Any]
    overrides: tuple[Override, ...]


@dataclass(frozen=True)
class _Grid:
    index: int
    base: list[Override]
    axes: list[list[_Choice]]

    @property
    def keys(self) -> list[str]:
        """The dotted keys that its axes set."""
        return [key for axis in self.axes for key in axis[0].params]


def cells(spec: Spec, max_runs: int = MOST_RUNS) -> tuple[list[Cell], list[str]]:
    """Return the cells of grids and baselines, without excluded ones, and warnings.

    Raises:
        UserError: an axis is invalid, the lists of a zip differ in length, no cell of the grid is left, or
            there are more than `max_runs` cells before any is excluded.
    """
    grids = _read_grids(spec)
    _check_number(spec, grids, max_runs)
    _check_settings(spec)
    in_grids, warnings = _exclude_cells([cell for grid in grids for cell in _grid_cells(spec, grid)], spec)
    if not in_grids:
        refuse([Problem(spec.document.place("exclude"), "exclude", "leaves nothing of the grid")])
    return _with_settings([*in_grids, *_baseline_cells(spec)], spec), warnings


def _check_number(spec: Spec, grids: Sequence[_Grid], max_runs: int) -> None:
    """Refuse a specification of too many runs, by the lengths of its axes, before any cell is created."""
    seeds = max(1, len(spec.file.seeds))
    in_grids = sum(math.prod(len(axis) for axis in grid.axes) for grid in grids)
    total = seeds * (in_grids + len(spec.file.baselines))
    if total > max_runs:
        place = spec.document.place("grids" if spec.file.grids else "grid")
        raise UserError(
            f"{place}: the specification has {total:,} runs (before exclude), more than {max_runs:,}",
            f"shorten an axis or seeds; or, if all are meant, add --max-runs {total}",
        )


# Grids


def _read_grids(spec: Spec) -> list[_Grid]:
    """Return the grids of the file; a file without grids has one grid without axes."""
    base = overrides_in(spec.file.base, ("base",))
    parts: list[tuple[int, GridPart, KeyPath]] = [(0, spec.file, ())]
    if spec.file.grids:
        first_parts = parts if spec.file.grid or spec.file.zip else []
        parts = [*first_parts, *((n + 1, part, ("grids", n)) for n, part in enumerate(spec.file.grids))]
    return [
        _Grid(
            index,
            base if part is spec.file else [*base, *overrides_in(part.base, (*origin, "base"))],
            _read_axes(part, origin, spec.document),
        )
        for index, part, origin in parts
    ]


def _read_axes(part: GridPart, origin: KeyPath, document: Document) -> list[list[_Choice]]:
    _check_axes(part, origin, document)
    axes = [_axis_choices(key, values, (*origin, "grid", key)) for key, values in part.grid.items()]
    if part.zip:
        columns = [_axis_choices(key, values, (*origin, "zip", key)) for key, values in part.zip.items()]
        axes.append([_merge_choices(row) for row in zip(*columns, strict=True)])
    return axes


def _axis_choices(key: str, values: list[Any], origin: KeyPath) -> list[_Choice]:
    path = key_path(key)
    return [
        _Choice({key: label}, (Override(path, value, (*origin, index)),))
        for index, (label, value) in enumerate(zip(_label_values(values), values, strict=True))
    ]


def _merge_choices(row: Sequence[_Choice]) -> _Choice:
    params = {key: label for choice in row for key, label in choice.params.items()}
    return _Choice(params, tuple(override for choice in row for override in choice.overrides))


def _label_values(values: list[Any]) -> list[Any]:
    """Return the label of each value in `params`: a mapping's label is its name or else its position."""
    names = [_name_of_mapping(value) for value in values]
    times = Counter(names)
    return [
        value if not isinstance(value, Mapping) else index if name is None or times[name] > 1 else name
        for index, (value, name) in enumerate(zip(values, names, strict=True))
    ]


def _name_of_mapping(value: Any) -> str | None:
    name = value.get("name") if isinstance(value, Mapping) else None
    return name if isinstance(name, str) else None


def _check_axes(part: GridPart, origin: KeyPath, document: Document) -> None:
    problems = [
        Problem(document.place(*origin, kind, key), dotted((*origin, kind, key)), message)
        for kind, axes in (("grid", part.grid), ("zip", part.zip))
        for key in axes
        if (message := _axis_objection(key, kind, part))
    ]
    if len({len(values) for values in part.zip.values()}) > 1:
        lengths = ", ".join(f"{key} has {len(values)}" for key, values in part.zip.items())
        place, key = document.place(*origin, "zip"), dotted((*origin, "zip"))
        problems.append(Problem(place, key, f"its lists should have one length, but {lengths}"))
    if problems:
        refuse(problems)


def _axis_objection(key: str, kind: str, part: GridPart) -> str | None:
    section = key_path(key)[0]
    if section in OUTSIDE_IDENTITY:
        return (
            f"'{section}' cannot be an axis: it is no part of a run's identity (a larger stop continues a "
            "finished run), so the runs would be the same; set it in base, and compare budgets with report"
        )
    if kind == "zip" and key in part.grid:
        return "stands in grid too; an axis belongs to one of them"
    return None if all(key_path(key)) else "is no dotted key, such as alpha.interval"


def _grid_cells(spec: Spec, grid: _Grid) -> Iterator[Cell]:
    template = apply(grid.base, {}, spec.document)
    for choices in product(*grid.axes, *_seed_axes(spec, grid)):
        choice = _merge_choices(choices)
        overrides = sections_first(choice.overrides)
        config = apply(overrides, template, spec.document)
        yield Cell(None, grid.index, dict(choice.params), [*grid.base, *overrides], config)


def _seed_axes(spec: Spec, grid: _Grid | None = None) -> list[list[_Choice]]:
    if grid and spec.file.seeds and "seed" in grid.keys:
        place = spec.document.place("seeds")
        refuse([Problem(place, "seeds", "seed is an axis of the grid already; give one of the two")])
    return [_axis_choices("seed", list(spec.file.seeds), ("seeds",))] if spec.file.seeds else []


def _baseline_cells(spec: Spec) -> Iterator[Cell]:
    base = overrides_in(spec.file.base, ("base",))
    for name, differences in spec.file.baselines.items():
        overrides = [*base, *overrides_in(differences, ("baselines", name))]
        template = apply(overrides, {}, spec.document)
        for choices in product(*_seed_axes(spec)):
            seed = _merge_choices(choices)
            config = apply(seed.overrides, template, spec.document)
            yield Cell(name, 0, dict(seed.params), [*overrides, *seed.overrides], config)


# Exclusion


def _exclude_cells(all_cells: list[Cell], spec: Spec) -> tuple[list[Cell], list[str]]:
    """Leave out the cells that an entry of `exclude` matches, and warn of entries that match none."""
    matched = [False] * len(spec.file.exclude)
    remaining = []
    for cell in all_cells:
        hits = [n for n, entry in enumerate(spec.file.exclude) if _matches_entry(cell, entry)]
        for n in hits:
            matched[n] = True
        if not hits:
            remaining.append(cell)
    keys = {key for cell in all_cells for key in cell.params}
    return remaining, [_unmatched_warning(n, spec, keys) for n, hit in enumerate(matched) if not hit]


def _matches_entry(cell: Cell, entry: Mapping[str, Any]) -> bool:
    return all(
        key in cell.params and _are_equal_values(cell.params[key], value) for key, value in entry.items()
    )


def _are_equal_values(first: Any, second: Any) -> bool:
    """Return whether two YAML values are equal: 1 equals 1.0, but not true."""
    if isinstance(first, float) and isinstance(second, float) and math.isnan(first):
        return math.isnan(second)
    return bool(first == second) and isinstance(first, bool) == isinstance(second, bool)


def _unmatched_warning(index: int, spec: Spec, keys: set[str]) -> str:
    warning = f"{spec.document.place('exclude', index)}: exclude.{index}: matches no run"
    for key in spec.file.exclude[index]:
        if key not in keys:
            guess = nearest(key, keys)
            return f"{warning}: {key} is no axis" + (f"; did you mean '{guess}'?" if guess else "")
    return warning


# --set


def _check_settings(spec: Spec) -> None:
    """Refuse `--set` of a key that the grid or the seeds vary: the runs would become identical."""
    for setting in spec.settings:
        for key, where in _axes_written(spec):
            if key_path(key)[: len(setting.path)] == setting.path:
                message = f"{key} varies between the runs; to change its values, --set '{where}=[…]'"
                refuse([Problem(setting.place(spec.document), "", message)])


def _axes_written(spec: Spec) -> Iterator[tuple[str, str]]:
    """Yield the key of each axis of the file, and the dotted path of its values."""
    parts: list[tuple[KeyPath, GridPart]] = [((), spec.file)]
    for origin, part in [*parts, *((("grids", n), part) for n, part in enumerate(spec.file.grids))]:
        for kind, axes in (("grid", part.grid), ("zip", part.zip)):
            yield from ((key, dotted((*origin, kind, key))) for key in axes)
    if spec.file.seeds:
        yield "seed", "seeds"


def _with_settings(all_cells: list[Cell], spec: Spec) -> list[Cell]:
    """Return the cells with each `--set` option applied to those that have its section."""
    for setting in spec.settings:
        concerned = [has_section(cell.config, setting.path) for cell in all_cells]
        if not any(concerned):
            refuse([Problem(setting.place(spec.document), "", f"no run has the section '{setting.path[0]}'")])
        all_cells = [
            _with_setting(cell, setting, spec) if has else cell
            for cell, has in zip(all_cells, concerned, strict=True)
        ]
    return all_cells


def _with_setting(cell: Cell, setting: Override, spec: Spec) -> Cell:
    config = apply([setting], cell.config, spec.document)
    return Cell(cell.baseline, cell.grid, cell.params, [*cell.overrides, setting], config)
