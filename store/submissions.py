"""Submissions: one file for each, which is also the workers' manifest."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from re import Pattern
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..errors import SystemRefused, UserError
from .claims import Owner
from .files import is_late, read_file, write_atomically
from .layout import CODE_HASH, EXPERIMENT_NAME, JOB_ID, RUN_ID, SUBMISSION, SUBMISSION_ID, ExperimentFiles
from .shapes import config_problem


def _pattern_check(pattern: Pattern[str], what: str) -> AfterValidator:
    """Return a check that a text matches a pattern; it becomes part of a path, or an argument of scancel."""

    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError(f"{text[:60]!r} is not {what}")
        return text

    return AfterValidator(check)


RunId = Annotated[str, _pattern_check(RUN_ID, "the id of a run")]
SubmissionId = Annotated[str, _pattern_check(SUBMISSION_ID, "the id of a submission")]
ExperimentName = Annotated[str, _pattern_check(EXPERIMENT_NAME, "the name of an experiment")]
JobId = Annotated[str, _pattern_check(JOB_ID, "the id of a job")]
CodeHash = Annotated[str, _pattern_check(CODE_HASH, "the hash of a code snapshot")]

CLUSTERS = ("slurm", "local", "debug")
PATIENCE_SECONDS = 5.0
"""How long to wait for a file that its folder lists and that has not arrived yet [s]."""
POLL_SECONDS = 0.1


def _record_of_profile(profile: dict[str, Any]) -> dict[str, Any]:
    if profile and profile.get("cluster") not in CLUSTERS:
        raise ValueError(f"has no cluster that is one of {', '.join(CLUSTERS)}")
    if not isinstance(profile.get("env") or {}, dict):
        raise ValueError("env is no mapping")
    return profile


def _record_of_config(config: dict[str, Any]) -> dict[str, Any]:
    if (problem := config_problem(config)) is not None:
        raise ValueError(problem)
    return config


class _Manifest(BaseModel):
    """Files of a newer version may say more than this one knows; what it knows is frozen."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


Moment = Annotated[float, Field(ge=0, lt=253402300800)]
"""Unix time, before the year 10000."""


class Title(_Manifest):
    """Name and parameters of a run in a specification."""

    name: str
    baseline: str | None = None
    params: dict[str, Any]
    """The dotted keys that grid, zip and seeds set, with this run's values."""


class RunEntry(Title):
    """One run that a submission sends."""

    id: RunId
    config: Annotated[dict[str, Any], AfterValidator(_record_of_config)]
    """The whole config, `stop` and all defaults written out, `${VAR}` unexpanded."""
    fresh: bool = False
    """Start from step 0 instead of resuming from the last checkpoint."""
    workload: dict[str, Any] | None = None
    """The config's section `workload` with its paths resolved; None where they are as in the config."""
    data_folder: str | None = None
    """The specification's folder, where paths begin with `${VAR}`: from it they are resolved on the node."""


class JobRef(_Manifest):
    """A job that was given to a cluster; ids are reused, so the time belongs to the identity."""

    cluster: Literal["slurm", "local", "debug"]
    job_id: JobId
    submitted: Moment
    """Unix time."""


class Submission(_Manifest):
    """One call of `submit` or `retry`."""

    id: SubmissionId
    created: Moment
    """Unix time."""
    experiment: ExperimentName
    profile: Annotated[dict[str, Any], AfterValidator(_record_of_profile)]
    """The resolved profile, its name and cluster included."""
    site: str | None = None
    """The name of the Slurm cluster that its jobs went to; ids mean nothing to another one."""
    code_path: str | None = None
    """The folder that the worker puts first on `sys.path`, from the top of the snapshot of the users' code.

    Where there is a path and no `code_hash`, the submission is older than snapshots: it is the live folder.
    """
    code_hash: CodeHash | None = None
    """The snapshot; None where no workload is the users' own."""
    code_source: str | None = None
    """The live folder that `code_path` is a copy of."""
    code_commit: str | None = None
    """What git had checked out there."""
    code_dirty: bool = False
    """Whether git saw changes that were not committed."""
    code_change_allowed: bool = False
    """Whether runs may go on with other code than that of their earlier attempts."""
    data_change_allowed: bool = False
    """Whether runs may go on with other data than those that their checkpoints were trained on."""
    runs: list[RunEntry]
    named: dict[RunId, Title]
    """All runs that the specification names, also those not sent, by id and in its order."""
    jobs: dict[RunId, JobRef] = {}
    """By run id; filled in once the cluster has accepted the jobs."""
    submitter: Owner | None = None
    """The process that puts its jobs into Slurm's queue; None once that is done."""
    refusal: str | None = None
    """Why the cluster did not accept the jobs of those runs that have none."""
    canary: RunId | None = None
    """Of older versions: the run for whose first evaluation the jobs of the others are held."""

    @model_validator(mode="after")
    def _check_code_path(self) -> Self:
        """Refuse a folder outside the snapshot that it belongs to."""
        if self.code_hash is not None and self.code_path is not None:
            path = PurePosixPath(self.code_path)
            if path.is_absolute() or ".." in path.parts:
                raise ValueError(f"code_path: {self.code_path[:60]!r} is not inside the snapshot")
        return self


