"""Copies of a checkpoint's state that training does not change while they are written."""

from __future__ import annotations

import copy
from collections import Counter, OrderedDict, defaultdict, deque
from typing import Any

import torch
from torch import Tensor

from .tensors import components

CONSTANTS = (
    type(None), bool, int, float, complex, str, bytes,
    torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Size,
)  # fmt: skip
MAPPINGS = (dict, OrderedDict, defaultdict, Counter)
SEQUENCES = (list, tuple, set, frozenset)


class Uncopied(Exception):
    """A state holds an object of a class that this module cannot copy completely."""


def size(value: Any) -> int:
    """Return the bytes of all tensors in nested containers."""
    if isinstance(value, Tensor):
        return sum(part.nbytes for part in components(value))
    if isinstance(value, dict):
        return sum(map(size, value.values()))
    return sum(map(size, value)) if isinstance(value, (*SEQUENCES, deque)) else 0


def copied(value: Any) -> Any:
    """Return a state with every container copied, and every tensor copied to the CPU's memory.

    Raises:
        Uncopied: it holds an object of another class than these.
    """
    return _copied(value, {})


def _copied(value: Any, done: dict[int, Any]) -> Any:
    """Copy what is not among those `done`: what the state holds twice, the copy does, too."""
    if type(value) in CONSTANTS:
        return value
    if id(value) not in done:
        done[id(value)] = _copy(value, done)
    return done[id(value)]


def _copy(value: Any, done: dict[int, Any]) -> Any:
    kind = type(value)
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True).requires_grad_(value.requires_grad)
    if kind in MAPPINGS:
        twin = copy.copy(value)  # which keeps a default_factory
        for key, item in value.items():
            twin[key] = _copied(item, done)
        for name, item in getattr(value, "__dict__", {}).items():  # torch keeps versions beside a state
            setattr(twin, name, _copied(item, done))
        return twin
    if kind in SEQUENCES:
        return kind(_copied(item, done) for item in value)
    if kind is deque:
        return deque((_copied(item, done) for item in value), value.maxlen)
    if issubclass(kind, tuple) and hasattr(kind, "_make"):
        return kind._make(_copied(item, done) for item in value)
    if kind is bytearray:
        return bytearray(value)
    raise Uncopied(kind.__name__)
