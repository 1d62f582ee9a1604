"""Batches that a model or its loss changes in place: both are then given copies.

A batch is read again where α* looks at the examples that a step was trained on, or takes differences of
passes; a stream may also give the same tensors twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .losses import CallableLoss, Loss
from .streams import Batch, copied


def protect(model: nn.Module, loss: Loss, batch: Batch, passed: Batch) -> None:
    """Give model and loss copies from now on, where a pass changed its batch.

    `passed` was equal to `batch` before a forward pass with its loss.
    """
    if not _same(batch["inputs"], passed["inputs"]):
        model.register_forward_pre_hook(_with_copies)
    if isinstance(loss, CallableLoss) and not _same(batch["targets"], passed["targets"]):
        loss.copy_targets()


def _with_copies(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(copied(value) for value in inputs)


def _same(left: Any, right: Any) -> bool:
    """Return whether nested tensors have the same values, bit for bit but for the kind of NaN."""
    if isinstance(left, Tensor):
        if left.shape != right.shape or left.layout != torch.strided:
            return left.layout != torch.strided  # others are not compared
        return bool(((left == right) | ((left != left) & (right != right))).all())
    if isinstance(left, Mapping):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(_same, left, right))
    return True
