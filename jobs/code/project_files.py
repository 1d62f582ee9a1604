"""The project that a workload comes from: the folder it is imported from, and which files are its code.

In a git repository these are the files that git tracks, and untracked ones that it does not ignore; elsewhere
the Python files below the folder. Names are `str` with surrogate escapes: any name that a disk can hold.
"""

from __future__ import annotations

import os
import re
import site
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

from ...errors import UserError
from . import git

MEBIBYTE = 2**20
LARGEST_FILE = 100 * MEBIBYTE
LARGEST_PROJECT = 500 * MEBIBYTE
MOST_FILES = 20_000
MOST_LOOKED_AT = 100_000
"""Names that are looked at in search of Python files where there is no git."""

PASSED_OVER = frozenset({"__pycache__", "node_modules", ".ipynb_checkpoints"})
ENVIRONMENT_MARKS = ("pyvenv.cfg", "conda-meta")
_SUBMISSION = re.compile(r"(?:(.*)/)?([^/]+)/submissions/\d{8}T\d{6}-[0-9a-f]{6}\.json")

OUTSIDE = "give its path as an option of the workload (data_dir: ${DATA_DIR}), and keep it out of the project"


@dataclass(frozen=True)
class Project:
    """A folder whose code a snapshot keeps, as it is now."""

    folder: Path
    import_root: str
    """The folder below it that belongs on `sys.path`, `.` if it is the project's own."""
    files: tuple[str, ...]
    """Relative to `folder`, sorted; regular files and symbolic links."""
    commit: str | None = None
    dirty: bool = False
    """Whether git reports uncommitted changes."""


def import_root(module: str, first: Path) -> Path | None:
    """Return the folder that a user's module is imported from; `first` is the first folder on `sys.path`.

    Returns None for a module that is installed with the environment or belongs to alphagrid.
    """
    if is_found(module, first, whole=True):
        return first
    file = _file_of(module)
    if file is None or is_installed(file):
        return None
    package = file.parent if file.name.startswith("__init__.") else file
    return package.parents[module.count(".")].resolve()


def is_found(module: str, folder: Path, whole: bool = False) -> bool:
    """Return whether a folder holds a module or its package.

    With `whole`, a part of a namespace package does not count.
    """
    spec = PathFinder.find_spec(module.partition(".")[0], [str(folder)])
    return spec is not None and (spec.origin is not None or not whole)


def is_installed(file: Path) -> bool:
    """Return whether a module's file belongs to the environment or to alphagrid, not to the user."""
    real = Path(os.path.realpath(file))
    packages = {"site-packages", "dist-packages"}.intersection(real.parts)
    return bool(packages) or any(real.is_relative_to(folder) for folder in _environment_folders())


def read_project(root: Path, modules: Iterable[str], passed_over: Iterable[Path] = ()) -> Project:
    """Return the project that holds `root`, from which `modules` are imported.

    Folders inside it that are `passed_over` do not belong to it, nor do experiments and virtual environments.

    Raises:
        UserError: a file is too large, or there are too many, or git ignores a module, or git fails.
    """
    root = root.resolve()
    top = git.top_of(root)
    if top is not None:
        outside = _paths_inside(top, passed_over)
        listed = [
            name for name in git.listed(top, outside) if not any(_is_in(folder, name) for folder in outside)
        ]
        files = _without_environments(_without_experiments(listed))
        place = os.path.relpath(root, top)
        if any(_is_in(place, name) for name in files):
            _check_modules(top, place, files, modules)
            _check_sizes(top, files)
            return Project(top, place, tuple(files), git.commit(top), git.is_dirty(top, outside))
    files = sorted(_python_files(root, _paths_inside(root, passed_over)))
    _check_sizes(root, files)
    return Project(root, ".", tuple(files))


def shown(path: Path | str) -> str:
    """Return a path as printable text; bytes that are not UTF-8 become escapes."""
    return os.fsencode(path).decode(errors="backslashreplace")


# Where a module comes from


def _file_of(module: str) -> Path | None:
    if module in sys.modules:
        file = getattr(sys.modules[module], "__file__", None)
        return None if file is None else Path(file).absolute()
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin).absolute() if spec and spec.has_location and spec.origin else None


