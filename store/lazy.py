"""JSON that is parsed at first access: most queries on 10,000 configs need none of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any


class JsonObject(Mapping[str, Any]):
    """A JSON object, read-only."""

    def __init__(self, text: str) -> None:
        self._json = text

    @cached_property
    def _parsed(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self._json)
        return parsed

    def __getitem__(self, key: str) -> Any:
        """Return a value."""
        return self._parsed[key]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the keys."""
        return iter(self._parsed)

    def __len__(self) -> int:
        """Return how many keys there are."""
        return len(self._parsed)

    def __repr__(self) -> str:
        """Return the JSON."""
        return f"JsonObject({self._json!r})"
