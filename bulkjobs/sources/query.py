"""What the sources that ask a database have in common: their query, their address, and what a column may hold."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from typing import Final
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from bulkjobs.errors import ConfigError, SourceError
from bulkjobs.ids import EMPTY_CELL

__all__ = [
    "ORDER_ADVICE",
    "QuerySource",
    "check_columns",
    "checked_query",
    "one_a_line",
    "secrets_of",
    "without_secrets",
]

ORDER_ADVICE: Final = "A query gives the same rows in the same order only with ORDER BY. "

_BEGINS: Final = re.compile(
    r"(?:\s|--[^\n]*(?:\n|$)|/\*.*?\*/|\()*(select|values|with|table)\b", re.IGNORECASE | re.DOTALL
)
_SECRET_KEYS: Final = ("password", "passfile", "sslpassword", "sslkey")
_MOST_NAMED: Final = 8


class QuerySource(ABC):
    """Is the base of sources that ask a database. The engine copies what they give as fast as they give it."""

    repeatable = False
    fingerprint = None
    size_bytes = None

    def __init__(self, name: str, query: str) -> None:
        """Takes the query; `name` is the address without what is secret in it."""
        self.name = name
        self.query = query
        self.position_bytes = 0

    @abstractmethod
    def blocks(self) -> AsyncGenerator[bytes, None]:
        """Asks the query and reads to the end. See `ports.Source`."""


def checked_query(query: str | None, name: str) -> str:
    """Gives the query without a semicolon at its end.

    Raises:
        ConfigError: there is none, or it is none that only reads.
    """
    if query is None or not query.strip():
        raise ConfigError(f"{name} is a database: say with --query which ids to read, in one column.")
    if not _BEGINS.match(query):
        raise ConfigError("query (--query) may be one SELECT, VALUES, WITH or TABLE: a source is only read.")
    return query.rstrip().removesuffix(";").rstrip()


def check_columns(name: str, columns: Sequence[str]) -> None:
    """Passes one column.

    Raises:
        SourceError: there are more, or none; the message names them.
    """
    if len(columns) == 1:
        return
    if not columns:
        raise SourceError(
            f"{name}: the query gives no column. Nothing was read; select the one with the ids."
        )
    shown = ", ".join(columns[:_MOST_NAMED]) + (", …" if len(columns) > _MOST_NAMED else "")
    raise SourceError(
        f"{name}: the query gives {len(columns)} columns ({shown}), of which nobody can tell which holds the ids. "
        f"Nothing was read; select that one alone."
    )


def one_a_line(rows: bytes) -> bytes:
    """Makes sure that each row is one id or reported as none: a comma would make two of it, an empty text none.

    Args:
        rows: whole rows, each ended by a newline; newlines in values are escaped.
    """
    if b"," in rows:
        rows = rows.replace(b",", b"\\x2c")
    if b"\n\n" in rows or rows.startswith(b"\n"):
        rows = b"\n".join([row or EMPTY_CELL for row in rows.split(b"\n")[:-1]]) + b"\n"
    return rows


def without_secrets(url: str) -> str:
    """Gives the address of a database without its password, to be recorded and shown.

    Raises:
        ConfigError: it is no such address; the message does not show it.
    """
    try:
        parts = urlsplit(url)
        user, place = parts.netloc.rpartition("@")[0].partition(":")[0], parts.netloc.rpartition("@")[2]
        _ = parts.port
    except ValueError:
        raise ConfigError(
            "The address of a database cannot be read; it may be postgresql://USER@HOST:PORT/DATABASE, with special "
            "characters in it written as %XX."
        ) from None
    known = [(key, value) for key, value in parse_qsl(parts.query) if key not in _SECRET_KEYS]
    netloc = f"{user}@{place}" if user else place
    return urlunsplit((parts.scheme, netloc, parts.path, urlencode(known), ""))


def secrets_of(url: str) -> list[str]:
    """Gives what no message may show, as it stands in the address and as it is sent."""
    parts = urlsplit(url)
    values = [value for key, value in parse_qsl(parts.query) if key in _SECRET_KEYS]
    userinfo = parts.netloc.rpartition("@")[0]
    values += [userinfo.partition(":")[2], parts.password or ""]
    return [form for value in values if value for form in (value, quote(value, safe=""))]
