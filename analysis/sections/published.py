"""Every value that the reference prints of this experiment, and the value of these runs."""

from __future__ import annotations

from collections.abc import Iterator

from ..comparison import ReportData
from ..data import RunData
from ..reference import SETTING, Key, PublishedValue
from ..tables import Cell, Table
from ..thesis.compared_statistics import SCALE, Statistic, show_as_printed
from ..thesis.experiment_kind import has_grid, observes, stops_by_time
from ..thesis.matching import scheduled_configuration
from .alpha_beginning import AlphaBeginningSection
from .alpha_components import AlphaComponentsSection
from .alpha_dispersion import AlphaDispersionSection
from .base import ReportSection
from .best_and_worst import BestAndWorstSection
from .correlations import CorrelationsSection
from .rates_within_budget import RatesWithinBudgetSection
from .schedules import SchedulesSection
from .step_timings import StepTimingsSection
from .throughput import ThroughputSection

TITLE = "Beside the thesis"
COLUMNS = ("item", "I", "N", "quantity", "yours", "thesis", "yours at", "where the thesis has it")
SECTIONS: tuple[ReportSection, ...] = (
    SchedulesSection(),
    AlphaDispersionSection(),
    AlphaComponentsSection(),
    AlphaBeginningSection(),
    StepTimingsSection(),
    BestAndWorstSection(),
    CorrelationsSection(),
    RatesWithinBudgetSection(),
    ThroughputSection(),
)
"""The sections whose statistics the thesis prints."""
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
"""Quantities that are settings, or that repeat another row."""
ALIASES = {"best_minus_nadamw_schedule": "difference_to_nadamw_schedule"}
"""Quantities that are printed under two names."""
EMPTY = (
    "Yours is empty where the runs do not hold what a number follows from; it is never filled from the print."
)
SMALL = "Cells of a 3 × 3 grid are matched by their place, baselines and budgets by what they mean."
DOUBTS = "Doubtful prints, and where definitions differ, are listed in docs/explanation/thesis.md."


class PublishedSection(ReportSection):
    """The section “Beside the thesis”."""

    title = TITLE

    def applies(self, data: ReportData) -> bool:
        """Return whether the reference prints anything of this experiment."""
        return bool(_value_rows(data))

    def tables(self, data: ReportData) -> list[Table]:
        """Return one row for each printed value."""
        table = Table.of("published", TITLE, COLUMNS, _value_rows(data), [SCALE, EMPTY, SMALL, DOUBTS])
        return [show_as_printed(table, _printed_results(data))]


def _statistics_by_key(data: ReportData) -> dict[Key, Statistic]:
    """Return the statistics of all sections by their key; the first one with a value counts."""
    of_sections = [statistic for section in SECTIONS for statistic in section.statistics(data)]
    by_key: dict[Key, Statistic] = {}
    for statistic in (*of_sections, *_sanity_statistics(data)):
        if statistic.key is None:
            continue
        earlier = by_key.get(statistic.key)
        if earlier is None or earlier.value is None:
            by_key[statistic.key] = statistic
    return by_key


def _value_rows(data: ReportData) -> list[tuple[Cell, ...]]:
    printed = _printed_results(data)
    statistics = _statistics_by_key(data) if printed else {}
    return [_value_row(row, _matching_statistic(statistics, row.key)) for row in printed]


def _printed_results(data: ReportData) -> list[PublishedValue]:
    """Return the printed results of the parts that this experiment repeats."""
    if data.reference is None:
        return []
    parts = {row.key.part for row in data.reference.rows} - set(SETTING)
    if len(parts) > 2:  # No part was chosen by the name of the experiment: its structure decides.
        parts = set(_repeated_parts(data))
    return [
        row for row in data.reference.rows if row.key.part in parts and row.key.plain.quantity not in SETUP
    ]


def _repeated_parts(data: ReportData) -> Iterator[str]:
    if observes(data.experiment):
        yield "exp1"
    if has_grid(data.experiment):
        yield "exp2_time" if stops_by_time(data.experiment) else "exp2_steps"
    if scheduled_configuration(data) is not None:
        yield "schedule"


def _matching_statistic(statistics: dict[Key, Statistic], key: Key) -> Statistic | None:
    """Return the statistic of a printed value, whose cell may differ from the best cell of these runs."""
    plain = key.plain
    quantity = ALIASES.get(plain.quantity, plain.quantity)
    return statistics.get(Key(plain.item, quantity, plain.place)) or statistics.get(Key(plain.item, quantity))


def _value_row(row: PublishedValue, statistic: Statistic | None) -> tuple[Cell, ...]:
    interval, count = row.key.place or (None, None)
    value, where = (None, "") if statistic is None else (statistic.value, statistic.where)
    return (row.key.item, interval, count, row.key.quantity, value, row.value, where, row.source)


def _sanity_statistics(data: ReportData) -> Iterator[Statistic]:
    """Yield the highest loss that one applied step left; in theory 0 for one parameter and a squared loss."""
    applied = [run for run in data.experiment.runs if _applies_alpha(run)]
    losses = [
        row.losses["validation"]
        for run in applied
        for row in run.evaluations
        if _is_after_one_step(row.step, row.losses)
    ]
    if losses:
        yield Statistic(
            "all runs", "highest loss after one applied step", max(losses), key=Key("sanity", "tolerance")
        )


def _applies_alpha(run: RunData) -> bool:
    return bool(run.config_section("alpha").get("policy") == "apply")


def _is_after_one_step(step: int, losses: dict[str, float]) -> bool:
    return step == 1 and "validation" in losses
