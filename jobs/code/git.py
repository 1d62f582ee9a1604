"""Read-only questions to git about a repository. Names are `str` with surrogate escapes."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ...errors import UserError

GIT_SECONDS = 120


def top_of(folder: Path) -> Path | None:
    """Return the top of the git repository that holds `folder`; None without a repository or without git."""
    if not any((above / ".git").exists() for above in (folder, *folder.parents)):
        return None
    try:
        done = _run_git(folder, ["rev-parse", "--show-toplevel"])
    except FileNotFoundError:
        return None
    if done.returncode == 0:
        return Path(os.fsdecode(done.stdout.removesuffix(b"\n")))
    if b"not a git repository" in done.stderr:
        return None
    raise _git_failed(folder, done)


def listed(top: Path, passed_over: Iterable[str] = ()) -> Iterator[str]:
    """Yield the files of a repository, and of submodules and repositories inside it, as paths from `top`."""
    options = ["-z", "--cached", "--others", "--exclude-standard"]
    # git need not look through all runs
    options += [f"--exclude=/{_escape_pattern(folder)}/" for folder in passed_over]
    for encoded in sorted(set(_git_output(top, ["ls-files", *options]).split(b"\0")) - {b""}):
        name = os.fsdecode(encoded).removesuffix("/")
        path = top / name
        if path.is_dir() and not path.is_symlink():
            if (path / ".git").exists():  # else it is a submodule that is not checked out
                yield from (f"{name}/{inner}" for inner in listed(path))
        elif path.is_symlink() or path.is_file():
            yield name


def commit(top: Path) -> str | None:
    """Return the commit that is checked out; None before the first commit."""
    done = _run_git(top, ["rev-parse", "--verify", "--quiet", "HEAD"])
    return done.stdout.decode().strip() or None


def is_dirty(top: Path, passed_over: Iterable[str]) -> bool:
    """Return whether the repository has uncommitted changes or new files."""
    paths = [".", *(f":(exclude,top,literal){folder}" for folder in passed_over)]
    return bool(_git_output(top, ["status", "--porcelain", "--", *paths]))


def _escape_pattern(pattern: str) -> str:
    return re.sub(r"([\\*?\[\]!# ])", r"\\\1", pattern)


def _git_output(folder: Path, arguments: Sequence[str]) -> bytes:
    done = _run_git(folder, arguments)
    if done.returncode:
        raise _git_failed(folder, done)
    return done.stdout


def _run_git(folder: Path, arguments: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
    """Run git in `folder` without changing anything.

    `GIT_*` variables are removed, because a git hook that calls alphagrid may have set another repository.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment.update(LC_ALL="C", GIT_OPTIONAL_LOCKS="0")
    command = ["git", "-c", "core.fsmonitor=false", "-c", "core.quotePath=false", *arguments]
    try:
        return subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=GIT_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        hint = "is something very large neither committed nor in .gitignore?"
        raise UserError(f"git did not list the files of {folder} within {GIT_SECONDS} s", hint) from error


def _git_failed(folder: Path, done: subprocess.CompletedProcess[bytes]) -> UserError:
    message = done.stderr.decode(errors="replace").strip()
    return UserError(f"git cannot list the files of {folder}: {message}", "see `git status` there")
