"""Resolve the paths in workloads' options: at submit, or on the run's node if they begin with a variable."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ...errors import UserError
from ...store.submissions import RunEntry, SubmittedRun
from ...trainer.config import TrainingConfig
from ...trainer.data_path import PathUnresolved, resolve
from .experiment import Experiment
from .variables import place_of_text

SHOWN = 3


def entries(experiment: Experiment) -> Iterator[RunEntry]:
    """Yield a submission's entry for each run of an experiment.

    Raises:
        UserError: a path cannot be resolved; the message says where it was written.
    """
    folder = _normalised_folder(experiment.spec_folder)
    for run in experiment.runs:
        try:
            resolved = resolve(run.config.workload, folder)
        except PathUnresolved as error:
            where = place_of_text(experiment.document, error.text)
            raise UserError(f"{where}: {error.message}", error.hint) from error
        config = run.config.as_dict()
        yield RunEntry(
            id=run.id,
            name=run.name,
            baseline=run.baseline,
            params=dict(run.params),
            config=config,
            workload=None if resolved.section == config["workload"] else resolved.section,
            data_folder=folder if resolved.waits else None,
        )


def written_config(entry: RunEntry) -> dict[str, Any]:
    """Return a run's config with the paths that were resolved at submit, `${VAR}` unexpanded."""
    return entry.config if entry.workload is None else {**entry.config, "workload": entry.workload}


def with_expanded_paths(config: TrainingConfig, entry: RunEntry) -> TrainingConfig:
    """Return an expanded config in which the paths that began with a variable are resolved.

    Raises:
        UserError: a path cannot be resolved.
    """
    if entry.data_folder is None:
        return config
    section = resolve(config.workload, entry.data_folder).section
    return TrainingConfig.model_validate({**config.as_dict(), "workload": section})


def changes(chosen: Iterable[RunEntry], sent_before: Mapping[str, SubmittedRun]) -> tuple[str, ...]:
    """Return a warning if runs would resume with other paths than in their last submission."""
    pairs = [(sent_before[entry.id].entry, entry) for entry in chosen if entry.id in sent_before]
    moved = [
        new.name
        for old, new in pairs
        if old.workload != new.workload and None not in (old.workload, new.workload)
    ]
    if not moved:
        return ()
    more = f" and {len(moved) - SHOWN} more" if len(moved) > SHOWN else ""
    names = ", ".join(moved[:SHOWN]) + more
    return (f"the specification has moved: relative paths of {names} now lead to other files",)


def _normalised_folder(folder: Path) -> str:
    """Return a folder without `..` if that names the same folder, so that one folder has one name."""
    plain = os.path.normpath(folder)
    return plain if Path(plain).exists() and Path(plain).samefile(folder) else str(folder)
