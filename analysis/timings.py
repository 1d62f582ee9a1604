"""Measured seconds per step, by category."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..store.queries import AlphaRow, WindowRow
from ..store.schema import ALPHA_PARTS
from .configurations import Configuration

CLOCK = ("data", "forward_backward", "optimizer", "alpha")
"""Categories that a budget pays for."""
OUTSIDE = ("diagnostics", "evaluation", "checkpoint")
"""Categories that it does not pay for."""


@dataclass(frozen=True)
class Timing:
    """One configuration over all its windows, seeds pooled.

    `per_step` has the mean seconds per step of each category; `alpha_share` is the share of steps that paid
    for an α*; `observed` are the seconds of measuring at one step, where α* is only observed.
    """

    per_step: dict[str, float]
    alpha_share: float
    observed: float | None


@dataclass(frozen=True)
class AlphaStep:
    """Seconds of one step that measures α*: products with the matrix G, the rest of α*, and the step itself.

    `curvature` and `other` are None where the journal does not part them; `alpha` is both together.
    """

    curvature: float | None
    other: float | None
    alpha: float
    rest: float

    @property
    def complete(self) -> float:
        """The whole step.

        The thesis prints 43.1561 s where its three parts (table 4.1) add up to 43.1562 s.
        """
        return self.alpha + self.rest


def alpha_step(configuration: Configuration) -> AlphaStep | None:
    """Return the parts of a step with α*, counted or only observed; None where no step measured."""
    windows = [w for run in configuration.runs for w in run.windows if w.steps > 0]
    measured = sum(w.alpha_steps for w in windows) or sum(_observed_steps(configuration))
    if not windows or not measured:
        return None
    steps = sum(window.steps for window in windows)
    rest = math.fsum(_category_seconds(w, name) for w in windows for name in CLOCK if name != "alpha") / steps
    if any(window.alpha_parts for window in windows):
        curvature, other = (
            math.fsum(w.alpha_parts.get(part) or 0.0 for w in windows) / measured for part in ALPHA_PARTS
        )
        return AlphaStep(curvature, other, curvature + other, rest)
    alpha = (
        math.fsum(_category_seconds(w, name) for w in windows for name in ("alpha", "diagnostics")) / measured
    )
    return AlphaStep(None, None, alpha, rest)


def configuration_timing(configuration: Configuration) -> Timing | None:
    """Return the timing of a configuration; None without a window that has steps."""
    windows = [w for run in configuration.runs for w in run.windows if w.steps > 0]
    if not windows:
        return None
    steps = sum(window.steps for window in windows)
    per_step = {
        name: math.fsum(_category_seconds(w, name) for w in windows) / steps for name in (*CLOCK, *OUTSIDE)
    }
    measured = sum(_observed_steps(configuration))
    return Timing(
        per_step=per_step,
        alpha_share=sum(window.alpha_steps for window in windows) / steps,
        observed=per_step["diagnostics"] * steps / measured if measured else None,
    )


def _category_seconds(window: WindowRow, category: str) -> float:
    return window.seconds.get(category) or 0.0


def _observed_steps(configuration: Configuration) -> list[int]:
    """Return, for each run that only observes, at how many steps it measured."""
    return [
        len({row.step for row in run.alphas if not row.summaries}) + sum(map(_largest_count, run.alphas))
        for run in configuration.runs
        if run.config_section("alpha").get("policy") == "observe"
    ]


def _largest_count(row: AlphaRow) -> int:
    """Return how many values a summary has of the quantity that has most; 0 for a single step."""
    return max((summary.n for of in row.summaries.values() for summary in of.values()), default=0)
