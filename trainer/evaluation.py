"""Evaluate the loss on whole splits without changing the state of the run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import nn

from .batch_statistics import estimated_on
from .losses import Loss, weigh
from .optimizers.stepper import Stepper
from .randomness import Generators
from .stopping import StopRequest
from .streams import Batch, copied, to_device
from .workloads.base import Workload

Losses = dict[str, dict[str, float]]
"""Per split its mean `loss` and the number of `examples` (elements the loss averages over)."""


class EvaluationAborted(Exception):
    """A stop was requested during an evaluation; the resumed run repeats it."""


def evaluate(
    workload: Workload,
    model: nn.Module,
    loss: Loss,
    stepper: Stepper,
    splits: Iterable[str],
    device: torch.device,
    stop_request: StopRequest,
    batches_for_statistics: Iterable[Batch] = (),
) -> Losses:
    """Evaluate each split at the optimizer's evaluation parameters; restore parameters, mode and RNG.

    With `batches_for_statistics`, recompute running statistics on them first, and restore those too.

    Raises:
        EvaluationAborted: a stop was requested.
    """
    statistics = estimated_on(_batches_until_stop(stop_request, batches_for_statistics), model)
    with Generators(model).preserved(), stepper.evaluation(), torch.no_grad():
        try:
            with statistics:
                model.eval()
                return {
                    name: _mean_loss(workload.split(name), model, loss, device, stop_request)
                    for name in splits
                }
        finally:
            model.train()


def _batches_until_stop(stop_request: StopRequest, batches: Iterable[Batch]) -> Iterator[Batch]:
    """Yield batches until a stop is requested.

    Raises:
        EvaluationAborted: a stop was requested.
    """
    for batch in batches:
        if stop_request:
            raise EvaluationAborted
        yield batch


def _mean_loss(
    batches: Iterable[Batch], model: nn.Module, loss: Loss, device: torch.device, stop_request: StopRequest
) -> dict[str, float]:
    """Return Σwℓ / Σw over all batches, summed in float64."""
    total = torch.zeros((), dtype=torch.float64, device=device)
    weight = torch.zeros((), dtype=torch.float64, device=device)
    for batch in _batches_until_stop(stop_request, batches):
        batch = copied(to_device(batch, device))  # a split may share memory with the data
        values = loss.values(model(batch["inputs"]), batch["targets"]).double()
        weights = batch.get("weights", torch.ones_like(values)).double()
        total += weigh(values, weights).sum()
        weight += weights.sum()
    return {"loss": float(total / weight), "examples": float(weight)}
