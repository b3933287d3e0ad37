"""A TCP proxy on the loopback between a client and a service, which does harm as planned and tells what it saw.

    async with FaultProxy(server.origin, Plan(posts={2: FAULTS["reset_before_answer"]})) as proxy:
        ...                                # the client talks to proxy.through(server.base_url)
    assert proxy.posts[1].forwarded

Without an upstream it can only play faults that need none: `answering(…)`, those called `_lost`, those of a connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from random import Random
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit, urlunsplit

from support.faults.exchange import Connection, Exchange, Moment, Seen
from support.faults.plan import Plan
from support.faults.stream import Cut, Message, Side, content_length

__all__ = ["FaultProxy"]

_LIMIT_BYTES = 64 * 1024


class FaultProxy:
    """Runs for as long as the `async with` block lasts. Leaving ends every connection."""

    def __init__(
        self,
        upstream: str | None = None,
        plan: Plan | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        port: int = 0,
        receive_buffer_bytes: int | None = None,
    ) -> None:
        """Makes a proxy.

        Args:
            upstream: origin of the service, `http://host:port`; None for a proxy that answers everything itself.
            plan: what goes wrong. It can be replaced at any time, as `proxy.plan = Plan()`.
            tls: a server's context: the proxy speaks TLS to the client and plain HTTP to the upstream.
            port: to listen on; 0 takes a free one.
            receive_buffer_bytes: of the system, for each connection; small, a client notices that nobody reads.
        """
        self.plan = plan or Plan()
        self.requests: list[Seen] = []
        """Every request whose head arrived, in order."""
        self.connections = 0
        """How many were accepted."""
        self.client_bytes = self.server_bytes = 0
        """What came from the client and from the upstream, over all connections that are over."""
        self.errors: list[BaseException] = []
        """What went wrong in the proxy itself; empty in a sound test."""
        self._upstream = None if upstream is None else _address(upstream)
        self._tls = tls
        self._port = port
        self._receive_buffer_bytes = receive_buffer_bytes
        self._moments: list[Moment] = []
        self._answers: list[Message] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # Where it is

    @property
    def origin(self) -> str:
        """Is the address with the port that was taken."""
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self._port}"

    def through(self, url: str) -> str:
        """Gives an address of the upstream as one that leads through the proxy."""
        ours = urlsplit(self.origin)
        return urlunsplit(urlsplit(url)._replace(scheme=ours.scheme, netloc=ours.netloc))

    @contextlib.asynccontextmanager
    async def refusing(self) -> AsyncIterator[None]:
        """Refuses new connections for as long as the block lasts; those that stand go on."""
        assert self._server is not None
        self._server.close()
        self._server = None
        try:
            yield
        finally:
            await self._listen()

    # What it saw

    @property
    def answers(self) -> Sequence[Message]:
        """Holds the upstream's whole answers, in order, delivered or not."""
        return self._answers

    @property
    def posts(self) -> list[Seen]:
        """Holds the POSTs whose head arrived, in order."""
        return [seen for seen in self.requests if seen.post]

    async def accepted(self, connections: int = 1) -> None:
        """Waits until so many connections were accepted."""
        while self.connections < connections:
            await self._news.wait()

    async def seen(self, requests: int = 1) -> None:
        """Waits until the heads of so many requests have arrived."""
        while len(self.requests) < requests:
            await self._news.wait()

    async def quiet(self) -> None:
        """Waits until no connection is left."""
        while self._tasks:
            await self._news.wait()

    # Whom it calls

    def when_body_passed(
        self,
        at_bytes: int,
        call: Callable[[], Awaitable[object] | object],
        *,
        post: int = 1,
        cut: bool = False,
    ) -> None:
        """Calls when so many bytes of a POST's body were passed on to the upstream, and no more.

        Args:
            at_bytes: 0 for the moment when the head was passed on; the body's length for its end.
            call: called once, and awaited if that makes sense; meanwhile nothing moves.
            post: which POST, from 1.
            cut: both sides are closed after the call. Without it, what the client has handed to its system still
                passes, even if the client was killed in the call.
        """
        self._moments.append(Moment(where="body", at_bytes=at_bytes, post=post, call=call, cut=cut))

    def when_answer_passed(
        self,
        at_bytes: int,
        call: Callable[[], Awaitable[object] | object],
        *,
        post: int = 1,
        cut: bool = False,
    ) -> None:
        """Calls when the upstream has answered a POST and so many bytes of that were sent on, and no more.

        Args:
            at_bytes: counted over head and body; 0 for the moment before the first.
            call: as in `when_body_passed`.
            post: which POST, from 1.
            cut: both sides are closed after the call.
        """
        self._moments.append(Moment(where="answer", at_bytes=at_bytes, post=post, call=call, cut=cut))

    # How it works

    async def _listen(self) -> None:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self._receive_buffer_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer_bytes)
        sock.bind(("127.0.0.1", self._port))
        self._port = sock.getsockname()[1]
        self._server = await asyncio.start_server(self._accept, sock=sock, limit=_LIMIT_BYTES, ssl=self._tls)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self._tell()
        number = self.connections
        random = Random(f"{self.plan.seed}/jitter/{number}")
        connection = Connection(Side(reader, writer, random=random), self._upstream, random)
        try:
            await self._serve(connection, number)
            await connection.client.linger()
        except (ConnectionError, ssl.SSLError, Cut, asyncio.CancelledError):
            pass  # the peer is gone, or has to go
        except Exception as error:  # noqa: BLE001 - the test shall see it, not the loop's log
            self.errors.append(error)
        finally:
            connection.client.close()
            connection.leave_server()
            self.client_bytes += connection.client.read_bytes
            self.server_bytes += connection.server.read_bytes if connection.server else 0
            self._tasks.discard(task)
            self._tell()

    async def _serve(self, connection: Connection, number: int) -> None:
        client = connection.client
        if fault := self.plan.at_connection(number):
            exchange = self._exchange(connection, None)
            await fault.play(exchange)
        while not client.over:
            head = await client.read_head()
            if head is None:
                return
            seen = self._note(head, number)
            exchange = self._exchange(connection, seen)
            if fault := self.plan.at_request(seen):
                seen.fault = fault.name
                await fault.play(exchange)
            else:
                await exchange.pass_on()
            if exchange.unread_bytes:
                return  # what comes next is no head

    def _note(self, head: bytes, connection: int) -> Seen:
        method, target = head.split(b" ", 2)[:2]
        is_post = method == b"POST"
        seen = Seen(
            number=len(self.requests) + 1,
            post=len(self.posts) + 1 if is_post else 0,
            connection=connection,
            method=method.decode("latin-1"),
            target=target.decode("latin-1"),
            head=head,
            length=content_length(head) or 0,
        )
        self.requests.append(seen)
        self._tell()
        return seen

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def _exchange(self, connection: Connection, seen: Seen | None) -> Exchange:
        return Exchange(connection, answers=self._answers, moments=self._moments, seen=seen)


def _address(origin: str) -> tuple[str, int]:
    parts = urlsplit(origin)
    assert parts.hostname is not None, origin
    assert parts.port is not None, origin
    return parts.hostname, parts.port
