"""Clicks that are generated as they are read: one pass without end, and a least loss that is known.

An example's click is drawn with a probability that is a fixed function of its features, the same for every
seed. No model's expected loss is below that of these probabilities themselves.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch

from ..streams import Batch, Stream, derive
from .base import EVALUATION_BATCH, Workload
from .options import ClickOptions
from .planted import Array


class Clicks(Workload):
    """Generated clicks: give `impressions` and `model`, and it is whole."""

    loss = "bce_with_logits"
    options: ClickOptions

    @abstractmethod
    def impressions(self, random: np.random.Generator, count: int) -> tuple[Array, Array]:
        """Return features [count, …] and the true log-odds of a click [count]."""

    def stream(self, name: str, seed: int) -> Stream:
        """Return examples of the stream's own, none of them ever again."""
        return ClickStream(self, self.options.batch_size, derive(seed, name))

    def split(self, name: str) -> Iterable[Batch]:
        """Yield the examples of a split; `train` has its own too, and one pass sees no example again."""
        return (batch for batch, _ in self._draw_split(name))

    def provenance(self) -> dict[str, Any]:
        """Return that the examples are synthetic."""
        return {"synthetic": True, "made_by": f"workload {self.options.name}"}

    def least_loss(self, split: str) -> float:
        """Return the mean loss on a split of the true log-odds, which a model can only come near to."""
        losses = [
            torch.nn.functional.binary_cross_entropy_with_logits(odds, batch["targets"], reduction="none")
            for batch, odds in self._draw_split(split)
        ]
        return float(torch.cat(losses).mean())

    def draw(self, seed: int, count: int) -> tuple[Batch, torch.Tensor]:
        """Return a batch of `count` examples, and their true log-odds."""
        # numpy's generators keep all 63 bits of a seed; torch's on the CPU keeps 32, and batches would recur
        random = np.random.Generator(np.random.SFC64(seed))
        features, odds = self.impressions(random, count)
        clicked = random.random(count) < 1 / (1 + np.exp(-odds))
        batch = {"inputs": torch.from_numpy(features), "targets": torch.from_numpy(clicked).float()}
        return batch, torch.from_numpy(odds).float()

    def _draw_split(self, name: str) -> Iterator[tuple[Batch, torch.Tensor]]:
        for start in range(0, self.options.evaluation_examples, EVALUATION_BATCH):
            count = min(EVALUATION_BATCH, self.options.evaluation_examples - start)
            yield self.draw(derive(0, "split", name, start), count)


class ClickStream:
    """Batches that are drawn on demand, each with a separate seed."""

    def __init__(self, clicks: Clicks, batch_size: int, seed: int) -> None:
        self._clicks = clicks
        self._batch_size = batch_size
        self._seed = seed

    def batch(self, index: int) -> Batch:
        """Return batch `index`."""
        return self._clicks.draw(derive(self._seed, index), self._batch_size)[0]
