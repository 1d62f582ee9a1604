"""Submit and retry runs; no run is submitted twice.

A submission is recorded before any job starts. If a submitter is killed, the next one completes or undoes
its work. A lock excludes a second submitter on the same machine.
"""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..cluster_profiles import secret_values
from ..cluster_profiles.loader import Profile
from ..errors import UserError
from ..store import locks, ownership, submissions
from ..store.layout import ExperimentFiles, Root
from ..store.locks import FileLock
from ..store.submissions import RunEntry, Submission, SubmittedRun, Title, newest_runs
from . import checkpoint_formats, compatibility, preconditions
from .clock import Clock
from .code import submitted_code
from .code.submitted_code import Code
from .excluded_nodes import keeping_off
from .resolve_states import confirmed_states
from .schedulers import SCHEDULERS, Schedulers
from .schedulers.base import Scheduler, SubmitRequest, SubmitResult
from .specification import data_paths, reserved_names
from .specification.experiment import Experiment
from .submission_plan import Decision, plan_retry, plan_submission

LOCK_SECONDS = 600.0


@dataclass(frozen=True)
class Submitted:
    """The result of a submission."""

    experiment: str
    sent: tuple[str, ...] = ()
    """Ids of the runs that were sent."""
    unsent: tuple[str, ...] = ()
    """Ids of the runs that the cluster did not accept for now; the next `submit` sends them."""
    limit: str | None = None
    """The cluster's message about the unsent runs."""
    due: int = 0
    """Number of runs that were due; with a limit it may exceed the number sent."""
    kept: Mapping[Decision, tuple[str, ...]] = field(default_factory=dict)
    """Ids of the runs that were not due, by the reason."""
    no_longer_named: tuple[str, ...] = ()
    """Names of earlier runs that are no longer in the specification; they are left unchanged."""
    warnings: tuple[str, ...] = ()


def submit(
    experiment: Experiment,
    profile: Profile,
    root: Root,
    *,
    allow_code_change: bool = False,
    allow_data_change: bool = False,
    limit: int | None = None,
    environ: Mapping[str, str] | None = None,
    schedulers: Schedulers = SCHEDULERS,
    clock: Clock = time,
) -> Submitted:
    """Send the runs of `experiment` that have not ended and that no scheduler has.

    With `limit`, only the first `limit` of them are sent, in the specification's order. Returns when the
    scheduler has the runs; with profile `debug`, when they have run.

    Raises:
        UserError: a variable is not set, the root cannot be written, the experiment belongs to another user,
            the umask would hide it from the root's group, there is no Slurm, the base was edited, a name is
            reserved, code has changed (unless that is allowed), checkpoints have another format, or an import
            fails.
        SystemRefused: the cluster or the file system refused.
    """
    environ = os.environ if environ is None else environ
    variables = {**environ, **(profile.env or {})}
    scheduler = schedulers[profile.cluster]
    files = root.experiment(experiment.name)
    _check_before_writing(experiment, scheduler, root, environ, variables)
    with _submission_lock(files) as lock:
        earlier = submissions.read_all(files)
        reserved_names.check_baselines(experiment.baselines, earlier, experiment.document)
        entries = {entry.id: entry for entry in data_paths.entries(experiment)}
        compatibility.check([_point_of_entry(entry) for entry in entries.values()], earlier)

        replaced_jobs = _reconcile_schedulers(schedulers, earlier)
        plan = plan_submission(
            root, files, earlier, entries, profile.cluster, replaced_jobs, schedulers=schedulers, clock=clock
        )
        chosen = [entries[run_id] for run_id in plan.due[:limit]]
        checkpoint_formats.check_formats(files, chosen)
        kept_code, warnings = _keep_code(
            files, experiment, profile, scheduler, chosen, earlier, allow_code_change
        )
        earlier_runs = newest_runs(earlier)
        warnings += data_paths.changes(chosen, earlier_runs)

        submission = Submission(
            **_new_identity(earlier, clock),
            experiment=experiment.name,
            profile=_profile_record(profile, scheduler, experiment.variables, variables),
            **kept_code.fields(allow_code_change),
            data_change_allowed=allow_data_change,
            runs=chosen,
            named=_titles_of_runs(experiment),
        )
        result = SubmitResult()
        if chosen or (earlier and earlier[-1].named != submission.named):
            replaced = [replaced_jobs[entry.id] for entry in chosen if entry.id in replaced_jobs]
            result = scheduler.submit(SubmitRequest(files, submission, profile, lock, earlier, replaced))
    scheduler.start(root, files, submission, plan.has_work)
    return Submitted(
        experiment.name,
        **vars(result),
        due=len(plan.due),
        kept=plan.kept,
        no_longer_named=tuple(
            run.entry.name for run_id, run in earlier_runs.items() if run_id not in entries
        ),
        warnings=(*_submission_warnings(profile, scheduler, root, environ, experiment.variables), *warnings),
    )


