"""The states of the random number generators: saved, restored, and kept out of the way."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

State = dict[str, Any]


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
    """Put the generators back into `state`."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch_restore(state["torch"])


def drawn_since(state: State) -> bool:
    """Tell whether any generator has been drawn from since a `snapshot`."""
    return not _same(state, snapshot())


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict):
        return all(_same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return all(_same(*pair) for pair in zip(left, right, strict=True))
    return bool(left == right)


def torch_snapshot() -> list[Tensor]:
    """Return the states of torch's generators: the CPU's, then every CUDA device's."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return [torch.get_rng_state(), *cuda]


def torch_restore(state: list[Tensor]) -> None:
    """Put torch's generators back into `state`."""
    torch.set_rng_state(state[0])
    if torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state[1:])


def module_generators(model: nn.Module) -> dict[str, torch.Generator]:
    """Return the torch generators that modules hold as attributes, also in lists, tuples and mappings.

    The name is the path to the attribute (`encoder.0.noise`, `noises.1`); one held twice is there once.
    """
    found: dict[int, tuple[str, torch.Generator]] = {}
    for path, module in model.named_modules():
        for place, item in _items(path, vars(module), set()):
            if isinstance(item, torch.Generator):
                found.setdefault(id(item), (place, item))
    return dict(found.values())


def _items(place: str, value: Any, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Yield the items of nested lists, tuples and mappings with their places; each container once."""
    if not isinstance(value, (Mapping, list, tuple)):
        yield place, value
    elif id(value) not in seen:
        seen.add(id(value))
        for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _items(f"{place}.{key}" if place else str(key), item, seen)


def seed_torch(seed: int) -> None:
    """Seed torch's generators without `torch.manual_seed`, which traces the stack for devices not in use."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)


@contextmanager
def preserved() -> Iterator[None]:
    """Leave every generator as it was found, whatever happens inside."""
    python, numpy, torch_state = random.getstate(), np.random.get_state(legacy=False), torch_snapshot()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch_restore(torch_state)


@contextmanager
def replayed(start: int | list[Tensor]) -> Iterator[None]:
    """Draw torch's random numbers from a seed, or from where they once stood; then leave no trace in any."""
    with preserved():
        if isinstance(start, int):
            seed_torch(start)
        else:
            torch_restore(start)
        yield
