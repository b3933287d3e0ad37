"""One column of a table in text: CSV with any of the usual delimiters, or TSV.

A column comes out as text with one line for each line of the table, so that line numbers are those of the table and
all that follows reads ids as it always does. The names of the columns come out as empty lines.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from bulkjobs._table import column_of
from bulkjobs.errors import SourceError
from bulkjobs.ids import EMPTY_CELL, MISSING_CELL, shown
from bulkjobs.sources.ahead import Piece, Pieces

__all__ = ["Column", "Head", "found_by_name", "no_such_column", "read_column", "read_head"]

Column = str | int
"""The name of a column, or its number from 1."""

_MARK: Final = b"\xef\xbb\xbf"
_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")
_DELIMITERS: Final = "\t,;|"
_DATA: Final = re.compile(r"[0-9+\-.]|[A-Za-z0-9_-]{32}|$")
"""How ids begin, and what goes wrong with them: nobody calls a column so."""
_LONGEST_ROW_BYTES: Final = 1024 * 1024
_MOST_NAMES: Final = 20


class Head(NamedTuple):
    """Is what the first row of a table tells."""

    delimiter: int
    index: int
    """Of the column, from 0."""
    lines: int
    """How many lines come before the rows: the names of the columns, if there are any."""
    rest: Piece
    """What was read behind these."""

    def passed(self) -> Head:
        """Gives it for a reading that begins behind it."""
        return self._replace(lines=0, rest=Piece(b"", 0))


def read_head(name: str, pieces: Pieces, column: Column) -> Head | None:
    """Reads the beginning of a table and finds its column; None when it is empty.

    A column that is given by its number may have no name: the first row counts as names unless what stands in this
    column begins like an id.

    Args:
        name: how messages call the source.
        pieces: the table, from its beginning.
        column: the one that is wanted.

    Raises:
        SourceError: there is no such column, or more than one, or this is no table.
    """
    text, position_bytes, mark, end = b"", 0, None, None
    while end is None and len(text) < _LONGEST_ROW_BYTES and (piece := next(pieces, None)) is not None:
        text, position_bytes, mark = text + piece.text, piece.position_bytes, piece.mark
        end = _row_end(text)
    if text.startswith(_UTF_16):
        raise SourceError(f"{name} is UTF-16. Convert it to UTF-8: iconv -f UTF-16 -t UTF-8.")
    if not text.removeprefix(_MARK).strip():
        return None
    beginning = text[:end].removeprefix(_MARK).decode("utf-8", "backslashreplace")
    delimiter, names, lines = _split(name, beginning, column)
    index = found_by_name(name, names, column) if isinstance(column, str) else column - 1
    if not 0 <= index < len(names):
        raise no_such_column(name, names, column)
    if isinstance(column, int) and _DATA.match(names[index].strip()):
        return Head(ord(delimiter), index, 0, Piece(text.removeprefix(_MARK), position_bytes, mark))
    behind = text[end:] if end is not None else b""
    return Head(ord(delimiter), index, lines, Piece(behind, position_bytes, mark))


def read_column(name: str, head: Head, pieces: Pieces) -> Pieces:
    """Takes a column out of a table.

    Args:
        name: how messages call the source.
        head: of the table; to begin at a mark, without lines and rest.
        pieces: the table, behind `head.rest`.

    Raises:
        SourceError: a quote is not closed. What came before stays valid.
    """
    passed = b"\n" * head.lines
    held = b""
    taken_bytes = 0
    for piece in _both(head.rest, pieces):
        held += piece.text
        text, taken = column_of(held, head.delimiter, head.index, EMPTY_CELL, MISSING_CELL)
        held = held[taken:]
        taken_bytes += taken
        if len(held) > _LONGEST_ROW_BYTES:
            raise _not_closed(name, taken_bytes)
        if text or passed:
            mark = None if piece.mark is None else str(int(piece.mark) - len(held))
            yield Piece(passed + text, piece.position_bytes, mark)
            passed = b""
    if held:
        text, taken = column_of(held + b"\n", head.delimiter, head.index, EMPTY_CELL, MISSING_CELL)
        if not taken:
            raise _not_closed(name, taken_bytes)
        yield Piece(text, piece.position_bytes)


def _both(first: Piece, others: Pieces) -> Iterator[Piece]:
    yield first
    yield from others


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
            raise SourceError(f"{name} is no table: its first line cannot be read as CSV ({error}).") from error
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
