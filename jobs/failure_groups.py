"""Group runs that failed, were interrupted or are lost by their cause."""

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
"""Number of causes, the most frequent first, whose logs are read."""
MOST_COMPARED = 600
"""Characters of a reason that are compared; the cut of a long reason depends on its variable parts."""
VARIABLE = (
    (re.compile(r"(?<![\w.])(~|\.{1,2})?(/[\w.+@%=-]+){2,}/?"), "PATH"),
    (re.compile(r"\b(0x[0-9a-f]+|(?=[a-f]*\d)(?=\d*[a-f])[0-9a-f]{6,})\b", re.IGNORECASE), "ID"),
    (re.compile(r"\d+([.,:]\d+)*(e[+-]?\d+)?"), "N"),
)
"""The parts of a reason that differ between runs with the same cause."""


class Failed(Protocol):
    """The attributes of a run that grouping uses."""

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
        """The reason of the state."""


@dataclass(frozen=True)
class Cause:
    """The common cause of runs that failed, were interrupted or are lost."""

    state: State
    reason: str
    """The reason of the first run."""
    runs: tuple[str, ...]
    """The runs' names."""
    ids: tuple[str, ...]
    hosts: tuple[str, ...] = ()
    """The hosts of the runs' newest attempts."""
    log: tuple[str, ...] = ()
    """The last lines of the first run's log."""

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


def causes(runs: Iterable[Failed]) -> list[Cause]:
    """Group the runs that failed, were interrupted or are lost by cause, the most frequent first."""
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
    """Return a reason with its numbers, ids and paths replaced by placeholders."""
    for variable, name in VARIABLE:
        reason = variable.sub(name, reason)
    return in_one_line(reason, MOST_COMPARED)


def illustrate(
    groups: Sequence[Cause], host_of: Mapping[str, str], log_of: Callable[[str], Sequence[str]]
) -> list[Cause]:
    """Return the causes with their hosts, and the most frequent ones with the end of a log.

    `host_of` and `log_of` take a run's id.
    """
    illustrated = []
    for number, cause in enumerate(groups):
        hosts = {host_of[run_id] for run_id in cause.ids if run_id in host_of}
        needs_log = cause.state in WITH_LOG and number < MOST_LOGS
        log = tuple(log_of(cause.ids[0])) if needs_log else ()
        illustrated.append(replace(cause, hosts=tuple(sorted(hosts)), log=log))
    return illustrated
