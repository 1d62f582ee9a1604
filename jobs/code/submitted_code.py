"""The user's code of a submission: its snapshot, its import path, and whether it has changed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ...errors import UserError
from ...store.layout import ExperimentFiles
from ...store.submissions import RunEntry, Submission
from ..runs import attempts
from ..runs.attempts import Attempt
from . import snapshot
from .project_files import import_root, is_found, is_installed, read_project, shown

MOST_NAMED = 8

CHANGE_HINT = (
    "undo the change, or give the experiment another name; --allow-code-change lets the runs go on with it"
    " (what is no code belongs in .gitignore)"
)


@dataclass(frozen=True)
class Code:
    """The user's code that the runs of a submission import."""

    hash: str | None = None
    """Hash of the snapshot; None if all workloads belong to alphagrid or are installed."""
    path: str | None = None
    """The folder that goes first on `sys.path`, relative to the snapshot's top."""
    source: str | None = None
    """The user's folder that `path` is a copy of."""
    commit: str | None = None
    dirty: bool = False

    @classmethod
    def of(cls, submission: Submission) -> Self:
        """Return the code of a submission's runs."""
        return cls(
            submission.code_hash,
            submission.code_path,
            submission.code_source,
            submission.code_commit,
            submission.code_dirty,
        )

    def fields(self, change_allowed: bool = False) -> dict[str, Any]:
        """Return the fields of a submission that describe its code."""
        code_fields = {f"code_{name}": value for name, value in vars(self).items()}
        return {**code_fields, "code_change_allowed": change_allowed}


def of_experiment(files: ExperimentFiles, entries: Sequence[RunEntry], spec_folder: Path, spec: Path) -> Code:
    """Keep a snapshot of the code of the entries' workloads.

    Modules beside the specification take precedence on the import path.

    Raises:
        UserError: the files of the project cannot be determined, or they are too many or too large.
        SystemRefused: the snapshot cannot be written.
    """
    modules = user_modules(entries)
    roots = {module: import_root(module, spec_folder) for module in modules}
    places = sorted({root.resolve() for root in roots.values() if root is not None})
    if not places:
        return Code()
    if len(places) > 1:
        folders = " and ".join(map(shown, places))
        raise UserError(
            f"the workloads come from several places: {folders}", "write a specification for each"
        )
    return _keep_snapshot(
        files, places[0], [module for module, root in roots.items() if root is not None], spec
    )


def as_sent_before(files: ExperimentFiles, submission: Submission, entries: Sequence[RunEntry]) -> Code:
    """Keep a snapshot of the folder that an earlier submission's code came from.

    If that folder no longer exists, the earlier snapshot is used again.

    Raises:
        UserError, SystemRefused: as in `of_experiment`.
    """
    live = source_of(submission)
    if live is None or not Path(live).is_dir():
        return Code.of(submission)
    modules = [module for module in user_modules(entries) if is_found(module, Path(live))]
    return _keep_snapshot(files, Path(live), modules, None) if modules else Code()


def source_of(submission: Submission) -> str | None:
    """Return the user's folder that a submission's code came from.

    Submissions of versions without snapshots record that folder as `code_path`.
    """
    return submission.code_source if submission.code_hash is not None else submission.code_path


def user_modules(entries: Iterable[RunEntry]) -> list[str]:
    """Return the modules of import-path workloads, sorted, without those of alphagrid."""
    own = str(__package__).partition(".")[0]
    names = {str((entry.config.get("workload") or {}).get("name")) for entry in entries}
    modules = {name.partition(":")[0] for name in names if ":" in name}
    return sorted(module for module in modules if module.partition(".")[0] != own)


def _keep_snapshot(files: ExperimentFiles, root: Path, modules: Sequence[str], spec: Path | None) -> Code:
    project = read_project(root, modules, (files.path.parent, files.path))
    try:
        f"{root} {project.import_root}".encode()
    except UnicodeEncodeError:
        raise UserError(f"the name of the folder {shown(root)} is no UTF-8", "rename it") from None
    code_hash = snapshot.keep(files, project, spec)
    return Code(code_hash, project.import_root, str(root.absolute()), project.commit, project.dirty)


# Whether it has changed


