"""Turn a journal's records into rows of tables and a summary of the attempt. Pure functions."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from . import numbers
from .journal import Record
from .schema import ALPHA_PARTS, CATEGORIES, COSTS
from .shapes import LARGEST, is_amount

Number = TypeVar("Number", int, float)

Row = tuple[Any, ...]
Rows = dict[str, list[Row]]
"""By table."""

REPLACEABLE_EVENTS = ("learning_rate", "rejected")
"""Events that a run repeats when it resumes from an earlier step; all other events stay."""

ENDS = frozenset({"completed", "diverged", "failed", "cancelled"})
"""Allowed values of `status` in an `end` record."""

MISFITS = (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)
"""Errors from reading a record whose fields do not match its kind."""

LAST_WORDS = ("interrupted", "crash")


@dataclass
class Summary:
    """Summary of an attempt's records: columns of the table `journal`."""

    records: int = 0
    replaceable: int = 0
    """Records of the kinds that a newer attempt can supersede."""
    last_seq: int = -1
    resume_step: int | None = None
    fresh: int = 0
    submission: str | None = None
    start_time: float | None = None
    host: str | None = None
    pid: int | None = None
    device: str | None = None
    gpu: str | None = None
    threads: int | None = None
    versions: str | None = None
    stop: str | None = None
    job: str | None = None
    last_time: float | None = None
    step: int = 0
    train_seconds: float = 0.0
    learning_rate: float | None = None
    checkpoint_step: int | None = None
    checkpoint_bytes: int | None = None
    checkpoint_seconds: float | None = None
    end_status: str | None = None
    end_reason: str | None = None
    end_time: float | None = None
    last_event: str | None = None
    last_event_reason: str | None = None


@dataclass
class Digest:
    """Collects one attempt's records in order; `_rows` are those since the last `take_rows`."""

    run: int
    attempt: int
    summary: Summary = field(default_factory=Summary)
    _rows: Rows = field(default_factory=lambda: defaultdict(list))

    def add(self, record: Record) -> None:
        """Add one record; a record of an unknown kind is counted and has no rows.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: the fields do not match the kind; the digest is
                then unchanged.
        """
        _count(record["step"])
        _count(record["seq"])
        rows, changes = _READERS.get(record["kind"], _read_unknown)(record)
        changes.update(_read_progress(record))
        for name, value in changes.items():
            setattr(self.summary, name, value)
        for table, row in rows:
            self._rows[table].append(self._add_keys(table, row))
        self.summary.records += 1
        self.summary.replaceable += _is_replaceable(record)
        self.summary.last_seq = record["seq"]

    def take_rows(self) -> Rows:
        """Return and clear the rows collected so far."""
        rows, self._rows = self._rows, defaultdict(list)
        return rows

    def _add_keys(self, table: str, row: Row) -> Row:
        """Insert the run and the attempt at their places in a row of the table."""
        if table == "metric":
            key, step, repeat, value = row
            return key, self.run, step, repeat, self.attempt, value
        if table == "evaluation":
            return self.run, *row[:2], self.attempt, *row[2:]
        if table == "window":
            return self.run, row[0], self.attempt, *row[1:]
        return self.run, self.attempt, *row


Reader = Callable[[Record], tuple[list[tuple[str, Row]], dict[str, Any]]]


def _read_unknown(record: Record) -> tuple[list[tuple[str, Row]], dict[str, Any]]:
    return [], {}


def is_start(record: Record) -> bool:
    """Return whether a record is a valid `start` record."""
    try:
        _read_start(record)
    except MISFITS:
        return False
    return True


def _read_start(record: Record) -> tuple[list[tuple[str, Row]], dict[str, Any]]:
    texts = {key: _storable_text_or_none(record.get(key)) for key in ("submission", "host", "device", "gpu")}
    structures = {key: _json_or_none(record.get(key)) for key in ("versions", "stop", "job")}
    _check_start(record)
    whole = {key: None if record.get(key) is None else _integer(record[key]) for key in ("pid", "threads")}
    return [], {
        "resume_step": _count(record["resume_step"]),
        "fresh": int(bool(record.get("fresh"))),
        "start_time": _finite_number(record["time"]),
        **texts,
        **structures,
        **whole,
    }


