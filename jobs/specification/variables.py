"""Environment variables in string values: `${NAME}`, expanded only by the worker.

There is no other form and no escape: `$NAME` and `$$` stay as they are, and `${` must begin a variable.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ...cluster_profiles.env_values import MALFORMED, VARIABLE
from ...documents import Document
from ...errors import UserError
from ...problems import KeyPath, Problem, dotted
from .overrides import Override


def variables_in(configs: Iterable[Mapping[Any, Any]]) -> list[str]:
    """Return the names of the variables that the configs use, sorted."""
    texts = (text for config in configs for _, text in _strings_in(config, ()))
    return sorted({name for text in texts if "${" in text for name in VARIABLE.findall(text)})


def expand_variables(config: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """Return a copy of `config` whose string values have their variables expanded, keys untouched.

    Raises:
        UserError: a variable is not set.
    """

    def expanded(match: re.Match[str]) -> str:
        if match[1] not in environ:
            raise UserError(f"${{{match[1]}}} is not set", f"export {match[1]}=… where the run runs")
        return environ[match[1]]

    return {
        key: _map_strings(value, lambda text: VARIABLE.sub(expanded, text)) for key, value in config.items()
    }


def where_used(document: Document, name: str) -> str:
    """Return file, line and key of the first `${name}` in a specification; only the file if there is none."""
    return place_of_text(document, f"${{{name}}}")


def place_of_text(document: Document, part: str) -> str:
    """Return file, line and key of the first string that contains `part`; only the file if none does."""
    for path, text in _strings_in(document.value, ()):
        if part in text:
            return f"{document.place(*path)}: {dotted(path)}"
    return document.source


def malformed_variables(document: Document, settings: Iterable[Override] = ()) -> list[Problem]:
    """Return a problem for each malformed variable in a document and in `--set` options."""
    places = [(document.place(*path), path) for path in _malformed_paths(document.value)]
    for setting in settings:
        places += [
            (setting.place(document), (*setting.path, *path)) for path in _malformed_paths(setting.value)
        ]
    return [
        Problem(place, dotted(path), "'${' must begin a variable, as in ${DATA_DIR}")
        for place, path in places
    ]


def _malformed_paths(value: Any) -> Iterator[KeyPath]:
    return (path for path, text in _strings_in(value, ()) if MALFORMED.search(text))


def _strings_in(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _strings_in(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _strings_in(item, (*path, index))


def _map_strings(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _map_strings(item, change) for key, item in value.items()}
    return [_map_strings(item, change) for item in value] if isinstance(value, list) else value
