"""The sections of a config, and the options models behind the names in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ...problems import KeyPath
from ...trainer.config import TrainingConfig
from ...trainer.registry import Registry, Section


@dataclass(frozen=True)
class SectionKind:
    """The models of a section: one model, or one for each registered name (by the key `tag`)."""

    models: Mapping[str | None, type[BaseModel]]
    tag: str | None = None
    imports: bool = False
    optional: bool = False
    """Whether the section may be null."""

    def model(self, section: Any) -> type[BaseModel] | None:
        """Return the model that validates a section as written; None if its name is unknown."""
        return self.models.get(section.get(self.tag) if self.tag and isinstance(section, Mapping) else None)


def section_kinds() -> dict[str, SectionKind]:
    """Return the sections of a config by key; other keys, such as `seed`, are left out."""
    kinds = {key: _section_kind(field) for key, field in TrainingConfig.model_fields.items()}
    return {key: kind for key, kind in kinds.items() if kind is not None}


def dotted_keys() -> list[str]:
    """Return every dotted key of a config that is known without importing a workload."""
    return sorted(
        {
            f"{section}.{key}"
            for section, kind in section_kinds().items()
            for model in kind.models.values()
            for key in model.model_fields
        }
    )


def known_keys(config: Any, section: KeyPath) -> list[str]:
    """Return the valid keys of a section of a config as written; of the config itself for ()."""
    if not section:
        return [*TrainingConfig.model_fields, *dotted_keys()]
    kind = section_kinds().get(str(section[0]))
    model = kind.model(config.get(section[0])) if kind and len(section) == 1 else None
    return list(model.model_fields) if model else []


def _section_kind(field: FieldInfo) -> SectionKind | None:
    parts = [*field.metadata, *_annotation_parts(field.annotation)]
    optional = type(None) in parts
    for registry in (part for part in parts if isinstance(part, Registry)):
        models: dict[str | None, type[BaseModel]] = {
            name: entry.options for name, entry in registry.entries.items()
        }
        return SectionKind(models, registry.tag, registry.imports, optional)
    for model in (part for part in parts if isinstance(part, type) and issubclass(part, Section)):
        return SectionKind({None: model}, optional=optional)
    return None


def _annotation_parts(annotation: Any) -> Iterator[Any]:
    """Yield an annotation and all of its parts."""
    yield annotation
    for part in get_args(annotation):
        yield from _annotation_parts(part)
