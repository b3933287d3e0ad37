"""One column of a table in text: CSV with any of the usual delimiters, or TSV.

A column comes out as text with one line for each line of the table, so that line numbers are those of the table and
all that follows reads ids as it always does. The names of the columns come out as empty lines.
"""

from __future__ import annotations

import csv
import io
import re
from typing import Final, NamedTuple

from bulkjobs._table import column_of
from bulkjobs.errors import SourceError
from bulkjobs.ids import EMPTY_CELL, MISSING_CELL, shown

__all__ = ["Column", "ColumnReader", "found_by_name", "no_such_column"]

Column = str | int
"""The name of a column, or its number from 1."""

_MARK: Final = b"\xef\xbb\xbf"
_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")
_DELIMITERS: Final = "\t,;|"
_DATA: Final = re.compile(r"[0-9+\-.]|[A-Za-z0-9_-]{32}|$")
"""How ids begin, and what goes wrong with them: nobody calls a column so."""
_LONGEST_ROW_BYTES: Final = 1024 * 1024
_MOST_NAMES: Final = 20


class _Head(NamedTuple):
    """Is what the first row of a table tells."""

    delimiter: int
    column: int
    """From 0."""
    lines: int
    """How many lines come before the rows: the names of the columns, if there are any."""
    length_bytes: int
    """Of these lines."""


class ColumnReader:
    """Takes a column out of a table, whose text comes block by block."""

    def __init__(self, name: str, column: Column) -> None:
        """Begins before the names of the columns.

        Args:
            name: how messages call the source.
            column: the one that is wanted. If it is given by its number it may have no name: the first row counts as
                names unless what stands in this column begins like an id.
        """
        self._name = name
        self._column = column
        self._head: _Head | None = None
        self._held = b""
        self._passed_bytes = 0

    @property
    def knows_its_column(self) -> bool:
        """Tells whether the names of the columns were read."""
        return self._head is not None

    @property
    def held_bytes(self) -> int:
        """Is how much of the text waits for the end of its row."""
        return len(self._held)

    def go_on(self) -> None:
        """Makes ready for what follows the end of any row, once the column is known."""
        self._held = b""

    def feed(self, text: bytes) -> bytes:
        """Takes the next block, which may end anywhere, and gives the column of the rows that are whole.

        Raises:
            SourceError: there is no such column, or more than one; this is no table; or a quote is not closed. What
                came before stays valid.
        """
        self._held += text
        lines = b""
        if self._head is None:
            if _row_end(self._held) is None and len(self._held) <= _LONGEST_ROW_BYTES:
                return b""
            lines = self._read_head()
        return lines + self._take(self._held)

    def finish(self) -> bytes:
        """Ends the table: the last row needs no line end.

        Raises:
            SourceError: as `feed`.
        """
        lines = self._read_head() if self._head is None else b""
        return lines + (self._take(self._held + b"\n") if self._held else b"")

    def _read_head(self) -> bytes:
        """Finds the column, passes over the names of all of them, and gives an empty line for each of these lines."""
        if self._held.startswith(_UTF_16):
            raise SourceError(f"{self._name} is UTF-16. Convert it to UTF-8: iconv -f UTF-16 -t UTF-8.")
        self._held = self._held.removeprefix(_MARK)
        if not self._held.strip():
            self._head = _Head(ord(","), 0, 0, 0)  # an empty file is an empty table
        else:
            self._head = _head(self._name, self._held, self._column)
        self._held = self._held[self._head.length_bytes :]
        return b"\n" * self._head.lines

    def _take(self, rows: bytes) -> bytes:
        assert self._head is not None
        text, taken = column_of(rows, self._head.delimiter, self._head.column, EMPTY_CELL, MISSING_CELL)
        ended = len(rows) > len(self._held)
        self._held = rows[taken:]
        self._passed_bytes += taken
        if self._held and (ended or len(self._held) > _LONGEST_ROW_BYTES):
            raise _not_closed(self._name, self._passed_bytes)
        return text


def _head(name: str, text: bytes, column: Column) -> _Head:
    end = _row_end(text) or len(text)
    delimiter, cells, lines = _split(name, text[:end].decode("utf-8", "backslashreplace"), column)
    index = found_by_name(name, cells, column) if isinstance(column, str) else column - 1
    if not 0 <= index < len(cells):
        raise no_such_column(name, cells, column)
    if isinstance(column, int) and _DATA.match(cells[index]):
        return _Head(ord(delimiter), index, 0, 0)
    return _Head(ord(delimiter), index, lines, end)


def _not_closed(name: str, taken_bytes: int) -> SourceError:
    return SourceError(
        f"{name}: a quote is opened and not closed, in the row that begins {taken_bytes:,} bytes behind the names of "
        f"its columns. The ids before it stay valid; repair the file and give the same command again."
    )


def _row_end(text: bytes) -> int | None:
    """Gives the end of the first row that is not empty; None when it is not there yet."""
    at = len(text) - len(text.removeprefix(_MARK).lstrip(b"\r\n"))
    quotes = 0
    while newline := text.find(b"\n", at) + 1:
        quotes += text.count(b'"', at, newline)
        if not quotes % 2:
            return newline
        at = newline
    return None


def _split(name: str, beginning: str, column: Column) -> tuple[str, list[str], int]:
    """Finds out the delimiter: the one of which there are most, if it gives a column of that name.

    Returns:
        The delimiter, the cells, and over how many lines they go.
    """
    ways = []
    for delimiter in _DELIMITERS:
        rows = csv.reader(io.StringIO(beginning, newline="\n"), delimiter=delimiter)
        try:
            cells = next(row for row in rows if row)
        except (csv.Error, StopIteration) as error:
            raise SourceError(
                f"{name} is no table: its first line cannot be read as CSV ({error})."
            ) from error
        ways.append((delimiter, [cell.strip() for cell in cells], rows.line_num))
    ways.sort(key=lambda way: -len(way[1]))
    return next((way for way in ways if column in way[1]), ways[0])


def found_by_name(name: str, names: list[str], column: str) -> int:
    """Gives the index of a column.

    Raises:
        SourceError: there is none of that name, or more than one.
    """
    found = [index for index, one in enumerate(names) if one == column.strip()]
    if len(found) > 1:
        numbers = " or ".join(f"--column {index + 1}" for index in found[:_MOST_NAMES])
        raise SourceError(f"{name} has {len(found)} columns {column!r}. Give the number of one: {numbers}.")
    if not found:
        raise no_such_column(name, names, column)
    return found[0]


def no_such_column(name: str, names: list[str], column: Column) -> SourceError:
    """Says which columns there are instead."""
    more = f" and {len(names) - _MOST_NAMES:,} more" if len(names) > _MOST_NAMES else ""
    there = ", ".join(shown(one.encode("utf-8", "backslashreplace")) for one in names[:_MOST_NAMES]) + more
    wanted = repr(column) if isinstance(column, str) else f"number {column}"
    return SourceError(f"{name} has no column {wanted}. Its columns are: {there}.")
