"""Measure how long checkpoints take, from the runs under a root."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import UserError
from ..store.layout import Root


@dataclass(frozen=True)
class Measured:
    """The duration of one run's last checkpoint."""

    seconds: float
    experiment: str
    run: str


def slowest_checkpoint(root: Root) -> Measured | str:
    """Return the slowest of the last checkpoints of all runs. If there is none, return the reason."""
    reason = f"no run under {root.path} has written a checkpoint yet"
    if not root.experiments():
        return reason
    try:
        return max(_last_checkpoints(root), key=lambda checkpoint: checkpoint.seconds, default=reason)
    except UserError as error:
        return error.message


def _last_checkpoints(root: Root) -> list[Measured]:
    from ..store.database import open_store
    from ..store.queries import experiments, runs

    with open_store(root) as store:
        store.sync()
        rows = [row for name in experiments(store.db) for row in runs(store.db, name)]
    return [
        Measured(row.checkpoint_seconds, row.experiment, row.name)
        for row in rows
        if row.checkpoint_seconds is not None
    ]
