"""NAdamW as AlgoPerf has it: Adam with Nesterov's momentum and decoupled weight decay.

With gradient g, moments m and v, and t, the steps of the parameter's group, counted from 1 (torch's NAdam is
another algorithm):

    m ← β₁m + (1−β₁)g        v ← β₂v + (1−β₂)g²        m̄ = β₁m + (1−β₁)g
    u = λθ + m̄ / [(1−β₁ᵗ)(√v / √(1−β₂ᵗ) + ε)]          θ ← θ − η·u

The step is linear in η, so that u is known before it is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from .options import NAdamWOptions
from .stepper import Direction, Stepper

BLOCK = 2**16
"""Elements that an update works on at a time on a CPU."""


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
    def direction(self, into: list[Tensor] | None = None, descend: bool = False) -> list[Tensor]:
        """Advance the moments by the present gradients; return u [one tensor a parameter], θ unmoved.

        A parameter without a gradient has u = 0 and keeps its moments. `into`: tensors to put u into, which
        may be the gradients. With `descend` the step is taken, too, while u is in the processor's cache.
        """
        parameters = [p for group in self.param_groups for p in group["params"]]
        room = [torch.empty_like(p) for p in parameters] if into is None else into
        found = dict(zip(parameters, room, strict=True))
        for parameter, u in found.items():
            if parameter.grad is None:
                u.zero_()
        for group, active in self._advance():
            for block in blocks((*self._row(p), found[p]) for p in active):
                updates = _updates(group, block)
                torch._foreach_copy_(block.others, updates)
                if descend:
                    torch._foreach_add_(block.parameters, updates, alpha=-group["lr"])
        return room

    @torch.no_grad()
    def descend(self, direction: list[Tensor], factor: float = 1.0) -> None:
        """Take θ ← θ − factor · η · u."""
        remaining = iter(direction)
        for group in self.param_groups:
            updates = [next(remaining) for _ in group["params"]]
            torch._foreach_add_(group["params"], updates, alpha=-factor * group["lr"])

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Take one step: what `direction` and `descend` do, bit for bit, with no u of the whole model."""
        for group, active in self._advance():
            for block in blocks(map(self._row, active)):
                torch._foreach_add_(block.parameters, _updates(group, block), alpha=-group["lr"])

    def _advance(self) -> Iterator[tuple[dict[str, Any], list[Tensor]]]:
        """Count the step in each group, and yield it with the parameters that have a gradient."""
        for group in self.param_groups:
            group["t"] += 1
            if active := [p for p in group["params"] if p.grad is not None]:
                yield group, active

    def _row(self, parameter: Tensor) -> tuple[Tensor, ...]:
        """Return a parameter, its gradient, and its moments m and v, which are zero at first."""
        state = self.state[parameter]
        if not state:
            state["m"], state["v"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        assert parameter.grad is not None
        return parameter, parameter.grad, state["m"], state["v"]


@dataclass(frozen=True)
class Block:
    """Pieces of parameters, their gradients and moments, and of further tensors of the same shapes."""

    parameters: list[Tensor]
    gradients: list[Tensor]
    first: list[Tensor]
    second: list[Tensor]
    others: list[Tensor]


def blocks(rows: Iterable[tuple[Tensor, ...]]) -> Iterator[Block]:
    """Cut the tensors of all parameters into blocks of about BLOCK elements each (on a GPU, into one).

    A row is a parameter, its gradient and moments, maybe more. What a block goes through stays in the
    processor's cache, where a whole table would pass through memory with every operation.
    """
    kept: list[tuple[Tensor, ...]] = []
    size = 0
    for row in chain.from_iterable(map(_pieces, rows)):
        if size + row[0].numel() > BLOCK and kept and row[0].device.type == "cpu":
            yield _block(kept)
            kept, size = [], 0
        kept.append(row)
        size += row[0].numel()
    if kept:
        yield _block(kept)


def _block(rows: list[tuple[Tensor, ...]]) -> Block:
    parameters, gradients, first, second, *others = map(list, zip(*rows, strict=True))
    return Block(parameters, gradients, first, second, others[0] if others else [])


def _pieces(row: tuple[Tensor, ...]) -> Iterable[tuple[Tensor, ...]]:
    """Return views of at most BLOCK elements of each tensor, or the row itself where it cannot be cut."""
    whole = row[0].numel() <= BLOCK or row[0].device.type != "cpu"
    if whole or not all(tensor.is_contiguous() for tensor in row):
        return (row,)
    return zip(*(torch.split(tensor.detach().view(-1), BLOCK) for tensor in row), strict=True)


def _updates(group: dict[str, Any], block: Block) -> list[Tensor]:
    """Advance the moments of a block; return its u."""
    beta1, beta2, t = group["beta1"], group["beta2"], group["t"]
    torch._foreach_lerp_(block.first, block.gradients, 1 - beta1)
    torch._foreach_mul_(block.second, beta2)
    torch._foreach_addcmul_(block.second, block.gradients, block.gradients, value=1 - beta2)
    updates = torch._foreach_lerp(block.first, block.gradients, 1 - beta1)  # m̄, of this step only
    denominators = torch._foreach_sqrt(block.second)
    torch._foreach_div_(denominators, math.sqrt(1 - beta2**t))
    torch._foreach_add_(denominators, group["eps"])
    torch._foreach_mul_(denominators, 1 - beta1**t)
    torch._foreach_div_(updates, denominators)
    if group["weight_decay"]:
        torch._foreach_add_(updates, block.parameters, alpha=group["weight_decay"])
    return list(updates)


class NAdamWStepper(Stepper):
    """Steps whose direction is known before they are taken."""

    optimizer: NAdamW

    @torch.no_grad()
    def direction(
        self, keep_origin: bool = True, keep_gradient: bool = True, into: list[Tensor] | None = None
    ) -> Direction:
        """Return d = −η·u; the parameters stay at θ₀ until `take`, if that is to be kept.

        Without `keep_gradient` u takes the gradients' memory, where each has its own: nothing passes through
        memory but what a plain step reads and writes, and u once.
        """
        rate, gradients = self.learning_rate, self.gradients
        spends = not keep_gradient and _are_apart(gradients)
        vector = self.optimizer.direction(gradients if spends else into, descend=not keep_origin)
        if spends:
            self.optimizer.zero_grad(set_to_none=True)
        kept = gradients if keep_gradient else None
        return Direction(vector, -rate, rate, kept, is_taken=not keep_origin)

    def take(self, direction: Direction, factor: float = 1.0) -> None:
        """Take θ₀ + factor · d, unless d is taken."""
        if not direction.is_taken:
            self.optimizer.descend(direction.vector, factor)


def _are_apart(tensors: list[Tensor]) -> bool:
    """Return whether no two share memory, as autograd lets the gradients of a and b in `a + b` do."""
    return len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == len(tensors)


def build(options: NAdamWOptions, parameters: list[Tensor]) -> Stepper:
    """Return the stepper over `parameters`."""
    settings = options.model_dump(exclude={"name"})
    return NAdamWStepper(NAdamW(parameters, **settings))
