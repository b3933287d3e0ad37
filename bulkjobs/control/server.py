"""The server of a control socket. Whatever comes in on it is bounded, and none of it disturbs the run.

One connection is one request: a line comes in, an answer goes out, the connection ends. Commands are carried out one
after the other, by the one task that runs `serve`. What a connection may cost is a line's length of memory and ten
seconds until the line is there; of too many connections the latest are closed unheard.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Final, cast

from bulkjobs.control.protocol import (
    MAX_LINE_BYTES,
    Answer,
    Command,
    ProtocolError,
    Refusal,
    answer_line,
    read_request,
)
from bulkjobs.control.sockets import Listener, listen, origin_of
from bulkjobs.events import ControlMissing, Event

__all__ = ["Obey", "serve", "under_control"]

_MOST_CONNECTIONS: Final = 16
_PATIENCE_S: Final = 10.0

Obey = Callable[[Command, str], Awaitable[Answer]]
"""Carries a command out, which somebody gave, and gives the answer."""


async def under_control(
    run_dir: Path, obey: Obey, work: Callable[[], Awaitable[None]], *, emit: Callable[[Event], None]
) -> None:
    """Does a session's work, and takes commands for it meanwhile.

    Args:
        run_dir: where the socket is.
        obey: carries a command out.
        work: what is done. Its exception comes in a group.
        emit: told once if there can be no such socket.
    """
    try:
        listener = listen(run_dir)
    except OSError as error:
        emit(ControlMissing(reason=f"there can be no socket in {run_dir}: {error.strerror or error}"))
        await work()
        return
    with closing(listener):
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(serve(listener, obey))
            try:
                await work()
            finally:
                serving.cancel()


async def serve(listener: Listener, obey: Obey) -> None:
    """Takes commands until it is cancelled. The listener stays the caller's."""
    desk = _Desk()
    server = await asyncio.get_running_loop().create_unix_server(
        lambda: _Connection(desk), sock=listener.sock
    )
    try:
        while True:
            connection, command = await desk.requests.get()
            connection.answer(await obey(command, connection.origin))
    finally:
        server.close()
        desk.is_closed = True  # one may have been accepted and not be made yet
        for connection in list(desk.connections):
            connection.leave()


class _Desk:
    """Holds the connections there are, and their requests in the order in which they came."""

    def __init__(self) -> None:
        self.connections: set[_Connection] = set()
        self.is_closed = False
        # Bounded by the connections, each of which makes one request.
        self.requests: asyncio.Queue[tuple[_Connection, Command]] = asyncio.Queue()


class _Connection(asyncio.Protocol):
    """Takes one line and gives one answer."""

    def __init__(self, desk: _Desk) -> None:
        self._desk = desk
        self._received = b""
        self._asked = False
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self.origin = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if self._desk.is_closed or len(self._desk.connections) >= _MOST_CONNECTIONS:
            self._transport.abort()
            return
        self._desk.connections.add(self)
        self._hurry()
        self.origin, allowed = origin_of(self._transport.get_extra_info("socket").fileno())
        if not allowed:
            self.answer(Refusal("refused", "Only the user whose run this is may control it."))

    def data_received(self, data: bytes) -> None:
        if self._asked:
            return  # it has had its line
        self._received += data[: MAX_LINE_BYTES + 1]
        line, end, _ = self._received.partition(b"\n")
        if end and len(line) < MAX_LINE_BYTES:
            self._take(line)
        elif len(self._received) >= MAX_LINE_BYTES:
            self._unreadable(f"The line has more than {MAX_LINE_BYTES} bytes.")

    def eof_received(self) -> bool:
        if not self._asked:
            self._unreadable("The connection ended before the line did.")
        return True  # whoever has nothing more to say may still listen

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - how it was lost does not matter
        self._desk.connections.discard(self)
        self._wait()

    def _take(self, line: bytes) -> None:
        try:
            command = read_request(line)
        except ProtocolError as error:
            self._unreadable(str(error))
            return
        self._asked = True
        self._wait()
        if self._transport is not None:
            self._transport.pause_reading()
        self._desk.requests.put_nowait((self, command))

    def _unreadable(self, reason: str) -> None:
        self.answer(Refusal("unreadable", reason))

    def answer(self, answer: Answer) -> None:
        """Sends the answer, if anybody is there, and ends the connection."""
        self._asked = True
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.write(answer_line(answer))
        self._transport.close()
        self._hurry()  # for whoever does not read it

    def leave(self) -> None:
        """Ends the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def _hurry(self) -> None:
        self._wait()
        self._deadline = asyncio.get_running_loop().call_later(_PATIENCE_S, self.leave)

    def _wait(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
