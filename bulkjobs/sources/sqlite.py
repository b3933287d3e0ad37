"""Ids from a file of SQLite: a query, read through a connection that cannot write."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import closing, suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

from bulkjobs.errors import SourceError
from bulkjobs.ids import NULL
from bulkjobs.sources.ahead import Piece, Pieces, ahead
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
        connection = await asyncio.to_thread(self._connect)
        pieces = ahead(self._pieces(connection))
        try:
            async for piece in pieces:
                self.position_bytes = piece.position_bytes
                yield piece.text
        finally:
            with suppress(sqlite3.Error):  # it is closed
                connection.interrupt()  # or a thread would sort on for a reading that was left
            await pieces.aclose()

    def _pieces(self, connection: sqlite3.Connection) -> Pieces:
        rows = position_bytes = 0
        try:
            with closing(connection):
                cursor = connection.execute(self.query)
                check_columns(self.name, [column[0] for column in cursor.description or ()])
                while some := cursor.fetchmany(_ROWS):
                    block = _text(some)
                    rows += len(some)
                    position_bytes += len(block)
                    yield Piece(block, position_bytes)
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise self._failed(error, rows) from error

    def _connect(self) -> sqlite3.Connection:
        uri = f"file:{quote(str(self._path.absolute()))}?mode=ro"
        try:
            connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_S, check_same_thread=False)
            connection.text_factory = bytes  # text that is no UTF-8 is an invalid id, and no reason to stop
            connection.execute("PRAGMA query_only=ON")  # nor is anything written that the query could attach
        except sqlite3.Error as error:
            raise self._failed(error, 0) from error
        return connection

    def _failed(self, error: Exception, rows: int) -> SourceError:
        place = f" beyond row {rows:,}" if rows else ""
        return SourceError(f"{self.name} cannot be read{place}: {error}.")


def _text(rows: list[tuple[Id | None]]) -> bytes:
    """Writes rows one a line. What a value is, is told by the row: a REAL keeps its point, and is no id then."""
    try:
        text = b"\n".join([value for (value,) in rows]) + b"\n"  # type: ignore[misc]  # or it raises
    except TypeError:
        text = ("\n".join([str(value) for (value,) in rows]) + "\n").encode("utf-8", "surrogatepass")
    if not text.translate(None, _PLAIN) and text.count(b"\n") == len(rows):
        return one_a_line(text)
    return one_a_line(as_text([NULL if value is None else value for (value,) in rows]))
