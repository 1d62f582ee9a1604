"""Losses with closed forms of their slope and curvature along a direction in output space.

For outputs z [B, …], targets y and a tangent Jd of the outputs, every loss gives three tensors of one
value per element it averages over: the loss ℓ, the slope ∂ℓ/∂z · Jd, and the curvature Jdᵀ (∂²ℓ/∂z²) Jd.
Averaged over a batch, the latter two are dᵀg and dᵀGd with G the generalised Gauss–Newton matrix.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (torch's own name for it)

from ..errors import UserError
from .streams import copied, length

PerExample = Callable[[Tensor, Tensor], Tensor]
NO_CLASS = torch.iinfo(torch.int64).min

PER_EXAMPLE = "return one value for each example, as torch's losses do with reduction='none'"
SCORES_SECOND = "the class scores are in dimension 1: return outputs.movedim(1, -1), so that they are last"
SCORES_LAST = "targets are indices of classes, [B, …]; outputs have their scores last, [B, …, classes]"


class Loss(Protocol):
    """A loss, per element."""

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return ℓ per element."""

    def quadratic(self, outputs: Tensor, targets: Tensor, tangent: Tensor) -> tuple[Tensor, Tensor]:
        """Return slope and curvature along `tangent`, per element."""


class CrossEntropy:
    """Softmax cross-entropy: outputs [B, …, K] or [terms, K], targets [B, …] of class indices.

    torch's own loss expects the class scores in dimension 1. Where both readings of the outputs' shape are
    possible they are refused, unless `classes_last` confirms that the scores are last. No index is ignored,
    as torch would −100: terms that count nothing have weight 0.
    """

    name = "cross_entropy"
    reference = torch.nn.CrossEntropyLoss

    def __init__(self, classes_last: bool = False) -> None:
        self._classes_last = classes_last

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return −log p(target).

        Raises:
            UserError: a target is no index of a class, or the shapes do not match.
        """
        scores = self._scores(outputs, targets)
        try:
            flat = F.cross_entropy(
                scores.flatten(0, -2), targets.flatten(), reduction="none", ignore_index=NO_CLASS
            )
        except IndexError as error:  # on a GPU it is an assertion of the device, as for any index
            raise _no_class(str(error)) from error
        return flat.view(targets.shape)

    def check_targets(self, outputs: Tensor, targets: Tensor) -> None:
        """Check that every target is an index of a class; on a GPU this waits for the device.

        Raises:
            UserError: a target is none, or the shapes do not match.
        """
        classes = self._scores(outputs, targets).shape[-1]
        if targets.numel() == 0 or targets.is_floating_point():
            return
        lowest, highest = (int(value) for value in targets.aminmax())
        if lowest < 0 or highest >= classes:
            raise _no_class(f"Target {lowest if lowest < 0 else highest} is out of bounds.")

    def quadratic(self, outputs: Tensor, targets: Tensor, tangent: Tensor) -> tuple[Tensor, Tensor]:
        """Return Σ(p − onehot)·Jd, and the variance of Jd under p.

        The variance is taken about its mean: the difference of moments cancels in float32 (a quarter of
        the examples then come out negative).
        """
        probabilities = self._scores(outputs, targets).softmax(-1)
        tangent = tangent.reshape(probabilities.shape)
        mean = (probabilities * tangent).sum(-1, keepdim=True)
        slope = mean.squeeze(-1) - tangent.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
        return slope, (probabilities * (tangent - mean).square()).sum(-1)

    def _scores(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the outputs with one row of class scores for each target, [B, …, K].

        Raises:
            UserError: they have no such shape, or may as well have the class scores in dimension 1.
        """
        _require_tensors(self.name, outputs, targets)
        shape, wanted = outputs.shape, targets.shape
        has_scores_last = _fit(shape[:-1], wanted)
        has_scores_second = len(shape) > 2 and _fit((shape[0], *shape[2:]), wanted)
        if has_scores_second and not has_scores_last:
            raise _mismatch(self.name, outputs, targets, SCORES_SECOND)
        if has_scores_second and not self._classes_last:
            raise UserError(
                f"cross_entropy: outputs of shape {list(shape)} and targets of shape {list(wanted)} are "
                "ambiguous: the class scores may be in dimension 1, as torch expects them, or in the last "
                "one, as alphagrid does",
                "set loss = CrossEntropy(classes_last=True) (from alphagrid.trainer.losses) in the workload; "
                "if the scores are in dimension 1, also return outputs.movedim(1, -1) from forward",
            )
        if not has_scores_last:
            raise _mismatch(self.name, outputs, targets, SCORES_LAST)
        return outputs.reshape(*wanted, shape[-1])


class BinaryCrossEntropy:
    """Binary cross-entropy with logits: outputs and targets [B] (or [B, 1])."""

    name = "bce_with_logits"
    reference = torch.nn.BCEWithLogitsLoss

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return −[y·log σ(z) + (1−y)·log σ(−z)].

        Raises:
            UserError: the shapes do not match.
        """
        logits = _aligned(self.name, outputs, targets)
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none")

    def quadratic(self, outputs: Tensor, targets: Tensor, tangent: Tensor) -> tuple[Tensor, Tensor]:
        """Return (σ(z) − y)·Jd and σ(z)σ(−z)·Jd²."""
        logits, tangent = _aligned(self.name, outputs, targets), tangent.reshape(targets.shape)
        probabilities = logits.sigmoid()
        return (probabilities - targets) * tangent, probabilities * (-logits).sigmoid() * tangent.square()


class MeanSquaredError:
    """Squared error, averaged over the outputs of an example too: outputs and targets [B, …]."""

    name = "mse"
    reference = torch.nn.MSELoss

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean over an example's outputs of (z − y)².

        Raises:
            UserError: the shapes do not match.
        """
        return _over_outputs((_aligned(self.name, outputs, targets) - targets).square())

    def quadratic(self, outputs: Tensor, targets: Tensor, tangent: Tensor) -> tuple[Tensor, Tensor]:
        """Return the means over an example's outputs of 2(z − y)·Jd and 2·Jd²."""
        residual, tangent = _aligned(self.name, outputs, targets) - targets, tangent.reshape(targets.shape)
        return 2 * _over_outputs(residual * tangent), 2 * _over_outputs(tangent.square())


