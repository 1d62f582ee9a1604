"""Ownership of an experiment: its folder belongs to the user who submitted it first.

Only that user submits to it, cancels and retries. Slurm lists only a user's own jobs, so another user's jobs
would seem lost, and `submit` would submit them again. A local run executes the code of its submission under
the account of the submitter.
"""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import UserError
from .folders import user_name
from .layout import ExperimentFiles
from .location import LOCAL, filesystem_type


def uid(folder: Path) -> int:
    """Return the owner of a folder; this user if the folder does not exist or cannot be seen."""
    try:
        return folder.stat().st_uid
    except OSError:
        return os.geteuid()


def other_owner(files: ExperimentFiles) -> str | None:
    """Return the owner of an experiment; None if this user owns it, or it does not exist yet."""
    owner = uid(files.path)
    if owner == os.geteuid() or owner == _uid_of_new_files(files.path.parent):
        return None
    return user_name(owner)


def check(files: ExperimentFiles, verb: str) -> None:
    """Refuse to change another user's experiment; `verb` is the command: submit, cancel, retry.

    Raises:
        UserError: another user owns the experiment.
    """
    owner = other_owner(files)
    if owner is None:
        return
    whose = f"the experiment '{files.name}' under {files.path.parent} belongs to {owner}"
    if verb == "submit":
        raise UserError(
            f"{whose}: others cannot submit to it", "give yours another name: --set experiment=NAME"
        )
    raise UserError(
        f"{whose}: others cannot {verb} its runs", f"ask {owner} to: alphagrid {verb} {files.name}"
    )


def _uid_of_new_files(folder: Path) -> int | None:
    """Return the owner of files that this user creates in a folder, if its file system changes owners.

    Some network file systems assign all files to one user.
    """
    kind = filesystem_type(folder)
    if kind is None or kind in LOCAL:
        return None
    import tempfile  # commands that only read do not need it

    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            return os.fstat(file.fileno()).st_uid
    except OSError:
        return None
