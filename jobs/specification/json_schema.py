"""The JSON Schema of a specification file, for editors: `alphagrid schema`.

It describes the file, not a resolved run: `base` may be partial, because grid and baselines may set the rest,
and every leaf of a config is offered as a dotted key.
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
    leaves = _config_leaves()
    overrides, axes = {"$ref": "#/$defs/overrides"}, {"$ref": "#/$defs/axes"}
    part: dict[str, Schema] = {"base": overrides, "grid": axes, "zip": axes}
    described = {
        **part,
        "experiment": {"type": "string", "pattern": f"^{EXPERIMENT_NAME.pattern}$"},
        "grids": {"type": "array", "minItems": 1, "items": _closed_object(_add_descriptions(part, GridPart))},
        "baselines": {
            "type": "object",
            "propertyNames": {"pattern": f"^{BASELINE_NAME.pattern}$"},
            "additionalProperties": overrides,
        },
        "seeds": {"type": "array", "minItems": 1, "items": _field_schema(TrainingConfig, "seed")},
        "exclude": {"type": "array", "items": _exclusion_schema(leaves)},
        "profile": {"type": "string"},
        "resources": _closed_object(_resources_schemas()),
    }
    schema = _closed_object(_add_descriptions(described, SpecFile))
    definitions = {"overrides": _overrides_schema(leaves), "axes": _axes_schema(leaves)}
    head = {"$schema": DIALECT, "title": "alphagrid specification", "required": ["experiment"]}
    return {**head, **schema, "$defs": definitions}


def _add_descriptions(properties: Mapping[str, Schema], model: type[BaseModel]) -> dict[str, Schema]:
    """Return the properties in the order of the model's fields, with its descriptions."""
    return {
        key: {**properties[key], "description": field.description}
        for key, field in model.model_fields.items()
    }


# Configs


def _config_leaves() -> dict[str, Schema]:
    """Return the schema of every key of a config: `seed`, whole sections, leaves (`alpha.count`)."""
    kinds = section_kinds()
    leaves: dict[str, Schema] = {}
    for key in TrainingConfig.model_fields:
        if key in kinds:
            leaves[key] = _section_schema(kinds[key])
            leaves.update(_section_leaves(key, kinds[key]))
        else:
            leaves[key] = _field_schema(TrainingConfig, key)
    return leaves


def _section_schema(kind: SectionKind) -> Schema:
    """Return the alternatives for a section; no key is required, because grid or baselines may set it."""
    alternatives = [_partial_schema(model, kind.tag, name) for name, model in kind.models.items()]
    if kind.imports:
        alternatives.append(
            {"type": "object", "properties": {kind.tag: _import_path()}, "required": [kind.tag]}
        )
    return _any_of([*alternatives, *([NULL] if kind.optional else [])])


def _partial_schema(model: type[BaseModel], tag: str | None, name: str | None) -> Schema:
    properties = {key: _field_schema(model, key) for key in model.model_fields}
    if tag is not None:
        properties[tag] = {**properties[tag], "const": name}
    return _closed_object(properties)


def _section_leaves(section: str, kind: SectionKind) -> dict[str, Schema]:
    alternatives: dict[str, list[Schema]] = {}
    for model in kind.models.values():
        for key in model.model_fields:
            alternatives.setdefault(f"{section}.{key}", []).append(_field_schema(model, key))
    if kind.tag is not None:
        names = [{"enum": list(kind.models)}, *([_import_path()] if kind.imports else [])]
        alternatives[f"{section}.{kind.tag}"] = names
    return {key: _any_of(schemas) for key, schemas in alternatives.items()}


def _import_path() -> Schema:
    return {"type": "string", "pattern": "^[^:]+:[^:]+$", "description": "package.module:Class"}


def _imported_leaves() -> dict[str, Schema]:
    """Return patterns for the leaves of sections whose models are known only after an import."""
    return {f"^{key}\\.": {} for key, kind in section_kinds().items() if kind.imports}


# The parts of a specification


def _overrides_schema(leaves: Mapping[str, Schema]) -> Schema:
    return {**_closed_object(leaves), "patternProperties": _imported_leaves()}


def _axes_schema(leaves: Mapping[str, Schema]) -> Schema:
    """Return the schema of `grid` and `zip`: a list of values for any key of a run's identity."""
    axes = {key: _list_of(schema) for key, schema in leaves.items() if key.split(".")[0] not in OUTSIDE_ID}
    patterns = {pattern: _list_of(schema) for pattern, schema in _imported_leaves().items()}
    return {**_closed_object(axes), "patternProperties": patterns, "minProperties": 1}


def _exclusion_schema(leaves: Mapping[str, Schema]) -> Schema:
    """Return the schema of an entry of `exclude`; a section is matched by its name or position."""
    by_name = {"type": ["string", "integer", "null"]}
    values = {key: by_name if key in section_kinds() else schema for key, schema in leaves.items()}
    return {**_closed_object(values), "patternProperties": _imported_leaves(), "minProperties": 1}


def _resources_schemas() -> dict[str, Schema]:
    keys = [key for key in Profile.model_fields if key != "name" and key not in NOT_IN_RESOURCES]
    return {key: _any_of([_field_schema(Profile, key), NULL]) for key in keys}


# JSON Schema


def _closed_object(properties: Mapping[str, Schema]) -> Schema:
    return {"type": "object", "properties": dict(properties), "additionalProperties": False}


def _list_of(schema: Schema) -> Schema:
    return {"type": "array", "minItems": 1, "items": schema}


def _any_of(schemas: Iterable[Schema]) -> Schema:
    """Return the alternatives without repetition, as one flat `anyOf`."""
    flat: list[Schema] = []
    for schema in schemas:
        for alternative in schema["anyOf"] if list(schema) == ["anyOf"] else [schema]:
            if alternative not in flat:
                flat.append(alternative)
    return flat[0] if len(flat) == 1 else {"anyOf": flat}


def _field_schema(model: type[BaseModel], key: str) -> Schema:
    schema = _model_schema(model)
    inlined = _inline_references(schema["properties"][key], schema.get("$defs", {}))
    assert isinstance(inlined, dict)
    return {name: value for name, value in inlined.items() if name != "title"}


@cache
def _model_schema(model: type[BaseModel]) -> Schema:
    return model.model_json_schema()


def _inline_references(schema: Any, definitions: Mapping[str, Any]) -> Any:
    """Return a schema in which every reference is replaced by its definition."""
    if isinstance(schema, list):
        return [_inline_references(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        target = definitions[schema["$ref"].rsplit("/", 1)[1]]
        rest = {key: value for key, value in schema.items() if key != "$ref"}
        return {**_inline_references(target, definitions), **rest}
    return {key: _inline_references(value, definitions) for key, value in schema.items()}
