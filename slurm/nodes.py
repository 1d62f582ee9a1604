"""The nodes of the cluster, as the controller lists them."""

from __future__ import annotations

import socket

from . import notation
from .command import run

LOOPBACK = ("127.", "localhost", "::1")


COMMAND = ("scontrol", "--all", "--oneliner", "show", "node")


def records() -> list[dict[str, str]]:
    """Return what the controller says of each node.

    Raises:
        SystemRefused: scontrol is not there, or failed.
    """
    return [record for record in notation.records(run(COMMAND)) if "NodeName" in record]


def are_all_here() -> bool:
    """Return whether this machine is the cluster's only one.

    Raises:
        SystemRefused: scontrol is not there, or failed.
    """
    nodes = records()
    here = socket.gethostname().partition(".")[0]
    for node in nodes:
        is_here = node.get("NodeHostName", "").partition(".")[0] == here
        if not (is_here or node.get("NodeAddr", "").startswith(LOOPBACK)):
            return False
    return bool(nodes)
