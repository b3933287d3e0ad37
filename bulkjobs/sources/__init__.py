"""Where ids come from: one module a kind, all behind `ports.Source`."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from pathlib import Path

from bulkjobs.errors import ConfigError, SourceError
from bulkjobs.ports import Source
from bulkjobs.sources.addresses import blobs_at, database_at, is_address
from bulkjobs.sources.delimited import Column
from bulkjobs.sources.objects import AsyncIterableSource, Id, IterableSource
from bulkjobs.sources.paths import files_at
from bulkjobs.sources.query import ORDER_ADVICE, QuerySource
from bulkjobs.sources.spool import SpooledSource
from bulkjobs.sources.stdin import StdinSource
from bulkjobs.sources.stored import FileSource, StoredSource

__all__ = [
    "ORDER_ADVICE",
    "FileSource",
    "Id",
    "QuerySource",
    "SourceLike",
    "SpooledSource",
    "StoredSource",
    "is_address",
    "open_again",
    "open_sources",
]

SourceLike = str | Path | Iterable[Id] | AsyncIterable[Id] | Source
"""The path of a file or a folder, a pattern, `-` for standard input, the address of a file or a database, ids, an
async stream of ids, or a source of one's own."""


def open_sources(
    given: Iterable[SourceLike], *, column: Column | None = None, query: str | None = None
) -> list[Source]:
    """Turns what a caller names into sources, in the order given; a folder or a pattern into its files, sorted.

    Args:
        given: what the caller names; nothing to go on with the sources of a run.
        column: name or number of the column with the ids: files and standard input are tables.
        query: which ids to read from a database.

    Raises:
        ConfigError: a column is named, and none of the sources can be a table; a query and no database, or the other
            way round; an address cannot be used, or an extra is missing.
        SourceError: a file is missing, unreadable or not a file, a folder or a pattern has no file, or standard
            input stands twice. Nothing was read yet.
    """
    sources: list[Source] = []
    for one in given:
        sources += _sources_of(one, f"iterable {len(sources) + 1}", column, query)
    if (
        column is not None
        and sources
        and not any(isinstance(one, StoredSource | StdinSource) for one in sources)
    ):
        raise ConfigError(
            "column (--column) is for files and standard input, and none of the sources is one."
        )
    if query is not None and sources and not any(isinstance(one, QuerySource) for one in sources):
        raise ConfigError("query (--query) is for a database, and none of the sources is one.")
    names = [source.name for source in sources if not source.repeatable]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise SourceError(f"{twice} stands twice among the sources, but can be read only once.")
    return sources


def open_again(name: str, *, column: Column | None = None) -> Source:
    """Opens a recorded source that can be read again by its name.

    Raises:
        SourceError: it cannot be opened.
    """
    for blob in blobs_at(name) or ():
        return StoredSource(blob, column=column)
    return FileSource(name, column=column)


def _sources_of(one: SourceLike, name: str, column: Column | None, query: str | None) -> list[Source]:
    """Gives the sources behind one thing named by the caller; `name` is for what has none of its own."""
    if isinstance(one, str) and one == "-":
        return [StdinSource(column=column)]
    if isinstance(one, str) and is_address(one):
        asked = database_at(one, query)
        if asked is not None:
            return [asked]
        return [StoredSource(blob, column=column) for blob in blobs_at(one) or ()]
    if isinstance(one, str | Path):
        return [FileSource(path, column=column) for path in files_at(str(one))]
    if isinstance(one, bytes | bytearray):
        raise SourceError("Bytes are no source: give a path, or a list of ids.")
    if isinstance(one, Source):
        return [one]
    if isinstance(one, AsyncIterable):
        return [AsyncIterableSource(one, f"async {name}")]
    if isinstance(one, Iterable):
        return [IterableSource(one, name)]
    raise SourceError(f"A {type(one).__name__} is no source: give a path, ids or an async stream of ids.")
