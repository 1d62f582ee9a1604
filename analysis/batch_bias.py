"""What of α*'s numerator and denominator a second batch does not confirm, by passes over the training data.

Along a direction d from batch B₂, the biased numerator −dᵀg₂ and denominator dᵀG₂d come from that batch, the
unbiased ones from another, B₁ (thesis, equations 3.4 and 3.5). Both batches are of the same training data:
after the first pass neither is new to the model, so that this is the bias towards the batch, not towards
the data set.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from ..store.queries import AlphaRow, Estimate
from .alpha_by_batch_size import batch_of
from .configurations import Configuration
from .data import RunData
from .epochs import epochs_of_steps, train_examples
from .statistics import MeanAndSD

FEWEST = 2
"""The minimum number of passes to compare."""

Part = Literal["numerator", "denominator"]
PARTS: tuple[Part, ...] = ("numerator", "denominator")


@dataclass(frozen=True)
class PartMeans:
    """The means of one part over some steps of one run, by both estimators."""

    biased: float
    unbiased: float

    @property
    def bias(self) -> float:
        """The share of the biased mean that the second batch does not confirm [%]."""
        return 100 * (1 - self.unbiased / self.biased) if self.biased else math.nan


@dataclass(frozen=True)
class EpochSpan:
    """The passes `first` to `last` (from 1) of a configuration: each seed's means, over `n` steps in all."""

    first: int
    last: int
    n: int
    of_seeds: dict[Part, tuple[PartMeans, ...]]

    @property
    def label(self) -> str:
        """The passes in words: `3–4`."""
        return str(self.first) if self.first == self.last else f"{self.first}–{self.last}"

    def bias(self, part: Part) -> MeanAndSD | None:
        """Return mean and SD over seeds of the bias [%]."""
        return MeanAndSD.of(means.bias for means in self.of_seeds[part])

    def level(self, part: Part, estimator: Literal["biased", "unbiased"]) -> MeanAndSD | None:
        """Return mean and SD over seeds of the part itself."""
        return MeanAndSD.of(getattr(means, estimator) for means in self.of_seeds[part])


def epoch_spans(configuration: Configuration) -> list[EpochSpan]:
    """Return the passes of a configuration in spans of doubling length.

    They are 1, 2, 3–4, 5–8, and so on; none where there were fewer than two passes, or nowhere both
    estimators.
    """
    steps = list(filter(None, map(_steps_with_both, configuration.runs)))
    last = max((estimates.turn for of_run in steps for estimates in of_run), default=0)
    groups: dict[int, list[list[_StepEstimates]]] = defaultdict(list)
    for of_run in steps:
        for power, of_span in _group_by_span(of_run, last).items():
            groups[power].append(of_span)
    return [_epoch_span(power, groups[power]) for power in sorted(groups)] if last >= FEWEST else []


@dataclass(frozen=True)
class _StepEstimates:
    """Both estimates of a step, and the pass (from 1) that it belongs to."""

    turn: int
    pair: tuple[Estimate, Estimate]


def _epoch_span(power: int, seeds: Sequence[Sequence[_StepEstimates]]) -> EpochSpan:
    first = 2**power // 2 + 1
    last = max(estimates.turn for of_seed in seeds for estimates in of_seed)
    pairs = [[estimates.pair for estimates in of_seed] for of_seed in seeds]
    means = {part: tuple(_part_means(of_seed, part) for of_seed in pairs) for part in PARTS}
    return EpochSpan(first, last, sum(map(len, seeds)), means)


def _steps_with_both(run: RunData) -> list[_StepEstimates]:
    """Return the steps of a run with both estimates, where the size of its data is known."""
    examples, batch = train_examples(run), batch_of(run.row.config)
    if not examples or not batch:
        return []
    return [
        _StepEstimates(math.floor(epochs_of_steps(row.step, batch, examples)) + 1, pair)
        for row, pair in _finite_pairs(run.alphas)
    ]


def _group_by_span(steps: Sequence[_StepEstimates], last: int) -> dict[int, list[_StepEstimates]]:
    """Return steps by the span of their pass: span p ends with pass 2ᵖ.

    A last span of which less than half was passed through joins the one before.
    """
    highest = _span_power(last) - (last < 0.75 * 2 ** _span_power(last))
    by_power: dict[int, list[_StepEstimates]] = defaultdict(list)
    for estimates in steps:
        by_power[min(_span_power(estimates.turn), highest)].append(estimates)
    return by_power


def _span_power(turn: int) -> int:
    return math.ceil(math.log2(turn))


def _finite_pairs(rows: Iterable[AlphaRow]) -> Iterator[tuple[AlphaRow, tuple[Estimate, Estimate]]]:
    for row in rows:
        pair = row.estimates.get("biased"), row.estimates.get("unbiased")
        if pair[0] is not None and pair[1] is not None and all(map(_is_finite, pair)):
            yield row, (pair[0], pair[1])


def _is_finite(estimate: Estimate | None) -> bool:
    parts = (None, None) if estimate is None else (estimate.slope, estimate.curvature)
    return all(part is not None and math.isfinite(part) for part in parts)


def _part_means(pairs: Sequence[tuple[Estimate, Estimate]], part: Part) -> PartMeans:
    biased, unbiased = (
        math.fsum(_part_of(pair[place], part) for pair in pairs) / len(pairs) for place in (0, 1)
    )
    return PartMeans(biased, unbiased)


def _part_of(estimate: Estimate, part: Part) -> float:
    value = estimate.curvature if part == "denominator" else estimate.slope
    assert value is not None
    return value if part == "denominator" else -value
