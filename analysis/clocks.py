"""Three clocks: the one that was measured, that of a common machine, and one without the wait for data.

On the **normalised** clock a step costs what its kind costs over all comparable runs (`costs.py`). A run's
train_seconds at a step are then

    Σ over its windows:  plain steps · plain  +  α* steps · alpha  +  steps · wait for data

Inside a window, time is shared among its steps alike; after the last window end steps go on costing what
they cost on average before. Clusters differ from node to node; on this clock runs do not.

On the clock **without data wait** a window takes what was measured of it but for its category `data`: what a
budget would buy where reading kept up with training. Time is shared inside and after windows as above.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ..errors import UserError
from ..store.queries import WindowRow
from .costs import PooledCosts, StepCost
from .data import ExperimentData, RunData
from .timings import CLOCK as COUNTED

Clock = Literal["measured", "normalised", "without-data-wait"]
WAIT = "data"
SHOWN = 3
"""The maximum number of runs that an error names."""


@dataclass(frozen=True)
class Timeline:
    """The time of each step: points (step, seconds) from (0, 0) on, and the cost of later steps."""

    steps: Sequence[int]
    seconds: Sequence[float]
    per_step: float

    @classmethod
    def of(cls, windows: Sequence[WindowRow], cost: StepCost) -> Timeline | None:
        """Add up what the windows' steps cost; None where the cost of a kind of step is unknown."""
        return cls.along(windows, cost.seconds, cost.plain_step)

    @classmethod
    def along(
        cls, windows: Sequence[WindowRow], cost: Callable[[WindowRow], float | None], per_step: float | None
    ) -> Timeline | None:
        """Add up `cost` over the windows; without a step yet, steps will cost `per_step` (None: unknown)."""
        steps, seconds = [0], [0.0]
        for window in sorted(windows, key=lambda window: window.step):
            spent = cost(window)
            if spent is None:
                return None
            if window.steps > 0 and window.step > steps[-1]:
                share = (window.step - steps[-1]) / window.steps  # 1, but for a lost record
                steps.append(window.step)
                seconds.append(seconds[-1] + share * spent)
        if steps[-1]:
            return cls(steps, seconds, seconds[-1] / steps[-1])
        return None if per_step is None else cls(steps, seconds, per_step)

    def at(self, step: int) -> float:
        """Return the seconds at which `step` steps were done."""
        place = bisect_left(self.steps, step)
        if place == len(self.steps):
            return self.seconds[-1] + (step - self.steps[-1]) * self.per_step
        if self.steps[place] == step:
            return self.seconds[place]
        share = (step - self.steps[place - 1]) / (self.steps[place] - self.steps[place - 1])
        return self.seconds[place - 1] + share * (self.seconds[place] - self.seconds[place - 1])


def normalised(data: ExperimentData) -> ExperimentData:
    """Return the runs with the times of a common machine.

    Their evaluations, windows and positions have other train_seconds; all else is as it was.

    Raises:
        UserError: what the steps of some runs cost was not recorded.
    """
    data_on_clock, lacking = _normalise_runs(data)
    if lacking:
        raise _no_costs(lacking, len(data.runs))
    return data_on_clock


def normalised_if_known(data: ExperimentData) -> ExperimentData | None:
    """Return the same, or None where there are no steps yet, or their costs were not recorded."""
    data_on_clock, lacking = _normalise_runs(data)
    return data_on_clock if any(run.windows for run in data.runs) and not lacking else None


def without_data_wait(data: ExperimentData) -> ExperimentData:
    """Return the runs as if no step had waited for its data.

    Raises:
        UserError: a run was evaluated, or went on, without any window of steps that tells its wait.
    """
    runs, lacking = [], []
    for run in data.runs:
        timeline = Timeline.along(run.windows, working_seconds, None)
        if timeline is None and _has_begun(run):
            lacking.append(run.row.name)
        runs.append(run if timeline is None else _run_on_timeline(run, timeline))
    if lacking:
        raise _no_windows(lacking, len(data.runs))
    return replace(data, runs=tuple(runs))


def working_seconds(window: WindowRow) -> float:
    """Return the seconds that a budget pays for in a window, but for the wait for data."""
    return sum(window.seconds.get(name) or 0.0 for name in COUNTED if name != WAIT)


def waiting_share(run: RunData) -> float | None:
    """Return the share of a run's training time that was spent waiting for data; None without any time."""
    waited = sum(window.seconds.get(WAIT) or 0.0 for window in run.windows)
    total = waited + sum(map(working_seconds, run.windows))
    return waited / total if total > 0 else None


def _normalise_runs(data: ExperimentData) -> tuple[ExperimentData, list[str]]:
    costs = PooledCosts.of(data.runs)
    runs, lacking = [], []
    for run in data.runs:
        if not _has_begun(run):
            runs.append(run)
        elif (timeline := Timeline.of(run.windows, costs.cost(run))) is not None:
            runs.append(_run_on_timeline(run, timeline))
        else:
            lacking.append(run.row.name)
    return replace(data, runs=tuple(runs)), lacking


def _has_begun(run: RunData) -> bool:
    return bool(run.row.step or run.windows or run.evaluations)


def _run_on_timeline(run: RunData, timeline: Timeline) -> RunData:
    return replace(
        run,
        row=replace(run.row, train_seconds=timeline.at(run.row.step)),
        evaluations=tuple(replace(row, train_seconds=timeline.at(row.step)) for row in run.evaluations),
        windows=tuple(replace(row, train_seconds=timeline.at(row.step)) for row in run.windows),
    )


def _no_costs(names: Sequence[str], runs: int) -> UserError:
    return UserError(
        f"--clock normalised: the cost of a step is unknown for {len(names)} of {runs} runs "
        f"({_first_names(names)}): no window of steps has been written yet, or an older alphagrid wrote them",
        "use --clock measured",
    )


def _no_windows(names: Sequence[str], runs: int) -> UserError:
    return UserError(
        f"--clock without-data-wait: the wait for data is unknown for {len(names)} of {runs} "
        f"runs ({_first_names(names)}): no window of steps has been written yet",
        "use --clock measured",
    )


def _first_names(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
