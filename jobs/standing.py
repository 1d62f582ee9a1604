"""How the runs of an experiment stand: what they wrote, joined with what their schedulers say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..errors import SystemRefused
from ..store.layout import ExperimentFiles, Root
from ..store.submissions import RunEntry, Submission
from . import local, locks, squeue, states
from .backlog import account_of
from .states import Account, State, Word


@dataclass(frozen=True)
class Sent:
    """The newest submission that sends a run, and its entry there."""

    submission: Submission
    entry: RunEntry


@dataclass(frozen=True)
class Standing:
    """The state of a run, and why."""

    state: State
    reason: str | None = None


def newest(past: Iterable[Submission]) -> dict[str, Sent]:
    """Return for each run the newest submission that sends it; `past` is oldest first."""
    return {entry.id: Sent(submission, entry) for submission in past for entry in submission.runs}


def accounts(files: ExperimentFiles, sent: Mapping[str, Sent]) -> dict[str, Account]:
    """Return what each run has left on disk, from its directory."""
    return {run_id: account_of(files.run(run_id), one.submission.id) for run_id, one in sent.items()}


def standings(
    root: Root,
    files: ExperimentFiles,
    sent: Mapping[str, Sent],
    accounts: Mapping[str, Account],
    *,
    tolerant: bool = False,
) -> dict[str, Standing]:
    """Return how each run of `accounts` stands; only those that are `is_open` need to be in `sent`.

    With `tolerant`, a scheduler that does not answer is named as the reason of `unknown`.

    Raises:
        SystemRefused: Slurm does not answer although a run may be in its hands, and not `tolerant`.
    """
    open_runs = {run_id: sent[run_id] for run_id, one in accounts.items() if is_open(one) and run_id in sent}
    words = _words(root, files, open_runs, accounts, tolerant)
    return {run_id: Standing(*states.state(one, words.get(run_id))) for run_id, one in accounts.items()}


def is_open(account: Account) -> bool:
    """Tell whether the run may still be in a scheduler's hands."""
    return account.end is None or account.sent_since


def _words(
    root: Root,
    files: ExperimentFiles,
    sent: Mapping[str, Sent],
    accounts: Mapping[str, Account],
    tolerant: bool,
) -> dict[str, Word]:
    supervised = local.is_supervised(root)
    by_slurm = _slurm_words([one.submission for one in sent.values()], tolerant)
    found = {}
    for run_id, one in sent.items():
        run, cluster = files.run(run_id), one.submission.profile["cluster"]
        if cluster == "local":
            word = local.word(supervised, run, accounts[run_id])
        elif cluster == "debug":
            word = Word("running") if locks.is_held(run.lock) else None
        else:
            word = by_slurm.get((one.submission.id, run_id))
        if word is not None:
            found[run_id] = word
    return found


def _slurm_words(submissions: Sequence[Submission], tolerant: bool) -> dict[tuple[str, str], Word]:
    by_id = {submission.id: submission for submission in submissions}
    asked = [submission for submission in by_id.values() if submission.profile["cluster"] == "slurm"]
    if not asked:
        return {}
    try:
        words = squeue.words(asked)
    except SystemRefused as error:
        if not tolerant:
            raise
        silence = Word("nothing", error.message)
        return {(submission.id, run_id): silence for submission in asked for run_id in submission.jobs}
    return {(submission, run_id): word for submission, runs in words.items() for run_id, word in runs.items()}
