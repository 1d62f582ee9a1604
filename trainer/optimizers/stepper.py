"""Take an optimizer step in two parts, so that α* can be measured along its direction in between.

A direction is d = scale · vector, the step from θ₀ that the optimizer takes. An optimizer that is linear
in its learning rate and can compute its u before stepping gives d = −η·u with the parameters still at θ₀:
no copy, and no cancellation in float32 however small η is. Any other gives d = θ₁ − θ₀.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


@dataclass(frozen=True)
class Direction:
    """The direction of a step.

    `vector` and `gradient` (of the batch that gave the direction, if requested) hold one tensor per
    parameter. `origin` holds θ₀ if the parameters have already moved and the caller requested it.
    """

    vector: list[Tensor]
    scale: float
    learning_rate: float
    gradient: list[Tensor] | None
    origin: list[Tensor] | None = None
    is_taken: bool = False
    """Whether the parameters have moved by d permanently, because the caller did not request θ₀."""


class Stepper:
    """Steps of any torch optimizer; directions are differences of parameters."""

    absolute = True
    """Whether α*_abs = α*_rel · η is meaningful."""

    evaluates_elsewhere = False
    """Whether `evaluation` has other parameters than training."""

    def __init__(self, optimizer: Optimizer, overwrites_gradient: bool = False) -> None:
        self.optimizer = optimizer
        self.parameters: list[Tensor] = [p for group in optimizer.param_groups for p in group["params"]]
        self._overwrites_gradient = overwrites_gradient

    @property
    def learning_rate(self) -> float:
        """Return η of the next step."""
        return float(self.optimizer.param_groups[0]["lr"])

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = value

    def step(self) -> None:
        """Take a plain step."""
        self.optimizer.step()

    @property
    def gradients(self) -> list[Tensor]:
        """The gradient of each parameter, zeros where it has none."""
        return [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]

    @torch.no_grad()
    def direction(
        self, keep_origin: bool = True, keep_gradient: bool = True, into: list[Tensor] | None = None
    ) -> Direction:
        """Step and return the direction; without `keep_origin`, the step cannot be undone.

        `into`: unused tensors of the parameters' shapes, to reuse their memory.
        """
        gradient = self.gradients if keep_gradient else None
        if gradient is not None and self._overwrites_gradient:
            gradient = [g.clone() for g in gradient]
        origin = [torch.empty_like(p) for p in self.parameters] if into is None else into
        torch._foreach_copy_(origin, self.parameters)
        self.optimizer.step()
        if keep_origin:
            vector = list(torch._foreach_sub(self.parameters, origin))
            return Direction(vector, 1.0, self.learning_rate, gradient, origin)
        torch._foreach_neg_(origin)
        torch._foreach_add_(origin, self.parameters)  # θ₁ − θ₀ in the memory of θ₀
        return Direction(origin, 1.0, self.learning_rate, gradient, is_taken=True)

    @contextmanager
    def at_origin(self, direction: Direction) -> Iterator[None]:
        """Set the parameters to θ₀ inside the context by exchanging their storage, without a copy."""
        if direction.origin is None:  # the parameters are still at θ₀
            yield
            return
        moved = [p.data for p in self.parameters]
        _set_storages(self.parameters, direction.origin)
        try:
            yield
        finally:
            _set_storages(self.parameters, moved)

    @torch.no_grad()
    def take(self, direction: Direction, factor: float = 1.0) -> None:
        """Complete the step as θ₀ + factor · d; with factor 1 the result equals that of `step` exactly."""
        if factor == 1.0:
            return
        assert direction.origin is not None
        for parameter, origin, vector in zip(
            self.parameters, direction.origin, direction.vector, strict=True
        ):
            parameter.copy_(origin).add_(vector, alpha=factor)

    @contextmanager
    def evaluation(self) -> Iterator[None]:
        """Set the parameters to the optimizer's evaluation point; restore them bit for bit at the end."""
        yield

    def state_dict(self) -> dict[str, Any]:
        """Return the optimizer's state: tensors and plain values."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.optimizer.load_state_dict(state)


def _set_storages(parameters: list[Tensor], storages: list[Tensor]) -> None:
    for parameter, storage in zip(parameters, storages, strict=True):
        parameter.data = storage
