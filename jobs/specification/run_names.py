"""Readable names of runs, built from the keys that vary: `interval5000-count10-seed0`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from .grid import Cell
from .overrides import key_path
from .reserved_names import meaning

LONGEST = 120
UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def readable_names(cells: Sequence[Cell], ids: Sequence[str], seeds: bool) -> list[str]:
    """Return a unique name, safe for files, for every cell.

    A name holds the keys whose values differ between the cells of the grid (all keys, if none does), and the
    seed if the file gives `seeds`. Equal names get the number of their grid, then the run's id. A reserved
    name gets the run's id, too.
    """
    keys = _varying_keys([cell for cell in cells if cell.baseline is None], seeds)
    short = _short_keys(keys)
    texts: dict[tuple[str, str], str] = {}
    names = [cell.baseline or _name_of_cell(cell, keys, short, texts) for cell in cells]
    if seeds:
        names = [f"{name}-seed{cell.params['seed']}" for name, cell in zip(names, cells, strict=True)]
    return _make_unique([name.lstrip("-") or "base" for name in names], cells, ids)


def _varying_keys(cells: Sequence[Cell], seeds: bool) -> list[str]:
    keys = dict.fromkeys(key for cell in cells for key in cell.params if not (seeds and key == "seed"))
    missing = object()
    varying = [key for key in keys if _values_differ(cell.params.get(key, missing) for cell in cells)]
    return varying or list(keys)


def _values_differ(values: Iterable[Any]) -> bool:
    """Return whether at least two values differ (1 and true do)."""
    values = iter(values)
    first = next(values)
    return any(value != first or type(value) is not type(first) for value in values)


def _short_keys(keys: Iterable[str]) -> dict[str, str]:
    """Return the shortest unique ends of the dotted keys; `optimizer.name` becomes `optimizer`."""
    paths = {key: _without_generic_end(key_path(key)) for key in keys}
    lengths = dict.fromkeys(paths, 1)
    while True:
        short = {key: ".".join(path[-lengths[key] :]) for key, path in paths.items()}
        times = Counter(short.values())
        growing = [key for key in paths if times[short[key]] > 1 and lengths[key] < len(paths[key])]
        if not growing:
            return short
        for key in growing:
            lengths[key] += 1


def _without_generic_end(path: tuple[str, ...]) -> tuple[str, ...]:
    return path[:-1] if len(path) > 1 and path[-1] in ("name", "policy") else path


def _name_of_cell(
    cell: Cell, keys: Sequence[str], short: dict[str, str], texts: dict[tuple[str, str], str]
) -> str:
    parts = []
    for key in keys:
        if key in cell.params:
            value = cell.params[key]
            part = texts.get((key, repr(value)))
            if part is None:
                part = texts[key, repr(value)] = _name_part(short[key], value)
            parts.append(part)
    return "-".join(parts)


def _name_part(key: str, value: Any) -> str:
    text = UNSAFE.sub("_", _value_text(value))
    apart = key[-1:].isdigit() or not text[:1].isdigit()
    return UNSAFE.sub("_", key) + ("_" if apart else "") + text


def _value_text(value: Any) -> str:
    if isinstance(value, list):
        return "x".join(map(_value_text, value))
    if isinstance(value, bool):
        return "true" if value else "false"
    return "null" if value is None else str(value)


def _make_unique(names: Sequence[str], cells: Sequence[Cell], ids: Sequence[str]) -> list[str]:
    several = len({cell.grid for cell in cells if cell.baseline is None}) > 1
    times = Counter(names)
    names = [
        f"grid{cell.grid}-{name}" if several and cell.baseline is None and times[name] > 1 else name
        for name, cell in zip(names, cells, strict=True)
    ]
    times = Counter(names)
    return [
        name if times[name] == 1 and _is_free(name, cell) else f"{name[:LONGEST].rstrip('-._')}-{run_id}"
        for name, cell, run_id in zip(names, cells, ids, strict=True)
    ]


def _is_free(name: str, cell: Cell) -> bool:
    """Return whether a name needs no id; the name of a baseline is checked by `submit`."""
    return len(name) <= LONGEST and (cell.baseline is not None or meaning(name) is None)
