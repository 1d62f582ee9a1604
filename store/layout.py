"""Paths of the files in a root: experiments, their runs, the runs' journals and checkpoints."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import SystemRefused, UserError

DATABASE = "alphagrid.db"
SUBMISSIONS = "submissions"
CANCEL_MARKER = "cancelled.json"

EXPERIMENT_NAME = re.compile(r"(?!alphagrid\.db)[a-z0-9](?:[a-z0-9_-]|\.(?!\.))*")
"""Match with `fullmatch`: a folder name that is not a path, not hidden, and not the database's."""
RUN_ID = re.compile(r"[0-9a-f]{10}")
SUBMISSION = re.compile(r"[^.].*\.json")
SUBMISSION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""The name of a submission file without its extension."""
JOB_ID = re.compile(r"[0-9]{1,18}(?:_[0-9]{1,18})?")
"""A Slurm job, a task of an array, or a process on this machine."""
CODE_HASH = re.compile(r"[0-9a-f]{8,64}")
_ATTEMPT = r"([0-9]{4}|[1-9][0-9]{4,8})"
LAST_NUMBER = 999_999_999
"""The largest number of an attempt or a claim that these patterns match."""
_STEP = r"([0-9]{10}|[1-9][0-9]{10,17})"
JOURNAL = re.compile(rf"journal-{_ATTEMPT}\.jsonl")
CLAIM = re.compile(rf"claim-{_ATTEMPT}")
CHECKPOINT = re.compile(rf"checkpoint-{_STEP}-{_ATTEMPT}-[0-9a-f]{{8}}\.pt")
TORN_CHECKPOINT = re.compile(rf"\.checkpoint-{_STEP}-{_ATTEMPT}\.tmp")
SUPERSEDED = re.compile(rf"\.superseded-{_ATTEMPT}")


@dataclass(frozen=True)
class RunFiles:
    """The folder of one run, named by the run's id."""

    path: Path

    @property
    def id(self) -> str:
        """The run's id."""
        return self.path.name

    @property
    def config(self) -> Path:
        """The worker's copy of the config, without `stop`."""
        return self.path / "config.json"

    @property
    def cancel_marker(self) -> Path:
        """Written by `cancel`: when, and which submissions it cancels."""
        return self.path / CANCEL_MARKER

    @property
    def lock(self) -> Path:
        """Held (flock) by a local worker while it runs."""
        return self.path / "lock"

    @property
    def reserve(self) -> Path:
        """Occupies a little space while an attempt runs (`store.reserve`)."""
        return self.path / ".reserve"

    def journal(self, attempt: int) -> Path:
        """Return the journal of one attempt (1, 2, …)."""
        return self.path / f"journal-{attempt:04d}.jsonl"

    def journals(self) -> list[tuple[int, Path]]:
        """Return (attempt, path) of every journal, by ascending attempt."""
        return self._numbered_files(JOURNAL)

    def claim(self, number: int) -> Path:
        """Return the path of a claim on the run (1, 2, …; `store.claims`)."""
        return self.path / f"claim-{number:04d}"

    def claims(self) -> list[tuple[int, Path]]:
        """Return (number, path) of every claim, by ascending number."""
        return self._numbered_files(CLAIM)

    def superseded_marker(self, attempt: int) -> Path:
        """Return the empty file that an attempt writes when it stops because a newer one has begun."""
        return self.path / f".superseded-{attempt:04d}"

    def superseded(self) -> set[int]:
        """Return the attempts that have written this marker."""
        matches = map(SUPERSEDED.fullmatch, _names(self.path))
        return {int(match[1]) for match in matches if match}

    def torn_checkpoints(self) -> list[Path]:
        """Return incomplete checkpoints whose writer died."""
        return [self.path / name for name in sorted(_names(self.path)) if TORN_CHECKPOINT.fullmatch(name)]

    def checkpoints(self) -> list[Path]:
        """Return the finished checkpoints by ascending (step, attempt): the newest is the last."""
        matches = ((CHECKPOINT.fullmatch(name), self.path / name) for name in _names(self.path))
        return [path for _, _, path in sorted((int(m[1]), int(m[2]), path) for m, path in matches if m)]

    def _numbered_files(self, pattern: re.Pattern[str]) -> list[tuple[int, Path]]:
        """Return (number, path) of the files whose names match a pattern, by ascending number."""
        matches = ((pattern.fullmatch(name), self.path / name) for name in _names(self.path))
        return sorted((int(match[1]), path) for match, path in matches if match)


