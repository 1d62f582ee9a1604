"""Losses with closed forms of their slope and curvature along a direction in output space.

For outputs z [B, …], targets y and a tangent Jd of the outputs, every loss gives three tensors of one
value per element it averages over: the loss ℓ, the slope ∂ℓ/∂z · Jd, and the curvature Jdᵀ (∂²ℓ/∂z²) Jd.
Averaged over a batch, the latter two are dᵀg and dᵀGd with G the generalised Gauss–Newton matrix.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (torch's own name for it)

from ..errors import UserError
from .streams import copied

PerExample = Callable[[Tensor, Tensor], Tensor]
NO_CLASS = torch.iinfo(torch.int64).min


class Loss(Protocol):
    """A loss, per element."""

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return ℓ per element."""

    def quadratic(self, outputs: Tensor, targets: Tensor, tangent: Tensor) -> tuple[Tensor, Tensor]:
        """Return slope and curvature along `tangent`, per element."""


class CrossEntropy:
    """Softmax cross-entropy: outputs [B, …, K], targets [B, …] of class indices.

    No index is ignored, as torch would −100: terms that count nothing have weight 0.
    """

    reference = torch.nn.CrossEntropyLoss

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return −log p(target).

        Raises:
            UserError: a target is no index of a class.
        """
        try:
            flat = F.cross_entropy(
                outputs.flatten(0, -2), targets.flatten(), reduction="none", ignore_index=NO_CLASS
            )
        except IndexError as error:  # on a GPU it is an assertion of the device, as for any index
            raise UserError(
                f"cross_entropy: a target is no index of a class: {error}",
                "terms that should not count need a class, too, and `weights` that are 0",
            ) from error
        return flat.view(targets.shape)

    def quadratic(self, outputs: Tensor, targets: Tensor, tangent: Tensor) -> tuple[Tensor, Tensor]:
        """Return Σ(p − onehot)·Jd, and the variance of Jd under p.

        The variance is taken about its mean: the difference of moments cancels in float32 (a quarter of
        the examples then come out negative).
        """
        probabilities = outputs.softmax(-1)
        mean = (probabilities * tangent).sum(-1, keepdim=True)
        slope = mean.squeeze(-1) - tangent.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
        return slope, (probabilities * (tangent - mean).square()).sum(-1)


class BinaryCrossEntropy:
    """Binary cross-entropy with logits: outputs and targets [B] (or [B, 1])."""

    reference = torch.nn.BCEWithLogitsLoss

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return −[y·log σ(z) + (1−y)·log σ(−z)]."""
        return F.binary_cross_entropy_with_logits(outputs.view_as(targets), targets, reduction="none")

    def quadratic(self, outputs: Tensor, targets: Tensor, tangent: Tensor) -> tuple[Tensor, Tensor]:
        """Return (σ(z) − y)·Jd and σ(z)σ(−z)·Jd²."""
        logits, tangent = outputs.view_as(targets), tangent.view_as(targets)
        probabilities = logits.sigmoid()
        return (probabilities - targets) * tangent, probabilities * (-logits).sigmoid() * tangent.square()


class MeanSquaredError:
    """Squared error, averaged over the outputs of an example too: outputs and targets [B, …]."""

    reference = torch.nn.MSELoss

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean over an example's outputs of (z − y)²."""
        return _over_outputs((outputs.view_as(targets) - targets).square())

    def quadratic(self, outputs: Tensor, targets: Tensor, tangent: Tensor) -> tuple[Tensor, Tensor]:
        """Return the means over an example's outputs of 2(z − y)·Jd and 2·Jd²."""
        residual, tangent = outputs.view_as(targets) - targets, tangent.view_as(targets)
        return 2 * _over_outputs(residual * tangent), 2 * _over_outputs(tangent.square())


