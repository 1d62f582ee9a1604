"""Methods crossed with optimizers and workloads: the best configuration of each, and its regret."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .configurations import Configuration
from .methods import acts, canonical, method_names, told_apart, without
from .regret import REFERENCE, Regret, Trial
from .search_cost import best_loss

ConfigSection = dict[str, Any]

FEWEST = 2
"""So many optimizers, and so many methods with each, make a crossing."""


@dataclass(frozen=True)
class OptimizerMethod:
    """One method with one optimizer on one workload: `k` configurations, and the trial of the best."""

    optimizer: str
    method: str
    schedule: str | None
    """Its schedule, if no policy acts."""
    k: int
    best: Trial
    label: str
    """The best configuration."""


@dataclass(frozen=True)
class OptimizerComparison:
    """All crossings on one workload."""

    workload: str
    crossings: tuple[OptimizerMethod, ...]

    @property
    def optimizers(self) -> list[str]:
        """The optimizers, in order."""
        return list(dict.fromkeys(one.optimizer for one in self.crossings))

    @property
    def compares(self) -> bool:
        """Whether several optimizers ran with several methods each."""
        counts = [sum(one.optimizer == name for one in self.crossings) for name in self.optimizers]
        return sum(count >= FEWEST for count in counts) >= FEWEST

    def reference(self, optimizer: str | None = None) -> OptimizerMethod | None:
        """Return the best tuned schedule, of one optimizer or of all; None if none acted."""
        scheduled = [
            one for one in self.crossings if one.schedule is not None and optimizer in (None, one.optimizer)
        ]
        return min(scheduled, key=lambda one: (one.schedule != REFERENCE, one.best.loss), default=None)

    def regret(self, crossing: OptimizerMethod, optimizer: str | None = None) -> Regret | None:
        """Return how much higher a crossing's loss is than that of the reference."""
        reference = self.reference(optimizer)
        return None if reference is None else Regret.of(crossing.best, reference.best)


def optimizer_comparisons(configurations: Iterable[Configuration]) -> list[OptimizerComparison]:
    """Return the workloads on which several optimizers ran with several methods."""
    groups: dict[str, list[Configuration]] = {}
    for configuration in configurations:
        groups.setdefault(canonical(_config(configuration).get("workload")), []).append(configuration)
    sections = [_config(group[0]).get("workload") or {} for group in groups.values()]
    names = told_apart([str(section.get("name", "workload")) for section in sections], sections)
    found = [
        OptimizerComparison(name, tuple(_crossings(of)))
        for name, of in zip(names, groups.values(), strict=True)
    ]
    return [comparison for comparison in found if comparison.compares]


def _crossings(configurations: Sequence[Configuration]) -> Iterator[OptimizerMethod]:
    groups: dict[tuple[str, str], list[Configuration]] = {}
    for configuration in configurations:
        keys = canonical(_optimizer(configuration)), canonical(_method(configuration))
        groups.setdefault(keys, []).append(configuration)
    optimizers = _names(map(_optimizer, configurations), lambda section: str(section.get("name", "")))
    methods = _names(map(_method, configurations), lambda section: method_names([section])[0])
    for (optimizer, method), group in groups.items():
        trials = [(_trial(configuration), configuration.label) for configuration in group]
        known = [(trial, label) for trial, label in trials if trial.summary is not None]
        if known:
            best, label = min(known, key=lambda pair: pair[0].loss)
            schedule = (_method(group[0]).get("schedule") or {}).get("name")
            yield OptimizerMethod(optimizers[optimizer], methods[method], schedule, len(group), best, label)


def _names(sections: Iterable[ConfigSection], name: Callable[[ConfigSection], str]) -> dict[str, str]:
    """Return a name for each different section, by its canonical text."""
    different = {canonical(section): section for section in sections}
    names = told_apart([name(section) for section in different.values()], list(different.values()))
    return dict(zip(different, names, strict=True))


def _trial(configuration: Configuration) -> Trial:
    losses = [(run, best_loss(run)) for run in configuration.runs]
    rate = (_config(configuration).get("optimizer") or {}).get("lr")
    return Trial(rate, tuple(loss for run, loss in losses if loss is not None or run.finished))


def _config(configuration: Configuration) -> Mapping[str, Any]:
    return configuration.runs[0].row.config


def _optimizer(configuration: Configuration) -> ConfigSection:
    return without(_config(configuration).get("optimizer") or {}, "lr")


def _method(configuration: Configuration) -> ConfigSection:
    config = _config(configuration)
    if acts(config):
        return {"alpha": {"policy": config["alpha"]["policy"]}}
    schedule = config.get("schedule")
    return {"schedule": {"name": schedule.get("name")} if schedule else None}


def percent_text(regret: Regret | None) -> str:
    """Return a regret in per cent with its sign."""
    if regret is None or not math.isfinite(regret.percent):
        return "–"
    return f"{regret.percent:+.1f}"
