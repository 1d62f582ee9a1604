"""Published values to compare an experiment with: tables that are shipped with the package.

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
"""The names of the references, and their files in `references/`."""
NONE = "none"
THESIS = {
    "sanity": ("sanity",),
    "pretest": ("pretest",),
    "exp1-observe": ("exp1", "schedule"),
    "exp2-steps": ("exp2_steps", "schedule"),
    "exp2-time": ("exp2_time", "schedule"),
}
"""Experiments that are compared with the thesis by default, and the parts of it that they repeat. The
same holds for their small versions, `…-small`. The name decides, as an unrelated grid may have the same
shape."""
SETTING = ("setup", "criteo1tb", "dlrm_small", "algoperf", "exp2")
"""Parts that are settings, not results."""
HEDGES = ("_lower_bound", "_upper_bound", "_approx", "_as_printed")
"""Endings of quantities that are printed as a bound, approximately, or not as the formula gives them."""

Place = tuple[int, int]
"""A cell of the thesis' grid: interval I and count N."""


@dataclass(frozen=True)
class Key:
    """The identity of a published value: an item, one of its quantities, and the cell of the grid, if any."""

    item: str
    quantity: str
    place: Place | None = None

    @property
    def part(self) -> str:
        """The first word of the item: which experiment it belongs to."""
        return self.item.partition(".")[0]

    @property
    def plain(self) -> Key:
        """The key without the ending that says how the value was printed."""
        quantity = self.quantity
        for hedge in HEDGES:
            quantity = quantity.removesuffix(hedge)
        return Key(self.item, quantity, self.place)


@dataclass(frozen=True)
class PublishedValue:
    """One value as printed, its unit (`1` for none), and its place in the source."""

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

    def of_parts(self, parts: Sequence[str]) -> Reference:
        """Return the values of some parts, and of the settings."""
        names = (*parts, *SETTING)
        return Reference(self.name, tuple(row for row in self.rows if row.key.part in names))

    def find(self, key: Key | None) -> PublishedValue | None:
        """Return the value printed under `key`, from a table rather than from rounded text; None without one.

        A key without a place also matches values of a cell, such as the loss of the best cell.
        """
        rows = [] if key is None else self._by_key.get(key, []) or self._by_key_without_place.get(key, [])
        return min(rows, key=_precision_order, default=None)

    def value(self, key: Key | None) -> float | None:
        """Return the number printed under `key`; None without one."""
        published = self.find(key)
        return None if published is None else published.value

    @cached_property
    def _by_key(self) -> dict[Key, list[PublishedValue]]:
        return _group_by_key(self.rows, [row.key.plain for row in self.rows])

    @cached_property
    def _by_key_without_place(self) -> dict[Key, list[PublishedValue]]:
        return _group_by_key(self.rows, [Key(row.key.item, row.key.plain.quantity) for row in self.rows])


def read_reference(name: str) -> Reference:
    """Read a reference by its name.

    Raises:
        UserError: there is no such reference.
    """
    if name not in FILES:
        near = difflib.get_close_matches(name, [*FILES, NONE], 1)
        hint = f"did you mean {near[0]}?" if near else f"references: {', '.join([*FILES, NONE])}"
        raise UserError(f"there is no reference '{name}'", hint)
    text = (files(__package__) / "references" / FILES[name]).read_text(encoding="utf-8")
    return Reference(name, tuple(map(_parse_row, csv.DictReader(text.splitlines()))))


def reference_for(experiment: str, name: str | None = None) -> Reference | None:
    """Return the reference called `name`; without a name, the thesis for the experiments that repeat it.

    An experiment that repeats a part of the thesis gets that part, any other experiment gets all of it.

    Raises:
        UserError: there is no such reference.
    """
    parts = THESIS.get(experiment.removesuffix("-small"))
    if name == NONE or (name is None and parts is None):
        return None
    reference = read_reference(name or "thesis2025")
    return reference if parts is None else reference.of_parts(parts)


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
