"""Check whether Slurm's nodes can use a root: its path and its file system."""

from __future__ import annotations

import re
from collections.abc import Callable

from ...errors import SystemRefused, UserError
from ...slurm import nodes
from ...store.layout import Root
from ...store.location import LOCAL, FilesystemOf, filesystem_type
from ..code.project_files import shown

CHANGED_BY_SLURM = re.compile(r"[%\\\n]")
"""`%` begins a filename pattern, a backslash switches patterns off, a line break ends the #SBATCH line."""
OTHER_ROOT = "choose another root: --root DIR or ALPHAGRID_ROOT"


def check_path(root: Root) -> None:
    """Refuse a root under which Slurm would write logs to other files (sbatch(1), "FILENAME PATTERN").

    Raises:
        UserError: its path holds `%`, a backslash or a line break, or is not UTF-8.
    """
    path = str(root.path.absolute())
    try:
        path.encode()
    except UnicodeEncodeError:
        raise UserError(f"the path of the root {shown(path)} is not UTF-8", OTHER_ROOT) from None
    if match := CHANGED_BY_SLURM.search(path):
        raise UserError(
            f"the path of the root {path!r} holds {match[0]!r}, which Slurm changes in names of files",
            OTHER_ROOT,
        )


def warnings(
    root: Root,
    filesystem_of: FilesystemOf = filesystem_type,
    is_one_machine: Callable[[], bool] = nodes.are_all_here,
) -> tuple[str, ...]:
    """Return a warning if the root's file system shows that other nodes cannot see it."""
    kind = filesystem_of(root.path)
    if kind not in LOCAL or _is_one_machine(is_one_machine):
        return ()
    problem = f"the root {root.path} lies on a file system of this machine alone ({kind})"
    return (f"{problem}; jobs on other nodes fail unless they share it; {OTHER_ROOT}",)


def _is_one_machine(ask: Callable[[], bool]) -> bool:
    try:
        return ask()
    except SystemRefused:
        return False
