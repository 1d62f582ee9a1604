"""Queries of the index: plain functions over a connection, which return frozen dataclasses.

No query returns superseded records, those of an older attempt past the step at which a newer one resumed.
NULL stands for NaN: a query returns `nan` for a measured value that is not a number, and None if there is no
value.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from . import numbers
from .lazy import JsonObject
from .rows import (
    AlphaRow,
    AttemptRow,
    Estimate,
    EstimateSummary,
    EvaluationRow,
    EventRow,
    Job,
    JournalRow,
    Loss,
    RunRow,
    SenderRow,
    WindowRow,
)
from .schema import ALPHA_PARTS, CATEGORIES, COSTS, REJECTING, REJECTING_INDEX

__all__ = [
    "AlphaRow", "AttemptRow", "Estimate", "EstimateSummary", "EvaluationRow", "EventRow", "Job",
    "JournalRow", "Loss", "RunRow", "SenderRow",
    "WindowRow", "alphas", "alphas_of", "attempts", "attempts_of", "evaluations", "evaluations_of", "events",
    "events_of", "experiments", "hosts", "jobs", "journals", "losses", "metric_keys", "rejections_of", "runs",
    "senders", "windows", "windows_of",
]  # fmt: skip

MOST_LEFT_OUT = 10**9
"""Upper limit of the values that a window may leave out; a larger number in a journal is not a count."""

Row = TypeVar("Row")


def experiments(db: sqlite3.Connection) -> list[str]:
    """Return the experiments' names, sorted."""
    return [name for (name,) in db.execute("SELECT DISTINCT experiment FROM submission ORDER BY experiment")]


def runs(db: sqlite3.Connection, experiment: str) -> list[RunRow]:
    """Return an experiment's runs: those of the newest specification in its order, then the others."""
    sql = f"SELECT {_RUN} FROM run WHERE experiment = ? ORDER BY position IS NULL, position, id"
    stops: dict[str | None, dict[str, Any]] = {}
    return [_build_run(row, stops) for row in db.execute(sql, (experiment,))]


def evaluations(db: sqlite3.Connection, run: int) -> list[EvaluationRow]:
    """Return a run's evaluations by step."""
    return _query_run(db, "evaluation", _EVALUATION, "step, split", run, _build_evaluations)


def evaluations_of(db: sqlite3.Connection, experiment: str) -> dict[int, list[EvaluationRow]]:
    """Return the evaluations of all runs of an experiment, by the run's key."""
    return _query_experiment(db, "evaluation", _EVALUATION, "step, split", experiment, _build_evaluations)


def losses(db: sqlite3.Connection, experiment: str, split: str) -> dict[int, list[Loss]]:
    """Return all evaluations of one split as tuples, by the run's key."""
    losses_by_run: dict[int, list[Loss]] = defaultdict(list)
    columns = "run, step, train_seconds, loss, at_stop"
    sql = f"SELECT {columns} FROM evaluation WHERE {_IN_EXPERIMENT} AND split = ? ORDER BY run, step"
    for run, step, seconds, loss, at_stop in db.execute(sql, (experiment, split)):
        losses_by_run[run].append(Loss(step, seconds, _nan_if_null(loss), bool(at_stop)))
    return dict(losses_by_run)


def windows(db: sqlite3.Connection, run: int) -> list[WindowRow]:
    """Return a run's windows by step."""
    return _query_run(db, "window", _WINDOW, "step", run, _build_windows)


def windows_of(db: sqlite3.Connection, experiment: str) -> dict[int, list[WindowRow]]:
    """Return the windows of all runs of an experiment, by the run's key."""
    return _query_experiment(db, "window", _WINDOW, "step", experiment, _build_windows)


def events(db: sqlite3.Connection, run: int) -> list[EventRow]:
    """Return a run's events in the order of writing."""
    return _query_run(db, "event", _EVENT, "attempt, seq", run, _build_events)


def events_of(db: sqlite3.Connection, experiment: str) -> dict[int, list[EventRow]]:
    """Return the events of all runs of an experiment, by the run's key."""
    return _query_experiment(db, "event", _EVENT, "attempt, seq", experiment, _build_events)


def rejections_of(db: sqlite3.Connection, experiment: str) -> dict[int, dict[str, int]]:
    """Return how many α*, and windows of them, each run rejected, by the run's key and the reason.

    A value that a window left out counts under its reason, even if the window was accepted.
    """
    counts: dict[int, dict[str, int]] = defaultdict(dict)
    for run, reason, count in db.execute(_REJECTIONS, (experiment,)):
        counts[run][str(reason)] = counts[run].get(str(reason), 0) + int(count)
    return dict(counts)


