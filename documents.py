"""Read YAML documents, and record the file and line of each value.

Scalars are read by the core schema of YAML 1.2 (`1e-3` is a float, `12:00:00` and `no` are text). Duplicate
keys, tags, merge keys (`<<`) and further documents are refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .errors import UserError
from .problems import MOST_LEVELS, TOO_DEEP, KeyPath, Place, dotted, nearest, shown

LARGEST_FILE = 16 * 2**20
MOST_VALUES = 1_000_000
LONGEST_NUMBER = 400
"""Maximum characters of a number."""


@dataclass(frozen=True)
class Document:
    """The value of a YAML document (plain dicts, lists and scalars), and the place of each part."""

    source: str
    value: Any
    places: Mapping[KeyPath, Place]

    def place(self, *path: str | int) -> Place:
        """Return where `path` was written; for a missing path, the place of its nearest existing parent."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.places:
                return self.places[path[:end]]
        return Place(self.source)

    def replaced(self, path: KeyPath, value: Any, place: Place) -> Document:
        """Return a copy in which `path` (created if missing) holds `value`, written at `place`.

        Raises:
            UserError: the path leads through a value that is neither a mapping nor a list.
        """
        other_places = {other: at for other, at in self.places.items() if other[: len(path)] != path}
        return Document(
            self.source, _put_value(self.value, path, value, place), {**other_places, path: place}
        )


def read_document(path: Path) -> Document:
    """Read the file at `path`, which must hold exactly one YAML document.

    Raises:
        UserError: the file does not exist, is not UTF-8 text, is empty, or is not valid YAML.
    """
    return parse_document(_read_text(path), str(path))


def parse_document(text: str, source: str) -> Document:
    """Read `text`; errors name it `source`."""
    node = _compose_document(text, source)
    if node is None:
        raise UserError(f"{source}: is empty", "a YAML document with at least one key is needed here")
    _check_aliases(node, source)
    places: dict[KeyPath, Place] = {(): Place(source, node.start_mark.line + 1)}
    return Document(source, _plain_value(node, (), places, source), places)


def parse_value(text: str, source: str) -> Any:
    """Read one value, as it may follow a key."""
    return parse_document(text, source).value


# Reading files


