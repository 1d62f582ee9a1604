"""List the nodes of the cluster."""

from __future__ import annotations

import socket

from . import notation
from .command import run

LOOPBACK = ("127.", "localhost", "::1")


COMMAND = ("scontrol", "--all", "--oneliner", "show", "node")


def records() -> list[dict[str, str]]:
    """Return the controller's record of each node.

    Raises:
        SystemRefused: scontrol is not installed, or it fails.
    """
    return [record for record in notation.records(run(COMMAND)) if "NodeName" in record]


def are_all_here() -> bool:
    """Return whether all nodes of the cluster are this machine.

    Raises:
        SystemRefused: scontrol is not installed, or it fails.
    """
    nodes = records()
    here = socket.gethostname().partition(".")[0]
    for node in nodes:
        is_here = node.get("NodeHostName", "").partition(".")[0] == here
        if not (is_here or node.get("NodeAddr", "").startswith(LOOPBACK)):
            return False
    return bool(nodes)
