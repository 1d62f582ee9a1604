"""Check that the user may submit jobs to the partition, under the account and with the QOS."""

from __future__ import annotations

from collections.abc import Iterator

from ..slurm.cluster import Association, Partition, Site
from .finding import Finding, listed, ok, unknown, warning, wrong
from .profile import Profile

STATES = {
    "DOWN": "jobs are taken but none starts",
    "DRAIN": "no new jobs are taken",
    "INACTIVE": "no new jobs are taken and none starts",
}


def chosen(profile: Profile, site: Site) -> list[Partition]:
    """Return the profile's partitions that exist. Without a partition key, return the default partition."""
    partitions = site.partitions or {}
    if profile.partition is None:
        return [part for part in partitions.values() if part.default]
    return [partitions[name] for name in profile.partition.split(",") if name in partitions]


def missing(profile: Profile, site: Site) -> Iterator[Finding]:
    """Yield a finding for each partition of the profile that does not exist."""
    if site.partitions is None:
        yield unknown("partition", site.silent.get("partitions", "scontrol lists no partitions"))
        return
    visible = [part.name for part in site.partitions.values() if not part.hidden]
    advice = f"set partition to one of {listed(visible)}"
    if profile.partition is None and not chosen(profile, site):
        yield wrong("partition", "none is set, and the cluster has no default partition", advice)
    for name in (profile.partition or "").split(","):
        if name and name not in site.partitions:
            yield wrong("partition", f"there is no partition '{name}'", advice)


def partition(profile: Profile, site: Site, part: Partition) -> Iterator[Finding]:
    """Check that the partition is up and accepts jobs of this user."""
    name, is_root = f"'{part.name}'", site.user == "root"
    reservation = "reservation" in profile.sbatch
    if part.state in STATES:
        yield wrong("partition", f"{name} is {part.state}: {STATES[part.state]}", "wait, or choose another")
    elif part.root_only and not is_root:
        yield wrong("partition", f"{name} takes jobs of administrators only", "choose another")
    elif not is_root and not _admits_user_groups(site, part):
        allowed = listed(part.allowed["groups"] or ())
        yield wrong(
            "partition", f"{name} is for members of {allowed}", "ask for membership, or choose another"
        )
    elif part.needs_reservation and not reservation:
        yield wrong("partition", f"{name} takes jobs with a reservation only", "sbatch: {reservation: NAME}")
    elif part.state != "UP":
        yield unknown("partition", f"{name} has the state {part.state or '(none)'}")
    else:
        default = " (the default)" if profile.partition is None else ""
        yield ok("partition", f"{name}{default} is up")


def _admits_user_groups(site: Site, part: Partition) -> bool:
    if part.allowed["groups"] is None:
        return True
    return any(part.admits("groups", group) for group in site.groups)


def association(profile: Profile, site: Site, part: Partition) -> Association | None:
    """Return the user's association for the profile's account, or else for the default account."""
    account = profile.account or site.default_account
    return next(iter(site.associations_for(account, part)), None) if account else None


def account(profile: Profile, site: Site, part: Partition) -> Iterator[Finding]:
    """Check that the user has the account, and that the partition accepts it."""
    if not site.has_accounting:
        ignored = f"; '{profile.account}' is ignored" if profile.account else ""
        yield ok("account", f"this cluster keeps no accounts{ignored}")
    elif site.associations is None:
        yield unknown("account", site.silent.get("accounts", "sacctmgr says nothing of your accounts"))
    else:
        yield _account_finding(profile, site, part)


def _account_finding(profile: Profile, site: Site, part: Partition) -> Finding:
    severe = wrong if "associations" in site.enforced else warning
    not_enforced = "" if "associations" in site.enforced else " (not enforced here)"
    accounts = {row.account for row in site.associations or ()}
    name = profile.account or site.default_account
    if not accounts:
        return severe(
            "account",
            f"{site.user} has no account on this cluster{not_enforced}",
            "ask an administrator for one",
        )
    if name is None:
        return unknown(
            "account", "none is set, and Slurm tells no default", f"set account to one of {listed(accounts)}"
        )
    if name.lower() not in accounts:
        return severe(
            "account", f"'{name}' is not yours{not_enforced}", f"set account to one of {listed(accounts)}"
        )
    if not site.associations_for(name, part):
        here = [row.account for row in site.associations or () if row.partition in (None, part.name)]
        message = f"'{name}' is not yours in partition '{part.name}'{not_enforced}"
        return severe("account", message, f"set account; here you may use: {listed(here)}")
    if not part.admits("accounts", name.lower()):
        allowed = part.allowed["accounts"]
        advice = (
            f"it takes {listed(allowed)}"
            if allowed is not None
            else f"it refuses {listed(part.denied['accounts'])}"
        )
        return wrong("account", f"partition '{part.name}' does not take account '{name}'", advice)
    return ok("account", f"'{name}'" + ("" if profile.account else " (your default)"))


def qos_name(profile: Profile, site: Site, part: Partition) -> str | None:
    """Return the QOS of the profile's jobs. Return None if Slurm does not report it."""
    own_association = association(profile, site, part)
    if profile.qos or own_association is None:
        return profile.qos
    return own_association.default_qos or ("normal" if "normal" in own_association.qos else None)


def qos(profile: Profile, site: Site, part: Partition) -> Iterator[Finding]:
    """Check that the QOS exists, that the user may use it, and that the partition accepts it."""
    if not site.has_accounting:
        yield ok("QOS", f"this cluster keeps none{f'; {profile.qos!r} is ignored' if profile.qos else ''}")
    elif site.qos is None:
        yield unknown("QOS", site.silent.get("qos", "sacctmgr lists none"))
    else:
        yield _qos_finding(profile, site, part)


def _qos_finding(profile: Profile, site: Site, part: Partition) -> Finding:
    name, own_association = qos_name(profile, site, part), association(profile, site, part)
    if name is None:
        return unknown("QOS", "none is set, and Slurm tells no default", "set qos if jobs are refused")
    if name not in (site.qos or {}):
        return wrong("QOS", f"there is no QOS '{name}'", f"set qos to one of {listed(site.qos or ())}")
    if own_association is not None and own_association.qos and name not in own_association.qos:
        severe, where = (wrong, "") if "qos" in site.enforced else (warning, " (not enforced here)")
        message = f"'{name}' is not yours under account '{own_association.account}'{where}"
        return severe("QOS", message, f"set qos to one of {listed(own_association.qos)}")
    if not part.admits("qos", name):
        allowed = part.allowed["qos"]
        advice = (
            f"it takes {listed(allowed)}"
            if allowed is not None
            else f"it refuses {listed(part.denied['qos'])}"
        )
        return wrong("QOS", f"partition '{part.name}' does not take QOS '{name}'", advice)
    if own_association is None:
        return unknown("QOS", f"'{name}' exists; whether you may use it, Slurm does not say")
    return ok("QOS", f"'{name}'" + ("" if profile.qos else " (your default)"))
