"""How far a budget of time carries: steps, seconds per step, what α* steps cost, and waiting for data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..clocks import waiting_share, working_seconds
from ..comparison import Comparison, Entry, ReportData
from ..costs import implied_alpha_cost, slow_nodes_note, steps_with_alpha
from ..data import RunData
from ..dispersion import ratio
from ..epochs import epochs
from ..observed_alphas import over_seeds
from ..reference import Key, Reference
from ..statistics import mean
from ..tables import Cell, Table
from ..thesis.compared_statistics import SCALE, Statistic, as_whole_number, printed_column
from ..thesis.experiment_kind import observes, stops_by_time
from ..thesis.matching import NADAMW, baseline_item, budget_item, scheduled_configuration, thesis_cell
from .base import ReportSection

TITLE = "Steps within a budget of time"
WAIT_TITLE = "Waiting for data, run by run"
WAIT_COLUMNS = (
    "run",
    "nodes",
    "steps",
    "passes over the data",
    "training time (s)",
    "seconds per step",
    "waiting for data (%)",
    "time without it (s)",
)
THESIS_START = 2000
IMPLIED = (
    "Implied cost: (time − steps · plain step) / α* steps, with the seconds per step of the baseline that "
    "only follows a schedule: what an α* step took beyond a plain one, whatever was measured in it."
)
THESIS_IMPLIED = (
    "The thesis prints no such cost; its column follows from the steps that it prints and 13,699.45 s / "
    "85,328 steps = 0.1606 s (its text has 0.13 s, 0.29 s and 0.6124 s for a plain step, which do not "
    "agree)."
)
FEWEST = "At 61,624 s its text names 16,025 at (1000, 50) as the fewest; table C.2 has 14,031 at (2000, 50)."
WAITING = "As measured. `--clock without-data-wait` reads every budget from the time without that wait."


class ThroughputSection(ReportSection):
    """The section “Steps within a budget of time”."""

    title = TITLE

    def applies(self, data: ReportData) -> bool:
        """Return whether any window of steps was recorded."""
        return any(run.windows for run in data.experiment.runs) or bool(
            _time_comparisons(data) and data.reference
        )

    def tables(self, data: ReportData) -> list[Table]:
        """Return one table for each budget of time, and one of the runs."""
        return [
            *(_throughput_table(data, comparison) for comparison in _time_comparisons(data)),
            *_waiting_table(data),
        ]

    def statistics(self, data: ReportData) -> list[Statistic]:
        """Return the steps reached, the seconds per step of the schedule, and the epochs over the data."""
        return [*_steps_reached_statistics(data), *_baseline_statistics(data), *_epochs_statistics(data)]


def _time_comparisons(data: ReportData) -> list[Comparison]:
    return [comparison for comparison in data.comparisons if comparison.kind == "seconds"]


def _throughput_table(data: ReportData, comparison: Comparison) -> Table:
    entries, other = comparison.entries, comparison.on_other_clock
    keys = [_steps_key(data, comparison, entry) for entry in entries]
    columns: dict[str, list[Cell]] = {"configuration": [entry.configuration.label for entry in entries]}
    columns["steps"] = [_mean_steps(entry) for entry in entries]
    printed = printed_column(data.reference, "steps", keys)
    columns |= printed
    if other is not None:
        columns[f"… on the {other.clock} clock"] = [_mean_steps(entry) for entry in other.entries]
    columns["seconds per step"] = [
        ratio(_mean_seconds(comparison, entry), _mean_steps(entry)) for entry in entries
    ]
    columns |= _alpha_columns(data, comparison)
    rows = list(zip(*columns.values(), strict=True))
    slow = slow_nodes_note(data.experiment.runs)
    paid = "α* steps" in columns
    notes = [
        *([IMPLIED] if paid else []),
        *([THESIS_IMPLIED, FEWEST, SCALE] if printed else []),
        *([slow] if slow else []),
    ]
    title = f"Steps within {comparison.title}"
    return Table.of(f"steps-{comparison.slug}", title, list(columns), rows, notes)


def _alpha_columns(data: ReportData, comparison: Comparison) -> dict[str, list[Cell]]:
    """Return α* steps and their implied cost, where any were paid for."""
    paid = [_alpha_steps(entry) for entry in comparison.entries]
    if not any(paid):
        return {}
    plain = _plain_step(data)
    columns: dict[str, list[Cell]] = {"α* steps": list(paid)}
    columns["implied cost of one (s)"] = [
        _implied_cost(comparison, entry, alpha, plain)
        for entry, alpha in zip(comparison.entries, paid, strict=True)
    ]
    if data.reference is not None:
        printed_costs = [
            _implied_by_print(data, data.reference, comparison, entry) for entry in comparison.entries
        ]
        columns |= {"implied cost, thesis": list(printed_costs)} if any(printed_costs) else {}
    return columns


def _implied_cost(
    comparison: Comparison, entry: Entry, alpha: float | None, plain: float | None
) -> float | None:
    steps, seconds = _mean_steps(entry), _mean_seconds(comparison, entry)
    if not alpha or plain is None or steps is None or seconds is None:
        return None
    return implied_alpha_cost(seconds, steps, alpha, plain)


def _implied_by_print(
    data: ReportData, reference: Reference, comparison: Comparison, entry: Entry
) -> float | None:
    """Return the cost that follows from the printed steps of a cell."""
    cell, item = thesis_cell(data, entry.configuration), budget_item(data, comparison) or ""
    steps, seconds = (
        reference.value(_steps_key(data, comparison, entry)),
        reference.value(Key(item, "budget")),
    )
    schedule_steps = reference.value(Key("schedule", "total_steps"))
    time = reference.value(Key("exp2_time.budget_13699", "budget"))
    if cell is None or steps is None or seconds is None or not schedule_steps or time is None:
        return None
    alpha = steps_with_alpha(int(steps), THESIS_START, *cell)
    return implied_alpha_cost(seconds, steps, alpha, time / schedule_steps)


def _steps_key(data: ReportData, comparison: Comparison, entry: Entry) -> Key | None:
    item, cell = budget_item(data, comparison), thesis_cell(data, entry.configuration)
    if item is not None and baseline_item(entry.configuration) == NADAMW:
        return Key(f"{item}.{NADAMW}", "steps_reached")
    return None if item is None or cell is None else Key(f"{item}.grid", "steps_reached", cell)


def _mean_steps(entry: Entry) -> float | int | None:
    return None if entry.steps_reached is None else as_whole_number(entry.steps_reached.mean)


def _mean_seconds(comparison: Comparison, entry: Entry) -> float | None:
    """Return the mean time that a configuration's runs spent within the budget, at most all they took."""
    limits = [(run.curve, comparison.budget.limit(run)) for run in entry.configuration.runs]
    return mean(None if limit is None else curve.seconds_within(limit, "seconds") for curve, limit in limits)


