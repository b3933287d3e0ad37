"""Tells before the first submission whether the quota lasts: asks the server once, the ledger, and the sources.

Nothing here ends a run. What cannot be read is told, and the run goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Final

from bulkjobs.account.listing import JobReader, Unreadable
from bulkjobs.endpoints import Endpoint
from bulkjobs.errors import SourceError
from bulkjobs.events import Event, QuotaRead, QuotaUnknown
from bulkjobs.ledger import Ledger, summarise
from bulkjobs.planning import Forecast, Sample, others_allowance, still_undebited_since
from bulkjobs.ports import Clock, Source
from bulkjobs.settings import Settings

__all__ = ["Forecaster"]

_SAMPLES: Final = 8
"""Sources that are looked into; the others are taken to be like them."""
_MOST_BLOCKS: Final = 64
"""Of one source. Its first read of 256 KiB is at most so much text; if it is more, that is no list of ids."""


class Forecaster:
    """Compares what is left of the quota with what a run still needs."""

    def __init__(self, settings: Settings, endpoint: Endpoint, reader: JobReader, ledger: Ledger) -> None:
        """Makes a forecaster."""
        self._settings = settings
        self._endpoint = endpoint
        self._reader = reader
        self._ledger = ledger

    async def run(self, sources: Sequence[Source], clock: Clock, emit: Callable[[Event], None]) -> None:
        """Makes the forecast and tells it; asks nothing when there is nothing to send.

        Args:
            sources: of the run.
            clock: wall clock.
            emit: told what came of it.

        Raises:
            AuthError: there is no token.
            ConfigError: the token file cannot be read.
        """
        needed, exact = await self._needed(sources)
        if needed == 0:
            return
        usage = await self._reader.usage()
        if isinstance(usage, Unreadable):
            emit(QuotaUnknown(reason=usage.reason))
            return
        undebited = await self._ledger.undebited_ids(*still_undebited_since(clock.utc()))
        allowance = others_allowance(
            exclusive=self._settings.exclusive,
            slots=self._settings.max_active_jobs,
            most_ids=self._endpoint.max_ids,
        )
        forecast = Forecast(
            allocated=usage.allocated,
            consumed=usage.consumed,
            undebited=undebited,
            allowance=allowance,
            needed=needed,
            exact=exact,
        )
        emit(
            QuotaRead(
                allocated=forecast.allocated,
                consumed=forecast.consumed,
                undebited=forecast.undebited,
                allowance=forecast.allowance,
                left=forecast.left,
                needed=forecast.needed,
                exact=forecast.exact,
                fits=forecast.fits,
            )
        )

    async def _needed(self, sources: Sequence[Source]) -> tuple[int | None, bool]:
        """Gives the ids that the run still needs, None if nobody can tell, and whether they were counted."""
        planned = await self._ledger.planned_ids()
        run = self._ledger.run
        exact = run is not None and run.source_finished
        unread = 0 if exact else await self._unread(sources)
        needed = None if unread is None else planned + unread
        if self._settings.spend_cap is not None:
            may = max(0, self._settings.spend_cap - await self._ledger.spent_ids())
            needed = may if needed is None else min(needed, may)
        return needed, exact

    async def _unread(self, sources: Sequence[Source]) -> int | None:
        """Estimates the ids that the ledger does not know yet. Of duplicates there may be as many as so far."""
        sizes = [source.size_bytes for source in sources]
        if None in sizes:
            return None
        try:
            samples = [await _sample(source) for source in sources[:_SAMPLES]]
        except SourceError:
            return None  # the intake meets the same, and says what is wrong
        in_all = sum(samples, Sample()).ids_in(sum(size or 0 for size in sizes))
        run = self._ledger.run
        if in_all is None or run is None:
            return None
        ids = summarise(run, await self._ledger.counts(), 0).ids
        unread = max(0, in_all - ids["read"])
        useless = ids["invalid"] + ids["duplicate"]
        return round(unread * (1 - useless / ids["read"])) if ids["read"] else unread


async def _sample(source: Source) -> Sample:
    """Counts the ids in what a source stores in its first bytes; none of them is kept."""
    ids = stored_bytes = 0
    async with aclosing(source.blocks()) as blocks:
        read = 0
        async for block in blocks:
            stored_bytes = stored_bytes or source.position_bytes
            if source.position_bytes > stored_bytes or read == _MOST_BLOCKS:
                break  # what is packed gives several blocks of text for one that is stored
            ids += await asyncio.to_thread(_count, block)
            read += 1
    return Sample(ids, stored_bytes)


def _count(block: bytes) -> int:
    return len(block.replace(b",", b" ").split())