def _read_text(path: Path) -> str:
    data = _read_bytes(path)
    if len(data) > LARGEST_FILE:
        raise UserError(f"{path}: is larger than 16 MiB", "give the YAML file, not data or a checkpoint")
    if b"\0" in data:
        raise UserError(f"{path}: is a binary file", "give a YAML file, which is text in UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(f"{path}:{line}: is not UTF-8 text", "save the file as UTF-8") from error


def _read_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(LARGEST_FILE + 1)
    except FileNotFoundError as error:
        raise UserError(f"{path}: does not exist", _missing_file_hint(path)) from error
    except IsADirectoryError as error:
        raise UserError(f"{path}: is a directory", "give a YAML file in it") from error
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise UserError(f"{path}: cannot be read ({reason})", "give a readable YAML file") from error


def _missing_file_hint(path: Path) -> str:
    if not path.parent.is_dir():
        return f"the directory {path.parent} does not exist either"
    guess = nearest(path.name, (other.name for other in path.parent.iterdir()))
    return f"did you mean {path.parent / guess}?" if guess else "give the path of a YAML file"


# Reading YAML


_CORE: dict[str, re.Pattern[str]] = {
    "null": re.compile(r"null|Null|NULL|~|"),
    "bool": re.compile(r"true|True|TRUE|false|False|FALSE"),
    "int": re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"),
    "float": re.compile(
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
    ),
}


class _Loader(yaml.SafeLoader):
    """A SafeLoader without implicit types, tags or merge keys: it composes marked nodes, nothing else.

    It stops at the first node beyond the limits on number and depth, before the rest takes up memory.
    """

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._nodes = 0
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "tag", None) is not None:
            raise _RefusedYaml(
                f"the tag '{event.tag}' is not allowed", "write a plain value", event.start_mark
            )
        self._nodes += 1
        if self._nodes > MOST_VALUES:
            raise _RefusedYaml(f"holds more than {MOST_VALUES:,} values", "split the file", event.start_mark)
        self._depth += 1
        if self._depth > MOST_LEVELS:
            raise _RefusedYaml(f"is {TOO_DEEP}", "flatten it", event.start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


class _RefusedYaml(yaml.MarkedYAMLError):
    """Valid YAML that this module refuses."""

    def __init__(self, problem: str, hint: str, mark: Any) -> None:
        super().__init__(problem=problem, problem_mark=mark)
        self.hint = hint


def _compose_document(text: str, source: str) -> yaml.Node | None:
    try:
        return _Loader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message, hint = _describe_yaml_error(error)
        raise UserError(f"{Place(source, mark.line + 1 if mark else None)}: {message}", hint) from error
    except yaml.reader.ReaderError as error:
        place = Place(source, text[: error.position].count("\n") + 1)
        raise UserError(f"{place}: holds a character that is not allowed in YAML", "remove it") from error


def _describe_yaml_error(error: yaml.MarkedYAMLError) -> tuple[str, str]:
    if isinstance(error, _RefusedYaml):
        return str(error.problem), error.hint
    if error.problem == "but found another document":
        return "a second document begins here, only one is allowed", "remove the line '---' and what follows"
    details = ", ".join(part for part in (error.context, error.problem) if part)
    return f"not valid YAML: {details}", "look for a missing quote, bracket or colon, or a wrong indentation"


def _child_nodes(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        yield from node.value
    elif isinstance(node, yaml.MappingNode):
        for pair in node.value:
            yield from pair


def _check_aliases(root: yaml.Node, source: str) -> None:
    """Refuse aliases that contain themselves or expand to too many values, in time linear in the document."""
    sizes: dict[int, tuple[int, int]] = {}
    values, levels = _expanded_size(root, sizes, set(), source)
    if values > MOST_VALUES:
        raise UserError(
            f"{source}: its aliases expand to more than {MOST_VALUES:,} values", "use fewer aliases"
        )
    if levels > MOST_LEVELS:
        raise UserError(f"{source}: with its aliases it is {TOO_DEEP}", "use fewer aliases")


def _expanded_size(
    node: yaml.Node, sizes: dict[int, tuple[int, int]], open_nodes: set[int], source: str
) -> tuple[int, int]:
    """Return the number of values and of levels that a node expands to."""
    if id(node) in open_nodes:
        place = Place(source, node.start_mark.line + 1)
        raise UserError(f"{place}: an alias stands inside what it names", "write the value out")
    if id(node) not in sizes:
        open_nodes.add(id(node))
        values, levels = 1, 0
        for child in _child_nodes(node):
            below = _expanded_size(child, sizes, open_nodes, source)
            values, levels = values + below[0], max(levels, below[1])
        sizes[id(node)] = values, levels + 1
        open_nodes.remove(id(node))
    return sizes[id(node)]


def _plain_value(node: yaml.Node, path: KeyPath, places: dict[KeyPath, Place], source: str) -> Any:
    """Return the plain value of `node`, and add the places of its parts to `places`."""
    if isinstance(node, yaml.MappingNode):
        return _read_mapping(node, path, places, source)
    if isinstance(node, yaml.SequenceNode):
        items = []
        for index, item in enumerate(node.value):
            places[(*path, index)] = Place(source, item.start_mark.line + 1)
            items.append(_plain_value(item, (*path, index), places, source))
        return items
    assert isinstance(node, yaml.ScalarNode)
    return _read_scalar(node, source)


def _read_mapping(
    node: yaml.MappingNode, path: KeyPath, places: dict[KeyPath, Place], source: str
) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        place = Place(source, key_node.start_mark.line + 1)
        key = _read_key(key_node, place)
        if key in mapping:
            first = places[(*path, key)].line
            raise UserError(
                f"{place}: {dotted((*path, key))}: duplicate key (first in line {first})", "keep one"
            )
        places[(*path, key)] = place
        mapping[key] = _plain_value(value_node, (*path, key), places, source)
    return mapping


def _read_key(node: yaml.Node, place: Place) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise UserError(
            f"{place}: a list or mapping cannot be a key", "put a string literal in quotes if meant"
        )
    if node.value == "<<" and node.style is None:
        raise UserError(f"{place}: the merge key '<<' is not allowed", "write the keys out")
    key = _read_scalar(node, place.source)
    if not isinstance(key, str):
        raise UserError(
            f"{place}: a key should be text, not {shown(key)}", f'put it in quotes: "{node.value}"'
        )
    return key


def _read_scalar(node: yaml.ScalarNode, source: str) -> Any:
    text: str = node.value
    if node.style is not None:  # quoted, literal or folded
        return text
    kind = next((kind for kind, pattern in _CORE.items() if pattern.fullmatch(text)), None)
    place = Place(source, node.start_mark.line + 1)
    if kind in ("int", "float") and len(text) > LONGEST_NUMBER:
        raise UserError(f"{place}: the number is too long", "shorten it")
    value: Any = _PARSERS[kind](text) if kind else text
    if kind == "float" and math.isinf(value) and not text.lower().endswith(".inf"):
        raise UserError(f"{place}: the number {text} is too large", "write a smaller one")
    return value


def _parse_int(text: str) -> int:
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


def _parse_float(text: str) -> float:
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


_PARSERS: dict[str, Callable[[str], Any]] = {
    "null": lambda text: None,
    "bool": lambda text: text.lower() == "true",
    "int": _parse_int,
    "float": _parse_float,
}


def _put_value(value: Any, path: KeyPath, new: Any, place: Place) -> Any:
    if not path:
        return new
    key, rest = path[0], path[1:]
    if isinstance(value, list) and isinstance(key, int) and key < len(value):
        return [_put_value(item, rest, new, place) if at == key else item for at, item in enumerate(value)]
    if isinstance(value, Mapping) and isinstance(key, str):
        return {**value, key: _put_value(value.get(key, {} if rest else None), rest, new, place)}
    raise UserError(f"{place}: there is no '{key}' in {shown(value)}", "set the whole of it instead")
