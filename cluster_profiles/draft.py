"""Write a new profile for a cluster from what Slurm reports about it."""

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
"""Column where the comments start."""


def init(path: Path | None, partition_name: str | None, ask: Ask = ask) -> Path:
    """Write a profile for this machine's cluster, by default to `CLUSTER.yaml`, and return its path.

    Raises:
        UserError: this machine has no Slurm, the user can use no partition, or the file exists.
        SystemRefused: Slurm's controller does not answer, or the file cannot be written.
    """
    require()
    site = survey(ask)
    path = path or Path(f"{site.name}.yaml")
    _write_new_file(path, draft(site, partition_name))
    return path


def _write_new_file(path: Path, text: str) -> None:
    """Write a new file.

    Raises:
        UserError: the file exists.
        SystemRefused: the file cannot be written.
    """
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise UserError(f"{path} exists", "name another file, or remove it first") from error
    except OSError as error:
        raise SystemRefused(f"{path} cannot be written ({error.strerror})", "name another file") from error


def draft(site: Site, partition_name: str | None = None) -> str:
    """Return the text of a profile for a partition (default: the best partition by `choose`).

    Raises:
        UserError: the user can use no partition, or cannot use the partition `partition_name`.
    """
    choice, other_choices = choose(site, partition_name)
    lines = [
        *_header_lines(site),
        *_access_lines(site, choice, other_choices),
        *_resource_lines(choice),
        *_job_lines(site, choice),
    ]
    return "\n".join(lines) + "\n"


def _header_lines(site: Site) -> list[str]:
    version = site.config.get("SLURM_VERSION")
    return [
        f"# The cluster {site.name}{f' (Slurm {version})' if version else ''}, as it described itself to",
        "# `alphagrid profiles init`. Change what you like: `alphagrid profiles check` says if it holds.",
        "cluster: slurm",
    ]


def _yaml_line(key: str, value: object, reason: str = "", *, alternative: bool = False) -> str:
    text = f"{'# ' if alternative else ''}{key}: {_yaml_scalar(value)}"
    return f"{text:<{COLUMN}}# {reason}" if reason else text


def _yaml_scalar(value: object) -> str:
    """Return a value as YAML. Text that YAML would read as another type is quoted."""
    if not isinstance(value, str):
        return json.dumps(value)
    plain = re.fullmatch(r"\w[\w.:-]*", value) and parse_value(value, "") == value
    return value if plain else json.dumps(value)


def _access_lines(site: Site, choice: Choice, other_choices: list[Choice]) -> Iterator[str]:
    part = choice.part
    yield _yaml_line("partition", part.name, _describe_partition(site, choice))
    for other in other_choices:
        yield _yaml_line("partition", other.part.name, _describe_partition(site, other), alternative=True)
    user_associations = associations(site, part)
    if choice.account:
        yield _yaml_line("account", choice.account)
    used_account = choice.account or site.default_account
    for name in sorted({row.account for row in user_associations} - {used_account}):
        default = f"instead of {used_account}" if used_account else ""
        yield _yaml_line("account", name, default, alternative=True)
    yield from _qos_lines(site, choice)
    if site.has_accounting and site.associations is None:
        yield f"# account: sacctmgr did not tell ({site.silent.get('accounts', 'no answer')})"


def _qos_lines(site: Site, choice: Choice) -> Iterator[str]:
    if choice.qos:
        yield _yaml_line("qos", choice.qos)
    own_association = association(choice.profile, site, choice.part)
    if own_association is None:
        return
    used_qos = choice.qos or own_association.default_qos or "normal"
    for name in sorted(set(own_association.qos) - {used_qos}):
        if name in (site.qos or {}) and choice.part.admits("qos", name):
            yield _yaml_line("qos", name, f"instead of {used_qos}", alternative=True)


def _describe_partition(site: Site, choice: Choice) -> str:
    total = [str(Devices("gpu", kind, count)) for kind, count in _count_gpus(choice.nodes).most_common()]
    nodes = "1 node" if len(choice.nodes) == 1 else f"{len(choice.nodes)} nodes"
    limit = _time_limit(site, choice)
    parts = [f"{nodes} up", ", ".join(total) or "no GPUs", f"time: {hours(limit)}" if limit else ""]
    return "; ".join(part for part in (*parts, _describe_preemption(site, choice)) if part)


