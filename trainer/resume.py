"""Choose the checkpoint from which an attempt resumes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..store.layout import RunFiles
from .checkpoint import CheckpointDamaged, candidates, read

log = logging.getLogger("alphagrid")


@dataclass(frozen=True)
class Resume:
    """Start of an attempt: after `step` steps, from the checkpoint content `state` (None: from scratch)."""

    step: int = 0
    train_seconds: float = 0.0
    state: dict[str, Any] | None = None
    damaged: tuple[str, ...] = ()
    """Names of newer checkpoints that could not be used."""
    attempt: int = 0
    """The attempt that wrote the checkpoint."""
    after_attempt: int = 0
    """Checkpoints of attempts up to this one are ignored."""


def prepare(run: RunFiles, after_attempt: int = 0, limits: Mapping[int, int] | None = None) -> Resume:
    """Load the newest sound checkpoint of the attempts later than `after_attempt`.

    `limits` is, per attempt, the last step whose checkpoints count (`checkpoint_file.candidates`).

    Raises:
        UserError: another version of alphagrid wrote the newest sound checkpoint.
    """
    damaged: list[str] = []
    for file in candidates(run, after_attempt, limits):
        try:
            state = read(file)
        except CheckpointDamaged as error:
            log.warning("%s: %s", file.path.name, error)
            damaged.append(file.path.name)
            continue
        except FileNotFoundError:  # an older attempt removed it after it noticed this attempt
            continue
        if damaged:
            log.warning("%s, the newest sound checkpoint, is used", file.path.name)
        seconds = state["clock"]["train_seconds"]
        return Resume(file.step, seconds, state, tuple(damaged), file.attempt, after_attempt)
    if damaged:
        log.warning("no sound checkpoint is left: the run starts over")
    return Resume(damaged=tuple(damaged))
