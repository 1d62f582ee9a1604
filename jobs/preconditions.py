"""Conditions that must hold before a submission writes anything."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..documents import Document
from ..errors import UserError
from ..store.layout import Root
from .specification.variables import where_used


def check_variables(names: Sequence[str], environ: Mapping[str, str], document: Document) -> None:
    """Refuse a specification that uses variables that are not set.

    Raises:
        UserError: the message names the variables.
    """
    if missing := [name for name in names if name not in environ]:
        names = ", ".join(f"${{{name}}}" for name in missing)
        where = f"{where_used(document, missing[0])}: "
        raise UserError(
            f"{where}not set in the environment: {names}", f"export {missing[0]}=… before submitting"
        )


def check_writable(root: Root) -> None:
    """Create the root, and refuse a root that cannot be written.

    Raises:
        UserError: the message says why.
    """
    try:
        root.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable_error(root.path, error.strerror or str(error)) from error
    if not os.access(root.path, os.W_OK | os.X_OK):
        raise _unwritable_error(root.path, "no permission")


def check_umask(root: Root) -> None:
    """Refuse a umask that would hide this user's files from the group that shares the root.

    A root is shared with a group if the group may write into it, or if its setgid bit is set (it is inherited
    from the parent folder) and the group may enter it.

    Raises:
        UserError: the message names the umask and a command.
    """
    umask = _current_umask()
    if not umask & 0o050:
        return
    existing = next(path for path in (root.path, *root.path.parents) if os.path.exists(path))  # noqa: PTH110
    mode = existing.stat().st_mode
    is_inherited = bool(mode & stat.S_ISGID and mode & stat.S_IRWXG)
    if is_inherited or (existing == root.path and mode & stat.S_IWGRP):
        quoted_root = shlex.quote(str(root.path))
        raise UserError(
            f"the root {root.path} is shared with a group (mode {stat.S_IMODE(mode):04o}), and your umask "
            f"{umask:04o} would hide your runs from it",
            f"umask 027, then submit again; or make the root yours alone: mkdir -p {quoted_root} && "
            f"chmod g-rwxs,o-rwx {quoted_root}",
        )


def warnings(root: Root) -> tuple[str, ...]:
    """Return warnings if all users may write to the root or its new files, which jobs run as this user."""
    means = "who may write there can have programs run under your account (docs/security.md)"
    messages = []
    if root.path.stat().st_mode & stat.S_IWOTH:
        messages.append(f"the root {root.path} can be written by every user: {means}; chmod o-w {root.path}")
    umask = _current_umask()
    if not umask & stat.S_IWOTH:
        messages.append(f"your umask {umask:04o} lets every user write what is submitted: {means}; umask 022")
    return tuple(messages)


def _current_umask() -> int:
    """Return this process' umask; the only way to read it is to set it."""
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


def _unwritable_error(path: Path, why: str) -> UserError:
    return UserError(
        f"cannot write below the root {path}: {why}", "choose another: --root DIR or ALPHAGRID_ROOT"
    )
