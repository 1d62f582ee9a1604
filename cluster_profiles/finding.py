"""A line of `profiles check`: what was held against the cluster, and how it came out."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How a line came out."""

    ok = "ok"
    warning = "warning"
    """Runs will go through, but not as one may expect."""
    wrong = "wrong"
    """Jobs are refused, or wait for ever, or lose work each time they are stopped."""
    unknown = "cannot tell"


@dataclass(frozen=True)
class Finding:
    """One line: what was checked, the verdict, why, and what to do."""

    check: str
    verdict: Verdict
    said: str
    advice: str | None = None


def ok(check: str, message: str) -> Finding:
    """Return a line on which nothing needs to be done."""
    return Finding(check, Verdict.ok, message)


def warning(check: str, message: str, advice: str | None = None) -> Finding:
    """Return a line on what may surprise."""
    return Finding(check, Verdict.warning, message, advice)


def wrong(check: str, message: str, advice: str | None = None) -> Finding:
    """Return a line on what has to be changed."""
    return Finding(check, Verdict.wrong, message, advice)


def unknown(check: str, message: str, advice: str | None = None) -> Finding:
    """Return a line on what the cluster does not say."""
    return Finding(check, Verdict.unknown, message, advice)


def hours(seconds: float) -> str:
    """Return a time limit as people say it: 1.5 h, 72 h, no limit."""
    return "no limit" if math.isinf(seconds) else f"{seconds / 3600:.4g} h"


def hours_key(seconds: float) -> str:
    """Return a time limit as the key `hours` takes it, rounded down, so that it stays within the limit."""
    return f"{math.floor(seconds / 3600 * 10_000) / 10_000:g}"


def memory(mebibytes: float) -> str:
    """Return memory as Slurm writes it, in whole GiB where there are any."""
    return f"{mebibytes / 1024:.4g}G" if mebibytes >= 1024 else f"{mebibytes:.4g}M"


def listed(names: Iterable[str], most: int = 8) -> str:
    """Return names with commas between them, sorted, not too many; `none` if there are none."""
    unique_names = sorted(set(names))
    return (", ".join(unique_names[:most]) or "none") + (
        f" and {len(unique_names) - most} more" if len(unique_names) > most else ""
    )
