from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from alphagrid.jobs.attempts import Attempt, failures, fruitless, ignored_until, starts_anew
from alphagrid.jobs.reconciliation import Situation, retry_verdict, stop_raised, verdict
from alphagrid.jobs.states import ACTIVE, STATES, Account, Word, account, state
from hypothesis import given
from hypothesis import strategies as st

NOWHERE = Path("journal")
RUNNING, PENDING = Word("running"), Word("pending", "waits for free resources")


def attempt(number: int, **facts: object) -> Attempt:
    return replace(Attempt(number, NOWHERE, submission="s1"), **facts)  # type: ignore[arg-type]


@pytest.mark.parametrize("end", ["completed", "diverged", "failed", "cancelled"])
@pytest.mark.parametrize("word", [None, RUNNING, PENDING])
def test_an_end_record_outranks_the_scheduler(end: str, word: Word | None) -> None:
    assert state(Account(attempts=1, end=end, reason="why"), word) == (end, "why")


@pytest.mark.parametrize(
    ("word", "expected"), [(RUNNING, "running"), (PENDING, "pending"), (None, "unknown")]
)
def test_a_newer_submission_outranks_the_end_record(word: Word | None, expected: str) -> None:
    assert state(Account(attempts=1, end="completed", sent_since=True), word)[0] == expected


def test_a_cancelled_run_is_cancelled_even_while_it_still_stops() -> None:
    assert state(Account(attempts=1, cancelled=True), RUNNING) == ("cancelled", "still stopping")
    assert state(Account(cancelled=True), PENDING) == ("cancelled", None)


def test_waiting_again_after_an_attempt_is_requeued_for_a_reason() -> None:
    for ended, why in {
        Account(attempts=1): "its node failed or it was killed",
        Account(attempts=1, event="interrupted", reason="preempted"): "preempted",
        Account(attempts=1, event="crash", reason="ValueError: no"): "crashed: ValueError: no",
    }.items():
        assert state(ended, PENDING) == ("requeued", f"{why}; waits for free resources")
        assert state(ended, Word("pending")) == ("requeued", why)
    assert state(Account(attempts=0), PENDING)[0] == "pending"


def test_a_clean_stop_is_interrupted_until_somebody_takes_it_up() -> None:
    stopped = Account(attempts=1, event="interrupted", reason="disk full")
    assert state(stopped, None) == ("interrupted", "disk full")
    assert state(stopped, RUNNING)[0] == "running"


def test_an_unknown_word_is_shown_and_never_interpreted() -> None:
    found, reason = state(Account(attempts=1), Word("QUANTUM_FOAM", "odd"))
    assert found == "unknown"
    assert reason is not None
    assert "QUANTUM_FOAM" in reason
    assert "odd" in reason
    foam = Situation(found, is_alive=Word("QUANTUM_FOAM").is_alive)
    assert verdict(foam, {"steps": 10}) == retry_verdict(foam, fresh=True) == "active"


def test_what_ended_a_job_for_good_is_told_by_its_accounting() -> None:
    scancel = Word("cancelled", "cancelled with scancel")
    preempted = Word("interrupted", "preempted and not requeued")
    for stopped in (Account(), Account(attempts=1), Account(attempts=1, event="interrupted", reason="TERM")):
        assert state(stopped, scancel) == ("cancelled", "cancelled with scancel")
        assert state(stopped, preempted) == ("interrupted", "preempted and not requeued")


def test_a_job_that_ended_by_itself_leaves_the_word_to_its_run() -> None:
    failed = Word("ended", "its job failed")
    assert state(Account(attempts=1), failed) == ("unknown", "its job failed")
    assert state(Account(attempts=1, event="interrupted", reason="disk full"), failed) == (
        "interrupted", "disk full",
    )  # fmt: skip
    assert state(Account(attempts=1, event="crash", reason="Boom"), failed) == ("unknown", "crashed: Boom")
    assert state(Account(attempts=1, event="crash", sent_since=True), failed) == ("unknown", "its job failed")


def test_where_nobody_could_be_asked_the_journals_speak_and_the_reason_says_so() -> None:
    silent = Word("silent", "no squeue")
    assert state(Account(attempts=1, end="completed"), silent)[0] == "completed"
    assert state(Account(attempts=1, event="interrupted", reason="preempted"), silent) == (
        "unknown", "preempted; no squeue",  # it may have been requeued since
    )  # fmt: skip
    assert state(Account(attempts=1), silent) == state(Account(sent_since=True), silent) == (
        "unknown", "no squeue",
    )  # fmt: skip


def test_a_run_that_no_cluster_took_is_told_with_the_refusal() -> None:
    assert state(Account(sent_since=True), Word("unsent", "too many jobs")) == (
        "interrupted", "not sent yet: too many jobs; the next submit sends it",
    )  # fmt: skip


