"""The cancel marker: a durable file that names the submissions of a run that are cancelled.

The marker is written before any process is killed, so a run that is requeued, restarted or still pending in
between finds it. A later submission is not in the marker, and runs.
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
    """Write a durable marker that cancels `submissions` of the run."""
    run.path.mkdir(parents=True, exist_ok=True)
    marker = {"time": now, "submissions": list(submissions)}
    write_atomically(run.cancel_marker, json.dumps(marker).encode())
