"""What a step costs on a common machine: medians over all comparable runs of an experiment.

Runs are comparable in a plain step and in its wait for data if they share workload (with its batch size),
optimizer, device and threads; in an α* step, if besides α* is computed in the same way. So methods differ
by their α* steps alone, and not by the nodes on which they happened to run.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..store.queries import WindowRow
from .data import RunData
from .statistics import weighted_median

SLOW = 1.1
"""A node whose plain steps take more than this many pooled medians is a slow one."""
ALPHA_KEYS = ("policy", "estimator", "route", "curvature", "curvature_fraction", "chunks")
"""Keys of section `alpha` that change what one α* costs."""

WeightedCosts = Iterable[tuple[float, float]]


@dataclass(frozen=True)
class StepCost:
    """Seconds of a plain step and of one with α*, both without their wait for data, and of that wait.

    None: not measured.
    """

    plain: float | None = None
    alpha: float | None = None
    data: float | None = None

    @property
    def plain_step(self) -> float | None:
        """A plain step with its wait for data."""
        return None if self.plain is None or self.data is None else self.plain + self.data

    @property
    def ratio(self) -> float | None:
        """An α* step in plain steps, both with their wait for data."""
        if self.alpha is None or self.data is None or not self.plain_step:
            return None
        return (self.alpha + self.data) / self.plain_step

    def seconds(self, window: WindowRow) -> float | None:
        """Return what the steps of a window cost; None where a kind of step that it has is unknown."""
        total = 0.0
        kinds = ((window.steps - window.alpha_steps, self.plain), (window.alpha_steps, self.alpha))
        for steps, cost in (*kinds, (window.steps, self.data)):
            if steps and cost is None:
                return None
            total += steps * (cost or 0.0)
        return total


def expected_steps(share: float, ratio: float) -> float:
    """Return the steps that fit into the time of one plain step, with a `share` of α* steps."""
    return 1 / (1 + share * (ratio - 1))


def steps_with_alpha(steps: int, start: int, interval: int, count: int) -> int:
    """Return how many of the first `steps` steps are in a window: step ≥ start, (step − start) mod I < N."""
    periods, remainder = divmod(max(steps - start, 0), interval)
    return periods * count + min(remainder, count)


def implied_alpha_cost(seconds: float, steps: float, alpha_steps: float, plain: float) -> float | None:
    """Return what an α* step must have cost beyond a plain one; None without any α* step.

    The thesis does not print it; its tables C.1 and C.2 with 13,699.45 s / 85,328 steps give 61 to 95 s for
    most cells (380 to 590 plain steps), and up to 188 s for the two that ran on slow nodes.
    """
    return (seconds - steps * plain) / alpha_steps if alpha_steps else None


@dataclass(frozen=True)
class PooledCosts:
    """The medians of each kind of step, by what makes such steps comparable."""

    plain: Mapping[str, float]
    alpha: Mapping[str, float]
    data: Mapping[str, float]

    @classmethod
    def of(cls, runs: Iterable[RunData]) -> PooledCosts:
        """Pool the windows' medians, each weighted by its number of steps."""
        runs = tuple(runs)
        return cls(
            plain=_pooled_medians(runs, _plain_key, _plain_costs),
            alpha=_pooled_medians(runs, _alpha_key, _alpha_costs),
            data=_pooled_medians(runs, _plain_key, _data_costs),
        )

    def cost(self, run: RunData) -> StepCost:
        """Return what the steps of a run cost."""
        machine = _plain_key(run)
        return StepCost(self.plain.get(machine), self.alpha.get(_alpha_key(run)), self.data.get(machine))


def slow_nodes(runs: Iterable[RunData]) -> dict[str, float]:
    """Return the factor on the pooled median plain step of each node that is slower than `SLOW` times it."""
    runs = tuple(runs)
    pooled = PooledCosts.of(runs).plain
    times: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for run in runs:
        usual = pooled.get(_plain_key(run), 0.0)
        hosts = {attempt.attempt: attempt.host for attempt in run.attempts}
        for window in run.windows if usual > 0 else ():
            host = hosts.get(window.attempt)
            if host is not None:
                times[host] += [(cost / usual, steps) for cost, steps in _plain_costs(window)]
    factors = {host: weighted_median(pairs) for host, pairs in sorted(times.items())}
    return {host: factor for host, factor in factors.items() if factor is not None and factor > SLOW}


def slow_nodes_note(runs: Iterable[RunData]) -> str | None:
    """Return a sentence that names the slow nodes; None without any."""
    nodes = [f"{host} (+{100 * (factor - 1):.0f} %)" for host, factor in slow_nodes(runs).items()]
    if not nodes:
        return None
    return f"Slow nodes, by their plain steps against the pooled median: {', '.join(nodes)}."


def _pooled_medians(
    runs: Iterable[RunData], key: Callable[[RunData], str], costs: Callable[[WindowRow], WeightedCosts]
) -> dict[str, float]:
    pairs_by_key: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for run in runs:
        pairs_by_key[key(run)] += [pair for window in run.windows for pair in costs(window)]
    medians = {name: weighted_median(pairs) for name, pairs in pairs_by_key.items()}
    return {name: median for name, median in medians.items() if median is not None}


def _plain_costs(window: WindowRow) -> WeightedCosts:
    return _weighted_cost(window, "plain", window.steps - window.alpha_steps)


def _alpha_costs(window: WindowRow) -> WeightedCosts:
    return _weighted_cost(window, "alpha", window.alpha_steps)


def _data_costs(window: WindowRow) -> WeightedCosts:
    return _weighted_cost(window, "data", window.steps)


def _weighted_cost(window: WindowRow, kind: str, steps: int) -> WeightedCosts:
    cost = window.costs.get(kind)
    return [] if cost is None else [(cost, steps)]


def _plain_key(run: RunData) -> str:
    """Return a key that runs share if their plain steps are comparable."""
    config = run.row.config
    optimizer = (config.get("optimizer") or {}).get("name")
    settings = [config.get(key) for key in ("threads", "deterministic")]
    return json.dumps([config.get("workload"), optimizer, _device_of(run), *settings], sort_keys=True)


def _device_of(run: RunData) -> Any:
    """Return `cpu` or `cuda`, as recorded by the newest attempt."""
    devices = [attempt.device for attempt in run.attempts if attempt.device is not None]
    return devices[-1] if devices else run.row.config.get("device")


def _alpha_key(run: RunData) -> str:
    alpha = run.config_section("alpha")
    return json.dumps([_plain_key(run), *(alpha.get(key) for key in ALPHA_KEYS)])
