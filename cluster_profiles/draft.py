"""A first profile for a cluster, from what the cluster says of itself."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..documents import parse_value
from ..errors import SystemRefused, UserError
from ..slurm.cluster import Node, Site
from ..slurm.inspect import Ask, ask, require, survey
from ..slurm.notation import Devices
from ..slurm.sbatch import MAX_ARRAY
from .access import association
from .choice import Choice, associations, choose
from .finding import hours, hours_key, listed, memory
from .limits import largest_array, time_limits
from .preemption import preemption

DAY = 24 * 3600.0
CPUS_WITHOUT_GPU = 4
COLUMN = 30
"""Where the reasons begin."""


def init(path: Path | None, wanted: str | None, ask: Ask = ask) -> Path:
    """Write a profile for the cluster of this machine, by default to `CLUSTER.yaml`; return where.

    Raises:
        UserError: there is no Slurm, no partition to be used, or the file exists.
        SystemRefused: Slurm's controller does not answer, or the file cannot be written.
    """
    require()
    site = survey(ask)
    path = path or Path(f"{site.name}.yaml")
    _write(path, draft(site, wanted))
    return path


def _write(path: Path, text: str) -> None:
    """Write a new file.

    Raises:
        UserError: it exists.
        SystemRefused: it cannot be written.
    """
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise UserError(f"{path} exists", "name another file, or remove it first") from error
    except OSError as error:
        raise SystemRefused(f"{path} cannot be written ({error.strerror})", "name another file") from error


def draft(site: Site, wanted: str | None = None) -> str:
    """Return the text of a profile for the partition `wanted`, or the one that `choose` chooses.

    Raises:
        UserError: there is no such partition that the user can use.
    """
    chosen, others = choose(site, wanted)
    lines = [*_head(site), *_access(site, chosen, others), *_request(chosen), *_rest(site, chosen)]
    return "\n".join(lines) + "\n"


def _head(site: Site) -> list[str]:
    version = site.config.get("SLURM_VERSION")
    return [
        f"# The cluster {site.name}{f' (Slurm {version})' if version else ''}, as it described itself to",
        "# `alphagrid profiles init`. Change what you like: `alphagrid profiles check` says if it holds.",
        "cluster: slurm",
    ]


def _line(key: str, value: object, why: str = "", *, alternative: bool = False) -> str:
    text = f"{'# ' if alternative else ''}{key}: {_scalar(value)}"
    return f"{text:<{COLUMN}}# {why}" if why else text


def _scalar(value: object) -> str:
    """Return a value as YAML; text that YAML would read as something else is quoted."""
    if not isinstance(value, str):
        return json.dumps(value)
    plain = re.fullmatch(r"\w[\w.:-]*", value) and parse_value(value, "") == value
    return value if plain else json.dumps(value)


def _access(site: Site, chosen: Choice, others: list[Choice]) -> Iterator[str]:
    part = chosen.part
    yield _line("partition", part.name, _about(site, chosen))
    for other in others:
        yield _line("partition", other.part.name, _about(site, other), alternative=True)
    own = associations(site, part)
    if chosen.account:
        yield _line("account", chosen.account)
    used = chosen.account or site.default_account
    for name in sorted({each.account for each in own} - {used}):
        default = f"instead of {used}" if used else ""
        yield _line("account", name, default, alternative=True)
    yield from _services(site, chosen)
    if site.has_accounting and site.associations is None:
        yield f"# account: sacctmgr did not tell ({site.silent.get('accounts', 'no answer')})"


def _services(site: Site, chosen: Choice) -> Iterator[str]:
    if chosen.qos:
        yield _line("qos", chosen.qos)
    own = association(chosen.profile, site, chosen.part)
    if own is None:
        return
    used = chosen.qos or own.default_qos or "normal"
    for name in sorted(set(own.qos) - {used}):
        if name in (site.qos or {}) and chosen.part.admits("qos", name):
            yield _line("qos", name, f"instead of {used}", alternative=True)


def _about(site: Site, choice: Choice) -> str:
    total = [str(Devices("gpu", kind, count)) for kind, count in _gpus(choice.nodes).most_common()]
    nodes = "1 node" if len(choice.nodes) == 1 else f"{len(choice.nodes)} nodes"
    limit = _limit(site, choice)
    parts = [f"{nodes} up", ", ".join(total) or "no GPUs", f"time: {hours(limit)}" if limit else ""]
    return "; ".join(part for part in (*parts, _preempted(site, choice)) if part)


def _preempted(site: Site, choice: Choice) -> str:
    how = preemption(choice.profile, site, choice.part)
    if how is None or not how.possible:
        return ""
    return f"preempted ({listed(mode.lower() for mode in how.modes)}, {how.grace or 0:g} s of notice)"


def _limit(site: Site, choice: Choice) -> float | None:
    """Return the longest a job may take, in seconds; None if Slurm does not tell."""
    return min(time_limits(choice.profile, site, choice.part).values(), default=None)


def _request(chosen: Choice) -> Iterator[str]:
    """Yield what one run asks for: a GPU and its share of the node, or a few CPUs where there are no GPUs."""
    if not chosen.gpus:
        yield from _share(chosen, chosen.nodes)
        return
    kind = _gpus(chosen.nodes).most_common(1)[0][0]
    wanted = Devices("gpu", kind, 1)
    nodes = tuple(node for node in chosen.nodes if node.count(wanted))
    offered = listed(str(each) for node in nodes for each in node.devices)
    yield _line("gres", str(wanted), f"a node has {offered}")
    for other in sorted(_one_each(chosen.nodes) - {str(wanted)}):
        yield _line("gres", other, alternative=True)
    yield from _share(chosen, nodes)


def _gpus(nodes: Iterable[Node]) -> Counter[str | None]:
    """Return how many GPUs there are of each type."""
    counts = Counter[str | None]()
    for each in (each for node in nodes for each in node.devices if each.name == "gpu"):
        counts[each.type] += each.count
    return counts


def _one_each(nodes: Iterable[Node]) -> set[str]:
    """Return a request for one of each kind of GPU, or part of a GPU, that there is."""
    offered = {each for node in nodes for each in node.devices if each.name in ("gpu", "shard")}
    return {str(Devices(each.name, each.type if each.name == "gpu" else None, 1)) for each in offered}


def _share(chosen: Choice, nodes: tuple[Node, ...]) -> Iterator[str]:
    """Yield the CPUs and memory that every one of the nodes has for each of its GPUs.

    Without GPUs, a few CPUs and their part of the memory.
    """
    part, known = chosen.part, [node for node in nodes if node.cpus]
    if not known:
        return
    shares = {node: _cpus(node) for node in known}
    cpus = int(min(*shares.values(), part.max_cpus or math.inf))
    least = min(known, key=lambda node: shares[node])
    whose = "a GPU's share" if least.gpus else "a few"
    yield _line("cpus", cpus, f"{whose} of a node's {least.cpus}")
    portions = [node.memory / max(node.gpus, 1) for node in known if node.memory and node.gpus]
    portions += [node.memory * cpus / (node.cpus or 1) for node in known if node.memory and not node.gpus]
    if portions:
        told = f"{whose if least.gpus else 'their part'} of {memory(least.memory or 0)}"
        yield _line("memory", _memory(min(*portions, part.max_memory or math.inf)), told)


def _cpus(node: Node) -> int:
    total = node.cpus or 1
    return max(1, total // node.gpus) if node.gpus else min(CPUS_WITHOUT_GPU, total)


def _memory(mebibytes: float) -> str:
    return f"{int(mebibytes // 1024)}G" if mebibytes >= 1024 else f"{int(mebibytes)}M"


def _rest(site: Site, chosen: Choice) -> Iterator[str]:
    limit = _limit(site, chosen)
    at_most = "" if limit is None or math.isinf(limit) else f"at most {hours_key(limit)}; "
    wanted = hours_key(min(limit or DAY, DAY))
    yield _line(
        "hours",
        float(wanted) if "." in wanted else int(wanted),
        f"{at_most}a run that needs longer goes on in the next job",
    )
    yield _line("requeue", True, "after a preemption or the failure of a node")
    largest = largest_array(site)
    if largest and largest != MAX_ARRAY:
        yield _line("max_array", largest, "jobs of one array (MaxArraySize)")
