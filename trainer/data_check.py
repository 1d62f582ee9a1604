"""Check that a resumed run continues with the data that its checkpoint was trained on."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..store import journal
from ..store.data_identity import compare, differing_splits
from ..store.layout import RunFiles
from .recorder import Recorder
from .resume import Resume
from .session import Session

log = logging.getLogger("alphagrid")

VERIFICATIONS = {"same": "same", "rounded": "same up to rounding", "unknown": "not verified"}
"""The field `verification` of accepted data, by the result of the comparison."""


class DataChanged(UserError):
    """The data of an attempt differ from those that its checkpoint was trained on."""


def check_data(
    session: Session, recorder: Recorder, run: RunFiles, resume: Resume, allow_change: bool
) -> None:
    """Record the data in the event `data`, and compare them with those of the checkpoint's attempt.

    Reading and hashing the data is outside the clock, and does not change any random generator.

    Raises:
        DataChanged: the fingerprints differ, and `allow_change` is false.
    """
    now = _describe_data(session, recorder)

    def record(verification: str) -> None:
        recorder.event("data", **{**now, "verification": verification})

    attempt, before = (0, None) if resume.state is None else _recorded_before(run, resume)
    if before is None:
        record("not verified" if now["fingerprint"] is None else "recorded")
        return
    likeness = compare(before, now)
    difference = f"{before['fingerprint']} in attempt {attempt}, {now['fingerprint'] or 'none'} now"
    if likeness != "different":
        record(VERIFICATIONS[likeness])
        if likeness == "rounded":
            _warn(recorder, f"the data differ in last digits (fingerprint: {difference})")
        elif likeness == "unknown":
            _warn(recorder, f"the data cannot be verified (fingerprint: {difference})")
        return
    if splits := differing_splits(before, now):
        difference += f"; splits: {', '.join(splits)}"
    if allow_change:
        record("changed")
        _warn(recorder, f"the run goes on with other data, as was allowed (fingerprint: {difference})")
        return
    record("refused")
    command = f"alphagrid retry {run.path.parent.name} {run.id}"
    raise DataChanged(
        f"the data of the run have changed (fingerprint: {difference})",
        f"restore them and run: {command}; or go on with the new ones: {command} --allow-data-change; "
        f"or train from the start with them: {command} --fresh",
    )


def _warn(recorder: Recorder, message: str) -> None:
    log.warning("%s", message)
    recorder.event("warning", message=message)


def _describe_data(session: Session, recorder: Recorder) -> dict[str, Any]:
    """Return the workload's provenance with a `fingerprint`, which may be None."""
    with session.generators.preserved():
        description = dict(session.workload.provenance())
        if description.get("fingerprint") is None:
            description.update(_hash_data(session, recorder))
    return {**description, "fingerprint": description.get("fingerprint")}


def _hash_data(session: Session, recorder: Recorder) -> dict[str, Any]:
    """Return the workload's fingerprint of the splits that the run uses; nothing if it fails.

    A workload may train and evaluate without providing a whole split.
    """
    try:
        return session.workload.data_fingerprint(["train", *session.config.eval.splits])
    except Exception as error:  # a user's workload may raise anything; training reports real problems
        _warn(recorder, f"the data have no fingerprint: {type(error).__name__}: {error}")
        return {}


def _recorded_before(run: RunFiles, resume: Resume) -> tuple[int, Mapping[str, Any] | None]:
    """Return the attempt that the checkpoint comes from, and its event `data`.

    Earlier versions of alphagrid recorded no fingerprint. Then this is the newest earlier attempt with one.
    """
    for number, path in reversed(run.journals()):
        if not resume.after_attempt < number <= resume.attempt:
            continue
        event = next(
            (record for record in _records_before_training(path) if record.get("event") == "data"), None
        )
        if event and event.get("fingerprint") is not None and event.get("verification") != "refused":
            return number, event
    return 0, None


def _records_before_training(path: Path) -> Iterator[journal.Record]:
    """Yield the records of an attempt up to its first step."""
    with path.open("rb") as file:
        for line in file:
            for record in journal.parse(line).records:
                if record["kind"] == "window" or record.get("event") == "training_started":
                    return
                yield record
