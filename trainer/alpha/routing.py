"""The route that is taken: the one asked for, in chunks, or finite differences where it is no way."""

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
    """Finds quadratics on the route that the options name.

    Where an operation of the model has no forward-mode derivative, finite differences serve from then on,
    and a warning names it. `timed` opens the clock's section for what a curvature takes.
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
        """Whether slopes come from differences of passes, and not from derivatives."""
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
        """Compute loss, gradient and quadratic by one pass; None where only finite differences serve."""
        if self._route is not ROUTES["jvp"]:
            return None
        return self._try_route(lambda: train_and_look(self.line(vector, step), batch))

    def warm_up(self, batches: Sequence[Batch], fused: bool = False) -> None:
        """Look along θ itself for what the first pass of a process costs; it is charged to nothing.

        `fused`: train and look by one pass, if that is possible.
        """
        vector = [p.detach() for p in self.model.parameters() if p.requires_grad]
        line = replace(self.line(vector, -NEGLIGIBLE_RATE), timed=nullcontext)
        self.look(line, batches, fused)

    def look(self, line: Line, batches: Sequence[Batch], fused: bool = False) -> Quadratic:
        """Return slope and curvature along a line; `fused`: train by the same pass, if that is possible."""
        if fused and self._route is ROUTES["jvp"]:
            result = self._try_route(lambda: train_and_look(line, batches[0]))
            if result is not None:
                return result[1]
        return self._quadratic(line, batches)

    def _quadratic(self, line: Line, batches: Sequence[Batch]) -> Quadratic:
        quadratic = self._try_route(lambda: self._sum_chunks(line, batches))
        return self._sum_chunks(line, batches) if quadratic is None else quadratic

    def _try_route(self, way: Callable[[], Result]) -> Result | None:
        """Return what a way gives; None where finite differences serve from now on.

        What failed may have drawn random numbers: the generators are put back, so that what comes instead
        draws what it would have drawn at once. A resumed run fails again, and goes on to the same numbers.
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
    """Return the operation that torch complains of, or None if the complaint is another one."""
    if "forward AD" not in message and "forward mode" not in message:
        return None
    if "autograd.Function" in message:
        return "a custom autograd.Function"
    match = re.search(r"forward AD with (\S+) that does not", message)
    return match[1] if match else "an operation of the model"
