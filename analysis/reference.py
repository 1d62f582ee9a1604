"""Values that were published, to stand beside one's own: tables of facts that are shipped with the package.

`thesis2025`: the 284 values that D. Suckrow's thesis prints ("Curvature-Based Step Sizes for Training Deep
Neural Networks", Tübingen 2025), as printed, each with the place where it stands. Which of them are
doubtful is said in docs/explanation/thesis.md; none was changed.
"""

from __future__ import annotations

import csv
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files

from ..errors import UserError

FILES = {"thesis2025": "thesis2025.csv"}
"""The references there are, and where they lie in `references/`."""
NONE = "none"
THESIS = {
    "sanity": ("sanity",),
    "pretest": ("pretest",),
    "exp1-observe": ("exp1", "schedule"),
    "exp2-steps": ("exp2_steps", "schedule"),
    "exp2-time": ("exp2_time", "schedule"),
}
"""Experiments that have the thesis beside them unasked, and the parts of it that they repeat; so have their
twins, `…-small`. They go by name: a grid of the same shape may be anybody's."""
SETTING = ("setup", "criteo1tb", "dlrm_small", "algoperf", "exp2")
"""Parts that are no results, but what all of them were found with."""
HEDGES = ("_lower_bound", "_upper_bound", "_approx", "_as_printed")
"""Endings of quantities that are printed as a bound, roughly, or not as the formula gives them."""

Place = tuple[int, int]
"""A cell of the thesis' grid: interval I and count N."""


@dataclass(frozen=True)
class Key:
    """What a published value is of: an item, one of its quantities, and a cell of the grid if it is one's."""

    item: str
    quantity: str
    place: Place | None = None

    @property
    def part(self) -> str:
        """The first word of the item: which experiment it belongs to."""
        return self.item.partition(".")[0]

    @property
    def plain(self) -> Key:
        """The same without the ending that says how it was printed."""
        quantity = self.quantity
        for hedge in HEDGES:
            quantity = quantity.removesuffix(hedge)
        return Key(self.item, quantity, self.place)


@dataclass(frozen=True)
class PublishedValue:
    """One value as printed, its unit (`1` for none), and where it stands."""

    key: Key
    value: float
    printed: str
    unit: str
    source: str

    @property
    def bound(self) -> str:
        """`>`, `<` or `≈` where it is printed as a bound or roughly; else nothing."""
        for ending, sign in (("_lower_bound", ">"), ("_upper_bound", "<"), ("_approx", "≈")):
            if self.key.quantity.endswith(ending):
                return sign
        return ""

    @property
    def text(self) -> str:
        """The value as printed, with the sign of a bound before it."""
        return f"{self.bound} {self.printed}".strip()


@dataclass(frozen=True)
class Reference:
    """All published values of one source."""

    name: str
    rows: tuple[PublishedValue, ...]

    def only(self, parts: Sequence[str]) -> Reference:
        """Return what belongs to some parts, and the setting."""
        names = (*parts, *SETTING)
        return Reference(self.name, tuple(row for row in self.rows if row.key.part in names))

    def find(self, key: Key | None) -> PublishedValue | None:
        """Return what was printed under `key`, tables before text, which rounds; None where nothing was.

        A key without a place finds what is printed of some cell: the best one's loss, say.
        """
        rows = [] if key is None else self._by_key.get(key, []) or self._by_key_without_place.get(key, [])
        return min(rows, key=_precision_order, default=None)

    def value(self, key: Key | None) -> float | None:
        """Return the value of that."""
        published = self.find(key)
        return None if published is None else published.value

    @cached_property
    def _by_key(self) -> dict[Key, list[PublishedValue]]:
        return _group_by_key(self.rows, [row.key.plain for row in self.rows])

    @cached_property
    def _by_key_without_place(self) -> dict[Key, list[PublishedValue]]:
        return _group_by_key(self.rows, [Key(row.key.item, row.key.plain.quantity) for row in self.rows])


def read(name: str) -> Reference:
    """Read a reference that is shipped.

    Raises:
        UserError: there is none of that name.
    """
    if name not in FILES:
        near = difflib.get_close_matches(name, [*FILES, NONE], 1)
        hint = f"did you mean {near[0]}?" if near else f"references: {', '.join([*FILES, NONE])}"
        raise UserError(f"there is no reference '{name}'", hint)
    text = (files(__package__) / "references" / FILES[name]).read_text(encoding="utf-8")
    return Reference(name, tuple(map(_parse_row, csv.DictReader(text.splitlines()))))


def reference_for(experiment: str, name: str | None = None) -> Reference | None:
    """Return the reference asked for; unasked, the thesis for the experiments that repeat it, else none.

    Of the thesis, an experiment that repeats a part of it has that part, any other has the whole.

    Raises:
        UserError: there is no such reference.
    """
    parts = THESIS.get(experiment.removesuffix("-small"))
    if name == NONE or (name is None and parts is None):
        return None
    reference = read(name or "thesis2025")
    return reference if parts is None else reference.only(parts)


def _parse_row(row: dict[str, str]) -> PublishedValue:
    place = (int(row["interval"]), int(row["count"])) if row["interval"] else None
    key = Key(row["item"], row["quantity"], place)
    return PublishedValue(key, float(row["value"]), row["value"], row["unit"], row["source"])


def _group_by_key(rows: Sequence[PublishedValue], keys: Sequence[Key]) -> dict[Key, list[PublishedValue]]:
    groups: dict[Key, list[PublishedValue]] = {}
    for row, key in zip(rows, keys, strict=True):
        groups.setdefault(key, []).append(row)
    return groups


def _precision_order(row: PublishedValue) -> tuple[bool, bool]:
    """Sort exact values before bounds, and tables before text."""
    return bool(row.bound), not row.source.startswith("table")
