from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from alphagrid.jobs.runs.attempts import Attempt, failures, ignored_until, starts_anew, without_progress
from alphagrid.jobs.runs.disk_record import DiskRecord
from alphagrid.jobs.runs.states import ACTIVE, STATES, RunState, SchedulerState, State, resolve
from alphagrid.jobs.submission_plan import decide, decide_retry, stop_raised
from hypothesis import given
from hypothesis import strategies as st

NOWHERE = Path("journal")
RUNNING, PENDING = SchedulerState("running"), SchedulerState("pending", "waits for free resources")


def state(record: DiskRecord, scheduler: SchedulerState | None) -> tuple[State, str | None]:
    resolved = resolve(record, scheduler)
    return resolved.state, resolved.reason


def attempt(number: int, **facts: object) -> Attempt:
    return replace(Attempt(number, NOWHERE, submission="s1"), **facts)  # type: ignore[arg-type]


@pytest.mark.parametrize("end", ["completed", "diverged", "failed", "cancelled"])
@pytest.mark.parametrize("scheduler", [None, RUNNING, PENDING])
def test_an_end_record_outranks_the_scheduler(end: str, scheduler: SchedulerState | None) -> None:
    assert state(DiskRecord(attempts=1, end=end, reason="why"), scheduler) == (end, "why")


@pytest.mark.parametrize(
    ("scheduler", "expected"), [(RUNNING, "running"), (PENDING, "pending"), (None, "unknown")]
)
def test_a_newer_submission_outranks_the_end_record(scheduler: SchedulerState | None, expected: str) -> None:
    assert state(DiskRecord(attempts=1, end="completed", submitted_since=True), scheduler)[0] == expected


def test_a_cancelled_run_is_cancelled_even_while_it_still_stops() -> None:
    assert state(DiskRecord(attempts=1, cancelled=True), RUNNING) == ("cancelled", "still stopping")
    assert state(DiskRecord(cancelled=True), PENDING) == ("cancelled", None)


def test_waiting_again_after_an_attempt_is_requeued_for_a_reason() -> None:
    for ended, why in {
        DiskRecord(attempts=1): "its node failed or it was killed",
        DiskRecord(attempts=1, event="interrupted", reason="preempted"): "preempted",
        DiskRecord(attempts=1, event="crash", reason="ValueError: no"): "crashed: ValueError: no",
    }.items():
        assert state(ended, PENDING) == ("requeued", f"{why}; waits for free resources")
        assert state(ended, SchedulerState("pending")) == ("requeued", why)
    assert state(DiskRecord(attempts=0), PENDING)[0] == "pending"


def test_a_clean_stop_is_interrupted_until_somebody_takes_it_up() -> None:
    stopped = DiskRecord(attempts=1, event="interrupted", reason="disk full")
    assert state(stopped, None) == ("interrupted", "disk full")
    assert state(stopped, RUNNING)[0] == "running"


def test_an_unknown_word_is_shown_and_never_interpreted() -> None:
    found, reason = state(DiskRecord(attempts=1), SchedulerState("QUANTUM_FOAM", "odd"))
    assert found == "unknown"
    assert reason is not None
    assert "QUANTUM_FOAM" in reason
    assert "odd" in reason
    foam = RunState(found, scheduler=SchedulerState("QUANTUM_FOAM"))
    assert decide(foam, [], {"steps": 10}) == decide_retry(foam, fresh=True) == "active"


def test_what_ended_a_job_for_good_is_told_by_its_accounting() -> None:
    scancel = SchedulerState("cancelled", "cancelled with scancel")
    preempted = SchedulerState("interrupted", "preempted and not requeued")
    for stopped in (
        DiskRecord(),
        DiskRecord(attempts=1),
        DiskRecord(attempts=1, event="interrupted", reason="TERM"),
    ):
        assert state(stopped, scancel) == ("cancelled", "cancelled with scancel")
        assert state(stopped, preempted) == ("interrupted", "preempted and not requeued")


def test_a_job_that_ended_by_itself_leaves_the_word_to_its_run() -> None:
    failed = SchedulerState("ended", "its job failed")
    assert state(DiskRecord(attempts=1), failed) == ("unknown", "its job failed")
    assert state(DiskRecord(attempts=1, event="interrupted", reason="disk full"), failed) == (
        "interrupted", "disk full",
    )  # fmt: skip
    assert state(DiskRecord(attempts=1, event="crash", reason="Boom"), failed) == ("unknown", "crashed: Boom")
    assert state(DiskRecord(attempts=1, event="crash", submitted_since=True), failed) == (
        "unknown",
        "its job failed",
    )


