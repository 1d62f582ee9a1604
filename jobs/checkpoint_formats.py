"""Check that this version can read the checkpoints that runs would resume from."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import Any

from ..errors import UserError
from ..store.layout import ExperimentFiles, RunFiles
from ..store.submissions import RunEntry
from ..trainer.checkpoint_file import (
    FORMAT,
    CheckpointDamaged,
    CheckpointFile,
    available,
    candidates,
    check_content,
    format_of,
    other_format,
)
from .runs import attempts

MOST_NAMED = 3


def check_formats(files: ExperimentFiles, entries: Iterable[RunEntry]) -> None:
    """Refuse runs that would resume from a checkpoint whose format this version does not read.

    A job would fail on it, and a completed run would then count as failed.

    Raises:
        UserError: the message names the runs, their checkpoints, and the remedies.
    """
    refused = []
    for entry in entries:
        checkpoint = None if entry.fresh else _unreadable_checkpoint(files.run(entry.id))
        if checkpoint is not None:
            refused.append((entry.name, *checkpoint))
    if not refused:
        return
    problems = [
        f"run {name}: {file.path} {other_format(version)}" for name, file, version in refused[:MOST_NAMED]
    ]
    if len(refused) > MOST_NAMED:
        problems.append(f"and {len(refused) - MOST_NAMED} more runs")
    names = [name for name, _, _ in refused] if len(refused) <= MOST_NAMED else ["RUN"]
    command = shlex.join(["alphagrid", "retry", files.name, *names, "--fresh"])
    raise UserError(
        "; ".join(problems),
        "leave the runs as they are (without a larger `stop`), submit them with the alphagrid that wrote the"
        f" checkpoints, or train them from the start: `{command}`",
    )


def _unreadable_checkpoint(run: RunFiles) -> tuple[CheckpointFile, Any] | None:
    """Return the checkpoint that a run would resume from, and its format, unless this version reads it."""
    if not available(run):
        return None
    earlier = attempts.read(run)
    for file in candidates(run, attempts.ignored_until(earlier), attempts.limits(earlier)):
        try:
            version = format_of(file)
            if version == FORMAT:
                return None
            with file.path.open("rb") as stream:
                check_content(stream, file.checksum)
        except (CheckpointDamaged, OSError):  # a job uses the one before
            continue
        return file, version
    return None
