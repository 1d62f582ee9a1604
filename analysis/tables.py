"""Tables as data, and as CSV and Markdown text."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..printable import csv_cell, markdown, markdown_prose

Cell = str | int | float | None


@dataclass(frozen=True)
class Table:
    """A table for people and for programs.

    `columns` and `shown` are text for eyes; `raw_columns` and `rows` hold the same raw (None: no value),
    as CSV gives it, sometimes in more columns. `notes` are sentences that belong under the table.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    shown: tuple[tuple[str, ...], ...]
    raw_columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    right: tuple[bool, ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        name: str,
        title: str,
        columns: Sequence[str],
        rows: Sequence[Sequence[Cell]],
        notes: Sequence[str] = (),
    ) -> Table:
        """Make a table whose cells are shown in the plain way of `show`; numbers are right-aligned."""
        raw = tuple(tuple(row) for row in rows)
        shown = tuple(tuple(show(cell) for cell in row) for row in raw)
        right = tuple(_is_numeric([row[index] for row in raw]) for index in range(len(columns)))
        return cls(name, title, tuple(columns), shown, tuple(columns), raw, right, tuple(notes))


def show(cell: Cell, digits: int = 4) -> str:
    """Return a cell as text: `–` for nothing, thousands separated, floats to `digits` significant ones."""
    if cell is None:
        return "–"
    if isinstance(cell, str):
        return cell
    if isinstance(cell, int):
        return f"{cell:,}"
    return significant(cell, digits)


def significant(value: float, digits: int = 4) -> str:
    """Return `value` with `digits` significant digits, in scientific notation only where that is shorter."""
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    if not 1e-3 <= abs(value) < 1e6:
        return f"{value:.{digits - 1}e}"
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{value:,.{max(decimals, 0)}f}"


def decimals_to_differ(values: Sequence[float], at_least: int = 4, at_most: int = 8) -> int:
    """Return the fewest decimals (within bounds) at which values that differ are shown differently."""
    values = [value for value in values if _is_moderate(value)]
    different = len(set(values))
    for decimals in range(at_least, at_most):
        if len({f"{value:.{decimals}f}" for value in values}) == different:
            return decimals
    return at_most


def fixed(value: float, decimals: int, of: float | None = None) -> str:
    """Return `value` with `decimals` decimals; in scientific notation where it (or `of`) needs that."""
    return f"{value:.{decimals}f}" if _is_moderate(value if of is None else of) else f"{value:.3e}"


def _is_moderate(value: float) -> bool:
    return value == 0 or 1e-3 <= abs(value) < 1e5


def as_csv(table: Table) -> str:
    """Return the raw rows as CSV with a header, lines ended by line feeds; nothing is an empty field.

    Texts that a spreadsheet would run as a formula get a quote before them; numbers are numbers.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in (table.raw_columns, *table.rows):
        writer.writerow([csv_cell(cell) if isinstance(cell, str) else cell for cell in row])
    return text.getvalue()


def as_markdown(table: Table, level: int = 2) -> str:
    """Return title (with level 0: none), table and notes as GitHub's Markdown."""
    rule = ["---:" if right else "---" for right in table.right]
    title = [f"{'#' * level} {markdown_prose(table.title)}", ""] if level else []
    lines = [*title, _markdown_row(table.columns), _markdown_row(rule)]
    lines += [_markdown_row(row) for row in table.shown]
    for note in table.notes:
        lines += ["", f"*{markdown_prose(note)}*"]
    return "\n".join(lines) + "\n"


def _is_numeric(cells: Sequence[Cell]) -> bool:
    return not any(isinstance(cell, str) for cell in cells) and any(cell is not None for cell in cells)


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(markdown, cells)) + " |"
