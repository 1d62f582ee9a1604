"""Protect batches from a model or loss that changes them in place, by passing copies.

α* uses the batch of a step again, or takes differences of passes over it. A stream may also return the same
tensors twice.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from .losses import CallableLoss, Loss
from .streams import Batch, are_same, copied


def protect(model: nn.Module, loss: Loss, batch: Batch, passed: Batch) -> None:
    """Pass copies to the model or the loss from now on, if a pass changed its batch.

    `passed` was equal to `batch` before a forward pass with its loss.
    """
    if not are_same(batch["inputs"], passed["inputs"]):
        model.register_forward_pre_hook(_with_copies)
    if isinstance(loss, CallableLoss) and not are_same(batch["targets"], passed["targets"]):
        loss.copy_targets()


def _with_copies(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(copied(value) for value in inputs)
