"""Arrays: few calls of sbatch, and what the cluster does not take goes out with the next submit.

The arrays here are large, so they never run: their partition is down while they wait.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from alphagrid.slurm.scontrol import cancel
from alphagrid.store import submissions

from tests.slurm.conftest import Slurm

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("closed")]

COUNTING = 'echo "$@" >> {folder}/calls; exec {real} "$@"'


@pytest.fixture
def sbatch_calls(tmp_path: Path, instead_of: Callable[[str, str], None]) -> Callable[[], int]:
    """Return how often sbatch was called since the last time this was asked."""
    calls = tmp_path / "instead" / "calls"
    instead_of("sbatch", COUNTING)

    def count() -> int:
        found = len(calls.read_text().splitlines()) if calls.exists() else 0
        calls.unlink(missing_ok=True)
        return found

    return count


def grid(runs: int) -> dict[str, Any]:
    rates = [round(0.001 * (1 + index), 6) for index in range(runs // 10)]
    return {"grid": {"optimizer.lr": rates}, "seeds": list(range(10))}


def queued(slurm: Slurm) -> Counter[str]:
    """How many tasks each array in the queue has."""
    return Counter(slurm.run("squeue", "--noheader", "--array", "--format=%F").split())


def counts(lab: Any) -> Counter[str]:
    return Counter(run["state"] for run in lab.runs())


def test_a_grid_of_2500_runs_goes_out_in_three_calls(
    slurm: Slurm, experiment: Any, sbatch_calls: Callable[[], int]
) -> None:
    lab = experiment(100, **grid(2500), resources={"throttle": 7})
    assert "sent 2500 runs" in lab.submit()
    assert sbatch_calls() == 3
    assert sorted(queued(slurm).values()) == [498, 1001, 1001]
    shown = slurm.run("scontrol", "show", "job", next(iter(queued(slurm))))
    assert "ArrayTaskThrottle=7" in shown
    assert len(set(lab.jobs().values())) == 2500
    assert "sent 0 runs" in lab.submit()
    assert sbatch_calls() == 0
    cancel(list(lab.jobs().values())[1:])
    assert len(jobs_in_queue(slurm)) == 1


def test_an_array_larger_than_the_cluster_allows_is_cut(slurm: Slurm, experiment: Any) -> None:
    lab = experiment(100, **grid(1500), resources={"max_array": 1500})
    assert "sent 1500 runs" in lab.submit()
    assert sorted(queued(slurm).values()) == [750, 750]


LIMITS = {
    "QOSMaxSubmitJobPerUserLimit": ("qos", "narrow", "MaxSubmitJobsPerUser"),
    "QOSGrpSubmitJobsLimit": ("qos", "narrow", "GrpSubmitJobs"),
    "AssocMaxSubmitJobLimit": ("user", "root", "MaxSubmitJobs"),
}


@pytest.fixture
def narrow(slurm: Slurm) -> Iterator[None]:
    """A QOS that the user may take."""
    slurm.run("sacctmgr", "--immediate", "add", "qos", "narrow")
    slurm.run("sacctmgr", "--immediate", "modify", "user", "root", "set", "qos+=narrow")
    try:
        yield
        slurm.clear()
    finally:
        slurm.run("sacctmgr", "--immediate", "modify", "user", "root", "set", "qos-=narrow")
        slurm.run("sacctmgr", "--immediate", "delete", "qos", "narrow")


@pytest.mark.parametrize("reason", LIMITS)
def test_what_a_submit_limit_allows_is_sent_and_the_rest_with_the_next_submit(
    slurm: Slurm, experiment: Any, narrow: None, reason: str
) -> None:
    entity, name, limit = LIMITS[reason]
    modify = ("sacctmgr", "--immediate", "modify", entity, name, "set")
    slurm.run(*modify, f"{limit}=7")
    try:
        lab = experiment(100, **grid(20), resources={"qos": "narrow"})
        done = lab.call("submit", "spec.yaml")
        assert done.returncode == 3
        assert "sent 7 of 20 runs" in done.stderr
        assert f"submit limit ({reason}); submit again" in done.stderr
        assert counts(lab) == {"pending": 7, "interrupted": 13}
        (told,) = {run["reason"] for run in lab.runs() if run["state"] == "interrupted"}
        assert told == f"not sent yet: submit limit ({reason}); the next submit sends it"
        assert "sent 0 of 13 runs" in lab.call("submit", "spec.yaml").stderr
        assert len(submissions.read_all(lab.files)) == 1  # nothing new was to be said
        slurm.run(*modify, f"{limit}=9")
        assert "sent 2 of 13 runs" in lab.call("submit", "spec.yaml").stderr
        assert len(submissions.read_all(lab.files)[-1].runs) == 2
    finally:
        slurm.run(*modify, f"{limit}=-1")
    assert "sent 11 runs" in lab.submit()
    assert counts(lab) == {"pending": 20}
    assert sorted(lab.jobs().values()) == sorted(jobs_in_queue(slurm))


def test_a_full_job_table_does_not_keep_anybody_waiting(slurm: Slurm, experiment: Any) -> None:
    lab = experiment(100, **grid(20))
    with job_table(slurm) as resize:
        resize(50_000)
        known = len(slurm.run("squeue", "--states=all", "--array", "--noheader").splitlines())
        resize(known + 8)
        start = time.monotonic()
        done = lab.call("submit", "spec.yaml")
        assert time.monotonic() - start < 90  # sbatch alone would go on for two minutes
        assert done.returncode == 3
        assert "temporarily unable to accept job" in done.stderr
        sent = counts(lab)["pending"]
        assert 0 < sent < 20
        resize(50_000)
        assert f"sent {20 - sent} runs" in lab.submit()
        assert counts(lab) == {"pending": 20}


def test_what_sbatch_objects_to_is_said_once(experiment: Any) -> None:
    lab = experiment(100, resources={"partition": "nowhere"})
    done = lab.call("submit", "spec.yaml")
    assert done.returncode == 3
    assert done.stderr.count("invalid partition specified") == 1
    (run,) = lab.runs()
    assert (run["state"], "invalid partition" in run["reason"]) == ("interrupted", True)


def jobs_in_queue(slurm: Slurm) -> list[str]:
    lines = slurm.run("squeue", "--noheader", "--array", "--format=%F|%K").split()
    return [line.replace("|N/A", "").replace("|", "_") for line in lines]


@contextmanager
def job_table(slurm: Slurm) -> Iterator[Callable[[int], None]]:
    """Give a function that changes MaxJobCount; the partition stays down, and no job is forgotten."""
    path = slurm.state / "slurm.conf"
    original = path.read_text()
    closed = original.replace("PartitionName=a100 ", "PartitionName=a100 State=DOWN ")
    closed = re.sub(r"(PartitionName=a100 .*) State=UP", r"\1", closed) + "MinJobAge=86400\n"

    def resize(count: int) -> None:
        path.write_text(closed.replace("MaxJobCount=50000", f"MaxJobCount={count}"))
        slurm.run("scontrol", "reconfigure")

    try:
        yield resize
        slurm.clear()
    finally:
        path.write_text(original)
        slurm.run("scontrol", "reconfigure")
