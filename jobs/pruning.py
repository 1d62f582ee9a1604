"""Deleting checkpoints that nothing will go on from."""

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
"""States in which nobody reads or writes a run's checkpoints."""

log = logging.getLogger("alphagrid")


@dataclass(frozen=True)
class Prunable:
    """What can be deleted of one run."""

    run: str
    """The run's readable name."""
    paths: tuple[Path, ...]
    bytes: int


def prunable(root: Root, experiment: str, runs: Iterable[RunStatus], last: bool = False) -> list[Prunable]:
    """Return what can go of the runs that have ended: all checkpoints but the last, and torn ones.

    From the last one a run goes on when its `stop` is raised or it is retried; with `last` it goes too. Of a
    folder that cannot be listed a warning tells.

    Raises:
        UserError: the experiment is another user's.
    """
    files = root.experiment(experiment)
    ownership.check(files, "prune")
    candidates = [_prunable_of_run(run.name, files.run(run.id), last) for run in runs if run.state in ENDED]
    return [candidate for candidate in candidates if candidate.paths]


def prune(prunables: Iterable[Prunable]) -> None:
    """Delete it.

    Raises:
        SystemRefused: a file cannot be deleted; those before it are gone.
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
    """Return the bytes that deleting a file frees; none for one that is gone already or cannot be seen."""
    try:
        return path.lstat().st_size
    except OSError:
        return 0
