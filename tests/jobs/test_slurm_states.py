"""What Slurm's words mean, and whose they are; its commands are scripts here that answer as sites' do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from alphagrid.errors import SystemRefused
from alphagrid.jobs.runs.states import SchedulerState
from alphagrid.jobs.runs.submitted_job import SubmittedJob
from alphagrid.jobs.schedulers import slurm_states
from alphagrid.slurm.pending_reasons import in_words

SENT = 1_700_000_000
DAY = 86_400


class Site:
    """A folder on the PATH with the commands of a site, and what they were asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def answers(self, command: str, *lines: str, exit_code: int = 0) -> None:
        text = self.folder / f"answer of {command}"
        text.write_text("".join(f"{line}\n" for line in lines))
        script = self.folder / command
        answer = f"cat '{text}'; exit {exit_code}"
        script.write_text(f'#!/bin/sh\necho "$0 $@" >> {self.folder}/asked; {answer}\n')
        script.chmod(0o755)

    @property
    def asked(self) -> list[str]:
        return (self.folder / "asked").read_text().splitlines()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return Site(tmp_path)


def queued(array: str, task: str, state: str, reason: str, comment: str, submitted: int = 0) -> str:
    """Return a line of squeue, of a job whose name tells nothing."""
    return f"{array}|{task}|{state}|ada|{submitted}|{reason}|exp|{comment}"


def handed(run_id: str, job_id: str, submission: str = "s1") -> SubmittedJob:
    return SubmittedJob(run_id, submission, "slurm", job_id, float(SENT))


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("None", None),
        ("AssocGrpCpuLimit", "waits for a limit on all jobs of your account (AssocGrpCpuLimit)"),
        ("AssocMaxJobsLimit", "waits for a limit on your account's jobs (AssocMaxJobsLimit)"),
        ("QOSMaxGRESPerUser", "waits for a limit of the QOS on each user (QOSMaxGRESPerUser)"),
        ("QOSGrpGRES", "waits for a limit of the QOS on all who use it (QOSGrpGRES)"),
        ("QOSMaxMemoryPerJob", "asks for more or less than the QOS allows a job (QOSMaxMemoryPerJob)"),
        ("PartitionTimeLimit", "asks for more hours than the partition allows: it will not start"),
        (
            "ReqNodeNotAvail, UnavailableNodes:gpu[01-03]",
            "the nodes that it asks for are down, drained or reserved (UnavailableNodes:gpu[01-03])",
        ),
        ("JobArrayTaskLimit", "waits for its array's throttle"),
        ("Licenses", "waits for a licence"),
        ("BadConstraints", "no node has what it asks for: it will not start"),
        ("Resources", "waits for free resources"),
        ("Priority", "other jobs come first"),
    ],
)
def test_reasons_are_told_in_words(reason: str, words: str | None) -> None:
    assert in_words(reason) == words


@pytest.mark.parametrize(
    "reason",
    ["launch_failed_requeued_held", "job requeued in held state", "JobHeldUser", "JobHoldMaxRequeue"],
)
def test_a_job_that_slurm_holds_is_told_with_what_frees_it(reason: str) -> None:
    assert "alphagrid retry" in str(in_words(reason))


@pytest.mark.parametrize("reason", ["QuantumFoam", "(null)", "MaxedOut", "PartitionTimeLimitish", "é"])
def test_a_reason_nobody_knows_is_shown_as_it_is(reason: str) -> None:
    assert in_words(reason) == reason


def test_squeue_is_asked_once_for_all_arrays_and_told_apart_by_comment(site: Site) -> None:
    site.answers(
        "squeue",
        queued("7", "0", "RUNNING", "None", "alphagrid:s1"),
        queued("7", "1", "PENDING", "Priority", "alphagrid:s1"),
        queued("8", "N/A", "QUANTUM", "Foam", "alphagrid:s2"),
        queued("9", "N/A", "RUNNING", "None", "somebody else's"),
    )
    runs = [handed("a", "7_0"), handed("b", "7_1"), handed("c", "8", "s2"), handed("d", "9", "s3")]
    assert slurm_states.in_queue(runs) == {
        ("s1", "a"): SchedulerState("running"),
        ("s1", "b"): SchedulerState("pending", "other jobs come first"),
        ("s2", "c"): SchedulerState("QUANTUM", "Foam"),
    }
    assert len(site.asked) == 1
    assert "--jobs 7,8,9" in site.asked[0]


def test_more_jobs_than_a_command_line_takes_are_asked_about_all_the_same(site: Site) -> None:
    many = [handed(f"r{number}", str(10_000_000 + number)) for number in range(30_000)]
    site.answers("squeue", queued("10029999", "N/A", "RUNNING", "None", "alphagrid:s1"))
    assert slurm_states.in_queue(many) == {("s1", "r29999"): SchedulerState("running")}
    site.answers("sacct", f"10029999|TIMEOUT|0:0|{SENT}|{SENT + 60}|ada|exp|alphagrid:s1")
    assert slurm_states.in_accounting(many)["s1", "r29999"].state == "interrupted"
    assert len(site.asked) == 2


