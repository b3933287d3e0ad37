"""Job records to whoever iterates over them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from bulkjobs.channel import Channel, ChannelClosed
from bulkjobs.errors import SinkError
from bulkjobs.model import JobRecord

__all__ = ["LoopLeft", "StreamSink"]


class LoopLeft(SinkError):  # noqa: N818 - a condition, not a fault
    """Says that nobody iterates any more. What was not dealt with is handed out again in the next session."""


class StreamSink:
    """Hands records to an `async for` loop. Implements `ports.Sink`.

    A record counts as delivered when the loop comes back for the next one; after a crash before that it is
    handed out again.
    """

    name = "stream"

    def __init__(self) -> None:
        """Makes a stream that nobody reads yet."""
        self._channel: Channel[JobRecord] = Channel(1)
        self._taken = asyncio.Semaphore(0)
        self._left = False

    async def open(self, position: int | None, coming: Sequence[JobRecord] = ()) -> None:
        """Has nothing to prepare."""
        del position, coming

    async def write(self, records: Sequence[JobRecord]) -> None:
        """Hands out one record after the other, each when the one before was dealt with."""
        for record in records:
            try:
                await self._channel.send(record)
            except ChannelClosed:
                raise _nobody(record) from None
            await self._taken.acquire()
            if self._left:
                raise _nobody(record)

    async def close(self) -> None:
        """Has nothing to let go of; `end` ends the loop."""

    def end(self) -> None:
        """Ends the loop after the records that are there."""
        self._channel.close()

    def leave(self) -> None:
        """Says that the loop was left: what was not dealt with stays undelivered."""
        self._left = True
        self._channel.abort()
        self._taken.release()

    async def __aiter__(self) -> AsyncIterator[JobRecord]:
        async for record in self._channel:
            yield record
            self._taken.release()


def _nobody(record: JobRecord) -> LoopLeft:
    return LoopLeft(f"Nobody takes the record of chunk {record.chunk} and what follows: the loop was left.")
