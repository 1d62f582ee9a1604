"""The specification file: its keys and its reader."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from ...documents import Document, read_document
from ...errors import UserError
from ...problems import KeyPath, problems_of, refuse
from ...store.layout import EXPERIMENT_NAME
from ...trainer.config import TrainingConfig
from .overrides import Override
from .set_options import read_settings

BASELINE_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]|\.(?!\.))*")


def _check_experiment_name(name: str) -> str:
    if not EXPERIMENT_NAME.fullmatch(name):
        raise ValueError(
            f"'{name}' cannot name an experiment: lower-case letters, digits, '.', '_' and '-' are allowed, "
            "a letter or digit first, and no '..'"
        )
    return name


def _check_baseline_name(name: str) -> str:
    if not BASELINE_NAME.fullmatch(name):
        raise ValueError(f"'{name}' cannot name a baseline: use letters, digits, '.', '_' and '-'")
    return name


Axes = Annotated[dict[str, Annotated[list[Any], Field(min_length=1)]], Field(min_length=1)]
Overrides = dict[str, Any]


class GridPart(BaseModel):
    """A grid: the product of its axes, on top of its own `base`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)

    base: Overrides = {}
    """The config that all runs start from; in an entry of `grids`, overrides of the file's base."""
    grid: Axes = Field(default_factory=dict)
    """Dotted keys and the values each takes; every combination is a run."""
    zip: Axes = Field(default_factory=dict)
    """Dotted keys and lists of one length, which vary together; multiplied with `grid`."""


class SpecFile(GridPart):
    """The keys of a specification file."""

    experiment: Annotated[str, AfterValidator(_check_experiment_name)]
    """Name of the experiment and of its folder."""
    grids: Annotated[list[GridPart], Field(min_length=1)] = Field(default_factory=list)
    """Several grids in one file, beside `grid` and `zip` if those are given."""
    baselines: dict[Annotated[str, AfterValidator(_check_baseline_name)], Overrides] = {}
    """Runs outside the product: a name, and what differs from the base."""
    seeds: Annotated[list[int], Field(min_length=1)] = Field(default_factory=list)
    """Every run of the grid and every baseline is made with each of these seeds."""
    exclude: list[Annotated[dict[str, Any], Field(min_length=1)]] = []
    """Cells of the grid to leave out: those that match all keys of an entry."""
    profile: str = "local"
    """A cluster profile, by name or path."""
    resources: dict[str, Any] = {}
    """Keys of the profile to override."""


@dataclass(frozen=True)
class Spec:
    """A specification as read: its keys, their document, and the `--set` options for every run."""

    path: Path
    file: SpecFile
    document: Document
    settings: tuple[Override, ...] = ()

    @property
    def folder(self) -> Path:
        """The folder of the file, where import-path workloads are looked for first."""
        return self.path.absolute().parent


def read_spec(path: Path, set_options: Sequence[str] = ()) -> Spec:
    """Read a specification file, with `--set KEY=VALUE` options applied to it.

    Raises:
        UserError: the file or an option is wrong; the message lists every problem found.
    """
    document = read_document(path)
    if not isinstance(document.value, dict):
        raise UserError(
            f"{document.place()}: a specification is a mapping that begins with 'experiment: NAME'"
        )
    document, settings = read_settings(set_options, document, SpecFile.model_fields)
    try:
        file = SpecFile.model_validate(document.value)
    except ValidationError as error:
        refuse(problems_of(error, document.value, lambda at: document.place(*at), _valid_keys))
    return Spec(path, file, document, settings)


def _valid_keys(section: KeyPath) -> Iterable[str]:
    if not section:
        return [*SpecFile.model_fields, *(f"base.{key}" for key in TrainingConfig.model_fields)]
    return GridPart.model_fields if section[0] == "grids" else ()