class CallableLoss:
    """Any function of (outputs, targets) that returns one loss per example; derivatives by torch.func.

    Where an operation in it has none in forward mode, they come from backpropagating twice. Then each loss
    must depend on nothing but its own outputs.
    """

    reference = None

    def __init__(self, function: PerExample) -> None:
        self._function = function

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return ℓ per example.

        Raises:
            UserError: it is one number for the whole batch.
        """
        values = self._function(outputs, targets)
        if values.dim() == 0:
            raise UserError(
                f"the loss {self._name} returns one number for the whole batch",
                "return one for each example, as torch's losses do with reduction='none'",
            )
        return values

    def copy_targets(self) -> None:
        """Give the function a copy of the targets from now on, because it changes them in place."""
        function = self._function

        @wraps(function)
        def careful(outputs: Tensor, targets: Tensor) -> Tensor:
            return function(outputs, copied(targets))

        self._function = careful

    def quadratic(self, outputs: Tensor, targets: Tensor, tangent: Tensor) -> tuple[Tensor, Tensor]:
        """Return the first and second derivatives of ℓ(z + t·Jd) at t = 0.

        Raises:
            UserError: torch cannot differentiate the loss twice.
        """
        try:
            return self._forward_twice(outputs, targets, tangent)
        except (NotImplementedError, RuntimeError):
            return self._backward_twice(outputs, targets, tangent)

    @property
    def _name(self) -> str:
        return getattr(self._function, "__qualname__", type(self._function).__qualname__)

    def _forward_twice(self, outputs: Tensor, targets: Tensor, tangent: Tensor) -> tuple[Tensor, Tensor]:
        def slope(at: Tensor) -> Tensor:
            derivative: Tensor = torch.func.jvp(lambda z: self.values(z, targets), (at,), (tangent,))[1]
            return derivative

        slopes, curvatures, *_ = torch.func.jvp(slope, (outputs,), (tangent,))
        return slopes, curvatures

    def _backward_twice(self, outputs: Tensor, targets: Tensor, tangent: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sums of ∂ℓ/∂z · Jd and of ∂(∂ℓ/∂z · Jd)/∂z · Jd over the outputs of each ℓ."""
        with torch.enable_grad():
            z = outputs.detach().requires_grad_()
            values = self.values(z, targets)
            try:
                (first,) = torch.autograd.grad(values.sum(), z, create_graph=True)
                slopes = first * tangent
                second = torch.zeros_like(z)  # of a loss that is linear in z
                if slopes.requires_grad:
                    (second,) = torch.autograd.grad(slopes.sum(), z, materialize_grads=True)
                return _of_each(slopes.detach(), values), _of_each(second * tangent, values)
            except (NotImplementedError, RuntimeError) as error:
                raise UserError(
                    f"α* needs a second derivative of the loss {self._name} that torch has not: {error}",
                    "write it with operations that can be differentiated twice",
                ) from error


NamedLoss = CrossEntropy | BinaryCrossEntropy | MeanSquaredError
NAMED: dict[str, type[NamedLoss]] = {
    "cross_entropy": CrossEntropy,
    "bce_with_logits": BinaryCrossEntropy,
    "mse": MeanSquaredError,
}


def loss_of(spec: str | PerExample) -> NamedLoss | CallableLoss:
    """Return the loss that a workload names or gives as a function.

    Raises:
        KeyError: no loss has that name.
    """
    return NAMED[spec]() if isinstance(spec, str) else CallableLoss(spec)


def weigh(values: Tensor, weights: Tensor) -> Tensor:
    """Return wv for the values of a loss.

    Raises:
        UserError: there is not one weight for each value; what torch makes of the two is another loss.
    """
    if weights.shape != values.shape:
        raise UserError(
            f"a batch's weights are of shape {list(weights.shape)}, its losses of shape {list(values.shape)}",
            "give one weight for each value of the loss",
        )
    return weights * values


def mean(values: Tensor, weights: Tensor | None) -> Tensor:
    """Return Σwv / Σw, or the plain mean without weights.

    Raises:
        UserError: there is not one weight for each value.
    """
    if weights is None:
        return values.mean()
    return weigh(values, weights).sum() / weights.sum()


def _of_each(values: Tensor, losses: Tensor) -> Tensor:
    """Sum values of the outputs [B, …, K] over those of each loss [B, …]."""
    return values.reshape(*losses.shape, -1).sum(-1)


def _over_outputs(values: Tensor) -> Tensor:
    return values if values.dim() == 1 else values.flatten(1).mean(1)
