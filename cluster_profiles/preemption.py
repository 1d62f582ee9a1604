"""Check preemption: how Slurm preempts a run, how much notice it gets, and whether Slurm requeues it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..slurm import notation
from ..slurm.cluster import Partition, Qos, Site
from ..slurm.cluster import modes as modes_of
from .access import qos_name
from .finding import Finding, listed, ok, unknown, warning, wrong
from .measured import Measured
from .profile import Profile

SIGNAL_SECONDS = 90
"""Default of `signal_seconds`: seconds between the stop signal and the time limit."""
AMPLE = 2
"""Recommended ratio of available time to checkpoint time. The run finishes a step before the checkpoint."""


@dataclass(frozen=True)
class Preemption:
    """How Slurm preempts the jobs of a profile: modes, grace time in seconds, and preemptors."""

    modes: frozenset[str]
    grace: float | None
    preemptors: tuple[str, ...] | None
    """Partitions or QOS that may preempt the jobs. None: unknown."""

    @property
    def possible(self) -> bool:
        """Return whether the jobs can be preempted."""
        return self.preemptors != () and self.modes != {"OFF"}


def preemption(profile: Profile, site: Site, part: Partition) -> Preemption | None:
    """Return how Slurm preempts jobs of the profile. Return None if Slurm does not report it."""
    kind = site.config.get("PreemptType", "").rpartition("/")[2]
    if kind in ("none", "(null)"):
        return Preemption(frozenset({"OFF"}), None, ())
    if kind == "partition_prio":
        return Preemption(part.modes or _cluster_modes(site), part.grace, _preempting_partitions(site, part))
    if kind == "qos":
        return _preemption_by_qos(site, (site.qos or {}).get(qos_name(profile, site, part) or ""))
    return None


def _preempting_partitions(site: Site, part: Partition) -> tuple[str, ...] | None:
    """Return the partitions that preempt this one. They have a higher tier and share nodes with it."""
    if site.nodes is None or site.partitions is None:
        return None
    shared = {name for node in site.nodes_of(part) for name in node.partitions}
    return tuple(name for name, other in site.partitions.items() if name in shared and other.tier > part.tier)


def _preemption_by_qos(site: Site, job_qos: Qos | None) -> Preemption | None:
    if job_qos is None or site.qos is None:
        return None
    preemptors = tuple(name for name, other in site.qos.items() if job_qos.name in other.preempts)
    return Preemption(job_qos.modes or _cluster_modes(site), job_qos.grace, preemptors)


def _cluster_modes(site: Site) -> frozenset[str]:
    return modes_of(site.config.get("PreemptMode"))


def mode(profile: Profile, site: Site, part: Partition) -> Iterator[Finding]:
    """Yield a finding on what Slurm does to a preempted run."""
    rules = preemption(profile, site, part)
    if rules is None or (rules.possible and not rules.modes):
        kind = site.config.get("PreemptType", "(not told)")
        yield unknown("preemption", f"how '{part.name}' preempts is not known (PreemptType {kind})")
    elif not rules.possible:
        yield ok("preemption", f"nothing preempts jobs in '{part.name}'")
    else:
        yield _mode_finding(profile, rules)


def _mode_finding(profile: Profile, rules: Preemption) -> Finding:
    by = f" by {listed(rules.preemptors)}" if rules.preemptors else ""
    modes = rules.modes & {"REQUEUE", "CANCEL", "SUSPEND"}
    if len(modes) != 1 or modes != rules.modes:
        return unknown(
            "preemption", f"preempted{by}: {listed(rules.modes)}", "more than one thing may happen"
        )
    if modes == {"SUSPEND"}:
        return warning(
            "preemption", f"suspended{by}: a run keeps its GPU, and its clock stands still meanwhile"
        )
    if modes == {"CANCEL"} or not profile.requeue:
        reason = "" if modes == {"CANCEL"} else " (requeue: false)"
        return warning("preemption", f"cancelled{by}{reason}: the next `alphagrid submit` continues the run")
    return ok("preemption", f"requeued{by}")


def grace(profile: Profile, site: Site, part: Partition) -> Iterator[Finding]:
    """Yield a finding on the time that a preempted run has for its checkpoint."""
    rules = preemption(profile, site, part)
    if rules is None or not rules.possible or rules.modes == {"SUSPEND"}:
        return
    if rules.grace is None:
        yield unknown("grace", "Slurm does not say how much notice a preempted run gets")
    elif rules.grace == 0:
        notice = notice_seconds(rules, site)
        duration = "moments" if notice is None else f"{notice:g} s"
        message = f"none: a preempted run has {duration} from SIGTERM to SIGKILL (KillWait)"
        yield warning("grace", message, "checkpoint often: checkpoint.every_seconds in the specification")
    else:
        yield ok("grace", f"a preempted run has {rules.grace:g} s for its checkpoint")


def notice_seconds(rules: Preemption, site: Site) -> float | None:
    """Return the seconds between SIGTERM and SIGKILL of a preempted job."""
    return rules.grace if rules.grace != 0 else notation.whole(site.config.get("KillWait"))


def checkpoint(profile: Profile, site: Site, part: Partition, measured: Measured | str) -> Iterator[Finding]:
    """Check that a checkpoint fits into the preemption notice and into the time before the time limit.

    If there is no measurement, `measured` is the reason as text.
    """
    rules = preemption(profile, site, part)
    notice = notice_seconds(rules, site) if rules and rules.possible and rules.modes != {"SUSPEND"} else None
    signal_seconds = None if profile.hours is None else float(profile.signal_seconds or SIGNAL_SECONDS)
    if notice is None and signal_seconds is None:
        return
    if isinstance(measured, str):
        yield unknown("checkpoint", measured, "submit one run, then check again with its --root")
        return
    if notice is not None:
        yield _checkpoint_finding(
            measured, notice, "of notice before a preemption", "checkpoint.every_seconds bounds the loss"
        )
    if signal_seconds is not None:
        advice = f"signal_seconds: {max(SIGNAL_SECONDS, round(measured.seconds * 2 * AMPLE))}"
        yield _checkpoint_finding(measured, signal_seconds, "from signal to time limit", advice)


def _checkpoint_finding(measured: Measured, available: float, what: str, advice: str) -> Finding:
    message = f"{measured.seconds:.3g} s ({measured.experiment}, {measured.run}) of {available:g} s {what}"
    if measured.seconds > available:
        return wrong("checkpoint", f"{message}: not enough", advice)
    if measured.seconds * AMPLE > available:
        return warning("checkpoint", f"{message}: tight", advice)
    return ok("checkpoint", message)


def requeue(profile: Profile, site: Site) -> Iterator[Finding]:
    """Check that Slurm may requeue jobs. alphagrid requests it explicitly, so JobRequeue has no effect."""
    allowed = site.config.get("JobRequeue")
    most = notation.whole(site.config.get("MaxBatchRequeue"))
    limit_text = f"; held after {most} failed starts (`alphagrid retry` releases it)" if most else ""
    if not profile.requeue:
        yield warning(
            "requeue", "off: a preempted run waits for the next `alphagrid submit`", "requeue: true"
        )
    elif allowed == "0":
        yield ok("requeue", f"not the cluster's default (JobRequeue=0), but each job asks for it{limit_text}")
    elif allowed == "1":
        yield ok("requeue", f"jobs may be requeued{limit_text}")
    else:
        yield unknown("requeue", "the cluster does not say (JobRequeue)")


def accounting(site: Site) -> Iterator[Finding]:
    """Check that sacct reports the state of jobs that have left the queue."""
    failure = site.silent.get("sacct")
    if failure is None:
        yield ok("accounting", "sacct answers")
    elif not site.has_accounting:
        yield warning("accounting", "off: how a job ended that has left the queue is known from its log only")
    else:
        yield warning("accounting", f"sacct fails: {failure}", "`sacctmgr ping` says whether slurmdbd is up")
