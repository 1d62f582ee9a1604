"""Read the state of the cluster with `scontrol`, `sacctmgr` and `sacct`, without changing it."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..errors import SystemRefused, UserError
from . import nodes, notation
from .cluster import Association, Node, Partition, Qos, Site
from .command import Failed, run

ACCOUNTS = ("account", "partition", "qos", "defaultqos", "maxwall", "maxsubmit")
QOS = ("name", "maxwall", "gracetime", "preemptmode", "preempt", "maxsubmitpu", "flags")
NOT_SET_UP = ("configuration source", "configuration file", "cannot stat file")
"""What the commands print if they are installed but not configured for a cluster."""


@dataclass(frozen=True)
class Answer:
    """The output of a command. `failure` is its error message, None if it succeeded."""

    text: str
    failure: str | None = None


Ask = Callable[[Sequence[str]], Answer]


def ask(command: Sequence[str]) -> Answer:
    """Run one of Slurm's commands and return its answer."""
    try:
        return Answer(run(command))
    except Failed as error:
        return Answer("", error.complaint)
    except SystemRefused as error:
        return Answer("", error.message)


def survey(ask: Ask = ask) -> Site:
    """Return the cluster as Slurm's commands report it to this user.

    Raises:
        UserError: this machine belongs to no Slurm cluster.
        SystemRefused: Slurm's controller does not answer.
    """
    config = _ask_config(ask)
    user = _user_name()
    answers = {
        "partitions": ask(["scontrol", "--all", "--oneliner", "show", "partition"]),
        "nodes": ask(nodes.COMMAND),
        "accounts": _ask_accounts(ask, config, user, "association", ACCOUNTS),
        "users": _ask_accounts(ask, config, user, "user", ("defaultaccount",)),
        "qos": _ask_accounts(ask, config, user, "qos", QOS),
        "sacct": ask(["sacct", "--noheader", "--allocations", "--parsable2", "--starttime=now"]),
    }
    return _parse_site(config, user, answers)


def require() -> None:
    """Check that Slurm's commands are installed.

    Raises:
        UserError: they are not installed.
    """
    if shutil.which("scontrol") is None:
        raise UserError(
            "this machine has no Slurm (no scontrol on the PATH)", "run it on a login node of the cluster"
        )


def _ask_config(ask: Ask) -> dict[str, str]:
    answer = ask(["scontrol", "show", "config"])
    config = notation.settings(answer.text)
    if answer.failure is None and "ClusterName" in config:
        return config
    failure = _last_line(answer.failure or "scontrol show config said nothing")
    if any(phrase in (answer.failure or "") for phrase in NOT_SET_UP):
        raise UserError(
            f"this machine belongs to no Slurm cluster ({failure})", "run it on a login node of the cluster"
        )
    raise SystemRefused(
        f"Slurm's controller does not answer: {failure}", "`scontrol ping` says whether it is up"
    )


def _ask_accounts(ask: Ask, config: dict[str, str], user: str, what: str, columns: Sequence[str]) -> Answer:
    """Run sacctmgr, if the cluster has accounting."""
    if not config.get("AccountingStorageType", "").endswith("slurmdbd"):
        return Answer("", "this cluster keeps no accounts")
    filters = {"association": [f"user={user}", f"cluster={config['ClusterName']}"], "user": [user], "qos": []}
    form = f"format={','.join(columns)}"
    return ask(["sacctmgr", "--noheader", "--parsable2", "show", what, *filters[what], form])


def _parse_site(config: dict[str, str], user: str, answers: dict[str, Answer]) -> Site:
    texts = {key: None if answer.failure else answer.text for key, answer in answers.items()}
    partitions, nodes, accounts, qos = (texts[key] for key in ("partitions", "nodes", "accounts", "qos"))
    parts = [Partition.read(row) for row in notation.records(partitions or "") if "PartitionName" in row]
    machines = [Node.read(row) for row in notation.records(nodes or "") if "NodeName" in row]
    services = [Qos.read(row) for row in notation.table(qos or "", QOS)]
    owned = [Association.read(row) for row in notation.table(accounts or "", ACCOUNTS)]
    return Site(
        config=config,
        partitions={part.name: part for part in parts} or None,
        nodes=tuple(machines) or None,
        associations=None if accounts is None else tuple(owned),
        default_account=next(iter((texts["users"] or "").split()), None),
        qos=None if qos is None else {service.name: service for service in services},
        user=user,
        groups=_group_names(),
        silent={key: _last_line(answer.failure) for key, answer in answers.items() if answer.failure},
    )


def _last_line(text: str) -> str:
    """Return the last line of an error message. Slurm's commands print the main error there."""
    return text.strip().splitlines()[-1] if text.strip() else ""


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # This machine has no name for the user.
        return str(os.getuid())


def _group_names() -> frozenset[str]:
    names = set()
    for number in {os.getgid(), *os.getgroups()}:
        try:
            names.add(grp.getgrgid(number).gr_name)
        except KeyError:
            names.add(str(number))
    return frozenset(names)
