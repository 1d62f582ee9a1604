"""Delete checkpoints that no run will resume from."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import SystemRefused
from ..store import ownership
from ..store.layout import Root, RunFiles
from .runs.states import State
from .status import RunStatus

ENDED: frozenset[State] = frozenset({"completed", "diverged", "failed", "cancelled"})
"""States in which no worker reads or writes a run's checkpoints."""

log = logging.getLogger("alphagrid")


@dataclass(frozen=True)
class Prunable:
    """The files of one run that can be deleted."""

    run: str
    """The run's readable name."""
    paths: tuple[Path, ...]
    bytes: int


def prunable(root: Root, experiment: str, runs: Iterable[RunStatus], last: bool = False) -> list[Prunable]:
    """Return the checkpoints of ended runs that can be deleted: all but each run's last, and torn ones.

    A run resumes from its last checkpoint when its `stop` is raised or it is retried. With `last`, that one
    is returned too. A warning names each folder that cannot be listed.

    Raises:
        UserError: the experiment belongs to another user.
    """
    files = root.experiment(experiment)
    ownership.check(files, "prune")
    candidates = [_prunable_of_run(run.name, files.run(run.id), last) for run in runs if run.state in ENDED]
    return [candidate for candidate in candidates if candidate.paths]


def prune(prunables: Iterable[Prunable]) -> None:
    """Delete the files.

    Raises:
        SystemRefused: a file cannot be deleted; the files before it are deleted.
    """
    for run in prunables:
        for path in run.paths:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise SystemRefused(f"cannot delete {path}: {error.strerror or error}") from error


def _prunable_of_run(name: str, run: RunFiles, last: bool) -> Prunable:
    try:
        checkpoints, torn = run.checkpoints(), run.torn_checkpoints()
    except OSError as error:
        log.warning("%s: left out: cannot read %s: %s", name, run.path, error.strerror or error)
        return Prunable(name, (), 0)
    paths = (*torn, *(checkpoints if last else checkpoints[:-1]))
    return Prunable(name, paths, sum(map(_file_size, paths)))


def _file_size(path: Path) -> int:
    """Return a file's size [bytes]; 0 if it does not exist or cannot be read."""
    try:
        return path.lstat().st_size
    except OSError:
        return 0
