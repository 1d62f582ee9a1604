"""alphagrid's command, which halts in the middle of a submission: `halting.py POINT FOLDER ARGUMENTS...`.

POINT: `read` (it knows what it will send), `written` (its submission is on the disk), `sent` (its jobs are in
the queue, held) or `recorded` (the jobs are on the disk). It says so by the file `POINT` in FOLDER, and goes
on when there is the file `go`.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from alphagrid.cli import app
from alphagrid.jobs.schedulers import slurm, slurm_arrays, slurm_duplicates
from alphagrid.slurm import scontrol

SECONDS_TO_APPEAR = 10.0
"""Twice as long as the mounts are late."""
OWNERS: dict[str, tuple[Any, str]] = {
    "read": (slurm.SlurmScheduler, "submit"),
    "written": (slurm_arrays.Arrays, "submit_held"),
    "sent": (slurm_duplicates, "lost_runs"),
    "recorded": (scontrol, "release"),
}


def main(point: str, folder: Path, arguments: list[str]) -> None:
    owner, name = OWNERS[point]
    go_on = getattr(owner, name)

    def halt(*given: Any, **named: Any) -> Any:
        (folder / point).touch()
        while not (folder / "go").exists():
            time.sleep(0.05)
        return go_on(*given, **named)

    setattr(owner, name, halt)
    slurm_duplicates.SECONDS_TO_APPEAR = SECONDS_TO_APPEAR
    app(arguments)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
