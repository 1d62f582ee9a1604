"""The cluster as Slurm reports it: partitions, nodes, associations and QOS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from . import notation
from .notation import Devices

UNUSABLE = frozenset(
    {"DOWN", "DRAIN", "DRAINED", "DRAINING", "FAIL", "FAILING", "ERROR", "UNKNOWN", "FUTURE"}
)
NOT_A_MODE = frozenset({"GANG", "WITHIN", "PRIORITY", "CLUSTER"})
EVERYONE = "ALL"


@dataclass(frozen=True)
class Partition:
    """A partition. None stands for what Slurm does not report."""

    name: str
    state: str
    default: bool
    hidden: bool
    root_only: bool
    needs_reservation: bool
    max_seconds: float | None
    default_seconds: float | None
    tier: int
    modes: frozenset[str]
    """Preemption modes: REQUEUE, CANCEL, SUSPEND, OFF. Empty: Slurm does not report them."""
    grace: int | None
    allowed: Mapping[str, frozenset[str] | None]
    """Accounts, QOS and groups that may use the partition, by kind. None: all."""
    denied: Mapping[str, frozenset[str]]
    qos: str | None
    max_cpus: float | None
    max_memory: float | None
    """MiB per node. `inf`: no limit."""
    default_memory: str

    @classmethod
    def read(cls, record: Mapping[str, str]) -> Partition:
        """Return the partition of a record of `scontrol show partition`."""
        get = record.get
        return cls(
            name=record["PartitionName"],
            state=get("State", ""),
            default=get("Default") == "YES",
            hidden=get("Hidden") == "YES",
            root_only=get("RootOnly") == "YES",
            needs_reservation=get("ReqResv") == "YES",
            max_seconds=notation.seconds(get("MaxTime")),
            default_seconds=notation.seconds(get("DefaultTime")),
            tier=notation.whole(get("PriorityTier")) or 0,
            modes=modes(get("PreemptMode")),
            grace=notation.whole(get("GraceTime")),
            allowed={key: _allowed_names(get(f"Allow{word}")) for key, word in _KINDS.items()},
            denied={key: frozenset(notation.words(get(f"Deny{word}"))) for key, word in _KINDS.items()},
            qos=next(iter(notation.words(get("QoS"))), None),
            max_cpus=notation.limit(get("MaxCPUsPerNode")),
            max_memory=notation.mebibytes(get("MaxMemPerNode")),
            default_memory=get("DefMemPerNode") or get("DefMemPerCPU") or "",
        )

    def admits(self, kind: str, name: str) -> bool:
        """Return whether an account, QOS or group may use it. `kind` is `accounts`, `qos` or `groups`."""
        allowed = self.allowed[kind]
        return (allowed is None or name in allowed) and name not in self.denied[kind]


_KINDS = {"accounts": "Accounts", "qos": "Qos", "groups": "Groups"}


def _allowed_names(text: str | None) -> frozenset[str] | None:
    return None if text in (None, EVERYONE) else frozenset(notation.words(text))


def modes(text: str | None) -> frozenset[str]:
    """Return the preemption modes in `GANG,SUSPEND` or `requeue`, without the modifiers in `NOT_A_MODE`."""
    return frozenset(mode.upper() for mode in notation.words(text)) - NOT_A_MODE


@dataclass(frozen=True)
class Node:
    """A node and its total resources, whether or not jobs use them now."""

    name: str
    state: str
    partitions: frozenset[str]
    devices: tuple[Devices, ...]
    cpus: int | None
    memory: float | None
    """MiB available to jobs."""
    features: frozenset[str]

    @classmethod
    def read(cls, record: Mapping[str, str]) -> Node:
        """Return the node of a record of `scontrol show node`."""
        memory, reserved = (notation.mebibytes(record.get(key)) for key in ("RealMemory", "MemSpecLimit"))
        return cls(
            name=record["NodeName"],
            state=record.get("State", ""),
            partitions=frozenset(notation.words(record.get("Partitions"))),
            devices=notation.devices(record.get("Gres")),
            cpus=notation.whole(record.get("CPUEfctv") or record.get("CPUTot")),
            memory=None if memory is None else memory - (reserved or 0),
            features=frozenset(notation.words(record.get("AvailableFeatures"))),
        )

    @property
    def usable(self) -> bool:
        """Return whether the node is up. A node that is powered down to save energy counts as up."""
        return not UNUSABLE & {word.rstrip("*~#!%$@^-") for word in self.state.split("+")}

    def count(self, request: Devices) -> int:
        """Return the number of devices with the name, and the type if there is one, of a request."""
        fitting = [devices for devices in self.devices if devices.name == request.name]
        return sum(devices.count for devices in fitting if request.type in (None, devices.type))

    @property
    def gpus(self) -> int:
        """Return the number of GPUs of all types."""
        return self.count(Devices("gpu", None, 1))


@dataclass(frozen=True)
class Association:
    """An association of the user: an account, with the QOS and limits that apply under it."""

    account: str
    partition: str | None
    """The only partition where it is valid. None: all partitions."""
    qos: tuple[str, ...]
    default_qos: str | None
    max_seconds: float | None
    max_submit: int | None

    @classmethod
    def read(cls, row: Mapping[str, str]) -> Association:
        """Return the association of a row of `sacctmgr show association`."""
        return cls(
            account=row["account"],
            partition=row["partition"] or None,
            qos=tuple(name.lstrip("+") for name in notation.words(row["qos"])),
            default_qos=row["defaultqos"] or None,
            max_seconds=notation.seconds(row["maxwall"]),
            max_submit=notation.whole(row["maxsubmit"]),
        )


@dataclass(frozen=True)
class Qos:
    """A quality of service (QOS)."""

    name: str
    max_seconds: float | None
    grace: float | None
    modes: frozenset[str]
    """Preemption modes. Empty: the modes of the cluster."""
    preempts: frozenset[str]
    max_submit: int | None
    flags: frozenset[str]

    @classmethod
    def read(cls, row: Mapping[str, str]) -> Qos:
        """Return the QOS of a row of `sacctmgr show qos`."""
        return cls(
            name=row["name"],
            max_seconds=notation.seconds(row["maxwall"]),
            grace=notation.seconds(row["gracetime"]),
            modes=modes(row["preemptmode"]),
            preempts=frozenset(notation.words(row["preempt"])),
            max_submit=notation.whole(row["maxsubmitpu"]),
            flags=frozenset(notation.words(row["flags"])),
        )


@dataclass(frozen=True)
class Site:
    """A cluster as one user sees it. None stands for what Slurm did not report."""

    config: Mapping[str, str]
    partitions: Mapping[str, Partition] | None
    nodes: tuple[Node, ...] | None
    associations: tuple[Association, ...] | None
    default_account: str | None
    qos: Mapping[str, Qos] | None
    user: str
    groups: frozenset[str] = frozenset()
    silent: Mapping[str, str] = field(default_factory=dict)
    """Why Slurm did not report something, by `partitions`, `nodes`, `accounts`, `users`, `qos`, `sacct`."""

    @property
    def name(self) -> str:
        """Return the name of the cluster."""
        return self.config.get("ClusterName", "cluster")

    @property
    def has_accounting(self) -> bool:
        """Return whether the cluster has accounting (slurmdbd)."""
        return self.config.get("AccountingStorageType", "").endswith("slurmdbd")

    @property
    def enforced(self) -> frozenset[str]:
        """Return the flags of AccountingStorageEnforce in lower case, with the implied `associations`."""
        words = {word.lower() for word in notation.words(self.config.get("AccountingStorageEnforce"))}
        binding = words & {"associations", "limits", "qos", "safe", "wckeys", "all"}
        return frozenset(words | ({"associations"} if binding else set())) - {"none"}

    def nodes_of(self, partition: Partition) -> list[Node]:
        """Return the nodes of a partition, including nodes that are down."""
        return [node for node in self.nodes or () if partition.name in node.partitions]

    def associations_for(self, account: str, partition: Partition) -> list[Association]:
        """Return the user's associations for an account in a partition, the most specific first."""
        rows = [row for row in self.associations or () if row.account == account.lower()]
        fitting = [row for row in rows if row.partition in (None, partition.name)]
        return sorted(fitting, key=lambda row: row.partition is None)