@dataclass(frozen=True)
class ExperimentFiles:
    """The folder of one experiment."""

    path: Path

    @property
    def name(self) -> str:
        """The experiment's name."""
        return self.path.name

    @property
    def submissions(self) -> Path:
        """One file per submission; the first one creates the experiment."""
        return self.path / SUBMISSIONS

    @property
    def submitit(self) -> Path:
        """The folder of submitit's pickles and logs."""
        return self.path / "submitit"

    @property
    def code(self) -> Path:
        """Snapshots of the users' code, by its hash."""
        return self.path / "code"

    def run(self, run_id: str) -> RunFiles:
        """Return the files of a run, whether they exist or not.

        Raises:
            UserError: the id is not valid; it could be a path to another folder.
        """
        if not RUN_ID.fullmatch(run_id):
            raise UserError(f"{run_id!r} is not the id of a run", "run `alphagrid store check`")
        return RunFiles(self.path / run_id)

    def runs(self) -> list[RunFiles]:
        """Return the runs that have a folder, by id."""
        return [self.run(name) for name in sorted(_names(self.path)) if RUN_ID.fullmatch(name)]


@dataclass(frozen=True)
class Root:
    """The folder that holds experiments."""

    path: Path

    @property
    def supervisor(self) -> Path:
        """The folder of this user's local supervisor: lock, log."""
        return self.supervisor_of(os.geteuid())

    def supervisor_of(self, uid: int) -> Path:
        """Return the folder of a user's local supervisor; each user who submits under the root has one."""
        own = self.path / ".supervisor"
        # A folder that does not exist may become this user's.
        owners = {_owner_uid(self.path.resolve()), _owner_uid(own)} - {None}
        return own if owners <= {uid} else self.path / f".supervisor-{uid}"

    def experiment(self, name: str) -> ExperimentFiles:
        """Return the files of an experiment, whether they exist or not.

        Raises:
            UserError: the name is not valid; it could be a path to another folder.
        """
        if not EXPERIMENT_NAME.fullmatch(name):
            raise UserError(f"{name!r} is not the name of an experiment", "run `alphagrid status`")
        return ExperimentFiles(self.path / name)

    def experiments(self) -> list[ExperimentFiles]:
        """Return the experiments that have submissions and that this user can see, by name."""
        names = sorted(name for name in _names(self.path) if EXPERIMENT_NAME.fullmatch(name))
        return [files for files in map(self.experiment, names) if os.path.isdir(files.submissions)]  # noqa: PTH112


def next_number(newest: tuple[int, Path] | None) -> int:
    """Return the number that follows the newest of a run's journals or claims, 1 where there is none.

    Raises:
        SystemRefused: the newest has the last possible number.
    """
    number, path = newest or (0, Path())
    if number >= LAST_NUMBER:
        raise SystemRefused(
            f"{path} has the last number that such a file can have: none can follow",
            f"see who made it (ls -l {path}), then remove it",
        )
    return number + 1


def root_from(option: Path | None, environ: Mapping[str, str]) -> Root:
    """Return the root that `--root` names, else `ALPHAGRID_ROOT`, else `./runs`, as an absolute path.

    Raises:
        UserError: the path exists and is not a folder.
    """
    path = (option or Path(environ.get("ALPHAGRID_ROOT") or "runs")).expanduser().absolute()
    if path.exists() and not path.is_dir():
        raise UserError(f"the root {path} is no folder", "choose another: --root DIR or ALPHAGRID_ROOT")
    return Root(path)


def _owner_uid(path: Path) -> int | None:
    """Return the owner of a file or folder; None if this user cannot see it."""
    try:
        return path.lstat().st_uid
    except OSError:
        return None


def _names(folder: Path) -> Iterator[str]:
    """Yield the names in a folder; none if it does not exist. Raise any other error."""
    try:
        yield from os.listdir(folder)  # noqa: PTH208 (names alone, without a Path object for each)
    except (FileNotFoundError, NotADirectoryError):
        return