def warnings(db: sqlite3.Connection, experiment: str) -> dict[str, list[str]]:
    """Return the warnings in the journals of an experiment, each with the ids of its runs."""
    sql = """
        SELECT DISTINCT json_extract(details, '$.message'), run.id FROM event JOIN run ON run.key = event.run
        WHERE event.event = 'warning' AND run.experiment = ?
        AND json_extract(details, '$.message') IS NOT NULL ORDER BY run.key, attempt, seq
    """
    runs_by_message: dict[str, list[str]] = defaultdict(list)
    for message, run in db.execute(sql, (experiment,)):
        runs_by_message[str(message)].append(run)
    return dict(runs_by_message)


def attempts(db: sqlite3.Connection, run: int) -> list[AttemptRow]:
    """Return a run's attempts, oldest first."""
    sql = f"SELECT {_ATTEMPT} FROM journal WHERE run = ? ORDER BY attempt"
    return [_build_attempt(row) for row in _rows_as_dicts(db.execute(sql, (run,)))]


def attempts_of(db: sqlite3.Connection, experiment: str) -> dict[int, list[AttemptRow]]:
    """Return the attempts of all runs of an experiment, by the run's key."""
    attempts_by_run: dict[int, list[AttemptRow]] = defaultdict(list)
    sql = f"SELECT run, {_ATTEMPT} FROM journal WHERE {_IN_EXPERIMENT} ORDER BY run, attempt"
    for row in _rows_as_dicts(db.execute(sql, (experiment,))):
        attempts_by_run[row.pop("run")].append(_build_attempt(row))
    return dict(attempts_by_run)


def alphas(db: sqlite3.Connection, run: int, estimator: str | None = None) -> list[AlphaRow]:
    """Return the α* measurements of a run, by step; with `estimator`, only those of this estimator."""
    return alphas_of_runs(db, [run], estimator).get(run, [])


def alphas_of(
    db: sqlite3.Connection, experiment: str, estimator: str | None = None
) -> dict[int, list[AlphaRow]]:
    """Return the α* measurements of all runs of an experiment, by the run's key."""
    keys = [key for (key,) in db.execute("SELECT key FROM run WHERE experiment = ?", (experiment,))]
    return alphas_of_runs(db, keys, estimator)


def alphas_of_runs(
    db: sqlite3.Connection, keys: list[int], estimator: str | None = None
) -> dict[int, list[AlphaRow]]:
    """Return the α* measurements of the runs in `keys`, by the run's key."""
    rows_by_run: dict[int, list[AlphaRow]] = {}
    names = metric_keys(db)
    for run in keys:
        rows = _read_alphas(db, run, names, estimator)
        if rows:
            rows_by_run[run] = rows
    return rows_by_run


def metric_keys(db: sqlite3.Connection) -> list[str]:
    """Return the keys of the metric table, by one index look-up for each key."""
    return [key for (key,) in db.execute(_METRIC_KEYS)]


def senders(db: sqlite3.Connection, experiment: str) -> dict[str, SenderRow]:
    """Return the submissions of an experiment, by id."""
    sql = """
        SELECT id, json_extract(profile, '$.cluster'), refusal, site FROM submission
        WHERE experiment = ?
    """
    return {row[0]: SenderRow(*row) for row in db.execute(sql, (experiment,))}


def jobs(db: sqlite3.Connection, experiment: str, run_id: str) -> list[Job]:
    """Return all jobs that were submitted for a run, oldest first."""
    sql = """
        SELECT job_cluster, job_id, job_submitted FROM entry JOIN submission USING (experiment, file)
        WHERE experiment = ? AND run = ? AND job_id IS NOT NULL ORDER BY created, submission.id
    """
    return [Job(*row) for row in db.execute(sql, (experiment, run_id))]


def hosts(db: sqlite3.Connection, experiment: str) -> dict[str, str]:
    """Return the host of each run's newest attempt, by the run's id; omit unknown hosts."""
    newest = "SELECT host FROM journal WHERE journal.run = run.key ORDER BY attempt DESC LIMIT 1"
    sql = f"SELECT id, ({newest}) AS host FROM run WHERE experiment = ? AND host IS NOT NULL"
    return dict(db.execute(sql, (experiment,)).fetchall())


def damage(db: sqlite3.Connection, experiment: str) -> list[str]:
    """Return the files of an experiment that have problems, for example unreadable lines."""
    sql = "SELECT DISTINCT file FROM problem WHERE experiment = ? ORDER BY file"
    return [str(file) for (file,) in db.execute(sql, (experiment,))]


def journals(db: sqlite3.Connection, experiment: str | None = None) -> list[JournalRow]:
    """Return how far each journal has been read, of one or all experiments."""
    sql = f"SELECT {_JOURNAL} FROM journal JOIN run ON run.key = journal.run"
    where = "" if experiment is None else " WHERE experiment = ?"
    order = " ORDER BY experiment, id, attempt"
    return [
        JournalRow(*row)
        for row in db.execute(sql + where + order, () if experiment is None else (experiment,))
    ]