def _check_start(record: Record) -> None:
    """Refuse `start` fields that readers of the index could not use.

    Raises:
        ValueError: a field is wrong.
    """
    if not isinstance(record.get("submission"), str | None):
        raise ValueError("submission is no id")
    for key in ("versions", "stop", "job"):
        if not isinstance(record.get(key), dict | None):
            raise ValueError(f"{key} is no mapping")
    job, stop = record.get("job"), record.get("stop") or {}
    if job is not None and not (isinstance(job.get("cluster"), str) and isinstance(job.get("job_id"), str)):
        raise ValueError("job has no cluster and job_id")
    if job is not None and not is_amount(job.get("submitted")):
        raise ValueError("job was submitted at no time")
    if not all(is_amount(stop.get(key)) for key in ("steps", "train_seconds")):
        raise ValueError("stop is no number")


def _read_window(record: Record) -> tuple[list[tuple[str, Row]], dict[str, Any]]:
    rates, seconds, costs = record["learning_rate"], record["seconds"], record.get("costs", {})
    parts = record.get("alpha_parts") or {}
    if unknown := (set(seconds) - set(CATEGORIES)) | (set(parts) - set(ALPHA_PARTS)):
        raise ValueError(f"unknown categories of seconds: {sorted(unknown)}")
    lowest, mean, highest = (_number(rates[key]) for key in ("min", "mean", "max"))
    row = (
        record["step"], *_read_times(record),
        _integer(record["steps"]), _integer(record.get("alpha_steps", 0)),
        _number(record["loss"]), lowest, mean, highest,
        *(_finite_number(seconds.get(category, 0.0)) for category in CATEGORIES),
        *(_number(costs.get(kind)) for kind in COSTS),
        *(_number(parts.get(part)) for part in ALPHA_PARTS),
    )  # fmt: skip
    return [("window", row)], {"learning_rate": _number(rates["last"]) if "last" in rates else mean}


def _read_alpha(record: Record) -> tuple[list[tuple[str, Row]], dict[str, Any]]:
    step, repeat = record["step"], _count(record.get("repeat", 0))
    if record.get("first_step") is not None:
        _check_summaries(record)
    rows = [("metric", (key, step, repeat, value)) for key, value in _metrics(record)]
    return rows, {}


def _check_summaries(record: Record) -> None:
    """Refuse window statistics that readers of the index could not use.

    Raises:
        KeyError, TypeError, ValueError: a field is missing or wrong.
    """
    _count(record["first_step"])
    for parts in record.get("estimates", {}).values():
        for part in parts:
            if part.endswith("_mean") and parts[part] is not None:
                quantity = part.removesuffix("_mean")
                _count(parts[f"{quantity}_n"])
                float(parts[f"{quantity}_median"])
                float(parts[f"{quantity}_negative"])


def _metrics(record: Record) -> Iterator[tuple[str, float | None]]:
    """Yield key and value of each measurement; a null was not computed and has no row."""
    for key, value in record.items():
        if key == "estimates":
            for name, parts in value.items():
                yield from (
                    (_storable_text(f"{name}.{part}"), _number(v))
                    for part, v in parts.items()
                    if v is not None
                )
        elif key not in _NO_METRICS and value is not None:
            yield _storable_text(key), _number(value)


def _read_evaluation(record: Record) -> tuple[list[tuple[str, Row]], dict[str, Any]]:
    seconds, at_stop = _finite_number(record["seconds"]), int(bool(record["at_stop"]))
    rows = [
        (
            record["step"],
            _storable_text(split),
            *_read_times(record),
            _number(of["loss"]),
            _number(of["examples"]),
            seconds,
            at_stop,
        )
        for split, of in record["splits"].items()
    ]
    return [("evaluation", row) for row in rows], {}


def _read_checkpoint(record: Record) -> tuple[list[tuple[str, Row]], dict[str, Any]]:
    return [], {
        "checkpoint_step": record["step"],
        "checkpoint_bytes": _integer(record["bytes"]),
        "checkpoint_seconds": _finite_number(record["seconds"]),
    }


