"""Ids as text: files, plain or gzip, and standard input.

What a file is, is told by its first bytes, never by its name. Files are read in a thread, so that a slow
disk or a busy decompressor does not hold up answers.
"""

from __future__ import annotations

import asyncio
import os
import select
import stat
import sys
import zlib
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import BinaryIO, Final

from bulkjobs.errors import SourceChanged, SourceError

__all__ = ["FileSource", "GzipText", "StdinSource"]

_BLOCK_BYTES: Final = 256 * 1024
"""Measured with duplicates removed: 256 KiB blocks stay in the cache and are cut 1.5 times faster than 1 MiB."""
_GZIP: Final = b"\x1f\x8b"
_NO_TEXT: Final = {
    b"PAR1": "Parquet",
    b"PK\x03\x04": "a ZIP archive or a spreadsheet",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"SQLite format 3\x00": "an SQLite database",
}
"""Between any two bytes of these that look like separators a digit may stand, which would go out as an id."""
_BOMB_RATIO: Final = 200
"""Lists of ids shrink to a third or a tenth; what grows two-hundredfold is no list of ids."""
_BOMB_BYTES: Final = 64 * 1024 * 1024
"""Below this much text the ratio does not matter."""


class FileSource:
    """Reads one file, plain or gzip. Implements `ports.Source`."""

    repeatable = True

    def __init__(self, path: str | Path) -> None:
        """Looks at the file, without reading it.

        Raises:
            SourceError: there is no such file, it is not a regular file, or it cannot be opened.
        """
        # Bytes that are no UTF-8 are legal in a file name, but neither in JSON nor in the ledger.
        self.name = os.fsencode(path).decode("utf-8", "backslashreplace")
        self._path = Path(path)
        self.position_bytes = 0
        try:
            status = os.stat(path)  # noqa: PTH116 - Path("") would be the folder we are in
            if stat.S_ISDIR(status.st_mode):
                raise SourceError(
                    f"{self.name} is a folder. Name the files in it, for example {self.name}/*.txt."
                )
            if not stat.S_ISREG(status.st_mode):
                raise SourceError(f"{self.name} is not a regular file. Pipe it in and give - as the source.")
            with self._path.open("rb"):
                pass  # only to learn now, before anything is sent, whether it may be read
        except OSError as error:
            raise self._unreadable(error) from error
        except ValueError as error:  # a NUL in it
            raise SourceError(f"{self.name!r} is no path: {error}.") from error
        self._status = status
        self.size_bytes = status.st_size

    @property
    def fingerprint(self) -> str:
        """Is the size and the time of the last change."""
        return f"{self._status.st_size}:{self._status.st_mtime_ns}"

    async def blocks(self) -> AsyncGenerator[bytes, None]:
        """Reads the file from its beginning. See `ports.Source`."""
        self.position_bytes = 0
        opening = asyncio.get_running_loop().run_in_executor(None, self._open)
        try:
            file = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(
                _close_opened
            )  # the thread goes on, and nobody else would have the file
            raise
        try:
            text: GzipText | None = None
            while stored := await asyncio.to_thread(self._read, file):
                if self.position_bytes == 0:
                    text = _unpacker(self.name, stored)
                self.position_bytes += len(stored)
                if text is None:
                    yield stored
                else:
                    async for block in _unpacked(text, stored):
                        yield block
            if text is not None:
                text.finish()
            self._check_unchanged(file)
        finally:
            file.close()

    def _open(self) -> BinaryIO:
        try:
            return self._path.open("rb", buffering=0)
        except OSError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: OSError) -> SourceError:
        return SourceError(f"{self.name or repr('')} cannot be read: {error.strerror or error}.")

    def _read(self, file: BinaryIO) -> bytes:
        try:
            return file.read(_BLOCK_BYTES)
        except OSError as error:
            at = self.position_bytes
            raise SourceError(
                f"{self.name} cannot be read beyond byte {at}: {error.strerror or error}."
            ) from error

    def _check_unchanged(self, file: BinaryIO) -> None:
        now = os.fstat(file.fileno())
        if (now.st_size, now.st_mtime_ns) != (self._status.st_size, self._status.st_mtime_ns):
            raise SourceChanged(
                f"{self.name} changed while it was read. What was sent stays valid; put the file back as it was "
                f"to go on with this run, or start another run with the new one."
            )


