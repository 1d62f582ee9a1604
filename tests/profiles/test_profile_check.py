"""What a cluster says of itself, how it is read, and what `profiles check` and `profiles init` make of it.

The texts are what Slurm 22.05.8 printed on the cluster of tests/slurm, shortened to the settings that are
read; where a test changes them, it is to what other sites print.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from alphagrid.cluster_profiles.check import check, trial, trial_command, verdicts
from alphagrid.cluster_profiles.draft import draft, init
from alphagrid.cluster_profiles.finding import Finding, Verdict
from alphagrid.cluster_profiles.loader import Profile, load_profile
from alphagrid.cluster_profiles.measured import Measured, slowest_checkpoint
from alphagrid.errors import SystemRefused, UserError
from alphagrid.slurm import notation
from alphagrid.slurm.cluster import Node, Site
from alphagrid.slurm.inspect import Answer, survey
from alphagrid.slurm.notation import Devices
from alphagrid.store.layout import Root
from hypothesis import given
from hypothesis import strategies as st

CONFIG = """Configuration data as of 2026-11-24T15:53:31
AccountingStorageEnforce = associations,limits,qos
AccountingStorageType   = accounting_storage/slurmdbd
ClusterName             = alphagrid
JobRequeue              = 1
KillWait                = 5 sec
MaxArraySize            = 1001
PreemptMode             = REQUEUE
PreemptType             = preempt/partition_prio
SchedulerParameters     = batch_sched_delay=0,sched_interval=1,bf_interval=1
SelectTypeParameters    = CR_CORE
SLURM_VERSION           = 22.05.8

