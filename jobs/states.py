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
UNSURE: frozenset[State] = frozenset({"unknown", "interrupted"})
"""States that may pass: a scheduler leaves out a job now and then."""


@dataclass(frozen=True)
class Word:
    """What a scheduler says of a run, in its own word if it is one that we do not know."""

    state: str
    """`pending` or `running`; `unsent` if no scheduler has it; of a job that is over, `cancelled`,
    `interrupted` (by the cluster), `ended` (by itself) or `unsettled` (how has not been heard yet); `silent`
    if nobody could be asked; any other is shown and never interpreted."""
    reason: str | None = None

    @property
    def is_alive(self) -> bool:
        """Whether the run is in somebody's hands now, whatever they call that."""
        return self.state not in OVER


OVER = frozenset({"unsent", "cancelled", "interrupted", "ended", "unsettled", "silent"})
"""Words of a scheduler that does not have the run in its hands, or was not to be asked."""


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
    if word is None or word.state in ("ended", "unsettled", "silent"):
        return _by_itself(account, word)
    return _by_word(account, word)


def _by_word(account: Account, word: Word) -> tuple[State, str | None]:
    if word.state in ("running", "cancelled", "interrupted"):
        return cast(State, word.state), word.reason
    if word.state == "pending":
        if account.attempts == 0 or account.sent_since:
            return "pending", word.reason
        return "requeued", "; ".join(filter(None, (_why_it_came_back(account), word.reason)))
    if word.state == "unsent":
        return "interrupted", f"not sent yet: {word.reason}; the next submit sends it"
    detail = f": {word.reason}" if word.reason else ""
    return "unknown", f"the scheduler says {word.state}{detail}"


def _why_it_came_back(account: Account) -> str | None:
    if account.event is None:  # it had no time to say anything
        return "its node failed or it was killed"
    return f"crashed: {account.reason}" if account.event == "crash" else account.reason


def _by_itself(account: Account, word: Word | None) -> tuple[State, str | None]:
    """Go by what the run wrote last; a scheduler that was not asked may know better, and is named."""
    if account.sent_since:
        return "unknown", word.reason if word else UNKNOWN_TO_ALL
    doubt = f"; {word.reason}" if word is not None and word.state == "silent" else ""
    if account.event == "interrupted":  # but perhaps requeued since, which only the scheduler knows
        return "unknown" if doubt else "interrupted", f"{account.reason}{doubt}"
    if account.event == "crash":
        return "unknown", f"crashed: {account.reason}{doubt}"
    return "unknown", word.reason if word else (VANISHED if account.attempts else UNKNOWN_TO_ALL)


VANISHED = "neither running nor ended; the next submit continues it"
UNKNOWN_TO_ALL = "submitted, but no scheduler knows it; the next submit sends it again"
