"""Running statistics (for example of batch normalisation) at other parameters than those of training.

Training averages them over its batches, at the parameters of its steps. An optimizer that evaluates an
average of its parameters needs the statistics at that average.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .buffers import buffers_preserved
from .randomness import Generators
from .streams import Batch
from .tensors import is_same

BATCHES = 50
"""Training batches to average over, as the authors of Schedule-Free advise."""


@contextmanager
def estimated_on(batches: Iterable[Batch], model: nn.Module) -> Iterator[None]:
    """Recompute the running statistics at the current parameters; restore the old ones at the end.

    Torch's batch normalisations average over all of `batches`; without batches, nothing happens. Layers that
    no training pass updates (for example frozen ones) keep their statistics. Other modules update theirs for
    each batch as in training. If the first pass changes no buffer, no further pass follows.
    """
    remaining = iter(batches)
    first = None if next(model.buffers(), None) is None else next(remaining, None)
    if first is None:
        yield
        return
    with buffers_preserved(model):
        model.train()
        with Generators(model).preserved(), torch.no_grad(), _averaged_statistics(model):
            before = _buffer_values(model)
            model(first["inputs"])
            if not all(map(is_same, before, _buffer_values(model))):
                for batch in remaining:
                    model(batch["inputs"])
        yield


@contextmanager
def _averaged_statistics(model: nn.Module) -> Iterator[None]:
    """Reset the statistics of batch normalisations in training, and weigh all batches equally.

    A layer that has seen no batch at the end gets its statistics back.
    """
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm) and _updates_statistics(m)]
    before = [
        (layer, layer.momentum, [buffer.clone() for buffer in _statistics_buffers(layer)]) for layer in layers
    ]
    try:
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None
        yield
    finally:
        for layer, momentum, values in before:
            layer.momentum = momentum
            if not layer.num_batches_tracked:
                for buffer, value in zip(_statistics_buffers(layer), values, strict=True):
                    buffer.copy_(value)


def _updates_statistics(layer: _BatchNorm) -> bool:
    """Return whether a layer keeps statistics, and updates them in training mode."""
    return layer.training and layer.running_mean is not None and layer.num_batches_tracked is not None


def _statistics_buffers(layer: _BatchNorm) -> list[Tensor]:
    return list(layer.buffers(recurse=False))


def _buffer_values(model: nn.Module) -> list[Tensor]:
    return [buffer.clone() for buffer in model.buffers()]
