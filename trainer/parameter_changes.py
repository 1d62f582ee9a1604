"""Detect and restore parameters that a forward pass changes, although only the optimizer should.

An embedding with `max_norm` renormalises the rows that it looks up. A layer may set parameters from its first
batch, or store averages in them. Passes outside training must not change these parameters.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from .tensors import components, version

CHUNK = 1 << 20
"""Elements of a parameter that are summed at a time, so that no parameter is copied whole."""
INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Mark(NamedTuple):
    """State of a parameter: how often it was written to, and a checksum of its values."""

    version: int
    checksum: int


def marks(model: nn.Module) -> dict[str, Mark]:
    """Return a mark of each parameter, by name; omit parameters without values."""
    return {
        name: Mark(version(parameter), sum(map(_checksum, components(parameter))))
        for name, parameter in model.named_parameters()
        if type(parameter) is nn.Parameter and not is_lazy(parameter) and not parameter.is_meta
    }


def written(before: dict[str, Mark], after: dict[str, Mark]) -> set[str]:
    """Return the names of parameters that were written to, even with the same values."""
    return {name for name, mark in before.items() if after.get(name) != mark}


def changed(before: dict[str, Mark], after: dict[str, Mark]) -> set[str]:
    """Return the names of parameters whose values have changed."""
    sums = {name: mark.checksum for name, mark in after.items()}
    return {name for name, mark in before.items() if sums.get(name) != mark.checksum}


def renormalised(model: nn.Module) -> set[str]:
    """Return the names of the weights of embeddings with `max_norm`."""
    embeddings = [m for m in model.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag)]
    weights = {id(m.weight) for m in embeddings if m.max_norm is not None}
    return {name for name, parameter in model.named_parameters() if id(parameter) in weights}


@contextmanager
def parameters_preserved(model: nn.Module, names: Collection[str]) -> Iterator[None]:
    """Restore the parameters with these names at the end, from copies."""
    values = [(p, p.detach().clone()) for name, p in model.named_parameters() if name in names]
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in values:
                parameter.copy_(value)


def _checksum(tensor: Tensor) -> int:
    """Return a number that depends on every bit of a strided tensor, and on the order of its elements."""
    real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    bits = real.reshape(-1).view(INTEGERS[real.element_size()])
    factors = 2 * torch.arange(min(CHUNK, len(bits)), device=bits.device) + 1
    total = torch.zeros((), dtype=torch.int64, device=bits.device)
    for chunk in torch.split(bits, CHUNK):
        total = 31 * total + (chunk * factors[: len(chunk)]).sum()  # modulo 2⁶⁴
    return int(total)
