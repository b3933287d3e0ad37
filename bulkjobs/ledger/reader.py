"""What a ledger is asked, by the process that writes it. Every answer is counted or read when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence

from bulkjobs.errors import InternalError
from bulkjobs.ledger import queries, spending
from bulkjobs.ledger.durations import job_durations
from bulkjobs.ledger.values import AccountState, ChunkRow, Counts, KnownJob, RunRow, SourceRow, VerdictRow
from bulkjobs.ledger.writer import Writer
from bulkjobs.model import ChunkState, JobRecord
from bulkjobs.ports import Clock

__all__ = ["LedgerReader"]


class LedgerReader:
    """Answers from the connection of the writer, in order with what was queued before."""

    def __init__(self, writer: Writer, clock: Clock, run: RunRow | None) -> None:
        self._writer = writer
        self._clock = clock
        self._run = run
        self._session: int | None = None

    @property
    def run(self) -> RunRow | None:
        """Is what this run is; None until `create_run`."""
        return self._run

    def _known_run(self) -> RunRow:
        if self._run is None:
            raise InternalError("The ledger has no run yet.")
        return self._run

    async def sources(self) -> list[SourceRow]:
        """Gives the sources in their order."""
        return await self._writer.call(queries.sources)

    async def sink_positions(self) -> dict[str, int | None]:
        """Gives the position of each sink as `deliver` left it."""
        return await self._writer.call(queries.sink_positions)

    async def chunk_rows(self, after: int, limit: int) -> list[ChunkRow]:
        """Gives up to `limit` chunks cut from the sources, behind ordinal `after`, in order."""
        return await self._writer.call(lambda database: queries.chunk_rows(database, after, limit))

    async def parts(self, parent: int) -> list[ChunkRow]:
        """Gives the parts of a chunk that was split, in input order; parts that were split again are among them."""
        return await self._writer.call(lambda database: queries.parts(database, parent))

    async def last_planned(self) -> int:
        """Gives the last chunk, as cut from the sources, of which something is to be sent; 0 when nothing is."""
        return await self._writer.call(queries.last_planned)

    async def last_passed(self) -> int:
        """Gives the last chunk, as cut from the sources, up to which nothing has to go out again; 0 if none."""
        return await self._writer.call(queries.last_passed)

    async def last_ordinal(self, state: ChunkState) -> int:
        """Gives the ordinal of the last chunk in a state, 0 when there is none."""
        return await self._writer.call(lambda database: queries.last_ordinal(database, state))

    async def undelivered(self, after: int, limit: int) -> list[JobRecord]:
        """Gives up to `limit` records of accepted chunks behind ordinal `after` that not every sink has, in order.

        Guarantees:
            The record of a chunk is the same every time.
        """
        run = self._known_run()
        return await self._writer.call(lambda database: queries.undelivered(database, run, after, limit))

    async def held(self, after: int, limit: int) -> list[VerdictRow]:
        """Gives up to `limit` held chunks behind ordinal `after`, in order, with their evidence."""
        return await self._writer.call(
            lambda database: queries.verdict_rows(database, ChunkState.HELD, after, limit)
        )

    async def refused(self, after: int, limit: int) -> list[VerdictRow]:
        """Gives up to `limit` refused chunks behind ordinal `after`, in order, with their evidence."""
        return await self._writer.call(
            lambda database: queries.verdict_rows(database, ChunkState.REFUSED, after, limit)
        )

    async def counts(self) -> Counts:
        """Counts everything; about a second for a million chunks."""
        # Without a session of ours, one that is open died: it did not go on until now.
        until = None if self._session is None else self._clock.utc()
        return await self._writer.call(lambda database: queries.counts(database, until))

    async def account_state(self, since_utc: float) -> AccountState:
        """Gives what a new session must know of the account before its first request.

        Args:
            since_utc: requests that began or ended since then are given. One whose end was never recorded
                counts by its begin alone, so subtract the longest time a request may take.
        """
        now = self._clock.utc()
        return await self._writer.call(lambda database: queries.account_state(database, since_utc, now))

    async def known_jobs(self) -> list[KnownJob]:
        """Gives every job of this run."""
        return await self._writer.call(queries.known_jobs)

    async def chunks_named(self, ordinals: Sequence[int]) -> list[VerdictRow]:
        """Gives some chunks that were sent, each with the evidence of its last attempt."""
        return await self._writer.call(lambda database: queries.chunks_named(database, ordinals))

    async def took_risks(self) -> bool:
        """Tells whether a person had a chunk sent again although nobody could know its outcome."""
        return await self._writer.call(queries.took_risks)

    async def is_untouched(self) -> bool:
        """Tells whether no chunk of the run was ever sent."""
        return await self._writer.call(queries.is_untouched)

    async def unknown_in_a_row(self, most: int) -> int:
        """Gives how many of the last attempts, up to `most`, have an unknown outcome, with no known one behind them.

        Attempts that never left count for nothing.
        """
        return await self._writer.call(lambda database: queries.unknown_in_a_row(database, most))

    async def baseline(self) -> frozenset[str] | None:
        """Gives the jobs that the server listed before the first chunk went out; None when it was not asked."""
        return await self._writer.call(queries.baseline)

    async def spent_ids(self) -> int:
        """Gives how many ids there is a job of, or may be one: those that are accepted, held or in flight."""
        return await self._writer.call(spending.spent_ids)

    async def planned_ids(self) -> int:
        """Gives how many ids were read and are to be sent."""
        return await self._writer.call(spending.planned_ids)

    async def undebited_ids(self, accepted_since_utc: float, begun_since_utc: float) -> int:
        """Gives how many ids there is a job of, or may be one, that the server may not have debited.

        Args:
            accepted_since_utc: jobs not seen to begin count if they were accepted since then.
            begun_since_utc: jobs seen to begin count if that was seen since then.
        """
        return await self._writer.call(
            lambda database: spending.undebited_ids(database, accepted_since_utc, begun_since_utc)
        )

    async def settled_ids(self) -> int:
        """Gives how many ids were accepted, refused, or are held."""
        return await self._writer.call(spending.settled_ids)

    async def job_durations(self, most: int) -> list[float]:
        """Gives how long the last jobs took until their end was seen, in seconds, the oldest first."""
        return await self._writer.call(lambda database: job_durations(database, most))
