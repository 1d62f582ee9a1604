"""The durable wish that a run be cancelled: a marker that names the submissions it takes back.

It is written before anything is killed, so that a run which is requeued, restarted or still waiting in
between finds it. A later submission is not named by it, and so brings the run back.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from ...errors import UserError
from ...store.files import has_not_arrived, read_object, write_atomically
from ...store.layout import RunFiles


def is_cancelled(run: RunFiles, submission: str) -> bool:
    """Return whether the run was cancelled as part of `submission`.

    Raises:
        UserError: the marker cannot be read.
    """
    try:
        return submission in list(read_object(run.cancel_marker)["submissions"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, OSError) and has_not_arrived(error):
            return False
        raise UserError(
            f"{run.cancel_marker} is damaged",
            f"rm {run.cancel_marker}; to cancel again: alphagrid cancel {run.path.parent.name} {run.id}",
        ) from error


def write(run: RunFiles, submissions: Sequence[str], now: float) -> None:
    """Cancel the run for the submissions named, durably."""
    run.path.mkdir(parents=True, exist_ok=True)
    marker = {"time": now, "submissions": list(submissions)}
    write_atomically(run.cancel_marker, json.dumps(marker).encode())
