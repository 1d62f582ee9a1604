"""The interface of a workload, and a base class for workloads whose data fit in memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, ClassVar

from torch import Tensor, nn

from ..losses import NamedLoss
from ..streams import Batch, ShuffledStream, Stream, derive
from .fingerprint import fingerprint
from .options import WorkloadOptions

EVALUATION_BATCH = 8192


class Workload(ABC):
    """A model, a loss, streams of training batches, and evaluation splits.

    `loss` is `cross_entropy`, `bce_with_logits` or `mse`, one of `trainer.losses`' classes of these, or a
    function of (outputs, targets) that returns one loss per example. The model takes a batch's `inputs`.
    """

    Options: ClassVar[type[WorkloadOptions]] = WorkloadOptions
    loss: ClassVar[str | NamedLoss | Callable[[Tensor, Tensor], Tensor]]
    prefetch: ClassVar[int] = 0
    """Number of training batches to read ahead on a background thread; 0 if reading is cheap."""

    def __init__(self, options: WorkloadOptions) -> None:
        self.options = options

    @property
    def train_examples(self) -> int | None:
        """How many training examples there are; None where that means nothing. Passes are counted by it."""
        return None

    @abstractmethod
    def model(self) -> nn.Module:
        """Return a newly initialised model; torch's random numbers are seeded by the run."""

    @abstractmethod
    def stream(self, name: str, seed: int) -> Stream:
        """Return the training batches: `train` feeds the steps, `probe` the second batch of α*."""

    def provenance(self) -> dict[str, Any]:
        """Return what a run's journal says of the data, as JSON values; nothing by default.

        With `synthetic: true` every report says so, in the words of `made_by`. A `fingerprint`, a text, is
        compared whenever a run is resumed, and among the runs of a report: it has to be the same for the same
        data, and another for other data.
        """
        return {}

    def data_fingerprint(self, splits: Iterable[str]) -> dict[str, Any]:
        """Return `fingerprint`, and maybe `split_fingerprints`, of some splits; nothing if there is none.

        It is not asked for where `provenance` tells a fingerprint.
        """
        return {}

    @abstractmethod
    def split(self, name: str) -> Iterable[Batch]:
        """Return all batches of `train`, `validation` or `test`, in a fixed order."""


class InMemoryWorkload(Workload):
    """A workload whose examples are a few tensors: give `data` and `model`, and it is whole."""

    @abstractmethod
    def data(self, split: str) -> dict[str, Tensor]:
        """Return the tensors of a split, with one row an example: `inputs`, `targets`, maybe `weights`."""

    @property
    def train_examples(self) -> int:
        """The rows of the training split."""
        return len(self._split_data("train")["targets"])

    def stream(self, name: str, seed: int) -> Stream:
        """Return batches of the training split in an order of the stream's own."""
        return ShuffledStream(self._split_data("train"), self.options.batch_size, derive(seed, name))

    def split(self, name: str) -> Iterable[Batch]:
        """Yield the rows of a split in order."""
        data = self._split_data(name)
        for start in range(0, len(data["targets"]), EVALUATION_BATCH):
            yield {key: tensor[start : start + EVALUATION_BATCH] for key, tensor in data.items()}

    def data_fingerprint(self, splits: Iterable[str]) -> dict[str, Any]:
        """Return a hash of the tensors of some splits; nothing if `data` gives anything but dense tensors."""
        return fingerprint({split: self._split_data(split) for split in splits})

    @cache  # noqa: B019 (a workload lives as long as its run)
    def _split_data(self, split: str) -> dict[str, Tensor]:
        """Ask for a split's data once: they may come from a file."""
        return self.data(split)
