"""Compare the data of two runs, by the fields of their `data` events. Pure functions without torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

Record = Mapping[str, Any]
Likeness = Literal["same", "rounded", "different", "unknown"]
"""`rounded`: floating-point values differ by no more than their rounding, everything else is the same;
`unknown`: one of the two has no fingerprint."""

TOLERANCE = 1e-4
"""Relative difference of two sketches that counts as rounding. One row exchanged among 10⁷ is beyond it."""


def compare(before: Record, now: Record) -> Likeness:
    """Return whether two records of the same workload describe the same data.

    If both have fingerprints by split, only the common splits are compared: runs may evaluate different
    ones.
    """
    if common := _common_splits(before, now):
        likenesses = [_compare_splits(*splits) for splits in common.values()]
        return next((worst for worst in ("different", "rounded") if worst in likenesses), "same")
    old, new = before.get("fingerprint"), now.get("fingerprint")
    if old is None or new is None:
        return "unknown"
    return "same" if old == new else "different"


def differing_splits(before: Record, now: Record) -> list[str]:
    """Return the names of the splits that differ; none if the records have no fingerprints by split."""
    common = _common_splits(before, now)
    return [name for name, splits in common.items() if _compare_splits(*splits) == "different"]


def groups(records: Iterable[Record]) -> list[int]:
    """Return, for each record, the index of the first record with the same data (its own if none has).

    A record without a fingerprint forms a separate group.
    """
    leaders: dict[int, Record] = {}
    first: list[int] = []
    for index, record in enumerate(records):
        alike = (at for at, leader in leaders.items() if compare(leader, record) in ("same", "rounded"))
        first.append(next(alike, index))
        leaders.setdefault(first[-1], record)
    return first


def _common_splits(before: Record, now: Record) -> dict[str, tuple[Record, Record]]:
    old, new = before.get("split_fingerprints"), now.get("split_fingerprints")
    if not (isinstance(old, Mapping) and isinstance(new, Mapping)):
        return {}
    names = [name for name in old if name in new and _is_whole(old[name]) and _is_whole(new[name])]
    return {name: (old[name], new[name]) for name in names}


def _is_whole(split: Any) -> bool:
    """Return whether a value is the fingerprint of a split; a workload may record anything."""
    return isinstance(split, Mapping) and split.keys() >= {"all", "exact", "sketches"}


def _compare_splits(before: Record, now: Record) -> Likeness:
    if before["all"] == now["all"]:
        return "same"
    if before["exact"] != now["exact"]:
        return "different"
    return "rounded" if _are_close(before["sketches"], now["sketches"]) else "different"


def _are_close(before: Record, now: Record) -> bool:
    """Compare sketches by tensor: the norm first, then projections. NaN is close to nothing."""
    if before.keys() != now.keys():
        return False
    return all(
        abs(old - new) <= TOLERANCE * before[name][0]
        for name in before
        for old, new in zip(before[name], now[name], strict=True)
    )
