"""The life of a job record: from the ledger to every sink, and the mark that it got there.

Order is all that matters here. A record goes out only after the ledger holds its job; the ledger calls it
delivered, together with the new position of each sink, only after every sink has it. A crash in between
repeats the write, which a sink with a position undoes first.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Final

from bulkjobs.channel import Channel
from bulkjobs.errors import SinkError
from bulkjobs.ledger import Ledger
from bulkjobs.model import JobRecord
from bulkjobs.ports import Sink

__all__ = ["Delivery"]

_BACKLOG_RECORDS: Final = 1_000
_GATHER_S: Final = 0.02
"""Between two groups: each costs a sync of every sink and a place in a commit of the ledger."""


class Delivery:
    """Hands job records to the sinks in groups: what came in while the last group was written is the next one."""

    def __init__(
        self, ledger: Ledger, sinks: Sequence[Sink], *, on_failure: Callable[[SinkError], None]
    ) -> None:
        """Makes the stage.

        Args:
            ledger: where the records come from and their delivery is noted.
            sinks: all of them get each record.
            on_failure: told once when a sink does not take records. They stay in the ledger, undelivered.
        """
        self._ledger = ledger
        self._sinks = sinks
        self._on_failure = on_failure
        self._failed = False

    async def open(self) -> None:
        """Opens the sinks where the ledger knows they stood, and hands on what an earlier session left.

        Raises:
            SinkError: a sink cannot be opened or does not take the backlog.
        """
        known = await self._ledger.sink_positions()
        coming = [record async for page in self._backlog() for record in page]
        now = {sink.name: await sink.open(known.get(sink.name), coming) for sink in self._sinks}
        # A sink that is new to the run begins where it stands: noted before anything is written behind it.
        await self._ledger.deliver([], now)
        await self.hand_on_backlog()

    async def run(self, records: Channel[JobRecord]) -> None:
        """Hands on what comes through the channel until it ends."""
        try:
            async for record in records:
                await self._write([record, *records.receive_waiting()])
                await asyncio.sleep(_GATHER_S)
            await self.hand_on_backlog()  # what a worker that was cancelled could not hand on itself
        except SinkError as error:
            self._failed = True
            self._on_failure(error)
            async for _ in records:
                continue  # answers in flight still pass through here; the ledger keeps them for the next session

    async def close(self) -> None:
        """Closes the sinks, all of them also when closing one fails."""
        async with AsyncExitStack() as stack:
            for sink in self._sinks:
                stack.push_async_callback(sink.close)

    async def hand_on_backlog(self) -> None:
        """Hands on what the ledger knows to be accepted and not delivered.

        Raises:
            SinkError: a sink does not take it.
        """
        if self._failed:
            return  # what a sink took of the last group is not known: only opening it again takes that back
        async for backlog in self._backlog():
            await self._write(backlog)

    async def _backlog(self) -> AsyncIterator[list[JobRecord]]:
        after = 0
        while backlog := await self._ledger.undelivered(after, _BACKLOG_RECORDS):
            yield backlog
            after = backlog[-1].chunk

    async def _write(self, records: Sequence[JobRecord]) -> None:
        positions = {sink.name: await sink.write(records) for sink in self._sinks}
        await self._ledger.deliver([record.chunk for record in records], positions)
