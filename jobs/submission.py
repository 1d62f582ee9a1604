"""Submitting, retrying: from the runs that are wanted to those that are sent, and no run twice.

Everything is written down before anything is started, so a submitter may be killed anywhere; the next
one finds what the first one meant to do. A lock keeps two of them apart.
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

from ..cluster_profiles import sbatch_options, secret_values
from ..cluster_profiles.loader import Profile
from ..errors import UserError
from ..slurm import scontrol
from ..store import locks, ownership, submissions
from ..store.layout import ExperimentFiles, Root
from ..store.locks import FileLock
from ..store.submissions import RunEntry, Submission, Title
from . import (
    code,
    continuity,
    data_paths,
    debug,
    environment,
    local,
    preconditions,
    reserved,
    resumable,
    slots,
    slurm,
    slurm_root,
)
from .code import Code
from .exclusion import keeping_off
from .grid import Experiment
from .handover import HandedOver, hand_over
from .reconciliation import Situation, Verdict, retry_verdict
from .standing import Sent, certain_standings, newest
from .survey import settle, survey

LOCK_SECONDS = 600.0


@dataclass(frozen=True)
class Submitted:
    """What a submission did."""

    experiment: str
    sent: tuple[str, ...] = ()
    """Ids of the runs that were sent."""
    unsent: tuple[str, ...] = ()
    """Ids of the runs for which the cluster had no room; the next `submit` sends them."""
    limit: str | None = None
    """What the cluster said to those."""
    due: int = 0
    """How many runs were due; more than were sent where a limit was asked for."""
    kept: Mapping[Verdict, tuple[str, ...]] = field(default_factory=dict)
    """Ids of the runs that were not, by why."""
    no_longer_named: tuple[str, ...] = ()
    """Names of earlier runs that the specification does not name any more; they are left alone."""
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
    now: float | None = None,
) -> Submitted:
    """Send the runs of `experiment` that have not come to their end and are not under way.

    At most `limit` of them, the first in the specification's order, if that is given.

    Returns when they are handed over; with profile `debug`, when they have run.

    Raises:
        UserError: an unset variable, a root that cannot be written, another user's experiment, a umask that
            would hide it from the root's group, no Slurm, an edited base, a reserved name, code that has
            changed (unless that is allowed), checkpoints of another format, or an import that fails.
        SystemRefused: the cluster, or the file system, refused.
    """
    environ = os.environ if environ is None else environ
    known = {**environ, **(profile.env or {})}
    preconditions.check_variables(experiment.variables, known, experiment.document)
    if profile.cluster == "slurm":
        slurm.require(environ)
        slurm_root.check_path(root)
    elif profile.cluster == "local":
        slots.prepare()
    files = root.experiment(experiment.name)
    ownership.check(files, "submit")
    preconditions.check_umask(root)
    preconditions.check_writable(root)
    with _alone(files) as lock:
        past = submissions.read_all(files)
        now = _after(past, now)
        reserved.check_baselines(experiment.baselines, past, experiment.document)
        wanted = {entry.id: entry for entry in data_paths.entries(experiment)}
        continuity.check([_point(entry) for entry in wanted.values()], past)
        sent_before = newest(past)
        before = survey(root, files, past, wanted, profile)
        verdicts = before.verdicts
        due = [entry for run_id, entry in wanted.items() if verdicts[run_id] == "send"]
        chosen = due[:limit]
        resumable.check_formats(files, chosen)
        named = {
            run.id: Title(name=run.name, baseline=run.baseline, params=run.params) for run in experiment.runs
        }
        given, told = _prepared(files, experiment, profile, chosen, past, allow_code_change)
        told += data_paths.changes(chosen, sent_before)
        submission = Submission(
            id=submissions.new_id(now),
            created=now,
            experiment=experiment.name,
            profile=_profile_record(profile, experiment.variables, known),
            **given.fields(allow_code_change),
            data_change_allowed=allow_data_change,
            runs=chosen,
            named=named,
        )
        scontrol.cancel(before.held_back[entry.id] for entry in chosen if entry.id in before.held_back)
        handed = HandedOver()
        if chosen or (past and past[-1].named != named):
            handed = hand_over(files, submission, profile, lock, past)
    _start(root, files, profile, submission, verdicts)
    left = tuple(one.entry.name for run_id, one in sent_before.items() if run_id not in wanted)
    return Submitted(
        experiment.name,
        **vars(handed),
        due=len(due),
        kept=_kept(verdicts),
        no_longer_named=left,
        warnings=(*_warnings(profile, root, environ, experiment.variables), *told),
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
    now: float | None = None,
) -> Submitted:
    """Send the given runs again, as they were last sent: failed, cancelled, interrupted or lost ones.

    They go on from their last checkpoint; with `fresh` they begin anew. Runs under way are left alone.

    Raises:
        UserError: the experiment is another user's, a run was never submitted, an import fails, code has
            changed (unless that is allowed), checkpoints are of another format, the umask would hide the runs
            from the root's group, or nodes are to be excluded where there is no Slurm.
        SystemRefused: the cluster, or the file system, refused.
    """
    files = root.experiment(experiment)
    verdicts: dict[str, Verdict] = {}
    groups: list[tuple[Profile, Submission]] = []
    ownership.check(files, "retry")
    preconditions.check_umask(root)
    with _alone(files) as lock:
        past = submissions.read_all(files)
        now = _after(past, now)
        held_back = settle(past, run_ids)
        sent = {run_id: one for run_id, one in newest(past).items() if run_id in set(run_ids)}
        _check_known(experiment, run_ids, sent)
        for run_id, standing in certain_standings(root, files, sent).items():
            situation = Situation(standing.state, (), standing.is_alive)
            verdicts[run_id] = "send" if run_id in held_back else retry_verdict(situation, fresh)
        again = [one for run_id, one in sent.items() if verdicts[run_id] == "send"]
        groups = _groups(
            files, past, again, profile, exclude_nodes, fresh, allow_code_change, allow_data_change, now
        )
        told = [note for used, submission in groups for note in _check_sendable(files, used, submission)]
        scontrol.cancel(held_back.values())
        handed = HandedOver()
        for used, submission in groups:
            handed += hand_over(files, submission, used, lock, past)
    for used, submission in groups:
        _start(root, files, used, submission, verdicts)
    return Submitted(experiment, **vars(handed), kept=_kept(verdicts), warnings=tuple(dict.fromkeys(told)))


def _prepared(
    files: ExperimentFiles,
    experiment: Experiment,
    profile: Profile,
    chosen: Sequence[RunEntry],
    past: Sequence[Submission],
    allow_code_change: bool,
) -> tuple[Code, tuple[str, ...]]:
    """Keep the code of the runs to be sent, and see that a job can import it; return warnings too."""
    if not chosen:
        return Code(), ()
    given = code.of_experiment(files, chosen, experiment.spec_folder, Path(experiment.document.source))
    if not allow_code_change:
        code.check_unchanged(files, chosen, given)
    told = code.differs_from_others(files, past, given)
    if profile.cluster == "slurm":
        told += environment.check(files, profile, given, code.user_modules(chosen))
    return given, told


def _warnings(
    profile: Profile, root: Root, environ: Mapping[str, str], used: Iterable[str]
) -> tuple[str, ...]:
    """Return what is odd about a profile, the root and variables it is used with, but no reason to refuse."""
    found = (*preconditions.warnings(profile, environ, root), *secret_values.warnings(profile))
    if profile.cluster != "slurm":
        return found
    given = [name for name in used if name not in profile.env]
    missing = sbatch_options.not_exported(profile.sbatch, given)
    kept_back = tuple(
        f"${{{name}}} of the specification may not be set in jobs, because of the profile's sbatch: "
        f"{{export: {profile.sbatch['export']}}}; give it in env"
        for name in missing
    )
    return (*found, *kept_back, *slurm_root.warnings(root))


def _check_sendable(files: ExperimentFiles, profile: Profile, submission: Submission) -> tuple[str, ...]:
    """See that what is to be sent once more can be; return what is worth a warning."""
    told = _warnings(profile, Root(files.path.parent), os.environ, ())
    given = Code.of(submission)
    resumable.check_formats(files, submission.runs)
    if not submission.code_change_allowed:
        code.check_unchanged(files, submission.runs, given)
    if profile.cluster != "slurm":
        if profile.cluster == "local":
            slots.prepare()
        return told
    slurm.require()
    slurm_root.check_path(Root(files.path.parent))
    return told + environment.check(files, profile, given, code.user_modules(submission.runs))


def _alone(files: ExperimentFiles) -> AbstractContextManager[FileLock]:
    refusal = (
        f"another process has submitted to '{files.name}' or cancelled its runs for {LOCK_SECONDS:.0f} s"
    )
    return locks.held(files.path / "submit.lock", LOCK_SECONDS, refusal)


def _after(past: Sequence[Submission], now: float | None) -> float:
    """Return a time (default: the present) later than all submissions', whatever the machines' clocks say."""
    now = time.time() if now is None else now
    return max(now, past[-1].created + 1e-3) if past else now


def _check_known(experiment: str, run_ids: Sequence[str], sent: Mapping[str, Sent]) -> None:
    unknown = [run_id for run_id in run_ids if run_id not in sent]
    if unknown:
        raise UserError(
            f"never submitted to '{experiment}': {', '.join(unknown)}", f"see `alphagrid status {experiment}`"
        )


def _point(entry: RunEntry) -> continuity.Point:
    return continuity.Point(entry.id, entry.name, entry.baseline, entry.params, entry.config)


def _profile_record(profile: Profile, used: Iterable[str], known: Mapping[str, str]) -> dict[str, Any]:
    """Return the profile as the worker reads it.

    A local worker has its supervisor's environment, perhaps an older submitter's: the values of the
    variables that the configs use travel with the submission. Unlike those of `env` they are literal.
    """
    record = profile.model_dump(mode="json")
    if profile.cluster == "local":
        record["variables"] = {name: known[name] for name in used if name not in profile.env}
    return record


def _start(
    root: Root,
    files: ExperimentFiles,
    profile: Profile,
    submission: Submission,
    verdicts: Mapping[str, Verdict],
) -> None:
    """See to it that somebody runs what is due on this machine."""
    if profile.cluster == "local" and {"send", "active"} & set(verdicts.values()):
        local.ensure_supervisor(root)
    if profile.cluster == "debug":
        _run_here(files, submission)


def _run_here(files: ExperimentFiles, submission: Submission) -> None:
    debug.run_here(files, submission.id, [entry.id for entry in submission.runs])


def _groups(
    files: ExperimentFiles,
    past: Sequence[Submission],
    again: Sequence[Sent],
    profile: Profile | None,
    exclude_nodes: Sequence[str],
    fresh: bool,
    allow_code_change: bool,
    allow_data_change: bool,
    now: float,
) -> list[tuple[Profile, Submission]]:
    """Return one new submission per profile and source of code that the runs were last sent with."""
    alike: dict[tuple[str, str | None, str | None], list[Sent]] = defaultdict(list)
    for one in again:
        record = one.submission.profile if profile is None else profile.model_dump(mode="json")
        record = keeping_off(record, exclude_nodes)
        source = code.source_of(one.submission)
        kept = one.submission.code_hash if source is None or not Path(source).is_dir() else None
        alike[json.dumps(record, sort_keys=True), source, kept].append(one)
    groups = []
    for (record_json, _, _), members in alike.items():
        record = json.loads(record_json)
        runs = [one.entry.model_copy(update={"fresh": fresh}) for one in members]
        given = code.as_sent_before(files, members[-1].submission, runs)
        submission = Submission(
            id=submissions.new_id(now),
            created=now,
            experiment=past[-1].experiment,
            profile=record,
            **given.fields(allow_code_change),
            data_change_allowed=allow_data_change,
            runs=runs,
            named=past[-1].named,
        )
        groups.append((_recorded_profile(record, files.name), submission))
    return groups


def _recorded_profile(record: Mapping[str, Any], experiment: str) -> Profile:
    """Return the profile of a record; a local one's `env` may hold values that no profile may write.

    Raises:
        UserError: a key of it is not allowed any more.
    """
    keys = {key: value for key, value in record.items() if key != "variables"}
    try:
        return Profile.model_validate(keys if keys["cluster"] == "slurm" else {**keys, "env": {}})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(
            f"the profile recorded for these runs is no longer valid: {where}: {first['msg']}",
            f"give another one: alphagrid retry {experiment} --failed --profile NAME",
        ) from error


def _kept(verdicts: Mapping[str, Verdict]) -> dict[Verdict, tuple[str, ...]]:
    found: dict[Verdict, tuple[str, ...]] = {}
    for run_id, why in verdicts.items():
        if why != "send":
            found[why] = (*found.get(why, ()), run_id)
    return found
