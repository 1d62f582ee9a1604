"""Check before the first step whether a step depends on state that no checkpoint holds.

A resumed run reads batches by their index, and runs its passes with the parameters, buffers and generators of
the checkpoint. So reading a batch twice must give the same batch, and two passes over it from the same state
must give the same loss.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .buffers import buffers_preserved
from .losses import Loss
from .parameter_changes import parameters_preserved
from .randomness import Generators, held
from .streams import Batch, Prefetched, Stream, are_same, copied
from .tensors import version

OF_TORCH = frozenset(vars(nn.Module()))
"""Attributes that every module has."""
MOST_NAMED = 3

UNSTABLE_DATA = (
    "a training batch is another one when it is read again, so a resumed run trains on other data: the "
    "stream is no function of its index (it counts, or draws from a generator of its own or, read ahead, "
    "from a global one)"
)


class Rereading:
    """Compares the first batch with a later read at the same index.

    The warm-up pass reads the batch of the first step. The first step then reads it again with the generators
    in the same state.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.first: tuple[int, Batch] | None = None
        self._next: tuple[int, Batch] | None = None
        self._done = False

    def keep(self, position: int, batch: Batch) -> None:
        """Keep a copy of the first batch, and the one read next, until they are compared."""
        if self._done:
            return
        if self.first is None:
            self.first = position, copied(batch)
        elif self._next is None:
            self._next = position, batch

    def compare(self) -> str | None:
        """Return a warning if the second read of the same position gave another batch."""
        if self.first is None or self._next is None:
            return None
        (position, batch), (next_position, next_batch) = self.first, self._next
        self.first, self._next, self._done = None, None, True
        return None if position != next_position or are_same(batch, next_batch) else UNSTABLE_DATA

    def ahead(self, generators: Generators) -> str | None:
        """Read the first batch of a prefetched stream again; return a warning if it differs.

        A prefetching thread reads at any state of the global generators, so a batch must not use them.
        """
        if self.first is None or not isinstance(self._stream, Prefetched):
            return None
        position, batch = self.first
        with generators.preserved():
            start = generators.state()
            second_batch = self._stream.again(position)
            drawn = generators.drawn_since(start)
        return UNSTABLE_DATA if drawn or not are_same(batch, second_batch) else None


def warning_of(check: Callable[[], str | None]) -> str | None:
    """Return the warning of a check for hidden state; an exception in the check is a warning, too."""
    try:
        return check()
    except Exception as error:  # models, losses and streams may raise anything at a second use
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        return f"whether there is state that no checkpoint holds was not checked: {reason}"


def hidden_state(
    model: nn.Module, loss: Loss, generators: Generators, batch: Batch, changing: Collection[str] = ()
) -> str | None:
    """Run two passes over one batch; return a warning if the second depends on the first.

    The passes compute no gradient. They restore generators, buffers and the parameters `changing` in a pass.
    """
    start = generators.state()

    def values() -> Tensor:
        own = copied(batch)  # a model may write to its inputs
        parameters_unchanged = parameters_preserved(model, changing)
        with generators.replayed(start), buffers_preserved(model), parameters_unchanged, torch.no_grad():
            return loss.values(model(own["inputs"]), own["targets"])

    before = dict(_marks(model))
    if _are_close(values(), values()):
        return None
    return _unstable_model([name for name, mark in _marks(model) if before.get(name) != mark])


def _unstable_model(changed: list[str]) -> str:
    """Return the warning with the names of the attributes that change in a pass."""
    more = f" and {len(changed) - MOST_NAMED} more" if len(changed) > MOST_NAMED else ""
    attributes = f" (changed: {', '.join(changed[:MOST_NAMED])}{more})" if changed else ""
    return (
        "two passes over the same batch with the same parameters, buffers and random numbers have different "
        f"losses: the model or the loss keeps a state{attributes} that no checkpoint holds, and a resumed "
        "run goes on without it. Make it a buffer of its module (register_buffer)"
    )


def _are_close(first: Tensor, second: Tensor) -> bool:
    """Return whether losses are equal up to rounding; true for losses that are not finite."""
    if first.shape != second.shape or not (first.isfinite().all() and second.isfinite().all()):
        return first.shape == second.shape
    tolerance = math.sqrt(torch.finfo(first.dtype).eps) * float(first.abs().mean())
    return bool((first - second).abs().max() <= tolerance) if first.numel() else True


@dataclass(frozen=True, eq=False)
class _TensorMark:
    """Identity and version of a tensor; another or a modified tensor is not equal."""

    tensor: weakref.ref[Tensor]
    version: int

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _TensorMark)
            and self.tensor() is other.tensor()
            and self.version == other.version
        )

    def __hash__(self) -> int:
        return hash(self.version)


def _marks(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield marks of the module attributes that no checkpoint holds, by their paths."""
    registered = {id(module) for module in model.modules()}
    for place, item in held(model):
        if not OF_TORCH.isdisjoint(place.split(".")) or isinstance(item, nn.Parameter):
            continue
        if isinstance(item, nn.Module):
            state = (
                {} if id(item) in registered else dict(item.named_parameters()) | dict(item.named_buffers())
            )
            yield from ((f"{place}.{name}", _mark(tensor)) for name, tensor in state.items())
        elif isinstance(item, Tensor | bool | int | float | str):
            yield place, _mark(item)


def _mark(value: Any) -> Any:
    if isinstance(value, Tensor):
        return _TensorMark(weakref.ref(value), version(value))
    return repr(value)
