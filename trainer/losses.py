"""Losses with closed forms of their slope and curvature along a direction in output space.

For outputs z [B, …], targets y and a tangent Jd of the outputs, every loss gives three tensors of one
value per element it averages over: the loss ℓ, the slope ∂ℓ/∂z · Jd, and the curvature Jdᵀ (∂²ℓ/∂z²) Jd.
Averaged over a batch, the latter two are dᵀg and dᵀGd with G the generalised Gauss–Newton matrix.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (torch's own name for it)

PerExample = Callable[[Tensor, Tensor], Tensor]


class Loss(Protocol):
    """A loss, per element."""

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return ℓ per element."""

    def quadratic(self, outputs: Tensor, targets: Tensor, tangent: Tensor) -> tuple[Tensor, Tensor]:
        """Return slope and curvature along `tangent`, per element."""


class CrossEntropy:
    """Softmax cross-entropy: outputs [B, …, K], targets [B, …] of class indices."""

    reference = torch.nn.CrossEntropyLoss

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return −log p(target)."""
        flat = F.cross_entropy(outputs.flatten(0, -2), targets.flatten(), reduction="none")
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
    """Any function of (outputs, targets) that returns one loss per example; derivatives by torch.func."""

    reference = None

    def __init__(self, function: PerExample) -> None:
        self.values = function

    def quadratic(self, outputs: Tensor, targets: Tensor, tangent: Tensor) -> tuple[Tensor, Tensor]:
        """Return the first and second derivatives of ℓ(z + t·Jd) at t = 0."""

        def slope(at: Tensor) -> Tensor:
            derivative: Tensor = torch.func.jvp(lambda z: self.values(z, targets), (at,), (tangent,))[1]
            return derivative

        slopes, curvatures, *_ = torch.func.jvp(slope, (outputs,), (tangent,))
        return slopes, curvatures


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


def mean(values: Tensor, weights: Tensor | None) -> Tensor:
    """Return Σwv / Σw, or the plain mean without weights."""
    if weights is None:
        return values.mean()
    return (weights * values).sum() / weights.sum()


def _over_outputs(values: Tensor) -> Tensor:
    return values if values.dim() == 1 else values.flatten(1).mean(1)
