"""How a step is taken, split so that its direction can be looked at before it counts.

A direction is d = scale · vector, the step from θ₀ that the optimizer takes. An optimizer that is linear
in its learning rate and can tell its u before stepping gives d = −η·u with the parameters still at θ₀:
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
    """A step about to be judged.

    `vector` and `gradient` (of the batch that gave the direction, if it was asked for) hold one tensor a
    parameter; `origin` holds θ₀ where the parameters have already moved and it was asked for.
    """

    vector: list[Tensor]
    scale: float
    learning_rate: float
    gradient: list[Tensor] | None
    origin: list[Tensor] | None = None
    is_taken: bool = False
    """Whether the parameters have moved for good, by d: nobody asked for θ₀."""


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
        """Step, and tell from where to where; without `keep_origin`, nobody goes back there.

        `into`: tensors of the parameters' shapes that are free, to be used instead of new ones.
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
        """Put the parameters at θ₀ for the duration, without copying: only their storage is exchanged."""
        if direction.origin is None:  # they are there still
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
        """Complete the step as θ₀ + factor · d; the factor 1 gives exactly what `step` gives."""
        if factor == 1.0:
            return
        assert direction.origin is not None
        for parameter, origin, vector in zip(
            self.parameters, direction.origin, direction.vector, strict=True
        ):
            parameter.copy_(origin).add_(vector, alpha=factor)

    @contextmanager
    def evaluation(self) -> Iterator[None]:
        """Put the parameters where the optimizer wants them evaluated, and back, bit for bit."""
        yield

    def state_dict(self) -> dict[str, Any]:
        """Return the optimizer's state: tensors and plain values."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.optimizer.load_state_dict(state)


def _set_storages(parameters: list[Tensor], storages: list[Tensor]) -> None:
    for parameter, storage in zip(parameters, storages, strict=True):
        parameter.data = storage
