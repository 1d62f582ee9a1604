"""Losses of methods over their starting rates, and their regret to the best tuned schedule.

A **method** is what remains of a configuration without its learning rate: policy, schedule, optimizer.
**Regret** is how much higher its best validation loss is than that of the reference, the method with a
schedule (and no policy that acts) whose best rate gives the lowest loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .data import RunData
from .methods import alpha_acts, canonical_text, group_by_workload, method_names, without_keys
from .statistics import MeanAndSD, median

REFERENCE = "warmup_cosine"
"""The schedule that other methods are compared with, where it was run."""
FEWEST_RATES = 3
"""The minimum number of rates of a tuned method, and of a figure over rates."""

Best = Callable[[RunData], float | None]
"""The best validation loss of a run, None where there is none."""


@dataclass(frozen=True)
class Trial:
    """A method at one starting rate (None: it has none), with the best loss of each seed.

    A seed that has none yet is left out; None: it has ended without one.
    """

    rate: float | None
    losses: tuple[float | None, ...]

    @cached_property
    def summary(self) -> MeanAndSD | None:
        """Over the seeds that have a loss."""
        return MeanAndSD.of(self.losses)

    @property
    def loss(self) -> float:
        """Mean over seeds; infinite where a seed has no finite loss."""
        return math.inf if self.summary is None or None in self.losses else self.summary.mean


@dataclass(frozen=True)
class Method:
    """A method on one workload, at each of its starting rates in order, and without a rate."""

    name: str
    schedule: str | None
    """Its schedule, if no policy acts."""
    trials: tuple[Trial, ...]
    free: Trial | None

    @property
    def best(self) -> Trial | None:
        """The trial at the rate with the lowest loss; the lowest such rate on ties."""
        lowest = min(self.trials, key=lambda trial: trial.loss, default=None)
        return None if lowest is None or lowest.summary is None else lowest

    @property
    def at_edge(self) -> bool:
        """Whether its best rate is the lowest or the highest that was tried."""
        return len(self.trials) > 1 and self.best in (self.trials[0], self.trials[-1])

    @property
    def losses(self) -> list[float]:
        """The losses at its rates."""
        return [trial.loss for trial in self.trials]


@dataclass(frozen=True)
class RateComparison:
    """All methods on one workload."""

    workload: str
    methods: tuple[Method, ...]

    @property
    def compares(self) -> bool:
        """Whether there are several methods (one without a rate counts), one of them over enough rates."""
        ways = sum(bool(method.trials) + (method.free is not None) for method in self.methods)
        return ways > 1 and any(len(method.trials) >= FEWEST_RATES for method in self.methods)

    @cached_property
    def reference(self) -> Method | None:
        """The best tuned method with the schedule `warmup_cosine`; else with any schedule; else of all."""
        tuned = [method for method in self.methods if method.best is not None]
        return min(tuned, key=lambda method: (_reference_rank(method), min(method.losses)), default=None)


@dataclass(frozen=True)
class Regret:
    """How much higher a loss is than the reference's: in per cent, and in the larger of the two SDs."""

    percent: float
    deviations: float | None

    @classmethod
    def of(cls, trial: Trial, reference: Trial) -> Regret | None:
        """Return the regret; None where either has no loss."""
        summary, reference_summary = trial.summary, reference.summary
        if summary is None or reference_summary is None:
            return None
        spreads = [
            spread for spread in (summary.deviation, reference_summary.deviation) if spread is not None
        ]
        spread = max(spreads) if len(spreads) == 2 else 0.0
        deviations = (trial.loss - reference_summary.mean) / spread if spread > 0 else None
        return cls(percent_above(trial.loss, reference_summary.mean), deviations)


def percent_above(loss: float, reference: float) -> float:
    """Return how much higher `loss` is, in per cent of the reference."""
    return 100 * (loss - reference) / abs(reference) if reference else math.nan


def spread_over_rates(method: Method) -> tuple[float, float] | None:
    """Return the median and the worst of the losses over its rates; None for fewer than two."""
    return (median(method.losses), max(method.losses)) if len(method.trials) > 1 else None


def rate_comparisons(runs: Iterable[RunData], best: Best) -> list[RateComparison]:
    """Return the workloads on which methods can be compared over starting rates."""
    with_rate = [run for run in runs if "lr" in run.config_section("optimizer")]
    groups = group_by_workload(with_rate, lambda run: run.row.config)
    comparisons = [RateComparison(workload, _methods_of(group, best)) for workload, group in groups]
    return [comparison for comparison in comparisons if comparison.compares]


def _reference_rank(method: Method) -> int:
    if method.schedule == REFERENCE:
        return 0
    return 2 if method.schedule is None else 1


def _methods_of(runs: Sequence[RunData], best: Best) -> tuple[Method, ...]:
    groups: dict[str, list[RunData]] = {}
    for run in runs:
        groups.setdefault(canonical_text(_method_section(run, only_name=True)), []).append(run)
    parts = [part for group in groups.values() for part in _split_by_options(group)]
    names = method_names([_method_section(part[0]) for part in parts])
    return tuple(_method_of(name, part, best) for name, part in zip(names, parts, strict=True))


def _method_section(run: RunData, *, only_name: bool = False) -> dict[str, Any]:
    """Return what remains of a config without its rate; `only_name`: of the optimizer only the name."""
    optimizer = run.row.config["optimizer"]
    optimizer_section = {"name": optimizer.get("name")} if only_name else without_keys(optimizer, "lr")
    return {"optimizer": optimizer_section, **{key: run.row.config.get(key) for key in ("schedule", "alpha")}}


def _split_by_options(runs: Sequence[RunData]) -> list[list[RunData]]:
    """Part runs by the optimizer's other options, unless these go with the rate, as they do under `zip`."""
    options: dict[float | None, set[str]] = {}
    for run in runs:
        options.setdefault(_starting_rate(run), set()).add(canonical_text(_method_section(run)))
    if all(len(texts) == 1 for texts in options.values()):
        return [list(runs)]
    groups: dict[str, list[RunData]] = {}
    for run in runs:
        groups.setdefault(canonical_text(_method_section(run)), []).append(run)
    return list(groups.values())


def _method_of(name: str, runs: Sequence[RunData], best: Best) -> Method:
    by_rate: dict[float | None, list[float | None]] = {}
    for run in runs:
        loss = best(run)
        if loss is not None or run.finished:
            by_rate.setdefault(_starting_rate(run), []).append(loss)
    config = runs[0].row.config
    schedule = None if alpha_acts(config) else (config.get("schedule") or {}).get("name")
    rates = sorted(rate for rate in by_rate if rate is not None)
    free = Trial(None, tuple(by_rate[None])) if None in by_rate else None
    return Method(name, schedule, tuple(Trial(rate, tuple(by_rate[rate])) for rate in rates), free)


def _starting_rate(run: RunData) -> float | None:
    rate: float | None = run.row.config["optimizer"]["lr"]
    return rate