_IN_EXPERIMENT = "run IN (SELECT key FROM run WHERE experiment = ?)"
_RUN = (
    "key, experiment, id, name, baseline, params, config, json_extract(config, '$.stop') AS stop,"
    " position IS NOT NULL AS named, attempts,"
    " first_attempt_time, last_seen, step, train_seconds, learning_rate, best_validation_loss, end_status,"
    " end_reason, end_time, end_submission, last_event, last_event_reason, attempt_submission,"
    " last_submission, submitted, job_cluster, job_id, job_submitted, cancel_submissions, superseded,"
    " checkpoint_step, checkpoint_bytes, checkpoint_seconds"
)
_EVALUATION = "step, train_seconds, attempt, time, split, loss, examples, seconds, at_stop"
_WINDOW = (
    "step, train_seconds, attempt, time, steps, alpha_steps, loss, lr_min, lr_mean, lr_max, "
    + ", ".join([f"{category}_seconds" for category in CATEGORIES] + [f"{kind}_cost" for kind in COSTS])
    + "".join(f", alpha_{part}_seconds" for part in ALPHA_PARTS)
)
_EVENT = "step, train_seconds, time, attempt, event, details"
_ATTEMPT = (
    "attempt, resume_step, fresh, submission, start_time AS time, host, pid, device, gpu, threads, versions,"
    " stop, job, last_time AS last_seen, step, train_seconds, checkpoint_step, end_status, end_reason,"
    " last_event, last_event_reason"
)
_JOURNAL = "experiment, id, attempt, size, offset, records, bad, last_seq, journal.end_status IS NOT NULL"
_SCALARS = (
    "learning_rate", "direction_norm", "gradient_norm", "cosine", "train_loss", "probe_loss", "train_slope",
    "lookahead_cosine", "probe_cosine", "reduction_ratio",
)  # fmt: skip
_REJECTING = f"FROM event INDEXED BY {REJECTING_INDEX} WHERE {_IN_EXPERIMENT} AND {REJECTING}"
_REJECTIONS = f"""
    WITH rejecting(run, event, details) AS MATERIALIZED (SELECT run, event, details {_REJECTING})
    SELECT run, json_extract(details, '$.reason'), count(*) FROM rejecting
    WHERE event = 'rejected' GROUP BY 1, 2
    UNION ALL
    SELECT run, left_out.key, total(left_out.value)
    FROM rejecting, json_each(details, '$.left_out') AS left_out
    WHERE left_out.type = 'integer' AND left_out.value BETWEEN 1 AND {MOST_LEFT_OUT} GROUP BY 1, 2
    ORDER BY 1, 3 DESC, 2
"""
_METRIC_KEYS = """
    WITH RECURSIVE name(key) AS (
        SELECT min(key) FROM metric
        UNION ALL
        SELECT (SELECT min(key) FROM metric WHERE key > name.key) FROM name WHERE name.key IS NOT NULL
    ) SELECT key FROM name WHERE key IS NOT NULL
"""

Build = Callable[[Iterator[Any]], list[Row]]


def _query_run(
    db: sqlite3.Connection, table: str, columns: str, order: str, run: int, build: Build[Row]
) -> list[Row]:
    return build(db.execute(f"SELECT {columns} FROM {table} WHERE run = ? ORDER BY {order}", (run,)))


def _query_experiment(
    db: sqlite3.Connection, table: str, columns: str, order: str, experiment: str, build: Build[Row]
) -> dict[int, list[Row]]:
    rows: dict[int, list[Any]] = defaultdict(list)
    sql = f"SELECT run, {columns} FROM {table} WHERE {_IN_EXPERIMENT} ORDER BY run, {order}"
    for run, *row in db.execute(sql, (experiment,)):
        rows[run].append(row)
    return {run: build(iter(run_rows)) for run, run_rows in rows.items()}


def _nan_if_null(value: float | None) -> float:
    return math.nan if value is None else value


def _rows_as_dicts(cursor: sqlite3.Cursor) -> Iterator[dict[str, Any]]:
    names = [column[0] for column in cursor.description]
    return (dict(zip(names, row, strict=True)) for row in cursor)


def _build_run(row: tuple[Any, ...], stops: dict[str | None, dict[str, Any]]) -> RunRow:
    """Return a run from `_RUN`'s columns; `stops` caches parsed stops, as most runs share one."""
    *title, params, config, stop, in_spec = row[:9]
    *facts, last_submission, submitted = row[9:25]
    cluster, job_id, job_submitted, cancels = row[25:29]
    if stop not in stops:
        stops[stop] = json.loads(stop or "{}")
    job = None if cluster is None else Job(cluster, job_id, job_submitted)
    cancelled = cancels is not None and last_submission in json.loads(cancels)
    values: list[Any] = [*title, json.loads(params), JsonObject(config), stops[stop], bool(in_spec)]
    values += [*facts, last_submission, submitted, job, cancelled, *row[29:]]
    return RunRow(*values)


