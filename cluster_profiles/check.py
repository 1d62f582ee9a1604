"""Validate a profile against the live cluster."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import UserError
from ..slurm.cluster import Partition, Site
from ..slurm.inspect import Answer, Ask, ask, require, survey
from ..store.layout import Root
from . import access, fit, limits, preemption, secret_values
from .finding import Finding, Verdict, ok, unknown, warning, wrong
from .fit import Wish
from .measured import Measured, slowest_checkpoint
from .profile import Profile

NO_NODE_NOW = "Requested node configuration is not available"
POLICY = "Job violates accounting/QOS policy"
SILENCE = ("cannot be run", "did not answer", "Unable to contact", "timed out", "Connection refused")


@dataclass(frozen=True)
class Checked:
    """The result of a check: one finding per line."""

    profile: str
    cluster: str
    version: str
    findings: tuple[Finding, ...]

    @property
    def is_wrong(self) -> bool:
        """Return whether the profile needs a change."""
        return any(finding.verdict is Verdict.wrong for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Return the result as a dictionary for JSON."""
        return {**asdict(self), "wrong": self.is_wrong}


def check(profile: Profile, root: Root, ask: Ask = ask) -> Checked:
    """Validate a profile against the cluster that this machine's Slurm commands talk to.

    The runs under `root` say how long a checkpoint takes.

    Raises:
        UserError: the profile is not for Slurm, or this machine has no Slurm.
        SystemRefused: Slurm's controller does not answer.
    """
    if not profile.uses_slurm:
        raise UserError(
            f"profile '{profile.name}' is not for Slurm (cluster: {profile.cluster})", "nothing to check"
        )
    require()
    site = survey(ask)
    measured = slowest_checkpoint(root)
    findings = [*verdicts(profile, site, measured), trial(profile, site, ask(trial_command(profile)))]
    return Checked(profile.name, site.name, site.config.get("SLURM_VERSION", ""), tuple(findings))


def verdicts(profile: Profile, site: Site, measured: Measured | str) -> Iterator[Finding]:
    """Yield findings on a profile. Checks of a partition run once for each partition that it names."""
    yield from secrets(profile)
    yield from access.missing(profile, site)
    for part in access.chosen(profile, site):
        yield from _partition_findings(profile, site, part, measured)
    yield from limits.array_size(profile, site)
    yield from preemption.requeue(profile, site)
    yield from preemption.accounting(site)


def _partition_findings(
    profile: Profile, site: Site, part: Partition, measured: Measured | str
) -> Iterator[Finding]:
    yield from access.partition(profile, site, part)
    yield from access.account(profile, site, part)
    yield from access.qos(profile, site, part)
    yield from fit.fit(profile, site, part)
    yield from limits.time_limit(profile, site, part)
    yield from limits.submit_limit(profile, site, part)
    yield from preemption.mode(profile, site, part)
    yield from preemption.grace(profile, site, part)
    yield from preemption.checkpoint(profile, site, part, measured)


def secrets(profile: Profile) -> Iterator[Finding]:
    """Yield a warning for each literal value that looks like a secret."""
    for key, name in secret_values.literal_secrets(profile):
        message = f"{key}: the value of {name} looks like a secret; submissions and job scripts keep it"
        yield warning("secrets", message, secret_values.advice(name))


def trial_command(profile: Profile) -> list[str]:
    """Return an sbatch command that tests whether Slurm accepts a job of the profile. It submits nothing."""
    values = {
        "partition": profile.partition,
        "gres": profile.gres,
        "account": profile.account,
        "qos": profile.qos,
        "constraint": profile.constraint,
        "exclude": profile.exclude,
        "cpus-per-task": profile.cpus,
        "mem": profile.memory,
        "time": None if profile.hours is None else math.ceil(profile.hours * 60),
        **{key.replace("_", "-"): value for key, value in profile.sbatch.items()},
    }
    options = [
        f"--{key}" if value is True else f"--{key}={value}"
        for key, value in values.items()
        if value is not None
    ]
    requeue = "--requeue" if profile.requeue else "--no-requeue"
    return ["sbatch", "--test-only", "--nodes=1", "--ntasks=1", requeue, *options, "--wrap=true"]


def trial(profile: Profile, site: Site, answer: Answer) -> Finding:
    """Return a finding on the answer of sbatch to `trial_command`."""
    if answer.failure is None:
        return ok("sbatch", "--test-only: a job would be taken")
    message = (
        answer.failure.splitlines()[-1].removeprefix("allocation failure: ").removeprefix("sbatch: error: ")
    )
    if any(phrase in answer.failure for phrase in SILENCE):
        return unknown("sbatch", f"--test-only: {message}")
    if NO_NODE_NOW in message and _some_node_fits(profile, site):
        return warning("sbatch", f"--test-only: {message}", "jobs wait until a node that fits is up")
    if POLICY in message:
        return warning(
            "sbatch", f"--test-only: {message}", "fine if you have as many jobs as you may have already"
        )
    return wrong(
        "sbatch",
        f"--test-only: {message}",
        "see the lines above; `alphagrid profiles show` prints the profile",
    )


def _some_node_fits(profile: Profile, site: Site) -> bool:
    nodes = [node for part in access.chosen(profile, site) for node in site.nodes_of(part)]
    return any(not Wish.of(profile).lacks(node) for node in nodes)
