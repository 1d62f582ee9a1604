"""Problems in a file, as messages with place, key and suggestion."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from .errors import UserError

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

KeyPath = tuple[str | int, ...]
"""The path to a value in a document: keys of mappings and positions in lists."""

MOST_PROBLEMS = 20
MOST_LEVELS = 100
"""Maximum depth of nested lists and mappings in a file, with aliases expanded."""
TOO_DEEP = f"nested too deeply (more than {MOST_LEVELS} levels)"


@dataclass(frozen=True)
class Place:
    """The place of a value: a file and a line, or an option of the command line."""

    source: str
    line: int | None = None

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


@dataclass(frozen=True)
class Problem:
    """One problem: its place, its dotted key, and what the value should be."""

    place: Place
    key: str
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (str(self.place), self.key, self.message) if part)


def refuse(problems: Sequence[Problem], hint: str | None = None) -> NoReturn:
    """Raise one UserError that lists the distinct problems in their order."""
    lines = list(dict.fromkeys(str(problem) for problem in problems))
    if len(lines) > MOST_PROBLEMS:
        lines = [*lines[:MOST_PROBLEMS], f"… and {len(lines) - MOST_PROBLEMS} more"]
    raise UserError("\n".join(lines), hint)


def problems_of(
    error: ValidationError,
    data: Any,
    place: Callable[[KeyPath], Place],
    valid_keys: Callable[[KeyPath], Iterable[str]] = lambda section: (),
) -> list[Problem]:
    """Return a problem with a plain message for each of pydantic's errors in `data`.

    `place` returns where a path of `data` was written; `valid_keys` returns the valid keys of a section.
    """
    return [_translate_error(item, data, place, valid_keys) for item in error.errors(include_url=False)]


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate that `word` is most likely a misspelling of, or None."""
    by_lower = {candidate.lower(): candidate for candidate in candidates}
    matches = difflib.get_close_matches(word.lower(), by_lower, n=1)
    return by_lower[matches[0]] if matches else None


def suggestion(word: str, candidates: Iterable[str]) -> str:
    """Return the end of a message: '; did you mean …?' or else the candidates in brackets."""
    candidates = list(candidates)
    guess = nearest(word, candidates)
    if guess:
        return f"; did you mean '{guess}'?"
    return f" (known: {', '.join(c for c in candidates if '.' not in c)})" if candidates else ""


def dotted(path: KeyPath) -> str:
    """Return a path as a dotted key."""
    return ".".join(map(str, path))


def shown(value: Any) -> str:
    """Return a value as written in a file, with its kind where it may be mistaken for another."""
    if isinstance(value, str):
        return f"'{value if len(value) <= 60 else value[:57] + '…'}' (text)"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    plain = {None: "nothing (null)", True: "true", False: "false"}
    return plain[value] if value is None or isinstance(value, bool) else str(value)


def _translate_error(
    item: ErrorDetails,
    data: Any,
    place: Callable[[KeyPath], Place],
    valid_keys: Callable[[KeyPath], Iterable[str]],
) -> Problem:
    path = _path_in_data(item, data)
    if item["type"] == "extra_forbidden":
        return Problem(
            place(path), dotted(path), "unknown key" + suggestion(str(path[-1]), valid_keys(path[:-1]))
        )
    return Problem(place(path), dotted(path), _describe_error(item))


def _path_in_data(item: ErrorDetails, data: Any) -> KeyPath:
    """Return the path of an error, without the labels that pydantic adds for unions and keys."""
    path: list[str | int] = []
    for part in item["loc"]:
        if isinstance(data, Mapping) and part in data:
            data = data[str(part)]
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        elif item["type"] not in ("missing", "extra_forbidden") or part != item["loc"][-1]:
            continue
        path.append(part)
    return (*path, *_path_in_section(item, data))


def _path_in_section(item: ErrorDetails, section: Any) -> KeyPath:
    """Return the path from a section to the key that an error about the whole section names."""
    context = item.get("ctx", {})
    if "key" in context:
        return (str(context["key"]),)
    if item["type"] != "value_error":
        return ()
    for word in re.findall(r"[a-z_][a-z0-9_]*(?:\.[a-z_][a-z0-9_]*)*", str(context["error"])):
        value, parts = section, word.split(".")
        for part in parts:
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None:
            return tuple(parts)
    return ()


_WORDS = {
    "missing": "is missing",
    "int_type": "should be a whole number, not {value}",
    "int_from_float": "should be a whole number, not {value}",
    "float_type": "should be a number, not {value}",
    "bool_type": "should be true or false, not {value}",
    "string_type": "should be text, not {value}",
    "list_type": "should be a list, not {value}",
    "dict_type": "should be a mapping, not {value}",
    "model_type": "should be a mapping, not {value}",
    "model_attributes_type": "should be a mapping, not {value}",
    "finite_number": "should be a finite number, not {value}",
    "greater_than": "should be greater than {gt}, not {value}",
    "greater_than_equal": "should be at least {ge}, not {value}",
    "less_than": "should be less than {lt}, not {value}",
    "less_than_equal": "should be at most {le}, not {value}",
    "string_too_short": "should not be empty",
    "literal_error": "should be {expected}, not {value}",
}


def _describe_error(item: ErrorDetails) -> str:
    context, value = item.get("ctx", {}), item["input"]
    if item["type"] in ("value_error", "assertion_error"):
        return str(context["error"])
    if item["type"] == "too_short":
        return "is empty" if not value else f"needs at least {context['min_length']} items"
    if "candidates" in context:
        guess = nearest(str(context["name"]), context["candidates"])
        return item["msg"] + (f"; did you mean '{guess}'?" if guess else "")
    words = _WORDS.get(item["type"])
    if words is None:
        return item["msg"].removeprefix("Input ").removeprefix("Value error, ")
    return words.format(value=shown(value), **context) + _suggest_remedy(item["type"], value, context)


def _suggest_remedy(kind: str, value: Any, context: Mapping[str, Any]) -> str:
    if kind == "list_type" and not isinstance(value, Mapping) and value is not None:
        return f"; write [{value}]"
    if kind == "string_type" and isinstance(value, int | float):
        return "; put it in quotes"
    if kind == "int_type" and isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return f"; write {int(value)}"
    if kind == "literal_error" and isinstance(value, str):
        guess = nearest(value, re.findall(r"'([^']*)'", context["expected"]))
        return f"; did you mean '{guess}'?" if guess else ""
    return ""
