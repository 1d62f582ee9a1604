"""Two ways to the slope and the curvature of the loss along a direction, behind one interface.

Both evaluate at the parameters the model has: the slope vᵀg and the curvature vᵀGv, with g the gradient
and G the generalised Gauss–Newton matrix of the batch's mean loss (thesis, section 2.3.3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...errors import UserError
from ..losses import Loss, mean
from ..streams import Batch


@dataclass(frozen=True)
class Quadratic:
    """The loss along a vector v at θ₀, to second order: three scalars on the device.

    `slope` is vᵀg, `curvature` is vᵀGv, `loss` is the batch's mean loss.
    """

    slope: Tensor
    curvature: Tensor
    loss: Tensor


Route = Callable[[nn.Module, Loss, Batch, list[Tensor]], Quadratic]


@torch.no_grad()
def by_jvp(model: nn.Module, loss: Loss, batch: Batch, vector: list[Tensor]) -> Quadratic:
    """One forward-mode pass gives outputs z and Jv; the loss' closed forms give the rest.

    Buffers are cloned, so that batch normalisation leaves its running statistics alone. Attention runs
    on the MATH kernel, the one that has forward-mode derivatives.
    """
    parameters = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    tangents = dict(zip(parameters, vector, strict=True))
    buffers = dict(model.named_buffers())

    def outputs_at(at: Mapping[str, Tensor]) -> Tensor:
        clones = {name: buffer.clone() for name, buffer in buffers.items()}
        outputs: Tensor = functional_call(model, {**at, **clones}, (batch["inputs"],))
        return outputs

    with sdpa_kernel(SDPBackend.MATH):
        outputs, tangent, *_ = jvp(outputs_at, (parameters,), (tangents,))
    slopes, curvatures = loss.quadratic(outputs, batch["targets"], tangent)
    weights = batch.get("weights")
    values = loss.values(outputs, batch["targets"])
    return Quadratic(mean(slopes, weights), mean(curvatures, weights), mean(values, weights))


def by_curvlinops(
    model: nn.Module, loss: Loss, batch: Batch, vector: list[Tensor], check_deterministic: bool = False
) -> Quadratic:
    """Multiply v with `curvlinops.GGNLinearOperator`, as the thesis did; the gradient by backpropagation.

    The operator's determinism check costs two further products, and is for tests.

    Raises:
        UserError: the loss has no torch module, the batch has weights, or the model is not supported.
    """
    from curvlinops import GGNLinearOperator  # 1 s to import: only where this route is taken

    reference = getattr(loss, "reference", None)
    if reference is None or "weights" in batch:
        raise UserError(
            "alpha.route: curvlinops needs cross_entropy, bce_with_logits or mse, without weights",
            "use route: jvp",
        )
    parameters: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
    start = torch.random.get_rng_state()
    value, gradient = _gradient(model, loss, batch, parameters)
    torch.random.set_rng_state(start)  # the operator's forward pass then drops the same units
    try:
        operator = GGNLinearOperator(
            _Shaped(model, batch), reference(), parameters, [(batch["inputs"], batch["targets"])],
            check_deterministic=check_deterministic,
        )  # fmt: skip
        product = operator @ vector
    except RuntimeError as error:
        raise UserError(
            f"alpha.route: curvlinops cannot differentiate this model: {error}", "use route: jvp"
        ) from error
    return Quadratic(_dot(vector, gradient), _dot(vector, product), value)


class _Shaped(nn.Module):
    """The model with outputs in the shape of the targets where the loss wants them so."""

    def __init__(self, model: nn.Module, batch: Batch) -> None:
        super().__init__()
        self.model = model
        self._shape = batch["targets"].shape if batch["targets"].is_floating_point() else None

    def forward(self, inputs: Any) -> Tensor:
        outputs: Tensor = self.model(inputs)
        return outputs if self._shape is None else outputs.view(self._shape)


def _gradient(
    model: nn.Module, loss: Loss, batch: Batch, parameters: list[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Return the batch's mean loss and its gradient, without touching buffers or `.grad`."""
    with torch.enable_grad():
        clones = {name: buffer.clone() for name, buffer in model.named_buffers()}
        outputs = functional_call(model, clones, (batch["inputs"],))
        value = mean(loss.values(outputs, batch["targets"]), None)
        gradient = torch.autograd.grad(value, parameters, allow_unused=True)
    filled = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradient, strict=True)]
    return value.detach(), filled


def _dot(left: list[Tensor], right: list[Tensor]) -> Tensor:
    """Return the inner product of two lists of tensors."""
    total: Tensor = torch.stack([(a * b).sum() for a, b in zip(left, right, strict=True)]).sum()
    return total


ROUTES: dict[str, Route] = {"jvp": by_jvp, "curvlinops": by_curvlinops}
