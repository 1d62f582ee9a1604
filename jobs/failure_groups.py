"""Why runs did not come to their end, told once for all that share a cause."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, Protocol

from ..store.messages import in_one_line
from .runs.states import State

FAILURES: tuple[State, ...] = ("failed", "unknown", "interrupted")
WITH_LOG = frozenset({"failed", "unknown"})
MOST_LOGS = 10
"""Causes, the commonest first, for which a log is looked up."""
MOST_COMPARED = 600
"""Characters of a reason that have to agree: where a long one was cut depends on what differs."""
VARIABLE = (
    (re.compile(r"(?<![\w.])(~|\.{1,2})?(/[\w.+@%=-]+){2,}/?"), "PATH"),
    (re.compile(r"\b(0x[0-9a-f]+|(?=[a-f]*\d)(?=\d*[a-f])[0-9a-f]{6,})\b", re.IGNORECASE), "ID"),
    (re.compile(r"\d+([.,:]\d+)*(e[+-]?\d+)?"), "N"),
)
"""What differs between two tellings of one cause."""


class Failed(Protocol):
    """What a run has to have to be grouped."""

    @property
    def id(self) -> str:
        """The run's id."""

    @property
    def name(self) -> str:
        """The run's readable name."""

    @property
    def state(self) -> State:
        """The run's state."""

    @property
    def reason(self) -> str | None:
        """Why it is in it."""


@dataclass(frozen=True)
class Cause:
    """What several runs have in common that failed, were interrupted, or are lost."""

    state: State
    reason: str
    """Of the first of them."""
    runs: tuple[str, ...]
    """Their names."""
    ids: tuple[str, ...]
    hosts: tuple[str, ...] = ()
    """Where their newest attempts ran."""
    log: tuple[str, ...] = ()
    """Last lines of the first one's log."""

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


def causes(runs: Iterable[Failed]) -> list[Cause]:
    """Group the runs that failed, were interrupted or are lost by cause, the commonest first."""
    members_by_cause: dict[tuple[State, str], list[Failed]] = defaultdict(list)
    for run in runs:
        if run.state in FAILURES:
            members_by_cause[run.state, pattern(run.reason or "")].append(run)
    groups = [
        Cause(
            state=state,
            reason=members[0].reason or "",
            runs=tuple(run.name for run in members),
            ids=tuple(run.id for run in members),
        )
        for (state, _), members in members_by_cause.items()
    ]
    return sorted(groups, key=lambda cause: (FAILURES.index(cause.state), -len(cause.runs)))


@lru_cache(maxsize=1024)
def pattern(reason: str) -> str:
    """Return a reason without the numbers, ids and paths in which runs of one cause differ."""
    for variable, name in VARIABLE:
        reason = variable.sub(name, reason)
    return in_one_line(reason, MOST_COMPARED)


def illustrate(
    groups: Sequence[Cause], host_of: Mapping[str, str], log_of: Callable[[str], Sequence[str]]
) -> list[Cause]:
    """Add hosts, and the end of a log of each of the commonest causes; both are looked up by a run's id."""
    illustrated = []
    for number, cause in enumerate(groups):
        hosts = {host_of[run_id] for run_id in cause.ids if run_id in host_of}
        needs_log = cause.state in WITH_LOG and number < MOST_LOGS
        log = tuple(log_of(cause.ids[0])) if needs_log else ()
        illustrated.append(replace(cause, hosts=tuple(sorted(hosts)), log=log))
    return illustrated
