"""Operations on a list of tensors as one vector, without concatenation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def inner(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """Return the inner product, a scalar on the device, without an elementwise product in memory."""
    parts = [torch.dot(a.reshape(-1), b.reshape(-1)) for a, b in zip(first, second, strict=True)]
    return torch.stack(parts).sum()


def norm(tensors: Sequence[Tensor]) -> Tensor:
    """Return the Euclidean norm, a scalar on the device."""
    total: Tensor = torch.stack(torch._foreach_norm(list(tensors))).norm()
    return total
