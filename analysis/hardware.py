"""What makes runs hard to compare: different GPUs, nodes or devices, and nodes that are slow."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .costs import slow_nodes_note
from .data import ExperimentData

SHOWN = 5
"""So many names of a kind are listed; of the rest the number is said."""


def hardware_warnings(data: ExperimentData) -> list[str]:
    """Return one sentence for each kind of hardware that differs between the attempts, and the slow nodes."""
    attempts = [attempt for run in data.runs for attempt in run.attempts]
    kinds = [
        ("devices", "seconds are not comparable", [attempt.device for attempt in attempts]),
        ("GPU models", "seconds are not comparable", [attempt.gpu for attempt in attempts]),
        ("nodes", "their speed may differ", [attempt.host for attempt in attempts]),
    ]
    slow = slow_nodes_note(data.runs)
    found = [warning for kind, why, names in kinds if (warning := _warning(kind, why, names))]
    return [*found, f"{slow} Compare them with --clock normalised."] if slow else found


def _warning(kind: str, why: str, names: Iterable[Any]) -> str | None:
    different = sorted({str(name) for name in names if name is not None})
    if len(different) < 2:
        return None
    more = f" and {len(different) - SHOWN} more" if len(different) > SHOWN else ""
    return f"Runs used {len(different)} {kind} ({', '.join(different[:SHOWN])}{more}): {why}."
