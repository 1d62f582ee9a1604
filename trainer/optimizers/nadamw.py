"""NAdamW as AlgoPerf has it: Adam with Nesterov's momentum and decoupled weight decay.

With gradient g, moments m and v, and t counted from 1 (FACTS of the AlgoPerf baseline; torch's NAdam is
another algorithm):

    m ← β₁m + (1−β₁)g        v ← β₂v + (1−β₂)g²        m̄ = β₁m + (1−β₁)g
    u = λθ + m̄ / [(1−β₁ᵗ)(√v / √(1−β₂ᵗ) + ε)]          θ ← θ − η·u

The step is linear in η, so that u is known before it is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from .options import NAdamWOptions
from .stepper import Direction, Stepper


class NAdamW(torch.optim.Optimizer):
    """The optimizer; `direction` advances the moments and returns u, `descend` takes the step."""

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        beta1: float,
        beta2: float,
        eps: float,
        weight_decay: float,
    ) -> None:
        settings = {"lr": lr, "beta1": beta1, "beta2": beta2, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**settings, "t": 0})

    @torch.no_grad()
    def direction(self) -> list[Tensor]:
        """Advance the moments by the present gradients; return u [one tensor a parameter], θ unmoved.

        A parameter without a gradient has u = 0 and keeps its moments.
        """
        return [u for group in self.param_groups for u in self._group_direction(group)]

    @torch.no_grad()
    def descend(self, direction: list[Tensor], factor: float = 1.0) -> None:
        """Take θ ← θ − factor · η · u."""
        remaining = iter(direction)
        for group in self.param_groups:
            updates = [next(remaining) for _ in group["params"]]
            torch._foreach_add_(group["params"], updates, alpha=-factor * group["lr"])

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Take one step."""
        self.descend(self.direction())

    def _group_direction(self, group: dict[str, Any]) -> list[Tensor]:
        group["t"] += 1
        active = [p for p in group["params"] if p.grad is not None]
        if not active:
            return [torch.zeros_like(p) for p in group["params"]]
        updates = dict(zip(active, self._updates(group, active), strict=True))
        return [updates[p] if p in updates else torch.zeros_like(p) for p in group["params"]]

    def _updates(self, group: dict[str, Any], active: list[Tensor]) -> list[Tensor]:
        beta1, beta2, t = group["beta1"], group["beta2"], group["t"]
        gradients = [p.grad for p in active if p.grad is not None]
        first, second = self._moments(active)
        torch._foreach_lerp_(first, gradients, 1 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, gradients, gradients, value=1 - beta2)
        updates = torch._foreach_lerp(first, gradients, 1 - beta1)  # m̄, of this step only
        denominators = torch._foreach_sqrt(second)
        torch._foreach_div_(denominators, math.sqrt(1 - beta2**t))
        torch._foreach_add_(denominators, group["eps"])
        torch._foreach_mul_(denominators, 1 - beta1**t)
        torch._foreach_div_(updates, denominators)
        if group["weight_decay"]:
            torch._foreach_add_(updates, active, alpha=group["weight_decay"])
        return list(updates)

    def _moments(self, active: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        for parameter in active:
            if not self.state[parameter]:
                self.state[parameter]["m"] = torch.zeros_like(parameter)
                self.state[parameter]["v"] = torch.zeros_like(parameter)
        return [self.state[p]["m"] for p in active], [self.state[p]["v"] for p in active]


class NAdamWStepper(Stepper):
    """Steps whose direction is known before they are taken."""

    optimizer: NAdamW

    @torch.no_grad()
    def direction(self) -> Direction:
        """Return d = −η·u; the parameters stay at θ₀ until `take`."""
        gradient = self._gradient()
        rate = self.learning_rate
        return Direction(self.optimizer.direction(), -rate, rate, gradient)

    def take(self, direction: Direction, factor: float = 1.0) -> None:
        """Take θ₀ + factor · d."""
        self.optimizer.descend(direction.vector, factor)


def build(options: NAdamWOptions, parameters: list[Tensor]) -> Stepper:
    """Return the stepper over `parameters`."""
    settings = options.model_dump(exclude={"name"})
    return NAdamWStepper(NAdamW(parameters, **settings))
