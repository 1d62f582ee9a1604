"""From the text of Criteo's logs to rows of numbers, many lines at once.

A number becomes log(max(x, 0) + 1), a blank one 0. A category is the fingerprint of its token and its
column's number (0 to 25), modulo the column's vocabulary; a blank one, or −1, is the token 00000000. So does
AlgoPerf.

Fields are read as words of eight bytes, by arithmetic on all eight at once; what does not fit (a number of
more than eight digits, a token that has not eight) is read one by one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .columns import CATEGORIES, COLUMNS, DENSE, NAMES, VOCABULARIES, Rows
from .farmhash import Words, fingerprint64, of_8_to_16

TAB, COMMA = b"\t", b","
NEWLINE, RETURN, MINUS = 10, 13, 45
PAD = 8
"""Bytes before and after a text, so that a word can be taken at either end of any field."""
MISSING = np.uint64(int.from_bytes(b"00000000", "little"))
NUMBER = re.compile(rb"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
HEXADECIMAL = re.compile(rb"[0-9a-fA-F]{1,16}")
MOST_SHOWN = 20
"""Characters of a faulty field that a message quotes."""

Positions = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Format:
    """How a file's lines are cut: its delimiter, and where in a line each of the 40 columns stands."""

    delimiter: bytes = TAB
    order: tuple[int, ...] = tuple(range(COLUMNS))


class BadLine(NamedTuple):
    """A line that is not a valid row: its 0-based number in the text, and the reason."""

    line: int
    reason: str


@dataclass(frozen=True)
class Parsed:
    """The rows of a text [N, 40], the number of each one's line from 0, and the lines that are none."""

    rows: Rows
    line_of: Positions
    bad: list[BadLine]
    lines: int


def parse(text: bytes, format_: Format = Format()) -> Parsed:
    """Return the rows of whole lines; each ends with a newline."""
    lines = text.count(b"\n")
    line_of = np.arange(lines)
    bad: list[BadLine] = []
    fields = _find_fields(text, lines, format_)
    if fields is None:
        text, line_of, bad = _drop_misshapen(text, format_)
        fields = _find_fields(text, len(line_of), format_)
        assert fields is not None
    rows, faults = _parse_rows(fields)
    if faults:
        bad = sorted([*bad, *(BadLine(int(line_of[row]), reason) for row, reason in faults.items())])
        is_valid = np.ones(len(rows), bool)
        is_valid[list(faults)] = False
        rows, line_of = rows[is_valid], line_of[is_valid]
    return Parsed(rows, line_of, bad, lines)


@dataclass(frozen=True)
class _Fields:
    """Where the fields of N lines begin and end [40, N], in a text with padding."""

    text: bytes
    starts: Positions
    ends: Positions
    words: Words
    """The eight bytes from each byte on."""

    def field(self, column: int, row: int | np.integer[Any]) -> bytes:
        return self.text[self.starts[column, row] : self.ends[column, row]]


def _find_fields(text: bytes, lines: int, format_: Format) -> _Fields | None:
    """Find the fields; return None unless every line has 40."""
    padded = bytes(PAD) + text + bytes(PAD)
    letters = np.frombuffer(padded, np.uint8)
    delimiters = np.flatnonzero((letters == format_.delimiter[0]) | (letters == NEWLINE))
    if (
        len(delimiters) != COLUMNS * lines
        or not (letters[delimiters[COLUMNS - 1 :: COLUMNS]] == NEWLINE).all()
    ):
        return None
    starts = np.empty_like(delimiters)
    starts[:1] = PAD
    starts[1:] = delimiters[:-1] + 1
    ends = np.ascontiguousarray(delimiters.reshape(lines, COLUMNS).T)
    ends[-1] -= letters[ends[-1] - 1] == RETURN
    words = np.ndarray((len(padded) - PAD + 1,), "<u8", padded, strides=(1,))
    starts = np.ascontiguousarray(starts.reshape(lines, COLUMNS).T)
    if format_.order != tuple(range(COLUMNS)):
        starts, ends = starts[list(format_.order)], ends[list(format_.order)]
    return _Fields(padded, starts, np.maximum(starts, ends), words)


def _drop_misshapen(text: bytes, format_: Format) -> tuple[bytes, Positions, list[BadLine]]:
    """Return the lines with 40 fields, their numbers, and the reasons of the other lines."""
    good_lines: list[bytes] = []
    numbers: list[int] = []
    bad: list[BadLine] = []
    for number, line in enumerate(text.split(b"\n")[:-1]):
        count = line.count(format_.delimiter) + 1
        if count == COLUMNS:
            good_lines.append(line)
            numbers.append(number)
        elif line.strip():
            bad.append(BadLine(number, f"{count} columns instead of {COLUMNS}"))
        else:
            bad.append(BadLine(number, "an empty line"))
    return b"".join(line + b"\n" for line in good_lines), np.array(numbers, np.int64), bad


def _parse_rows(fields: _Fields) -> tuple[Rows, dict[int, str]]:
    """Return rows [N, 40], and the reasons of those that are not valid."""
    faults: dict[int, str] = {}
    columns = np.empty((COLUMNS, fields.starts.shape[1]), np.uint32)
    labels = _parse_numbers(fields, 0, faults)
    for row in np.flatnonzero((labels != 0) & (labels != 1)):
        faults.setdefault(int(row), f"label: '{_quote(fields.field(0, row))}' is neither 0 nor 1")
    columns[0] = labels == 1
    for row in np.flatnonzero(fields.starts[0] == fields.ends[0]):
        faults.setdefault(int(row), "label: there is none")
    for column in range(1, 1 + DENSE):
        values = np.maximum(_parse_numbers(fields, column, faults), 0)
        columns[column] = np.log1p(values).astype(np.float32).view(np.uint32)
    for category in range(CATEGORIES):
        columns[1 + DENSE + category] = _hash_categories(fields, category, faults)
    return np.ascontiguousarray(columns.T), faults


