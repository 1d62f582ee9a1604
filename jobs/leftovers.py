"""Runs that are still under way although their experiment's specification names them no more."""

from __future__ import annotations

from ..store import submissions
from ..store.layout import Root
from .standing import accounts, newest, standings
from .states import ACTIVE


def find(root: Root, experiment: str) -> dict[str, str]:
    """Return the names, by id, of the leftovers: they wait or run.

    What has ended, or was interrupted and will not go on by itself, is none.

    Raises:
        SystemRefused: Slurm does not answer although a run may be in its hands.
    """
    files = root.experiment(experiment)
    past = submissions.read_all(files)
    named = past[-1].named if past else {}
    sent = {run_id: one for run_id, one in newest(past).items() if run_id not in named}
    found = standings(root, files, sent, accounts(files, sent))
    return {run_id: one.entry.name for run_id, one in sent.items() if found[run_id].state in ACTIVE}
