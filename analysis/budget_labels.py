"""Resolve budgets from their labels: `13699`, `50%`, `all`, `until:nadamw`, `4.5*until:nadamw`."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import UserError
from .budget import Kind, position
from .data import ExperimentData, RunData
from .statistics import median

HINT = "a budget is a number above 0, a share like 50%, all, until:BASELINE or 4.5*until:BASELINE"
UNTIL = re.compile(r"(?:(?P<factor>[^*]+)\*)?until:(?P<baseline>.+)")


@dataclass(frozen=True)
class Budget:
    """A resolved budget: the limit of every run, by its store key.

    `label` is the requested text; `value` is the limit where it is the same for every run, else None.
    """

    kind: Kind
    label: str
    value: float | None
    limits: Mapping[int, float | None]

    def limit(self, run: RunData) -> float | None:
        """Return the limit of `run` in seconds or steps; None while it is unknown."""
        return self.limits[run.row.key]


def resolve_budget(data: ExperimentData, label: str, kind: Kind) -> Budget:
    """Resolve a requested budget; raises UserError where it does not apply to this experiment."""
    text = label.strip()
    if text.endswith("%"):
        return _budget_of_stop(data, text, kind)
    if text == "all":
        return _common_budget(
            data, text, kind, max((position(run.curve, kind) for run in data.runs), default=None)
        )
    if match := UNTIL.fullmatch(text):
        factor = 1.0 if match["factor"] is None else _positive_number(match["factor"], text)
        reached = _median_schedule_end(data, match["baseline"], kind)
        return _common_budget(
            data, text, kind, None if reached is None else _positive_product(factor, reached, text)
        )
    return _common_budget(data, text, kind, _positive_number(text, text))


def resolve_budgets(
    data: ExperimentData, seconds: Sequence[str] = (), steps: Sequence[str] = ()
) -> list[Budget]:
    """Resolve the requested budgets, times first; without any, the default ones."""
    if not seconds and not steps:
        seconds = default_labels(data)
    return [resolve_budget(data, label, "seconds") for label in seconds] + [
        resolve_budget(data, label, "steps") for label in steps
    ]


def default_labels(data: ExperimentData) -> list[str]:
    """Return `until:` the first baseline, if the end of its schedule can still be reached, and `all`."""
    first = next((run.baseline for run in data.runs if run.baseline is not None), None)
    seeds = [run for run in data.runs if first is not None and run.baseline == first]
    return [f"until:{first}", "all"] if any(map(_may_reach_schedule_end, seeds)) else ["all"]


def _may_reach_schedule_end(run: RunData) -> bool:
    """Return whether a run has a schedule with an end, and has reached it or is still on its way."""
    if run.schedule_steps is None:
        return False
    return not run.curve.finished or run.curve.seconds_at(run.schedule_steps) is not None


def _common_budget(data: ExperimentData, label: str, kind: Kind, value: float | None) -> Budget:
    return Budget(kind, label, value, {run.row.key: value for run in data.runs})


def _budget_of_stop(data: ExperimentData, label: str, kind: Kind) -> Budget:
    """Resolve a share of the stop of each run."""
    share = _positive_number(label[:-1], label) / 100
    limits = {run.row.key: _positive_product(share, _stop_of(run, label, kind), label) for run in data.runs}
    values = set(limits.values())
    return Budget(kind, label, values.pop() if len(values) == 1 else None, limits)


def _stop_of(run: RunData, label: str, kind: Kind) -> float:
    key = "train_seconds" if kind == "seconds" else "steps"
    stop = run.stop.get(key)
    if stop is None:
        other = "--budget-steps" if kind == "seconds" else "--budget"
        raise UserError(
            f"budget {label}: run {run.row.name} has no stop.{key} to take a share of",
            f"set stop.{key} for every run, or ask with {other}, a number or all",
        )
    return float(stop)


def _median_schedule_end(data: ExperimentData, name: str, kind: Kind) -> float | None:
    """Return the median over seeds of what baseline `name` needed for its schedule.

    None while a seed is still on its way, and where none can arrive any more. Seeds that ended before
    the end of the schedule (diverged, or stopped earlier) are left out of the median.
    """
    seeds = [run for run in data.runs if run.baseline == name]
    if not seeds:
        raise _no_such_baseline(data, name)
    needed = [_schedule_end(run, kind) for run in seeds]
    if any(value is None and not run.curve.finished for run, value in zip(seeds, needed, strict=True)):
        return None
    arrived = [value for value in needed if value is not None]
    return median(arrived) if arrived else None


def _schedule_end(run: RunData, kind: Kind) -> float | None:
    """Return what `run` needed for `schedule.total_steps`; None while the run has not reached it."""
    steps = run.schedule_steps
    if steps is None:
        raise UserError(
            f"budget until:{run.baseline}: this baseline has no schedule.total_steps that it could reach",
            "name a baseline with a schedule, or give the budget as a number",
        )
    seconds = run.curve.seconds_at(steps)
    if seconds is None:
        return None
    return seconds if kind == "seconds" else float(steps)


def _no_such_baseline(data: ExperimentData, name: str) -> UserError:
    names = sorted({run.baseline for run in data.runs if run.baseline is not None})
    near = difflib.get_close_matches(name, names, 1)
    if near:
        hint = f"did you mean until:{near[0]}?"
    else:
        hint = f"baselines here: {', '.join(names)}" if names else "this experiment has no baselines"
    return UserError(f"budget until:{name}: experiment {data.experiment} has no baseline '{name}'", hint)


def _positive_number(text: str, label: str) -> float:
    """Read a finite number above zero; Python's underscores (1_000) are refused."""
    try:
        value = float(text) if "_" not in text else math.nan
    except ValueError:
        value = math.nan
    return _check_positive(value, label)


def _positive_product(factor: float, amount: float, label: str) -> float:
    """Multiply two finite numbers whose product may be too large, or so small that it is zero."""
    return _check_positive(factor * amount, label) if amount else amount


def _check_positive(value: float, label: str) -> float:
    if not (math.isfinite(value) and value > 0):
        raise UserError(f"budget '{label}' is not valid", HINT)
    return value