@dataclass(frozen=True)
class SubmittedRun:
    """A run and the submission that sent it."""

    submission: Submission
    entry: RunEntry


def newest_runs(submissions: Iterable[Submission]) -> dict[str, SubmittedRun]:
    """Return each run with the newest submission that sends it, by run id; `submissions` are oldest first."""
    return {
        entry.id: SubmittedRun(submission, entry) for submission in submissions for entry in submission.runs
    }


def new_id(now: float) -> str:
    """Return an id for a submission at `now` (unix time); ids sort by time (UTC)."""
    return f"{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


def write(files: ExperimentFiles, submission: Submission) -> Path:
    """Write a submission durably and return its file.

    Raises:
        SystemRefused: the folder cannot be created or written.
    """
    path = files.submissions / f"{submission.id}.json"
    try:
        files.submissions.mkdir(parents=True, exist_ok=True)
        write_atomically(path, submission.model_dump_json().encode())
    except OSError as error:
        raise SystemRefused(
            f"cannot write {path}: {error.strerror}", "choose another root: --root DIR or ALPHAGRID_ROOT"
        ) from error
    return path


def amend(files: ExperimentFiles, submission: Submission, **changes: Any) -> Submission:
    """Rewrite a submission's file durably with some fields changed; return the new submission.

    Raises:
        SystemRefused: the folder cannot be written.
    """
    changed = submission.model_copy(update=changes)
    write(files, changed)
    return changed


def remove(files: ExperimentFiles, submission: Submission) -> None:
    """Remove the file of a submission that sent nothing."""
    (files.submissions / f"{submission.id}.json").unlink()


def read(path: Path) -> Submission:
    """Read one submission's file.

    Raises:
        UserError: the file is not a valid submission.
        OSError: the file cannot be read.
    """
    try:
        submission = Submission.model_validate_json(read_file(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise _invalid_submission(path, f"{where}: {first['msg']}") from error
    if submission.id != path.stem:
        raise _invalid_submission(path, f"id: it is the file of '{submission.id}'")
    return submission


def _read_complete(path: Path) -> Submission:
    """Read a submission whose runs are sent, started or cancelled; it must have a profile."""
    submission = read(path)
    if not submission.profile:
        raise _invalid_submission(path, "profile: is empty")
    return submission


def _invalid_submission(path: Path, why: str) -> UserError:
    return UserError(f"{path} is not a valid submission file: {why}", f"restore it, or remove it: rm {path}")


def read_all(files: ExperimentFiles) -> list[Submission]:
    """Read an experiment's submissions, oldest first; wait for files that are listed and have not arrived.

    Raises:
        UserError: a file is not a valid submission.
        SystemRefused: a file cannot be read, or does not arrive.
    """
    submissions = [_read_listed(path) for path in submission_files(files)]
    return _oldest_first(submission for submission in submissions if submission is not None)


def read_good(files: ExperimentFiles) -> tuple[list[Submission], list[str]]:
    """Read all readable submissions, oldest first; also return the problems of the others."""
    submissions, problems = [], []
    for path in submission_files(files):
        try:
            submissions.append(_read_complete(path))
        except UserError as error:
            problems.append(error.message)
        except OSError as error:
            problems.append(f"{path} cannot be read: {error.strerror or error}")
    return _oldest_first(submissions), problems


def wait_for(path: Path, patience: float = PATIENCE_SECONDS) -> Submission:
    """Read one submission's file, which another machine may have written a moment ago.

    Raises:
        UserError: the file is not a valid submission.
        OSError: the file cannot be read, or does not arrive.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            return _read_complete(path)
        except OSError as error:
            if not is_late(path, error) or time.monotonic() >= deadline:
                raise
        time.sleep(POLL_SECONDS)


def _read_listed(path: Path) -> Submission | None:
    """Read a submission whose file was listed; return None if it has been removed meanwhile."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return _read_complete(path)
        except OSError as error:
            if not is_late(path, error):
                raise SystemRefused(f"cannot read {path}: {error.strerror}", HINT) from error
            if path not in path.parent.iterdir():
                return None
            if time.monotonic() >= deadline:
                raise SystemRefused(f"{path} is listed, but cannot be opened", HINT) from error
        time.sleep(POLL_SECONDS)


HINT = "`alphagrid store check` names the files that are damaged; restore or remove them"


def _oldest_first(submissions: Iterable[Submission]) -> list[Submission]:
    return sorted(submissions, key=lambda submission: (submission.created, submission.id))


def submission_files(files: ExperimentFiles) -> list[Path]:
    """Return the files of an experiment's submissions, by name (temporary ones left out)."""
    return sorted(path for path in files.submissions.glob("*.json") if SUBMISSION.fullmatch(path.name))
