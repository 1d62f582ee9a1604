"""Check the assumptions of training and α* on model and loss, once before the first step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from .config import TrainingConfig
from .losses import CallableLoss, CrossEntropy, Loss
from .parameter_changes import renormalised
from .session import Session
from .streams import Batch, copied, cut, examples

ALPHA = "α*"
OWN_OPTIMIZERS = ("nadamw", "schedule_free_adamw")
"""Optimizers that require parameters and gradients to be dense and real."""


def check_parameters(session: Session) -> None:
    """Check the kinds of the model's parameters.

    Raises:
        UserError: α* or the optimizer does not support such parameters.
    """
    if (reader := _reader(session.config)) is not None:
        _check_parameters(session.model, reader)


@dataclass(frozen=True)
class CheckedLoss:
    """A loss that checks its targets first; a GPU's check ends the process without naming them."""

    loss: Loss

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return ℓ per element.

        Raises:
            UserError: a target is no index of a class.
        """
        if isinstance(self.loss, CrossEntropy):
            self.loss.check_targets(outputs, targets)
        return self.loss.values(outputs, targets)

    def quadratic(self, outputs: Tensor, targets: Tensor, tangent: Tensor) -> tuple[Tensor, Tensor]:
        """Return slope and curvature along `tangent`, per element."""
        return self.loss.quadratic(outputs, targets, tangent)


def check_loss(session: Session, batch: Batch) -> None:
    """Check a loss that is a function, with one forward pass on a batch.

    The generators and buffers are the caller's to put back.

    Raises:
        UserError: this config cannot train with the loss, or measure its α*.
    """
    if isinstance(session.loss, CallableLoss):
        with torch.no_grad():
            outputs = session.model(copied(batch)["inputs"])
            _check_loss(session, session.loss, outputs, batch)


def _reader(config: TrainingConfig) -> str | None:
    """Return which part of the run needs dense real parameters: α*, an optimizer, or None."""
    if config.alpha is not None:
        return ALPHA
    return f"optimizer {config.optimizer.name}" if config.optimizer.name in OWN_OPTIMIZERS else None


def _check_parameters(model: nn.Module, reader: str) -> None:
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.is_complex():
            raise UserError(
                f"the model's parameter {name} is complex, and {reader} is defined for real ones",
                "keep its real and imaginary parts as one real parameter, and use torch.view_as_complex in "
                "forward",
            )
    if reader == ALPHA and (names := sorted(renormalised(model))):
        raise UserError(
            f"the model's parameter {names[0]} has max_norm, so that each forward pass changes it: the "
            "passes of α* would change training",
            "leave out max_norm, or leave out alpha",
        )
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.sparse:
            raise UserError(
                f"the model's embedding {name} has sparse gradients, and {reader} needs dense ones",
                "leave out sparse=True",
            )


def _check_loss(session: Session, loss: CallableLoss, outputs: Any, batch: Batch) -> None:
    """Compare the values of parts of a batch with those of the whole."""
    if session.config.alpha is not None and not isinstance(outputs, Tensor):
        raise UserError(
            f"the model returns a {type(outputs).__name__}, and α* needs one tensor",
            "return one tensor from the model's forward; or leave out alpha",
        )
    targets, count = batch["targets"], examples(batch)
    whole = loss.values(outputs, targets)
    if count < 2 or not isinstance(outputs, Tensor):
        return
    config = session.config
    part = _part(config)
    if not _is_close(loss.values(outputs, targets), whole):
        if part is not None:
            session.warnings.append(
                f"the loss {loss.name} draws random numbers: whether it mixes the examples of a batch is not "
                f"checked, and {part[0]} computes it on a part of one"
            )
        return
    fault = _mixture(loss, outputs, targets, whole, _rows_of_part(config, count))
    if fault is None:
        return
    if part is not None and config.alpha is not None:
        raise UserError(
            f"the loss {loss.name} mixes the examples of a batch, and {part[0]} computes it on a part of "
            f"one: {fault}",
            f"return for each example a value of its own outputs and targets alone; or set {part[1]}",
        )
    if config.alpha is not None and "weights" in batch and loss.needs_backward_twice(outputs, targets):
        raise UserError(
            f"the loss {loss.name} mixes the examples of a batch, which have weights, and its second "
            f"derivative has no forward mode: {fault}",
            "write it with operations that have forward-mode derivatives",
        )
    if part is not None:
        session.warnings.append(f"the loss {loss.name} mixes the examples of each part of a step: {fault}")
    elif config.alpha is not None:
        session.warnings.append(
            f"the loss {loss.name} mixes the examples of a batch: {fault}; the standard errors of α* take "
            "examples for independent"
        )
    elif whole.dim() == 2 and outputs.numel() == count == whole.shape[1]:
        session.warnings.append(f"the loss {loss.name} compares every output with every target: {fault}")


def _part(config: TrainingConfig) -> tuple[str, str] | None:
    """Return what computes the loss on a part of a batch, and the setting that avoids it; None if nothing."""
    alpha, accumulate = config.alpha, config.workload.accumulate
    if accumulate > 1:
        return f"workload.accumulate: {accumulate}", "workload.accumulate: 1"
    if alpha is None:
        return None
    if alpha.chunks > 1:
        return f"alpha.chunks: {alpha.chunks}", "alpha.chunks: 1"
    if "lookahead" in alpha.estimators and alpha.curvature_fraction < 1:
        fraction = alpha.curvature_fraction
        return f"estimator lookahead (alpha.curvature_fraction: {fraction:g})", "alpha.curvature_fraction: 1"
    return None


def _rows_of_part(config: TrainingConfig, count: int) -> int:
    """Return the number of examples in a part: lookahead's fraction, else half of them."""
    fraction = 0.5 if config.alpha is None else config.alpha.curvature_fraction
    return min(max(math.ceil(min(fraction, 0.5) * count), 1), count - 1)


