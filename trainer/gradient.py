"""Compute the gradient of a step: of one batch, or of several accumulated batches."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from .losses import Loss, mean, weigh
from .streams import Batch


def forward_backward(model: nn.Module, loss: Loss, batch: Batch) -> Tensor:
    """Compute a batch's mean loss and write its gradient to `.grad`; return the loss, detached."""
    value = mean(loss.values(model(batch["inputs"]), batch["targets"]), batch.get("weights"))
    torch.autograd.backward(value)
    return value.detach()


def accumulate(model: nn.Module, loss: Loss, batches: Iterable[Batch]) -> Tensor:
    """Compute the mean loss over several batches and its gradient, with the memory of one batch.

    Each batch adds Σwℓ and its gradient. At the end, Σw of all batches divides both. So batches of unequal
    size or weight count by their examples.
    """
    device = next(model.parameters()).device
    total, weight = torch.zeros((), device=device), torch.zeros((), device=device)
    for batch in batches:
        values, weights = loss.values(model(batch["inputs"]), batch["targets"]), batch.get("weights")
        weights = torch.ones_like(values) if weights is None else weights
        summed = weigh(values, weights).sum()
        torch.autograd.backward(summed)
        total, weight = total + summed.detach(), weight + weights.sum()
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad.div_(weight)
    return total / weight
