"""Statistics of an experiment, each with the key under which a reference prints it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..reference import Key, PublishedValue, Reference
from ..tables import Cell, Table

SCALE = (
    "Thesis: as printed, of its own full-size runs (one seed each); a run on other data or of another size "
    "is not meant to give the same."
)

THESIS = "thesis"


@dataclass(frozen=True)
class Statistic:
    """A quantity of `subject`; the value is None where the store lacks the records it follows from.

    `n` is its sample size (values, cells or seeds, as the table says), `where` the place of the value.
    """

    subject: str
    quantity: str
    value: float | int | None
    n: int | None = None
    where: str = ""
    key: Key | None = None


def statistics_table(
    name: str,
    title: str,
    statistics: Sequence[Statistic],
    reference: Reference | None,
    notes: Sequence[str] = (),
) -> Table:
    """Return the statistics as a table without empty columns, with the printed values of a reference."""
    printed = [None if reference is None else reference.find(statistic.key) for statistic in statistics]
    printed_column = any(printed)
    columns: list[tuple[str, list[Cell]]] = [
        ("of", [statistic.subject for statistic in statistics]),
        ("quantity", [statistic.quantity for statistic in statistics]),
        ("yours" if printed_column else "value", [statistic.value for statistic in statistics]),
    ]
    if printed_column:
        columns.append((THESIS, [None if value is None else value.value for value in printed]))
    if any(statistic.n is not None for statistic in statistics):
        columns.append(("n", [statistic.n for statistic in statistics]))
    if any(statistic.where for statistic in statistics):
        columns.append(("at", [statistic.where for statistic in statistics]))
    rows = list(zip(*(cells for _, cells in columns), strict=True))
    notes = [*notes, *([SCALE] if printed_column else [])]
    return show_as_printed(Table.of(name, title, [name for name, _ in columns], rows, notes), printed)


def show_as_printed(table: Table, printed: Sequence[PublishedValue | None]) -> Table:
    """Show the column of the thesis as it prints it, bounds with their sign."""
    if THESIS not in table.columns:
        return table
    place = table.columns.index(THESIS)
    shown = tuple(
        row if value is None else (*row[:place], value.text, *row[place + 1 :])
        for row, value in zip(table.shown, printed, strict=True)
    )
    return replace(table, shown=shown)


def as_whole_number(value: float | None) -> float | int | None:
    """Return a whole number as an int; other numbers unchanged, as means of counts may be."""
    return int(value) if value is not None and value == int(value) else value


def printed_column(
    reference: Reference | None, name: str, keys: Sequence[Key | None]
) -> dict[str, list[Cell]]:
    """Return a column `NAME, thesis` of what is printed under the keys; none where nothing is."""
    printed: list[Cell] = [None if reference is None else reference.value(key) for key in keys]
    return {f"{name}, thesis": printed} if any(value is not None for value in printed) else {}
