"""State of a model beyond its `state_dict`: buffers that it leaves out, and random generators."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..errors import UserError
from .randomness import Generator, held_generators
from .tensors import components, copy_into

IN_INIT = "make it where the model is built, as a buffer or an attribute of its module"


class ModuleState:
    """Saves and restores buffers and random generators of a model's modules.

    Buffers: those that are not persistent, and those that `load_state_dict` could not restore. The latter
    have another shape or type than in a new model, or do not exist in a new model. Generators: torch's,
    NumPy's and Python's that are attributes of modules, also in lists, tuples and mappings.

    Raises:
        UserError: a buffer of a lazy module has no shape yet.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        for name, _, buffer in _buffers(model):
            if buffer is not None and is_lazy(buffer):
                raise UserError(
                    f"the model's buffer {name} has no shape before the first forward pass",
                    "initialise lazy modules in workload.model(), by a pass over one batch",
                )
        self._initial_layouts = {name: _layout(buffer) for name, _, buffer in _buffers(model)}

    def state_dict(self) -> dict[str, Any]:
        """Return buffers and generators by their paths, as tensors and plain values."""
        buffers = {
            name: {"value": None if buffer is None else buffer.detach(), "persistent": persistent}
            for name, persistent, buffer in _buffers(self._model)
            if not persistent or self._initial_layouts.get(name) != _layout(buffer) or _overlaps(buffer)
        }
        generators = {name: _save_generator(generator) for name, generator in held_generators(self._model)}
        return {"buffers": buffers, "generators": generators}

    def load_state_dict(self, state: dict[str, Any] | None, device: torch.device) -> list[str]:
        """Restore what `state_dict` returned, before the model's own state; return warnings.

        `state` is None if an older version wrote the checkpoint without it.

        Raises:
            UserError: the model has no place for a buffer or a generator.
        """
        if state is None:
            return self._warn_not_restored()
        self._load_buffers(state["buffers"], device)
        return self._load_generators(state["generators"])

    def _load_buffers(self, buffers: dict[str, Any], device: torch.device) -> None:
        modules = dict(self._model.named_modules(remove_duplicate=False))
        for name, saved in buffers.items():
            path, _, own = name.rpartition(".")
            if path not in modules or (own not in modules[path]._buffers and hasattr(modules[path], own)):
                raise UserError(f"the checkpoint has a buffer {name}, the model has no place for it", IN_INIT)
            _set_buffer(modules[path], own, saved["value"], saved["persistent"], device)

    def _load_generators(self, generators: dict[str, Any]) -> list[str]:
        modules = dict(self._model.named_modules(remove_duplicate=False))
        present = dict(held_generators(self._model))
        warnings = []
        for name, saved in generators.items():
            path, _, own = name.rpartition(".")
            if name not in present and path in modules:  # a forward pass makes it
                setattr(modules[path], own, _make_generator(saved["kind"]))
                present[name] = getattr(modules[path], own)
            if name not in present:
                raise UserError(f"the checkpoint has a generator {name}, the model has none", IN_INIT)
            kind = _save_generator(present[name])["kind"]
            if kind == saved["kind"]:
                _restore_generator(present[name], saved["state"])
            else:
                warnings.append(
                    f"the generator {name} starts from its seed: it was a {saved['kind']}, and is a {kind}"
                )
        return warnings

    def _warn_not_restored(self) -> list[str]:
        """Return a warning if the model has state that the checkpoint lacks."""
        state = self.state_dict()
        names = [*state["buffers"], *state["generators"]]
        if not names:
            return []
        summary = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        return [
            f"the checkpoint is an older alphagrid's, without {summary}: they start from their initial values"
        ]


def _buffers(model: nn.Module) -> Iterator[tuple[str, bool, Tensor | None]]:
    """Yield path, persistence and value of each buffer of each module."""
    for path, module in model.named_modules():
        for name, buffer in module._buffers.items():
            persistent = name not in module._non_persistent_buffers_set
            yield f"{path}.{name}" if path else name, persistent, buffer


def _layout(buffer: Tensor | None) -> tuple[Any, ...] | None:
    """Return the layout that two buffers must share so that one can be copied into the other."""
    if buffer is None:
        return None
    return buffer.layout, *((part.shape, part.dtype) for part in components(buffer))


def _overlaps(buffer: Tensor | None) -> bool:
    """Return whether elements of a buffer share memory, so that nothing can be copied into it."""
    if buffer is None or buffer.layout is not torch.strided:
        return False
    return any(size > 1 and stride == 0 for size, stride in zip(buffer.shape, buffer.stride(), strict=True))


def _set_buffer(
    module: nn.Module, name: str, value: Tensor | None, persistent: bool, device: torch.device
) -> None:
    """Copy a value into a buffer of the same layout; otherwise replace the buffer."""
    buffer = module._buffers.get(name)
    if (
        value is not None
        and buffer is not None
        and _layout(buffer) == _layout(value)
        and not _overlaps(buffer)
    ):
        copy_into(buffer, value)
        return
    where = device if buffer is None else buffer.device
    module.register_buffer(name, None if value is None else value.to(where), persistent=persistent)


def _save_generator(generator: Generator) -> dict[str, Any]:
    """Return the kind and the state of a generator as tensors and plain values."""
    if isinstance(generator, torch.Generator):
        return {"kind": f"torch.Generator on {generator.device.type}", "state": generator.get_state()}
    if isinstance(generator, random.Random):
        version, internal, gauss = generator.getstate()
        return {"kind": "random.Random", "state": [version, list(internal), gauss]}
    if isinstance(generator, np.random.RandomState):
        return {"kind": "numpy.random.RandomState", "state": _to_plain(generator.get_state(legacy=False))}
    bits = generator.bit_generator
    return {"kind": f"numpy.random.{type(bits).__name__}", "state": _to_plain(bits.state)}


def _make_generator(kind: str) -> Generator:
    """Return a new generator of a kind."""
    if kind.startswith("torch."):
        return torch.Generator(kind.rpartition(" ")[2])
    if kind == "random.Random":
        return random.Random()
    if kind == "numpy.random.RandomState":
        return np.random.RandomState()
    return np.random.Generator(getattr(np.random, kind.rpartition(".")[2])())


def _restore_generator(generator: Generator, state: Any) -> None:
    """Restore the saved state of a generator."""
    if isinstance(generator, torch.Generator):
        generator.set_state(state)
    elif isinstance(generator, random.Random):
        version, internal, gauss = state
        generator.setstate((version, tuple(internal), gauss))
    elif isinstance(generator, np.random.RandomState):
        generator.set_state(_from_plain(state))
    else:
        generator.bit_generator.state = _from_plain(state)


def _to_plain(state: Any) -> Any:
    """Return a state of NumPy's with tensors for its arrays and plain values for its numbers."""
    if isinstance(state, dict):
        return {key: _to_plain(value) for key, value in state.items()}
    if isinstance(state, np.ndarray):
        return torch.from_numpy(state.copy())
    return state.item() if isinstance(state, np.generic) else state


def _from_plain(state: Any) -> Any:
    """Undo `_to_plain`."""
    if isinstance(state, dict):
        return {key: _from_plain(value) for key, value in state.items()}
    return state.numpy() if isinstance(state, Tensor) else state
