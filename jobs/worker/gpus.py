"""Check that torch sees the GPU that a run's profile asks for; otherwise the run must not train on the CPU.

A node may have lost its GPU (a driver that failed, a device that fell off the bus). Every job that lands
there would train at a fraction of the speed, and its measured times would be wrong. So the job goes back
into the queue without that node, up to `MAX_NODES` nodes. A torch that was built without CUDA sees no GPU
anywhere: that is the run's own error.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import SystemRefused, UserError
from ...slurm import nodes, notation
from ...slurm.cluster import Node
from ...slurm.notation import Devices
from ..schedulers import SCHEDULERS

MAX_NODES = 3
"""Maximum number of nodes without a visible GPU before the run fails."""
DEVICE_NAMES = ("gpu", "shard", "mps")
COUNT_OPTIONS = ("gpus", "gpus-per-node", "gpus-per-task", "gpus-per-socket")
DEVICE_OPTIONS = ("gres", "tres-per-job", "tres-per-node", "tres-per-task", "tres-per-socket")
INSTALL = "install a torch with CUDA (https://pytorch.org/get-started/locally), or write `device: cpu`"
ON_THE_CPU = "write `device: cpu` if the run is to train on the CPU"


class NoGpu(Exception):
    """The job asked for a GPU, and its node shows none to a torch that could use one."""

    def __init__(self, node: str, why: str) -> None:
        super().__init__(f"{node} shows no GPU ({why})")
        self.node = node


def check(device: str, profile: Mapping[str, Any]) -> None:
    """Refuse to train on the CPU if the run's profile or config asks for a GPU.

    Raises:
        NoGpu: this Slurm node shows no GPU; another node may.
        UserError: torch was built without CUDA, `device: cuda` has no GPU, or this machine's GPU is broken.
    """
    if device == "cpu" or (why := missing()) is None:
        return
    asks_for_gpu, node = is_asked_for(profile), _node_name()
    if not _is_built_for_gpus():
        if asks_for_gpu or device == "cuda":
            import torch

            promise = "the profile asks for a GPU" if asks_for_gpu else "the config says `device: cuda`"
            raise UserError(f"{promise}, and torch {torch.__version__} was built without CUDA", INSTALL)
    elif asks_for_gpu:
        raise NoGpu(node, why)
    elif SCHEDULERS[profile["cluster"]].assigns_gpus and os.environ.get("CUDA_VISIBLE_DEVICES"):
        number = os.environ["CUDA_VISIBLE_DEVICES"]
        raise UserError(
            f"torch does not see GPU {number} of {node} ({why})",
            f"check it with nvidia-smi on {node}; or {ON_THE_CPU}",
        )
    elif device == "cuda":
        raise UserError(
            f"the config says `device: cuda`, and torch sees no GPU on {node} ({why})", ON_THE_CPU
        )


def missing() -> str | None:
    """Return why torch sees no GPU on this machine; None if it sees one."""
    import torch

    if torch.cuda.is_available():
        return None
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        return str(error).strip().split("\n")[0]
    return "torch.cuda.is_available() is false"


def is_asked_for(profile: Mapping[str, Any]) -> bool:
    """Return whether a Slurm profile, as a submission records it, asks for a GPU or a share of one."""
    return SCHEDULERS[profile["cluster"]].grants_gpus and bool(_requested_devices(profile))


def _requested_devices(profile: Mapping[str, Any]) -> list[Devices]:
    options = {key.replace("_", "-"): str(value) for key, value in (profile.get("sbatch") or {}).items()}
    texts = [profile.get("gres"), *(options.get(key) for key in DEVICE_OPTIONS)]
    texts += [f"gpu:{options[key]}" for key in COUNT_OPTIONS if key in options]
    devices = [device for text in texts for device in notation.devices(text and text.replace("gres/", ""))]
    return [device for device in devices if device.name in DEVICE_NAMES and device.count > 0]


def why_not_elsewhere(profile: Mapping[str, Any], tried: Sequence[str]) -> str | None:
    """Return why a job without a GPU on the nodes `tried` cannot move to another node; None if it can."""
    if len(tried) >= MAX_NODES:
        return f"{MAX_NODES} nodes are tried at most"
    if not profile["requeue"]:
        return "the profile says `requeue: false`"
    partition = os.environ.get("SLURM_JOB_PARTITION")
    if partition and not _has_other_nodes(partition, profile, tried):
        return f"the partition '{partition}' has no other node with GPUs"
    return None


def failure_reason(tried: Sequence[str], why: str, experiment: str, run: str) -> str:
    """Return the reason of a run that failed because the nodes `tried` showed no GPU, with a command."""
    names = list(dict.fromkeys(tried))
    command = f"alphagrid retry {experiment} {run} --exclude-node {','.join(names)}"
    return f"no GPU on {', '.join(names)}: {why} (tell your site's administrators; then `{command}`)"


def _has_other_nodes(partition: str, profile: Mapping[str, Any], tried: Sequence[str]) -> bool:
    """Return whether a partition has another usable node with such GPUs; True if Slurm does not answer."""
    try:
        listed = [Node.read(record) for record in nodes.records()]
    except SystemRefused:
        return True
    excluded = {*tried, *notation.hosts(profile.get("exclude"))}
    return any(
        partition in node.partitions
        and node.usable
        and node.name not in excluded
        and all(node.count(device) >= device.count for device in _requested_devices(profile))
        for node in listed
    )


def _is_built_for_gpus() -> bool:
    import torch

    return (torch.version.cuda or getattr(torch.version, "hip", None)) is not None


def _node_name() -> str:
    """Return this node's name; in a Slurm job, Slurm's name for it."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()