def test_not_seen_is_not_dead() -> None:
    assert state(Account(attempts=1), None)[0] == "unknown"


def test_an_attempt_that_died_before_its_first_word_belongs_to_the_newest_submission() -> None:
    assert not account(Attempt(1, NOWHERE), "s1", cancelled=False).sent_since
    assert account(attempt(1), "s2", cancelled=False).sent_since


@given(
    st.builds(
        Account,
        attempts=st.integers(0, 3),
        end=st.sampled_from([None, "completed", "failed"]),
        event=st.sampled_from([None, "interrupted", "crash"]),
        sent_since=st.booleans(),
        cancelled=st.booleans(),
    ),
    st.sampled_from(
        [
            None,
            RUNNING,
            PENDING,
            Word("HUH"),
            Word("cancelled"),
            Word("ended"),
            Word("unsettled"),
            Word("silent"),
        ]
    ),
)
def test_every_account_has_one_known_state_and_settled_ones_wait_for_nothing(
    found: Account, word: Word | None
) -> None:
    result, _ = state(found, word)
    assert result in STATES
    if found.settled and word is None:
        assert result not in ACTIVE
        assert result != "unknown"


def test_submit_sends_what_has_no_end_and_is_not_under_way() -> None:
    stop = {"steps": 10, "train_seconds": None}
    assert verdict(Situation(None), stop) == "send"
    assert verdict(Situation("interrupted"), stop) == "send"
    assert verdict(Situation("unknown"), stop) == "send"
    for active in ACTIVE:
        assert verdict(Situation(active), stop) == "active"
        assert retry_verdict(Situation(active), fresh=True) == "active"
    assert verdict(Situation("cancelled"), stop) == "cancelled"
    assert verdict(Situation("diverged"), stop) == "diverged"


def test_submit_sends_a_failed_run_once_and_retry_always() -> None:
    failed = [attempt(1, end="failed")]
    again = [*failed, attempt(2, submission="s2", end="failed")]
    assert verdict(Situation("failed", failed), {"steps": 10}) == "send"
    assert verdict(Situation("failed", again), {"steps": 10}) == "failed"
    assert retry_verdict(Situation("failed", again), fresh=False) == "send"


def test_completing_in_between_forgives_earlier_failures() -> None:
    assert failures([attempt(1, end="failed"), attempt(2, end="completed"), attempt(3, end="failed")]) == 1


def test_only_a_raised_stop_that_is_not_reached_continues_a_completed_run() -> None:
    done = attempt(
        1, end="completed", step=100, train_seconds=5.0, stop={"steps": 100, "train_seconds": None}
    )
    assert not stop_raised(done, {"steps": 100, "train_seconds": None})
    assert not stop_raised(done, {"steps": 50, "train_seconds": None})
    assert stop_raised(done, {"steps": 101, "train_seconds": None})
    assert stop_raised(done, {"steps": None, "train_seconds": 60.0})
    assert not stop_raised(done, {"steps": 200, "train_seconds": 4.0})


def test_two_deaths_without_a_checkpoint_are_fruitless_and_progress_resets_the_count() -> None:
    deaths = [attempt(1), attempt(2, event="crash", reason="Boom")]
    assert fruitless(deaths, "s1", made_checkpoint=lambda one: False) == deaths
    assert fruitless(deaths, "s1", made_checkpoint=lambda one: one.number == 1) == deaths[1:]
    assert fruitless(deaths, "s1", made_checkpoint=lambda one: True) == []


def test_a_new_submission_begins_counting_anew() -> None:
    assert fruitless([attempt(1), attempt(2)], "s2", made_checkpoint=lambda one: False) == []


def test_preemption_and_node_failure_are_not_the_runs_fault() -> None:
    job = {"cluster": "slurm", "job_id": "7_1"}
    silent = [attempt(number, job=job) for number in (1, 2, 3)]
    assert fruitless(silent, "s1", next_job="7_1", made_checkpoint=lambda one: False) == []
    warned = [attempt(number, job=job, asked_to_stop=True) for number in (1, 2, 3)]
    assert fruitless(warned, "s1", made_checkpoint=lambda one: False) == []
    crashed = [attempt(number, job=job, event="crash") for number in (1, 2)]
    assert fruitless(crashed, "s1", next_job="7_1", made_checkpoint=lambda one: False) == crashed


def test_fresh_begins_anew_once_per_submission() -> None:
    before = [attempt(1), attempt(2)]
    assert starts_anew(before, "s2", asked=True)
    after = [*before, attempt(3, submission="s2", fresh=True)]
    assert not starts_anew(after, "s2", asked=True)
    assert ignored_until(after) == 2
    assert ignored_until(before) == 0
