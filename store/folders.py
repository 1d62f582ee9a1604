"""Private folders of a user, in the home or in a folder where every user may write."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from contextlib import suppress
from pathlib import Path

from ..errors import SystemRefused

SHARED = Path("/var/tmp")
"""The parent of such a folder if the home is not on a local disk. Unlike /tmp, it is the same for all
processes of a user, independent of `TMPDIR` or a job's private /tmp. Its files survive a restart."""


def make_private(folder: Path) -> None:
    """Create a folder that only its user can enter, or check an existing one.

    Where other users may write, another user may have created the folder first: that user could read or
    replace it, or put links to this user's files there. Elsewhere an older version may have created the
    folder with too open a mode, which this function corrects.

    Raises:
        SystemRefused: the folder belongs to another user, is a link or not a folder, or cannot be created.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        above = folder.parent.stat()
        other_writers = _other_writers(above)
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        status = folder.lstat()
        is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
        if other_writers is None and is_ours and status.st_mode & 0o077:
            folder.chmod(0o700)
            status = folder.lstat()
    except OSError as error:
        raise SystemRefused(
            f"cannot make the folder {folder}: {error.strerror}", _removal_hint(folder)
        ) from error
    if other_writers is not None and not above.st_mode & stat.S_ISVTX:
        mode = f"mode {stat.S_IMODE(above.st_mode):04o} of {folder.parent}"
        raise SystemRefused(
            f"the folder {folder} can be replaced by {other_writers} ({mode})",
            f"chmod go-w {folder.parent}; or {_own_folder_hint()}",
        )
    if problem := _folder_problem(status):
        raise SystemRefused(f"the folder {folder} {problem}", _removal_hint(folder))


def user_name(uid: int) -> str:
    """Return the name of a user, or the number where there is no name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"the user {uid}"


def _other_writers(folder: os.stat_result) -> str | None:
    """Return which other users may create and remove files in a folder, or None."""
    if folder.st_mode & stat.S_IWOTH:
        return "every user"
    if folder.st_mode & stat.S_IWGRP and not _is_private_group(folder.st_gid):
        return f"the group {_group_name(folder.st_gid)}"
    return None


def _is_private_group(gid: int) -> bool:
    """Return whether a group has only this user; many systems create such a group for each user."""
    try:
        user = pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    return gid == user.pw_gid and _group_name(gid) == user.pw_name


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _folder_problem(status: os.stat_result) -> str | None:
    if stat.S_ISLNK(status.st_mode):
        return "is a link, perhaps to another user's files"
    if not stat.S_ISDIR(status.st_mode):
        return "is no folder"
    if status.st_uid != os.geteuid():
        return f"belongs to {user_name(status.st_uid)}, and holds locks and indexes of your own alone"
    if status.st_mode & 0o077:
        return f"can be entered by others (mode {stat.S_IMODE(status.st_mode):04o} instead of 0700)"
    return None


def _removal_hint(folder: Path) -> str:
    return f"remove it (see ls -ld {folder}), or ask its owner to; or {_own_folder_hint()}"


def _own_folder_hint() -> str:
    return "name a folder of your own on a local disk: export XDG_CACHE_HOME=DIR XDG_STATE_HOME=DIR"