def test_where_nobody_could_be_asked_the_journals_speak_and_the_reason_says_so() -> None:
    silent = SchedulerState("silent", "no squeue")
    assert state(DiskRecord(attempts=1, end="completed"), silent)[0] == "completed"
    assert state(DiskRecord(attempts=1, event="interrupted", reason="preempted"), silent) == (
        "unknown", "preempted; no squeue",  # it may have been requeued since
    )  # fmt: skip
    assert state(DiskRecord(attempts=1), silent) == state(DiskRecord(submitted_since=True), silent) == (
        "unknown", "no squeue",
    )  # fmt: skip


def test_a_run_that_no_cluster_took_is_told_with_the_refusal() -> None:
    assert state(DiskRecord(submitted_since=True), SchedulerState("unsent", "too many jobs")) == (
        "interrupted", "not sent yet: too many jobs; the next submit sends it",
    )  # fmt: skip


def test_not_seen_is_not_dead() -> None:
    assert state(DiskRecord(attempts=1), None)[0] == "unknown"


def test_an_attempt_that_died_before_its_first_record_belongs_to_the_newest_submission() -> None:
    assert not DiskRecord.of(Attempt(1, NOWHERE), "s1", cancelled=False).submitted_since
    assert DiskRecord.of(attempt(1), "s2", cancelled=False).submitted_since


@given(
    st.builds(
        DiskRecord,
        attempts=st.integers(0, 3),
        end=st.sampled_from([None, "completed", "failed"]),
        event=st.sampled_from([None, "interrupted", "crash"]),
        submitted_since=st.booleans(),
        cancelled=st.booleans(),
    ),
    st.sampled_from(
        [
            None,
            RUNNING,
            PENDING,
            SchedulerState("HUH"),
            SchedulerState("cancelled"),
            SchedulerState("ended"),
            SchedulerState("unsettled"),
            SchedulerState("silent"),
        ]
    ),
)
def test_every_record_has_one_known_state_and_settled_ones_wait_for_nothing(
    found: DiskRecord, scheduler: SchedulerState | None
) -> None:
    result, _ = state(found, scheduler)
    assert result in STATES
    if found.settled and scheduler is None:
        assert result not in ACTIVE
        assert result != "unknown"


def test_submit_sends_what_has_no_end_and_is_not_under_way() -> None:
    stop = {"steps": 10, "train_seconds": None}
    assert decide(RunState("interrupted"), [], stop) == "send"
    assert decide(RunState("unknown"), [], stop) == "send"
    for active in ACTIVE:
        assert decide(RunState(active), [], stop) == "active"
        assert decide_retry(RunState(active), fresh=True) == "active"
    assert decide(RunState("cancelled"), [], stop) == "cancelled"
    assert decide(RunState("diverged"), [], stop) == "diverged"


def test_submit_sends_a_failed_run_once_and_retry_always() -> None:
    failed = [attempt(1, end="failed")]
    again = [*failed, attempt(2, submission="s2", end="failed")]
    assert decide(RunState("failed"), failed, {"steps": 10}) == "send"
    assert decide(RunState("failed"), again, {"steps": 10}) == "failed"
    assert decide_retry(RunState("failed"), fresh=False) == "send"


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
    assert without_progress(deaths, "s1", made_checkpoint=lambda one: False, preempts=True) == deaths
    assert (
        without_progress(deaths, "s1", made_checkpoint=lambda one: one.number == 1, preempts=True)
        == deaths[1:]
    )
    assert without_progress(deaths, "s1", made_checkpoint=lambda one: True, preempts=True) == []


def test_a_new_submission_begins_counting_anew() -> None:
    assert (
        without_progress([attempt(1), attempt(2)], "s2", made_checkpoint=lambda one: False, preempts=True)
        == []
    )


def test_preemption_and_node_failure_are_not_the_runs_fault() -> None:
    job = {"cluster": "slurm", "job_id": "7_1"}
    silent = [attempt(number, job=job) for number in (1, 2, 3)]
    assert (
        without_progress(silent, "s1", next_job="7_1", made_checkpoint=lambda one: False, preempts=True) == []
    )
    warned = [attempt(number, job=job, asked_to_stop=True) for number in (1, 2, 3)]
    assert without_progress(warned, "s1", made_checkpoint=lambda one: False, preempts=True) == []
    crashed = [attempt(number, job=job, event="crash") for number in (1, 2)]
    assert (
        without_progress(crashed, "s1", next_job="7_1", made_checkpoint=lambda one: False, preempts=True)
        == crashed
    )


def test_fresh_begins_anew_once_per_submission() -> None:
    before = [attempt(1), attempt(2)]
    assert starts_anew(before, "s2", asked=True)
    after = [*before, attempt(3, submission="s2", fresh=True)]
    assert not starts_anew(after, "s2", asked=True)
    assert ignored_until(after) == 2
    assert ignored_until(before) == 0
