"""One side of a proxied connection: bytes with toxics and counts, and just enough HTTP to tell messages apart."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from dataclasses import dataclass
from random import Random
from typing import Final

__all__ = ["BLOCK_BYTES", "CLEAN", "Cut", "Ending", "Message", "Side", "Toxic", "content_length"]

BLOCK_BYTES: Final = 16 * 1024
_MAX_HEAD_BYTES: Final = 64 * 1024
# The on switch and no seconds to linger: closing throws away what is unsent and sends RST.
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


class Cut(Exception):  # noqa: N818 - it is what was asked for, not an error
    """Ends both sides of a connection, because a toxic or a test wants it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Toxic:
    """Is what the bytes in one direction suffer; the names are those of toxiproxy."""

    latency_s: float = 0.0
    """Each block comes that much later."""
    jitter_s: float = 0.0
    """Up to so much more, drawn for each block."""
    bandwidth_bytes_per_s: float | None = None
    slicer_bytes: int | None = None
    """Blocks are cut into pieces of this size, each a segment of its own."""
    slicer_delay_s: float = 0.0
    limit_data_bytes: int | None = None
    """After so many bytes the connection is closed in order, in both directions."""
    slow_close_s: float = 0.0
    """The end of the connection comes that much later."""
    timeout_s: float | None = None
    """No byte passes, and after that time the connection is closed; 0 keeps it open for ever."""
    reset_peer_s: float | None = None
    """The first byte passes, and after that time the connection is reset."""


CLEAN: Final = Toxic()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """Is how a message ended."""

    whole: bool
    reset: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """Is an answer as it stood on the wire."""

    head: bytes
    body: bytes
    ending: Ending

    @property
    def raw(self) -> bytes:
        """Is head and body."""
        return self.head + self.body

    @property
    def status(self) -> int | None:
        """Is the number in the status line, or None if there is none."""
        parts = self.head.split(b" ", 2)
        return int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else None


class Side:
    """Is one end of a proxied connection. What is written to it passes through its toxic."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        random: Random,
        toxic: Toxic = CLEAN,
    ) -> None:
        self._reader, self._writer, self._random = reader, writer, random
        self.toxic = toxic
        self.read_bytes = 0
        self.written_bytes = 0
        self.over = False
        """No more is to be read or written."""

    async def read_head(self) -> bytes | None:
        """Reads a message's head, or gives None if the peer ended before its first byte.

        Raises:
            ConnectionError: it ended within the head, or the head is too long.
        """
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            self.read_bytes += len(error.partial)
            if not error.partial:
                return None
            raise ConnectionResetError("the peer ended within a head") from None
        except asyncio.LimitOverrunError:
            raise ConnectionResetError("the head is too long") from None
        self.read_bytes += len(head)
        return head

    async def read(self, most: int = BLOCK_BYTES) -> bytes:
        """Reads what is there, at most so much; nothing means the end."""
        block = await self._reader.read(most)
        self.read_bytes += len(block)
        return block

    async def read_answer(self) -> Message:
        """Reads a whole answer, interim ones left out, and tells how it ended. Never raises for the peer's ways."""
        head, body = b"", bytearray()
        try:
            while True:
                found = await self.read_head()
                if found is None:
                    return Message(head=b"", body=b"", ending=Ending(whole=False))
                head = found
                if not head.startswith((b"HTTP/1.1 1", b"HTTP/1.0 1")):
                    break
            whole = await self._read_body(head, body)
            self.over |= b"\r\nconnection: close" in head.lower()
        except ConnectionError:
            return Message(head=head, body=bytes(body), ending=Ending(whole=False, reset=True))
        return Message(head=head, body=bytes(body), ending=Ending(whole=whole))

    async def _read_body(self, head: bytes, body: bytearray) -> bool:
        length = content_length(head)
        chunked = b"transfer-encoding: chunked" in head.lower()
        if length is None and not chunked:
            while block := await self.read():
                body += block
            self.over = True
            return True
        while (length is None and not body.endswith(b"0\r\n\r\n")) or (
            length is not None and len(body) < length
        ):
            block = await self.read(BLOCK_BYTES if length is None else length - len(body))
            if not block:
                self.over = True
                return False
            body += block
        return True

    async def write(self, data: bytes) -> None:
        """Writes bytes as the toxic has it, and returns when they were handed to the system.

        Raises:
            ConnectionError: the peer is gone.
            Cut: the toxic ends the connection.
        """
        toxic = self.toxic
        if toxic.timeout_s is not None:
            await (asyncio.sleep(toxic.timeout_s) if toxic.timeout_s else asyncio.Event().wait())
            raise Cut
        if toxic.latency_s or toxic.jitter_s:
            await asyncio.sleep(toxic.latency_s + toxic.jitter_s * self._random.random())
        rest = memoryview(data)
        if toxic.limit_data_bytes is not None:
            rest = rest[: max(0, toxic.limit_data_bytes - self.written_bytes)]
        piece = toxic.slicer_bytes or len(data) or 1
        while rest:
            await self._put(bytes(rest[:piece]))
            rest = rest[piece:]
        if toxic.limit_data_bytes is not None and self.written_bytes >= toxic.limit_data_bytes:
            raise Cut
        if toxic.reset_peer_s is not None:
            await asyncio.sleep(toxic.reset_peer_s)
            self.reset()
            raise Cut

    async def _put(self, data: bytes) -> None:
        toxic = self.toxic
        if self._writer.is_closing():
            raise ConnectionResetError("the peer is gone")
        self._writer.write(data)
        self.written_bytes += len(data)
        await self._writer.drain()
        if toxic.bandwidth_bytes_per_s:
            await asyncio.sleep(len(data) / toxic.bandwidth_bytes_per_s)
        if toxic.slicer_bytes:
            await asyncio.sleep(toxic.slicer_delay_s)

    async def wait_until_gone(self) -> None:
        """Reads and drops what comes until the peer ends the connection."""
        with contextlib.suppress(ConnectionError):
            while await self.read():
                pass

    def reset(self) -> None:
        """Ends the connection with a RST."""
        self.over = True
        sock = self._writer.get_extra_info("socket")
        if sock is not None and sock.fileno() >= 0:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._writer.transport.abort()

    async def finish(self) -> None:
        """Sends a FIN and leaves the other direction open, so that what the peer still sends is not met by a RST.

        TLS has no half-closed connections: there both directions end.
        """
        await self.linger()
        self.over = True
        if not self._writer.can_write_eof():
            self._writer.close()
            return
        with contextlib.suppress(OSError):
            self._writer.write_eof()

    async def linger(self) -> None:
        """Waits as long as the toxic wants the end of the connection delayed."""
        if self.toxic.slow_close_s and not self.over:
            await asyncio.sleep(self.toxic.slow_close_s)

    def close(self) -> None:
        """Ends the connection; a RST goes out if the peer sent what nobody read."""
        self.over = True
        self._writer.close()


def content_length(head: bytes) -> int | None:
    """Reads the length out of a head, or gives None when it names none."""
    _, found, rest = head.lower().partition(b"\r\ncontent-length:")
    return int(rest.split(b"\r\n", 1)[0]) if found else None
