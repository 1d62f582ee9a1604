"""What can be told of a checkpoint without torch, and without running anything in it."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from alphagrid.trainer.checkpoint_file import CheckpointDamaged, CheckpointFile, format_of


def saved(folder: Path, state: Any) -> CheckpointFile:
    path = folder / "new"
    torch.save(state, path)
    named = folder / f"checkpoint-0000000001-0001-{zlib.crc32(path.read_bytes()):08x}.pt"
    return CheckpointFile.from_path(path.rename(named))


class Hostile:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


def test_the_format_is_read_whatever_else_is_there(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.BatchNorm1d(1))
    state = {"format": 7, "model": model.state_dict(), "whole": model, "set": {1}, "path": Path("a")}
    assert format_of(saved(tmp_path, state)) == 7
    assert format_of(saved(tmp_path, {"model": {}})) is None


def test_nothing_in_it_is_run(tmp_path: Path) -> None:
    target = tmp_path / "made"
    assert format_of(saved(tmp_path, {"format": 3, "trap": Hostile(target)})) == 3
    assert not target.exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no archive at all"])
def test_what_is_no_checkpoint_is_damaged(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "checkpoint-0000000001-0001-00000000.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointDamaged):
        format_of(CheckpointFile.from_path(path))


@pytest.mark.parametrize("state", [[1, 2], torch.zeros(1), None])
def test_what_is_no_state_is_damaged(tmp_path: Path, state: Any) -> None:
    with pytest.raises(CheckpointDamaged):
        format_of(saved(tmp_path, state))