def retry(
    root: Root,
    experiment: str,
    run_ids: Sequence[str],
    *,
    fresh: bool = False,
    profile: Profile | None = None,
    exclude_nodes: Sequence[str] = (),
    allow_code_change: bool = False,
    allow_data_change: bool = False,
    schedulers: Schedulers = SCHEDULERS,
    clock: Clock = time,
) -> Submitted:
    """Send failed, cancelled, interrupted or lost runs again, with their last profile and code folder.

    They resume from their last checkpoint; with `fresh` they start from step 0. Active runs are left alone.

    Raises:
        UserError: the experiment belongs to another user, a run was never submitted, an import fails, code
            has changed (unless that is allowed), checkpoints have another format, the umask would hide the
            runs from the root's group, or `exclude_nodes` is given for a cluster without nodes.
        SystemRefused: the cluster or the file system refused.
    """
    files = root.experiment(experiment)
    ownership.check(files, "retry")
    preconditions.check_umask(root)
    with _submission_lock(files) as lock:
        earlier = submissions.read_all(files)
        runs = {run_id: run for run_id, run in newest_runs(earlier).items() if run_id in set(run_ids)}
        _check_known(experiment, run_ids, runs)

        replaced_jobs = _reconcile_schedulers(schedulers, earlier, run_ids)
        states = confirmed_states(root, files, runs, schedulers=schedulers, clock=clock)
        plan = plan_retry(states, replaced_jobs, fresh)
        runs_by_profile = _group_by_profile([runs[run_id] for run_id in plan.due], profile, exclude_nodes)
        groups = []
        for record, members in runs_by_profile:
            entries = [run.entry.model_copy(update={"fresh": fresh}) for run in members]
            kept_code = submitted_code.as_sent_before(files, members[-1].submission, entries)
            submission = Submission(
                **_new_identity(earlier, clock),
                experiment=earlier[-1].experiment,
                profile=record,
                **kept_code.fields(allow_code_change),
                data_change_allowed=allow_data_change,
                runs=entries,
                named=earlier[-1].named,
            )
            groups.append((_recorded_profile(record, experiment, schedulers), submission))
        warnings = [
            warning
            for used, submission in groups
            for warning in _check_sendable(files, used, schedulers[used.cluster], submission)
        ]
        result = SubmitResult()
        for used, submission in groups:
            replaced = [replaced_jobs[entry.id] for entry in submission.runs if entry.id in replaced_jobs]
            request = SubmitRequest(files, submission, used, lock, earlier, replaced)
            result += schedulers[used.cluster].submit(request)
    for used, submission in groups:
        schedulers[used.cluster].start(root, files, submission, plan.has_work)
    return Submitted(experiment, **vars(result), kept=plan.kept, warnings=tuple(dict.fromkeys(warnings)))


def _check_before_writing(
    experiment: Experiment,
    scheduler: Scheduler,
    root: Root,
    environ: Mapping[str, str],
    variables: Mapping[str, str],
) -> None:
    """Refuse a submission whose errors can be detected before anything is written to the root.

    Raises:
        UserError: the message names the error.
    """
    preconditions.check_variables(experiment.variables, variables, experiment.document)
    scheduler.check(root, environ)
    ownership.check(root.experiment(experiment.name), "submit")
    preconditions.check_umask(root)
    preconditions.check_writable(root)


def _reconcile_schedulers(
    schedulers: Schedulers, earlier: Sequence[Submission], run_ids: Sequence[str] | None = None
) -> dict[str, str]:
    """Complete or undo the work of killed submitters; return the held jobs to replace, by run."""
    replaced_jobs: dict[str, str] = {}
    for cluster in {submission.profile["cluster"] for submission in earlier}:
        replaced_jobs.update(schedulers[cluster].reconcile(earlier, run_ids))
    return replaced_jobs


def _keep_code(
    files: ExperimentFiles,
    experiment: Experiment,
    profile: Profile,
    scheduler: Scheduler,
    chosen: Sequence[RunEntry],
    earlier: Sequence[Submission],
    allow_code_change: bool,
) -> tuple[Code, tuple[str, ...]]:
    """Keep a snapshot of the runs' code, check that a job can import it, and return code and warnings."""
    if not chosen:
        return Code(), ()
    code = submitted_code.of_experiment(
        files, chosen, experiment.spec_folder, Path(experiment.document.source)
    )
    if not allow_code_change:
        submitted_code.check_unchanged(files, chosen, code)
    warnings = submitted_code.differs_from_others(files, earlier, code)
    return code, warnings + scheduler.check_imports(files, profile, code, submitted_code.user_modules(chosen))


