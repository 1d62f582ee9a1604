"""A node that shows no GPU to a run that asked for one: the run does not train on its CPU."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from alphagrid.slurm import notation

from tests.slurm.paused import event

if TYPE_CHECKING:
    from tests.slurm.conftest import Experiment, Slurm

pytestmark = pytest.mark.slurm

Make = Callable[..., "Experiment"]
CLUSTER = ("--nodes", "4", "--gpus", "1", "--requeue-wait", "5", "--no-accounting")
TASKS = """
import os
import torch
from alphagrid.jobs.worker import gpus
from alphagrid.trainer.workloads.least_squares import LeastSquares

BROKEN = "NODES".split()

if os.environ.get("SLURMD_NODENAME") in BROKEN:  # what a torch with CUDA says where there is no device
    torch.version.cuda = "12.4"
else:  # a stand-in for a GPU, of which this torch knows nothing
    gpus.missing = lambda: None


class Plain(LeastSquares):
    pass
"""
BASE = {"workload": {"name": "tasks:Plain", "batch_size": 16}, "device": "auto"}
OF_THE_CPU = TASKS.replace("gpus.missing = lambda: None", "torch.version.cuda = torch.version.hip = None")


@pytest.fixture
def several_nodes(slurm_with: Callable[..., Slurm], monkeypatch: pytest.MonkeyPatch) -> Iterator[Slurm]:
    """A cluster of four nodes with a GPU each, which commands find instead of the usual one."""
    slurm = slurm_with(*CLUSTER)
    slurm.use(monkeypatch)
    yield slurm
    slurm.clear()


def only(lab: Experiment) -> dict[str, Any]:
    (run,) = lab.runs()
    return run


def test_a_run_leaves_a_node_without_gpu_for_another_and_keeps_off_what_it_kept_off(
    several_nodes: Slurm, experiment: Make
) -> None:
    """Array tasks and all; how many broken nodes a run meets is Slurm's choice, the first meets one."""
    tasks = TASKS.replace("NODES", "node1 node2", 1)
    grid = {"optimizer.lr": [0.01, 0.02]}
    lab = experiment(20, tasks, base=BASE, grid=grid, resources={"exclude": "node3"})
    lab.submit()
    lab.wait_for("completed")
    left = {run["id"]: nodes_left(lab, run) for run in lab.runs()}
    assert any(left.values())
    for run_id, nodes in left.items():
        assert set(nodes) <= {"node1", "node2"}
        assert len(nodes) == len(set(nodes))
        shown = several_nodes.run("scontrol", "show", "job", lab.jobs()[run_id])
        (excluded,) = re.findall(r"ExcNodeList=(\S+)", shown)
        assert notation.hosts(excluded) == {"node3", *nodes}


def nodes_left(lab: Experiment, run: dict[str, Any]) -> list[str]:
    """The nodes, one an attempt, that all of a run's attempts but the last found without a GPU."""
    events = [event(lab.records(number, run["id"]), "interrupted") for number in range(1, run["attempts"])]
    assert {record["cause"] for record in events} <= {"no gpu"}
    return [record["node"] for record in events]


def test_after_three_nodes_without_gpu_the_run_has_failed_with_their_names(
    several_nodes: Slurm, experiment: Make
) -> None:
    lab = experiment(20, TASKS.replace("NODES", "node1 node2 node3 node4", 1), base=BASE)
    lab.submit()
    lab.wait_for("failed")
    run = only(lab)
    assert run["attempts"] == 3
    assert run["step"] == 0
    assert "no GPU on node1, node2, node3: node3 shows no GPU" in run["reason"]
    assert f"alphagrid retry cluster {run['id']} --exclude-node node1,node2,node3" in run["reason"]


def test_a_run_whose_job_is_not_requeued_fails_on_the_first_node_without_gpu(
    several_nodes: Slurm, experiment: Make
) -> None:
    """Because the profile says so; and because no other node has a GPU."""
    tasks = TASKS.replace("NODES", "node1", 1)
    lab = experiment(20, tasks, base=BASE, resources={"requeue": False})
    lab.submit()
    lab.wait_for("failed")
    assert "`requeue: false`" in only(lab)["reason"]
    lab = experiment(20, tasks, base=BASE, resources={"exclude": "node[2-4]"}, name="alone")
    lab.submit()
    lab.wait_for("failed")
    assert "the partition 'a100' has no other node with GPUs" in only(lab)["reason"]
    assert only(lab)["attempts"] == 1


def test_a_torch_without_cuda_fails_at_once_where_a_gpu_was_asked_for(experiment: Make) -> None:
    """Also where options of sbatch ask for it; where nothing does, it trains on the CPU."""
    sbatch = {"gres": None, "sbatch": {"gpus-per-node": "a100:1"}}
    for name, resources in {"gres": {}, "option": sbatch}.items():
        lab = experiment(20, OF_THE_CPU, base=BASE, resources=resources, name=name)
        lab.submit()
        lab.wait_for("failed")
        assert "was built without CUDA" in only(lab)["reason"]
        assert "pytorch.org" in only(lab)["reason"]
        assert only(lab)["attempts"] == 1
    lab = experiment(20, OF_THE_CPU, base=BASE, resources={"gres": None}, name="nothing")
    lab.submit()
    lab.wait_for("completed")
