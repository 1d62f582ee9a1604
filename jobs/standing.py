"""How the runs of an experiment stand: what they wrote, joined with what their schedulers say."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..errors import SystemRefused
from ..slurm import scontrol
from ..store.layout import ExperimentFiles, Root
from ..store.submissions import RunEntry, Submission
from . import handed, local, slurm_states, states
from .backlog import account_of
from .handed import Handed, Key
from .states import UNSURE, Account, State, Word

LAG_SECONDS = 10.0
"""How long accounting is waited for: it hears a moment later than squeue that a job has ended, and how."""
LOST = "submit sends it ten minutes after its last sign of life, retry at once"
ARRAYS_ASKED_BY_READERS = 10
"""For how many arrays a reading command asks the controller, which takes one call each."""


@dataclass(frozen=True)
class Sent:
    """The newest submission that sends a run, and its entry there."""

    submission: Submission
    entry: RunEntry

    @property
    def handed(self) -> Handed:
        """What its scheduler has to be asked by."""
        job = self.submission.jobs.get(self.entry.id)
        return Handed(
            run_id=self.entry.id,
            name=self.entry.name,
            submission=self.submission.id,
            cluster=self.submission.profile["cluster"],
            job_id=None if job is None else job.job_id,
            submitted=None if job is None else job.submitted,
            refusal=self.submission.refusal,
            site=self.submission.site,
        )


@dataclass(frozen=True)
class Standing:
    """The state of a run, and why."""

    state: State
    reason: str | None = None
    word: Word | None = None
    """What its scheduler says of it."""

    @property
    def is_alive(self) -> bool:
        """Whether it is in a scheduler's hands, whatever its files say."""
        return self.word is not None and self.word.is_alive

    @property
    def is_unsettled(self) -> bool:
        """Whether its job is over, and accounting has not heard how."""
        return self.word is not None and self.word.state == "unsettled"

    @property
    def is_certain(self) -> bool:
        """Whether everybody could be asked who may know of it."""
        return self.word is None or self.word.state != "silent"


@dataclass(frozen=True)
class Party:
    """The runs of one experiment, as they are known before anybody is asked."""

    files: ExperimentFiles
    accounts: Mapping[str, Account]
    handed: Mapping[str, Handed]
    """Those that are `is_open` need to be there."""

    @property
    def open(self) -> list[Handed]:
        """The runs that may still be in a scheduler's hands."""
        return [one for run_id, one in self.handed.items() if is_open(self.accounts[run_id])]


@dataclass(frozen=True)
class Answers:
    """What Slurm says."""

    words: Mapping[Key, Word]
    notes: tuple[str, ...] = ()
    """What could not be learned, and why."""


def newest(past: Iterable[Submission]) -> dict[str, Sent]:
    """Return for each run the newest submission that sends it; `past` is oldest first."""
    return {entry.id: Sent(submission, entry) for submission in past for entry in submission.runs}


def accounts(files: ExperimentFiles, sent: Mapping[str, Sent]) -> dict[str, Account]:
    """Return what each run has left on disk, from its directory."""
    return {run_id: account_of(files.run(run_id), one.submission.id) for run_id, one in sent.items()}


def is_open(account: Account) -> bool:
    """Tell whether the run may still be in a scheduler's hands."""
    return account.end is None or account.sent_since


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
    party = Party(files, accounts, {run_id: sent[run_id].handed for run_id in accounts if run_id in sent})
    return stand(root, party, ask([party], tolerant=tolerant))


def certain_standings(root: Root, files: ExperimentFiles, sent: Mapping[str, Sent]) -> dict[str, Standing]:
    """Return how runs stand that may be sent again: Slurm is asked twice about those that it does not list.

    A run may have ended between reading its files and asking Slurm, and what was cancelled a moment ago must
    not be sent again because accounting has not heard of it.

    Raises:
        SystemRefused: Slurm does not answer although a run may be in its hands.
    """
    found = standings(root, files, sent, accounts(files, sent))
    doubtful = {
        run_id: one
        for run_id, one in sent.items()
        if one.submission.profile["cluster"] == "slurm"
        and run_id in one.submission.jobs
        and is_unlisted(found[run_id])
    }
    deadline = time.monotonic() + LAG_SECONDS
    while doubtful:
        found.update(standings(root, files, doubtful, accounts(files, doubtful)))
        doubtful = {run_id: one for run_id, one in doubtful.items() if found[run_id].is_unsettled}
        if not doubtful or time.monotonic() > deadline:  # a job that slurmctld has lost never settles
            break
        time.sleep(1)
    return found


