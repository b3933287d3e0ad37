"""Standard input: text, plain or compressed, told by its first bytes."""

from __future__ import annotations

import asyncio
import os
import select
import stat
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final

from bulkjobs.errors import SourceError
from bulkjobs.sources.compression import SIGNATURE_BYTES, Unpacker, unpacker
from bulkjobs.sources.delimited import Column, ColumnReader
from bulkjobs.sources.kinds import check_text, is_parquet, undecided

__all__ = ["StdinSource"]

_NAME: Final = "Standard input"
_BLOCK_BYTES: Final = 256 * 1024


class StdinSource:
    """Reads standard input. It cannot be read again, so the engine spools it."""

    name = "-"
    repeatable = False
    fingerprint = None
    size_bytes = None

    def __init__(self, descriptor: int | None = None, *, column: Column | None = None) -> None:
        """Takes standard input, or another descriptor open for reading.

        Args:
            descriptor: the other one.
            column: name or number of the column with the ids, if it is a table.

        Raises:
            SourceError: there is no standard input.
        """
        self.position_bytes = 0
        self._column = column
        try:
            self._descriptor = sys.stdin.fileno() if descriptor is None else descriptor
            kind = os.fstat(self._descriptor).st_mode
        except (AttributeError, OSError, ValueError) as error:  # None, no real file, or closed
            raise SourceError("There is no standard input to read: it is closed, or no real file.") from error
        self._may_wait = stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind) or os.isatty(self._descriptor)

    async def blocks(self) -> AsyncGenerator[bytes, None]:
        """Reads to the end. Cancelling leaves no thread behind that waits for input. See `ports.Source`."""
        reader = None if self._column is None else ColumnReader(_NAME, self._column)
        async with aclosing(self._texts()) as texts:
            async for text in texts:
                if reader is None:
                    yield text
                elif ids := reader.feed(text):
                    yield ids
        if reader is not None and (ids := reader.finish()):
            yield ids

    async def _texts(self) -> AsyncGenerator[bytes, None]:
        packed: Unpacker | None = None
        begun = False
        while stored := await self._read():
            if not begun:
                while undecided(stored) and (
                    more := await self._read()
                ):  # a pipe may begin with a single byte
                    stored += more
                packed, begun = _unpacker(stored), True
            self.position_bytes += len(stored)
            if packed is None:
                yield stored
            else:
                async for block in _unpacked(packed, stored):
                    yield block
        if packed is not None:
            packed.finish()

    async def _read(self) -> bytes:
        try:
            if self._may_wait:
                return await self._read_waiting()
            # A file or a device never makes a reader wait, and epoll does not take it.
            return await asyncio.to_thread(os.read, self._descriptor, _BLOCK_BYTES)
        except OSError as error:
            raise SourceError(
                f"Standard input cannot be read beyond byte {self.position_bytes}: {error.strerror or error}."
            ) from error

    async def _read_waiting(self) -> bytes:
        parts: list[bytes] = []
        size = 0
        # A pipe gives 64 KiB at a time. What is there is gathered, so that it is spooled with one sync.
        while size < _BLOCK_BYTES:
            if parts and not select.select([self._descriptor], [], [], 0)[0]:
                break
            if not parts:
                await _readable(self._descriptor)
            part = os.read(self._descriptor, _BLOCK_BYTES - size)
            if not part:
                break
            parts.append(part)
            size += len(part)
        return b"".join(parts)


def _unpacker(beginning: bytes) -> Unpacker | None:
    if is_parquet(beginning):
        raise SourceError(f"{_NAME} is Parquet, which is not read in one go: give it as a file.")
    check_text(_NAME, beginning)
    return unpacker(_NAME, beginning[:SIGNATURE_BYTES])


async def _unpacked(packed: Unpacker, stored: bytes) -> AsyncGenerator[bytes, None]:
    packed.start(stored)
    while block := await asyncio.to_thread(packed.next):
        yield block


async def _readable(descriptor: int) -> None:
    """Waits until a descriptor has something to read, without a thread."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    resolve: Callable[[], None] = lambda: None if ready.done() else ready.set_result(None)  # noqa: E731
    loop.add_reader(descriptor, resolve)
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)
