"""Environment variables of sbatch, which alphagrid ignores: the profile alone sets a job's options."""

from __future__ import annotations

from collections.abc import Mapping

PROFILE_KEYS = {
    "SBATCH_ACCOUNT": "account",
    "SBATCH_CONSTRAINT": "constraint",
    "SBATCH_GRES": "gres",
    "SBATCH_MEM_PER_NODE": "memory",
    "SBATCH_PARTITION": "partition",
    "SBATCH_QOS": "qos",
    "SBATCH_RESERVATION": "sbatch: {reservation: …}",
    "SBATCH_TIMELIMIT": "hours",
}
"""The profile's key for a variable of sbatch (sbatch(1), "INPUT ENVIRONMENT VARIABLES")."""


def ignored_variables(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return a warning that names the sbatch variables that are set, and the profile's keys for them."""
    ignored = sorted(name for name in environ if name.startswith("SBATCH_"))
    if not ignored:
        return ()
    keys = [f"{name} (profile key: {PROFILE_KEYS[name]})" for name in ignored if name in PROFILE_KEYS]
    other_names = [name for name in ignored if name not in PROFILE_KEYS]
    warning = f"{', '.join([*keys, *other_names])} would override the profile and are ignored"
    return (warning if other_names == ignored else f"{warning}; write the values into the profile",)
