"""One request on its way through the proxy, and the verbs that faults are written in."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from random import Random
from typing import Literal

from support.faults.stream import BLOCK_BYTES, CLEAN, Cut, Ending, Message, Side

__all__ = ["Connection", "Exchange", "Fault", "Moment", "Seen", "Stage", "stall"]


@dataclass(slots=True)
class Seen:
    """Is what the proxy saw of one request. It fills up as the request goes on."""

    number: int
    """From 1, over all connections and methods."""
    post: int
    """From 1 among the POSTs; 0 for other methods."""
    connection: int
    method: str
    target: str
    head: bytes = field(repr=False)
    length: int
    """What the head announces."""
    body: bytearray = field(default_factory=bytearray, repr=False)
    """What arrived of the body and was read."""
    fault: str | None = None
    forwarded: bool = False
    """The upstream got every byte of it."""
    status: int | None = None
    """What the upstream answered, delivered or not."""
    delivered_bytes: int = 0
    """Bytes that were sent back to the client, of head and body."""

    @property
    def digest(self) -> str:
        """Is the SHA-256 of what arrived of the body."""
        return hashlib.sha256(self.body).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """Is a place in a POST at which a test is called, while the proxy holds everything still."""

    where: Literal["body", "answer"]
    at_bytes: int
    post: int
    call: Callable[[], Awaitable[object] | object]
    cut: bool
    """After the call nothing more passes, in either direction."""


class Stage(Enum):
    """Is when a fault strikes."""

    CONNECT = auto()
    """When a connection was accepted and nothing was read. It may end there, or go on with toxics."""
    REQUEST = auto()
    """When the head of a request was read."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Is one thing that goes wrong, as a small script."""

    name: str
    play: Callable[[Exchange], Awaitable[None]] = field(compare=False, repr=False)
    stage: Stage = Stage.REQUEST


class Connection:
    """Is a client's connection and, once it is needed, the one to the upstream that belongs to it."""

    def __init__(self, client: Side, upstream: tuple[str, int] | None, random: Random) -> None:
        self.client = client
        self.server: Side | None = None
        self.toxic_to_server = CLEAN
        self._upstream = upstream
        self._random = random

    async def reach_server(self) -> Side:
        """Gives the side of the upstream.

        Raises:
            ConnectionError: it takes no connection.
        """
        if self.server is None or self.server.over:
            assert self._upstream is not None, "this proxy has no upstream, and the fault needs one"
            self.leave_server()
            streams = await asyncio.open_connection(*self._upstream)
            self.server = Side(*streams, random=self._random, toxic=self.toxic_to_server)
        return self.server

    def leave_server(self) -> None:
        """Closes the connection to the upstream, if there is one."""
        if self.server is not None:
            self.server.close()


class Exchange:
    """Offers the verbs. A fault that returns without having ended the connection keeps it for another request."""

    def __init__(
        self,
        connection: Connection,
        *,
        answers: list[Message],
        moments: list[Moment],
        seen: Seen | None = None,
    ) -> None:
        self.connection = connection
        self.client = connection.client
        self._answers = answers
        self._moments = moments
        self._seen = seen

    @property
    def seen(self) -> Seen:
        """Is the request; there is none yet when a connection was only just accepted."""
        assert self._seen is not None, "no request has come yet"
        return self._seen

    @property
    def unread_bytes(self) -> int:
        """Is how much of the request's body nobody has read yet."""
        return 0 if self._seen is None else self._seen.length - len(self._seen.body)

    @property
    def answers(self) -> Sequence[Message]:
        """Holds the upstream's answers to requests before, oldest first."""
        return self._answers

    async def read_body(self, most: int | None = None) -> None:
        """Reads the request's body, or so much of it, and passes nothing on."""
        end = self.seen.length if most is None else min(self.seen.length, most)
        while len(self.seen.body) < end:
            await self._read_block(end)

    async def ask(self, *, made: bool = True) -> Message:
        """Passes the request on and gives the upstream's answer. Without `made` it only reads the request."""
        if not made:
            await self.read_body()
            return Message(head=b"", body=b"", ending=Ending(whole=False))
        server = await self.connection.reach_server()
        taken = await _put(server, self.seen.head)
        await self._reach("body", 0)
        while self.unread_bytes and taken:
            places = [one.at_bytes for one in self._due("body") if one.at_bytes > len(self.seen.body)]
            block = await self._read_block(min([self.seen.length, *places]))
            taken = await _put(server, block)
            await self._reach("body", len(self.seen.body))
        self.seen.forwarded = taken
        answer = await server.read_answer()  # which also shows if the upstream has read no further
        self.seen.status = answer.status
        if answer.ending.whole:
            self._answers.append(answer)
        return answer

    async def pass_on(self) -> None:
        """Does what a proxy does when nothing is wrong: the upstream's ways of ending are passed on too."""
        answer = await self.ask()
        await self.send(answer.raw)
        if answer.ending.reset:
            self.client.reset()
        elif not answer.ending.whole or b"\r\nconnection: close" in answer.head.lower():
            await self.client.finish()

    async def send(self, data: bytes) -> None:
        """Sends bytes to the client, in pieces if a test waits for a place in them."""
        start = self.seen.delivered_bytes if self._seen is not None else 0
        places = sorted(
            {one.at_bytes - start for one in self._due("answer") if 0 <= one.at_bytes - start <= len(data)}
        )
        position = 0
        for place in [*places, len(data)]:
            if place > position:
                await self._deliver(data[position:place])
                position = place
            await self._reach("answer", start + place)

    async def end(self) -> None:
        """Closes in order what was sent and waits for the client to do the same."""
        await self.client.finish()
        await self.client.wait_until_gone()

    async def _deliver(self, data: bytes) -> None:
        if self._seen is not None:
            self._seen.delivered_bytes += len(data)
        await self.client.write(data)

    async def _read_block(self, end: int) -> bytes:
        block = await self.client.read(min(end - len(self.seen.body), BLOCK_BYTES))
        if not block:
            raise ConnectionResetError("the client ended within the body")
        self.seen.body += block
        return block

    def _due(self, where: str) -> list[Moment]:
        if self._seen is None or not self._seen.post:
            return []
        return [one for one in self._moments if one.where == where and one.post == self._seen.post]

    async def _reach(self, where: str, at_bytes: int) -> None:
        for moment in self._due(where):
            if moment.at_bytes == at_bytes:
                self._moments.remove(moment)
                called = moment.call()
                if inspect.isawaitable(called):
                    await called
                if moment.cut:
                    raise Cut


async def stall() -> None:
    """Does nothing, not even reading, until the proxy is closed."""
    await asyncio.Event().wait()


async def _put(server: Side, data: bytes) -> bool:
    """Writes to the upstream, and tells whether it took it."""
    try:
        await server.write(data)
    except ConnectionError:
        return False
    return True
