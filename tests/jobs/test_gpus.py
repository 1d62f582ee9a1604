"""Which runs were promised a GPU, and what becomes of them where torch sees none."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from alphagrid.errors import UserError
from alphagrid.jobs.worker import gpus

SLURM: dict[str, Any] = {"cluster": "slurm", "gres": None, "sbatch": {}, "exclude": None, "requeue": True}
ASKING: list[dict[str, Any]] = [
    {"gres": "gpu:a100:1"},
    {"gres": "bandwidth:4G,shard:2"},
    {"sbatch": {"gpus": 2}},
    {"sbatch": {"gpus_per_node": "a100:1"}},
    {"sbatch": {"tres-per-task": "gres/gpu:1"}},
]
NOT_ASKING: list[dict[str, Any]] = [
    {},
    {"gres": "gpu:0"},
    {"gres": "bandwidth:lustre:4G"},
    {"sbatch": {"gpus": 0, "constraint": "gpu"}},
    {"gres": "gpu:1", "cluster": "debug"},
]
NODES = """\
NodeName=gpu1 State=IDLE Gres=gpu:a100:4 Partitions=a100,all
NodeName=gpu2 State=MIXED Gres=gpu:a100:4(S:0-1) Partitions=a100,all
NodeName=gpu3 State=DOWN+DRAIN Gres=gpu:a100:4 Partitions=a100
NodeName=gpu4 State=IDLE Gres=gpu:v100:4 Partitions=a100
NodeName=gpu5 State=IDLE Gres=gpu:a100:4 Partitions=other
NodeName=cpu1 State=IDLE Gres=(null) Partitions=a100,all
"""


@pytest.fixture
def with_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """A torch that was built with CUDA, on a machine that shows it no device."""
    monkeypatch.setattr(torch.version, "cuda", "12.4")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", None, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize("keys", ASKING)
@pytest.mark.usefixtures("with_cuda")
def test_a_node_without_the_gpu_that_was_asked_for_is_named(
    keys: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURMD_NODENAME", "gpu07")
    for device in ("auto", "cuda"):
        with pytest.raises(gpus.NoGpu, match="gpu07 shows no GPU") as left:
            gpus.check(device, {**SLURM, **keys})
        assert left.value.node == "gpu07"
    gpus.check("cpu", {**SLURM, **keys})


@pytest.mark.parametrize("keys", NOT_ASKING)
@pytest.mark.usefixtures("with_cuda")
def test_who_asked_for_no_gpu_trains_on_the_cpu_unless_the_config_says_cuda(keys: dict[str, Any]) -> None:
    gpus.check("auto", {**SLURM, **keys})
    with pytest.raises(UserError, match="`device: cuda`, and torch sees no GPU"):
        gpus.check("cuda", {**SLURM, **keys})


@pytest.mark.usefixtures("without_cuda")
def test_a_torch_without_cuda_is_the_run_s_own_error_where_a_gpu_is_needed() -> None:
    with pytest.raises(UserError, match=r"the profile asks for a GPU, and torch .* without CUDA") as refused:
        gpus.check("auto", {**SLURM, "gres": "gpu:1"})
    assert "pytorch.org" in str(refused.value.hint)
    with pytest.raises(UserError, match=r"`device: cuda`, and torch .* was built without CUDA"):
        gpus.check("cuda", {"cluster": "local"})
    gpus.check("auto", SLURM)
    gpus.check("auto", {"cluster": "local"})


@pytest.mark.usefixtures("with_cuda")
def test_a_local_run_does_not_train_on_the_cpu_where_its_slot_has_a_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with pytest.raises(UserError, match="torch does not see GPU 3 of"):
        gpus.check("auto", {"cluster": "local"})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    gpus.check("auto", {"cluster": "local"})


@pytest.mark.parametrize(
    ("tried", "changes", "why"),
    [
        (["gpu1"], {}, None),
        (["gpu1", "gpu1", "gpu1"], {}, "3 nodes are tried at most"),
        (["gpu1"], {"requeue": False}, "the profile says `requeue: false`"),
        (["gpu1"], {"exclude": "gpu[2-3]"}, "the partition 'a100' has no other node with GPUs"),
        (["gpu1", "gpu2"], {}, "the partition 'a100' has no other node with GPUs"),
    ],
)
def test_a_job_is_sent_to_another_node_while_there_is_one(
    tried: list[str],
    changes: dict[str, Any],
    why: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "scontrol").write_text(f"#!/bin/sh\ncat <<'EOF'\n{NODES}EOF\n")
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_PARTITION", "a100")
    assert gpus.why_not_elsewhere({**SLURM, "gres": "gpu:a100:1", **changes}, tried) == why
