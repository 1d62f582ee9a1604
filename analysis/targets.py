"""The target losses of a benchmark, and when runs reached them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .comparison import ReportData
from .data import RunData
from .statistics import median


@dataclass(frozen=True)
class Target:
    """What a run must reach on either split."""

    validation: float
    test: float


TARGETS = {"criteo1tb": Target(validation=0.123735, test=0.126041)}
"""AlgoPerf's, by workload (Dahl et al., arXiv 2306.07179); other workloads here are not its."""


@dataclass(frozen=True)
class TargetReached:
    """How many seeds reached a target, and the median step and train_seconds at which they did."""

    seeds: int
    step: float | None
    seconds: float | None


def target_of(data: ReportData) -> Target | None:
    """Return the target of the one workload that an experiment trains; None where it has none."""
    names = {str(run.config_section("workload").get("name")) for run in data.experiment.runs}
    return TARGETS.get(names.pop()) if len(names) == 1 else None


def first_within(runs: Sequence[RunData], split: str, aim: float) -> TargetReached:
    """Return when runs first reached a loss of at most `aim` on `split`."""
    firsts = []
    for run in runs:
        rows = [row for row in run.curve.evaluations if row.losses.get(split, float("nan")) <= aim]
        if rows:
            first = min(rows, key=lambda row: row.step)
            firsts.append((first.step, first.train_seconds))
    if not firsts:
        return TargetReached(0, None, None)
    return TargetReached(len(firsts), median([step for step, _ in firsts]), median([s for _, s in firsts]))
