"""What becomes of a run that has to make room: whether it is told in time, and whether it comes back."""

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
"""How long before its time limit a run is told, where a profile does not say."""
AMPLE = 2
"""A checkpoint should fit this many times into the time there is: a step has to be finished first."""


@dataclass(frozen=True)
class Preemption:
    """How jobs of a profile are preempted: what happens to them, after what notice, and for whom."""

    modes: frozenset[str]
    grace: float | None
    preemptors: tuple[str, ...] | None
    """Partitions or QOS that may do it; None: not known."""

    @property
    def possible(self) -> bool:
        """Whether it can happen at all."""
        return self.preemptors != () and self.modes != {"OFF"}


def preemption(profile: Profile, site: Site, part: Partition) -> Preemption | None:
    """Return how jobs are preempted; None if Slurm does not tell."""
    kind = site.config.get("PreemptType", "").rpartition("/")[2]
    if kind in ("none", "(null)"):
        return Preemption(frozenset({"OFF"}), None, ())
    if kind == "partition_prio":
        return Preemption(part.modes or _cluster_modes(site), part.grace, _higher(site, part))
    if kind == "qos":
        return _by_qos(site, (site.qos or {}).get(qos_name(profile, site, part) or ""))
    return None


def _higher(site: Site, part: Partition) -> tuple[str, ...] | None:
    """Return the partitions that preempt this one: those of a higher tier that share nodes with it."""
    if site.nodes is None or site.partitions is None:
        return None
    shared = {name for node in site.nodes_of(part) for name in node.partitions}
    return tuple(name for name, other in site.partitions.items() if name in shared and other.tier > part.tier)


def _by_qos(site: Site, own: Qos | None) -> Preemption | None:
    if own is None or site.qos is None:
        return None
    preemptors = tuple(name for name, other in site.qos.items() if own.name in other.preempts)
    return Preemption(own.modes or _cluster_modes(site), own.grace, preemptors)


def _cluster_modes(site: Site) -> frozenset[str]:
    return modes_of(site.config.get("PreemptMode"))


def mode(profile: Profile, site: Site, part: Partition) -> Iterator[Finding]:
    """Say what happens to a preempted run."""
    how = preemption(profile, site, part)
    if how is None or (how.possible and not how.modes):
        kind = site.config.get("PreemptType", "(not told)")
        yield unknown("preemption", f"how '{part.name}' preempts is not known (PreemptType {kind})")
    elif not how.possible:
        yield ok("preemption", f"nothing preempts jobs in '{part.name}'")
    else:
        yield _mode(profile, how)


def _mode(profile: Profile, how: Preemption) -> Finding:
    by = f" by {listed(how.preemptors)}" if how.preemptors else ""
    known = how.modes & {"REQUEUE", "CANCEL", "SUSPEND"}
    if len(known) != 1 or known != how.modes:
        return unknown("preemption", f"preempted{by}: {listed(how.modes)}", "more than one thing may happen")
    if known == {"SUSPEND"}:
        return warning(
            "preemption", f"suspended{by}: a run keeps its GPU, and its clock stands still meanwhile"
        )
    if known == {"CANCEL"} or not profile.requeue:
        why = "" if known == {"CANCEL"} else " (requeue: false)"
        return warning("preemption", f"cancelled{by}{why}: the next `alphagrid submit` continues the run")
    return ok("preemption", f"requeued{by}")


def grace(profile: Profile, site: Site, part: Partition) -> Iterator[Finding]:
    """Say how long a run that is preempted has for its checkpoint."""
    how = preemption(profile, site, part)
    if how is None or not how.possible or how.modes == {"SUSPEND"}:
        return
    if how.grace is None:
        yield unknown("grace", "Slurm does not say how much notice a preempted run gets")
    elif how.grace == 0:
        notice = notice_seconds(how, site)
        told = "moments" if notice is None else f"{notice:g} s"
        said = f"none: a preempted run has {told} from SIGTERM to SIGKILL (KillWait)"
        yield warning("grace", said, "checkpoint often: checkpoint.every_seconds in the specification")
    else:
        yield ok("grace", f"a preempted run has {how.grace:g} s for its checkpoint")


def notice_seconds(how: Preemption, site: Site) -> float | None:
    """Return the time between a preempted job's SIGTERM and its SIGKILL."""
    return how.grace if how.grace != 0 else notation.whole(site.config.get("KillWait"))


def checkpoint(profile: Profile, site: Site, part: Partition, measured: Measured | str) -> Iterator[Finding]:
    """Say whether a checkpoint fits into the notice, and into the time before the time limit.

    `measured` is a text where there is no measurement: why not.
    """
    how = preemption(profile, site, part)
    notice = notice_seconds(how, site) if how and how.possible and how.modes != {"SUSPEND"} else None
    ahead = None if profile.hours is None else float(profile.signal_seconds or SIGNAL_SECONDS)
    if notice is None and ahead is None:
        return
    if isinstance(measured, str):
        yield unknown("checkpoint", measured, "submit one run, then check again with its --root")
        return
    if notice is not None:
        yield _in_time(
            measured, notice, "of notice before a preemption", "checkpoint.every_seconds bounds the loss"
        )
    if ahead is not None:
        needed = f"signal_seconds: {max(SIGNAL_SECONDS, round(measured.seconds * 2 * AMPLE))}"
        yield _in_time(measured, ahead, "from signal to time limit", needed)


def _in_time(measured: Measured, available: float, what: str, advice: str) -> Finding:
    said = f"{measured.seconds:.3g} s ({measured.experiment}, {measured.run}) of {available:g} s {what}"
    if measured.seconds > available:
        return wrong("checkpoint", f"{said}: not enough", advice)
    if measured.seconds * AMPLE > available:
        return warning("checkpoint", f"{said}: tight", advice)
    return ok("checkpoint", said)


def requeue(profile: Profile, site: Site) -> Iterator[Finding]:
    """Say whether jobs may come back; alphagrid asks for it explicitly, whatever JobRequeue is."""
    allowed = site.config.get("JobRequeue")
    most = notation.whole(site.config.get("MaxBatchRequeue"))
    held = f"; held after {most} failed starts (`alphagrid retry` releases it)" if most else ""
    if not profile.requeue:
        yield warning(
            "requeue", "off: a preempted run waits for the next `alphagrid submit`", "requeue: true"
        )
    elif allowed == "0":
        yield ok("requeue", f"not the cluster's default (JobRequeue=0), but each job asks for it{held}")
    elif allowed == "1":
        yield ok("requeue", f"jobs may be requeued{held}")
    else:
        yield unknown("requeue", "the cluster does not say (JobRequeue)")


def accounting(site: Site) -> Iterator[Finding]:
    """Say whether it can be asked what became of jobs that have left the queue."""
    failure = site.silent.get("sacct")
    if failure is None:
        yield ok("accounting", "sacct answers")
    elif not site.has_accounting:
        yield warning("accounting", "off: how a job ended that has left the queue is known from its log only")
    else:
        yield warning("accounting", f"sacct fails: {failure}", "`sacctmgr ping` says whether slurmdbd is up")
