"""Sources that are elsewhere: what their addresses look like, and what is behind one."""

from __future__ import annotations

import re
from typing import Final

from bulkjobs.ports import Source
from bulkjobs.sources.blob import Blob

__all__ = ["blobs_at", "database_at", "is_address"]

_ADDRESS: Final = re.compile(r"(?:(?:postgres(?:ql)?|s3|gs|https?)://|sqlite:)", re.IGNORECASE)


def is_address(text: str) -> bool:
    """Tells whether a source is named by an address, and not by a path."""
    return _ADDRESS.match(text) is not None


def database_at(address: str, query: str | None) -> Source | None:
    """Gives the source behind the address of a database; None if it is none.

    Raises:
        ConfigError: address or query cannot be used, or the library is missing.
        SourceError: it cannot be opened.
    """
    match _scheme(address):
        case "postgresql" | "postgres":
            from bulkjobs.sources.postgres import PostgresSource  # noqa: PLC0415 - most runs need none of it

            return PostgresSource(address, query)
        case "sqlite":
            from bulkjobs.sources.sqlite import SqliteSource  # noqa: PLC0415 - as above

            return SqliteSource(address, query)
    return None


def blobs_at(address: str) -> list[Blob] | None:
    """Gives the files or objects behind an address, in the order of their names; None if it is none of such.

    Waits for the network.

    Raises:
        ConfigError: the address cannot be used, or the library is missing.
        SourceError: there is nothing, or it may not be read.
    """
    match _scheme(address):
        case "s3" | "gs":
            from bulkjobs.sources.buckets import objects_at  # noqa: PLC0415 - as above

            return list(objects_at(address))
        case "https" | "http":
            from bulkjobs.sources.web import WebFile  # noqa: PLC0415 - as above

            return [WebFile(address)]
    return None


def _scheme(address: str) -> str | None:
    return address.partition(":")[0].lower() if is_address(address) else None
