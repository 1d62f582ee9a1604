"""One forward-mode pass: outputs and their derivative along v, at the price of two forward passes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...functional import call, substitutes
from ...losses import mean
from ...streams import Batch
from ...tensors import copy_into
from ..quadratic import Quadratic
from .base import Line, whole


@whole
@torch.no_grad()
def by_jvp(line: Line, batch: Batch) -> Quadratic:
    """Return slope and curvature by forward-mode differentiation of the outputs.

    Raises:
        NotImplementedError: an operation of the model has no forward-mode derivative.
    """
    with _forward_mode():
        duals = {name: p.detach() for name, p in line.parameters.items()}
        outputs, tangent = _unpack_dual(line.outputs(_make_duals(duals, line.vector), batch))
    return line.quadratic(outputs, tangent, batch)


def train_and_look(line: Line, batch: Batch) -> tuple[Tensor, Quadratic]:
    """Compute the batch's mean loss and its gradient, and from the same forward pass the quadratic.

    The gradient goes to `.grad`, buffers change as in any training step; the loss comes back detached.

    Raises:
        NotImplementedError: an operation of the model has no forward-mode derivative.
    """
    with _forward_mode():
        clones = {name: buffer.clone() for name, buffer in line.model.named_buffers()}
        at = substitutes(line.model, {**_make_duals(line.parameters, line.vector), **clones})
        outputs, tangent = _unpack_dual(call(line.model, at, batch["inputs"]))
        moved = {name: at[name].detach() for name in clones}  # those assigned again, too
    loss = mean(line.loss.values(outputs, batch["targets"]), batch.get("weights"))
    torch.autograd.backward(loss)
    with torch.no_grad():
        for name, buffer in line.model.named_buffers():
            copy_into(buffer, moved[name])
        return loss.detach(), line.quadratic(outputs.detach(), tangent.detach(), batch)


@contextmanager
def _forward_mode() -> Iterator[None]:
    """Differentiate in forward mode; attention runs on the MATH kernel, the one that can."""
    with sdpa_kernel(SDPBackend.MATH), forward_ad.dual_level():
        yield


def _make_duals(parameters: dict[str, Tensor], vector: list[Tensor]) -> dict[str, Tensor]:
    pairs = zip(parameters.items(), vector, strict=True)
    return {name: forward_ad.make_dual(p, v) for (name, p), v in pairs}  # type: ignore[no-untyped-call]


def _unpack_dual(outputs: Tensor) -> tuple[Tensor, Tensor]:
    primal, tangent = forward_ad.unpack_dual(outputs)  # type: ignore[no-untyped-call]
    return primal, torch.zeros_like(primal) if tangent is None else tangent
