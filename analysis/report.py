"""The report of an experiment: tables, JSON, CSV, Markdown, and a folder of files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import SystemRefused
from ..printable import file_name, markdown_prose
from ..store.files import write_atomically
from .budget import BudgetResult
from .comparison import Comparison, ReportData
from .data import RunData
from .plots.figure import Figure
from .report_warnings import warnings
from .sections import applicable_sections
from .sections.budget import BudgetSection
from .tables import Cell, Table, as_csv, as_markdown

RUN_COLUMNS = ("budget", "kind", "clock", "value", "id", "name", "baseline", "seed")


def report_json(data: ReportData) -> dict[str, Any]:
    """Return the report as JSON values, times on the clock it names; non-finite numbers become None."""
    return {
        "experiment": data.experiment.experiment,
        "clock": data.clock,
        "budgets": [_budget_json(comparison) for comparison in data.comparisons],
        "warnings": warnings(data),
    }


def report_tables(data: ReportData) -> list[Table]:
    """Return the tables of all sections that apply."""
    return [table for section in applicable_sections(data) for table in section.tables(data)]


def budget_tables(data: ReportData) -> list[Table]:
    """Return the main tables: one for each budget."""
    return BudgetSection().tables(data)


def report_csv(data: ReportData) -> str:
    """Return the budget tables as one CSV: a row for each budget and configuration."""
    first, *tables = BudgetSection().tables(data)
    rows = first.rows + tuple(row for table in tables for row in table.rows)
    return as_csv(Table("", "", first.columns, (), first.raw_columns, rows, first.right))


def report_markdown(data: ReportData) -> str:
    """Return the whole report as Markdown, without figures."""
    return _report_markdown(data, [replace(part, figures=[]) for part in _section_parts(data)])


def write_report(data: ReportData, folder: Path) -> list[Path]:
    """Write report.md, tables/*.csv and figures/*.svg, *.png; return the paths, report.md first.

    Raises:
        SystemRefused: the folder cannot be made or written.
    """
    try:
        return _write_parts(data, _section_parts(data), folder)
    except OSError as error:
        raise SystemRefused(
            f"cannot write the report to {folder}: {error.strerror or error}",
            "choose another folder with --out DIR",
        ) from error


def runs_table(data: ReportData) -> Table:
    """Return every run within every budget, not summarised over seeds."""
    keys = list(dict.fromkeys(key for run in data.experiment.runs for key in run.row.params if key != "seed"))
    columns = (*RUN_COLUMNS, *keys, *BudgetResult.__dataclass_fields__, "diverged")
    rows = [row for comparison in data.comparisons for row in _run_rows(comparison, keys)]
    return Table.of("runs", "Runs", columns, rows)


@dataclass(frozen=True)
class _Part:
    """The tables and figures of a section, computed once."""

    title: str
    tables: Sequence[Table]
    figures: Sequence[Figure]


def _section_parts(data: ReportData) -> list[_Part]:
    return [
        _Part(section.title, section.tables(data), section.figures(data))
        for section in applicable_sections(data)
    ]


def _write_parts(data: ReportData, parts: Sequence[_Part], folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "report.md"]
    write_atomically(paths[0], _report_markdown(data, parts).encode())
    for table in (*(table for part in parts for table in part.tables), runs_table(data)):
        paths.append(_write_csv(table, folder / "tables"))
    for figure in (figure for part in parts for figure in part.figures):
        paths += figure.save(folder / "figures")
    return paths


def _write_csv(table: Table, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{file_name(table.name)}.csv"
    write_atomically(path, as_csv(table).encode())
    return path


def _report_markdown(data: ReportData, parts: Sequence[_Part]) -> str:
    blocks = [f"# {markdown_prose(data.experiment.experiment)}\n"]
    blocks += [f"> {markdown_prose(warning)}\n" for warning in warnings(data)]
    for part in parts:
        blocks += [f"## {markdown_prose(part.title)}\n", *_part_markdown(part)]
    return "\n".join(blocks)


def _part_markdown(part: _Part) -> list[str]:
    """Return figures and tables; a figure of a table's name stands under its heading, the others first."""
    images = {figure.name: _figure_markdown(figure) for figure in part.figures}
    blocks = []
    for table in part.tables:
        heading = [] if table.title == part.title else [f"### {markdown_prose(table.title)}\n"]
        blocks += [*heading, *filter(None, [images.pop(table.name, None)]), as_markdown(table, level=0)]
    return [*images.values(), *blocks]


def _figure_markdown(figure: Figure) -> str:
    title, caption = markdown_prose(figure.title), markdown_prose(figure.caption)
    return f"![{title}](figures/{figure.file}.svg)\n\n{caption}\n"


def _budget_json(comparison: Comparison) -> dict[str, Any]:
    budget = comparison.budget
    return {
        "kind": budget.kind,
        "label": budget.label,
        "value": budget.value,
        "runs": [_run_json(comparison, run, outcome) for run, outcome in _runs_with_results(comparison)],
    }


def _run_json(comparison: Comparison, run: RunData, outcome: BudgetResult) -> dict[str, Any]:
    return {
        "id": run.row.id,
        "name": run.row.name,
        "baseline": run.row.baseline,
        "params": _as_json_value(run.row.params),
        "seed": run.row.config.get("seed"),
        "budget": comparison.budget.limit(run),
        **{name: _as_json_value(getattr(outcome, name)) for name in BudgetResult.__dataclass_fields__},
        "diverged": run.diverged,
        "named": run.row.named,
    }


def _run_rows(comparison: Comparison, keys: Sequence[str]) -> list[tuple[Cell, ...]]:
    label, kind = comparison.budget.label, comparison.budget.kind
    return [
        (
            label,
            kind,
            comparison.clock,
            comparison.budget.limit(run),
            run.row.id,
            run.row.name,
            run.row.baseline,
            run.row.config.get("seed"),
            *(_as_cell(run.row.params.get(key)) for key in keys),
            *(getattr(outcome, name) for name in BudgetResult.__dataclass_fields__),
            run.diverged,
        )
        for run, outcome in _runs_with_results(comparison)
    ]


def _runs_with_results(comparison: Comparison) -> list[tuple[RunData, BudgetResult]]:
    """Return every run with its outcome, in the order of the spec."""
    return [
        (run, outcome)
        for entry in comparison.entries
        for run, outcome in zip(entry.configuration.runs, entry.outcomes, strict=True)
    ]


def _as_cell(value: Any) -> Cell:
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _as_json_value(value: Any) -> Any:
    """Return a value with non-finite numbers replaced by None."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _as_json_value(item) for key, item in value.items()}
    return [_as_json_value(item) for item in value] if isinstance(value, list) else value
