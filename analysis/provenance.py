"""What runs were trained on and what they warned of, as their journals tell."""

from __future__ import annotations

from typing import Any

from ..store.queries import EventRow
from .data import ExperimentData, RunData


def provenance(run: RunData) -> dict[str, Any]:
    """Return what the run's newest `data` event says; nothing where there is none."""
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


def journal_warnings(data: ExperimentData) -> list[str]:
    """Return what runs warn of in their journals, one sentence for all runs that warn of the same."""
    runs: dict[str, set[str]] = {}
    for run in data.runs:
        for event in run.events:
            if event.event == "warning" and "message" in event.details:
                runs.setdefault(str(event.details["message"]), set()).add(run.row.name)
    return [f"{_named(sorted(names))}: {message}." for message, names in runs.items()]


def _named(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more runs"


def missing_warnings(data: ExperimentData) -> list[str]:
    """Return a sentence if any run learnt from logs that lack days."""
    days = sorted({day for run in data.runs for day in provenance(run).get("missing_days") or ()})
    if not days:
        return []
    return [f"The logs that runs trained on lack the days {', '.join(map(str, days))}."]


def synthetic_warnings(data: ExperimentData) -> list[str]:
    """Return a sentence if any run learnt from data that were made up."""
    found = [provenance(run) for run in data.runs]
    makers = sorted({str(one.get("made_by")) for one in found if one.get("synthetic")})
    if not makers:
        return []
    count = sum(bool(one.get("synthetic")) for one in found)
    who = "All runs" if count == len(found) else f"{count} of {len(found)} runs"
    return [f"{who} trained on synthetic data ({'; '.join(makers)}): nobody ever clicked there."]