def _alpha_steps(entry: Entry) -> float | int | None:
    """Return how many of the steps reached paid for an α*, as the mean over seeds."""
    pairs = zip(entry.configuration.runs, entry.outcomes, strict=True)
    return as_whole_number(
        mean(
            sum(window.alpha_steps for window in run.windows if window.step <= (outcome.steps_reached or 0))
            for run, outcome in pairs
        )
    )


def _plain_step(data: ReportData) -> float | None:
    """Return the seconds per step of the configuration that only follows a schedule."""
    configuration = scheduled_configuration(data)
    return None if configuration is None else over_seeds(configuration, seconds_per_step)


def seconds_per_step(run: RunData) -> float | None:
    """Return the training time of a run per step, its schedule's where it has got that far."""
    curve = run.curve
    steps = min(curve.step, run.schedule_steps or curve.step)
    return ratio(curve.seconds_at(steps), float(steps)) if steps else None


def _steps_reached_statistics(data: ReportData) -> Iterator[Statistic]:
    for comparison in _time_comparisons(data):
        for entry in comparison.entries:
            key = _steps_key(data, comparison, entry)
            if key is not None:
                yield Statistic(
                    comparison.title, f"steps, {entry.configuration.label}", _mean_steps(entry), key=key
                )


def _baseline_statistics(data: ReportData) -> Iterator[Statistic]:
    configuration = scheduled_configuration(data)
    if configuration is None or baseline_item(configuration) != NADAMW:
        return
    part = "exp2_time" if stops_by_time(data.experiment) else "exp2_steps"
    value = over_seeds(configuration, seconds_per_step)
    key = Key(f"{part}.{NADAMW}", "seconds_per_step")
    yield Statistic(configuration.label, "seconds per step", value, key=key)


def _epochs_statistics(data: ReportData) -> Iterator[Statistic]:
    if observes(data.experiment):
        value = mean(epochs(run) for run in data.experiment.runs)
        yield Statistic(
            "all runs", "passes over the training data", value, key=Key("exp1", "train_split_passes")
        )


def _waiting_table(data: ReportData) -> list[Table]:
    rows = [_waiting_row(run) for run in data.experiment.runs if run.windows]
    if not rows:
        return []
    slow = slow_nodes_note(data.experiment.runs)
    return [
        Table.of("waiting-for-data", WAIT_TITLE, WAIT_COLUMNS, rows, [WAITING, *([slow] if slow else [])])
    ]


def _waiting_row(run: RunData) -> Sequence[Cell]:
    nodes = dict.fromkeys(attempt.host for attempt in run.attempts if attempt.host)
    total = sum(window.seconds.get("data") or 0.0 for window in run.windows) + sum(
        map(working_seconds, run.windows)
    )
    steps, share = sum(window.steps for window in run.windows), waiting_share(run)
    return (
        run.row.name,
        ", ".join(nodes),
        steps,
        epochs(run),
        total,
        ratio(total, steps),
        None if share is None else 100 * share,
        sum(map(working_seconds, run.windows)),
    )
