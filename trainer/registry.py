"""Names in a specification, and the code and option models behind them, without importing the code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema


class Section(BaseModel):
    """A section of a config: unknown keys, wrong types, NaN and infinities are refused."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


@dataclass(frozen=True)
class Entry:
    """What a name stands for: the `target` as `package.module:attribute`, and its torch-free options."""

    target: str
    options: type[Section]

    def load(self) -> Any:
        """Import the target (this is where torch comes in)."""
        module, attribute = self.target.split(":")
        return getattr(import_module(module), attribute)


@dataclass(frozen=True, eq=False)
class Registry:
    """The entries of one kind (`optimizer`, say); used as a pydantic annotation, it validates a section.

    `tag` is the key of the section that holds the name. With `imports`, `package.module:Class` is a name
    too, and the class carries its options model as the attribute `Options`.
    """

    kind: str
    entries: Mapping[str, Entry]
    tag: str = "name"
    imports: bool = False

    def entry(self, name: str) -> Entry:
        """Return the entry called `name`.

        Raises:
            PydanticCustomError: there is none; its context holds the `candidates` and the `key` at fault.
        """
        if name in self.entries:
            return self.entries[name]
        if self.imports and ":" in name:
            return _imported(self.kind, self.tag, name)
        names = ", ".join(self.entries) + (", or an import path package.module:Class" if self.imports else "")
        raise PydanticCustomError(
            "unknown_name",
            "unknown {kind} '{name}' (known: {known})",
            {
                "kind": self.kind,
                "name": name,
                "known": names,
                "candidates": list(self.entries),
                "key": self.tag,
            },
        )

    def validate(self, section: Any) -> Section:
        """Validate a mapping by the options model that its tag names; a `Section` passes through."""
        if isinstance(section, Section):
            return section
        if not isinstance(section, Mapping):
            raise PydanticCustomError(
                "mapping", "should be a mapping with the key '{tag}'", {"tag": self.tag}
            )
        name = section.get(self.tag)
        if not isinstance(name, str):
            raise PydanticCustomError("missing_name", "needs the key '{tag}', a name", {"tag": self.tag})
        return self.entry(name).options.model_validate(dict(section))

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Validate by name; dump every field of the model that the name stands for."""
        dump = core_schema.plain_serializer_function_ser_schema(_dump, info_arg=True)
        return core_schema.no_info_plain_validator_function(self.validate, serialization=dump)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Offer one alternative per name, so that editors complete each one's own options."""
        alternatives = [
            _alternative(entry.options, self.tag, {"const": name}) for name, entry in self.entries.items()
        ]
        if self.imports:
            path = {"type": "string", "pattern": "^[^:]+:[^:]+$"}
            alternatives.append({"type": "object", "required": [self.tag], "properties": {self.tag: path}})
        return {"anyOf": alternatives}


def _dump(section: Section, info: core_schema.SerializationInfo) -> dict[str, Any]:
    return section.model_dump(mode=info.mode, exclude_defaults=info.exclude_defaults, context=info.context)


def _alternative(options: type[Section], tag: str, name: dict[str, Any]) -> dict[str, Any]:
    schema = options.model_json_schema()
    schema["properties"][tag] = name
    return schema


def _imported(kind: str, tag: str, path: str) -> Entry:
    try:
        options = getattr(Entry(path, Section).load(), "Options", None)
    except Exception as error:  # a user's module may raise anything
        raise PydanticCustomError(
            "import",
            "cannot import the {kind} '{path}': {error}",
            {"kind": kind, "path": path, "error": f"{type(error).__name__}: {error}", "key": tag},
        ) from error
    if not (isinstance(options, type) and issubclass(options, Section)):
        raise PydanticCustomError(
            "import",
            "'{path}' needs a class attribute Options, its pydantic model",
            {"path": path, "key": tag},
        )
    return Entry(path, options)
