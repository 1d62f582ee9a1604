"""Check time limits, array sizes and submit limits of the partition, the QOS and the account."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from ..slurm import notation
from ..slurm.cluster import Partition, Site
from ..slurm.sbatch import MAX_ARRAY
from .access import association, qos_name
from .finding import Finding, hours, hours_key, ok, unknown, warning, wrong
from .profile import Profile


def time_limit(profile: Profile, site: Site, part: Partition) -> Iterator[Finding]:
    """Check the time limit against the limits of the partition, the QOS and the account."""
    limits = time_limits(profile, site, part)
    if profile.hours is None:
        yield _default_time_finding(part)
        return
    requested = math.ceil(profile.hours * 60) * 60
    exceeded = {owner: limit for owner, limit in limits.items() if requested > limit}
    if exceeded:
        owner, least = min(exceeded.items(), key=lambda item: item[1])
        yield wrong(
            "time limit",
            f"{hours(requested)}, but {owner} allows {hours(least)}",
            f"hours: {hours_key(least)}",
        )
    elif part.max_seconds is None:
        yield unknown("time limit", f"{hours(requested)}; '{part.name}' tells no limit")
    else:
        limit_list = ", ".join(f"{owner}: {hours(limit)}" for owner, limit in limits.items())
        unsure = "" if site.qos is not None or not site.has_accounting else "; the QOS may allow less"
        yield ok("time limit", f"{hours(requested)} ({limit_list}{unsure})")


def time_limits(profile: Profile, site: Site, part: Partition) -> dict[str, float]:
    """Return the time limits that apply, in seconds, by owner.

    They are the partition's limit, and the first limit that the QOS or the account sets.
    """
    limits = {} if part.max_seconds is None else {f"partition '{part.name}'": part.max_seconds}
    if "limits" not in site.enforced and "safe" not in site.enforced:
        return limits
    qos_list = (
        [site.qos[name] for name in _qos_names(profile, site, part) if name in site.qos] if site.qos else []
    )
    candidates = [(f"QOS '{qos.name}'", qos.max_seconds) for qos in qos_list]
    own_association = association(profile, site, part)
    candidates += (
        [(f"account '{own_association.account}'", own_association.max_seconds)] if own_association else []
    )
    first = next(((owner, limit) for owner, limit in candidates if limit is not None), None)
    return {**limits, first[0]: first[1]} if first else limits


def _qos_names(profile: Profile, site: Site, part: Partition) -> list[str]:
    """Return the QOS of the partition and of the job. The QOS that overrides the other comes first."""
    job_qos = qos_name(profile, site, part)
    names = [name for name in (part.qos, job_qos) if name]
    overrides = job_qos and site.qos and job_qos in site.qos and "OverPartQOS" in site.qos[job_qos].flags
    return names[::-1] if overrides else names


def _default_time_finding(part: Partition) -> Finding:
    limit = part.max_seconds if part.default_seconds is None else part.default_seconds
    if limit is None:
        return unknown("time limit", f"not set; what '{part.name}' gives, Slurm does not say", "set hours")
    if part.default_seconds is not None and limit != part.max_seconds:
        return warning("time limit", f"not set; '{part.name}' gives {hours(limit)} by default", "set hours")
    return ok("time limit", f"not set; '{part.name}' gives {hours(limit)}")


def array_size(profile: Profile, site: Site) -> Iterator[Finding]:
    """Check that the cluster accepts arrays as large as those that alphagrid submits."""
    limit = largest_array(site)
    size = profile.max_array or MAX_ARRAY
    if limit is None:
        yield unknown("array size", "the cluster tells no MaxArraySize")
    elif limit == 0:
        yield wrong(
            "array size", "this cluster takes no job arrays (MaxArraySize is 0)", "ask an administrator"
        )
    elif size > limit:
        default = "" if profile.max_array else " (the default)"
        yield wrong(
            "array size", f"{size}{default}, but the cluster takes {limit} at most", f"max_array: {limit}"
        )
    else:
        more = (
            f"; max_array: {limit} would need fewer sbatch calls"
            if limit > size and not profile.max_array
            else ""
        )
        yield ok("array size", f"{size} of at most {limit}{more}")


def largest_array(site: Site) -> int | None:
    """Return the maximum number of jobs in an array. Indices go from 0 to MaxArraySize - 1."""
    size = notation.whole(site.config.get("MaxArraySize"))
    tasks = re.search(r"max_array_tasks=(\d+)", site.config.get("SchedulerParameters", ""))
    return size if size is None or tasks is None else min(size, int(tasks[1]))


def submit_limit(profile: Profile, site: Site, part: Partition) -> Iterator[Finding]:
    """Yield the lowest limit on the number of the user's jobs. Yield nothing if no limit is set."""
    own_association = association(profile, site, part)
    limits = {f"account '{own_association.account}'": own_association.max_submit} if own_association else {}
    for name in _qos_names(profile, site, part):
        qos = (site.qos or {}).get(name)
        limits |= {f"QOS '{name}'": qos.max_submit} if qos else {}
    set_limits = {owner: limit for owner, limit in limits.items() if limit is not None}
    if set_limits:
        owner, least = min(set_limits.items(), key=lambda item: item[1])
        message = (
            f"{owner} lets you have {least} jobs at a time; what does not fit goes out with the next submit"
        )
        yield ok("submit limit", message)
