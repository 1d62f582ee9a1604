"""Read `--set KEY=VALUE`: it sets a key of the specification file, or a config key of every run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ...documents import Document, parse_value
from ...errors import UserError
from ...problems import KeyPath, Place, dotted, suggestion
from ...trainer.config import TrainingConfig
from .config_sections import dotted_keys
from .overrides import Config, Override, key_path


def read_settings(
    options: Sequence[str], document: Document, file_keys: Collection[str]
) -> tuple[Document, tuple[Override, ...]]:
    """Apply the options that name a key of the file to `document`; return the others as overrides.

    Raises:
        UserError: an option has no `=`, no value, an unknown key, or a value that is not valid YAML.
    """
    overrides: list[Override] = []
    for option in options:
        key, value, place = _parse_option(option)
        if key[0] in file_keys:
            document = document.replaced(_file_path(key, document.value, place), value, place)
        elif key[0] in TrainingConfig.model_fields:
            overrides.append(Override(key, value, place))
        else:
            valid_keys = [*TrainingConfig.model_fields, *file_keys, *dotted_keys()]
            raise UserError(f"{place}: unknown key '{dotted(key)}'{suggestion(dotted(key), valid_keys)}")
    return document, tuple(overrides)


def has_section(config: Config, path: tuple[str, ...]) -> bool:
    """Return whether a config has the section of the leaf at `path`, also by default."""
    if len(path) == 1:
        return True
    if path[0] in config:
        return config[path[0]] is not None
    return TrainingConfig.model_fields[path[0]].default is not None


def _parse_option(option: str) -> tuple[tuple[str, ...], Any, Place]:
    name, equals, text = option.partition("=")
    key = key_path(name.strip())
    if not equals or not all(key):
        raise UserError(f"--set {option}: should be KEY=VALUE", "for example --set alpha.count=10")
    if not text.strip():
        raise UserError(f"--set {option}: has no value", "write null for none, '' for an empty text")
    place = Place(f"--set {option}")
    return key, parse_value(text, str(place)), place


def _file_path(key: tuple[str, ...], file: Any, place: Place) -> KeyPath:
    """Return the path in the document of a dotted key of the file."""
    path: KeyPath = key[:1]
    value, rest = file.get(key[0]), key[1:]
    while rest:
        if isinstance(value, list):
            path = (*path, _list_position(rest[0], value, place))
            rest = rest[1:]
        else:
            parts = _parts_of_next_key(path, rest, value)
            path = (*path, dotted(rest[:parts]))
            rest = rest[parts:]
        value = _child_value(value, path[-1])
    return path


def _parts_of_next_key(path: KeyPath, rest: tuple[str, ...], value: Any) -> int:
    """Return how many parts of `rest` form one key of the mapping at `path`.

    An axis is one dotted key. Elsewhere the key is one that the file already has, else a baseline's name or a
    key of the profile, else a dotted key that changes one leaf.
    """
    if path[-1] in ("grid", "zip") and path[0] in (path[-1], "grids"):
        return len(rest)
    written = _longest_written(rest, value)
    is_named_section = path in (("baselines",), ("resources",)) or (path[0] == "grids" and len(path) == 2)
    return written or (1 if is_named_section else len(rest))


def _longest_written(rest: tuple[str, ...], value: Any) -> int:
    """Return how many parts of `rest` form a key that the mapping already has."""
    if not isinstance(value, Mapping):
        return 0
    return next((end for end in range(len(rest), 0, -1) if ".".join(rest[:end]) in value), 0)


def _list_position(text: str, items: list[Any], place: Place) -> int:
    if not text.isdecimal() or int(text) >= len(items):
        raise UserError(f"{place}: '{text}' is no position in a list of {len(items)}", "positions begin at 0")
    return int(text)


def _child_value(value: Any, part: str | int) -> Any:
    if isinstance(value, Mapping):
        return value.get(str(part))
    return value[part] if isinstance(value, list) and isinstance(part, int) else None
