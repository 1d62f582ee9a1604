"""Data as a function: a batch depends only on a name, a seed and an index, not on earlier reads.

Resuming therefore needs only the index, and is exact by construction.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import Any, Protocol

import torch
from torch import Tensor

from .tensors import is_same

Batch = Mapping[str, Any]
"""`inputs` and `targets`, optionally `weights` (one per element of the loss)."""


class Stream(Protocol):
    """An endless sequence of batches that can be read at any index."""

    def batch(self, index: int) -> Batch:
        """Return the batch with the 0-based `index`."""


def derive(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed for a purpose, so that no two purposes share random numbers."""
    text = ":".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


class ShuffledStream:
    """Rows of tensors in memory, in a new order each epoch; an epoch omits rows that fill no whole batch."""

    def __init__(self, tensors: Mapping[str, Tensor], batch_size: int, seed: int) -> None:
        self._tensors = tensors
        self._rows = len(next(iter(tensors.values())))
        self._batch_size = min(batch_size, self._rows)
        self._seed = seed
        self._order = lru_cache(maxsize=2)(self._epoch_order)

    @property
    def batches_per_epoch(self) -> int:
        """Return how many whole batches one pass over the rows gives."""
        return self._rows // self._batch_size

    def batch(self, index: int) -> Batch:
        """Return the rows of batch `index`, counted over all epochs."""
        epoch, position = divmod(index, self.batches_per_epoch)
        start = position * self._batch_size
        rows = self._order(epoch)[start : start + self._batch_size]
        return {name: tensor[rows] for name, tensor in self._tensors.items()}

    def _epoch_order(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(derive(self._seed, "epoch", epoch))
        return torch.randperm(self._rows, generator=generator)


class Prefetched:
    """A stream that reads its next batches on a background thread.

    The time of a read does not matter, as a batch is a function of its index. Reading continues during
    evaluations and checkpoints. `pinned` batches lie in pinned memory, from which a GPU copies them
    asynchronously.
    """

    def __init__(self, stream: Stream, ahead: int, pinned: bool = False) -> None:
        self._stream = stream
        self._ahead = ahead
        self._pinned = pinned
        self._thread = ThreadPoolExecutor(1, "prefetch")
        self._pending: dict[int, Future[Batch]] = {}

    def batch(self, index: int) -> Batch:
        """Return batch `index`, and start reading the batches after it."""
        indices = range(index, index + 1 + self._ahead)
        self._pending = {i: self._pending.get(i) or self._thread.submit(self._read_batch, i) for i in indices}
        return self._pending[index].result()

    def again(self, index: int) -> Batch:
        """Read batch `index` again, even if it is already in memory."""
        return self._thread.submit(self._read_batch, index).result()

    def _read_batch(self, index: int) -> Batch:
        batch = self._stream.batch(index)
        return _map_tensors(batch, Tensor.pin_memory) if self._pinned else batch


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move the tensors of a batch (nested mappings, lists and tuples included) to `device`."""
    moved: Batch = _map_tensors(batch, lambda tensor: tensor.to(device, non_blocking=True))
    return moved


def copied(value: Any) -> Any:
    """Return a copy of nested tensors (mappings, lists and tuples)."""
    return _map_tensors(value, Tensor.clone)


def are_same(first: Any, second: Any) -> bool:
    """Return whether nested tensors have the same values; NaN equals NaN."""
    if isinstance(first, Tensor):
        return isinstance(second, Tensor) and is_same(first, second)
    if isinstance(first, Mapping):
        return first.keys() == second.keys() and all(are_same(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(are_same, first, second))
    return True


def examples(batch: Batch) -> int:
    """Return the number of examples in a batch: the length of its targets."""
    return length(batch["targets"])


def length(value: Any) -> int:
    """Return the number of rows of a tensor, or of the first one in mappings and tuples; else of items."""
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple) else ()
    for item in items:
        if isinstance(item, Mapping | tuple) or (isinstance(item, Tensor) and item.dim()):
            return length(item)
    return len(value)


def share(batches: Sequence[Batch], fraction: float) -> list[Batch]:
    """Return the first examples of a step's batches, a `fraction` of all of them rounded up."""
    remaining, parts = math.ceil(fraction * sum(map(examples, batches))), []
    for batch in batches:
        if remaining > 0:
            parts.append(_cut_rows(batch, 0, remaining))
            remaining -= examples(batch)
    return parts


def in_chunks(batch: Batch, count: int) -> list[Batch]:
    """Cut a batch into at most `count` parts of (nearly) equal size, in order."""
    if count == 1:
        return [batch]
    size = math.ceil(examples(batch) / count)
    return [_cut_rows(batch, start, start + size) for start in range(0, examples(batch), size)]


def _cut_rows(batch: Batch, start: int, stop: int) -> Batch:
    """Cut every tensor of a batch that has a row for each example."""
    count = examples(batch)
    rows: Batch = batch if start == 0 and stop >= count else cut(batch, count, start, stop)
    return rows


def cut(value: Any, count: int, start: int, stop: int) -> Any:
    """Return the rows from `start` to `stop` of every tensor, in nested ones too, that has `count` rows."""

    def rows(tensor: Tensor) -> Tensor:
        return tensor[start:stop] if tensor.dim() and len(tensor) == count else tensor

    return _map_tensors(value, rows)


def _map_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _map_tensors(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        make = getattr(type(value), "_make", type(value))  # a named tuple takes its items one by one
        return make(_map_tensors(item, change) for item in value)
    return value
