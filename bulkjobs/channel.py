"""A bounded, closable hand-over between tasks.

asyncio.Queue has neither end nor refusal on Python 3.11. Here the producer closes and the consumers' loops
end; or somebody aborts, what waits is dropped, and both sides end. Capacity is a required argument.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

__all__ = ["Channel", "ChannelClosed"]

T = TypeVar("T")


class ChannelClosed(Exception):  # noqa: N818 - it says what is the case, like StopAsyncIteration
    """Says to a producer that nobody will take what it sends."""


class Channel(Generic[T]):
    """Hands items from producers to consumers in order, each to one consumer.

    Cancelling a `send` or a `receive` loses nothing: the item is either handed over or still there.
    """

    def __init__(self, capacity: int) -> None:
        """Makes an open channel that holds up to `capacity` items."""
        self._capacity = capacity
        self._items: deque[T] = deque()
        self._closed = False
        self._changed: deque[asyncio.Future[None]] = deque()

    def __len__(self) -> int:
        return len(self._items)

    async def send(self, item: T) -> None:
        """Puts an item in; waits while the channel is full.

        Raises:
            ChannelClosed: the channel was closed or aborted.
        """
        await self.room()
        self.put(item)

    async def room(self) -> None:
        """Waits while the channel is full and open."""
        while len(self._items) >= self._capacity and not self._closed:
            await self._wait()

    def put(self, item: T) -> None:
        """Puts an item in at once, also into a full channel: for what must not be lost when a wait is cancelled.

        Raises:
            ChannelClosed: the channel was closed or aborted.
        """
        if self._closed:
            raise ChannelClosed
        self._items.append(item)
        self._wake()

    def receive_waiting(self) -> list[T]:
        """Takes out everything that waits, without waiting itself."""
        items = list(self._items)
        self._items.clear()
        self._wake()
        return items

    def close(self) -> None:
        """Ends sending. Consumers still get what is there."""
        self._closed = True
        self._wake()

    def abort(self) -> None:
        """Ends the channel at once and drops what is there."""
        self._items.clear()
        self.close()

    def __aiter__(self) -> Channel[T]:
        return self

    async def __anext__(self) -> T:
        while not self._items:
            if self._closed:
                raise StopAsyncIteration
            await self._wait()
        item = self._items.popleft()
        self._wake()
        return item

    async def _wait(self) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._changed.append(future)
        await future

    def _wake(self) -> None:
        # Everyone looks again. There are at most as many waiters as workers, and a look costs a microsecond;
        # in exchange no wake-up can be lost with a cancelled task.
        while self._changed:
            future = self._changed.popleft()
            if not future.done():
                future.set_result(None)
