"""A worker of one host: `host_worker.py HOST ROOT RUN SUBMISSION FOLDER`, which prints how its attempt ended.

It takes processes of other hosts for those of other machines, of which only the heartbeat tells anything.
With a folder FOLDER, it looks at the run's claims and waits there until another host has looked, too.
"""

from __future__ import annotations

import sys
import time
from functools import cache
from pathlib import Path

from alphagrid.jobs.worker import attempt_run
from alphagrid.store import claims
from alphagrid.store.layout import Root

HEARTBEAT_SECONDS = 0.5
STALE_SECONDS = 12.0
"""More than the mounts are late by, and than a crowded machine keeps a process waiting."""


def look_together(place: Path, host: str) -> None:
    look = claims._newest_claim

    def looked(folder: Path) -> tuple[int, Path] | None:
        found = look(folder)
        (place / host).touch()
        while len(list(place.iterdir())) < 2:
            time.sleep(0.001)
        return found

    claims._newest_claim = looked


def main(host: str, root: str, run_id: str, submission: str, folder: str = "") -> None:
    claims._realm = cache(lambda: host)
    claims.HEARTBEAT_SECONDS, claims.STALE_SECONDS = HEARTBEAT_SECONDS, STALE_SECONDS
    if folder:
        look_together(Path(folder), host)
    print(attempt_run(Root(Path(root)).experiment("exp"), run_id, submission))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
