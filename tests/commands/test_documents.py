"""Documents: what YAML means here, where it was written, and how mistakes are told."""

import json
import math
from pathlib import Path

import pytest
from alphagrid.documents import Document, parse_document, parse_value, read_document
from alphagrid.errors import UserError
from alphagrid.problems import KeyPath, Place, Problem, nearest, problems_of, refuse
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, ValidationError


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("1e-3", 1e-3),
        ("1.", 1.0),
        (".5", 0.5),
        ("-.inf", -math.inf),
        ("12:00:00", "12:00:00"),
        ("2001-01-01", "2001-01-01"),
        ("no", "no"),
        ("on", "on"),
        ("tRUE", "tRUE"),
        ("TRUE", True),
        ("false", False),
        ("0o17", 15),
        ("017", 17),
        ("0x1F", 31),
        ("+3", 3),
        ("1_000", "1_000"),
        ("~", None),
        ("", None),
        ("'3'", "3"),
        ('"null"', "null"),
        ("80G", "80G"),
    ],
)
def test_scalars_are_read_as_yaml_1_2(written: str, meant: object) -> None:
    value = parse_document(f"key: {written}\n", "f").value["key"]
    assert value == meant
    assert type(value) is type(meant)


def test_nan_is_a_float() -> None:
    assert math.isnan(parse_value(".NaN", "f"))


@given(st.recursive(st.integers() | st.booleans() | st.text("abc'\" :#"), st.lists, max_leaves=10))
def test_json_is_read_as_json(value: object) -> None:
    assert parse_value(json.dumps({"key": value}), "f") == {"key": value}


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a: 1\nb: 2\na: 3", 3, "a: duplicate key (first in line 1)"),
        ("a: {b: 1,\n  b: 2}", 2, "a.b: duplicate key"),
        ("a: 1\nb: !!int 3", 2, "tag"),
        ("a: !x 3", 1, "tag '!x'"),
        ("a: ! 3", 1, "tag"),
        ("a:\n  <<: {b: 1}", 2, "merge key"),
        ("a: 1\n---\nb: 2", 2, "second document"),
        ("a: [1,\n 2", 2, "not valid YAML"),
        ("a: *b", 1, "undefined alias"),
        ("a: &a [1, *a]", 1, "an alias stands inside what it names"),
        ("1: x", 1, "a key should be text, not 1"),
        ("[a]: x", 1, "cannot be a key"),
        ("a: 1\nb: " + "9" * 5000, 2, "too long"),
        ("a: 1\nb: \x07", 2, "character"),
    ],
)
def test_what_yaml_here_is_not_is_refused_with_its_line(text: str, line: int, said: str) -> None:
    with pytest.raises(UserError) as refused:
        parse_document(text, "spec.yaml")
    assert refused.value.message.startswith(f"spec.yaml:{line}: ")
    assert said in refused.value.message
    assert refused.value.hint


def test_aliases_are_fine_unless_they_explode() -> None:
    assert parse_document("a: &x [1, 2]\nb: *x", "f").value == {"a": [1, 2], "b": [1, 2]}
    lines = [f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 9)}]" for n in range(12)]
    bomb = "\n".join(["a: &a [x, x, x]", *lines])
    with pytest.raises(UserError, match="aliases expand"):
        parse_document(bomb, "f")