def _describe_preemption(site: Site, choice: Choice) -> str:
    rules = preemption(choice.profile, site, choice.part)
    if rules is None or not rules.possible:
        return ""
    return f"preempted ({listed(mode.lower() for mode in rules.modes)}, {rules.grace or 0:g} s of notice)"


def _time_limit(site: Site, choice: Choice) -> float | None:
    """Return the time limit of a job in seconds. Return None if Slurm does not report it."""
    return min(time_limits(choice.profile, site, choice.part).values(), default=None)


def _resource_lines(choice: Choice) -> Iterator[str]:
    """Yield the request of one run: a GPU and its share of the node, or a few CPUs if there are no GPUs."""
    if not choice.gpus:
        yield from _share_lines(choice, choice.nodes)
        return
    kind = _count_gpus(choice.nodes).most_common(1)[0][0]
    gpu = Devices("gpu", kind, 1)
    nodes = tuple(node for node in choice.nodes if node.count(gpu))
    offered = listed(str(devices) for node in nodes for devices in node.devices)
    yield _yaml_line("gres", str(gpu), f"a node has {offered}")
    for other in sorted(_single_device_requests(choice.nodes) - {str(gpu)}):
        yield _yaml_line("gres", other, alternative=True)
    yield from _share_lines(choice, nodes)


def _count_gpus(nodes: Iterable[Node]) -> Counter[str | None]:
    """Return the number of GPUs of each type."""
    counts = Counter[str | None]()
    for devices in (devices for node in nodes for devices in node.devices if devices.name == "gpu"):
        counts[devices.type] += devices.count
    return counts


def _single_device_requests(nodes: Iterable[Node]) -> set[str]:
    """Return a request for one device of each type of GPU or shard of the nodes."""
    offered = {devices for node in nodes for devices in node.devices if devices.name in ("gpu", "shard")}
    return {
        str(Devices(devices.name, devices.type if devices.name == "gpu" else None, 1)) for devices in offered
    }


def _share_lines(choice: Choice, nodes: tuple[Node, ...]) -> Iterator[str]:
    """Yield the CPUs and memory per GPU that every node can provide.

    Without GPUs, yield a few CPUs and the matching part of the memory.
    """
    part, known_nodes = choice.part, [node for node in nodes if node.cpus]
    if not known_nodes:
        return
    shares = {node: _cpu_share(node) for node in known_nodes}
    cpus = int(min(*shares.values(), part.max_cpus or math.inf))
    least = min(known_nodes, key=lambda node: shares[node])
    share = "a GPU's share" if least.gpus else "a few"
    yield _yaml_line("cpus", cpus, f"{share} of a node's {least.cpus}")
    portions = [node.memory / max(node.gpus, 1) for node in known_nodes if node.memory and node.gpus]
    portions += [
        node.memory * cpus / (node.cpus or 1) for node in known_nodes if node.memory and not node.gpus
    ]
    if portions:
        reason = f"{share if least.gpus else 'their part'} of {memory(least.memory or 0)}"
        yield _yaml_line("memory", _format_memory(min(*portions, part.max_memory or math.inf)), reason)


def _cpu_share(node: Node) -> int:
    total = node.cpus or 1
    return max(1, total // node.gpus) if node.gpus else min(CPUS_WITHOUT_GPU, total)


def _format_memory(mebibytes: float) -> str:
    return f"{int(mebibytes // 1024)}G" if mebibytes >= 1024 else f"{int(mebibytes)}M"


def _job_lines(site: Site, choice: Choice) -> Iterator[str]:
    limit = _time_limit(site, choice)
    at_most = "" if limit is None or math.isinf(limit) else f"at most {hours_key(limit)}; "
    hours_text = hours_key(min(limit or DAY, DAY))
    yield _yaml_line(
        "hours",
        float(hours_text) if "." in hours_text else int(hours_text),
        f"{at_most}a run that needs longer goes on in the next job",
    )
    yield _yaml_line("requeue", True, "after a preemption or the failure of a node")
    largest = largest_array(site)
    if largest and largest != MAX_ARRAY:
        yield _yaml_line("max_array", largest, "jobs of one array (MaxArraySize)")