@cache
def _environment_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    folders = [paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")]
    alphagrid = Path(__file__).parent.parent
    own = [alphagrid / name for name in ("jobs", "trainer", "store", "analysis", "cluster_profiles")]
    every = [*folders, *site.getsitepackages(), site.getusersitepackages(), *own]
    return tuple({os.path.realpath(str(folder)) for folder in every})


# Without git


def _python_files(root: Path, passed_over: Iterable[str]) -> Iterator[str]:
    outside = {root / name for name in passed_over}
    looked_at = 0
    for folder, folders, names in os.walk(root):
        looked_at += len(folders) + len(names)
        if looked_at > MOST_LOOKED_AT:
            raise _too_much(root, f"holds more than {MOST_LOOKED_AT} files")
        here = Path(folder)
        links = [
            name for name in folders if (here / name).is_symlink() and (here / name / "__init__.py").exists()
        ]
        folders[:] = [name for name in folders if here / name not in outside and _holds_code(here / name)]
        selected = [*links, *(name for name in names if name.endswith(".py") and (here / name).is_file())]
        yield from (os.path.relpath(here / name, root) for name in selected)


def _holds_code(folder: Path) -> bool:
    return not (
        folder.name.startswith(".")
        or folder.name in PASSED_OVER
        or (folder / "submissions").is_dir()
        or any((folder / mark).exists() for mark in ENVIRONMENT_MARKS)
    )


# What is left out, and what is refused


def _without_experiments(names: Sequence[str]) -> list[str]:
    """Return `names` without the files of alphagrid roots: output of runs is not code."""
    matches = [match for name in names if (match := _SUBMISSION.fullmatch(name))]
    folders = {f"{match[1]}/{match[2]}" if match[1] else match[2] for match in matches}
    roots = {match[1] or "." for match in matches}
    beside = ("alphagrid.db", ".supervisor")
    return [
        name
        for name in names
        if not any(_is_in(folder, name) for folder in folders)
        and not any(_is_in(root, name) and _path_below(root, name).startswith(beside) for root in roots)
    ]


def _without_environments(names: Sequence[str]) -> list[str]:
    """Return `names` without virtual environments and the cache folders of Python and Jupyter."""
    marks = [
        name for name in names if name.rpartition("/")[2] == "pyvenv.cfg" or "/conda-meta/" in f"/{name}"
    ]
    folders = {f"/{name}".partition("/conda-meta/")[0].removesuffix("/pyvenv.cfg")[1:] for name in marks}
    return [
        name
        for name in names
        if not PASSED_OVER.intersection(name.split("/"))
        and not any(_is_in(folder or ".", name) for folder in folders)
    ]


def _check_modules(top: Path, place: str, files: Sequence[str], modules: Iterable[str]) -> None:
    stems = {re.sub(r"(/__init__)?\.[^/]*$", "", name) for name in files}
    links = {name for name in files if (top / name).is_symlink()}
    for module in modules:
        path = os.path.normpath(Path(place, *module.split(".")))
        above = {path, *map(str, Path(path).parents)}
        if path not in stems and not above & links:
            hint = f"take it out of .gitignore, or track it: git add -f {path}.py"
            raise UserError(f"git ignores the workload's module {module}: it is no part of {top}", hint)


def _check_sizes(folder: Path, names: Sequence[str]) -> None:
    if len(names) > MOST_FILES:
        raise _too_much(
            folder, f"has {len(names)} files, most of them in {_heaviest_entry(dict.fromkeys(names, 1))}"
        )
    plain = [name for name in names if not (folder / name).is_symlink()]
    sizes = {name: (folder / name).stat().st_size for name in plain}
    name = max(sizes, key=sizes.__getitem__, default="")
    if sizes and sizes[name] > LARGEST_FILE:
        size = f"{sizes[name] / MEBIBYTE:.0f} MiB"
        raise UserError(
            f"{shown(folder / name)} is too large to be code ({size})", f"{OUTSIDE} or in .gitignore"
        )
    if sum(sizes.values()) > LARGEST_PROJECT:
        size = f"{sum(sizes.values()) / MEBIBYTE:.0f} MiB"
        raise _too_much(folder, f"has {size} of files, most of them in {_heaviest_entry(sizes)}")


def _heaviest_entry(weights: dict[str, int]) -> str:
    total: Counter[str] = Counter()
    for name, weight in weights.items():
        total[name.partition("/")[0]] += weight
    return shown(total.most_common(1)[0][0])


def _too_much(folder: Path, what: str) -> UserError:
    hint = "code goes into a folder of its own; best a git repository, whose .gitignore says what is no code"
    return UserError(f"{shown(folder)} {what}: too much to be copied as code", hint)


def _paths_inside(top: Path, folders: Iterable[Path]) -> list[str]:
    """Return those of `folders` that lie inside `top`, as paths from there."""
    real = [folder.resolve() for folder in folders]
    return [os.path.relpath(folder, top) for folder in real if folder != top and folder.is_relative_to(top)]


def _is_in(folder: str, name: str) -> bool:
    return folder == "." or name.startswith(f"{folder}/")


def _path_below(folder: str, name: str) -> str:
    return name if folder == "." else name[len(folder) + 1 :]
