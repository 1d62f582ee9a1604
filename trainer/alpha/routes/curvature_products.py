"""Matrix–vector products by curvlinops: the reference for the other routes, and what the thesis did."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ....errors import UserError
from ...functional import tensors_kept
from ...losses import mean
from ...streams import Batch
from ..quadratic import Quadratic
from ..vectors import inner
from .base import Line

OPERATORS = {"ggn": "GGNLinearOperator", "hessian": "HessianLinearOperator", "fisher": "EFLinearOperator"}


def by_curvlinops(line: Line, batch: Batch, check_deterministic: bool = False) -> Quadratic:
    """Multiply v with curvlinops' operator of the curvature asked for; the gradient by backpropagation.

    The operator's determinism check costs two further products.

    Raises:
        UserError: the loss has no torch module, the batch has weights, or the model is not supported: its
            forward pass draws random numbers (the operator makes one for J and another for Jᵀ, so that with
            dropout their masks would differ), or has no derivative there.
    """
    import curvlinops  # 1 s to import: only where this route is taken

    reference = getattr(line.loss, "reference", None)
    if reference is None or "weights" in batch:
        raise UserError(
            "alpha.route: curvlinops needs cross_entropy, bce_with_logits or mse, without weights",
            "use route: jvp",
        )
    targets = _targets_by_term(batch["targets"], reference)
    parameters: list[Tensor] = list(line.parameters.values())
    start = line.generators.state()
    value, gradient = _loss_and_gradient(line, batch, parameters)
    if line.generators.drawn_since(start):
        raise UserError(
            "alpha.route: curvlinops is wrong for a model whose forward pass draws random numbers (dropout, "
            "noise): its passes would draw different ones",
            "use route: jvp, or leave out the dropout",
        )
    try:
        with (
            line.timed(),
            tensors_kept(line.model),  # its products substitute them by torch's own way
            sdpa_kernel(SDPBackend.MATH),  # it differentiates in forward mode, too
        ):
            operator = getattr(curvlinops, OPERATORS[line.curvature])(
                _Shaped(line.model, targets), reference(), parameters, [(batch["inputs"], targets)],
                check_deterministic=check_deterministic,
            )  # fmt: skip
            product = operator @ line.vector
    except RuntimeError as error:
        raise UserError(
            f"alpha.route: curvlinops cannot differentiate this model: {error}", "use route: jvp"
        ) from error
    scale = targets.shape[1] if line.curvature == "fisher" and reference is nn.MSELoss else 1
    curvature = inner(line.vector, product) / scale  # its Fisher divides by the outputs outside the product
    return Quadratic.exact(inner(line.vector, gradient), curvature, value)


def by_thesis(line: Line, batch: Batch) -> Quadratic:
    """Do the same at the thesis' expense: the operator is checked, and v passes through the host as float64.

    (Its curvlinops 2.0.0 also moved the model to the CPU for the check; 3.0 checks on the device.)
    """
    with line.timed():
        on_host = [torch.from_numpy(part.cpu().double().numpy()).to(part) for part in line.vector]
    return by_curvlinops(replace(line, vector=on_host), batch, check_deterministic=True)


class _Shaped(nn.Module):
    """The model with its outputs in the shape that curvlinops needs.

    The shape is that of `_targets_by_term`, or [terms, classes].
    """

    def __init__(self, model: nn.Module, targets: Tensor) -> None:
        super().__init__()
        self.model = model
        self._shape = targets.shape if targets.is_floating_point() else (len(targets), -1)

    def forward(self, inputs: Any) -> Tensor:
        outputs: Tensor = self.model(inputs)
        return outputs.reshape(self._shape)


def _targets_by_term(targets: Tensor, reference: type[nn.Module]) -> Tensor:
    """Return the targets with one row for each term of the loss: what our values of it are.

    A text's characters are terms each, and so are the labels of an example for binary cross-entropy; the
    squared error of an example is one term, whatever shape its outputs have.
    """
    if reference is nn.CrossEntropyLoss:
        return targets.flatten()
    return targets.reshape(-1, 1) if reference is nn.BCEWithLogitsLoss else targets.reshape(len(targets), -1)


def _loss_and_gradient(line: Line, batch: Batch, parameters: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Return the batch's mean loss and its gradient, without touching buffers or `.grad`."""
    with torch.enable_grad():
        value = mean(line.loss.values(line.outputs({}, batch), batch["targets"]), None)
        gradient = torch.autograd.grad(value, parameters, materialize_grads=True)
    return value.detach(), list(gradient)