@pytest.mark.parametrize(
    ("state", "word", "reason"),
    [
        ("CANCELLED by 1000", "cancelled", "cancelled with scancel"),
        ("PREEMPTED", "interrupted", "preempted and not requeued; the next submit continues it"),
        ("NODE_FAIL", "interrupted", "its node failed; the next submit continues it"),
        ("BOOT_FAIL", "interrupted", "its node did not boot; the next submit continues it"),
        ("TIMEOUT", "interrupted", "reached its time limit; the next submit continues it"),
        ("DEADLINE", "interrupted", "reached its deadline; the next submit continues it"),
        ("QUANTUM", "unsettled", "its accounting says QUANTUM, but it is not in the queue"),
        ("RUNNING", "unsettled", "its accounting says RUNNING, but it is not in the queue"),
    ],
)
def test_the_final_words_of_accounting(site: Site, state: str, word: str, reason: str) -> None:
    site.answers("sacct", f"7_0|{state}|0:0|{SENT}|{SENT + 60}|ada|exp|alphagrid:s1")
    assert slurm_states.in_accounting([handed("a", "7_0")]) == {("s1", "a"): SchedulerState(word, reason)}


@pytest.mark.parametrize(
    ("state", "why"), [("FAILED", "its job failed"), ("OUT_OF_MEMORY", "ran out of the")]
)
def test_a_process_that_died_by_itself_is_told_with_its_exit_code(site: Site, state: str, why: str) -> None:
    site.answers("sacct", f"7_0|{state}|0:9|{SENT}|{SENT + 60}|ada|exp|alphagrid:s1")
    (word,) = slurm_states.in_accounting([handed("a", "7_0")]).values()
    assert word.state == "ended"
    assert str(word.reason).startswith(why)
    assert "(exit code 0:9)" in str(word.reason)


def test_tasks_that_never_started_come_as_one_line(site: Site) -> None:
    site.answers("sacct", f"7_[0-1,4%2]|CANCELLED by 0|0:0|{SENT}|{SENT + 60}|ada|exp|alphagrid:s1")
    runs = [handed(f"r{task}", f"7_{task}") for task in range(6)]
    assert {run for _, run in slurm_states.in_accounting(runs)} == {"r0", "r1", "r4"}


def test_the_newest_record_of_a_requeued_job_counts(site: Site) -> None:
    again = SENT + DAY
    site.answers(
        "sacct",
        f"7|TIMEOUT|0:0|{again}|{again + 5}|ada|exp|",
        f"7|PREEMPTED|0:0|{SENT}|{again}|ada|exp|",  # ended when the other one began: it was requeued
    )
    assert slurm_states.in_accounting([handed("a", "7")])["s1", "a"].reason == (
        "reached its time limit; the next submit continues it"
    )


@pytest.mark.parametrize("comment", ["", "alphagrid:s0", "somebody else's"])
@pytest.mark.parametrize("days", [-30, 30])
def test_another_job_with_the_same_number_is_not_ours(site: Site, comment: str, days: int) -> None:
    then = SENT + days * DAY
    site.answers("sacct", f"7|CANCELLED by 0|0:0|{then}|{then + 60}|ada|exp|{comment}")
    assert slurm_states.in_accounting([handed("a", "7")]) == {}


def test_our_own_record_counts_whatever_another_job_with_its_number_did_later(site: Site) -> None:
    later = SENT + 30 * DAY
    site.answers(
        "sacct",
        f"7|NODE_FAIL|0:0|{SENT + 5}|{SENT + 90}|ada|exp|",
        f"7|COMPLETED|0:0|{later}|{later + 60}|ada|exp|alphagrid:s9",
    )
    assert slurm_states.in_accounting([handed("a", "7")])["s1", "a"].state == "interrupted"


def test_a_job_without_times_is_left_out(site: Site) -> None:
    site.answers("sacct", "7|PENDING|0:0|Unknown|Unknown|ada|exp|")
    assert slurm_states.in_accounting([handed("a", "7")]) == {}


def test_accounting_that_fails_says_why(site: Site) -> None:
    site.answers("sacct", exit_code=1)
    with pytest.raises(SystemRefused, match="sacct failed"):
        slurm_states.in_accounting([handed("a", "7")])


def test_nobody_is_asked_about_nothing(site: Site) -> None:
    site.answers("sacct", exit_code=1)
    assert slurm_states.in_accounting([]) == slurm_states.in_queue([]) == {}
    assert slurm_states.in_accounting([SubmittedJob("a", "s1", "slurm")]) == {}


NOISE = [
    "",
    "ARRAY_JOB_ID|ARRAY_TASK_ID|STATE|USER|SUBMIT_TIME|REASON|NAME|COMMENT",
    "CLUSTER: other",
    "the rest of a comment",
    "9|0|RUNNING",
    "x|y|z|a|b|c|d|e",
    "|||||||",
]