class CallableLoss:
    """Any function of (outputs, targets) that returns one loss per example; derivatives by torch.func.

    Where an operation in it has none in forward mode, they come from backpropagating twice. Then each loss
    must depend on nothing but its own outputs.
    """

    reference = None

    def __init__(self, function: PerExample) -> None:
        self._function = function

    def values(self, outputs: Any, targets: Any) -> Tensor:
        """Return ℓ per example, [B, …], or per element, [B·…].

        Raises:
            UserError: it is something else: one number for the whole batch, say.
        """
        values = self._function(outputs, targets)
        if not isinstance(values, Tensor):
            raise UserError(f"the loss {self.name} returns a {type(values).__name__}", PER_EXAMPLE)
        if values.dim() == 0:
            raise UserError(f"the loss {self.name} returns one number for the whole batch", PER_EXAMPLE)
        count = _examples(targets)
        if count and (values.numel() == 0 or values.numel() % count):
            raise UserError(
                f"the loss {self.name} returns values of shape {list(values.shape)} for {count} examples",
                PER_EXAMPLE,
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
    def name(self) -> str:
        """The name of the function."""
        return getattr(self._function, "__qualname__", type(self._function).__qualname__)

    def needs_backward_twice(self, outputs: Tensor, targets: Tensor) -> bool:
        """Return whether the second derivative has to come from backpropagating twice."""
        try:
            self._forward_twice(outputs, targets, torch.ones_like(outputs))
        except (NotImplementedError, RuntimeError):
            return True
        return False

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
                    f"α* needs a second derivative of the loss {self.name} that torch has not: {error}",
                    "write it with operations that can be differentiated twice",
                ) from error


NamedLoss = CrossEntropy | BinaryCrossEntropy | MeanSquaredError
NAMED: dict[str, type[NamedLoss]] = {
    kind.name: kind for kind in (CrossEntropy, BinaryCrossEntropy, MeanSquaredError)
}


def loss_of(spec: str | NamedLoss | PerExample) -> NamedLoss | CallableLoss:
    """Return the loss that a workload names, or gives as one of the classes here or as a function.

    Raises:
        KeyError: no loss has that name.
    """
    if isinstance(spec, str):
        return NAMED[spec]()
    return spec if isinstance(spec, NamedLoss) else CallableLoss(spec)


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


def _examples(targets: Any) -> int:
    """Return the number of examples that targets are of, or 0 where they are no tensors."""
    if isinstance(targets, Tensor):
        return len(targets) if targets.dim() else 0
    return length(targets) if isinstance(targets, Mapping | tuple) else 0


def _fit(sizes: Sequence[int], wanted: Sequence[int]) -> bool:
    """Return whether terms of shape `sizes` are those of targets: of the same shape, if none is flattened."""
    if len(sizes) == len(wanted):
        return tuple(sizes) == tuple(wanted)
    return math.prod(sizes) == math.prod(wanted)


def _aligned(name: str, outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the outputs in the shape of the targets: dimensions of size 1 and flattened ones may differ.

    Raises:
        UserError: the shapes do not match, or their dimensions are in another order.
    """
    _require_tensors(name, outputs, targets)
    sizes, wanted = ([size for size in tensor.shape if size != 1] for tensor in (outputs, targets))
    if outputs.numel() != targets.numel() or (len(sizes) == len(wanted) and sizes != wanted):
        raise _mismatch(name, outputs, targets, "return one output for each target, in the same order")
    return outputs.reshape(targets.shape)


def _require_tensors(name: str, outputs: Any, targets: Any) -> None:
    """Refuse what only a function could take apart.

    Raises:
        UserError: the outputs or the targets are no tensor.
    """
    for value, origin in ((outputs, "the model returns"), (targets, "the batch has as targets")):
        if not isinstance(value, Tensor):
            raise UserError(
                f"{name} needs one tensor, and {origin} a {type(value).__name__}",
                "return one tensor from the model's forward; or give the loss as a function of (outputs, "
                "targets)",
            )


def _no_class(reason: str) -> UserError:
    return UserError(
        f"cross_entropy: a target is no index of a class: {reason}",
        "terms that should not count need a class, too, and `weights` that are 0",
    )


def _mismatch(name: str, outputs: Tensor, targets: Tensor, hint: str) -> UserError:
    return UserError(
        f"{name}: outputs of shape {list(outputs.shape)} do not match targets of shape {list(targets.shape)}",
        hint,
    )


def _of_each(values: Tensor, losses: Tensor) -> Tensor:
    """Sum values of the outputs [B, …, K] over those of each loss [B, …]."""
    return values.reshape(*losses.shape, -1).sum(-1)


def _over_outputs(values: Tensor) -> Tensor:
    return values if values.dim() == 1 else values.flatten(1).mean(1)
