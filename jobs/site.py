"""Which of a site's clusters Slurm's commands speak to here."""

from __future__ import annotations

import re

from .commands import run


def name() -> str | None:
    """Return the cluster's name, None if it does not say.

    Raises:
        SystemRefused: scontrol is not there, or failed.
    """
    found = re.search(r"^ClusterName\s*=\s*(\S+)", run(["scontrol", "show", "config"]), re.MULTILINE)
    return found[1] if found else None
