"""A source that cannot be read again, made readable: what it yields is kept on disk first.

Standard input and iterables are gone after a crash. So each block is written and synced to a file before it
is handed on, and how far that file is good stands in the ledger. A run that goes on reads the file; given the
input once more, it checks that it begins with the very same bytes and goes on behind them.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import BinaryIO, Final

from bulkjobs.errors import SinkError, SourceChanged, SourceError
from bulkjobs.ports import Source
from bulkjobs.rundir import not_written, sync_folder, write_all

__all__ = ["SpooledSource"]

_BLOCK_BYTES: Final = 256 * 1024


class SpooledSource:
    """Reads a source through its copy on disk. Implements `ports.Source`, repeatable."""

    repeatable = True
    fingerprint = None
    size_bytes = None

    def __init__(
        self,
        name: str,
        path: Path,
        *,
        upstream: Source | None,
        spooled_bytes: int,
        complete: bool,
        on_spooled: Callable[[int, bool], None],
    ) -> None:
        """Makes the source.

        Args:
            name: name of the source.
            path: the copy.
            upstream: the source itself; None when a run is resumed without it.
            spooled_bytes: how much of the copy the ledger knows to be good; what follows is cut off.
            complete: whether the copy holds the source to its end.
            on_spooled: told, after each sync, how many bytes are good and whether that is all.
        """
        self.name = name
        self._path = path
        self._upstream = upstream
        self._spooled_bytes = spooled_bytes
        self._complete = complete
        self._on_spooled = on_spooled
        self.position_bytes = 0

    async def blocks(self) -> AsyncGenerator[bytes, None]:
        """Reads the copy, then what the source has beyond it. See `ports.Source`.

        Raises:
            SourceChanged: the input given again is not the input that was spooled.
            SourceError: the copy ends before the source did, and the source was not given again.
        """
        self.position_bytes = 0
        file = await asyncio.to_thread(self._open)
        try:
            while self.position_bytes < self._spooled_bytes:
                block = await asyncio.to_thread(self._read_copy, file)
                self.position_bytes += len(block)
                yield block
            if self._upstream is not None:
                async for block in self._beyond_copy(file, self._upstream):
                    yield block
            elif not self._complete:
                raise SourceError(
                    f"{self.name} was not read to its end ({self._spooled_bytes} bytes were kept). Give the same "
                    f"command and the same input again to go on."
                )
        finally:
            file.close()

    async def _beyond_copy(self, file: BinaryIO, upstream: Source) -> AsyncGenerator[bytes, None]:
        known = self._spooled_bytes
        passed = 0
        file.seek(0)
        async for block in upstream.blocks():
            already = max(0, min(len(block), known - passed))
            if already and await asyncio.to_thread(file.read, already) != block[:already]:
                raise self._changed(passed)
            passed += len(block)
            if new := block[already:]:
                if self._complete:
                    raise self._changed(known)
                await asyncio.to_thread(self._append, file, new)
                self._on_spooled(self._spooled_bytes, False)
                self.position_bytes += len(new)
                yield new
        if passed < known:
            raise self._changed(passed)
        self._upstream = None  # it gives nothing a second time
        if not self._complete:
            self._complete = True
            self._on_spooled(self._spooled_bytes, True)

    def _changed(self, position_bytes: int) -> SourceChanged:
        return SourceChanged(
            f"{self.name} is not the input that this run began with: it differs after byte {position_bytes}. "
            f"Start another run for it with --run."
        )

    def _open(self) -> BinaryIO:
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            there = os.fstat(descriptor).st_size
            if there > self._spooled_bytes:
                os.ftruncate(descriptor, self._spooled_bytes)
            sync_folder(self._path.parent)
        except OSError as error:
            raise SourceError(
                f"The copy of {self.name} in {self._path} cannot be opened: {error.strerror or error}."
            ) from error
        file = os.fdopen(descriptor, "r+b", buffering=0)
        if there < self._spooled_bytes:
            file.close()
            raise self._too_short(there)
        return file

    def _read_copy(self, file: BinaryIO) -> bytes:
        block = file.read(min(_BLOCK_BYTES, self._spooled_bytes - self.position_bytes))
        if not block:
            raise self._too_short(self.position_bytes)
        return block

    def _too_short(self, there: int) -> SourceError:
        return SourceError(
            f"The copy of {self.name} in {self._path} has {there} bytes, but the ledger knows of "
            f"{self._spooled_bytes}. Put the file back."
        )

    def _append(self, file: BinaryIO, block: bytes) -> None:
        try:
            write_all(file.fileno(), block)
            os.fsync(file.fileno())
        except OSError as error:
            raise SinkError(f"The copy of {self.name} in {not_written(self._path, error)}") from error
        self._spooled_bytes += len(block)
