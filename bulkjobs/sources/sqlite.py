"""Ids from a file of SQLite: a query, read through a connection that cannot write."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Final
from urllib.parse import quote

from bulkjobs.errors import SourceError
from bulkjobs.ids import NULL
from bulkjobs.sources.objects import Id, as_text
from bulkjobs.sources.query import QuerySource, check_columns, checked_query, one_a_line

__all__ = ["SqliteSource"]

_SQLITE: Final = "sqlite:"
_ROWS: Final = 20_000
"""At a time: some 200 KiB of text."""
_BUSY_S: Final = 30.0
_PLAIN: Final = b"0123456789\n"


class SqliteSource(QuerySource):
    """Reads the one column of a query. Implements `ports.Source`."""

    def __init__(self, address: str, query: str | None) -> None:
        """Takes the address, `sqlite:PATH`, and the query.

        Raises:
            ConfigError: there is no query that could be meant.
            SourceError: there is no such file, or it cannot be opened.
        """
        super().__init__(address, checked_query(query, address))
        path = address.removeprefix(_SQLITE)
        # `//` in front, as others write it, would name a host.
        self._path = Path(path.removeprefix("//") if path.startswith("///") else path)
        try:
            with self._path.open("rb"):
                pass  # only to learn now, before anything is sent, whether it may be read
        except (OSError, ValueError) as error:
            raise SourceError(f"{self.name} cannot be read: {getattr(error, 'strerror', error)}.") from error

    async def blocks(self) -> AsyncGenerator[bytes, None]:
        """Asks the query and reads to the end, in a thread. See `ports.Source`."""
        self.position_bytes = 0
        rows = 0
        try:
            connection = await asyncio.to_thread(self._connect)
            try:
                cursor = await asyncio.to_thread(connection.execute, self.query)
                check_columns(self.name, [column[0] for column in cursor.description or ()])
                while some := await asyncio.to_thread(cursor.fetchmany, _ROWS):
                    block = await asyncio.to_thread(_text, some)
                    rows += len(some)
                    self.position_bytes += len(block)
                    yield block
            finally:
                connection.interrupt()  # a thread that still works for a reading that was cancelled
                connection.close()
        except (sqlite3.Error, sqlite3.Warning) as error:
            place = f" beyond row {rows:,}" if rows else ""
            raise SourceError(f"{self.name} cannot be read{place}: {error}.") from error

    def _connect(self) -> sqlite3.Connection:
        uri = f"file:{quote(str(self._path.absolute()))}?mode=ro"
        connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_S, check_same_thread=False)
        connection.execute(
            "PRAGMA query_only=ON"
        )  # what an ATTACH in the query could open is not written either
        return connection


def _text(rows: list[tuple[Id | None]]) -> bytes:
    """Writes rows one a line. What a value is, is told by the row: a REAL keeps its point, and is no id then."""
    try:
        text = b"\n".join([value for (value,) in rows]) + b"\n"  # type: ignore[misc]  # or it raises
    except TypeError:
        text = ("\n".join([str(value) for (value,) in rows]) + "\n").encode("utf-8", "surrogatepass")
    if not text.translate(None, _PLAIN) and text.count(b"\n") == len(rows):
        return one_a_line(text)
    return one_a_line(as_text([NULL if value is None else value for (value,) in rows]))
