"""A line of `profiles check`: what was checked, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """The verdict of a check."""

    ok = "ok"
    warning = "warning"
    """Jobs run, but not as the user may expect."""
    wrong = "wrong"
    """Slurm refuses jobs, or never starts them, or they lose work at each stop."""
    unknown = "cannot tell"


@dataclass(frozen=True)
class Finding:
    """One line: what was checked, the verdict, the reason, and what to do."""

    check: str
    verdict: Verdict
    said: str
    advice: str | None = None


def ok(check: str, message: str) -> Finding:
    """Return a finding that needs no action."""
    return Finding(check, Verdict.ok, message)


def warning(check: str, message: str, advice: str | None = None) -> Finding:
    """Return a finding on behaviour that may be unexpected."""
    return Finding(check, Verdict.warning, message, advice)


def wrong(check: str, message: str, advice: str | None = None) -> Finding:
    """Return a finding on what the user must change."""
    return Finding(check, Verdict.wrong, message, advice)


def unknown(check: str, message: str, advice: str | None = None) -> Finding:
    """Return a finding on what the cluster does not report."""
    return Finding(check, Verdict.unknown, message, advice)


def hours(seconds: float) -> str:
    """Return a time limit for display: 1.5 h, 72 h, no limit."""
    return "no limit" if math.isinf(seconds) else f"{seconds / 3600:.4g} h"


def hours_key(seconds: float) -> str:
    """Return a time limit as a value of the key `hours`. It is rounded down to stay within the limit."""
    return f"{math.floor(seconds / 3600 * 10_000) / 10_000:g}"


def memory(mebibytes: float) -> str:
    """Return memory as Slurm writes it: in GiB from 1 GiB on, else in MiB."""
    return f"{mebibytes / 1024:.4g}G" if mebibytes >= 1024 else f"{mebibytes:.4g}M"


def listed(names: Iterable[str], most: int = 8) -> str:
    """Return at most `most` names, sorted and separated by commas. Return `none` if there are none."""
    unique_names = sorted(set(names))
    return (", ".join(unique_names[:most]) or "none") + (
        f" and {len(unique_names) - most} more" if len(unique_names) > most else ""
    )
