"""The schedulers by name. Only here, and in `Profile`, is a cluster's name compared."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from ...store.layout import Root
from .base import OpenRun, Scheduler, SchedulerStates
from .debug import DebugScheduler
from .local import LocalScheduler
from .slurm import SlurmScheduler

Schedulers = Mapping[str, Scheduler]

SCHEDULERS: Schedulers = {
    scheduler.name: scheduler for scheduler in (SlurmScheduler(), LocalScheduler(), DebugScheduler())
}


def scheduler_states(
    root: Root, runs: Sequence[OpenRun], schedulers: Schedulers = SCHEDULERS, *, tolerant: bool
) -> SchedulerStates:
    """Return the schedulers' states of runs; each scheduler is queried once.

    Raises:
        SystemRefused: a scheduler does not answer, and not `tolerant`.
    """
    by_cluster: dict[str, list[OpenRun]] = defaultdict(list)
    for run in runs:
        if run.job.cluster in schedulers:  # a damaged submission may name any
            by_cluster[run.job.cluster].append(run)
    states = SchedulerStates()
    for cluster, cluster_runs in by_cluster.items():
        states |= schedulers[cluster].states(root, cluster_runs, tolerant=tolerant)
    return states