def _read_event(record: Record) -> tuple[list[tuple[str, Row]], dict[str, Any]]:
    name = _storable_text(record["event"])
    _check_details(name, record)
    details = {key: value for key, value in record.items() if key not in _NO_DETAILS}
    time, train_seconds = _read_times(record)
    row = (record["seq"], record["step"], train_seconds, time, name, _details_json(details))
    changes: dict[str, Any] = {}
    if name in LAST_WORDS:
        changes = {"last_event": name, "last_event_reason": _storable_text_or_none(record.get("reason"))}
    elif name == "learning_rate":
        changes = {"learning_rate": _number(record["value"])}
    return [("event", row)], changes


def _check_details(name: str, record: Record) -> None:
    """Refuse event details that readers of the index could not use.

    Raises:
        ValueError, TypeError: a field is wrong.
    """
    if name == "learning_rate" and "window_start" in record and "of" in record:
        _integer(record["window_start"])
        _integer(record["of"])
    elif name == "training_started":
        if record.get("train_examples") is not None:
            _count(record["train_examples"])
    elif name == "data":
        days = record.get("missing_days")
        if not (days is None or (isinstance(days, list) and all(isinstance(day, int) for day in days))):
            raise ValueError("missing_days is no list of days")


def _read_end(record: Record) -> tuple[list[tuple[str, Row]], dict[str, Any]]:
    if record["status"] not in ENDS:
        raise ValueError(f"the status {record['status']} is none")
    return [], {
        "end_status": _storable_text(record["status"]),
        "end_reason": _storable_text_or_none(record.get("reason")),
        "end_time": _finite_number(record["time"]),
    }


_READERS: Mapping[str, Reader] = {
    "start": _read_start,
    "window": _read_window,
    "alpha": _read_alpha,
    "evaluation": _read_evaluation,
    "checkpoint": _read_checkpoint,
    "event": _read_event,
    "end": _read_end,
}
_ENVELOPE = frozenset({"kind", "step", "time", "seq", "crc"})
_NO_METRICS = _ENVELOPE | {"repeat"}
_NO_DETAILS = _ENVELOPE | {"train_seconds", "event"}


def _is_replaceable(record: Record) -> bool:
    kind = record["kind"]
    return kind in ("window", "alpha", "evaluation") or (
        kind == "event" and record["event"] in REPLACEABLE_EVENTS
    )


def _read_progress(record: Record) -> dict[str, Any]:
    """Return the run's progress; an α* record has none, as its step is an index."""
    progress: dict[str, Any] = {"last_time": _finite_number(record["time"])}
    if record["kind"] != "alpha":
        progress.update(step=record["step"], train_seconds=_amount(record["train_seconds"]))
    return progress


def _read_times(record: Record) -> tuple[float, float]:
    return _finite_number(record["time"]), _amount(record["train_seconds"])


def _number(value: Any) -> float | None:
    """Return a column's value, None (NULL) for NaN."""
    if value is None:
        return None
    number = float(value)
    return number if number == number else None


def _finite_number(value: Any) -> float:
    """Return a finite number below `LARGEST` in size."""
    number = float(value)
    if not -LARGEST < number < LARGEST:
        raise ValueError(f"{number} where only a finite number makes sense")
    return number


def _amount(value: Any) -> float:
    """Return a finite number of at least 0."""
    return _not_negative(_finite_number(value))


def _integer(value: Any) -> int:
    """Return an integer that SQLite can store."""
    number = int(value)
    if not -LARGEST <= number < LARGEST:
        raise ValueError(f"{number} is too large")
    return number


def _count(value: Any) -> int:
    """Return an integer of at least 0."""
    return _not_negative(_integer(value))


def _not_negative(number: Number) -> Number:
    if number < 0:
        raise ValueError(f"{number} is negative")
    return number


def _storable_text(value: Any) -> str:
    """Return text that SQLite can store (a file name may contain half a character)."""
    return str(value).encode(errors="replace").decode()


def _storable_text_or_none(value: Any) -> str | None:
    return None if value is None else _storable_text(value)


def _details_json(details: Mapping[str, Any]) -> str:
    """Return JSON whose parts SQLite can all return as text."""
    text = numbers.encode(details)
    return _storable_text(json.dumps(json.loads(text), ensure_ascii=False)) if "\\ud" in text else text


def _json_or_none(value: Any) -> str | None:
    return None if value is None else json.dumps(value)
