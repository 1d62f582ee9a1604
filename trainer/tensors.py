"""Tensors of any layout, compared and copied by the strided tensors that they consist of."""

from __future__ import annotations

import torch
from torch import Tensor

BY_ROWS = (torch.sparse_csr, torch.sparse_bsr)
BY_COLUMNS = (torch.sparse_csc, torch.sparse_bsc)


def components(tensor: Tensor) -> list[Tensor]:
    """Return the strided tensors that a tensor consists of, detached: itself, if it is strided."""
    tensor = tensor.detach()
    if tensor.is_nested:
        return list(tensor.unbind())
    if tensor.layout is torch.strided:
        return [tensor]
    if tensor.layout is torch.sparse_coo:
        return [tensor._indices(), tensor._values()]
    if tensor.layout in BY_ROWS:
        return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    if tensor.layout in BY_COLUMNS:
        return [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    return [tensor.to_dense()]


def is_same(first: Tensor, second: Tensor) -> bool:
    """Return whether tensors have the same layout, shape and values; NaN equals NaN."""
    if first.layout != second.layout or first.is_nested != second.is_nested:
        return False
    if not first.is_nested and first.shape != second.shape:
        return False
    ours, theirs = components(first), components(second)
    return len(ours) == len(theirs) and all(map(_is_same, ours, theirs))


def _is_same(first: Tensor, second: Tensor) -> bool:
    if first.shape != second.shape:
        return False
    return bool(((first == second) | ((first != first) & (second != second))).all())


@torch.no_grad()
def copy_into(tensor: Tensor, value: Tensor) -> None:
    """Copy the values of a tensor with the same layout and shape into `tensor`."""
    if tensor.layout in (*BY_ROWS, *BY_COLUMNS) and tensor._nnz() != value._nnz():
        tensor.resize_as_sparse_(value)  # torch copies only where the numbers of values agree
    tensor.copy_(value)


def version(tensor: Tensor) -> int:
    """Return how many operations have changed a tensor in place; -1 for an inference tensor."""
    return -1 if tensor.is_inference() else tensor._version
