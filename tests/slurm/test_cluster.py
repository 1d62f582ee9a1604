"""What the other tests rely on: the cluster is a real one, is one, and leaves nothing behind."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.waiting import until

pytestmark = pytest.mark.slurm

DAEMONS = ("munged", "mariadbd", "slurmdbd", "slurmctld", "slurmd-node1")
CLUSTER = Path(__file__).with_name("cluster")


def start(verb: str, state: Path, *options: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, CLUSTER, verb, "--state", state, *options])


def processes(state: Path) -> set[int]:
    """Living processes that were started with the state folder in their environment."""
    found = set()
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            if os.fsencode(state) in environment.read_bytes():
                found.add(int(environment.parent.name))
        except OSError:
            continue  # it has ended
    return found


def gone(state: Path) -> bool:
    return not processes(state) and not state.exists() and not state.with_name(state.name + ".lock").exists()


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """A folder for a cluster of the test's own, which is down in the end."""
    yield tmp_path / "own"
    assert start("down", tmp_path / "own").wait() == 0


def test_a_job_that_asks_for_one_gpu_sees_exactly_one(slurm: Any, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    slurm.run(
        "sbatch", "--wait", "--gres=gpu:a100:1", f"--output={seen}", "--wrap", "echo $CUDA_VISIBLE_DEVICES"
    )
    assert seen.read_text().strip() in {"0", "1", "2", "3"}


def test_sacct_knows_how_a_job_ended(slurm: Any) -> None:
    job = slurm.run(
        "sbatch", "--parsable", "--gres=gpu:a100:1", "--output=/dev/null", "--wrap", "exit 3"
    ).strip()
    sacct = ("sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={job}", "--format")
    until(lambda: slurm.run(*sacct, "state,exitcode").strip() == "FAILED|3:0")
    assert "gres/gpu=1" in slurm.run(*sacct, "alloctres")


def test_submitit_submits_a_held_array_with_a_comment_and_it_runs_once_released(
    slurm: Any, tmp_path: Path
) -> None:
    import submitit

    executor = submitit.SlurmExecutor(folder=tmp_path)
    executor.update_parameters(
        partition="a100",
        gres="gpu:a100:1",
        time=5,
        wckey=None,
        additional_parameters={"hold": True, "comment": "alphagrid:some-id"},
    )
    with submitit.helpers.clean_env():
        os.environ.update(slurm.variables)  # clean_env takes SLURM_CONF away, too
        jobs = executor.map_array(os.getenv, ["CUDA_VISIBLE_DEVICES"] * 3)
    array = jobs[0].job_id.split("_")[0]
    queue = slurm.run(
        "squeue", "--noheader", "--array", f"--jobs={array}", "--format=%F_%K %r %k"
    ).splitlines()
    assert sorted(queue) == [f"{array}_{task} JobHeldUser alphagrid:some-id" for task in range(3)]

    slurm.run("scontrol", "release", array)
    assert {job.result() for job in jobs} <= {"0", "1", "2", "3"}


def test_a_second_up_changes_nothing(slurm: Any) -> None:
    before = {daemon: slurm.pid(daemon) for daemon in DAEMONS}
    slurm.up()
    assert {daemon: slurm.pid(daemon) for daemon in DAEMONS} == before


def test_up_starts_the_daemon_that_died_and_the_jobs_go_on(slurm: Any) -> None:
    job = slurm.run("sbatch", "--parsable", "--output=/dev/null", "--wrap", "sleep 300").strip()
    show = ("squeue", "--noheader", f"--jobs={job}", "--format=%T")
    until(lambda: slurm.run(*show).strip() == "RUNNING")
    slurm.wait_until_saved(job)
    before = {daemon: slurm.pid(daemon) for daemon in DAEMONS}
    slurm.kill("slurmctld")
    slurm.up()
    assert slurm.run(*show).strip() == "RUNNING"
    assert [daemon for daemon in DAEMONS if slurm.pid(daemon) != before[daemon]] == ["slurmctld"]
    slurm.run("scancel", job)


def test_two_ups_at_once_are_one(state: Path) -> None:
    ups = [start("up", state, "--no-accounting") for _ in range(2)]
    assert [up.wait() for up in ups] == [0, 0]
    assert len(list(state.glob("*.pid"))) == 3
    assert sum(b"slurmd\0-D" in command_line(pid) for pid in processes(state)) == 1


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_down_leaves_no_process_and_no_file_even_with_a_job_running(state: Path, tmp_path: Path) -> None:
    assert start("up", state, "--no-accounting").wait() == 0
    environment = {**os.environ, "SLURM_CONF": str(state / "slurm.conf")}
    started = tmp_path / "started"
    job = f"trap '' TERM; touch {started}; setsid sleep 300 & wait"
    subprocess.run(["sbatch", "--output=/dev/null", "--wrap", job], env=environment, check=True)
    until(started.exists)
    assert start("down", state).wait() == 0
    assert gone(state)


@pytest.mark.parametrize("seconds", [0.2, 1.0, 1.8])
def test_up_succeeds_after_an_up_was_killed(state: Path, seconds: float) -> None:
    killed = start("up", state)
    time.sleep(seconds)
    killed.kill()
    killed.wait()
    assert start("up", state).wait() == 0
    assert start("status", state).wait() == 0
    assert start("down", state).wait() == 0
    assert gone(state)


@pytest.mark.parametrize("verb", ["up", "down"])
def test_what_an_up_leaves_that_is_killed_over_its_first_file_is_cleared_away(state: Path, verb: str) -> None:
    state.mkdir()
    (state / "cluster.json.new").touch()
    assert start(verb, state, *(["--no-accounting"] if verb == "up" else [])).wait() == 0
    assert start("down", state).wait() == 0
    assert gone(state)


def test_a_cluster_goes_down_when_its_owner_is_killed(state: Path) -> None:
    owner = subprocess.Popen(["sleep", "300"])
    assert start("up", state, "--no-accounting", "--owner", str(owner.pid)).wait() == 0
    owner.kill()
    owner.wait()
    until(lambda: gone(state))


def test_without_accounting_jobs_run_and_sacct_fails(slurm_with: Any) -> None:
    slurm = slurm_with("--no-accounting")
    slurm.run("sbatch", "--wait", "--output=/dev/null", "--wrap", "true")
    with pytest.raises(subprocess.CalledProcessError):
        slurm.run("sacct")


@pytest.mark.parametrize("verb", ["up", "down"])
def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path, verb: str) -> None:
    (tmp_path / "thesis.tex").touch()
    assert start(verb, tmp_path).wait() == 1
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    assert not tmp_path.with_name(tmp_path.name + ".lock").exists()
