"""An experiment: the runs of a specification, each validated and with its id and name."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from ...documents import Document
from ...errors import UserError
from ...problems import MOST_PROBLEMS, KeyPath, Problem, dotted, problems_of, refuse
from ...trainer.config import TrainingConfig
from ..garbage_collector import collector_paused
from ..import_path import importable
from .config_sections import known_keys
from .file import Spec
from .grid import MOST_RUNS, Cell, cells
from .overrides import place_of
from .run_names import readable_names
from .variables import malformed_variables, variables_in

LARGEST_INTEGER = 2**63
"""Upper limit of integers: SQLite and torch hold no larger ones."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of an experiment."""

    id: str
    """Ten hexadecimal digits, a hash of the config; the name of its folder."""
    name: str
    """The readable name; it may change when the experiment grows."""
    baseline: str | None
    params: dict[str, Any]
    """Dotted keys that grid, zip and seeds set; a mapping is replaced by its name or position."""
    config: TrainingConfig


@dataclass(frozen=True)
class Experiment:
    """A resolved specification."""

    name: str
    runs: list[Run]
    profile: str
    resources: dict[str, Any]
    spec_folder: Path
    warnings: list[str]
    document: Document
    """The specification's document, with the place of each value."""
    variables: list[str]
    """The environment variables that the configs use."""

    @property
    def baselines(self) -> list[str]:
        """The names of its baselines."""
        return list(dict.fromkeys(run.baseline for run in self.runs if run.baseline is not None))


@collector_paused()
def expand(spec: Spec, max_runs: int = MOST_RUNS) -> Experiment:
    """Return the experiment of a specification: grid runs first, then baselines.

    During validation the specification's folder is first on `sys.path`, for import-path workloads.

    Raises:
        UserError: a run is invalid (the message lists all problems, at the lines where they were written),
            two runs are the same, or there are more than `max_runs`.
    """
    if problems := malformed_variables(spec.document, spec.settings):
        refuse(problems)
    grid_cells, warnings = cells(spec, max_runs)
    with importable(spec.folder):
        configs = _validate_cells(grid_cells, spec.document)
    if problems := _unfit_numbers(spec):  # numbers that no options model has refused
        refuse(problems)
    ids = [config.run_id() for config in configs]
    names = readable_names(grid_cells, ids, bool(spec.file.seeds))
    _check_distinct(names, ids, spec.document)
    runs = [
        Run(run_id, name, cell.baseline, cell.params, config)
        for run_id, name, cell, config in zip(ids, names, grid_cells, configs, strict=True)
    ]
    file = spec.file
    return Experiment(
        name=file.experiment,
        runs=runs,
        profile=file.profile,
        resources=file.resources,
        spec_folder=spec.folder,
        warnings=warnings,
        document=spec.document,
        variables=_variables_of_cells(grid_cells),
    )


def _validate_cells(grid_cells: Sequence[Cell], document: Document) -> list[TrainingConfig]:
    """Return the cells' configs, or refuse with the problems of all of them."""
    configs: list[TrainingConfig] = []
    problems: dict[Problem, str | None] = {}
    validated: dict[tuple[str, int], Any] = {}
    for cell in grid_cells:
        try:
            configs.append(_validate_cell(cell, validated))
        except ValidationError as error:
            for problem in _problems_of_cell(error, cell, document):
                problems.setdefault(problem, cell.baseline)
            if len(problems) > MOST_PROBLEMS:
                break
    if problems:
        refuse([_name_baseline(problem, baseline) for problem, baseline in problems.items()])
    return configs


def _validate_cell(cell: Cell, validated: dict[tuple[str, int], Any]) -> TrainingConfig:
    """Validate a cell's config; sections that it shares with earlier cells are validated once.

    A section to which the config's validation added keys (a rate left to `ema`) is not reused.
    """
    sections = {key: validated.get((key, id(value)), value) for key, value in cell.config.items()}
    config = TrainingConfig.model_validate(sections)
    for key, value in cell.config.items():
        if isinstance(value, dict) and getattr(config, key).model_fields_set == value.keys():
            validated[key, id(value)] = getattr(config, key)
    return config


def _problems_of_cell(error: ValidationError, cell: Cell, document: Document) -> list[Problem]:
    return problems_of(
        error,
        cell.config,
        lambda path: place_of(path, cell.overrides, document),
        lambda section: known_keys(cell.config, section),
    )


def _name_baseline(problem: Problem, baseline: str | None) -> Problem:
    """Return the problem with its baseline in the message, because its line may belong to the base."""
    return (
        problem
        if baseline is None
        else Problem(problem.place, problem.key, f"{problem.message} (baseline '{baseline}')")
    )


def _unfit_numbers(spec: Spec) -> list[Problem]:
    """Return the numbers of a specification that are not finite, or too large to be stored."""
    numbers = [
        (spec.document.place(*path), dotted(path), v) for path, v in _numbers_in(spec.document.value, ())
    ]
    for setting in spec.settings:
        numbers += [(setting.place(spec.document), "", value) for _, value in _numbers_in(setting.value, ())]
    problems = []
    for place, key, value in numbers:
        if isinstance(value, int):
            if abs(value) >= LARGEST_INTEGER:
                problems.append(Problem(place, key, f"should be less than 2^63, not {value}"))
        elif not math.isfinite(value):
            problems.append(Problem(place, key, f"should be a finite number, not {value}"))
    return problems


def _numbers_in(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, float]]:
    """Yield every number in a value, with its path."""
    if isinstance(value, int | float):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _numbers_in(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _numbers_in(item, (*path, index))


def _variables_of_cells(grid_cells: Sequence[Cell]) -> list[str]:
    """Return the variables in the cells' configs; shared sections are searched once."""
    sections = {id(value): value for cell in grid_cells for value in cell.config.values()}
    return variables_in([dict(enumerate(sections.values()))])


def _check_distinct(names: Sequence[str], ids: Sequence[str], document: Document) -> None:
    first: dict[str, str] = {}
    for name, run_id in zip(names, ids, strict=True):
        if run_id in first:
            twins = (first[run_id].removesuffix(f"-{run_id}"), name.removesuffix(f"-{run_id}"))
            _refuse_twins(*twins, document)
        first[run_id] = name


def _refuse_twins(first: str, second: str, document: Document) -> NoReturn:
    if first == second:
        path = _repeated_axis(document)
        where = f"{document.place(*path)}: {dotted(path)}: " if path else f"{document.source}: "
        raise UserError(
            f"{where}the run '{first}' is there twice", "an axis or seeds holds the same value twice"
        )
    raise UserError(
        f"{document.source}: '{first}' and '{second}' are the same run",
        "let them differ; stop and checkpoint do not count, and keys at their defaults are the same as none",
    )


def _repeated_axis(document: Document) -> KeyPath:
    """Return the path of the first axis of the file that holds a value twice; () if none does."""
    grid = document.value.get("grid") or {}
    axes: dict[KeyPath, list[Any]] = {("grid", key): axis for key, axis in grid.items()}
    axes[("seeds",)] = document.value.get("seeds") or []
    for path, values in axes.items():
        if any(value in values[:index] for index, value in enumerate(values)):
            return path
    return ()
