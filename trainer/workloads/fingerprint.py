"""Fingerprints of tensors, by which a resumed run recognises its data.

The same values give the same fingerprint on every platform, however they lie in memory. Floating-point
tensors also have a sketch: their norm, and projections onto fixed random directions. A data set that is
computed on another kind of processor may differ in last digits; its sketch then hardly does.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

PROJECTIONS = 4
WIDTH = 1 << 12
"""Values that are projected at a time."""
BLOCK = 1 << 12
"""Rows of so many values that are sketched at a time: 64 MB."""


def fingerprint(splits: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Any]:
    """Return `fingerprint`, 16 hexadecimal digits, and `split_fingerprints` of the tensors of some splits.

    Of each split: `all` is a hash of its tensors' names, dtypes, shapes and values; `exact` is one without
    the values of floating-point tensors; `sketches` tells these by name. Nothing is returned where anything
    but dense tensors is given.
    """
    if not all(_is_dense(tensor) for tensors in splits.values() for tensor in tensors.values()):
        return {}
    by_split = {name: _split_fingerprint(tensors) for name, tensors in sorted(splits.items())}
    total = _hash(*(f"{name}\0{of_split['all']}\0".encode() for name, of_split in by_split.items()))
    return {"fingerprint": total, "split_fingerprints": by_split}


def _split_fingerprint(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    everything, exact = [], []
    sketches: dict[str, list[float]] = {}
    for name, tensor in sorted(tensors.items()):
        values = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
        header = f"{name}\0{values.dtype}\0{tuple(values.shape)}\0".encode()
        content = hashlib.sha256(values.reshape(-1).view(torch.uint8).numpy().data).digest()
        everything += [header, content]
        exact.append(header)
        if values.is_floating_point() or values.is_complex():
            sketches[name] = _sketch(values)
        else:
            exact.append(content)
    return {"all": _hash(*everything), "exact": _hash(*exact), "sketches": sketches}


def _sketch(values: Tensor) -> list[float]:
    """Return the norm of a tensor, and its projections onto random directions."""
    flat = (torch.view_as_real(values) if values.is_complex() else values).reshape(-1)
    rows, rest = len(flat) // WIDTH, len(flat) % WIDTH
    table = flat[: rows * WIDTH].reshape(rows, WIDTH)
    blocks = [table[start : start + BLOCK] for start in range(0, rows, BLOCK)]
    if rest:
        blocks.append(flat[-rest:].reshape(1, rest))
    generator = torch.Generator().manual_seed(0)
    column_signs = _draw_signs(WIDTH, generator)
    squares, projections = 0.0, torch.zeros(PROJECTIONS, dtype=torch.float64)
    for block in map(Tensor.float, blocks):
        of_rows = block @ column_signs[: block.shape[1]]
        projections += (of_rows * _draw_signs(len(block), generator)).sum(0, dtype=torch.float64)
        squares += float(torch.linalg.vector_norm(block, dim=1).double().square().sum())
    return [math.sqrt(squares), *projections.tolist()]


def _draw_signs(rows: int, generator: torch.Generator) -> Tensor:
    """Draw random signs [rows, PROJECTIONS]; drawn as integers, they are the same on every platform."""
    return torch.randint(0, 2, (rows, PROJECTIONS), generator=generator).float() * 2 - 1


def _is_dense(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout is torch.strided and not value.is_quantized


def _hash(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]
