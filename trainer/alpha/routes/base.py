"""The interface of a route: the loss along a line, to second order.

All evaluate at the parameters the model has: the slope vᵀg and the curvature vᵀGv, with g the gradient of
a batch's mean loss and G its generalised Gauss–Newton matrix (thesis, section 2.3.3), or the matrix that
`Line.curvature` names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property, wraps

import torch
from torch import Tensor, nn

from ...functional import call, substitutes
from ...losses import Loss
from ...randomness import Generators
from ...streams import Batch, examples
from ..options import Curvature
from ..quadratic import Quadratic


@dataclass(frozen=True)
class Line:
    """The line θ + t·v through a model's parameters θ.

    `vector` holds one tensor per parameter that requires a gradient, in the order of
    `model.parameters()`; `step` is the t of the optimizer's step.
    """

    model: nn.Module
    loss: Loss
    vector: list[Tensor]
    step: float = 1.0
    curvature: Curvature = "ggn"
    timed: Callable[[], AbstractContextManager[None]] = nullcontext
    """Opens the clock's section for the curvature."""
    difference: float | None = None
    """The t of finite differences at θ ± t·v; None: the route chooses it."""
    known_generators: Generators | None = None
    """The model's generators; None: `generators` finds them."""

    @cached_property
    def generators(self) -> Generators:
        """The generators that the model can draw from."""
        return self.known_generators or Generators(self.model)

    @property
    def parameters(self) -> dict[str, Tensor]:
        """The parameters that move, by name; a tied one appears once."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def outputs(self, at: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Return the model's outputs at other parameters.

        Buffers are cloned, so that batch normalisation leaves its running statistics alone.
        """
        clones = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        outputs: Tensor = call(self.model, substitutes(self.model, {**at, **clones}), batch["inputs"])
        return outputs

    def gradient(self, batches: Sequence[Batch]) -> list[Tensor]:
        """Return the gradient at θ of the mean loss of batches taken as one, one tensor a parameter.

        This runs one backward pass per batch, and does not change `.grad`.
        """
        at = self.parameters
        total = [torch.zeros_like(p) for p in at.values()]
        weight = torch.zeros((), device=total[0].device)
        for batch in batches:
            with torch.enable_grad():
                values = self.loss.values(self.outputs(at, batch), batch["targets"])
                weights = batch.get("weights", torch.ones_like(values))
                summed = (weights * values).sum()
            parts = torch.autograd.grad(summed, list(at.values()), allow_unused=True, materialize_grads=True)
            torch._foreach_add_(total, parts)
            weight = weight + weights.sum()
        return list(torch._foreach_div(total, weight))

    def quadratic(self, outputs: Tensor, tangent: Tensor, batch: Batch) -> Quadratic:
        """Return slope and curvature from outputs z and their derivative Jv, in the loss' closed form.

        Outputs of half precision become float32 first, to avoid cancellation (for example in a softmax).
        """
        targets = batch["targets"]
        if outputs.dtype in (torch.bfloat16, torch.float16):
            outputs, tangent = outputs.float(), tangent.float()
        slopes, curvatures = self.loss.quadratic(outputs, targets, tangent)
        if self.curvature == "fisher":
            curvatures = slopes.square()
        values = self.loss.values(outputs, targets)
        return Quadratic.of(slopes, curvatures, values, batch.get("weights"), examples(batch))


Route = Callable[[Line, Batch], Quadratic]


def whole(route: Route) -> Route:
    """Charge all of a route's time to the curvature, as slope and curvature share their passes."""

    @wraps(route)
    def timed(line: Line, batch: Batch) -> Quadratic:
        with line.timed():
            return route(line, batch)

    return timed