class StdinSource:
    """Reads standard input, plain or gzip. It cannot be read again, so the engine spools it."""

    name = "-"
    repeatable = False
    fingerprint = None
    size_bytes = None

    def __init__(self, descriptor: int | None = None) -> None:
        """Takes standard input, or another descriptor open for reading.

        Raises:
            SourceError: there is no standard input.
        """
        self.position_bytes = 0
        try:
            self._descriptor = sys.stdin.fileno() if descriptor is None else descriptor
            kind = os.fstat(self._descriptor).st_mode
        except (AttributeError, OSError, ValueError) as error:  # None, no real file, or closed
            raise SourceError("There is no standard input to read: it is closed, or no real file.") from error
        self._may_wait = stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind) or os.isatty(self._descriptor)

    async def blocks(self) -> AsyncGenerator[bytes, None]:
        """Reads to the end. Cancelling leaves no thread behind that waits for input. See `ports.Source`."""
        text: GzipText | None = None
        while stored := await self._read():
            if self.position_bytes == 0:
                if stored == _GZIP[:1]:  # a pipe may begin with a single byte
                    stored += await self._read()
                text = _unpacker("Standard input", stored)
            self.position_bytes += len(stored)
            if text is None:
                yield stored
            else:
                async for block in _unpacked(text, stored):
                    yield block
        if text is not None:
            text.finish()

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


class GzipText:
    """Unpacks gzip piece by piece: several members, padding with zeros, in constant memory."""

    def __init__(self, name: str) -> None:
        """Starts unpacking; `name` is how messages call the source."""
        self._name = name
        self._member = zlib.decompressobj(wbits=31)
        self._begun = False
        self._stored_bytes = 0
        self._text_bytes = 0

    def start(self, stored: bytes) -> None:
        """Takes the next stored bytes; `next` then gives their text."""
        self._stored_bytes += len(stored)
        self._pending = stored

    def next(self) -> bytes:
        """Gives the next piece of text, at most a block; nothing when more stored bytes are needed.

        Raises:
            SourceError: the data is damaged, followed by something else, or unpacks out of all proportion.
        """
        while self._pending:
            if self._member.eof:
                self._pending = self._pending.lstrip(b"\x00")
                if not self._pending:
                    break
                self._member = zlib.decompressobj(wbits=31)
                self._begun = False
            try:
                text = self._member.decompress(self._pending, _BLOCK_BYTES)
            except zlib.error as error:
                raise SourceError(
                    f"{self._name}: the gzip data is damaged near byte {self._stored_bytes} ({error}). The ids "
                    f"before it stay valid; repair the file and give the same command again."
                ) from error
            self._begun = True
            self._pending = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            if text:
                self._count(len(text))
                return text
        return b""

    def finish(self) -> None:
        """Checks that the data did not stop in the middle.

        Raises:
            SourceError: it did.
        """
        if self._begun and not self._member.eof:
            raise SourceError(
                f"{self._name}: the gzip data ends early, after {self._stored_bytes} bytes "
                f"({self._text_bytes} bytes of text). The ids before that stay valid; get the whole file and "
                f"give the same command again."
            )

    def _count(self, text_bytes: int) -> None:
        self._text_bytes += text_bytes
        if self._text_bytes > max(_BOMB_BYTES, _BOMB_RATIO * self._stored_bytes):
            raise SourceError(
                f"{self._name}: {self._stored_bytes} bytes unpack to more than {self._text_bytes}: this is no "
                f"list of ids. If it is, unpack it and give the text file."
            )


def _unpacker(name: str, beginning: bytes) -> GzipText | None:
    """Tells by its first bytes what a source is: gzip, text (None), or something that holds no text.

    Raises:
        SourceError: it is a file of a kind that is not read here.
    """
    for signature, kind in _NO_TEXT.items():
        if beginning.startswith(signature):
            raise SourceError(f"{name} is {kind}, not text. Give its ids as text, plain or gzip.")
    return GzipText(name) if beginning.startswith(_GZIP) else None


def _close_opened(opening: asyncio.Future[BinaryIO]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


async def _unpacked(text: GzipText, stored: bytes) -> AsyncGenerator[bytes, None]:
    text.start(stored)
    while block := await asyncio.to_thread(text.next):
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
