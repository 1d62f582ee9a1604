"""Configurations side by side within one budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from .budget import BudgetResult, Kind
from .budget_labels import Budget
from .clocks import Clock
from .configurations import Axis, Configuration
from .data import ExperimentData, RunData
from .durations import duration
from .reference import Reference
from .statistics import MeanAndSD, mean


@dataclass(frozen=True)
class Entry:
    """A configuration within a budget: one outcome for each of its runs, and their summaries."""

    configuration: Configuration
    outcomes: tuple[BudgetResult, ...]

    @cached_property
    def best(self) -> MeanAndSD | None:
        """Over seeds, the best validation loss within the budget."""
        return MeanAndSD.of(outcome.best_validation_loss for outcome in self.outcomes)

    @cached_property
    def test(self) -> MeanAndSD | None:
        """Over seeds, the test loss at the evaluation that was best."""
        return MeanAndSD.of(outcome.test_loss_at_best for outcome in self.outcomes)

    @cached_property
    def step_at_best(self) -> MeanAndSD | None:
        """Over seeds, the step of that evaluation."""
        return MeanAndSD.of(outcome.step_at_best for outcome in self.outcomes)

    @cached_property
    def seconds_at_best(self) -> MeanAndSD | None:
        """Over seeds, its train_seconds."""
        return MeanAndSD.of(outcome.train_seconds_at_best for outcome in self.outcomes)

    @cached_property
    def steps_reached(self) -> MeanAndSD | None:
        """Over seeds, the steps done within the budget."""
        return MeanAndSD.of(outcome.steps_reached for outcome in self.outcomes)

    @property
    def complete(self) -> bool:
        """Whether every run reached the budget, or finished."""
        return all(outcome.complete for outcome in self.outcomes)

    @property
    def diverged(self) -> bool:
        """Whether a run of it diverged, within the budget or later."""
        return any(run.diverged for run in self.configuration.runs)

    @cached_property
    def share_done(self) -> float | None:
        """Mean share of the schedule (else of `stop.steps`) that was done within the budget."""
        shares = [
            _share_of_schedule(run, out)
            for run, out in zip(self.configuration.runs, self.outcomes, strict=True)
        ]
        return mean(shares)

    @property
    def notes(self) -> list[str]:
        """Notes: seeds without a value, incomplete, diverged, no longer in the spec."""
        runs, n = self.configuration.runs, len(self.outcomes)
        with_loss = sum(outcome.best_validation_loss is not None for outcome in self.outcomes)
        incomplete = sum(not outcome.complete for outcome in self.outcomes)
        marks = [
            ("nothing within the budget" if n == 1 else f"nothing in {n - with_loss} of {n}", with_loss < n),
            ("incomplete" if n == 1 else f"{incomplete} of {n} incomplete", incomplete > 0),
            (_divergence_note(runs), self.diverged),
            ("no longer in the spec", not all(run.row.named for run in runs)),
        ]
        return [text for text, applies in marks if applies]


@dataclass(frozen=True)
class Comparison:
    """All configurations within one budget; `on_other_clock` is the same on the other clock, if available.

    The clock changes nothing in a budget of steps but the time at which a loss was reached.
    """

    budget: Budget
    entries: tuple[Entry, ...]
    clock: Clock = "measured"
    on_other_clock: Comparison | None = None

    @property
    def kind(self) -> Kind:
        """What the budget counts."""
        return self.budget.kind

    @cached_property
    def ranked(self) -> list[Entry]:
        """The entries by mean best loss, those without one last; equal ones in the order of the spec."""
        return sorted(self.entries, key=lambda entry: entry.best.mean if entry.best else math.inf)

    @property
    def cells(self) -> list[Entry]:
        """The entries of the grid."""
        return [entry for entry in self.entries if entry.configuration.baseline is None]

    @property
    def baselines(self) -> list[Entry]:
        """The entries of the baselines."""
        return [entry for entry in self.entries if entry.configuration.baseline is not None]

    @property
    def runs(self) -> list[RunData]:
        """The runs of all configurations."""
        return [run for entry in self.entries for run in entry.configuration.runs]

    @property
    def title(self) -> str:
        """The budget in words, and the clock of a time: `2.3 h (until:nadamw), measured clock`."""
        return self.amount + (f", {self.clock} clock" if self.kind == "seconds" else "")

    @property
    def amount(self) -> str:
        """The budget in words: `2.3 h (until:nadamw)`."""
        label, value = self.budget.label, self.budget.value
        name = f"{label} of each run's stop" if label.endswith("%") else label
        if value is None:
            return name if label.endswith("%") else f"{name} (not reached yet)"
        if not _is_number(label):
            return f"{self._amount_text(value)} ({name})"
        long = self.kind == "seconds" and value >= 300
        return self._amount_text(value) + (f" ({value:,.10g} s)" if long else "")

    @property
    def slug(self) -> str:
        """The budget as part of a file name."""
        text = "".join(char if char.isalnum() or char in ".-" else "-" for char in self.budget.label)
        clock = f"-{self.clock}" if self.kind == "seconds" and self.clock != "measured" else ""
        return f"{self.kind}-{text.strip('-.')}" + ("pct" if self.budget.label.endswith("%") else "") + clock

    def _amount_text(self, value: float) -> str:
        return duration(value) if self.kind == "seconds" else f"{value:,.10g} steps"


@dataclass(frozen=True)
class ReportData:
    """What every section works from: the experiment, its configurations and axes, and the comparisons.

    All train_seconds are on `clock`. `on_other_clock` has the same configurations on the other clock, if
    available. `explicit_budgets`: the caller named the budgets. `reference` holds published values to compare
    with.
    """

    experiment: ExperimentData
    configurations: tuple[Configuration, ...]
    axes: tuple[Axis, ...]
    comparisons: tuple[Comparison, ...]
    clock: Clock = "measured"
    explicit_budgets: bool = False
    reference: Reference | None = None
    on_other_clock: tuple[Configuration, ...] | None = None

    @property
    def other_clock(self) -> Clock:
        """The clock of `on_other_clock`."""
        return "normalised" if self.clock == "measured" else "measured"

    @property
    def on_both_clocks(self) -> list[Comparison]:
        """The comparisons, each followed by the one on the other clock, where there is one."""
        return [
            on_clock
            for comparison in self.comparisons
            for on_clock in (comparison, comparison.on_other_clock)
            if on_clock
        ]

    @property
    def most_seeds(self) -> int:
        """The largest number of runs of one configuration."""
        return max((len(configuration.runs) for configuration in self.configurations), default=0)


def _share_of_schedule(run: RunData, outcome: BudgetResult) -> float | None:
    total = run.schedule_steps or run.stop.get("steps")
    return None if outcome.steps_reached is None or not total else outcome.steps_reached / total


def _divergence_note(runs: Sequence[RunData]) -> str:
    steps = [run.curve.step for run in runs if run.diverged]
    if len(runs) == 1:
        return "".join(f"diverged at step {step:,}" for step in steps)
    return f"{len(steps)} of {len(runs)} diverged"


def _is_number(label: str) -> bool:
    return not label.endswith("%") and label != "all" and "until:" not in label
