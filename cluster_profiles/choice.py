"""Choose the partition of a new profile, and the account and QOS for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import UserError
from ..slurm.cluster import Association, Node, Partition, Site
from .access import account, partition, qos
from .finding import Verdict, listed
from .profile import Profile


@dataclass(frozen=True)
class Choice:
    """A partition, and the account and QOS with which the user can submit to it."""

    part: Partition
    nodes: tuple[Node, ...]
    """The nodes that are up."""
    account: str | None
    qos: str | None
    """None: the user's default is allowed, or Slurm does not report accounts."""

    @property
    def gpus(self) -> int:
        """Return the number of GPUs of all nodes."""
        return sum(node.gpus for node in self.nodes)

    @property
    def profile(self) -> Profile:
        """Return the choice as a profile."""
        return _profile(self.part, self.account, self.qos)


def choose(site: Site, partition_name: str | None = None) -> tuple[Choice, list[Choice]]:
    """Return the best partition, and the other usable partitions, best first.

    The best partition is the default partition if it has GPUs, else the partition with the most GPUs.
    `partition_name` selects another partition.

    Raises:
        UserError: the user can use no partition, or cannot use the partition `partition_name`.
    """
    choices = [choice for part in (site.partitions or {}).values() if (choice := _choice(site, part))]
    choices.sort(key=_rank, reverse=True)
    fitting = [choice for choice in choices if partition_name in (None, choice.part.name)]
    if not fitting:
        raise _refusal(site, partition_name, choices)
    return fitting[0], [choice for choice in choices if choice is not fitting[0] and not choice.part.hidden]


def associations(site: Site, part: Partition) -> list[Association]:
    """Return the user's associations that permit jobs in a partition."""
    return [row for row in site.associations or () if row.partition in (None, part.name)]


def _rank(choice: Choice) -> tuple[bool, bool, bool, int, int]:
    part = choice.part
    return (not part.hidden, choice.gpus > 0, part.default, choice.gpus, len(choice.nodes))


def _refusal(site: Site, partition_name: str | None, choices: list[Choice]) -> UserError:
    names = listed(choice.part.name for choice in choices)
    if partition_name is None:
        reason = site.silent.get("partitions") or site.silent.get("nodes")
        return UserError(
            f"no partition is open to {site.user}" + (f" ({reason})" if reason else ""), "see `sinfo`"
        )
    exists = partition_name in (site.partitions or {})
    message = (
        f"partition '{partition_name}' is not open to {site.user}"
        if exists
        else f"there is no partition '{partition_name}'"
    )
    return UserError(message, f"open are: {names}")


def _choice(site: Site, part: Partition) -> Choice | None:
    """Return how the user can use a partition. Return None if the user cannot, or if no node is up."""
    nodes = tuple(node for node in site.nodes_of(part) if node.usable)
    if not nodes:
        return None
    for name, qos_name in _accounts_and_qos(site, part):
        profile = _profile(part, name, qos_name)
        findings = [*partition(profile, site, part), *account(profile, site, part), *qos(profile, site, part)]
        if all(finding.verdict is not Verdict.wrong for finding in findings):
            return Choice(part, nodes, name, qos_name)
    return None


def _accounts_and_qos(site: Site, part: Partition) -> Iterator[tuple[str | None, str | None]]:
    """Yield pairs of account and QOS to try. None stands for the default, which comes first."""
    rows = associations(site, part)
    yield None, None
    yield from (
        (None, qos_name) for row in rows if row.account == site.default_account for qos_name in row.qos
    )
    yield from ((row.account, qos_name) for row in rows for qos_name in (None, *row.qos))


def _profile(part: Partition, account: str | None, qos: str | None) -> Profile:
    return Profile(name="draft", cluster="slurm", partition=part.name, account=account, qos=qos)
