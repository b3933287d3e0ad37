"""The sources of a run once more, only to look at: nothing is created, cut off or locked."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bulkjobs.audit.findings import Progress
from bulkjobs.errors import SourceError
from bulkjobs.ledger import RunRow, SourceRow
from bulkjobs.ports import Source
from bulkjobs.rundir import RunDir
from bulkjobs.sources import is_address, open_again
from bulkjobs.sources.table import not_a_table

__all__ = ["Reading", "RecordedSource", "recorded_sources"]

_BLOCK_BYTES: Final = 256 * 1024
_TELL_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedSource:
    """Is a source of the run: the file itself, or the copy that was kept of it."""

    name: str
    """As the ledger has it."""
    path: Path
    column: str | int | None = None
    """As the run was begun with."""
    fingerprint: str | None
    """As the ledger has it; None of a copy, and of a file that broke off."""
    spooled_bytes: int | None
    """How much of a copy is known to be good; None of a file."""
    complete: bool
    """Of a copy: it is all there is."""

    def changed(self) -> bool:
        """Tells whether the file has another size or time than when the run began."""
        return self.fingerprint is not None and self.fingerprint != self.opened().fingerprint

    def opened(self) -> Source:
        """Opens what is not a copy.

        Raises:
            SourceError: it is not there.
        """
        return open_again(self.name if is_address(self.name) else str(self.path), column=self.column)

    def blocks(self, progress: Progress | None = None) -> Iterator[bytes]:
        """Reads it from its beginning, as text in blocks.

        Raises:
            SourceError: it is gone, or cannot be read any further; the message says what to do.
        """
        source: Iterator[bytes] = _copy(self) if self.spooled_bytes is not None else _file(self)
        passed = told = 0
        with closing(source):  # type: ignore[type-var]  # both are generators
            for block in source:
                yield block
                passed += len(block)
                if progress is not None and passed - told >= _TELL_BYTES:
                    told = passed
                    progress(f"{self.name}: {passed >> 20:,} MiB read")


class Reading:
    """Reads sources one after the other, as far as they are known to be good."""

    def __init__(
        self, sources: Sequence[RecordedSource], *, finished: bool, progress: Progress | None = None
    ) -> None:
        """Makes it; `finished` says that the run has read all of them to their end."""
        self._sources = sources
        self._finished = finished
        self._progress = progress
        self.broke_off: str | None = None
        """Why not everything could be read, as for the run itself; None when it was."""

    def blocks(self) -> Iterator[tuple[RecordedSource, bytes | None]]:
        """Gives the blocks of each source, and None at the end of each that was read whole.

        Raises:
            SourceError: a source of which everything was read before cannot be read now.
        """
        for source in self._sources:
            try:
                for block in source.blocks(self._progress):
                    yield source, block
            except SourceError as error:
                if self._finished:
                    raise
                self.broke_off = str(error)  # what stands before the break is good
                return
            if source.spooled_bytes is not None and not source.complete:
                # What stands last in the copy may be half an id, and no source behind it was read yet.
                self.broke_off = (
                    f"Of {source.name} only the {source.spooled_bytes:,} bytes kept so far are known."
                )
                return
            yield source, None


def recorded_sources(
    rows: Sequence[SourceRow], run: RunRow, run_dir: RunDir, folder: Path | None = None
) -> list[RecordedSource]:
    """Finds the sources that a run recorded.

    Args:
        rows: what the ledger has of them.
        run: the run.
        run_dir: of the run, with its copies.
        folder: where relative names begin; None is the current folder.

    Raises:
        SourceError: one of them is not there, or shorter than the ledger knows it.
    """
    sources = [_recorded(row, position, run, run_dir, folder) for position, row in enumerate(rows)]
    for source in sources:
        if source.spooled_bytes is None:
            _present(source)
        else:
            _long_enough(source, source.spooled_bytes)
    return sources


def _recorded(
    row: SourceRow, position: int, run: RunRow, run_dir: RunDir, folder: Path | None
) -> RecordedSource:
    path = run_dir.spool(position) if row.spooled else (folder or Path()) / row.name
    return RecordedSource(
        name=row.name,
        path=path,
        column=run.column,
        fingerprint=row.fingerprint,
        spooled_bytes=row.spooled_bytes if row.spooled else None,
        complete=row.complete,
    )


def _present(source: RecordedSource) -> None:
    try:
        source.opened()
    except SourceError as error:
        if is_address(source.name):
            raise
        raise SourceError(
            f"{error} It is a source of this run, and without it nobody can tell what was read. Put it back, or name "
            f"the folder in which the run was begun with --folder."
        ) from error


def _long_enough(source: RecordedSource, known: int) -> None:
    try:
        there = source.path.stat().st_size if known else 0  # nothing was kept yet: there may be no file
    except OSError as error:
        raise _unreadable(source, error) from error
    if there < known:
        raise SourceError(
            f"The copy of {source.name} in {source.path} has {there} bytes, but the ledger knows of {known}. Put the "
            f"file back."
        )


def _unreadable(source: RecordedSource, error: OSError) -> SourceError:
    return SourceError(
        f"The copy of {source.name} in {source.path} cannot be read: {error.strerror or error}."
    )


def _copy(source: RecordedSource) -> Iterator[bytes]:
    """Reads a copy as far as the ledger knows it: what stands behind that may be half a block."""
    left = source.spooled_bytes or 0
    if not left:
        return
    try:
        with source.path.open("rb", buffering=0) as file:
            while left and (block := file.read(min(_BLOCK_BYTES, left))):
                left -= len(block)
                yield block
    except OSError as error:
        raise _unreadable(source, error) from error


def _file(source: RecordedSource) -> Iterator[bytes]:
    """Reads a file through the one thing that knows how: a source, on an event loop of its own.

    Not `asyncio.Runner`: for each block it would set a signal handler, and write out the block before in doing so.
    """
    blocks = not_a_table(source.name, source.opened().blocks())  # as the run itself has read it
    loop = asyncio.SelectorEventLoop()

    async def following() -> bytes | None:
        return await anext(blocks, None)

    try:
        while (block := loop.run_until_complete(following())) is not None:
            yield block
    finally:
        loop.run_until_complete(blocks.aclose())
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
