"""A source that cannot be read again, made readable: what it yields is kept on disk first.

Standard input and iterables are gone after a crash, and a query may give other rows tomorrow. So each block is
written and synced to a file before it is handed on, and how far that file is good stands in the ledger. A run that
goes on reads the file; given the input once more, it checks that it begins with the very same bytes and goes on
behind them.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

from bulkjobs.errors import SinkError, SourceChanged, SourceError
from bulkjobs.ports import Source
from bulkjobs.rundir import not_written, sync_folder, write_all

__all__ = ["SpooledSource"]

_BLOCK_BYTES: Final = 256 * 1024

_T = TypeVar("_T")


class SpooledSource:
    """Reads a source through its copy on disk. Implements `ports.Source`, repeatable."""

    repeatable = True
    fingerprint = None

    def __init__(
        self,
        name: str,
        path: Path,
        *,
        upstream: Source | None,
        spooled_bytes: int,
        complete: bool,
        on_spooled: Callable[[int, bool], None],
        ahead: bool = False,
        advice: str = "",
    ) -> None:
        """Makes the source.

        Args:
            name: name of the source.
            path: the copy.
            upstream: the source itself; None when a run is resumed without it.
            spooled_bytes: how much of the copy the ledger knows to be good; what follows is cut off.
            complete: whether the copy holds the source to its end.
            on_spooled: told, after each sync, how many bytes are good and whether that is all.
            ahead: copy the source as fast as it gives, and not only as fast as the copy is read.
            advice: what to say when the input given again is another.
        """
        self.name = name
        self._path = path
        self._upstream = upstream
        self._spooled_bytes = spooled_bytes
        self._complete = complete
        self._on_spooled = on_spooled
        self._ahead = ahead
        self._advice = advice
        self.position_bytes = 0

    @property
    def size_bytes(self) -> int | None:
        """Is the size of the copy once it holds everything."""
        return self._spooled_bytes if self._complete else None

    async def blocks(self) -> AsyncGenerator[bytes, None]:
        """Reads the copy, then what the source has beyond it. See `ports.Source`.

        Raises:
            SourceChanged: the input given again is not the input that was spooled.
            SourceError: the copy ends before the source did, and the source was not given again.
        """
        self.position_bytes = 0
        file = await asyncio.to_thread(self._open)
        try:
            if self._ahead and self._upstream is not None:
                async with aclosing(self._behind(file, self._upstream)) as blocks:
                    async for block in blocks:
                        yield block
                return
            while block := await self._next_of_copy(file):
                yield block
            if self._upstream is not None:
                async with aclosing(self._beyond_copy(file, self._upstream)) as blocks:
                    async for block in blocks:
                        self.position_bytes += len(block)
                        yield block
            elif not self._complete:
                raise SourceError(
                    f"{self.name} was not read to its end ({self._spooled_bytes} bytes were kept). Give the same "
                    f"command and the same input again to go on."
                )
        finally:
            file.close()

    async def _behind(self, file: BinaryIO, upstream: Source) -> AsyncGenerator[bytes, None]:
        """Reads the copy while a task makes it.

        Sending may take hours. A query that waited for it would hold a transaction open as long, which keeps the
        database from cleaning up, and would have to be repeated after every interruption.
        """
        grown = asyncio.Event()

        async def copy() -> None:
            try:
                async with aclosing(self._beyond_copy(file, upstream)) as blocks:
                    async for _ in blocks:
                        grown.set()
            finally:
                grown.set()

        copying = asyncio.create_task(copy())
        try:
            ended = False
            while not ended:
                grown.clear()
                ended = copying.done()
                while block := await self._next_of_copy(file):
                    yield block
                if not ended:
                    await grown.wait()
                    await asyncio.sleep(0)  # so that a copying that has just ended is done
            copying.result()
        finally:
            copying.cancel()
            await asyncio.wait([copying])
            if not copying.cancelled():
                copying.exception()  # was raised above, or came too late to matter

    async def _next_of_copy(self, file: BinaryIO) -> bytes:
        """Reads on in the copy; nothing at the end of what is good of it."""
        if self.position_bytes == self._spooled_bytes:
            return b""
        block = await _whole(asyncio.to_thread(self._read_copy, file))
        self.position_bytes += len(block)
        return block

    async def _beyond_copy(self, file: BinaryIO, upstream: Source) -> AsyncGenerator[bytes, None]:
        """Compares the source with the copy, then adds to it what comes behind, and gives that."""
        known = self._spooled_bytes
        passed = 0
        file.seek(0)
        async with aclosing(upstream.blocks()) as blocks:
            async for block in blocks:
                already = max(0, min(len(block), known - passed))
                if already and await _whole(asyncio.to_thread(file.read, already)) != block[:already]:
                    raise self._changed(passed)
                passed += len(block)
                if new := block[already:]:
                    if self._complete:
                        raise self._changed(known)
                    await _whole(asyncio.to_thread(self._append, file, new))
                    self._on_spooled(self._spooled_bytes, False)
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
            f"{self._advice}Start another run for it with --run."
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
        at = self.position_bytes
        block = os.pread(file.fileno(), min(_BLOCK_BYTES, self._spooled_bytes - at), at)
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


async def _whole(work: Coroutine[Any, Any, _T]) -> _T:
    """Waits for a thread even when cancelled: the file it works on is closed next."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
