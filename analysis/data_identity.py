"""Whether the runs of a report were trained on the same data, by the fingerprints in their journals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from ..store.data_identity import compare, groups
from .data import ExperimentData, RunData
from .provenance import data_parts, provenance

SHOWN = 5
"""So many runs of a group are named; of the rest the number is said."""


def data_warnings(data: ExperimentData) -> list[str]:
    """Return one sentence for each workload whose runs used different data, and one for each mixed run."""
    by_workload: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for run in data.runs:
        record = provenance(run)
        if record.get("fingerprint") is not None:
            workload = str((run.row.config.get("workload") or {}).get("name"))
            by_workload.setdefault(workload, []).append((run.row.name, record))
    found = [_difference(workload, members) for workload, members in by_workload.items()]
    return [warning for warning in [*found, *map(_mixture, data.runs)] if warning is not None]


def _difference(workload: str, members: Sequence[tuple[str, Mapping[str, Any]]]) -> str | None:
    named: dict[int, list[str]] = {}
    for (name, _), group in zip(members, groups(record for _, record in members), strict=True):
        named.setdefault(group, []).append(name)
    if len(named) < 2:
        return None
    listed = "; ".join(f"{members[first][1]['fingerprint']}: {_names(runs)}" for first, runs in named.items())
    return (
        f"Runs of workload {workload} used {len(named)} different data sets (fingerprint {listed}): "
        "their losses are not comparable."
    )


def _mixture(run: RunData) -> str | None:
    """Return a sentence if a run went on with other data than it began with."""
    parts = [part for part in data_parts(run) if part.details.get("fingerprint") is not None]
    changes = [
        f"{new.details['fingerprint']} from step {new.step}"
        for old, new in pairwise(parts)
        if compare(old.details, new.details) == "different"
    ]
    if not changes:
        return None
    told = ", ".join([str(parts[0].details["fingerprint"]), *changes])
    return f"The data of run {run.row.name} changed while it was trained (fingerprint {told})."


def _names(runs: Sequence[str]) -> str:
    more = f" and {len(runs) - SHOWN} more" if len(runs) > SHOWN else ""
    return ", ".join(runs[:SHOWN]) + more
