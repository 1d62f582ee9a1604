"""Methods crossed with optimizers and workloads: the best configuration of each, and its regret."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .configurations import Configuration
from .methods import alpha_acts, canonical_text, distinct_names, group_by_workload, method_names, without_keys
from .regret import REFERENCE, Regret, Trial

ConfigSection = dict[str, Any]

FEWEST = 2
"""The minimum number of optimizers, and of methods with each, to compare."""


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
    """All methods with all optimizers on one workload."""

    workload: str
    methods: tuple[OptimizerMethod, ...]

    @property
    def optimizers(self) -> list[str]:
        """The optimizers, in order."""
        return list(dict.fromkeys(method.optimizer for method in self.methods))

    @property
    def compares(self) -> bool:
        """Whether several optimizers ran with several methods each."""
        counts = [sum(method.optimizer == name for method in self.methods) for name in self.optimizers]
        return sum(count >= FEWEST for count in counts) >= FEWEST

    def reference(self, optimizer: str | None = None) -> OptimizerMethod | None:
        """Return the best tuned schedule, of one optimizer or of all; None if none acted."""
        scheduled = [
            method
            for method in self.methods
            if method.schedule is not None and optimizer in (None, method.optimizer)
        ]
        return min(
            scheduled, key=lambda method: (method.schedule != REFERENCE, method.best.loss), default=None
        )

    def regret(self, method: OptimizerMethod, optimizer: str | None = None) -> Regret | None:
        """Return how much higher a method's loss is than that of the reference."""
        reference = self.reference(optimizer)
        return None if reference is None else Regret.of(method.best, reference.best)


def optimizer_comparisons(configurations: Iterable[Configuration]) -> list[OptimizerComparison]:
    """Return the workloads on which several optimizers ran with several methods."""
    comparisons = [
        OptimizerComparison(workload, tuple(_optimizer_methods(group)))
        for workload, group in group_by_workload(configurations, _config_of)
    ]
    return [comparison for comparison in comparisons if comparison.compares]


def _optimizer_methods(configurations: Sequence[Configuration]) -> Iterator[OptimizerMethod]:
    groups: dict[tuple[str, str], list[Configuration]] = {}
    for configuration in configurations:
        keys = (
            canonical_text(_optimizer_without_rate(configuration)),
            canonical_text(_acting_section(configuration)),
        )
        groups.setdefault(keys, []).append(configuration)
    optimizers = _names_of_sections(
        map(_optimizer_without_rate, configurations), lambda section: str(section.get("name", ""))
    )
    methods = _names_of_sections(
        map(_acting_section, configurations), lambda section: method_names([section])[0]
    )
    for (optimizer, method), group in groups.items():
        trials = [(_trial_of(configuration), configuration.label) for configuration in group]
        with_loss = [(trial, label) for trial, label in trials if trial.summary is not None]
        if with_loss:
            best, label = min(with_loss, key=lambda pair: pair[0].loss)
            schedule = (_acting_section(group[0]).get("schedule") or {}).get("name")
            yield OptimizerMethod(optimizers[optimizer], methods[method], schedule, len(group), best, label)


def _names_of_sections(
    sections: Iterable[ConfigSection], name: Callable[[ConfigSection], str]
) -> dict[str, str]:
    """Return a name for each different section, by its canonical text."""
    different = {canonical_text(section): section for section in sections}
    names = distinct_names([name(section) for section in different.values()], list(different.values()))
    return dict(zip(different, names, strict=True))


def _trial_of(configuration: Configuration) -> Trial:
    losses = [(run, run.best_loss) for run in configuration.runs]
    rate = (_config_of(configuration).get("optimizer") or {}).get("lr")
    return Trial(rate, tuple(loss for run, loss in losses if loss is not None or run.finished))


def _config_of(configuration: Configuration) -> Mapping[str, Any]:
    return configuration.runs[0].row.config


def _optimizer_without_rate(configuration: Configuration) -> ConfigSection:
    return without_keys(_config_of(configuration).get("optimizer") or {}, "lr")


def _acting_section(configuration: Configuration) -> ConfigSection:
    config = _config_of(configuration)
    if alpha_acts(config):
        return {"alpha": {"policy": config["alpha"]["policy"]}}
    schedule = config.get("schedule")
    return {"schedule": {"name": schedule.get("name")} if schedule else None}


def percent_text(regret: Regret | None) -> str:
    """Return a regret in per cent with its sign."""
    if regret is None or not math.isfinite(regret.percent):
        return "–"
    return f"{regret.percent:+.1f}"
