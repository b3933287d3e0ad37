"""Refuses tables: a comma separates ids, so figures in the other columns would go out as ids and be paid for."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

from bulkjobs.errors import SourceError
from bulkjobs.ids import shown

__all__ = ["not_a_table"]

_FIRST_LINE_BYTES: Final = 4096
"""As much of the first line is looked at."""
_MARK: Final = b"\xef\xbb\xbf"
_NAME: Final = re.compile(rb"""["']?[A-Za-z_](?![A-Za-z0-9_-]{31})""")
"""How the name of a column begins. A list whose first ids are broken begins with digits, signs and points; an opaque
id is longer than any name."""
_SHOWN_BYTES: Final = 60


async def not_a_table(name: str, blocks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Passes the blocks of a source on, the first ones once its first line is whole.

    Raises:
        SourceError: that line is the head of a table: several columns, each with a name.
    """
    held: bytes | None = b""
    async for block in blocks:
        if held is None:
            yield block
            continue
        held += block
        if b"\n" in held or len(held) >= _FIRST_LINE_BYTES:
            _check(name, held)
            whole, held = held, None
            yield whole
    if held:
        _check(name, held)
        yield held


def _check(name: str, beginning: bytes) -> None:
    line = beginning.removeprefix(_MARK).split(b"\n", 1)[0][:_FIRST_LINE_BYTES]
    columns = [column for part in line.split(b",") if (column := part.strip())]
    if len(columns) > 1 and all(map(_NAME.match, columns)):
        raise SourceError(
            f"{name} is a table: its first line is {shown(line.strip()[:_SHOWN_BYTES])}. A comma separates ids here, "
            f"so other columns would be taken for ids too. Say which column has the ids with --column, by its "
            f"name or its number."
        )
