"""JSON text in which the strings "nan", "inf" and "-inf" represent the numbers that JSON does not have.

`decode` turns them back into floats, except under the keys in `TEXT`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..problems import MOST_LEVELS, TOO_DEEP

TEXT = frozenset({"kind", "event", "reason", "message", "traceback", "file", "host", "status", "submission"})
"""Keys whose values are never numbers, even if they look like one."""

_encoder = json.JSONEncoder(allow_nan=False, separators=(",", ":"))  # building one per call costs 40 %
_WORDS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def encode(value: Any) -> str:
    """Return `value` as JSON text in ASCII.

    Raises:
        TypeError: a part of it is not a JSON value (for example a tensor).
    """
    try:
        return _encoder.encode(value)
    except ValueError:  # a number that JSON does not have
        return _encoder.encode(_to_words(value))


def decode(text: str) -> Any:
    """Return the value that `encode` turned into `text`.

    Raises:
        ValueError: `text` is not JSON, or is nested too deeply.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    if text.count("[") + text.count("{") > MOST_LEVELS and _is_deep(value, MOST_LEVELS):
        raise ValueError(TOO_DEEP)
    return _from_words("", value) if 'nan"' in text or 'inf"' in text else value


def _is_deep(value: Any, levels: int) -> bool:
    """Return whether lists and objects are nested more than `levels` deep."""
    if isinstance(value, dict):
        value = list(value.values())
    return isinstance(value, list) and (levels == 0 or any(_is_deep(item, levels - 1) for item in value))


def _to_words(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else str(float(value))
    if isinstance(value, Mapping):
        return {key: _to_words(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_to_words(item) for item in value]
    return value


def _from_words(key: str, value: Any) -> Any:
    if isinstance(value, str):
        return value if key in TEXT else _WORDS.get(value, value)
    if isinstance(value, dict):
        return {name: _from_words(name, item) for name, item in value.items()}
    if isinstance(value, list):
        return [_from_words(key, item) for item in value]
    return value
