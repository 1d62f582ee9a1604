"""The table of docs/faults.md: what each fault did, said by the test that made it happen.

The rows stand below `BEGIN`, one table per machine. A new row takes the place of the one of the same fault
and the others stay, so that a few of the tests can be run alone.
"""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

BEGIN = "<!-- Written by `make faults`: do not edit what follows. -->\n"
HEAD = "| fault | what happened | what was lost |\n|---|---|---|\n"
SECTION = re.compile(r"^## (.+)\n((?:(?!^## ).*\n)*)", re.MULTILINE)


@dataclass(frozen=True, order=True)
class Row:
    """One fault, in Markdown."""

    fault: str
    happened: str
    lost: str

    def __str__(self) -> str:
        return f"| {self.fault} | {self.happened} | {self.lost} |\n"

    @classmethod
    def parse(cls, line: str) -> Row:
        fault, happened, lost = line.removeprefix("| ").removesuffix(" |").split(" | ")
        return cls(fault, happened, lost)


Tables = dict[str, list[Row]]
"""Rows by machine."""


def write(path: Path, machine: str, rows: Iterable[Row]) -> None:
    """Put the rows into the file, in place of those of the same faults."""
    with path.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        prose, _, table = file.read().partition(BEGIN)
        tables = merged(parsed(table), machine, list(rows))
        file.seek(0)
        file.write(
            prose + BEGIN + "".join(f"\n## {name}\n\n{rendered(tables[name])}" for name in sorted(tables))
        )
        file.truncate()


def parsed(text: str) -> Tables:
    """Return the rows that stand in a text."""
    return {machine: _rows(table) for machine, table in SECTION.findall(text)}


def merged(tables: Tables, machine: str, rows: list[Row]) -> Tables:
    """Return the tables with the rows at this machine, and those of the same faults nowhere else."""
    faults = {row.fault for row in rows}
    kept = {name: [row for row in table if row.fault not in faults] for name, table in tables.items()}
    kept[machine] = kept.get(machine, []) + rows
    return {name: table for name, table in kept.items() if table}


def rendered(rows: list[Row]) -> str:
    return HEAD + "".join(map(str, sorted(rows)))


def this_machine() -> str:
    """Return the hardware, the threads, and which Slurm it is (by a command that no test replaces)."""
    model = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    slurm = subprocess.run(["sinfo", "--version"], capture_output=True, text=True, check=True).stdout
    processor = model[1] if model else "unknown processor"
    return f"{processor}, {os.cpu_count()} cores, one thread per run, {slurm.strip()}"


def _rows(table: str) -> list[Row]:
    return [Row.parse(line) for line in table.splitlines() if line.startswith("| ") and line not in HEAD]
