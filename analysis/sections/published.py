"""Every number that the reference prints of this experiment, one's own beside it where the store tells it."""

from __future__ import annotations

from collections.abc import Iterator

from ..comparison import ReportData
from ..data import RunData
from ..plots.figure import Figure
from ..reference import SETTING, Key, Published
from ..tables import Cell, Table
from ..thesis.computed_values import SCALE, Fact, as_printed
from ..thesis.experiment_kind import has_grid, observes, stops_by_time
from ..thesis.matching import scheduled
from . import (
    alpha_beginning,
    alpha_components,
    alpha_dispersion,
    best_and_worst,
    correlations,
    rates_within_budget,
    schedules,
    step_timings,
    throughput,
)

TITLE = "Beside the thesis"
COLUMNS = ("item", "I", "N", "quantity", "yours", "thesis", "yours at", "where the thesis has it")
SECTIONS = (
    schedules,
    alpha_dispersion,
    alpha_components,
    alpha_beginning,
    step_timings,
    best_and_worst,
    correlations,
    rates_within_budget,
    throughput,
)
SETUP = frozenset(
    [
        "configuration",
        "steps",
        "alpha_interval",
        "alpha_count",
        "evaluation_interval",
        "first_evaluation_step",
        "worst_configuration",
        "evaluation_interval_ratio_to_algoperf",
        "evaluation_interval_minutes",
        "schedule_steps_before_alpha",
        "budget_multiple_of_7703",
        "gpu_memory_share",
        "ratio_to_schedule_and_unbiased",
    ]
)
"""Quantities that are settings, or say nothing that another row does not."""
ALIASES = {"best_minus_nadamw_schedule": "difference_to_nadamw_schedule"}
"""Two names of one thing, printed in two places."""
EMPTY = (
    "Yours is empty where the runs do not hold what a number follows from; it is never filled from the print."
)
SMALL = "Cells of a 3 × 3 grid are matched by their place, baselines and budgets by what they mean."
DOUBTS = "Doubtful prints, and where definitions differ, are listed in docs/explanation/thesis.md."


def applies(data: ReportData) -> bool:
    """Tell whether the reference prints anything of this experiment."""
    return bool(_rows(data))


def tables(data: ReportData) -> list[Table]:
    """Return one row for each printed value."""
    table = Table.of("published", TITLE, COLUMNS, _rows(data), [SCALE, EMPTY, SMALL, DOUBTS])
    return [as_printed(table, _printed(data))]


def figures(data: ReportData) -> list[Figure]:
    """Return none."""
    return []


def facts(data: ReportData) -> dict[Key, Fact]:
    """Return what the store tells, by the key under which it may be printed; known values first."""
    found: dict[Key, Fact] = {}
    for fact in (*(fact for section in SECTIONS for fact in section.facts(data)), *_sanity(data)):
        known = None if fact.key is None else found.get(fact.key)
        if fact.key is not None and (known is None or known.value is None):
            found[fact.key] = fact
    return found


def _rows(data: ReportData) -> list[tuple[Cell, ...]]:
    printed = _printed(data)
    found = facts(data) if printed else {}
    return [_row(row, _fact(found, row.key)) for row in printed]


def _printed(data: ReportData) -> list[Published]:
    """Return the printed results of the parts that this experiment repeats."""
    if data.reference is None:
        return []
    parts = {row.key.part for row in data.reference.rows} - set(SETTING)
    if len(parts) > 2:  # nobody's twin: what it repeats must be told by its structure
        parts = set(_parts(data))
    return [
        row for row in data.reference.rows if row.key.part in parts and row.key.plain.quantity not in SETUP
    ]


def _parts(data: ReportData) -> Iterator[str]:
    if observes(data.experiment):
        yield "exp1"
    if has_grid(data.experiment):
        yield "exp2_time" if stops_by_time(data.experiment) else "exp2_steps"
    if scheduled(data) is not None:
        yield "schedule"


def _fact(found: dict[Key, Fact], key: Key) -> Fact | None:
    """Return the fact of a printed value, whose cell may be another than that of one's own best."""
    plain = key.plain
    wanted = Key(plain.item, ALIASES.get(plain.quantity, plain.quantity), plain.place)
    return found.get(wanted) or found.get(Key(wanted.item, wanted.quantity))


def _row(row: Published, fact: Fact | None) -> tuple[Cell, ...]:
    interval, count = row.key.place or (None, None)
    value, where = (None, "") if fact is None else (fact.value, fact.where)
    return (row.key.item, interval, count, row.key.quantity, value, row.value, where, row.source)


def _sanity(data: ReportData) -> Iterator[Fact]:
    """Yield the highest loss that one applied step left; theory says 0 for one parameter and squares."""
    applied = [run for run in data.experiment.runs if _applies(run)]
    losses = [
        row.losses["validation"]
        for run in applied
        for row in run.evaluations
        if _after_one(row.step, row.losses)
    ]
    if losses:
        yield Fact(
            "all runs", "highest loss after one applied step", max(losses), key=Key("sanity", "tolerance")
        )


def _applies(run: RunData) -> bool:
    return bool((run.row.config.get("alpha") or {}).get("policy") == "apply")


def _after_one(step: int, losses: dict[str, float]) -> bool:
    return step == 1 and "validation" in losses