def _submission_warnings(
    profile: Profile,
    scheduler: Scheduler,
    root: Root,
    environ: Mapping[str, str],
    variables: Iterable[str],
) -> tuple[str, ...]:
    """Return warnings about a profile, the root and the variables."""
    return (
        *preconditions.warnings(root),
        *secret_values.warnings(profile),
        *scheduler.warnings(profile, root, environ, variables),
    )


def _check_sendable(
    files: ExperimentFiles, profile: Profile, scheduler: Scheduler, submission: Submission
) -> tuple[str, ...]:
    """Check that runs can be sent again, and return warnings.

    Raises:
        UserError: they cannot be sent.
    """
    root = Root(files.path.parent)
    code = Code.of(submission)
    checkpoint_formats.check_formats(files, submission.runs)
    if not submission.code_change_allowed:
        submitted_code.check_unchanged(files, submission.runs, code)
    scheduler.check(root, os.environ)
    warnings = _submission_warnings(profile, scheduler, root, os.environ, ())
    return warnings + scheduler.check_imports(
        files, profile, code, submitted_code.user_modules(submission.runs)
    )


def _submission_lock(files: ExperimentFiles) -> AbstractContextManager[FileLock]:
    refusal = (
        f"another process has submitted to '{files.name}' or cancelled its runs for {LOCK_SECONDS:.0f} s"
    )
    return locks.held(files.path / "submit.lock", LOCK_SECONDS, refusal)


def _new_identity(earlier: Sequence[Submission], clock: Clock) -> dict[str, Any]:
    """Return the id and time of a new submission; the time is later than that of all earlier submissions."""
    created = max(clock.time(), earlier[-1].created + 1e-3) if earlier else clock.time()
    return {"id": submissions.new_id(created), "created": created}


def _titles_of_runs(experiment: Experiment) -> dict[str, Title]:
    return {run.id: Title(name=run.name, baseline=run.baseline, params=run.params) for run in experiment.runs}


def _check_known(experiment: str, run_ids: Sequence[str], runs: Mapping[str, SubmittedRun]) -> None:
    unknown = [run_id for run_id in run_ids if run_id not in runs]
    if unknown:
        raise UserError(
            f"never submitted to '{experiment}': {', '.join(unknown)}", f"see `alphagrid status {experiment}`"
        )


def _point_of_entry(entry: RunEntry) -> compatibility.Point:
    return compatibility.Point(entry.id, entry.name, entry.baseline, entry.params, entry.config)


def _profile_record(
    profile: Profile, scheduler: Scheduler, names: Iterable[str], variables: Mapping[str, str]
) -> dict[str, Any]:
    """Return the profile as the worker reads it, with the values of variables that its environment lacks.

    These values are literal, unlike those of `env`.
    """
    record = profile.model_dump(mode="json")
    values = scheduler.recorded_variables([name for name in names if name not in profile.env], variables)
    return record if values is None else {**record, "variables": values}


def _group_by_profile(
    runs: Sequence[SubmittedRun], profile: Profile | None, exclude_nodes: Sequence[str]
) -> list[tuple[dict[str, Any], list[SubmittedRun]]]:
    """Return runs grouped by the profile and the source of code of their last submission.

    Raises:
        UserError: `exclude_nodes` is given for a cluster without nodes.
    """
    groups: dict[tuple[str, str | None, str | None], list[SubmittedRun]] = defaultdict(list)
    for run in runs:
        record = run.submission.profile if profile is None else profile.model_dump(mode="json")
        record = keeping_off(record, exclude_nodes)
        source = submitted_code.source_of(run.submission)
        snapshot = run.submission.code_hash if source is None or not Path(source).is_dir() else None
        groups[json.dumps(record, sort_keys=True), source, snapshot].append(run)
    return [(json.loads(record), members) for (record, _, _), members in groups.items()]


def _recorded_profile(record: Mapping[str, Any], experiment: str, schedulers: Schedulers) -> Profile:
    """Return the profile of a record.

    `env` is validated only where a job's script exports it; elsewhere it is dropped.

    Raises:
        UserError: a key of the record is no longer valid.
    """
    keys = {key: value for key, value in record.items() if key != "variables"}
    if not schedulers[keys["cluster"]].sets_environment:
        keys["env"] = {}
    try:
        return Profile.model_validate(keys)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(
            f"the profile recorded for these runs is no longer valid: {where}: {first['msg']}",
            f"give another one: alphagrid retry {experiment} --failed --profile NAME",
        ) from error