def _build_evaluations(rows: Iterator[Any]) -> list[EvaluationRow]:
    evaluation_rows: list[EvaluationRow] = []
    for step, train_seconds, attempt, time, split, loss, examples, seconds, at_stop in rows:
        if not evaluation_rows or evaluation_rows[-1].step != step:
            evaluation_rows.append(
                EvaluationRow(step, train_seconds, attempt, time, {}, {}, seconds, bool(at_stop))
            )
        evaluation_rows[-1].losses[split] = _nan_if_null(loss)
        evaluation_rows[-1].examples[split] = _nan_if_null(examples)
    return evaluation_rows


def _build_windows(rows: Iterator[Any]) -> list[WindowRow]:
    return [_build_window(*row) for row in rows]


def _build_window(
    step: int, train_seconds: float, attempt: int, time: float, steps: int, alpha_steps: int, *rest: Any
) -> WindowRow:
    loss, lowest, mean, highest = map(_nan_if_null, rest[:4])
    seconds = dict(zip(CATEGORIES, rest[4 : 4 + len(CATEGORIES)], strict=True))
    costs = _present_values(COSTS, rest[4 + len(CATEGORIES) : -len(ALPHA_PARTS)])
    parts = _present_values(ALPHA_PARTS, rest[-len(ALPHA_PARTS) :])
    place = (step, train_seconds, attempt, time)
    return WindowRow(*place, steps, alpha_steps, loss, lowest, mean, highest, seconds, costs, parts)


def _present_values(names: tuple[str, ...], values: tuple[float | None, ...]) -> dict[str, float]:
    return {name: value for name, value in zip(names, values, strict=True) if value is not None}


def _build_events(rows: Iterator[Any]) -> list[EventRow]:
    return [EventRow(*(*row[:-1], numbers.decode(row[-1]))) for row in rows]


def _build_attempt(row: dict[str, Any]) -> AttemptRow:
    job = json.loads(row["job"]) if row["job"] else None
    row.update(
        fresh=bool(row["fresh"]),
        versions=json.loads(row["versions"] or "{}"),
        stop=json.loads(row["stop"] or "{}"),
        job=None if job is None else Job(job["cluster"], str(job["job_id"]), job.get("submitted")),
    )
    return AttemptRow(**row)


def _read_alphas(db: sqlite3.Connection, run: int, keys: list[str], estimator: str | None) -> list[AlphaRow]:
    measured: dict[tuple[int, int], dict[str, float]] = defaultdict(dict)
    attempt_of: dict[tuple[int, int], int] = {}
    sql = "SELECT step, repeat, attempt, value FROM metric WHERE key = ? AND run = ?"
    for key in keys:
        if estimator is None or "." not in key or key.startswith(f"{estimator}."):
            for step, repeat, attempt, value in db.execute(sql, (key, run)):
                measured[step, repeat][key] = _nan_if_null(value)
                attempt_of[step, repeat] = attempt
    rows = [_build_alpha(*at, attempt_of[at], measured[at]) for at in sorted(measured)]
    return rows if estimator is None else [row for row in rows if row.estimates or row.summaries]


def _build_alpha(step: int, repeat: int, attempt: int, values: dict[str, float]) -> AlphaRow:
    parts: dict[str, dict[str, float]] = defaultdict(dict)
    for key, value in values.items():
        name, dot, part = key.partition(".")
        if dot:
            parts[name][part] = value
    first_step = values.get("first_step")
    single = first_step is None
    return AlphaRow(
        step=step,
        repeat=repeat,
        attempt=attempt,
        train_seconds=values["train_seconds"],
        estimates={name: _build_estimate(numbers) for name, numbers in parts.items()} if single else {},
        first_step=None if first_step is None else int(first_step),
        summaries={} if single else {name: _build_summaries(numbers) for name, numbers in parts.items()},
        **{name: values.get(name) for name in _SCALARS},
    )


def _build_estimate(parts: dict[str, float]) -> Estimate:
    fields = Estimate.__dataclass_fields__
    return Estimate(**{part: value for part, value in parts.items() if part in fields})


def _build_summaries(parts: dict[str, float]) -> dict[str, EstimateSummary]:
    quantities = [part.removesuffix("_mean") for part in parts if part.endswith("_mean")]
    return {
        quantity: EstimateSummary(
            n=int(parts[f"{quantity}_n"]),
            mean=parts[f"{quantity}_mean"],
            median=parts[f"{quantity}_median"],
            sd=parts.get(f"{quantity}_sd"),
            negative=parts[f"{quantity}_negative"],
        )
        for quantity in quantities
    }
