"""What has to hold before anything is submitted, and written."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..cluster_profiles.loader import Profile
from ..documents import Document
from ..errors import UserError
from ..store.layout import Root
from .variables import where_used

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


def warnings(profile: Profile, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return what is odd about the submitter's environment, though no reason to refuse."""
    ignored = sorted(name for name in environ if name.startswith("SBATCH_"))
    if profile.cluster != "slurm" or not ignored:
        return ()
    keys = [f"{name} (profile key: {PROFILE_KEYS[name]})" for name in ignored if name in PROFILE_KEYS]
    others = [name for name in ignored if name not in PROFILE_KEYS]
    told = (f"{', '.join([*keys, *others])} would override the profile and are ignored",)
    return told if others == ignored else (f"{told[0]}; write the values into the profile",)


def check_variables(names: Sequence[str], environ: Mapping[str, str], document: Document) -> None:
    """Refuse a specification some of whose variables are not set.

    Raises:
        UserError: which ones.
    """
    if missing := [name for name in names if name not in environ]:
        names = ", ".join(f"${{{name}}}" for name in missing)
        where = f"{where_used(document, missing[0])}: "
        raise UserError(
            f"{where}not set in the environment: {names}", f"export {missing[0]}=… before submitting"
        )


def check_writable(root: Root) -> None:
    """Make the root, and refuse one that cannot be written.

    Raises:
        UserError: why not.
    """
    try:
        root.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(root.path, error.strerror or str(error)) from error
    if not os.access(root.path, os.W_OK | os.X_OK):
        raise _unwritable(root.path, "no permission")


def _unwritable(path: Path, why: str) -> UserError:
    return UserError(
        f"cannot write below the root {path}: {why}", "choose another: --root DIR or ALPHAGRID_ROOT"
    )