def test_deep_nesting_is_refused_not_crashed_on() -> None:
    with pytest.raises(UserError, match="nested too deeply"):
        parse_document("[" * 20_000, "f")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"# nothing\n", "is empty"),
        (b"PK\x03\x04\0\0", "binary"),
        ("a: é".encode("latin-1"), "UTF-8"),
        ("a: 1".encode("utf-16"), "UTF-8"),
    ],
)
def test_files_that_are_no_text_are_refused_by_name(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "spec.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError) as refused:
        read_document(path)
    assert str(path) in refused.value.message
    assert said in refused.value.message or "binary" in refused.value.message
    assert refused.value.hint


def test_missing_files_and_directories_are_refused(tmp_path: Path) -> None:
    (tmp_path / "quickstart.yaml").write_text("a: 1")
    with pytest.raises(UserError, match="does not exist") as refused:
        read_document(tmp_path / "quikstart.yaml")
    assert refused.value.hint == f"did you mean {tmp_path / 'quickstart.yaml'}?"
    with pytest.raises(UserError, match="is a directory"):
        read_document(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        read_document(tmp_path / "no" / "spec.yaml")


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1")
    assert read_document(path).value == {"a": 1}


DOCUMENT = parse_document("a:\n  b: [1,\n    2]\nc: &x {d: 1}\ne: *x\n", "f")


def test_every_key_and_item_has_its_line() -> None:
    lines = [DOCUMENT.place(*path).line for path in [("a",), ("a", "b"), ("a", "b", 1), ("c", "d"), ("e",)]]
    assert lines == [1, 2, 3, 4, 5]


def test_what_is_not_written_has_the_place_of_what_should_hold_it() -> None:
    assert DOCUMENT.place("a", "missing", "deeper") == Place("f", 1)


def test_replacing_a_value_moves_its_place_and_leaves_the_document_alone() -> None:
    option = Place("--set a.b=3")
    changed = DOCUMENT.replaced(("a", "b"), 3, option)
    assert changed.value["a"] == {"b": 3}
    assert changed.place("a", "b", 1) == option
    assert changed.place("a") == Place("f", 1)
    assert DOCUMENT.value["a"] == {"b": [1, 2]}
    assert DOCUMENT.replaced(("new", "key"), 1, option).value["new"] == {"key": 1}


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    count: int = Field(1, ge=1)
    widths: list[int] = [1]


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    inner: Inner = Inner()
    rate: float = 1.0
    label: str = ""
    on: bool = False
    either: int | list[int] = 1
    needed: int = 0


def complaint(text: str) -> str:
    document: Document = parse_document(text, "f.yaml")
    with pytest.raises(ValidationError) as error:
        Outer.model_validate(document.value)
    known: dict[KeyPath, list[str]] = {(): list(Outer.model_fields), ("inner",): list(Inner.model_fields)}
    problems = problems_of(
        error.value, document.value, lambda path: document.place(*path), lambda section: known[section]
    )
    with pytest.raises(UserError) as refused:
        refuse(problems)
    return refused.value.message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rate: 1\ninner:\n  count: '3'", "f.yaml:3: inner.count: should be a whole number, not '3' (text)"),
        ("inner: {count: true}", "f.yaml:1: inner.count: should be a whole number, not true"),
        ("inner: {count: 2.0}", "f.yaml:1: inner.count: should be a whole number, not 2.0; write 2"),
        ("inner: {count: 0}", "f.yaml:1: inner.count: should be at least 1, not 0"),
        ("inner: {widths: [1,\n x]}", "f.yaml:2: inner.widths.1: should be a whole number, not 'x' (text)"),
        ("inner: {widths: 3}", "f.yaml:1: inner.widths: should be a list, not 3; write [3]"),
        ("inner:", "f.yaml:1: inner: should be a mapping, not nothing (null)"),
        ("inner: {cuont: 3}", "f.yaml:1: inner.cuont: unknown key; did you mean 'count'?"),
        ("rate: .nan", "f.yaml:1: rate: should be a finite number, not nan"),
        ("label: 3", "f.yaml:1: label: should be text, not 3; put it in quotes"),
        ("on: 'yes'", "f.yaml:1: on: should be true or false, not 'yes' (text)"),
        ("either: x", "f.yaml:1: either: should be a whole number, not 'x' (text)"),
    ],
)
def test_mistakes_are_told_in_plain_words(text: str, said: str) -> None:
    assert complaint(text).splitlines()[0] == said


def test_all_mistakes_are_told_at_once_without_jargon() -> None:
    message = complaint("inner: {count: x, widths: y}\nrate: z\nfoo: 1")
    assert len(message.splitlines()) == 4
    for jargon in ("Input", "Value error", "pydantic", "type="):
        assert jargon not in message


def test_a_long_list_of_mistakes_is_cut_and_counted() -> None:
    with pytest.raises(UserError, match="… and 30 more"):
        refuse([Problem(Place("f", n), "key", "wrong") for n in range(50)])


def test_suggestions_are_near_or_none() -> None:
    assert nearest("nadamww", ["sgd", "nadamw"]) == "nadamw"
    assert nearest("NADAMW", ["sgd", "nadamw"]) == "nadamw"
    assert nearest("zzz", ["sgd", "nadamw"]) is None
