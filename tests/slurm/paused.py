"""Runs of pausing_task.py: what they are, what they come to, and how to wait for them."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tests.slurm.waiting import until

if TYPE_CHECKING:
    from tests.slurm.conftest import Experiment, Slurm

TASKS = Path(__file__).with_name("pausing_task.py").read_text()
BASE: dict[str, Any] = {
    "workload": {"name": "tasks:Pausing", "batch_size": 16, "step_seconds": 0.02},
    "alpha": {"policy": "median", "start_step": 10, "interval": 20, "count": 5},
    "eval": {"every_steps": 25},
    "log": {"every_steps": 10},
    "checkpoint": {"every_seconds": 0.1},
}
STEPS = 60
"""Windows of α* are the steps 10–14, 30–34, 50–54; evaluations come after the steps 1, 26, 51 and 60."""
MOMENTS = {"training": 23, "alpha": 33, "evaluation": 26}
"""The steps done when a run that pauses at a moment has been told to stop."""

QUERIES = (
    "SELECT split, step, loss, examples, at_stop FROM evaluation WHERE run = ? ORDER BY 1, 2",
    "SELECT step, steps, alpha_steps, loss, lr_min, lr_mean, lr_max FROM window WHERE run = ? ORDER BY 1",
    "SELECT key, step, repeat, value FROM metric WHERE run = ? AND key != 'train_seconds' ORDER BY 1, 2, 3",
)
BITS = ("step", "model", "optimizer", "policy", "randomness", "window")
"""What of a checkpoint does not depend on time."""


def until_there(moments: Path, *names: str) -> None:
    """Wait until the runs pause that say so by these files."""
    until(lambda: all((moments / name).exists() for name in names), f"all of {', '.join(names)}")


def by_moment(lab: Experiment) -> dict[str, str]:
    """The runs' ids by the moment at which they pause."""
    return {run["params"]["workload.moment"]: run["id"] for run in lab.runs()}


def event(records: list[dict[str, Any]], name: str) -> dict[str, Any]:
    (found,) = (record for record in records if record.get("event") == name)
    return found


def finish(slurm: Slurm, lab: Experiment, *run_ids: str) -> None:
    """See requeued runs through to their end."""
    jobs = lab.jobs()
    slurm.release(*(jobs[run_id] for run_id in run_ids or jobs))
    lab.wait_for("completed")


def outcome(lab: Experiment, run_id: str) -> dict[str, Any]:
    """All that a run has come to: its rows in the store, and its last checkpoint."""
    lab.runs()  # which brings the store up to date
    with sqlite3.connect(lab.files.path.parent / "alphagrid.db") as store:
        (key,) = store.execute("SELECT key FROM run WHERE id = ?", (run_id,)).fetchone()
        rows = [store.execute(query, (key,)).fetchall() for query in QUERIES]
    assert all(rows), "nothing to compare"
    state = torch.load(lab.files.run(run_id).checkpoints()[-1], weights_only=True)
    return {"rows": rows, **{part: state[part] for part in BITS}}


def equal(one: Any, other: Any) -> bool:
    """Whether two outcomes are the same to the last bit."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)
