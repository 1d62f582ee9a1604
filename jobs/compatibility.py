"""Check that a specification continues its experiment: it may add runs, but its base must stay the same.

The check compares resolved runs, never text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import UserError
from ..store.submissions import RunEntry, Submission
from ..trainer.config import OUTSIDE_ID

_ABSENT = object()


@dataclass(frozen=True)
class Point:
    """A run as one point of an experiment: its coordinates (`params`) and its resolved config."""

    id: str
    name: str
    baseline: str | None
    params: Mapping[str, Any]
    config: Mapping[str, Any]


def check(points: Sequence[Point], past: Iterable[Submission]) -> None:
    """Refuse a specification whose base was edited since earlier submissions.

    An earlier run and a new run have the same coordinates if they belong to the same baseline (or both to
    the grid) and their configs differ in base keys only, which neither grid nor zip nor seeds set. Such a
    pair shows an edited base if the earlier run is no longer in the specification and the new run was never
    submitted. For a baseline it shows that the name now stands for another run.

    Raises:
        UserError: there is such a pair.
    """
    earlier = {entry.id: _point_of_entry(entry) for submission in past for entry in submission.runs}
    point_ids = {point.id for point in points}
    for baseline in {point.baseline for point in points}:
        olds = [point for point in earlier.values() if point.baseline == baseline]
        news = [point for point in points if point.baseline == baseline]
        if baseline is None:
            olds = [point for point in olds if point.id not in point_ids]
            news = [point for point in news if point.id not in earlier]
        for old, new in _at_same_coordinates(olds, news):
            raise _edited_base_error(old, new)


def changed_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> set[str]:
    """Return the dotted leaves in which two configs differ, of those that belong to a run's identity."""
    before, after = _identity_leaves(old), _identity_leaves(new)
    return {
        key for key in before.keys() | after.keys() if before.get(key, _ABSENT) != after.get(key, _ABSENT)
    }


def _at_same_coordinates(olds: Sequence[Point], news: Sequence[Point]) -> Iterator[tuple[Point, Point]]:
    """Yield the pairs that differ in base keys only: they agree in every leaf that an axis sets."""
    for before in {frozenset(point.params) for point in olds}:
        for after in {frozenset(point.params) for point in news}:
            axes = before | after
            places: dict[str, list[Point]] = {}
            for old in olds:
                if frozenset(old.params) == before:
                    places.setdefault(_coordinates(old, axes), []).append(old)
            for new in news:
                if frozenset(new.params) == after:
                    yield from (
                        (old, new) for old in places.get(_coordinates(new, axes), ()) if old.id != new.id
                    )


def _coordinates(point: Point, axes: Iterable[str]) -> str:
    leaves = _identity_leaves(point.config)
    covered = {key: value for key, value in leaves.items() if any(_axis_covers(axis, key) for axis in axes)}
    return json.dumps(covered, sort_keys=True)


def _edited_base_error(old: Point, new: Point) -> UserError:
    keys = ", ".join(sorted(changed_keys(old.config, new.config)))
    hint = "give the changed one another experiment name, or make the change a grid axis"
    if new.baseline is not None:
        return UserError(f"baseline '{new.baseline}' now means another run than before: {keys} changed", hint)
    return UserError(f"the base of this experiment was edited: {keys} changed (run '{old.name}')", hint)


def _axis_covers(axis: str, key: str) -> bool:
    """Return whether an axis sets a leaf, as itself, as part of its section, or by its section's absence."""
    return axis == key or key.startswith(f"{axis}.") or axis.startswith(f"{key}.")


def _identity_leaves(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in config.items():
        if not prefix and key in OUTSIDE_ID:
            continue
        if isinstance(value, Mapping):
            leaves.update(_identity_leaves(value, f"{prefix}{key}."))
        else:
            leaves[prefix + key] = value
    return leaves


def _point_of_entry(entry: RunEntry) -> Point:
    return Point(entry.id, entry.name, entry.baseline, entry.params, entry.config)
