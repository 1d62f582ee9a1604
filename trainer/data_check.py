"""Whether a resumed run goes on with the data that its checkpoint was trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..store import journal
from ..store.data_identity import compare, differing_splits
from ..store.layout import RunFiles
from .randomness import preserved
from .recorder import Recorder
from .resume import Resume
from .session import Session

VERIFICATIONS = {"same": "same", "rounded": "same up to rounding", "unknown": "not verified"}
"""What the journal says of data that are not refused."""


class DataChanged(UserError):
    """An attempt was refused because its data are not those that its checkpoint was trained on."""


def check_data(
    session: Session, recorder: Recorder, run: RunFiles, resume: Resume, allow_change: bool
) -> None:
    """Record the data in the event `data`, and compare them with those of the checkpoint's attempt.

    Reading and hashing the data is outside the clock, and leaves no trace in any random generator.

    Raises:
        DataChanged: the fingerprints differ, and nobody allowed that.
    """
    now = _describe(session)
    attempt, before = (0, None) if resume.state is None else _recorded_before(run, resume)
    if before is None:
        verification = "not verified" if now["fingerprint"] is None else "recorded"
        recorder.event("data", **now, verification=verification)
        return
    likeness = compare(before, now)
    difference = f"{before['fingerprint']} in attempt {attempt}, {now['fingerprint'] or 'none'} now"
    if likeness != "different":
        recorder.event("data", **now, verification=VERIFICATIONS[likeness])
        if likeness == "rounded":
            warn(recorder, f"the data differ in last digits (fingerprint: {difference})")
        elif likeness == "unknown":
            warn(recorder, f"the data cannot be verified (fingerprint: {difference})")
        return
    if splits := differing_splits(before, now):
        difference += f"; splits: {', '.join(splits)}"
    if allow_change:
        recorder.event("data", **now, verification="changed")
        warn(recorder, f"the run goes on with other data, as was allowed (fingerprint: {difference})")
        return
    recorder.event("data", **now, verification="refused")
    again = f"alphagrid retry {run.path.parent.name} {run.id}"
    raise DataChanged(
        f"the data of the run have changed (fingerprint: {difference})",
        f"restore them and run: {again}; or go on with the new ones: {again} --allow-data-change; "
        f"or begin anew with them: {again} --fresh",
    )


def warn(recorder: Recorder, message: str) -> None:
    """Record a warning."""
    recorder.event("warning", message=message)


def _describe(session: Session) -> dict[str, Any]:
    """Return what the workload tells of its data, with `fingerprint`, which is None where there is none."""
    with preserved():
        told = dict(session.workload.provenance())
        if told.get("fingerprint") is None:
            told.update(session.workload.data_fingerprint(["train", *session.config.eval.splits]))
    return {**told, "fingerprint": told.get("fingerprint")}


def _recorded_before(run: RunFiles, resume: Resume) -> tuple[int, Mapping[str, Any] | None]:
    """Return the attempt, and its event `data`, whose data the checkpoint was trained on.

    That is the attempt that wrote the checkpoint. If it recorded no fingerprint, as earlier versions of
    alphagrid did not, it is the newest before it that did.
    """
    for number, path in reversed(run.journals()):
        if not resume.after_attempt < number <= resume.attempt:
            continue
        event = next((record for record in _beginning(path) if record.get("event") == "data"), None)
        if event and event.get("fingerprint") is not None and event.get("verification") != "refused":
            return number, event
    return 0, None


def _beginning(path: Path) -> Iterator[journal.Record]:
    """Yield the records of an attempt up to its first step."""
    with path.open("rb") as file:
        for line in file:
            for record in journal.parse(line).records:
                if record["kind"] == "window" or record.get("event") == "training_started":
                    return
                yield record