def test_lines_that_are_no_records_are_skipped(site: Site) -> None:
    site.answers("squeue", *NOISE, queued("7", "0", "RUNNING", "None", "alphagrid:s1"), *NOISE)
    assert slurm_states.in_queue([handed("a", "7_0")]) == {("s1", "a"): SchedulerState("running")}
    record = f"7_0|TIMEOUT|0:0|{SENT}|{SENT + 60}|ada|exp|alphagrid:s1"
    site.answers("sacct", *NOISE, "JobID|State|ExitCode|Submit|End|User|JobName|Comment", record, *NOISE)
    assert slurm_states.in_accounting([handed("a", "7_0")])["s1", "a"].state == "interrupted"


@pytest.mark.parametrize("command", ["squeue", "sacct"])
def test_bytes_that_are_no_text_stop_nothing(site: Site, command: str) -> None:
    line = {
        "squeue": b"7|0|PENDING|ada|0|Priority|exp|\\377\\376\\n7|1|RUNNING|ada|0|None|exp|alphagrid:s1",
        "sacct": b"7_1|\\377|0:0|5|6|ada|exp|\\n7_1|TIMEOUT|0:0|%d|7|ada|exp|alphagrid:s1" % SENT,
    }[command]
    script = site.folder / command
    script.write_bytes(b"#!/bin/sh\nprintf '" + line + b"\\n'\n")
    script.chmod(0o755)
    ask = {"squeue": slurm_states.in_queue, "sacct": slurm_states.in_accounting}[command]
    assert list(ask([handed("b", "7_1")])) == [("s1", "b")]


MISLEADING = (
    "SQUEUE_STATES",
    "SACCT_FORMAT",
    "SCANCEL_STATE",
    "SCONTROL_ALL",
    "SRUN_X",
    "SBATCH_QOS",
    "SLURM_JOB_ID",
)


def test_commands_run_without_the_variables_that_change_them(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT", "SLURM_SACK_KEY", "HOME")
    for name in (*MISLEADING, *kept, "SLURM_TIME_FORMAT", "SLURM_BITSTR_LEN"):
        monkeypatch.setenv(name, "odd")
    script = site.folder / "squeue"
    script.write_text(f"#!/bin/sh\nenv > {site.folder}/environment\n")
    script.chmod(0o755)
    slurm_states.in_queue([handed("a", "7")])
    lines = (site.folder / "environment").read_text().splitlines()
    seen = dict(line.split("=", 1) for line in lines if "=" in line)
    assert not set(MISLEADING) & set(seen)
    assert {name: seen[name] for name in kept} == dict.fromkeys(kept, "odd")
    assert (seen["SLURM_TIME_FORMAT"], seen["SLURM_BITSTR_LEN"]) == ("%s", "0")


@pytest.mark.parametrize(
    ("comment", "name", "submitted", "ours"),
    [
        ("alphagrid:s1", "renamed", 0, True),
        ("billing", "exp.s1", 0, True),
        ("", "exp.s1", 0, True),
        ("billing", "renamed", SENT + 2, True),
        ("billing", "renamed", SENT + 60, False),
        ("billing", "renamed", SENT + DAY, False),
        ("alphagrid:s2", "exp.s1", SENT, False),
    ],
)
def test_a_job_is_known_by_comment_or_name_or_time(
    site: Site, comment: str, name: str, submitted: int, ours: bool
) -> None:
    site.answers("sacct", exit_code=1)
    site.answers("squeue", f"7|N/A|RUNNING|ada|{submitted}|None|{name}|{comment}")
    assert bool(slurm_states.in_queue([handed("a", "7")])) is ours


def test_a_requeued_job_is_known_by_the_end_of_its_previous_record(site: Site) -> None:
    again = SENT + 5 * DAY
    site.answers("sacct", f"7|PREEMPTED|0:0|{SENT}|{again}|ada|renamed|billing")
    site.answers("squeue", f"7|N/A|PENDING|ada|{again + 2}|None|renamed|billing")
    assert slurm_states.in_queue([handed("a", "7")]) == {("s1", "a"): SchedulerState("pending")}


CANCELLED = {("s1", "b"): SchedulerState("cancelled", "cancelled with scancel")}
ARRAY_WITHOUT_TASKS = (
    "JobId=7 ArrayJobId=7 ArrayTaskId=4294967294 ArrayTaskThrottle=2 JobName=exp.s1 UserId=ada(1000) "
    f"JobState=CANCELLED Reason=BeginTime SubmitTime={SENT} EndTime={SENT + 60} Comment=alphagrid:s1"
)


def test_the_controllers_record_of_an_array_without_tasks_is_that_of_its_last_task(site: Site) -> None:
    site.answers("scontrol", ARRAY_WITHOUT_TASKS)
    assert slurm_states.at_controller([handed("b", "7_1")]) == CANCELLED


def test_accountings_record_of_an_array_without_tasks_is_that_of_its_last_task(site: Site) -> None:
    site.answers("sacct", f"7|CANCELLED by 0|0:0|{SENT}|{SENT + 60}|exp.s1|alphagrid:s1")
    assert slurm_states.in_accounting([handed("b", "7_1")]) == CANCELLED
