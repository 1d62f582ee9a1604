"""Shorten long messages to their beginning and end."""

from __future__ import annotations

MOST_CHARACTERS = 2000
MOST_LINES = 20


def shortened(text: str, most: int = MOST_CHARACTERS, lines: int = MOST_LINES) -> str:
    """Return a message, without its middle if it has more than `most` characters or `lines` lines.

    A question mark replaces text that no encoding can write (half a character of a file name).
    """
    text = text.encode(errors="replace").decode()
    rows = text.splitlines()
    if len(rows) > lines:
        head, tail = (lines + 1) // 2, lines // 2
        text = "\n".join([*rows[:head], f"… {len(rows) - head - tail:,} lines …", *rows[len(rows) - tail :]])
    return _without_middle(text, most, f" … {len(text) - most:,} characters … ")


def in_one_line(text: str, most: int = MOST_CHARACTERS) -> str:
    """Return a message without its middle and its line breaks."""
    return _without_middle(" ".join(text.encode(errors="replace").decode().split()), most, " … ")


def _without_middle(text: str, most: int, mark: str) -> str:
    if len(text) <= most:
        return text
    room = max(0, most - len(mark))
    head, tail = (room + 1) // 2, room // 2
    return text[:head] + mark + text[len(text) - tail :]
