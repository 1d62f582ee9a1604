"""Text of unknown origin as it can be printed: names, values and reasons may hold any character.

`visible` is for every output; `csv_cell` and `markdown` add what their formats need. JSON is exact.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from typing import Any

UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
"""Control characters, what changes the direction of text, what cannot be seen, and halves of characters."""
UNSAFE_IN_JSON = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What `json` prints as it is, and a terminal may act on or an encoder refuse; JSON may write it as \\u…."""
SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
MOST_IN_A_NAME = 100
"""Bytes of a text in the name of a file; file systems take 255, with endings and what makes it distinct."""
COLOUR = re.compile(r"\x1b\[[0-9;:]*m")

FORMULA = re.compile(r"\s*(?:[=@＝＠]|[+\-＋－].)")
NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[+-]?(?:inf|nan)")

CODE_SPAN = re.compile(r"(?<!`)`(?!`)([^`]+)(?<!`)`(?!`)")
SPECIAL = re.compile(r"[\\`*\[\]|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
TAG = re.compile(r"<(?=[A-Za-z/!?])")
ENTITY = re.compile(r"&(?=#?[A-Za-z0-9]+;)")
BLOCK = re.compile(r"^(\s*)([#>+=-]|[0-9]+(?=[.)]))")


def visible(text: str, keep: str = "") -> str:
    """Return a text with control and invisible characters written as escapes, except those in `keep`."""
    return UNSEEN.sub(lambda match: match[0] if match[0] in keep else _escape(match[0]), text)


def visible_lines(text: str) -> str:
    """Return a message of several lines with everything else that cannot be seen written as escapes."""
    return visible(text, keep="\n\t")


def uncoloured(line: str) -> str:
    """Return a line of a log without its colours, and with other escape sequences to be seen."""
    return visible(COLOUR.sub("", line), keep="\t")


class VisibleFormatter(logging.Formatter):
    """Formats messages of a log with what a terminal would act on as escapes: names come from others."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a message that can be printed, and its traceback if it has one."""
        return visible_lines(super().format(record))


def csv_cell(text: str) -> str:
    """Return a text as a cell that no spreadsheet runs: what begins like a formula gets a quote before it."""
    shown = visible(text)
    return f"'{shown}" if FORMULA.match(shown) and not NUMBER.fullmatch(shown) else shown


def markdown(text: str) -> str:
    """Return a text that Markdown (GitHub's) shows as it is, within a line or a cell of a table."""
    escaped = SPECIAL.sub(lambda match: "\\" + match[0], visible(text))
    return TAG.sub("&lt;", ENTITY.sub("&amp;", escaped))


def markdown_prose(text: str) -> str:
    """Return a paragraph or heading that Markdown shows as it is, but for `code spans`."""
    parts = CODE_SPAN.split(
        visible(text.replace("\n", " ").strip())
    )  # text and the content of spans by turns
    spans = [f"`{part}`" if index % 2 else markdown(part) for index, part in enumerate(parts)]
    return BLOCK.sub(_not_a_block, "".join(spans))


def json_text(value: Any, indent: int | None = None) -> str:
    """Return a value as JSON that can be printed on any terminal and read back exactly."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, indent=indent)
    return UNSAFE_IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def file_name(text: str) -> str:
    """Return a text as the name of a file, never a path; where it is changed, a hash keeps names distinct."""
    whole = re.sub(r"[^\w.+-]+", "-", visible(text)).lstrip(".-")
    name = whole.encode()[:MOST_IN_A_NAME].decode(errors="ignore")
    if name and name == text:
        return name
    return f"{name or 'unnamed'}-{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:8]}"


def _escape(character: str) -> str:
    code = ord(character)
    if character in SHORT:
        return SHORT[character]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _not_a_block(match: re.Match[str]) -> str:
    """Write the beginning of a heading, list or quote such that it is none."""
    return f"{match[1]}{match[2]}\\" if match[2].isdigit() else f"{match[1]}\\{match[2]}"
