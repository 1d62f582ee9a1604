"""Whose an experiment is: its folder belongs to the user who submitted it first.

Only that user submits to it, cancels and retries. Slurm lists a user's own jobs, so another's would seem lost
and be sent twice; and this machine runs local runs, with the code they name, under its submitter's account.
"""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import UserError
from .folders import user_name
from .layout import ExperimentFiles
from .location import LOCAL, filesystem_type


def uid(folder: Path) -> int:
    """Return the user whom a folder belongs to; one that is not there to be seen may become this user's."""
    try:
        return folder.stat().st_uid
    except OSError:
        return os.geteuid()


def other_owner(files: ExperimentFiles) -> str | None:
    """Return the name of the user whose an experiment is; None if it is this user's, or not there yet."""
    owner = uid(files.path)
    if owner == os.geteuid() or owner == _uid_of_new_files(files.path.parent):
        return None
    return user_name(owner)


def check(files: ExperimentFiles, verb: str) -> None:
    """Refuse to change another user's experiment; `verb` says what was meant: cancel, retry.

    Raises:
        UserError: whose it is.
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
    """Return whose the files are that this user makes in a folder, if its file system changes owners.

    Some network file systems give all files to one user, whoever made them.
    """
    kind = filesystem_type(folder)
    if kind is None or kind in LOCAL:
        return None
    import tempfile  # reading commands have no use for it

    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            return os.fstat(file.fileno()).st_uid
    except OSError:
        return None
