"""Learning rate schedules: η as a pure function of the 0-based index of the step about to be taken."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field

from .registry import Entry, Registry, Section

WARMUP_START = 1e-10
"""AlgoPerf's warm-up starts at this share of the peak, not at zero."""


class ConstantOptions(Section):
    """The learning rate of the optimizer, unchanged."""

    name: str


class WarmupOptions(Section):
    """A linear warm-up to the optimizer's learning rate, then a decay to zero at `total_steps`."""

    name: str
    total_steps: Annotated[int, Field(ge=1)]
    """Steps of the whole schedule; the rate is that of its end from there on."""
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.02
    """Share of `total_steps` spent warming up, rounded down to whole steps."""


def constant(options: ConstantOptions, peak: float, index: int) -> float:
    """Return the peak."""
    return peak


def warmup_cosine(options: WarmupOptions, peak: float, index: int) -> float:
    """Return η of AlgoPerf's schedule: linear from 1e-10·peak to peak, then half a cosine to 0."""
    share = _decay_share(options, index)
    return _warmup(options, peak, index) if share is None else peak * 0.5 * (1 + math.cos(math.pi * share))


def warmup_linear(options: WarmupOptions, peak: float, index: int) -> float:
    """Return η with the same warm-up and a linear decay to 0."""
    share = _decay_share(options, index)
    return _warmup(options, peak, index) if share is None else peak * (1 - share)


def _warmup_steps(options: WarmupOptions) -> int:
    return int(options.warmup_fraction * options.total_steps)


def _warmup(options: WarmupOptions, peak: float, index: int) -> float:
    start = WARMUP_START * peak
    return start + (peak - start) * index / _warmup_steps(options)


def _decay_share(options: WarmupOptions, index: int) -> float | None:
    """Return the share of the decay that lies behind, in [0, 1], or None during the warm-up."""
    warmup = _warmup_steps(options)
    if index < warmup:
        return None
    return min((index - warmup) / max(options.total_steps - warmup, 1), 1.0)


SCHEDULES = Registry(
    "schedule",
    {
        "constant": Entry("alphagrid.trainer.schedules:constant", ConstantOptions),
        "warmup_cosine": Entry("alphagrid.trainer.schedules:warmup_cosine", WarmupOptions),
        "warmup_linear": Entry("alphagrid.trainer.schedules:warmup_linear", WarmupOptions),
    },
)


def learning_rate(schedule: Section | None, peak: float, index: int) -> float:
    """Return η for the step with 0-based `index`; without a schedule, the peak."""
    if schedule is None:
        return peak
    entry = SCHEDULES.entry(getattr(schedule, SCHEDULES.tag))
    return float(entry.load()(schedule, peak, index))
