"""Exclude nodes from a profile: `retry --exclude-node`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ..errors import UserError
from .schedulers import SCHEDULERS

NODES = re.compile(r"[A-Za-z0-9][\w.,\[\]-]*")
"""Names as Slurm writes them: `gpu07`, `gpu[01-03,07]`, or several with commas."""


def keeping_off(profile: dict[str, Any], nodes: Sequence[str]) -> dict[str, Any]:
    """Return a profile's record with `nodes` added to the nodes that it excludes.

    Raises:
        UserError: the profile's cluster has no nodes, or an entry of `nodes` is not a valid node name.
    """
    if nodes and not SCHEDULERS[profile["cluster"]].has_nodes:
        raise UserError(
            f"there are no nodes to exclude on the cluster '{profile['cluster']}'", "leave out --exclude-node"
        )
    for node in nodes:
        if not NODES.fullmatch(node):
            raise UserError(f"'{node}' is no node's name", "as Slurm writes it: gpu07, or gpu[01-03]")
    excluded = profile.get("exclude")
    every = dict.fromkeys([*([excluded] if excluded else []), *nodes])
    return {**profile, "exclude": ",".join(every)} if every else profile
