"""The outcome of an attempt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["completed", "diverged", "interrupted"]


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended; an interrupted run resumes from its last checkpoint."""

    status: Status
    reason: str | None
    step: int
    train_seconds: float
