"""A model called with other tensors in the places of its parameters and buffers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call


def substitutes(model: nn.Module, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensor to put into each place where `model` holds one of the tensors that `values` names.

    `values` goes by the names of `named_parameters` and `named_buffers`, where a tied tensor has one name. A
    place is an entry of one module: a tied tensor has several places, but a module that is registered under
    two names has each of its places once. (torch's own tying lists such a place twice, and leaves the
    substitute there after the call.)
    """
    tensors = dict(chain(model.named_parameters(), model.named_buffers()))
    by_tensor = {id(tensors[name]): value for name, value in values.items()}
    return {
        name: by_tensor[id(tensor)]
        for name, entries, key in _tensor_places(model)
        if id(tensor := entries[key]) in by_tensor
    }


def call(model: nn.Module, at: dict[str, Tensor], inputs: Any) -> Any:
    """Call `model` with the tensors of `at`, as returned by `substitutes`, in place of its own.

    If the model assigns or changes a buffer, `at` holds the new value afterwards; the model's buffer stays.
    """
    return functional_call(model, at, (inputs,), tie_weights=False)


@contextmanager
def tensors_kept(model: nn.Module) -> Iterator[None]:
    """Restore the model's current parameter and buffer objects at the end."""
    places = [(entries, key, entries[key]) for _, entries, key in _tensor_places(model)]
    try:
        yield
    finally:
        for entries, key, tensor in places:
            entries[key] = tensor


def _tensor_places(model: nn.Module) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield each place that holds a parameter or a buffer: its name, its module's entries, and its key."""
    for prefix, module in model.named_modules():
        for entries in (module._parameters, module._buffers):
            for key, tensor in entries.items():
                if tensor is not None:
                    yield (f"{prefix}.{key}" if prefix else key), entries, key
