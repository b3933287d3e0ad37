"""What stored bytes are, told by the first of them and never by a name."""

from __future__ import annotations

import re
from typing import Final

from bulkjobs.errors import SourceError
from bulkjobs.sources.compression import SIGNATURE_BYTES

__all__ = ["SIGNATURE_BYTES", "check_text", "is_parquet", "undecided"]

_PARQUET: Final = re.compile(rb"PAR1(?:[\x00-\x08\x0b\x0c\x0e-\x1f]|$)", re.DOTALL)
"""With the byte behind it, which no text has: an opaque id may begin like the signature."""
_NO_TEXT: Final = {
    b"PK\x03\x04": "a ZIP archive or a spreadsheet",
    b"SQLite format 3\x00": "an SQLite database",
}
"""Between any two bytes of these that look like separators a digit may stand, which would go out as an id."""


_BEGINNINGS: Final = (
    *(b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ\x00", b"PAR1\x00", *_NO_TEXT),
    *(bytes([first]) + b"\x2a\x4d\x18" for first in range(0x50, 0x60)),
)


def undecided(beginning: bytes) -> bool:
    """Tells whether more bytes behind these could make something of them that is no text."""
    if beginning.startswith(b"BZh"):
        return len(beginning) < SIGNATURE_BYTES
    return any(len(beginning) < len(one) and one.startswith(beginning) for one in _BEGINNINGS)


def is_parquet(beginning: bytes) -> bool:
    """Tells whether this is the beginning of a Parquet file."""
    return _PARQUET.match(beginning) is not None


def check_text(name: str, beginning: bytes) -> None:
    """Passes what may be text.

    Raises:
        SourceError: it is a file of a kind that is not read.
    """
    for signature, kind in _NO_TEXT.items():
        if beginning.startswith(signature[:SIGNATURE_BYTES]):
            raise SourceError(f"{name} is {kind}, not text. Give its ids as text, CSV or Parquet.")