Slurmctld(primary) at vm is UP
"""
PARTITION = (
    "PartitionName=a100 AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL AllocNodes=ALL Default=YES QoS=N/A"
    " DefaultTime=NONE DisableRootJobs=NO ExclusiveUser=NO GraceTime=10 Hidden=NO MaxNodes=UNLIMITED"
    " MaxTime=3-00:00:00 MinNodes=0 LLN=NO MaxCPUsPerNode=UNLIMITED Nodes=node[1-2] PriorityJobFactor=1"
    " PriorityTier=1 RootOnly=NO ReqResv=NO OverSubscribe=NO OverTimeLimit=NONE PreemptMode=REQUEUE State=UP"
    " TotalCPUs=32 TotalNodes=2 SelectTypeParameters=NONE JobDefaults=(null) DefMemPerNode=UNLIMITED"
    " MaxMemPerNode=UNLIMITED TRES=cpu=32,mem=1000G,node=2,billing=32,gres/gpu=8\n"
)
URGENT = (
    "PartitionName=urgent AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL AllocNodes=ALL Default=NO QoS=N/A"
    " DefaultTime=NONE GraceTime=0 Hidden=NO MaxTime=UNLIMITED MaxCPUsPerNode=UNLIMITED Nodes=node[1-2]"
    " PriorityTier=10 RootOnly=NO ReqResv=NO PreemptMode=OFF State=UP DefMemPerNode=UNLIMITED"
    " MaxMemPerNode=UNLIMITED TRES=cpu=32,mem=1000G,node=2,billing=32,gres/gpu=8\n"
)
NODE1 = (
    "NodeName=node1 Arch=x86_64 CoresPerSocket=16  CPUAlloc=0 CPUEfctv=16 CPUTot=16 CPULoad=0.53"
    " AvailableFeatures=(null) ActiveFeatures=(null) Gres=gpu:a100:4(S:0) NodeAddr=127.0.0.1 NodeHostName=vm"
    " Port=28322 Version=22.05.8 OS=Linux 6.18.44-fc-v595 #1 SMP PREEMPT_DYNAMIC @0  RealMemory=512000"
    " AllocMem=0 FreeMem=22428 Sockets=1 Boards=1 State=IDLE ThreadsPerCore=1 TmpDisk=0 Weight=1 Owner=N/A"
    " MCS_label=N/A Partitions=a100,urgent  BootTime=2026-11-24T14:27:20 CfgTRES=cpu=16,mem=500G,billing=16"
    " AllocTRES= CapWatts=n/a CurrentWatts=0 AveWatts=0 ExtSensorsJoules=n/s ExtSensorsWatts=0\n"
)
NODE2 = (
    "NodeName=node2 Arch=x86_64 CoresPerSocket=16  CPUAlloc=0 CPUEfctv=16 CPUTot=16 CPULoad=0.53"
    " AvailableFeatures=nvme,ib ActiveFeatures=nvme,ib Gres=gpu:a100:4,shard:a100:16 NodeAddr=127.0.0.1"
    " Port=20493 Version=22.05.8 OS=Linux 6.18.44-fc-v595 #1 SMP PREEMPT_DYNAMIC @0  RealMemory=512000"
    " State=IDLE+DRAIN ThreadsPerCore=1 Partitions=a100,urgent  BootTime=2026-11-24T14:27:20"
    " ExtSensorsTemp=n/s Reason=bad fan State=odd [root@2026-11-24T15:56:01]\n"
)
ASSOCIATIONS = "guests|urgent|normal||00:10:00|5\nthesis||long,normal|long||\n"
QOS = (
    "normal||00:00:00|cluster|||\nlong|3-00:00:00|00:00:30|requeue||500|\n"
    "express|01:30:00|00:00:00|cancel|long,normal||DenyOnLimit,OverPartQOS\n"
)
NO_ACCOUNTING = Answer("", "You are not running a supported accounting_storage plugin")
NO_RIGHTS = Answer("", " Access/permission denied")


def cluster(**changed: str | Answer) -> Callable[[Sequence[str]], Answer]:
    """A cluster that answers as the real one did, but for what is changed."""
    said: dict[str, str | Answer] = {
        "config": CONFIG,
        "partition": PARTITION + URGENT,
        "node": NODE1 + NODE2,
        "association": ASSOCIATIONS,
        "user": "thesis\n",
        "qos": QOS,
        "sacct": "",
        **changed,
    }

    def answer(command: Sequence[str]) -> Answer:
        key = next((word for word in command if word in said), "sacct")
        text = said[key]
        return Answer(text) if isinstance(text, str) else text

    return answer


def site(**changed: str | Answer) -> Site:
    return replace(survey(cluster(**changed)), user="ada", groups=frozenset({"ai"}))


def profile(**keys: object) -> Profile:
    return load_profile("slurm-a100", {"account": "thesis", **keys})


NO_MEASUREMENT = "no run has written a checkpoint yet"


def found(where: Site, asked: Profile, measured: Measured | str = NO_MEASUREMENT) -> dict[str, Finding]:
    """The findings by what was checked; of several on the same, the gravest."""
    gravity = [Verdict.ok, Verdict.unknown, Verdict.warning, Verdict.wrong]
    lines = sorted(verdicts(asked, where, measured), key=lambda line: gravity.index(line.verdict))
    return {line.check: line for line in lines}


def verdict(check: str, where: Site, asked: Profile, measured: Measured | str = NO_MEASUREMENT) -> str:
    return str(found(where, asked, measured)[check].verdict)


# Reading


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("UNLIMITED", math.inf),
        ("INFINITE", math.inf),
        ("3-00:00:00", 3 * 86400),
        ("1-12", 36 * 3600),
        ("1-12:30", 36 * 3600 + 1800),
        ("01:30:00", 5400),
        ("10:30", 630),
        ("30", 1800),
        *((text, None) for text in ("", "NONE", "N/A", "(null)", "-1", "invalid", None)),
    ],
)
def test_durations_are_read_as_slurm_writes_them(text: str | None, seconds: float | None) -> None:
    assert notation.seconds(text) == seconds


@pytest.mark.parametrize(
    ("text", "devices"),
    [
        ("(null)", ()),
        ("gpu:4", (Devices("gpu", None, 4),)),
        ("gpu", (Devices("gpu", None, 1),)),
        ("gpu:a100:4(S:0-1)", (Devices("gpu", "a100", 4),)),
        ("gpu:a100:4(S:0,1)", (Devices("gpu", "a100", 4),)),
        ("gpu:a100:2(IDX:0-1),gpu:v100:1(IDX:3)", (Devices("gpu", "a100", 2), Devices("gpu", "v100", 1))),
        ("gpu:a100:4,shard:a100:16", (Devices("gpu", "a100", 4), Devices("shard", "a100", 16))),
        ("gpu:1080:8", (Devices("gpu", "1080", 8),)),
        ("gpu:1g.10gb:7(S:0)", (Devices("gpu", "1g.10gb", 7),)),
        ("bandwidth:lustre:no_consume:4G", (Devices("bandwidth", "lustre", 4 * 1024**3),)),
    ],
)
def test_generic_resources_are_read_with_sockets_types_and_units(
    text: str, devices: tuple[Devices, ...]
) -> None:
    assert notation.devices(text) == devices


def test_lists_of_nodes_are_spread_out() -> None:
    assert notation.hosts("node[1-3,07],login") == {"node1", "node2", "node3", "node07", "login"}
    assert notation.hosts("rack[1-2]n[09-10]") == {"rack1n09", "rack1n10", "rack2n09", "rack2n10"}
    assert notation.hosts(None) == notation.hosts("(null)") == frozenset()


@given(st.text())
def test_no_text_breaks_the_readers(text: str) -> None:
    for read in (
        *(notation.seconds, notation.whole, notation.mebibytes, notation.limit, notation.words),
        *(notation.devices, notation.hosts, notation.records, notation.settings),
    ):
        read(text)


def test_a_node_is_read_whatever_its_reason_and_its_kernel_hold() -> None:
    first, second = map(Node.read, notation.records(NODE1 + NODE2))
    assert (first.name, first.cpus, first.memory, first.gpus, first.usable) == ("node1", 16, 512000, 4, True)
    assert (second.state, second.usable, second.features) == ("IDLE+DRAIN", False, frozenset({"nvme", "ib"}))
    assert second.devices == (Devices("gpu", "a100", 4), Devices("shard", "a100", 16))


@pytest.mark.parametrize(
    ("state", "usable"),
    [
        ("MIXED", True),
        ("IDLE+CLOUD+POWERED_DOWN", True),
        ("ALLOCATED+MAINTENANCE", True),
        ("DOWN*", False),
        ("DOWN*+DRAIN", False),
        ("IDLE+FAIL", False),
    ],
)
def test_nodes_that_are_down_or_drained_are_not_counted_on(state: str, usable: bool) -> None:
    assert Node.read({"NodeName": "n", "State": state}).usable is usable


# Verdicts


def test_a_profile_that_fits_is_ok_in_every_line() -> None:
    lines = found(site(), profile(), Measured(0.4, "exp", "run"))
    assert {line.check: str(line.verdict) for line in lines.values() if line.verdict is not Verdict.ok} == {}
    assert {"partition", "account", "QOS", "GRES", "CPUs", "memory", "node", "time limit"} < set(lines)
    assert {"preemption", "grace", "checkpoint", "array size", "requeue", "accounting"} < set(lines)


@pytest.mark.parametrize(
    ("check", "keys", "said"),
    [
        ("partition", {"partition": "a1000"}, "there is no partition 'a1000'"),
        ("partition", {"partition": "a100,gpu"}, "there is no partition 'gpu'"),
        ("account", {"account": "chess"}, "'chess' is not yours"),
        ("account", {"account": "guests"}, "'guests' is not yours in partition 'a100'"),
        ("QOS", {"qos": "quick"}, "there is no QOS 'quick'"),
        ("QOS", {"qos": "express"}, "'express' is not yours under account 'thesis'"),
        ("GRES", {"gres": "gpu:h100:1"}, "no node of 'a100' offers gpu:h100:1"),
        ("GRES", {"gres": "gpu:A100:1"}, "no node of 'a100' offers gpu:A100:1"),
        ("GRES", {"gres": "gpu:a100:5"}, "no node of 'a100' offers gpu:a100:5"),
        ("GRES", {"gres": None, "sbatch": {"gpus_per_node": "h100:2"}}, "offers gpu:h100:2"),
        ("CPUs", {"cpus": 17}, "17, but a job can have 16 of a node"),
        ("memory", {"memory": "501G"}, "501G, but a job can have 500G of a node"),
        ("node", {"constraint": "nvme", "exclude": "node[2-3]"}, "no node of 'a100' has all of it"),
        ("time limit", {"hours": 73}, "73 h, but partition 'a100' allows 72 h"),
        ("array size", {"max_array": 1002}, "1002, but the cluster takes 1001 at most"),
    ],
)
def test_what_jobs_would_be_refused_for_is_wrong(check: str, keys: dict[str, object], said: str) -> None:
    line = found(site(), profile(**keys))[check]
    assert line.verdict is Verdict.wrong
    assert said in line.said
    assert line.advice


@pytest.mark.parametrize(
    ("check", "before", "after"),
    [
        ("partition", "State=UP", "State=DOWN"),
        ("partition", "State=UP", "State=INACTIVE"),
        ("partition", "RootOnly=NO", "RootOnly=YES"),
        ("partition", "ReqResv=NO", "ReqResv=YES"),
        ("partition", "AllowGroups=ALL", "AllowGroups=chem,bio"),
        ("account", "AllowAccounts=ALL", "AllowAccounts=chess"),
        ("account", "AllowAccounts=ALL", "DenyAccounts=thesis"),
        ("QOS", "AllowQos=ALL", "AllowQos=express"),
        ("CPUs", "MaxCPUsPerNode=UNLIMITED", "MaxCPUsPerNode=4"),
        ("memory", "MaxMemPerNode=UNLIMITED", "MaxMemPerNode=40960"),
    ],
)
def test_what_the_partition_does_not_admit_is_wrong(check: str, before: str, after: str) -> None:
    assert before in PARTITION
    where = site(partition=PARTITION.replace(before, after) + URGENT)
    assert verdict(check, where, profile()) == "wrong"


def test_the_qos_limits_the_time_before_the_account_and_beside_the_partition() -> None:
    endless = PARTITION.replace("3-00:00:00", "UNLIMITED") + URGENT
    by_default = found(site(partition=endless), profile(hours=73))["time limit"]
    assert "QOS 'long' allows 72 h" in by_default.said
    assert verdict("time limit", site(partition=endless), profile(hours=73, qos="normal")) == "ok"
    urgent = found(site(), profile(account="guests", partition="urgent", hours=1))["time limit"]
    assert "account 'guests' allows 0.1667 h" in urgent.said
    hours = float((urgent.advice or "").removeprefix("hours: "))
    fits = profile(account="guests", partition="urgent", hours=hours)
    assert verdict("time limit", site(), fits) == "ok"
    not_enforced = CONFIG.replace("associations,limits,qos", "associations")
    assert verdict("time limit", site(partition=endless, config=not_enforced), profile(hours=73)) == "ok"


def test_accounts_that_are_not_enforced_are_a_warning() -> None:
    where = site(config=CONFIG.replace("associations,limits,qos", "none"))
    assert verdict("account", where, profile(account="chess")) == "warning"
    assert verdict("QOS", where, profile(qos="express")) == "warning"


def test_nodes_that_are_down_are_a_warning_and_named() -> None:
    line = found(site(), profile(gres="shard:1"))["GRES"]
    assert (line.verdict, "node2" in line.said) == (Verdict.warning, True)
    assert verdict("node", site(), profile(constraint="nvme")) == "warning"


def test_a_node_must_have_all_of_it_at_once() -> None:
    big = NODE1.replace("node1", "node3").replace("gpu:a100:4(S:0)", "(null)").replace("=512000", "=2048000")
    lines = found(site(node=NODE1 + big), profile(memory="1T"))
    assert (lines["GRES"].verdict, lines["memory"].verdict) == (Verdict.ok, Verdict.ok)
    assert lines["node"].verdict is Verdict.wrong
    assert lines["node"].advice == "in the way: memory on 1 node, gres on 1 node"


def test_an_array_may_be_shorter_by_the_schedulers_parameters() -> None:
    shorter = CONFIG.replace("bf_interval=1", "max_array_tasks=500")
    assert found(site(config=shorter), profile())["array size"].advice == "max_array: 500"
    assert verdict("array size", site(config=CONFIG.replace("1001", "0")), profile()) == "wrong"
    longer = found(site(config=CONFIG.replace("= 1001", "= 10001")), profile())["array size"]
    assert (longer.verdict, "max_array: 10001" in longer.said) == (Verdict.ok, True)


def test_a_submit_limit_is_told_where_there_is_one() -> None:
    assert "500 jobs" in found(site(), profile())["submit limit"].said
    assert "submit limit" not in found(site(), profile(qos="normal"))


# Coming back after a preemption


@pytest.mark.parametrize(
    ("partition_mode", "keys", "expected", "said"),
    [
        ("REQUEUE", {}, "ok", "requeued by urgent"),
        ("REQUEUE", {"requeue": False}, "warning", "cancelled by urgent (requeue: false)"),
        ("CANCEL", {}, "warning", "cancelled by urgent"),
        ("GANG,SUSPEND", {}, "warning", "suspended by urgent"),
        ("OFF", {}, "ok", "nothing preempts"),
        ("REQUEUE,CANCEL", {}, "cannot tell", "CANCEL, REQUEUE"),
        ("HIBERNATE", {}, "cannot tell", "HIBERNATE"),
    ],
)
def test_what_happens_to_preempted_runs_is_said(
    partition_mode: str, keys: dict[str, object], expected: str, said: str
) -> None:
    where = site(partition=PARTITION.replace("PreemptMode=REQUEUE", f"PreemptMode={partition_mode}") + URGENT)
    line = found(where, profile(**keys))["preemption"]
    assert (str(line.verdict), said in line.said) == (expected, True), line


def test_a_partition_of_the_highest_tier_is_never_preempted() -> None:
    lines = found(site(), profile(partition="urgent", account="guests", hours=0.1))
    assert "nothing preempts" in lines["preemption"].said
    assert "grace" not in lines


def test_a_qos_may_be_what_preempts() -> None:
    by_qos = CONFIG.replace("partition_prio", "qos")
    lines = found(site(config=by_qos), profile())
    assert lines["preemption"].said == "requeued by express"
    assert lines["grace"].said == "a preempted run has 30 s for its checkpoint"
    assert verdict("preemption", site(config=by_qos, qos=NO_RIGHTS), profile()) == "cannot tell"
    nothing = site(config=CONFIG.replace("partition_prio", "none"))
    assert "nothing preempts" in found(nothing, profile())["preemption"].said


@pytest.mark.parametrize(("seconds", "expected"), [(0.4, "ok"), (6.0, "warning"), (11.0, "wrong")])
def test_the_measured_checkpoint_is_held_against_the_grace(seconds: float, expected: str) -> None:
    line = found(site(), profile(), Measured(seconds, "exp2", "interval100"))["checkpoint"]
    assert str(line.verdict) == expected
    assert "exp2, interval100" in line.said


def test_without_grace_there_is_only_killwait() -> None:
    where = site(partition=PARTITION.replace("GraceTime=10", "GraceTime=0") + URGENT)
    assert "5 s from SIGTERM to SIGKILL" in found(where, profile())["grace"].said
    assert verdict("grace", where, profile()) == "warning"
    assert verdict("checkpoint", where, profile(), Measured(6.0, "e", "r")) == "wrong"


def test_the_signal_before_the_time_limit_must_come_early_enough() -> None:
    where = site(partition=PARTITION.replace("PreemptMode=REQUEUE", "PreemptMode=OFF") + URGENT)
    slow = Measured(80.0, "e", "r")
    assert verdict("checkpoint", where, profile(), slow) == "warning"
    line = found(where, profile(signal_seconds=60), slow)["checkpoint"]
    assert (line.verdict, line.advice) == (Verdict.wrong, "signal_seconds: 320")
    assert verdict("checkpoint", where, profile(signal_seconds=320), slow) == "ok"
    assert "checkpoint" not in found(where, profile(hours=None), slow)


def test_jobs_ask_for_requeueing_whatever_the_default_is() -> None:
    assert verdict("requeue", site(config=CONFIG.replace("= 1\n", "= 0\n")), profile()) == "ok"
    assert verdict("requeue", site(config=CONFIG.replace("JobRequeue", "X")), profile()) == "cannot tell"
    assert verdict("requeue", site(), profile(requeue=False)) == "warning"


def test_a_checkpoint_that_was_never_measured_cannot_be_told(tmp_path: Path) -> None:
    assert (
        slowest_checkpoint(Root(tmp_path / "runs"))
        == f"no run under {tmp_path / 'runs'} has written a checkpoint yet"
    )
    assert not (tmp_path / "runs").exists()
    assert verdict("checkpoint", site(), profile()) == "cannot tell"


# What a site does not tell


def test_without_rights_to_sacctmgr_accounts_cannot_be_told_and_the_rest_can() -> None:
    where = site(association=NO_RIGHTS, user=NO_RIGHTS, qos=NO_RIGHTS)
    lines = found(where, load_profile("slurm-a100"))
    unknown = {name for name, line in lines.items() if line.verdict is Verdict.unknown}
    assert unknown == {"account", "QOS", "checkpoint"}
    assert lines["account"].said == "Access/permission denied"


def test_without_accounting_there_are_no_accounts_to_be_wrong_about() -> None:
    config = CONFIG.replace("accounting_storage/slurmdbd", "accounting_storage/none")
    where = site(config=config, sacct=Answer("", "Slurm accounting storage is disabled"))
    lines = found(where, profile(qos="x"))
    assert (lines["account"].verdict, lines["QOS"].verdict) == (Verdict.ok, Verdict.ok)
    assert "'thesis' is ignored" in lines["account"].said
    assert lines["accounting"].verdict is Verdict.warning


def test_a_database_that_is_down_is_a_warning() -> None:
    where = site(sacct=Answer("", "sacct: error: slurmdbd: Connection refused"))
    assert verdict("accounting", where, profile()) == "warning"


def test_a_site_that_shows_no_nodes_can_be_checked_all_the_same() -> None:
    lines = found(site(node="No nodes in the system\n"), profile())
    assert {name for name, line in lines.items() if line.verdict is Verdict.unknown} == {
        *("GRES", "CPUs", "memory", "node"),
        "checkpoint",
    }
    assert not [line for line in lines.values() if line.verdict is Verdict.wrong]


def test_hardly_anything_told_breaks_nothing_and_is_never_wrong() -> None:
    bare = site(
        config="ClusterName = x\n",
        partition="PartitionName=a100 Default=YES State=UP\n",
        node="NodeName=n1 Partitions=a100\nNodeName=n2\n",
        association="",
    )
    lines = found(bare, load_profile("slurm-cpu"))
    assert [line for line in lines.values() if line.verdict is Verdict.wrong] == []
    assert draft(bare)


# sbatch's own word


def test_sbatch_is_asked_for_what_the_profile_asks_for() -> None:
    asked = load_profile(
        "slurm-a100", {"partition": "p", "hours": 0.51, "sbatch": {"nice": 3, "exclusive": True}}
    )
    command = trial_command(asked)
    assert command[:2] == ["sbatch", "--test-only"]
    expected = {"--partition=p", "--gres=gpu:a100:1", "--cpus-per-task=8", "--mem=80G", "--time=31"}
    assert expected | {"--nice=3", "--exclusive", "--requeue"} <= set(command)


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (None, "ok"),
        ("allocation failure: Invalid qos specification", "wrong"),
        (
            "sbatch: error: invalid partition specified\nallocation failure: Invalid partition",
            "wrong",
        ),
        ("allocation failure: Requested node configuration is not available", "wrong"),
        ("allocation failure: Job violates accounting/QOS policy (job submit limit, ...)", "warning"),
        ("sbatch did not answer within 60 s", "cannot tell"),
        ("allocation failure: Unable to contact slurm controller (connect failure)", "cannot tell"),
    ],
)
def test_what_sbatch_says_is_a_verdict(failure: str | None, expected: str) -> None:
    asked = profile(gres="gpu:h100:1")
    assert str(trial(asked, site(), Answer("", failure)).verdict) == expected


def test_sbatch_is_not_believed_when_only_the_nodes_are_down() -> None:
    answer = Answer("", "allocation failure: Requested node configuration is not available")
    assert trial(profile(gres="shard:1"), site(), answer).verdict is Verdict.warning


# Where there is no Slurm


def test_a_profile_for_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'local' is not for Slurm"):
        check(load_profile("local"), Root(tmp_path), cluster())


def test_without_slurm_it_is_the_users_to_mend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for attempt in (lambda: check(profile(), Root(tmp_path)), lambda: init(tmp_path / "x.yaml", None)):
        with pytest.raises(UserError, match="no Slurm") as refused:
            attempt()
        assert refused.value.exit_code == 2
    said = "scontrol: fatal: Could not establish a configuration source"
    with pytest.raises(UserError, match="belongs to no Slurm cluster"):
        survey(cluster(config=Answer("", f"scontrol: error: fetch_config\n{said}")))


def test_a_controller_that_does_not_answer_is_the_systems_refusal() -> None:
    said = "slurm_load_ctl_conf error: Unable to contact slurm controller (connect failure)"
    with pytest.raises(SystemRefused, match="controller does not answer: slurm_load_ctl_conf"):
        survey(cluster(config=Answer("", said)))


# A first profile


def drafted(tmp_path: Path, where: Site, partition: str | None = None) -> tuple[str, Profile]:
    text = draft(where, partition)
    (tmp_path / "site.yaml").write_text(text)
    return text, load_profile(str(tmp_path / "site.yaml"))


def is_right(where: Site, written: Profile) -> bool:
    return not [line for line in verdicts(written, where, NO_MEASUREMENT) if line.verdict is Verdict.wrong]


def test_a_first_profile_asks_for_one_gpu_and_its_share_of_the_node(tmp_path: Path) -> None:
    text, written = drafted(tmp_path, site())
    asked = (written.partition, written.gres, written.cpus, written.memory, written.hours, written.max_array)
    assert asked == ("a100", "gpu:a100:1", 4, "125G", 24.0, None)
    assert "# partition: urgent" in text
    assert "# qos: normal" in text
    assert "at most 72" in text
    assert is_right(site(), written)


def test_a_first_profile_for_another_partition_takes_the_account_that_may_use_it(tmp_path: Path) -> None:
    where = site(association="guests|urgent|normal||00:10:00|5\nthesis||normal|||\n", user="nobody\n")
    _, written = drafted(tmp_path, where, "urgent")
    assert (written.partition, written.account) == ("urgent", "guests")
    assert written.hours is not None
    assert written.hours * 60 <= 10
    assert is_right(where, written)


def test_a_first_profile_takes_a_qos_that_the_partition_admits(tmp_path: Path) -> None:
    where = site(partition=PARTITION.replace("AllowQos=ALL", "AllowQos=normal") + URGENT)
    _, written = drafted(tmp_path, where)
    assert (written.account, written.qos) == (None, "normal")
    assert is_right(where, written)


@pytest.mark.parametrize(
    ("gres", "expected"),
    [
        ("gpu:8(S:0-1)", "gpu:1"),
        ("gpu:a100:2(S:0),gpu:a100:2(S:1),gpu:v100:3", "gpu:a100:1"),
        ("gpu:1g.10gb:7", "gpu:1g.10gb:1"),
        ("(null)", None),
        ("nvme:100", None),
    ],
)
def test_a_first_profile_names_gpus_as_the_site_does(tmp_path: Path, gres: str, expected: str | None) -> None:
    where = site(node=NODE1.replace("gpu:a100:4(S:0)", gres))
    text, written = drafted(tmp_path, where)
    assert written.gres == expected
    assert ("# gres: gpu:v100:1" in text) is ("v100" in gres)
    assert is_right(where, written)


def test_a_first_profile_quotes_what_yaml_would_read_as_something_else(tmp_path: Path) -> None:
    where = site(
        partition=PARTITION.replace("=a100 ", "=100 "),
        node=NODE1.replace("Partitions=a100,", "Partitions=100,"),
    )
    _, written = drafted(tmp_path, where)
    assert written.partition == "100"


def test_a_first_profile_keeps_to_small_partitions(tmp_path: Path) -> None:
    small = PARTITION.replace("MaxMemPerNode=UNLIMITED", "MaxMemPerNode=800").replace("3-00:00:00", "30")
    where = site(
        partition=small.replace("MaxCPUsPerNode=UNLIMITED", "MaxCPUsPerNode=2"),
        config=CONFIG.replace("= 1001", "= 501"),
    )
    _, written = drafted(tmp_path, where)
    asked = (written.cpus, written.memory, written.hours, written.max_array)
    assert asked == (2, "800M", 0.5, 501)
    assert is_right(where, written)


def test_a_partition_that_is_not_open_is_told_from_one_that_does_not_exist() -> None:
    where = site(partition=PARTITION + URGENT.replace("State=UP", "State=DOWN"))
    with pytest.raises(UserError, match="'urgent' is not open to ada"):
        draft(where, "urgent")
    with pytest.raises(UserError, match="there is no partition 'gpu'") as refused:
        draft(where, "gpu")
    assert refused.value.hint == "open are: a100"
    with pytest.raises(UserError, match="no partition is open to ada"):
        draft(site(node=NODE2))


def test_a_file_is_never_written_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("alphagrid.cluster_profiles.draft.require", lambda: None)
    monkeypatch.chdir(tmp_path)
    assert init(None, None, cluster()) == Path("alphagrid.yaml")
    before = Path("alphagrid.yaml").read_text()
    with pytest.raises(UserError, match=r"alphagrid\.yaml exists"):
        init(None, "urgent", cluster())
    assert Path("alphagrid.yaml").read_text() == before
    with pytest.raises(SystemRefused, match="cannot be written"):
        init(tmp_path / "nowhere" / "x.yaml", None, cluster())