def _mixture(loss: CallableLoss, outputs: Tensor, targets: Any, whole: Tensor, rows: int) -> str | None:
    """Return how the values of the first `rows` examples, or of the others, differ alone; None if not at all.

    Outputs without a dimension for the examples are not compared. Where several may be that, values differ
    if they do so with each of them.
    """
    count = examples({"targets": targets})
    if len(whole) % count:
        return f"its values are of shape {list(whole.shape)} for {count} examples"
    faults = [
        _mixture_along(dimension, loss, outputs, targets, whole, rows)
        for dimension in _dimensions_of_examples(outputs, count)
    ]
    return faults[0] if all(faults) and faults else None


def _mixture_along(
    dimension: int, loss: CallableLoss, outputs: Tensor, targets: Any, whole: Tensor, rows: int
) -> str | None:
    """Return how the values of parts differ, if examples lie along `dimension` of the outputs."""
    count = examples({"targets": targets})
    outputs_each, values_each = outputs.shape[dimension] // count, len(whole) // count
    for start, stop in ((0, rows), (rows, count)):
        part = outputs.narrow(dimension, start * outputs_each, (stop - start) * outputs_each)
        which = f"examples {start} to {stop - 1}"
        try:
            values = loss.values(part, cut(targets, count, start, stop))
        except Exception as error:  # a user's function may raise anything
            return f"it fails on {which} alone ({type(error).__name__}: {error})"
        expected = whole[start * values_each : stop * values_each]
        if values.shape != expected.shape:
            return f"on {which} alone it returns shape {list(values.shape)}, not {list(expected.shape)}"
        if not _is_close(values, expected):
            return f"on {which} alone its values differ"
    return None


def _dimensions_of_examples(outputs: Tensor, count: int) -> list[int]:
    """Return the dimensions that may be the examples': those with one row for each, then with several."""
    fitting = [dimension for dimension, size in enumerate(outputs.shape) if size and size % count == 0]
    return sorted(fitting, key=lambda dimension: outputs.shape[dimension] != count)


def _is_close(values: Tensor, expected: Tensor) -> bool:
    """Return whether two tensors are equal up to rounding, relative to their mean size."""
    if values.shape != expected.shape:
        return False
    if not expected.is_floating_point():
        return torch.equal(values, expected)
    tolerance = math.sqrt(torch.finfo(expected.dtype).eps)
    size = float(expected[expected.isfinite()].abs().mean()) if expected.isfinite().any() else 0.0
    return torch.allclose(values, expected, rtol=tolerance, atol=tolerance * size, equal_nan=True)
