"""Buffers of a model, kept as they are over passes that would change them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from .tensors import copy_into, is_same


@contextmanager
def buffers_preserved(model: nn.Module) -> Iterator[None]:
    """Restore every buffer at the end, both the tensor and its values; remove new buffers."""
    origin = [(module._buffers, dict(module._buffers)) for module in model.modules()]
    values = [
        (buffer, buffer.clone()) for _, before in origin for buffer in before.values() if buffer is not None
    ]
    try:
        yield
    finally:
        for buffer, value in values:
            if not is_same(buffer, value):
                copy_into(buffer, value)
        for buffers, before in origin:
            buffers.clear()
            buffers.update(before)
