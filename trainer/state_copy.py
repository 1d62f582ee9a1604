"""Copy a checkpoint's state, so that training can continue while the copy is written."""

from __future__ import annotations

import copy
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor, nn

from .tensors import components

CONSTANTS = (
    type(None), bool, int, float, complex, str, bytes,
    torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Size,
)  # fmt: skip
MAPPINGS = (dict, OrderedDict, defaultdict, Counter)
SEQUENCES = (list, tuple, set, frozenset)
PLAIN_TENSORS = (Tensor, nn.Parameter)
"""Tensors of other classes may share memory."""


class Uncopied(Exception):
    """A state holds an object that this module cannot copy completely."""


def size(value: Any) -> int:
    """Return the bytes of all tensors in nested containers."""
    if isinstance(value, Tensor):
        return sum(part.nbytes for part in components(value))
    if isinstance(value, dict):
        return sum(map(size, value.values()))
    return sum(map(size, value)) if isinstance(value, SEQUENCES) else 0


def copy_state(value: Any) -> Any:
    """Return a state with every container copied, and every tensor copied to the CPU's memory.

    Raises:
        Uncopied: the state holds an object of another class.
    """
    return _copy_once(value, {})


def _copy_once(value: Any, done: dict[Hashable, Any]) -> Any:
    """Return the copy of an object, and copy each object only once, so that sharing is preserved."""
    if type(value) in CONSTANTS:
        return value
    key = _identity(value)
    if key not in done:
        done[key] = _copy(value, done)
    return done[key]


def _identity(value: Any) -> Hashable:
    """Return a key that is equal for objects that can share one copy.

    A `state_dict` holds a tied parameter as several tensors with the same memory.
    """
    if type(value) not in PLAIN_TENSORS or value.layout is not torch.strided or value.is_nested:
        return id(value)
    place = value.device, value.data_ptr(), value.storage_offset(), value.shape, value.stride()
    return *place, value.dtype, value.requires_grad, value.is_conj(), value.is_neg()


def _copy(value: Any, done: dict[Hashable, Any]) -> Any:
    kind = type(value)
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True).requires_grad_(value.requires_grad)
    if kind in MAPPINGS:
        twin = copy.copy(value)  # which keeps a default_factory
        for key, item in value.items():
            twin[key] = _copy_once(item, done)
        for name, item in getattr(value, "__dict__", {}).items():  # torch keeps versions beside a state
            setattr(twin, name, _copy_once(item, done))
        return twin
    if kind in SEQUENCES:
        return kind(_copy_once(item, done) for item in value)
    if issubclass(kind, tuple) and hasattr(kind, "_make"):
        return kind._make(_copy_once(item, done) for item in value)
    if kind is bytearray:
        return bytearray(value)
    raise Uncopied(kind.__name__)
