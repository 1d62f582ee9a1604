"""The JSON Schema of a specification file, for editors: `alphagrid schema`.

It describes what may be written, not what a resolved run must have: `base` may be partial, since grid and
baselines give the rest, and every leaf of a config is offered as a dotted key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from pydantic import BaseModel

from ...cluster_profiles.loader import NOT_IN_RESOURCES
from ...cluster_profiles.profile import Profile
from ...store.layout import EXPERIMENT_NAME
from ...trainer.config import OUTSIDE_ID, TrainingConfig
from .config_sections import SectionKind, section_kinds
from .file import BASELINE_NAME, GridPart, SpecFile

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
NULL: Schema = {"type": "null"}


def spec_schema() -> Schema:
    """Return the JSON Schema (draft 2020-12) of a specification file."""
    leaves = _leaves()
    overrides, axes = {"$ref": "#/$defs/overrides"}, {"$ref": "#/$defs/axes"}
    part: dict[str, Schema] = {"base": overrides, "grid": axes, "zip": axes}
    described = {
        **part,
        "experiment": {"type": "string", "pattern": f"^{EXPERIMENT_NAME.pattern}$"},
        "grids": {"type": "array", "minItems": 1, "items": _closed(_described(part, GridPart))},
        "baselines": {
            "type": "object",
            "propertyNames": {"pattern": f"^{BASELINE_NAME.pattern}$"},
            "additionalProperties": overrides,
        },
        "seeds": {"type": "array", "minItems": 1, "items": _field(TrainingConfig, "seed")},
        "exclude": {"type": "array", "items": _exclusion(leaves)},
        "profile": {"type": "string"},
        "resources": _closed(_resources()),
    }
    schema = _closed(_described(described, SpecFile))
    definitions = {"overrides": _overrides(leaves), "axes": _axes(leaves)}
    head = {"$schema": DIALECT, "title": "alphagrid specification", "required": ["experiment"]}
    return {**head, **schema, "$defs": definitions}


def _described(properties: Mapping[str, Schema], model: type[BaseModel]) -> dict[str, Schema]:
    """Return the properties in the order of the model's fields, with its descriptions."""
    return {
        key: {**properties[key], "description": field.description}
        for key, field in model.model_fields.items()
    }


# Configs


def _leaves() -> dict[str, Schema]:
    """Return the schema of every key of a config: `seed`, whole sections, leaves (`alpha.count`)."""
    kinds = section_kinds()
    leaves: dict[str, Schema] = {}
    for key in TrainingConfig.model_fields:
        if key in kinds:
            leaves[key] = _section(kinds[key])
            leaves.update(_section_leaves(key, kinds[key]))
        else:
            leaves[key] = _field(TrainingConfig, key)
    return leaves


def _section(kind: SectionKind) -> Schema:
    """Return the alternatives for a section, any of whose keys may be left to others to give."""
    alternatives = [_partial(model, kind.tag, name) for name, model in kind.models.items()]
    if kind.imports:
        alternatives.append(
            {"type": "object", "properties": {kind.tag: _import_path()}, "required": [kind.tag]}
        )
    return _any_of([*alternatives, *([NULL] if kind.optional else [])])


def _partial(model: type[BaseModel], tag: str | None, name: str | None) -> Schema:
    properties = {key: _field(model, key) for key in model.model_fields}
    if tag is not None:
        properties[tag] = {**properties[tag], "const": name}
    return _closed(properties)


def _section_leaves(section: str, kind: SectionKind) -> dict[str, Schema]:
    found: dict[str, list[Schema]] = {}
    for model in kind.models.values():
        for key in model.model_fields:
            found.setdefault(f"{section}.{key}", []).append(_field(model, key))
    if kind.tag is not None:
        names = [{"enum": list(kind.models)}, *([_import_path()] if kind.imports else [])]
        found[f"{section}.{kind.tag}"] = names
    return {key: _any_of(schemas) for key, schemas in found.items()}


def _import_path() -> Schema:
    return {"type": "string", "pattern": "^[^:]+:[^:]+$", "description": "package.module:Class"}


def _imported_leaves() -> dict[str, Schema]:
    """Return patterns for the leaves of sections whose models are not known before they are imported."""
    return {f"^{key}\\.": {} for key, kind in section_kinds().items() if kind.imports}


# The parts of a specification


def _overrides(leaves: Mapping[str, Schema]) -> Schema:
    return {**_closed(leaves), "patternProperties": _imported_leaves()}


def _axes(leaves: Mapping[str, Schema]) -> Schema:
    """Return what `grid` and `zip` may hold: a list of values for any key that belongs to identity."""
    axes = {key: _list_of(schema) for key, schema in leaves.items() if key.split(".")[0] not in OUTSIDE_ID}
    patterns = {pattern: _list_of(schema) for pattern, schema in _imported_leaves().items()}
    return {**_closed(axes), "patternProperties": patterns, "minProperties": 1}


def _exclusion(leaves: Mapping[str, Schema]) -> Schema:
    """Return what an entry of `exclude` may hold; whole sections stand there by name or position."""
    by_name = {"type": ["string", "integer", "null"]}
    values = {key: by_name if key in section_kinds() else schema for key, schema in leaves.items()}
    return {**_closed(values), "patternProperties": _imported_leaves(), "minProperties": 1}


def _resources() -> dict[str, Schema]:
    keys = [key for key in Profile.model_fields if key != "name" and key not in NOT_IN_RESOURCES]
    return {key: _any_of([_field(Profile, key), NULL]) for key in keys}


# JSON Schema


def _closed(properties: Mapping[str, Schema]) -> Schema:
    return {"type": "object", "properties": dict(properties), "additionalProperties": False}


def _list_of(schema: Schema) -> Schema:
    return {"type": "array", "minItems": 1, "items": schema}


def _any_of(schemas: Iterable[Schema]) -> Schema:
    """Return the alternatives without repetition, and flat."""
    flat: list[Schema] = []
    for schema in schemas:
        for alternative in schema["anyOf"] if list(schema) == ["anyOf"] else [schema]:
            if alternative not in flat:
                flat.append(alternative)
    return flat[0] if len(flat) == 1 else {"anyOf": flat}


def _field(model: type[BaseModel], key: str) -> Schema:
    schema = _model_schema(model)
    found = _inlined(schema["properties"][key], schema.get("$defs", {}))
    assert isinstance(found, dict)
    return {name: value for name, value in found.items() if name != "title"}


@cache
def _model_schema(model: type[BaseModel]) -> Schema:
    return model.model_json_schema()


def _inlined(schema: Any, definitions: Mapping[str, Any]) -> Any:
    """Return a schema in which every reference is replaced by what it stands for."""
    if isinstance(schema, list):
        return [_inlined(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        target = definitions[schema["$ref"].rsplit("/", 1)[1]]
        rest = {key: value for key, value in schema.items() if key != "$ref"}
        return {**_inlined(target, definitions), **rest}
    return {key: _inlined(value, definitions) for key, value in schema.items()}
