"""Differences of forward passes: for models without forward-mode derivatives, and for GeN's parabola."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ...streams import Batch, examples
from ..quadratic import Quadratic
from ..vectors import norm
from .base import Line, whole


@whole
@torch.no_grad()
def by_finite_difference(line: Line, batch: Batch) -> Quadratic:
    """Return slope and curvature from the outputs at θ ± εv, under the same random numbers.

    Their mean stands for the outputs, their difference over 2ε for Jv. ε moves θ by the cube root of the
    rounding unit relative to 1 + ‖θ‖, where the errors of rounding and of truncation balance.
    """
    parameters = line.parameters
    values, vector = [p.detach() for p in parameters.values()], line.vector
    unit = torch.finfo(values[0].dtype).eps ** (1 / 3)
    epsilon = line.difference or unit * (1 + norm(values)) / norm(vector)
    start = line.generators.state()
    above = line.outputs(_moved_parameters(parameters, vector, epsilon), batch)
    line.generators.restore(start)
    below = line.outputs(_moved_parameters(parameters, vector, -epsilon), batch)
    return line.quadratic((above + below) / 2, (above - below) / (2 * epsilon), batch)


@whole
@torch.no_grad()
def by_parabola(line: Line, batch: Batch) -> Quadratic:
    """Fit a parabola to the losses at θ − d, θ and θ + d (Bu and Xu, arXiv 2407.02772).

    All three draw the same random numbers. The parabola's curvature is that of the Hessian, smoothed over
    the step d = t·v.
    """
    parameters, start = line.parameters, line.generators.state()
    losses = []
    for step in (-line.step, 0.0, line.step):
        line.generators.restore(start)
        at = _moved_parameters(parameters, line.vector, step) if step else parameters
        losses.append(line.loss.values(line.outputs(at, batch), batch["targets"]))
    below, middle, above = losses
    step = line.step or math.nan  # nothing is known of a line along which no step is taken
    slopes = (above - below) / (2 * step)
    curvatures = (above - 2 * middle + below) / step**2
    return Quadratic.of(slopes, curvatures, middle, batch.get("weights"), examples(batch))


def _moved_parameters(
    parameters: Mapping[str, Tensor], vector: list[Tensor], step: float | Tensor
) -> dict[str, Tensor]:
    values = [p.detach() for p in parameters.values()]
    moves = torch._foreach_mul(vector, step)
    torch._foreach_add_(moves, values)
    return dict(zip(parameters, moves, strict=True))
