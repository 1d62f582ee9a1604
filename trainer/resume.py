"""Where an attempt goes on."""

from __future__ import annotations

import logging
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


def prepare(run: RunFiles, after_attempt: int = 0) -> Resume:
    """Load the newest sound checkpoint of the attempts later than `after_attempt`."""
    damaged: list[str] = []
    for file in reversed(available(run, after_attempt)):
        try:
            state = read(file)
        except CheckpointDamaged as error:
            log.warning("%s: %s; the one before is used", file.path.name, error)
            damaged.append(file.path.name)
            continue
        return Resume(file.step, state["clock"]["train_seconds"], state, tuple(damaged))
    return Resume(damaged=tuple(damaged))
