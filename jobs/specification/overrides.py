"""Overrides: each sets one key of a run's config to a value, and knows where the value was written.

A mapping replaces its section, a dotted key changes one leaf, null switches a section off. If both are
given, the section is set first; their order in the file does not matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...documents import Document
from ...problems import KeyPath, Place, Problem, refuse, shown

Config = dict[str, Any]
"""A run's config before it is validated; sections are shared between runs and never changed in place."""


@dataclass(frozen=True)
class Override:
    """`value` at `path` of a config, written at `origin` in the document or on the command line."""

    path: tuple[str, ...]
    value: Any
    origin: KeyPath | Place

    def place(self, document: Document, rest: KeyPath = ()) -> Place:
        """Return where the value, or the part of it at `rest`, was written."""
        return self.origin if isinstance(self.origin, Place) else document.place(*self.origin, *rest)


def key_path(key: str) -> tuple[str, ...]:
    """Split a dotted key."""
    return tuple(key.split("."))


def overrides_in(mapping: Mapping[str, Any], origin: KeyPath) -> list[Override]:
    """Return the overrides in a mapping of (dotted) keys at `origin`, sections before leaves."""
    return sections_first([Override(key_path(key), value, (*origin, key)) for key, value in mapping.items()])


def sections_first(overrides: Iterable[Override]) -> list[Override]:
    """Sort overrides so that a section precedes its leaves."""
    return sorted(overrides, key=lambda override: len(override.path))


def apply(overrides: Sequence[Override], config: Config, document: Document) -> Config:
    """Return `config` with the overrides applied in their order.

    Raises:
        UserError: a dotted key leads through a value that has no keys.
    """
    for override in overrides:
        try:
            config = _with_leaf(config, override.path, override.value)
        except _NoSection as error:
            refuse([Problem(override.place(document), ".".join(override.path), str(error))])
    return config


def place_of(path: KeyPath, overrides: Sequence[Override], document: Document) -> Place:
    """Return where the value at `path` of a config made by `overrides` was written.

    For a key that was not written, the result is the place of its section or else of `base`.
    """
    if not path:
        return document.place("base")
    for override in reversed(overrides):
        depth = len(override.path)
        if path[:depth] == override.path:
            return override.place(document, path[depth:])
    within = (override for override in overrides if override.path[: len(path)] == path)
    beside = (override for override in reversed(overrides) if path[:1] == override.path[:1])
    nearest_override = next(within, None) or next(beside, None)
    return nearest_override.place(document) if nearest_override else document.place("base")


class _NoSection(Exception):
    pass


def _with_leaf(config: Config, path: tuple[str, ...], value: Any) -> Config:
    """Return a copy of `config` in which the leaf at `path` is `value`; all other values are shared."""
    key, rest = path[0], path[1:]
    if not rest:
        return {**config, key: value}
    section = config.get(key)
    if section is None:
        section = {}
    if not isinstance(section, dict):
        raise _NoSection(f"{key} is {shown(section)}, so it has no key '{rest[0]}'")
    return {**config, key: _with_leaf(section, rest, value)}
