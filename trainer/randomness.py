"""Save, restore and preserve the states of the random number generators.

`snapshot` and `restore` are for checkpoints; `Generators` is for code between two steps.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from .streams import derive

State = dict[str, Any]
GeneratorState = list[Any]
Generator = torch.Generator | random.Random | np.random.Generator | np.random.RandomState
GLOBAL = 3
"""Generators of `Generators` that no module holds: Python's, NumPy's and torch's."""


def snapshot() -> State:
    """Return the states of Python's, numpy's and torch's generators as tensors and plain values."""
    version, internal, gauss = random.getstate()
    numpy: dict[str, Any] = np.random.get_state(legacy=False)
    return {
        "python": [version, list(internal), gauss],
        "numpy": _plain_numpy(numpy),
        "torch": torch_snapshot(),
    }


def _plain_numpy(state: dict[str, Any]) -> list[Any]:
    keys, position = state["state"]["key"], state["state"]["pos"]
    cached = int(state["has_gauss"]), float(state["gauss"])
    return [torch.from_numpy(keys.astype(np.int64)), int(position), *cached]


def restore(state: State) -> None:
    """Restore the generators to `state`."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch_restore(state["torch"])


def torch_snapshot() -> list[Tensor]:
    """Return the states of torch's generators: the CPU's and, if the run uses one, its CUDA device's."""
    cuda = [torch.cuda.get_rng_state()] if _uses_cuda() else []
    return [torch.get_rng_state(), *cuda]


def torch_restore(state: list[Tensor]) -> None:
    """Restore torch's generators to `state`.

    Checkpoints of earlier versions hold the states of all CUDA devices of a node; this uses the run's device.
    """
    cpu, *cuda = state
    torch.set_rng_state(cpu)
    if cuda and _uses_cuda():
        torch.cuda.set_rng_state(cuda[min(torch.cuda.current_device(), len(cuda) - 1)])


def _uses_cuda() -> bool:
    """Return whether this process uses a CUDA device; asking one that it does not use takes memory there."""
    used: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return used


def held(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield the attributes of modules, also items of lists, tuples and mappings, each with its path.

    A path joins the module's and the attribute's: `encoder.0.noise`, `noises.1`.
    """
    for path, module in model.named_modules():
        yield from _items(path, vars(module), set())


def held_generators(model: nn.Module) -> Iterator[tuple[str, Generator]]:
    """Yield each generator that modules hold once, with its path."""
    seen: set[int] = set()
    for place, item in held(model):
        if not isinstance(item, Generator) or isinstance(item, random.SystemRandom):  # which has no state
            continue
        if id(item) not in seen:
            seen.add(id(item))
            yield place, item


def _items(place: str, value: Any, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Yield the items of nested lists, tuples and mappings with their paths; visit each container once."""
    if not isinstance(value, (Mapping, list, tuple)):
        yield place, value
    elif id(value) not in seen:
        seen.add(id(value))
        for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _items(f"{place}.{key}" if place else str(key), item, seen)


def seed_torch(seed: int) -> None:
    """Seed torch's generators without `torch.manual_seed`, which is slow for devices not in use."""
    torch.default_generator.manual_seed(seed)
    if _uses_cuda():
        torch.cuda.manual_seed(seed)


class Generators:
    """The generators a model can draw from: Python's, NumPy's, torch's, and those that its modules hold.

    Of a module's attributes (also in lists, tuples and mappings) `torch.Generator`, `random.Random`,
    `numpy.random.Generator` and `numpy.random.RandomState` are found.
    """

    def __init__(self, model: nn.Module | None = None) -> None:
        self._model = model
        self._parts: list[_GeneratorAccess] = [
            _GeneratorAccess(random.getstate, random.setstate, random.seed),
            _GeneratorAccess(
                lambda: np.random.get_state(legacy=False), np.random.set_state, _numpy_seed(np.random.seed)
            ),
            _GeneratorAccess(torch_snapshot, torch_restore, seed_torch),
        ]
        self._known: set[int] = set()
        self.find()

    def find(self, reset: bool = False) -> None:
        """Find generators that modules now hold; `reset`: reset new torch generators to their seed.

        A forward pass can create a generator. After a reset, the number of earlier passes does not matter.
        """
        for _, item in () if self._model is None else held_generators(self._model):
            if id(item) in self._known:
                continue
            self._known.add(id(item))
            self._parts.append(_generator_access(item))
            if isinstance(item, torch.Generator) and reset:
                item.manual_seed(item.initial_seed())

    def state(self) -> GeneratorState:
        """Return the state of every generator."""
        return [part.state() for part in self._parts]

    def restore(self, state: GeneratorState) -> None:
        """Restore the generators to `state`; generators found later keep their state."""
        for part, value in zip(self._parts, state, strict=False):
            part.restore(value)

    def seed(self, seed: int) -> None:
        """Seed every generator; different generators of modules draw different numbers."""
        for position, part in enumerate(self._parts):
            part.seed(seed if position < GLOBAL else derive(seed, position))

    def drawn_since(self, state: GeneratorState) -> bool:
        """Return whether any generator has been drawn from since `state`."""
        return not _are_same_states(state, self.state())

    @contextmanager
    def preserved(self) -> Iterator[None]:
        """Restore every generator at the end, also after an exception."""
        state = self.state()
        try:
            yield
        finally:
            self.restore(state)

    @contextmanager
    def replayed(self, start: int | GeneratorState) -> Iterator[None]:
        """Run with a seed or an earlier state of the generators; restore them at the end."""
        with self.preserved():
            if isinstance(start, int):
                self.seed(start)
            else:
                self.restore(start)
            yield


class _GeneratorAccess(NamedTuple):
    """Functions to read, restore and seed one generator, or torch's generators of all devices."""

    state: Callable[[], Any]
    restore: Callable[[Any], Any]
    seed: Callable[[int], Any]


def _generator_access(generator: Generator) -> _GeneratorAccess:
    """Return the functions that access a generator."""
    if isinstance(generator, torch.Generator):
        return _GeneratorAccess(generator.get_state, generator.set_state, generator.manual_seed)
    if isinstance(generator, random.Random):
        return _GeneratorAccess(generator.getstate, generator.setstate, generator.seed)
    if isinstance(generator, np.random.RandomState):
        seed = _numpy_seed(generator.seed)
        return _GeneratorAccess(lambda: generator.get_state(legacy=False), generator.set_state, seed)
    bits = generator.bit_generator

    def restore(state: Any) -> None:
        bits.state = state

    return _GeneratorAccess(lambda: bits.state, restore, lambda seed: restore(type(bits)(seed).state))


def _numpy_seed(seed: Callable[[int], None]) -> Callable[[int], None]:
    return lambda value: seed(value % 2**32)


def _are_same_states(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return all(_are_same_states(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return all(_are_same_states(*pair) for pair in zip(first, second, strict=True))
    return np.array_equal(first, second)
