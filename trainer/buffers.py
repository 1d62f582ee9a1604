"""Buffers of a model, kept as they are over passes that would change them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def buffers_preserved(model: nn.Module) -> Iterator[None]:
    """Put every buffer back in the end: the tensor that it was, with the values it had."""
    found = [
        (module._buffers, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffers, name, buffer, values in found:
                buffer.copy_(values)
                buffers[name] = buffer
