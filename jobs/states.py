"""The state of a run, from what it wrote itself and what its scheduler says. Pure: nothing is read here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast, get_args

from .attempts import Attempt

State = Literal[
    "pending", "running", "requeued", "interrupted", "completed", "diverged", "failed", "cancelled", "unknown"
]
STATES: tuple[State, ...] = get_args(State)
ACTIVE: frozenset[State] = frozenset({"pending", "running", "requeued"})
"""States of a run that will go on by itself."""


@dataclass(frozen=True)
class Word:
    """What a scheduler says of a run, in its own word if it is one that we do not know."""

    state: str
    """`pending`, `running`, or any other word, which is shown and never interpreted."""
    reason: str | None = None


@dataclass(frozen=True)
class Account:
    """What the run itself and those who submitted or cancelled it have left on disk."""

    attempts: int = 0
    end: str | None = None
    event: str | None = None
    reason: str | None = None
    sent_since: bool = False
    """Whether the newest submission that sends the run is newer than its newest attempt."""
    cancelled: bool = False
    """Whether the cancel marker names the newest submission that sends the run."""

    @property
    def settled(self) -> bool:
        """Whether nothing more will come of the newest submission: ended, stopped cleanly, or cancelled."""
        over = self.end is not None or self.event == "interrupted"
        return self.cancelled or (over and not self.sent_since)


def account(attempt: Attempt | None, submission: str | None, cancelled: bool) -> Account:
    """Return the account of a run from its newest attempt and the newest submission that sends it.

    An attempt that died before it could say whose it was counts as one of the newest submission's.
    """
    if attempt is None:
        return Account(cancelled=cancelled, sent_since=submission is not None)
    sent_since = submission is not None and attempt.submission not in (submission, None)
    return Account(attempt.number, attempt.end, attempt.event, attempt.reason, sent_since, cancelled)


def state(account: Account, word: Word | None) -> tuple[State, str | None]:
    """Return the state of a run and the reason, in words.

    By precedence: its end record and the cancel marker (unless something was submitted after them), its
    scheduler's word, a clean interruption, else `unknown`. Not seen is not dead.
    """
    if account.end is not None and not account.sent_since:
        return cast(State, account.end), account.reason
    if account.cancelled:
        return "cancelled", "still stopping" if word == Word("running") else None
    if word is not None:
        return _by_word(account, word)
    if account.event == "interrupted" and not account.sent_since:
        return "interrupted", account.reason
    return "unknown", _last_seen(account)


def _by_word(account: Account, word: Word) -> tuple[State, str | None]:
    if word.state == "running":
        return "running", word.reason
    if word.state == "pending":
        came_back = account.attempts > 0 and not account.sent_since
        return ("requeued" if came_back else "pending"), word.reason or (
            account.reason if came_back else None
        )
    detail = f": {word.reason}" if word.reason else ""
    return "unknown", f"the scheduler says {word.state}{detail}"


def _last_seen(account: Account) -> str:
    if account.event == "crash" and not account.sent_since:
        return f"crashed: {account.reason}"
    if account.attempts and not account.sent_since:
        return "neither running nor ended; the next submit continues it"
    return "submitted, but no scheduler knows it; the next submit sends it again"
