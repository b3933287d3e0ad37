"""What an id is: one to nineteen ASCII digits, the first not a zero; or, of the opaque kind, a long word.

The rule is stricter than `int()` on purpose. `007`, `+5`, `1_2` or `٣` name another contact than the
text says, or none, and every id that goes out is paid for. So an id is never repaired, only trimmed of
the blanks around it; whatever else is wrong with it, it is reported and stays at home.

Nineteen digits always fit an unsigned 64-bit integer, which is how the set of ids already met holds them.

What an opaque id says nobody knows, so its case counts, and all that is asked of it is that it looks like one: the
names of columns, `NULL`, and the integer ids of other endpoints are words of the same letters, but short ones.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

__all__ = [
    "BLANKS",
    "EMPTY_CELL",
    "MAX_DIGITS",
    "MAX_OPAQUE",
    "MIN_OPAQUE",
    "MISSING_CELL",
    "NULL",
    "IdForm",
    "fault_of",
    "shown",
]


class IdForm(StrEnum):
    """Is what the ids of an endpoint look like."""

    INTEGER = "integer"
    OPAQUE = "opaque"
    """Letters, digits, `_` and `-`; 64 of them in every public sample (api.md 7)."""


MAX_DIGITS: Final = 19
"""2**63 has nineteen digits; no public sample of an integer id has more than eight (api.md 7)."""

MIN_OPAQUE: Final = 32
"""Whether all have 64 characters is not said; nothing that is found among ids by accident has so many as these."""
MAX_OPAQUE: Final = 64

BLANKS: Final = b" \t"
"""What is taken off around an id. Other white space is a fault: in a list of ids it is an accident."""

EMPTY_CELL: Final = b"(empty cell)"
MISSING_CELL: Final = b"(no cell)"
NULL: Final = b"(null)"
"""What stands in place of the id of a row that has none, so that the row is reported. Not one of them is an id."""
_NO_ID: Final = {
    EMPTY_CELL: "this row has no id: its cell is empty",
    MISSING_CELL: "this row has no id: it is shorter than the row of names",
    NULL: "this row has no id: its value is null",
}

_ID = re.compile(rb"[1-9][0-9]{0,18}")
_FLOAT = re.compile(rb"[+-]?[0-9]*\.[0-9]*(?:[eE][+-]?[0-9]+)?")
_OPAQUE = re.compile(rb"[A-Za-z0-9_-]{32,64}")
_WORD = re.compile(rb"[A-Za-z0-9_-]+")
_SHOWN_CHARACTERS: Final = 200


def fault_of(text: bytes, form: IdForm = IdForm.INTEGER) -> str | None:
    """Says why a piece of input, with the blanks around it taken off, is not an id; None when it is one.

    Args:
        text: the bytes between two separators, not empty.
        form: what an id looks like.

    Returns:
        A reason in words that a person can act on, or None.
    """
    if text in _NO_ID:
        return _NO_ID[text]
    if form is IdForm.OPAQUE:
        return _fault_of_opaque(text)
    return None if _ID.fullmatch(text) else _fault_of_integer(text)


def _fault_of_integer(text: bytes) -> str:
    if text.isdigit():  # bytes.isdigit knows ASCII digits only
        if len(text.lstrip(b"0")) > MAX_DIGITS or len(text) > MAX_DIGITS:
            return f"more than {MAX_DIGITS} digits"
        return "zero is not an id" if not text.strip(b"0") else "leading zero"
    if fault := _fault_of_file(text):
        return fault
    if not text.isascii():
        return "not an ASCII digit: other digits, a no-break space or an invisible character"
    if text[:1] in b"+-" and text[1:].isdigit():
        return "signed number"
    if any(byte in b" \t" for byte in text):
        return "blank inside: separate ids by a newline or a comma"
    if _FLOAT.fullmatch(text):
        return "a number with a decimal point: was the column saved as one of floats?"
    return "not a number"


def _fault_of_opaque(text: bytes) -> str | None:
    if _OPAQUE.fullmatch(text):
        return None
    if fault := _fault_of_file(text):
        return fault
    if any(byte in b" \t" for byte in text):
        return "blank inside: separate ids by a newline or a comma"
    if not _WORD.fullmatch(text):
        return "a character other than letters, digits, _ and -"
    if len(text) > MAX_OPAQUE:
        return f"more than {MAX_OPAQUE} characters"
    if text.isdigit():
        return "only digits: an id of another endpoint"
    return f"fewer than {MIN_OPAQUE} characters: the name of a column, or an id that was cut?"


def _fault_of_file(text: bytes) -> str | None:
    """Says what is wrong with the whole source, if it is."""
    if b"\x00" in text or text.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "NUL byte or byte order mark: is the source UTF-16? Convert it to UTF-8"
    if b"\r" in text:
        return "carriage return that ends no line: are lines ended by CR alone? Convert them to LF"
    return None


def shown(text: bytes) -> str:
    """Gives a piece of input as printable text: other bytes escaped, cut at 200 characters."""
    escaped = text[: 4 * _SHOWN_CHARACTERS].decode("utf-8", "backslashreplace")
    printable = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in escaped)
    if len(printable) <= _SHOWN_CHARACTERS and len(text) <= 4 * _SHOWN_CHARACTERS:
        return printable
    return printable[: _SHOWN_CHARACTERS - 1] + "…"
