"""Parse the text formats of Slurm: records, durations, memory, devices and lists of nodes.

This module runs no command. Text that cannot be parsed gives None and no error, because sites and versions
differ. `math.inf` means no limit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

NOTHING = frozenset({"", "(null)", "N/A", "n/a", "NONE", "None", "(none)"})
ENDLESS = frozenset({"UNLIMITED", "INFINITE"})
UNITS = {"": 1.0, "K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0**2, "P": 1024.0**3}
"""MiB per unit of memory."""
MULTIPLES = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4, "P": 1024**5}
WIDEST_RANGE = 100_000

_KEY = re.compile(r"(?:^|\s+)([A-Za-z_]+(?:/[A-Za-z_]+)?)=")
_DURATION = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")


@dataclass(frozen=True)
class Devices:
    """A count of a generic resource (GRES), such as `gpu:a100:4`, of a node or in a request."""

    name: str
    type: str | None
    count: int

    def __str__(self) -> str:
        return ":".join(part for part in (self.name, self.type, str(self.count)) if part)


def records(text: str) -> list[dict[str, str]]:
    """Return the records in the output of `scontrol --oneliner show`: one mapping per line.

    A value may contain spaces and `=` (a node's Reason). If a key occurs twice, the first value is used.
    """
    return [_parse_record(line) for line in text.splitlines() if "=" in line]


def _parse_record(line: str) -> dict[str, str]:
    parts = _KEY.split(line)
    fields: dict[str, str] = {}
    for key, value in zip(parts[1::2], parts[2::2], strict=True):
        fields.setdefault(key, value.strip())
    return fields


def settings(text: str) -> dict[str, str]:
    """Return the keys and values in the output of `scontrol show config`."""
    pairs = [line.partition("=") for line in text.splitlines()]
    return {key.strip(): value.strip() for key, sign, value in pairs if sign}


def table(text: str, columns: Sequence[str]) -> list[dict[str, str]]:
    """Return the rows in the output of `sacctmgr --noheader --parsable2`. Skip rows of another width."""
    rows = [line.split("|") for line in text.splitlines()]
    return [dict(zip(columns, row, strict=True)) for row in rows if len(row) == len(columns)]


def words(text: str | None) -> tuple[str, ...]:
    """Return the items of a comma-separated list, without `(null)` and other empty values."""
    parts = (part.strip() for part in (text or "").split(","))
    return tuple(part for part in parts if part not in NOTHING)


def seconds(text: str | None) -> float | None:
    """Return the seconds in `3-00:00:00`, `01:30:00`, `10:00` (minutes), `30` (minutes), `UNLIMITED`."""
    if text in ENDLESS:
        return math.inf
    match = _DURATION.fullmatch(text or "")
    if match is None:
        return None
    days, *rest = match.groups()
    first, *more = (int(part) for part in rest if part is not None)
    if days is None and len(more) < 2:  # Minutes, or minutes and seconds.
        return first * 60.0 + sum(more)
    minutes, second = (*more, 0, 0)[:2]
    return ((int(days or 0) * 24 + first) * 60 + minutes) * 60.0 + second


def unix_time(text: str | None) -> float | None:
    """Return a time printed as Unix seconds (`SLURM_TIME_FORMAT=%s`). Return None for `Unknown` and `N/A`."""
    return float(text) if text is not None and text.isascii() and text.isdigit() else None


def whole(text: str | None) -> int | None:
    """Return the integer at the start of a text: `10`, `5 sec`."""
    match = re.match(r"\d+", text or "")
    return int(match[0]) if match else None


def limit(text: str | None) -> float | None:
    """Return an integer, or infinity for `UNLIMITED`."""
    return math.inf if text in ENDLESS else whole(text)


def mebibytes(text: str | None) -> float | None:
    """Return memory in MiB: `80G`, `512000` (MiB), `UNLIMITED`."""
    if text in ENDLESS:
        return math.inf
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGTP]?)(?:i?B)?", text or "")
    return float(match[1]) * UNITS[match[2]] if match else None


def devices(text: str | None) -> tuple[Devices, ...]:
    """Return generic resources: `gpu:a100:4(S:0-1),shard:a100:16`, `bandwidth:lustre:no_consume:4G`."""
    return tuple(_parse_devices(part) for part in words(re.sub(r"\([^)]*\)", "", text or "")))


def _parse_devices(text: str) -> Devices:
    name, *rest = [part for part in text.split(":") if part != "no_consume"]
    match = re.fullmatch(r"(\d+)([KMGTP]?)", rest[-1]) if rest else None
    kinds = rest[:-1] if match else rest
    return Devices(name, kinds[0] if kinds else None, int(match[1]) * MULTIPLES[match[2]] if match else 1)


def hosts(text: str | None) -> frozenset[str]:
    """Return the node names in a list: `node[1-3,07],rack[1-2]n[01-04],login`."""
    parts = re.findall(r"(?:[^,\[\]]|\[[^\]]*\])+", text or "")
    return frozenset(name for part in parts if part not in NOTHING for name in _expand_names(part))


def _expand_names(text: str) -> list[str]:
    before, bracket, rest = text.partition("[")
    if not bracket:
        return [text]
    inside, _, after = rest.partition("]")
    return [f"{before}{number}{end}" for number in numbers(inside) for end in _expand_names(after)]


def numbers(text: str) -> Iterator[str]:
    """Yield the numbers in a list: `1-3,07`."""
    for part in text.split(","):
        first, _, last = part.partition("-")
        if first.isdecimal() and last.isdecimal():
            end = min(int(last), int(first) + WIDEST_RANGE)
            yield from (f"{number:0{len(first)}}" for number in range(int(first), end + 1))
        else:
            yield part
