"""Values as lines of JSON that do nothing to a terminal: people look at reports with `cat` and `less -r`."""

from __future__ import annotations

import orjson

__all__ = ["json_line"]


def json_line(value: object) -> bytes:
    """Writes a value as one line of JSON. What cannot be printed is escaped, as JSON allows for any character.

    JSON itself wants that only of characters below a blank. Those that are left steer terminals too: the second set
    of control characters, and what turns the direction of writing.

    Raises:
        TypeError: it is no value of JSON, or a text in it is no Unicode.
    """
    line = orjson.dumps(value)
    if not line.isascii() or b"\x7f" in line:
        text = line.decode()
        if not text.isprintable():
            line = "".join(char if char.isprintable() else _escaped(char) for char in text).encode()
    return line + b"\n"


def _escaped(char: str) -> str:
    units = char.encode("utf-16-be")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
