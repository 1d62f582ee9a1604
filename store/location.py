"""Choose a local disk for the index of a root and for the locks of a user's slots.

SQLite on a network file system loses data, and locks there reach only some machines. If the home is on a
local disk, the index lies in its cache folder, and the locks in its state folder, which tools that clean
caches leave alone. Otherwise both lie in /var/tmp, in a private folder of this user (`folders`).
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from . import folders
from .layout import DATABASE, Root

FilesystemOf = Callable[[Path], str | None]
"""Returns the type of the file system that a path lies on, None if it is unknown."""

LOCAL = frozenset(
    {
        *("apfs", "bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "hfs", "jfs"),
        *("overlay", "ramfs", "reiserfs", "rootfs", "tmpfs", "ufs", "xfs", "zfs"),
    }
)
"""File systems of one machine. All others (nfs, lustre, gpfs, fuse.…) count as shared."""


def database_path(root: Root, environ: Mapping[str, str], filesystem_of: FilesystemOf | None = None) -> Path:
    """Return the path of the index of `root`: the owner's in `<root>/alphagrid.db`, else in the user's cache.

    All users but the root's owner use their cache. So does the owner if the root is not on a local disk, is
    not writable, or holds an index of another user. If the cache is not on a local disk either (for example
    in a home on NFS), the index lies in /var/tmp.
    """
    kind_of = filesystem_of or filesystem_type
    if _is_usable(root.path, kind_of) and _is_owned_by_user(root):
        return root.path / DATABASE
    absolute = str(root.path.resolve())
    name = f"{hashlib.sha256(absolute.encode()).hexdigest()[:16]}-{root.path.name}"
    return _user_folder(environ, "XDG_CACHE_HOME", ".cache", kind_of) / name / DATABASE


def slots_folder(environ: Mapping[str, str], filesystem_of: FilesystemOf | None = None) -> Path:
    """Return the folder of this user's slots on this machine.

    All supervisors and workers of the user must find the same folder, so it does not depend on `TMPDIR` or on
    the session (`XDG_RUNTIME_DIR` and /dev/shm are emptied when the user logs out). If neither the home nor
    /var/tmp is on a local disk, the folder's name includes the name of the machine.
    """
    kind_of = filesystem_of or filesystem_type
    folder = _user_folder(environ, "XDG_STATE_HOME", ".local/state", kind_of)
    return folder / ("slots" if _is_local(folder, kind_of) else f"slots-{os.uname().nodename}")


def filesystem_type(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str | None:
    """Return the type of the file system that `path` lies on; None if the system has no mount table."""
    try:
        lines = mounts.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return None
    target, best, kind = path.resolve(), Path(), None
    for line in lines:
        mount_point, filesystem = _parse_mount(line)
        if target.is_relative_to(mount_point) and len(mount_point.parts) >= len(best.parts):
            best, kind = mount_point, filesystem  # a later mount on the same point hides an earlier one
    return kind


def _user_folder(environ: Mapping[str, str], variable: str, default: str, kind_of: FilesystemOf) -> Path:
    """Return a folder of this user, on a local disk if possible; `folders.make_private` creates it."""
    chosen = environ.get(variable, "")
    home = Path(environ.get("HOME") or "~").expanduser()
    own = (Path(chosen) if Path(chosen).is_absolute() else home / default) / "alphagrid"
    if not _is_usable(own, kind_of) and _is_usable(folders.SHARED, kind_of):
        return folders.SHARED / f"alphagrid-{os.geteuid()}"
    return own


def _is_usable(folder: Path, kind_of: FilesystemOf) -> bool:
    existing = _nearest_existing(folder)
    return _is_local(existing, kind_of) and existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)


def _is_local(folder: Path, kind_of: FilesystemOf) -> bool:
    kind = kind_of(_nearest_existing(folder))
    return kind is None or kind in LOCAL


def _nearest_existing(folder: Path) -> Path:
    """Return the folder, or its nearest parent that exists and that this user can see."""
    return next(path for path in (folder, *folder.parents) if os.path.exists(path))  # noqa: PTH110


def _is_owned_by_user(root: Root) -> bool:
    """Return whether this user owns the root, and the index that may already be in it."""
    beside = [root.path / f"{DATABASE}{suffix}" for suffix in ("", "-journal", "-shm", "-wal", ".lock")]
    return all(map(_is_own_file, (root.path.resolve(), *beside)))


def _is_own_file(path: Path) -> bool:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    is_file = (
        stat.S_ISREG(status.st_mode) and status.st_nlink == 1
    )  # in a copy by `cp -al` it is another's too
    return status.st_uid == os.geteuid() and (is_file or stat.S_ISDIR(status.st_mode))


def _parse_mount(line: str) -> tuple[Path, str]:
    """Split a line of mountinfo, `id parent device root MOUNT_POINT options … - TYPE source options`."""
    mount_fields, _, type_fields = line.partition(" - ")
    point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), mount_fields.split(" ")[4])
    return Path(point), type_fields.split(" ")[0]
