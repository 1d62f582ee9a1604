"""Where an attempt goes on."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..store.layout import RunFiles
from .checkpoint import CheckpointDamaged, available, read

log = logging.getLogger("alphagrid")


@dataclass(frozen=True)
class Resume:
    """After `step` steps, from `state`, a checkpoint's content (None: from the start)."""

    step: int = 0
    train_seconds: float = 0.0
    state: dict[str, Any] | None = None
    damaged: tuple[str, ...] = ()
    """Names of newer checkpoints that could not be used."""
    attempt: int = 0
    """The attempt that wrote the checkpoint."""
    after_attempt: int = 0
    """Attempts up to this one do not count any more."""


def prepare(run: RunFiles, after_attempt: int = 0, limits: Mapping[int, int] | None = None) -> Resume:
    """Load the newest sound checkpoint of the attempts later than `after_attempt`.

    `limits` says, per attempt, up to which step its checkpoints count: what an attempt wrote after a
    newer one had begun is not the run's, although its numbers would be the same.

    Raises:
        UserError: the newest sound one was written by another version of alphagrid.
    """
    damaged: list[str] = []
    for file in reversed(available(run, after_attempt)):
        if limits is not None and file.step > limits.get(file.attempt, file.step):
            continue
        try:
            state = read(file)
        except CheckpointDamaged as error:
            log.warning("%s: %s", file.path.name, error)
            damaged.append(file.path.name)
            continue
        except FileNotFoundError:  # withdrawn by an older attempt that has learned of this one
            continue
        if damaged:
            log.warning("%s, the newest sound checkpoint, is used", file.path.name)
        seconds = state["clock"]["train_seconds"]
        return Resume(file.step, seconds, state, tuple(damaged), file.attempt, after_attempt)
    if damaged:
        log.warning("no sound checkpoint is left: the run starts over")
    return Resume(damaged=tuple(damaged))
