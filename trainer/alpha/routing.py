"""Compute quadratics by the route of the options, in chunks, or else by finite differences."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import reduce
from operator import add
from typing import TypeVar

from torch import Tensor, nn

from ..losses import Loss
from ..randomness import Generators
from ..streams import Batch, in_chunks
from .options import NEGLIGIBLE_RATE, AlphaOptions
from .quadratic import Quadratic
from .routes import ROUTES, Line, by_finite_difference
from .routes.forward_mode import train_and_look

Result = TypeVar("Result")


class Router:
    """Computes quadratics by the route of the options.

    If an operation of the model has no forward-mode derivative, the router warns and uses finite differences
    from then on. `timed` opens the clock's section for a curvature.
    """

    def __init__(
        self,
        options: AlphaOptions,
        model: nn.Module,
        loss: Loss,
        warn: Callable[[str], None],
        timed: Callable[[], AbstractContextManager[None]] = nullcontext,
        generators: Generators | None = None,
    ) -> None:
        self._options = options
        self.model = model
        self.loss = loss
        self.warn = warn
        self._timed = timed
        self._route = ROUTES[options.route]
        self.generators = Generators(model) if generators is None else generators

    @property
    def takes_differences(self) -> bool:
        """Whether slopes come from differences of passes instead of derivatives."""
        return self._route in (by_finite_difference, ROUTES["parabola"])

    def line(self, vector: list[Tensor], step: float) -> Line:
        """Return the line θ + t·v; `step` is the t of the optimizer's step."""
        curvature, generators = self._options.curvature, self.generators
        return Line(self.model, self.loss, vector, step, curvature, self._timed, known_generators=generators)

    def quadratic(self, vector: list[Tensor], step: float, batches: Sequence[Batch]) -> Quadratic:
        """Return slope and curvature along v on batches taken as one, chunk by chunk."""
        return self._quadratic(self.line(vector, step), batches)

    def train_and_look(
        self, vector: list[Tensor], step: float, batch: Batch
    ) -> tuple[Tensor, Quadratic] | None:
        """Compute loss, gradient and quadratic by one pass; return None if the route is not `jvp`."""
        if self._route is not ROUTES["jvp"]:
            return None
        return self._try_route(lambda: train_and_look(self.line(vector, step), batch))

    def warm_up(self, batches: Sequence[Batch], fused: bool = False) -> None:
        """Compute a quadratic along θ itself, to pay the cost of a process's first pass outside the clock.

        `fused`: compute loss, gradient and quadratic by one pass, if possible.
        """
        vector = [p.detach() for p in self.model.parameters() if p.requires_grad]
        line = replace(self.line(vector, -NEGLIGIBLE_RATE), timed=nullcontext)
        self.look(line, batches, fused)

    def look(self, line: Line, batches: Sequence[Batch], fused: bool = False) -> Quadratic:
        """Return slope and curvature along a line; `fused`: train by the same pass, if possible."""
        if fused and self._route is ROUTES["jvp"]:
            result = self._try_route(lambda: train_and_look(line, batches[0]))
            if result is not None:
                return result[1]
        return self._quadratic(line, batches)

    def _quadratic(self, line: Line, batches: Sequence[Batch]) -> Quadratic:
        quadratic = self._try_route(lambda: self._sum_chunks(line, batches))
        return self._sum_chunks(line, batches) if quadratic is None else quadratic

    def _try_route(self, way: Callable[[], Result]) -> Result | None:
        """Return the result of a computation; None after a switch to finite differences.

        A failed computation may have drawn random numbers. The router restores the generators, so that finite
        differences draw the same numbers as without the failure. A resumed run fails again and continues with
        the same numbers.
        """
        start = self.generators.state()
        try:
            return way()
        except (NotImplementedError, RuntimeError) as error:
            if not self._switch_to_differences(error):
                raise
            self.generators.restore(start)
            return None

    def _sum_chunks(self, line: Line, batches: Sequence[Batch]) -> Quadratic:
        parts = (part for batch in batches for part in in_chunks(batch, self._options.chunks))
        return reduce(add, (self._route(line, part) for part in parts))

    def _switch_to_differences(self, error: Exception) -> bool:
        operation = _without_forward_mode(str(error))
        if self._route is not ROUTES["jvp"] or operation is None:
            return False
        self._route = by_finite_difference
        self.warn(
            f"{operation} has no forward-mode derivative: α* comes from finite differences of the outputs"
        )
        return True


def _without_forward_mode(message: str) -> str | None:
    """Return the operation without forward-mode derivative in torch's message, or None."""
    if "forward AD" not in message and "forward mode" not in message:
        return None
    if "autograd.Function" in message:
        return "a custom autograd.Function"
    match = re.search(r"forward AD with (\S+) that does not", message)
    return match[1] if match else "an operation of the model"
