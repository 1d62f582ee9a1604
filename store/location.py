"""Where the index of a root lies: on a local disk, because SQLite on a network file system loses data."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from .layout import DATABASE, Root

FilesystemOf = Callable[[Path], str | None]
"""Gives the type of the file system that a path lies on, None if that cannot be told."""

LOCAL = frozenset(
    {
        *("apfs", "bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "hfs", "jfs"),
        *("overlay", "ramfs", "reiserfs", "rootfs", "tmpfs", "ufs", "xfs", "zfs"),
    }
)
"""File systems of one machine. What is not among them (nfs, lustre, gpfs, fuse.…) counts as shared."""


def database_path(root: Root, environ: Mapping[str, str], filesystem_of: FilesystemOf | None = None) -> Path:
    """Return where the index of `root` lies: `<root>/alphagrid.db`, or else in the user's cache.

    The cache it is where the root is on no local disk, or may not be written. Where the cache (a home
    folder on NFS, say) is on no local disk either, the index goes to the machine's temporary folder.
    """
    kind_of = filesystem_of or filesystem_type
    if _is_good(root.path, kind_of):
        return root.path / DATABASE
    absolute = str(root.path.resolve())
    name = Path(f"{hashlib.sha256(absolute.encode()).hexdigest()[:16]}-{root.path.name}") / DATABASE
    caches = (_cache(environ), Path(tempfile.gettempdir()) / f"alphagrid-{os.getuid()}")
    return next((cache for cache in caches if _is_good(cache, kind_of)), caches[0]) / name


def filesystem_type(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str | None:
    """Return the type of the file system that `path` lies on; None where the system has no mount table."""
    try:
        lines = mounts.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return None
    target, best, kind = path.resolve(), Path(), None
    for line in lines:
        mount_point, found = _mount(line)
        if target.is_relative_to(mount_point) and len(mount_point.parts) >= len(best.parts):
            best, kind = mount_point, found  # of two mounts on one point, the later one hides the other
    return kind


def _is_good(folder: Path, kind_of: FilesystemOf) -> bool:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    kind = kind_of(existing)
    return (kind is None or kind in LOCAL) and existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)


def _cache(environ: Mapping[str, str]) -> Path:
    chosen = environ.get("XDG_CACHE_HOME", "")
    base = (
        Path(chosen)
        if Path(chosen).is_absolute()
        else Path(environ.get("HOME") or "~").expanduser() / ".cache"
    )
    return base / "alphagrid"


def _mount(line: str) -> tuple[Path, str]:
    """Split a line of mountinfo, `id parent device root MOUNT_POINT options … - TYPE source options`."""
    left, _, right = line.partition(" - ")
    point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), left.split(" ")[4])
    return Path(point), right.split(" ")[0]
