"""`alphagrid profiles check` and `profiles init` on a real Slurm."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.waiting import SECONDS, until

pytestmark = pytest.mark.slurm

ALPHAGRID = str(Path(sys.executable).with_name("alphagrid"))
SPEC = """
experiment: measured
base:
  workload: {name: least_squares, batch_size: 16}
  optimizer: {name: nadamw, lr: 0.01}
  stop: {steps: 20}
  device: cpu
profile: debug
"""

Site = Callable[..., Path]


def call(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ALPHAGRID, *arguments], capture_output=True, text=True, timeout=SECONDS, cwd=folder, check=False
    )


def checked(folder: Path, name: str, code: int) -> dict[str, dict[str, str]]:
    """The findings by what was checked; of a cluster without surprises there is one for each."""
    done = call(folder, "profiles", "check", name, "--json")
    assert done.returncode == code, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["wrong"] is (code == 1)
    return {line["check"]: line for line in told["findings"]}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Write a profile: slurm-a100 with other keys."""

    def write(**keys: object) -> Path:
        path = tmp_path / "site.yaml"
        path.write_text(json.dumps({"extends": "slurm-a100", **keys}))
        return path

    return write


def test_the_shipped_a100_profile_fits_the_cluster(slurm: Any, tmp_path: Path) -> None:
    queue = ("squeue", "--noheader", "--format=%i")
    before = set(slurm.run(*queue).split())
    found = checked(tmp_path, "slurm-a100", 0)
    assert {line["verdict"] for line in found.values()} == {"ok", "cannot tell"}
    assert found["preemption"]["said"] == "requeued by urgent"
    assert found["grace"]["said"] == "a preempted run has 10 s for its checkpoint"
    assert found["checkpoint"]["verdict"] == "cannot tell"
    assert list(tmp_path.iterdir()) == []  # looking made nothing
    assert set(slurm.run(*queue).split()) <= before  # and sent nothing


def test_the_verdicts_are_a_plain_line_each(slurm: Any, tmp_path: Path) -> None:
    done = call(tmp_path, "profiles", "check", "slurm-cpu")
    assert done.returncode == 0
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["CPUs", "ok", "4", "of", "a", "node's", "16"] in lines


@pytest.mark.parametrize(
    ("check", "keys"),
    [
        ("partition", {"partition": "a100-galvani"}),
        ("account", {"account": "nobodys"}),
        ("QOS", {"qos": "nobodys"}),
        ("GRES", {"gres": "gpu:h100:1"}),
        ("GRES", {"gres": "gpu:A100:1"}),
        ("GRES", {"gres": "gpu:a100:5"}),
        ("GRES", {"gres": "shard:1"}),
        ("CPUs", {"cpus": 17}),
        ("memory", {"memory": "501G"}),
        ("node", {"constraint": "nvme"}),
        ("node", {"exclude": "node1"}),
    ],
)
def test_where_the_check_says_wrong_sbatch_refuses(
    slurm: Any, site: Site, tmp_path: Path, check: str, keys: dict[str, object]
) -> None:
    found = checked(tmp_path, str(site(**keys)), 1)
    assert (found[check]["verdict"], found["sbatch"]["verdict"]) == ("wrong", "wrong"), found


def test_an_array_one_longer_than_the_cluster_takes_is_wrong(slurm: Any, site: Site, tmp_path: Path) -> None:
    assert checked(tmp_path, str(site(max_array=1001)), 0)["array size"]["verdict"] == "ok"
    slurm.run("sbatch", "--test-only", "--array=0-1000", "--wrap=true")
    assert checked(tmp_path, str(site(max_array=1002)), 1)["array size"]["verdict"] == "wrong"
    with pytest.raises(subprocess.CalledProcessError):
        slurm.run("sbatch", "--test-only", "--array=0-1001", "--wrap=true")


@contextmanager
def changed(slurm: Any, change: list[str], back: list[str]) -> Iterator[None]:
    slurm.run("scontrol", "update", *change)
    try:
        yield
    finally:
        slurm.run("scontrol", "update", *back)


def test_what_sbatch_accepts_and_never_starts_is_wrong_all_the_same(
    slurm: Any, site: Site, tmp_path: Path
) -> None:
    part = "partitionname=a100"
    with changed(slurm, [part, "maxtime=3-00:00:00"], [part, "maxtime=unlimited"]):
        found = checked(tmp_path, str(site(hours=73)), 1)
        assert (found["time limit"]["verdict"], found["sbatch"]["verdict"]) == ("wrong", "ok")
        assert found["time limit"]["advice"] == "hours: 72"
        assert checked(tmp_path, str(site(hours=72)), 0)["time limit"]["verdict"] == "ok"
    with changed(slurm, [part, "state=down"], [part, "state=up"]):
        assert "DOWN" in checked(tmp_path, str(site()), 1)["partition"]["said"]
    with changed(slurm, [part, "allowaccounts=others"], [part, "allowaccounts=all"]):
        assert checked(tmp_path, str(site()), 1)["account"]["verdict"] == "wrong"


