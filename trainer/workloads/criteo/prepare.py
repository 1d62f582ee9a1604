"""Convert text logs to a prepared folder, units in parallel; count and locate bad lines."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....errors import SystemRefused, UserError
from ....store import locks
from ....store.files import write_atomically
from .shards import MANIFEST, Dataset
from .sources import SourceFile, find, missing_days, remarks_on_days, warnings_on_rows
from .synthesis import expected_rows, read_provenance
from .units import Note, Unit, done, units_of
from .workers import convert_all

BAD_ROWS = "bad-rows.txt"
MOST_SHOWN = 10


@dataclass(frozen=True)
class Prepared:
    """Result of `prepare`: the data set, and remarks and warnings about its logs, one sentence each."""

    dataset: Dataset
    remarks: list[str]
    warnings: list[str]
    """Possible mistakes: files that seem cut off, days of unexpected sizes."""


def prepare(
    source: Path,
    folder: Path,
    jobs: int,
    max_bad_share: float = 0.001,
    allow_damaged: bool = False,
    on_size: Callable[[int], None] = lambda total: None,
    on_bytes: Callable[[int], None] = lambda read: None,
) -> Prepared:
    """Convert the logs under `source` to shards in `folder`; keep what an earlier call has converted.

    Calls `on_size` with the total number of bytes, then `on_bytes` with the number of bytes newly read.

    Raises:
        UserError: there are no logs, too many bad rows, or damaged files without `allow_damaged`.
        SystemRefused: the folder cannot be written, or another process prepares it.
    """
    files = find(source)
    units = units_of(files)
    _make_folder(folder)
    with locks.attempted(folder / ".lock", patience=0) as alone:
        if not alone:
            raise SystemRefused(f"{folder} is being prepared by another process", "wait for it to end")
        on_size(sum(unit.stop - unit.start for unit in units))
        notes = _convert(units, folder, jobs, max_bad_share, on_bytes)
        return _write_dataset(
            _Findings(files, units, [notes[unit] for unit in units]),
            source,
            folder,
            max_bad_share,
            allow_damaged,
        )


def _convert(
    units: Sequence[Unit], folder: Path, jobs: int, max_bad_share: float, on_bytes: Callable[[int], None]
) -> dict[Unit, Note]:
    """Convert the remaining units; stop as soon as the limit of bad lines is certainly exceeded."""
    notes = {unit: note for unit in units if (note := done(unit, folder))}
    waiting, strays = [unit for unit in units if unit not in notes], _stray_files(folder, units)
    for path in [folder / MANIFEST, *strays] if waiting or strays else []:
        path.unlink(missing_ok=True)
    for unit in notes:
        on_bytes(unit.stop - unit.start)
    total = sum(unit.stop - unit.start for unit in units)
    for unit, note in convert_all(waiting, folder, max(1, min(jobs, len(waiting))), on_bytes):
        notes[unit] = note
        read = sum(unit.stop - unit.start for unit in notes)
        bad, lines = sum(note.bad for note in notes.values()), sum(note.lines for note in notes.values())
        if len(notes) < len(units) and bad > max_bad_share * lines * total / max(read, 1):
            seen = _gapless_units(units, notes)
            findings = _Findings([], seen, [notes[unit] for unit in seen])
            raise findings.too_bad(folder, max_bad_share, f"{bad:,} of the first {lines:,} lines")
    return notes


def _gapless_units(units: Sequence[Unit], notes: dict[Unit, Note]) -> list[Unit]:
    """Return the converted units without a gap before them, whose line numbers are known."""
    gaps = {unit.file.path: unit.start for unit in reversed(units) if unit not in notes}
    return [unit for unit in units if unit.start < gaps.get(unit.file.path, unit.stop)]


def _write_dataset(
    findings: _Findings, source: Path, folder: Path, max_bad_share: float, allow_damaged: bool
) -> Prepared:
    """Write the data set, or refuse it if too much is bad or damaged."""
    findings.write(folder / BAD_ROWS)
    if findings.bad > max_bad_share * findings.lines:
        raise findings.too_bad(folder, max_bad_share, f"{findings.bad:,} of {findings.lines:,} lines")
    damaged = findings.damaged
    if damaged and not allow_damaged:
        raise UserError(
            "; ".join(damaged), "mend the files and run again (the others stay), or add --allow-damaged"
        )
    notes = findings.notes
    if not sum(note.shard.rows for note in notes):
        raise UserError(f"{source} holds no rows")
    dataset = Dataset(
        folder,
        tuple(note.shard for note in notes),
        str(source.resolve()),
        findings.lines,
        findings.bad,
        tuple(findings.missing_days),
        tuple(damaged),
        read_provenance(source),
    )
    dataset.write()
    return Prepared(dataset, findings.remarks(folder), findings.warnings(dataset.synthetic))


@dataclass(frozen=True)
class _Findings:
    """Counts and problems of the logs, over all units."""

    files: list[SourceFile]
    units: list[Unit]
    notes: list[Note]

    @property
    def bad(self) -> int:
        return sum(note.bad for note in self.notes)

    @property
    def lines(self) -> int:
        """Without headers."""
        headers = sum(file.header_lines for file in self.files)
        return sum(note.lines for note in self.notes) - headers

    @property
    def missing_days(self) -> list[int]:
        return missing_days(file.day for file in self.files)

    @property
    def damaged(self) -> list[str]:
        return [f"{place}: {damage}" for place, damage in self._damages()]

    def located(self) -> Iterator[tuple[str, str]]:
        """Yield `file:line` and reason of every bad line that was kept."""
        for unit, note, before in self._units_with_offsets():
            for line, reason in note.kept_bad:
                yield f"{unit.file.path}:{before + line + 1}", reason

    def write(self, path: Path) -> None:
        """Write the places of bad lines to a file; remove the file if there are none."""
        path.unlink(missing_ok=True)
        lines = [f"{place}: {reason}\n" for place, reason in self.located()]
        if lines:
            write_atomically(path, "".join(lines).encode())

    def remarks(self, folder: Path) -> list[str]:
        """Return remarks for the user, one sentence each."""
        remarks = [f"damaged: {damage}" for damage in self.damaged]
        remarks += remarks_on_days(file.day for file in self.files)
        if self.bad:
            remarks += [
                f"{self.bad:,} of {self.lines:,} lines are no rows and were left out:",
                *self.examples(folder),
            ]
        return remarks

    def warnings(self, synthetic: dict[str, Any] | None) -> list[str]:
        """Return warnings about days of other sizes than published or synthesized, and unended files."""
        rows: Counter[int] = Counter()
        for file in self.files:
            if file.is_named_by_day:
                rows[file.day] -= file.header_lines
        for unit, note in zip(self.units, self.notes, strict=True):
            if unit.file.is_named_by_day:
                rows[unit.file.day] += note.lines
        unended = [unit.file.path for unit, note in zip(self.units, self.notes, strict=True) if note.unended]
        return warnings_on_rows(rows, *expected_rows(synthetic), unended)

    def examples(self, folder: Path) -> list[str]:
        """Return the kinds of bad lines with their counts, and the first bad lines with their places."""
        located = list(self.located())
        kinds = Counter(_reason_kind(reason) for _, reason in located)
        sample_note = "" if len(located) == self.bad else f" (of {len(located):,} that were kept)"
        counts = [f"  {count:,} × {kind}{sample_note}" for kind, count in kinds.most_common(MOST_SHOWN)]
        first = [f"  {place}: {reason}" for place, reason in located[:MOST_SHOWN]]
        more = [f"  and more: {folder / BAD_ROWS}"] if len(located) > MOST_SHOWN else []
        return [*counts, *first, *more]

    def too_bad(self, folder: Path, max_bad_share: float, how_many: str) -> UserError:
        """Return the error for too many bad lines."""
        details = "\n".join(self.examples(folder))
        return UserError(
            f"{how_many} are no rows, more than a share of {max_bad_share:g}:\n{details}",
            "mend the files, or allow more with --max-bad-share; what is converted stays",
        )

    def _units_with_offsets(self) -> Iterator[tuple[Unit, Note, int]]:
        """Yield each unit with the number of lines before it in its file."""
        before: Counter[Path] = Counter()
        for unit, note in zip(self.units, self.notes, strict=True):
            yield unit, note, before[unit.file.path]
            before[unit.file.path] += note.lines

    def _damages(self) -> Iterator[tuple[str, str]]:
        for unit, note, before in self._units_with_offsets():
            if note.damage == "empty":
                yield str(unit.file.path), "the file is empty"
            elif note.damage is not None:
                yield f"{unit.file.path}:{before + note.lines + 1}", note.damage


def _reason_kind(reason: str) -> str:
    """Return a reason without the text of one particular line."""
    return re.sub(r": '.*' is", ": a field is", reason)


def _make_folder(folder: Path) -> None:
    """Create the folder; refuse a folder that holds other files."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        strange = [path.name for path in folder.iterdir() if not _is_own_file(path.name)]
    except OSError as error:
        raise SystemRefused(f"cannot write to {folder}: {error.strerror}") from error
    if strange:
        raise UserError(f"{folder} holds other things ({strange[0]})", "give an empty folder, or a new one")


def _is_own_file(name: str) -> bool:
    return name in (MANIFEST, BAD_ROWS, ".lock") or bool(re.fullmatch(r"\.?day_\d+(_\d+)?-\d+\..*", name))


def _stray_files(folder: Path, units: Sequence[Unit]) -> list[Path]:
    """Return temporary files of killed processes, and shards of files that no longer exist."""
    names = {f"{unit.name}{ending}" for unit in units for ending in (".npy", ".json")}
    return [path for path in folder.glob("*day_*") if path.name not in names]
