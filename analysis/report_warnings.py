"""Warn where runs are hard to compare: other workloads, data or hardware, and what their journals warn of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from ..store.data_identity import compare, groups
from ..store.queries import EventRow
from .comparison import ReportData
from .costs import slow_nodes_note
from .data import ExperimentData, RunData

SHOWN = 5
"""The maximum number of names that a warning lists."""


def warnings(data: ReportData) -> list[str]:
    """Return why a comparison may be unfair, one sentence for each reason."""
    unnamed = sum(not run.row.named for run in data.experiment.runs)
    stale = (
        [f"{unnamed} of {len(data.experiment.runs)} runs are no longer named by the spec."] if unnamed else []
    )
    files = ", ".join(data.experiment.damaged)
    damaged = [f"Lines of {files} are damaged and left out; see `alphagrid store check`."] if files else []
    training = synthetic_warnings(data.experiment) + missing_warnings(data.experiment)
    compared = _workload_warnings(data) + data_warnings(data.experiment) + hardware_warnings(data.experiment)
    return training + damaged + compared + journal_warnings(data.experiment) + stale


def _workload_warnings(data: ReportData) -> list[str]:
    sections = [run.config_section("workload") for run in data.experiment.runs]
    names = sorted({str(section["name"]) for section in sections if "name" in section})
    if len(names) < 2:
        return []
    return [f"Runs train {len(names)} workloads ({', '.join(names)}): their losses are not comparable."]


def journal_warnings(data: ExperimentData) -> list[str]:
    """Return the warnings in the runs' journals, the runs of equal warnings together."""
    runs: dict[str, set[str]] = {}
    for run in data.runs:
        for event in run.events:
            if event.event == "warning" and "message" in event.details:
                runs.setdefault(str(event.details["message"]), set()).add(run.row.name)
    return [f"{_first_and_number(sorted(names))}: {message}." for message, names in runs.items()]


def _first_and_number(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more runs"


def missing_warnings(data: ExperimentData) -> list[str]:
    """Return a warning if any run was trained on logs that lack days."""
    days = sorted({day for run in data.runs for day in training_data(run).get("missing_days") or ()})
    if not days:
        return []
    return [f"The logs that runs trained on lack the days {', '.join(map(str, days))}."]


def synthetic_warnings(data: ExperimentData) -> list[str]:
    """Return a warning if any run was trained on synthetic data."""
    records = [training_data(run) for run in data.runs]
    synthetic = [record for record in records if record.get("synthetic")]
    if not synthetic:
        return []
    makers = sorted({str(record.get("made_by")) for record in synthetic})
    runs = "All runs" if len(synthetic) == len(records) else f"{len(synthetic)} of {len(records)} runs"
    return [f"{runs} trained on synthetic data ({'; '.join(makers)}): results do not describe real clicks."]


def data_warnings(data: ExperimentData) -> list[str]:
    """Return a warning for each workload with different data, and for each run whose data changed."""
    by_workload: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for run in data.runs:
        record = training_data(run)
        if record.get("fingerprint") is not None:
            workload = str(run.config_section("workload").get("name"))
            by_workload.setdefault(workload, []).append((run.row.name, record))
    different = [_different_data(workload, members) for workload, members in by_workload.items()]
    changed = [_changed_data(run) for run in data.runs]
    return [warning for warning in (*different, *changed) if warning is not None]


def _different_data(workload: str, members: Sequence[tuple[str, Mapping[str, Any]]]) -> str | None:
    names: dict[int, list[str]] = {}
    for (name, _), group in zip(members, groups(record for _, record in members), strict=True):
        names.setdefault(group, []).append(name)
    if len(names) < 2:
        return None
    listed = "; ".join(
        f"{members[first][1]['fingerprint']}: {_first_names(runs)}" for first, runs in names.items()
    )
    return (
        f"Runs of workload {workload} used {len(names)} different data sets (fingerprint {listed}): "
        "their losses are not comparable."
    )


def _changed_data(run: RunData) -> str | None:
    """Return a warning if the data of a run changed while it was trained; None otherwise."""
    parts = [part for part in data_parts(run) if part.details.get("fingerprint") is not None]
    changes = [
        f"{new.details['fingerprint']} from step {new.step}"
        for old, new in pairwise(parts)
        if compare(old.details, new.details) == "different"
    ]
    if not changes:
        return None
    fingerprints = ", ".join([str(parts[0].details["fingerprint"]), *changes])
    return f"The data of run {run.row.name} changed while it was trained (fingerprint {fingerprints})."


def hardware_warnings(data: ExperimentData) -> list[str]:
    """Return one sentence for each kind of hardware that differs between the attempts, and the slow nodes."""
    attempts = [attempt for run in data.runs for attempt in run.attempts]
    kinds = [
        ("devices", "seconds are not comparable", [attempt.device for attempt in attempts]),
        ("GPU models", "seconds are not comparable", [attempt.gpu for attempt in attempts]),
        ("nodes", "their speed may differ", [attempt.host for attempt in attempts]),
    ]
    slow = slow_nodes_note(data.runs)
    different = [_different_hardware(kind, why, names) for kind, why, names in kinds]
    warnings = [warning for warning in different if warning is not None]
    return [*warnings, f"{slow} Compare them with --clock normalised."] if slow else warnings


def _different_hardware(kind: str, why: str, names: Iterable[Any]) -> str | None:
    different = sorted({str(name) for name in names if name is not None})
    if len(different) < 2:
        return None
    return f"Runs used {len(different)} {kind} ({_first_names(different)}): {why}."


def training_data(run: RunData) -> dict[str, Any]:
    """Return the details of the run's newest `data` event; empty without one."""
    parts = data_parts(run)
    return dict(parts[-1].details) if parts else {}


def data_parts(run: RunData) -> list[EventRow]:
    """Return the `data` events of the attempts that the run's steps come from, by the step each began at.

    Attempts that were refused because of their data are left out, and those whose steps were all done again.
    """
    parts: list[EventRow] = []
    for event in run.events:
        if event.event == "data" and event.details.get("verification") != "refused":
            parts = [*(part for part in parts if part.step < event.step), event]
    return parts


def _first_names(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