def test_a_drained_node_is_a_warning(slurm: Any, site: Site, tmp_path: Path) -> None:
    drain = ["nodename=node1", "state=drain", "reason=bad fan State=odd"]
    with changed(slurm, drain, ["nodename=node1", "state=resume"]):
        found = checked(tmp_path, str(site()), 0)
        assert "node1" in found["GRES"]["said"]
        verdicts = {name: found[name]["verdict"] for name in ("GRES", "node", "sbatch")}
        assert set(verdicts.values()) == {"warning"}, verdicts
        refused = call(tmp_path, "profiles", "init")
        assert (refused.returncode, "no partition is open" in refused.stderr) == (2, True)


def test_the_limits_of_account_and_qos_are_read(slurm: Any, site: Site, tmp_path: Path) -> None:
    def manage(*words: str) -> str:
        return str(slurm.run("sacctmgr", "--immediate", *words))

    with ExitStack() as afterwards:
        manage("add", "qos", "brief", "set", "MaxWall=01:30:00", "MaxSubmitJobsPerUser=500")
        afterwards.callback(manage, "delete", "qos", "brief")
        manage("modify", "user", "root", "set", "qos+=brief")
        afterwards.callback(manage, "modify", "user", "root", "set", "qos-=brief")
        found = checked(tmp_path, str(site(qos="brief")), 1)
        assert found["QOS"]["verdict"] == "ok"
        assert found["time limit"]["said"] == "24 h, but QOS 'brief' allows 1.5 h"
        assert "500 jobs" in found["submit limit"]["said"]
        job = slurm.run("sbatch", "--parsable", "--qos=brief", "--time=1440", "--wrap=true").strip()
        afterwards.callback(slurm.run, "scancel", job)
        waits = ("squeue", "--noheader", f"--jobs={job}", "--format=%r")
        until(lambda: slurm.run(*waits).strip() != "None", "Slurm has looked at it")
        assert slurm.run(*waits).strip() == "QOSMaxWallDurationPerJobLimit"
        assert checked(tmp_path, str(site(qos="brief", hours=1.5)), 0)["time limit"]["verdict"] == "ok"


def test_a_checkpoint_that_a_run_has_written_is_held_against_the_grace(slurm: Any, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(SPEC)
    done = call(tmp_path, "submit", "spec.yaml", "--root", "elsewhere")
    assert done.returncode == 0, done.stderr
    done = call(tmp_path, "profiles", "check", "slurm-a100", "--root", "elsewhere", "--json")
    lines = [line for line in json.loads(done.stdout)["findings"] if line["check"] == "checkpoint"]
    assert [line["verdict"] for line in lines] == ["ok", "ok"]
    assert "of 10 s of notice" in lines[0]["said"]
    assert "measured" in lines[0]["said"]


def test_what_init_writes_passes_the_check(slurm: Any, tmp_path: Path) -> None:
    done = call(tmp_path, "profiles", "init")
    assert (done.returncode, "wrote alphagrid.yaml" in done.stderr) == (0, True)
    text = (tmp_path / "alphagrid.yaml").read_text()
    assert "partition: a100 " in text
    assert "# partition: urgent " in text
    found = checked(tmp_path, "./alphagrid.yaml", 0)
    assert {line["verdict"] for line in found.values()} == {"ok", "cannot tell"}

    again = call(tmp_path, "profiles", "init", "--partition", "urgent")
    assert (again.returncode, "alphagrid.yaml exists" in again.stderr) == (2, True)
    assert (tmp_path / "alphagrid.yaml").read_text() == text
    assert call(tmp_path, "profiles", "init", "--partition", "urgent", "other.yaml").returncode == 0
    assert "nothing preempts" in checked(tmp_path, "other.yaml", 0)["preemption"]["said"]
    assert call(tmp_path, "profiles", "init", "--partition", "gpu", "gpu.yaml").returncode == 2
    assert not (tmp_path / "gpu.yaml").exists()


def test_a_run_goes_through_with_the_profile_that_init_wrote(slurm: Any, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(SPEC)
    assert call(tmp_path, "profiles", "init", "ours.yaml").returncode == 0
    done = call(tmp_path, "submit", "spec.yaml", "--profile", "ours.yaml", "--wait")
    assert done.returncode == 0, done.stderr
    job = json.loads(call(tmp_path, "status", "measured", "--json").stdout)["runs"][0]["job"]["job_id"]
    shown = slurm.run("scontrol", "--oneliner", "show", "job", job)
    assert "NumCPUs=4 " in shown
    assert "gres/gpu=1" in shown


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--preempt-mode", "CANCEL", "--grace", "0"), "cancelled by urgent"),
        (("--preempt-mode", "SUSPEND"), "suspended by urgent"),
    ],
)
def test_other_clusters_are_understood_without_accounting_too(
    slurm_with: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    other = slurm_with("--no-accounting", *options)
    other.use(monkeypatch)
    found = checked(tmp_path, "slurm-a100", 0)
    assert said in found["preemption"]["said"]
    assert (found["preemption"]["verdict"], found["accounting"]["verdict"]) == ("warning", "warning")
    assert (found["account"]["verdict"], found["QOS"]["verdict"]) == ("ok", "ok")
    assert ("grace" in found) is (said == "cancelled by urgent")
    assert call(tmp_path, "profiles", "init", "ours.yaml").returncode == 0
    checked(tmp_path, "ours.yaml", 0)


def test_where_there_is_no_slurm_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for command in (["check", "slurm-a100"], ["init"]):
        done = call(tmp_path, "profiles", *command)
        assert (done.returncode, "no Slurm" in done.stderr) == (2, True)
