"""Check that a node of the partition has the resources that a run requests."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from ..slurm import notation
from ..slurm.cluster import Node, Partition, Site
from ..slurm.notation import Devices
from .finding import Finding, listed, memory, ok, unknown, warning, wrong
from .profile import Profile

GPU_OPTIONS = ("gpus", "gpus-per-node", "gpus-per-task")


@dataclass(frozen=True)
class Wish:
    """The resources that a run requests from a node."""

    devices: tuple[Devices, ...]
    cpus: int
    memory: float | None
    """In MiB. None: not set. 0: all memory of the node."""
    features: str | None
    excluded: frozenset[str]

    @classmethod
    def of(cls, profile: Profile) -> Wish:
        """Return the request of a profile, from its keys and from equivalent sbatch options."""
        options = {key.replace("_", "-"): str(value) for key, value in profile.sbatch.items()}
        gpus = next((options[key] for key in GPU_OPTIONS if key in options), None)
        return cls(
            devices=notation.devices(profile.gres) + notation.devices(gpus and f"gpu:{gpus}"),
            cpus=profile.cpus or 1,
            memory=notation.mebibytes(profile.memory),
            features=profile.constraint,
            excluded=notation.hosts(profile.exclude),
        )

    def lacks(self, node: Node) -> list[str]:
        """Return the keys that the node does not satisfy. Unknown properties count as sufficient."""
        short = {
            "gres": any(node.count(devices) < devices.count for devices in self.devices),
            "cpus": node.cpus is not None and node.cpus < self.cpus,
            "memory": None not in (node.memory, self.memory) and (node.memory or 0) < (self.memory or 0),
            "constraint": has_features(node, self.features) is False,
            "exclude": node.name in self.excluded,
        }
        return [key for key, lacking in short.items() if lacking]

    def runs_on(self, node: Node) -> int:
        """Return how many such runs fit on the node at the same time."""
        rooms = [node.count(devices) // devices.count for devices in self.devices if devices.count]
        rooms += [node.cpus // self.cpus] if node.cpus else []
        rooms += [int(node.memory // self.memory)] if node.memory and self.memory else []
        return 1 if self.memory == 0 else min(rooms, default=1)


def has_features(node: Node, constraint: str | None) -> bool | None:
    """Return whether a node has the features of a constraint.

    Return None if the constraint is neither `a&b` nor `a|b`.
    """
    if constraint is None:
        return True
    if not re.fullmatch(r"[\w.-]+([&|,][\w.-]+)*", constraint):
        return None
    return any(set(re.split(r"[&,]", alternative)) <= node.features for alternative in constraint.split("|"))


def gres(profile: Profile, site: Site, part: Partition) -> Iterator[Finding]:
    """Check that a node has the generic resources (GRES), by type and count."""
    nodes = site.nodes_of(part)
    for devices in Wish.of(profile).devices:
        enough = [node for node in nodes if node.count(devices) >= devices.count]
        if any(node.usable for node in enough):
            yield ok(
                "GRES",
                f"{devices}: offered by {_node_count(sum(node.usable for node in enough))} of '{part.name}'",
            )
        elif enough:
            yield warning(
                "GRES", f"{devices}: only nodes offer it that are down ({listed(n.name for n in enough)})"
            )
        else:
            yield wrong("GRES", f"no node of '{part.name}' offers {devices}", _describe_offer(nodes, devices))


def _describe_offer(nodes: list[Node], devices: Devices) -> str:
    offered = {str(device) for node in nodes for device in node.devices}
    same = {text for text in offered if text.split(":")[0] == devices.name}
    return f"a node has {listed(same or offered)}" if offered else "its nodes have no generic resources"


def cpus(profile: Profile, site: Site, part: Partition) -> Iterator[Finding]:
    """Check that a node has the CPUs."""
    wish = Wish.of(profile)
    most = max((node.cpus for node in site.nodes_of(part) if node.cpus), default=None)
    if most is None:
        yield unknown("CPUs", "Slurm does not say how many the nodes have")
        return
    limit = min(most, part.max_cpus if part.max_cpus is not None else most)
    if wish.cpus > limit:
        yield wrong(
            "CPUs", f"{wish.cpus}, but a job can have {limit:g} of a node", f"cpus: {limit:g} or fewer"
        )
    else:
        yield ok("CPUs", f"{wish.cpus} of a node's {most}")


def ram(profile: Profile, site: Site, part: Partition) -> Iterator[Finding]:
    """Check that a node has the memory."""
    requested = Wish.of(profile).memory
    most = max((node.memory for node in site.nodes_of(part) if node.memory), default=None)
    if requested is None:
        yield _default_memory_finding(site, part)
    elif most is None:
        yield unknown("memory", "Slurm does not say how much the nodes have")
    else:
        limit = min(most, part.max_memory if part.max_memory is not None else most)
        if requested > limit:
            message = f"{profile.memory}, but a job can have {memory(limit)} of a node"
            yield wrong("memory", message, f"memory: {int(limit)}M or less")
        else:
            yield ok("memory", f"{profile.memory if requested else 'all'} of a node's {memory(most)}")


def _default_memory_finding(site: Site, part: Partition) -> Finding:
    shared = "MEMORY" not in site.config.get("SelectTypeParameters", "MEMORY").upper()
    if shared:
        return ok("memory", "not set; this cluster does not ration it")
    if part.default_memory in notation.ENDLESS:
        return warning("memory", "not set, and then a run takes a whole node's", "set memory")
    return ok("memory", f"not set; the partition gives {part.default_memory or 'its default'} (MiB)")


def node(profile: Profile, site: Site, part: Partition) -> Iterator[Finding]:
    """Check that a node satisfies all keys together, and count the runs that fit on it."""
    nodes, wish = site.nodes_of(part), Wish.of(profile)
    fitting = [node for node in nodes if not wish.lacks(node)]
    up = [node for node in fitting if node.usable]
    if not nodes:
        yield wrong("node", f"partition '{part.name}' has no nodes", "choose another")
    elif not fitting:
        yield wrong("node", f"no node of '{part.name}' has all of it", _describe_shortages(nodes, wish.lacks))
    elif not up:
        yield warning("node", f"those that have all of it are down: {listed(node.name for node in fitting)}")
    elif has_features(up[0], wish.features) is None:
        yield unknown(
            "node",
            f"constraint '{profile.constraint}' is not understood; but for it, {_node_count(len(up))} fit",
        )
    else:
        most = max(wish.runs_on(node) for node in up)
        yield ok("node", f"{_node_count(len(up))} of {len(nodes)} fit; a node takes {most} at a time")


def _describe_shortages(nodes: list[Node], lacks: Callable[[Node], list[str]]) -> str:
    counts = Counter(key for node in nodes for key in lacks(node))
    return "in the way: " + ", ".join(f"{key} on {_node_count(count)}" for key, count in counts.most_common())


def _node_count(count: int) -> str:
    return "1 node" if count == 1 else f"{count} nodes"


CHECKS: Mapping[str, Callable[[Profile, Site, Partition], Iterator[Finding]]] = {
    "GRES": gres,
    "CPUs": cpus,
    "memory": ram,
    "node": node,
}


def fit(profile: Profile, site: Site, part: Partition) -> Iterator[Finding]:
    """Yield the findings of all `CHECKS`. Without a list of nodes, each finding is unknown."""
    if site.nodes is None:
        for name in CHECKS:
            yield unknown(name, site.silent.get("nodes", "scontrol shows no nodes"))
        return
    for check in CHECKS.values():
        yield from check(profile, site, part)
