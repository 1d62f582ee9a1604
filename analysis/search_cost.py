"""Time to result of a method, with every run of the search for its settings.

A **search** is all configurations of one method (policy and estimator, else the schedule; and the
optimizer): they differ in settings that the search chooses. It trains every one of them
to its end to find the best. Of the best one, the **winner**, only the time until it reaches the **target**
counts. The target is the result of the reference, the schedule with the most configurations: the highest
over its seeds, so that each of these reaches it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .configurations import Configuration
from .data import RunData
from .methods import alpha_acts, canonical_text, group_by_workload, method_names
from .regret import REFERENCE
from .statistics import MeanAndSD, expected_best


@dataclass(frozen=True)
class SeedSearch:
    """A search done with one seed: a run of each configuration that has ended with a loss."""

    runs: tuple[RunData, ...]

    @cached_property
    def losses(self) -> list[float]:
        """The best validation loss of each run over its whole length; infinite if none was finite."""
        return [math.inf if run.best_loss is None else run.best_loss for run in self.runs]

    @property
    def result(self) -> float:
        """The lowest of them."""
        return min(self.losses)

    @property
    def seconds(self) -> float:
        """The train_seconds of all runs."""
        return math.fsum(run.curve.train_seconds for run in self.runs)

    def seconds_to(self, target: float) -> float | None:
        """Return the time of the losers, and the winner's up to the target; None if it stays above."""
        winner = self.runs[self.losses.index(self.result)]
        reached = _first_seconds_at(winner, target)
        return None if reached is None else self.seconds - winner.curve.train_seconds + reached


@dataclass(frozen=True)
class Search:
    """All configurations of one method on one workload."""

    workload: str
    name: str
    schedule: str | None
    """Its schedule, if no policy acts."""
    k: int
    seeds: tuple[SeedSearch, ...]

    @property
    def result(self) -> MeanAndSD | None:
        """Mean and SD over seeds of what the search finds."""
        return MeanAndSD.of(seed.result for seed in self.seeds)

    @property
    def seconds(self) -> MeanAndSD | None:
        """Mean and SD over seeds of the time of all its runs."""
        return MeanAndSD.of(seed.seconds for seed in self.seeds)

    def seconds_to(self, target: float) -> MeanAndSD | None:
        """Summarise the time to the target over the seeds that reach it; None if none does."""
        return MeanAndSD.of(seed.seconds_to(target) for seed in self.seeds)

    def expected(self, k: int) -> tuple[float, float]:
        """Return what a search over `k` configurations costs and finds: means over choices and seeds."""
        seconds = [k * seed.seconds / len(seed.runs) for seed in self.seeds]
        losses = [expected_best(seed.losses, k) for seed in self.seeds]
        return math.fsum(seconds) / len(seconds), math.fsum(losses) / len(losses)


@dataclass(frozen=True)
class SearchComparison:
    """All methods on one workload, and the reference among them."""

    workload: str
    searches: tuple[Search, ...]
    reference: Search

    @property
    def target(self) -> float:
        """The validation loss to be reached."""
        return max(seed.result for seed in self.reference.seeds)


def search_comparisons(configurations: Iterable[Configuration]) -> list[SearchComparison]:
    """Return the workloads on which a schedule and another method ran, one with settings to choose."""
    groups = group_by_workload(configurations, lambda configuration: configuration.runs[0].row.config)
    comparisons = [_search_comparison(workload, group) for workload, group in groups]
    return [comparison for comparison in comparisons if comparison is not None]


def _search_comparison(workload: str, configurations: Sequence[Configuration]) -> SearchComparison | None:
    groups: dict[str, list[Configuration]] = {}
    for configuration in configurations:
        groups.setdefault(canonical_text(_method_section(configuration)), []).append(configuration)
    names = method_names([_method_section(group[0]) for group in groups.values()])
    all_searches = [
        _search_of(workload, name, group) for name, group in zip(names, groups.values(), strict=True)
    ]
    searches = tuple(search for search in all_searches if search.seeds)
    scheduled = [search for search in searches if search.schedule is not None]
    if len(searches) < 2 or not scheduled or max(search.k for search in searches) < 2:
        return None
    reference = max(scheduled, key=lambda search: (search.schedule == REFERENCE, search.k))
    return SearchComparison(workload, searches, reference)


def _method_section(configuration: Configuration) -> dict[str, Any]:
    """Return what is not chosen by a search: optimizer, schedule, policy and estimator, by name."""
    config = configuration.runs[0].row.config
    alpha, schedule = (config.get(key) or {} for key in ("alpha", "schedule"))
    optimizer = {"name": (config.get("optimizer") or {}).get("name")}
    if alpha_acts(config):
        alpha_names = {key: alpha.get(key) for key in ("policy", "estimator")}
        return {"optimizer": optimizer, "schedule": None, "alpha": alpha_names}
    return {"optimizer": optimizer, "schedule": {"name": schedule.get("name")} if schedule else None}


def _search_of(workload: str, name: str, configurations: Sequence[Configuration]) -> Search:
    schedule = _method_section(configurations[0])["schedule"]
    by_seed: dict[Any, list[RunData]] = {}
    for run in (run for configuration in configurations for run in configuration.runs):
        if run.finished:
            by_seed.setdefault(run.row.config.get("seed"), []).append(run)
    complete = [tuple(runs) for runs in by_seed.values() if len(runs) == len(configurations)]
    seeds = tuple(seed for seed in map(SeedSearch, complete) if math.isfinite(seed.result))
    return Search(workload, name, schedule and schedule["name"], len(configurations), seeds)


def _first_seconds_at(run: RunData, target: float) -> float | None:
    """Return the train_seconds of the first evaluation whose validation loss is at most the target."""
    reached = [
        row.train_seconds for row in run.curve.evaluations if row.losses.get("validation", math.nan) <= target
    ]
    return min(reached, default=None)
