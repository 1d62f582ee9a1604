"""The text of Criteo's logs: read in bulk as one would read it line by line; what is no row is told."""

from __future__ import annotations

import math

import numpy as np
import pytest
from alphagrid.trainer.workloads.criteo.columns import COLUMNS, NAMES, VOCABULARIES, inputs_of
from alphagrid.trainer.workloads.criteo.text import COMMA, Format, parse
from hypothesis import given, settings
from hypothesis import strategies as st

farmhash = pytest.importorskip("farmhash", reason="pyfarmhash is not installed")

HEX = "0123456789abcdef"
NUMBERS = st.one_of(
    st.integers(-3, 10**7).map(str),
    st.integers(10**7, 10**12).map(str),
    st.integers(0, 10**7).map(lambda number: f"{number}.0"),
    st.floats(0, 1e6).map(lambda number: f"{number:.3f}"),
    st.sampled_from(["", "", "-1", "0", "1e3", "+7", ".5", "5.", "00012"]),
)
TOKENS = st.one_of(
    st.text(HEX, min_size=8, max_size=8),
    st.text(HEX + "ABCDEF", min_size=1, max_size=16),
    st.sampled_from(["", "-1", "00000000"]),
)
ROW = st.tuples(
    st.sampled_from("01"),
    st.lists(NUMBERS, min_size=13, max_size=13),
    st.lists(TOKENS, min_size=26, max_size=26),
).map(lambda parts: [parts[0], *parts[1], *parts[2]])


def logarithm(field: str) -> float:
    return math.log(max(float(field or 0), 0) + 1)


def category(token: str, column: int) -> int:
    known = "00000000" if token in ("", "-1") else token
    return int(farmhash.fingerprint64(f"{known}{column}")) % VOCABULARIES[column]


def text_of(rows: list[list[str]], delimiter: str = "\t", end: str = "\n") -> bytes:
    return "".join(delimiter.join(row) + end for row in rows).encode()


def check(found: np.ndarray, rows: list[list[str]]) -> None:
    assert found.shape == (len(rows), COLUMNS)
    for numbers, row in zip(found, rows, strict=True):
        assert numbers[0] == int(row[0])
        expected = np.array([logarithm(field) for field in row[1:14]], np.float32)
        np.testing.assert_array_max_ulp(numbers[1:14].view(np.float32), expected, 1)
        assert numbers[14:].tolist() == [category(token, at) for at, token in enumerate(row[14:])]


@pytest.mark.slow
@settings(deadline=None)
@given(st.lists(ROW, max_size=8), st.sampled_from(["\t", ","]), st.sampled_from(["\n", "\r\n"]))
def test_rows_are_those_of_a_plain_reading(rows: list[list[str]], delimiter: str, end: str) -> None:
    parsed = parse(text_of(rows, delimiter, end), Format(delimiter.encode()))
    assert not parsed.bad
    assert parsed.line_of.tolist() == list(range(len(rows)))
    check(parsed.rows, rows)


GOOD = ["1", *(str(number) for number in range(13)), *(f"{number:08x}" for number in range(26))]


def spoilt(column: int, field: str) -> list[str]:
    return [*GOOD[:column], field, *GOOD[column + 1 :]]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (GOOD[:-1], "39 columns instead of 40"),
        ([*GOOD, "x"], "41 columns instead of 40"),
        ([""], "an empty line"),
        (spoilt(0, "2"), "label: '2' is neither 0 nor 1"),
        (spoilt(0, ""), "label: there is none"),
        (spoilt(0, "click"), "label: 'click' is not a number"),
        (spoilt(3, "12a"), "I3: '12a' is not a number"),
        (spoilt(3, "-"), "I3: '-' is not a number"),
        (spoilt(13, "nan"), "I13: 'nan' is not a number"),
        (spoilt(13, "1_000"), "I13: '1_000' is not a number"),
        (spoilt(5, "1e999"), "I5: '1e999' is not a number"),
        (spoilt(14, "0123456g"), "C1: '0123456g' is not hexadecimal (of at most 16 digits)"),
        (spoilt(39, "\x15" * 8), f"C26: '{chr(0x15) * 8}' is not hexadecimal (of at most 16 digits)"),
        (spoilt(39, 30 * "0"), f"C26: '{20 * '0'}…' is not hexadecimal (of at most 16 digits)"),
    ],
)
def test_a_line_that_is_no_row_is_told_and_left_out(row: list[str], reason: str) -> None:
    parsed = parse(text_of([GOOD, row, GOOD, row]))
    assert [tuple(line) for line in parsed.bad] == [(1, reason), (3, reason)]
    assert parsed.line_of.tolist() == [0, 2]
    assert parsed.lines == 4
    check(parsed.rows, [GOOD, GOOD])


def test_columns_may_stand_in_another_order() -> None:
    order = tuple(np.random.default_rng(0).permutation(COLUMNS).tolist())
    shuffled = [""] * COLUMNS
    for name, place in zip(range(COLUMNS), order, strict=True):
        shuffled[place] = GOOD[name]
    check(parse(text_of([shuffled, shuffled], ","), Format(COMMA, order)).rows, [GOOD, GOOD])


def test_categories_can_be_rounded_as_algoperf_does() -> None:
    rows = parse(text_of([spoilt(14, f"{number:08x}") for number in range(2000)])).rows
    exact, rounded = inputs_of(rows)[:, 13], inputs_of(rows, float32_categories=True)[:, 13]
    assert exact.tolist() == rows[:, 14].tolist()
    assert rounded.tolist() == rows[:, 14].astype(np.float32).tolist()
    large = exact > 2**24
    assert (exact != rounded)[large].mean() > 0.2
    assert (exact == rounded)[~large].all()


def test_there_are_forty_names() -> None:
    assert len(NAMES) == len(GOOD) == COLUMNS