def is_unlisted(standing: Standing) -> bool:
    """Tell whether a run seems to be in nobody's hands although it has not come to its end."""
    return standing.state in UNSURE and not standing.is_alive


def ask(parties: Sequence[Party], *, tolerant: bool) -> Answers:
    """Ask Slurm about all runs that may be in its hands: squeue, then accounting and the controller.

    Accounting is asked about the runs whose jobs are not in the queue; the controller about those of them
    that accounting does not say have ended and, where an answer decides what is sent (not `tolerant`), about
    all that were not cancelled: some sites cache what squeue says.

    Raises:
        SystemRefused: squeue or the controller does not answer, and not `tolerant`. What accounting does not
            say is only noted.
    """
    asked = [(party, one) for party in parties for one in party.open if one.cluster == "slurm" and one.job_id]
    if not asked:
        return Answers({})
    try:
        words = slurm_states.in_queue([one for _, one in asked])
    except SystemRefused as error:
        if not tolerant:
            raise
        silence = f"Slurm could not be asked ({error.message})"
        return Answers({one.key: Word("silent", silence) for _, one in asked}, (silence,))
    left = [one for party, one in asked if one.key not in words and not party.accounts[one.run_id].cancelled]
    words = {**words, **_abroad(left, tolerant)}
    left = [one for one in left if one.key not in words]
    notes: list[str] = []
    try:
        words = {**words, **slurm_states.in_accounting(left)}
    except SystemRefused as error:
        notes.append(f"accounting does not tell how jobs ended ({error.message})")
    unclear = _unclear(left, words, tolerant)
    try:
        known = slurm_states.at_controller(unclear)
    except SystemRefused as error:
        if not tolerant:
            raise
        notes.append(f"the controller could not be asked ({error.message})")
        unclear, known = [], {}
    lost = _lost({one.key: words[one.key] for one in unclear if one.key in words and one.key not in known})
    return Answers({**words, **lost, **known}, tuple(notes))


def _unclear(left: Sequence[Handed], words: Mapping[Key, Word], tolerant: bool) -> list[Handed]:
    """Return the runs that are not in the queue and that the controller has to be asked about."""
    if not tolerant:
        return [one for one in left if words.get(one.key, Word("unknown")).state != "cancelled"]
    unclear = [one for one in left if one.key not in words or words[one.key].state == "unsettled"]
    arrays = {handed.array(str(one.job_id)) for one in unclear}
    return unclear if len(arrays) <= ARRAYS_ASKED_BY_READERS else []


def _lost(words: Mapping[Key, Word]) -> dict[Key, Word]:
    """Return better words for those of the jobs unknown to the controller that accounting believes to run."""
    return {
        key: Word("unsettled", f"{word.reason}; the controller does not know it; {LOST}")
        for key, word in words.items()
        if word.state == "unsettled"
    }


def _abroad(left: Sequence[Handed], tolerant: bool) -> dict[Key, Word]:
    """Return, of runs that are not in the queue here, those that another cluster's queue may hold.

    Raises:
        SystemRefused: there are some, and not `tolerant`.
    """
    if not any(one.site for one in left):
        return {}
    try:
        here = scontrol.cluster_name()
    except SystemRefused as error:
        if not tolerant:
            raise
        here, why = None, error.message
    else:
        why = f"this machine speaks to the cluster '{here}'"
    abroad = [one for one in left if one.site is not None and one.site != here]
    if abroad and not tolerant:
        raise SystemRefused(
            f"{len(abroad)} runs may be in the hands of the cluster '{abroad[0].site}', and {why}",
            f"submit from '{abroad[0].site}'; or end them with `alphagrid cancel`, then `alphagrid retry`",
        )
    return {one.key: Word("silent", f"it was sent to the cluster '{one.site}', and {why}") for one in abroad}


def stand(root: Root, party: Party, answers: Answers) -> dict[str, Standing]:
    """Return how each run of a party stands, with what Slurm says."""
    words = _words(root, party, answers)
    return {
        run_id: Standing(*states.state(account, words.get(run_id)), words.get(run_id))
        for run_id, account in party.accounts.items()
    }


def _words(root: Root, party: Party, answers: Answers) -> dict[str, Word]:
    supervised = local.will_run(root, party.files)
    found = {}
    for one in party.open:
        if one.cluster == "local":
            word = local.word(supervised, party.files.run(one.run_id), party.accounts[one.run_id])
        elif one.cluster == "debug":
            word = local.at_work(party.files.run(one.run_id))
        elif one.refusal is not None and one.job_id is None:
            word = Word("unsent", one.refusal)
        else:
            word = answers.words.get(one.key)
        if word is not None:
            found[one.run_id] = word
    return found