def _parse_numbers(fields: _Fields, column: int, faults: dict[int, str]) -> NDArray[np.float64]:
    """Return a column's numbers, 0 for a blank or faulty field."""
    starts, ends = fields.starts[column], fields.ends[column]
    blank = starts == ends
    words = fields.words[ends - PAD]
    point = (words >> np.uint64(48) == 0x302E) & (ends - starts > 2)  # '.0', as where integers became floats
    if point.any():
        ends = ends - 2 * point
        words = fields.words[ends - PAD]
    minus = fields.words[starts] & np.uint64(0xFF) == MINUS
    lengths = ends - starts - minus
    values, plain = _parse_decimals(words, np.clip(lengths, 1, PAD))
    plain &= (lengths >= 1) & (lengths <= PAD)
    numbers = np.where(minus, -values, values)
    numbers[blank] = 0
    for row in np.flatnonzero(~(plain | blank)):
        numbers[row] = _parse_number(fields.field(column, row), int(row), column, faults)
    return numbers


def _parse_decimals(words: Words, lengths: Positions) -> tuple[NDArray[np.float64], Mask]:
    """Return the numbers that the last `lengths` bytes of words spell, and whether those are digits."""
    shift = (64 - 8 * lengths).astype(np.uint64)
    digits = (words ^ np.uint64(0x3030303030303030)) >> shift << shift
    valid = ((digits + np.uint64(0x7676767676767676)) | digits) & np.uint64(0x8080808080808080) == 0
    pairs = digits * np.uint64(10) + (digits >> np.uint64(8))
    every_fourth = np.uint64(0x000000FF000000FF)
    upper = (pairs & every_fourth) * np.uint64(100 + (1_000_000 << 32))
    lower = (pairs >> np.uint64(16) & every_fourth) * np.uint64(1 + (10_000 << 32))
    return ((upper + lower) >> np.uint64(32)).astype(np.float64), valid


def _parse_number(field: bytes, row: int, column: int, faults: dict[int, str]) -> float:
    """Read one number that `_parse_decimals` cannot read."""
    number = float(field) if NUMBER.fullmatch(field) else math.nan
    if math.isfinite(number):
        return number
    faults.setdefault(row, f"{NAMES[column]}: '{_quote(field)}' is not a number")
    return 0.0


def _hash_categories(fields: _Fields, category: int, faults: dict[int, str]) -> Words:
    """Return a column's categories, below the size of its vocabulary."""
    column, suffix = 1 + DENSE + category, str(category).encode()
    starts, ends = fields.starts[column], fields.ends[column]
    lengths = ends - starts
    words = fields.words[starts]
    usual = (lengths == PAD) & _are_hexadecimal(words)
    if not usual.all():
        words = np.where(usual, words, MISSING)
    hashes = _hash_with_suffix(words, suffix)
    if not usual.all():
        minus_one = np.uint64(int.from_bytes(b"-1", "little"))
        is_minus_one = (lengths == 2) & (fields.words[starts] & np.uint64(0xFFFF) == minus_one)
        rows = np.flatnonzero(~(usual | (lengths == 0) | is_minus_one))
        hashes[rows] = _hash_unusual([fields.field(column, row) for row in rows], rows, category, faults)
    size = np.uint64(VOCABULARIES[category])
    return hashes - hashes // size * size  # faster than the remainder


def _hash_with_suffix(tokens: Words, suffix: bytes) -> Words:
    """Return fingerprints of tokens of eight bytes with the suffix at their end."""
    suffix_bits = np.uint64(8 * len(suffix))
    last = (tokens >> suffix_bits) | np.uint64(int.from_bytes(suffix, "little") << (64 - 8 * len(suffix)))
    return of_8_to_16(tokens, last, PAD + len(suffix))


def _hash_unusual(tokens: Sequence[bytes], rows: Positions, category: int, faults: dict[int, str]) -> Words:
    """Return fingerprints of tokens without exactly eight digits; note faulty tokens."""
    texts = []
    for token, row in zip(tokens, rows, strict=True):
        if not HEXADECIMAL.fullmatch(token):
            reason = f"C{category + 1}: '{_quote(token)}' is not hexadecimal (of at most 16 digits)"
            faults.setdefault(int(row), reason)
            token = b""
        texts.append(token + str(category).encode())
    return fingerprint64(texts)


def _are_hexadecimal(words: Words) -> Mask:
    """Return whether all eight bytes are digits or letters from a to f, of either case.

    The highest bit of a byte tells what comes of adding to it; no sum of such bytes carries.
    """
    lower = words | np.uint64(0x2020202020202020)
    not_below_0 = words + np.uint64(0x5050505050505050)
    above_9 = words + np.uint64(0x4646464646464646)
    not_below_a = lower + np.uint64(0x1F1F1F1F1F1F1F1F)
    above_f = lower + np.uint64(0x1919191919191919)
    high = np.uint64(0x8080808080808080)
    good = ((not_below_0 & ~above_9) | (not_below_a & ~above_f)) & ~words
    mask: Mask = good & high == high
    return mask


def _quote(field: bytes) -> str:
    """Return a field shortened for a message."""
    text = field[: MOST_SHOWN + 1].decode(errors="replace")
    return text if len(text) <= MOST_SHOWN else text[:MOST_SHOWN] + "…"