def check_unchanged(files: ExperimentFiles, entries: Iterable[RunEntry], code: Code) -> None:
    """Refuse code that differs from that of earlier attempts of the runs.

    Raises:
        UserError: which files differ, and for which runs.
    """
    runs_by_change: dict[tuple[str, ...], list[str]] = {}
    changes: dict[str, list[str]] = {}
    for entry in entries:
        if code.hash is None or entry.fresh or not user_modules([entry]):
            continue
        before = last_hash(attempts.read(files.run(entry.id)))
        if before is not None and before != code.hash:
            if before not in changes:
                changes[before] = snapshot.changed(files, before, code.hash)
            runs_by_change.setdefault(tuple(changes[before]), []).append(entry.name)
    for differing, runs in runs_by_change.items():
        if differing:
            names, paths = _list_names(runs, 3), _list_names(differing)
            raise UserError(f"the code of {names} has changed since they were last run: {paths}", CHANGE_HINT)


def differs_from_others(files: ExperimentFiles, past: Sequence[Submission], code: Code) -> tuple[str, ...]:
    """Return a warning if other runs of the experiment were last sent with other code."""
    before = next(
        (submission.code_hash for submission in reversed(past) if submission.code_hash is not None), None
    )
    if before is None or code.hash is None:
        return ()
    differing = snapshot.changed(files, before, code.hash)
    warning = f"the code differs from that of runs sent before: {_list_names(differing)}"
    return (warning,) if differing else ()


def last_hash(earlier: Sequence[Attempt]) -> str | None:
    """Return the code hash of the newest attempt that ran and whose checkpoints count; None if unknown."""
    counting = [attempt for attempt in earlier if attempt.number > attempts.ignored_until(earlier)]
    for attempt in reversed(counting):
        code = (attempts.start_record(attempt.journal) or {}).get("code")
        if isinstance(code, Mapping) and not code.get("refused"):
            return str(code["hash"])
    return None


def _list_names(names: Sequence[str], most: int = MOST_NAMED) -> str:
    listing = ", ".join(shown(name) for name in names[:most])
    return listing if len(names) <= most else f"{listing} and {len(names) - most} more"


# In the worker


def record(submission: Submission, entry: RunEntry) -> dict[str, Any] | None:
    """Return the code fields of an attempt's `start` record; None if the run imports no user code."""
    if submission.code_hash is None or not user_modules([entry]):
        return None
    return {"hash": submission.code_hash, "commit": submission.code_commit, "dirty": submission.code_dirty}


def check_same(
    files: ExperimentFiles, submission: Submission, entry: RunEntry, earlier: Sequence[Attempt]
) -> None:
    """Refuse code that differs from that of the run's earlier attempts, unless the submission allows it.

    Raises:
        UserError: which files differ.
    """
    if submission.code_change_allowed or record(submission, entry) is None:
        return
    before, now = last_hash(earlier), str(submission.code_hash)
    if before is not None and (differing := snapshot.changed(files, before, now)):
        raise CodeChanged(
            f"the code has changed since the last attempt: {_list_names(differing)}", CHANGE_HINT
        )


class CodeChanged(UserError):
    """An attempt was refused because its code differs from that of earlier attempts."""


def import_folder(files: ExperimentFiles, submission: Submission) -> Path | None:
    """Return the folder that a worker puts first on `sys.path`; None if the runs import no user code."""
    if submission.code_path is None or submission.code_hash is None:
        return None if submission.code_path is None else Path(submission.code_path)
    folder = snapshot.folder_of(files, submission.code_hash)
    return Path(os.path.normpath(folder.absolute() / submission.code_path))


def check_origin(files: ExperimentFiles, code_hash: str, modules: Iterable[str]) -> None:
    """Refuse workloads that were imported from outside the snapshot.

    Raises:
        UserError: a workload came from another file; the message names both.
    """
    snapshot_folder = snapshot.folder_of(files, code_hash).absolute()
    for module in modules:
        file = getattr(sys.modules.get(module), "__file__", None)
        if file is None or is_installed(Path(file)) or _lies_in(snapshot_folder, file):
            continue
        raise UserError(
            f"{module} was imported from {file}, not from the code that was submitted, {snapshot_folder}",
            "was the snapshot removed, or the module installed by a tool that goes before sys.path?",
        )


def _lies_in(folder: Path, file: str) -> bool:
    """Return whether a file is in a folder, by its path as written or with links resolved."""
    by_name = Path(os.path.normpath(Path(file).absolute())).is_relative_to(folder)
    return by_name or Path(os.path.realpath(file)).is_relative_to(os.path.realpath(folder))
