"""The type of options that are paths, and the resolution of such paths.

An option of type `DataPath` holds the text of the specification, and so a run's id depends on that text.
`resolve` returns the options with every path absolute.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, Field, SerializationInfo, SerializerFunctionWrapHandler, WrapSerializer

from ..errors import UserError

CONTEXT = "data_paths"


class PathUnresolved(UserError):
    """A path of an option, `text`, cannot be resolved."""

    def __init__(self, text: str, reason: str, hint: str) -> None:
        super().__init__(f"the path '{text}' cannot be resolved: {reason}", hint)
        self.text = text


@dataclass
class _Resolver:
    """Resolves the paths of one section; records paths that it cannot resolve yet, or at all."""

    folder: str
    waits: bool = False
    problems: list[PathUnresolved] = field(default_factory=list)

    def resolve(self, text: str) -> str:
        first, slash, rest = text.partition("/")
        if first.startswith("${") or (first.startswith("~") and "${" in first):
            self.waits = True
            return text
        if text.startswith("/"):
            return text
        if not first.startswith("~"):
            start, rest = self.folder, text
        elif (start := os.path.expanduser(first)).startswith("~"):  # noqa: PTH111 (no error of its own)
            reason = f"there is no user '{first[1:]}'"
            self.problems.append(
                PathUnresolved(text, reason, f"if it is a file beside the specification, write ./{text}")
            )
            return text
        if "${" in start or not _is_utf8(start):
            reason = f"it lies below {start.encode(errors='replace').decode()}"
            self.problems.append(
                PathUnresolved(text, reason, "rename that folder: UTF-8 without '${' can be recorded")
            )
        return os.path.join(start, rest) if rest else start + slash  # noqa: PTH118 (keeps a '/' at the end)


def _serialize_path(value: Any, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> Any:
    text = handler(value)
    resolver = (info.context or {}).get(CONTEXT)
    return resolver.resolve(text) if isinstance(resolver, _Resolver) else text


DataPath = Annotated[str, Field(min_length=1), WrapSerializer(_serialize_path, return_type=str)]
"""A path of a workload's options. Relative ones, and `~`, count from the specification's folder."""


@dataclass(frozen=True)
class Resolved:
    """A section as JSON values, all its paths absolute but for those that begin with a variable."""

    section: dict[str, Any]
    waits: bool
    """Whether a path begins with `${VARIABLE}`, so that it is resolved where the run runs."""


def resolve(options: BaseModel, folder: str) -> Resolved:
    """Return options with their paths resolved: relative ones from `folder`, `~` as the home of its user.

    Raises:
        PathUnresolved: a path's user does not exist, or its folder cannot be written into a submission.
    """
    resolver = _Resolver(folder)
    section = options.model_dump(mode="json", context={CONTEXT: resolver})
    for problem in resolver.problems:
        raise problem
    return Resolved(section, resolver.waits)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
