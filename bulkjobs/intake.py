"""The way of ids into the run: sources are read, chunks cut, checked against the ledger, and handed on.

A run that goes on reads its sources again, because only that gives back the bytes of the chunks and the set of ids
already met: from the last checkpoint before the first chunk that is still to be sent, or from the beginning. Every
chunk from there on that the ledger knows is compared with it before anything behind it can be sent; so whatever
changed in a source is found before it costs anything.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from contextlib import aclosing, closing, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from bulkjobs.channel import Channel, ChannelClosed
from bulkjobs.checkpoint import Checkpoints
from bulkjobs.chunking import Chunker
from bulkjobs.errors import InternalError, SourceChanged
from bulkjobs.events import ChunkPlanned, Event
from bulkjobs.halt import Halt
from bulkjobs.ledger import ChunkRow, Ledger, VerdictRow
from bulkjobs.model import Chunk, ChunkState, Tally
from bulkjobs.ports import Source
from bulkjobs.reading import HaltedError, InvalidReport, Reading
from bulkjobs.rundir import unnamed_file
from bulkjobs.splitting import part_body

__all__ = ["Intake", "Planned"]

_ROWS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Planned:
    """Is a chunk that waits to be sent."""

    chunk: Chunk
    attempts: int
    """Number of the last attempt of an earlier session, 0 when there was none."""
    duplicate_risk: bool = False
    """As in `ledger.ChunkRow`."""


class Intake:
    """Reads sources into chunks."""

    def __init__(
        self,
        sources: Sequence[Source],
        chunker: Chunker,
        ledger: Ledger,
        *,
        invalid_path: Path,
        halt: Halt,
        emit: Callable[[Event], None],
        checkpoints: Checkpoints | None = None,
    ) -> None:
        """Makes the stage.

        Args:
            sources: all of them repeatable, in order.
            chunker: a model, with the size and the dedupe switch of the run.
            ledger: of this run.
            invalid_path: the file for ids that never go out.
            halt: ends the reading between two blocks.
            emit: told of progress and of each chunk.
            checkpoints: of this run; None to read everything and to make none.
        """
        self._sources = sources
        self._chunker = chunker
        self._ledger = ledger
        self._invalid_path = invalid_path
        self._halt = halt
        self._emit = emit
        self._checkpoints = checkpoints

    def _reading(self, *, checkpoints: bool = True) -> Reading:
        return Reading(
            self._sources,
            self._chunker.anew(partial(unnamed_file, self._invalid_path.parent)),
            halt=self._halt,
            emit=self._emit,
            broke_off=self._ledger.source_broke_off,
            checkpoints=self._checkpoints if checkpoints else None,
        )

    async def run(self, channel: Channel[Planned]) -> None:
        """Reads everything and hands on, in order, each chunk that is to be sent; then closes the channel.

        Raises:
            SourceError: a source cannot be read any further. Ids that fill no whole chunk were not planned.
            SourceChanged: a chunk is not what the ledger says. Nothing from it on was handed on.
        """
        run = self._ledger.run
        finished = run is not None and run.source_finished
        last_wanted = await self._ledger.last_planned()
        last_passed = await self._ledger.last_passed()
        reading = self._reading()
        try:
            if finished and last_wanted == 0:
                return
            # Once the source was read to its end the report of invalid ids is complete and stays as it is.
            report = None if finished else InvalidReport(self._invalid_path)
            with nullcontext() if report is None else closing(report):
                start = await asyncio.to_thread(reading.start, last_passed, report)
                known = _KnownChunks(self._ledger, after=0 if start is None else start.chunker.ordinal)
                async with aclosing(reading.chunks(report, start)) as chunks:
                    async for chunk in chunks:
                        if finished and chunk.ordinal > last_wanted:
                            return
                        await self._hand_on(chunk, await known.match(chunk, finished=finished), channel)
                await known.expect_no_more(self._sources)
                if not finished:
                    await self._finish(report, reading.tail)
        except (ChannelClosed, HaltedError):
            return  # the run stops; what was not handed on stays planned, or is read again
        finally:
            channel.close()

    async def verify(self, doubts: Sequence[str], *, copied: bool) -> None:
        """Reads the sources and compares every chunk that the ledger knows; hands on nothing.

        Args:
            doubts: what was recorded of the sources in doubt, for the message.
            copied: reading these compares them with their copies. Then chunks that the last session cut and did not
                get to plan are no reason to doubt.

        Raises:
            SourceError: a source cannot be read.
            SourceChanged: a chunk is not what the ledger says; the message names the first.
        """
        run = self._ledger.run
        finished = run is not None and run.source_finished
        known = _KnownChunks(self._ledger)
        reading = self._reading(checkpoints=False)
        try:
            async with aclosing(reading.chunks(None)) as chunks:
                async for chunk in chunks:
                    if await known.match(chunk, finished=finished) is None and not copied:
                        raise SourceChanged(
                            f"{_named(self._sources)} changed since the run began. The {chunk.ordinal - 1} chunks "
                            f"planned so far are the same, but from chunk {chunk.ordinal} on nobody can tell. Put it "
                            f"back as it was, with its time (touch -d), or start another run with --run. "
                            + " ".join(doubts)
                        )
            await known.expect_no_more(self._sources)
        except HaltedError:
            return  # nothing will be sent
        if run is not None and finished and reading.tail != run.tail:
            before, now = run.tail, reading.tail
            raise SourceChanged(
                f"{_named(self._sources)} changed since the run began: behind the last chunk stood {before.invalid} "
                f"invalid and {before.duplicate} duplicate ids, now {now.invalid} and {now.duplicate}. Start another "
                f"run with --run. " + " ".join(doubts)
            )

    async def bodies(self, rows: Sequence[VerdictRow]) -> dict[int, bytes]:
        """Reads the sources for the bodies of some chunks.

        Returns:
            By chunk. Not all of them, if sending ends meanwhile.

        Raises:
            SourceError: a source cannot be read.
            SourceChanged: a chunk is no longer what was planned, or not there.
        """
        found: dict[int, bytes] = {}
        with suppress(HaltedError):
            await self._find(rows, found)
        return found

    async def _find(self, rows: Sequence[VerdictRow], found: dict[int, bytes]) -> None:
        wanted: dict[int, list[VerdictRow]] = {}
        for row in rows:
            wanted.setdefault(row.chunk if row.parent is None else row.parent, []).append(row)
        reading = self._reading()
        start = await asyncio.to_thread(reading.start, min(wanted) - 1, None)
        async with aclosing(reading.chunks(None, start)) as chunks:
            async for chunk in chunks:
                for row in wanted.pop(chunk.ordinal, ()):
                    body = chunk.body if row.parent is None else part_body(chunk.body, row.first, row.ids)
                    if hashlib.sha256(body).hexdigest() != row.digest:
                        raise SourceChanged(
                            f"{chunk.source} changed since the run began: chunk {row.chunk} (line {row.line}) is not "
                            f"what was planned. Put the source back as it was."
                        )
                    found[row.chunk] = body
                if not wanted:
                    return
        raise SourceChanged(
            f"{_named(self._sources)} has fewer ids than when the run began: chunk {min(wanted)} is missing. Put it "
            f"back as it was."
        )

    async def _hand_on(self, chunk: Chunk, row: ChunkRow | None, channel: Channel[Planned]) -> None:
        if row is None:
            self._ledger.plan(chunk)
        elif row.state is ChunkState.SPLIT:
            for part in await self._ledger.parts(chunk.ordinal):
                if part.state is ChunkState.PLANNED:
                    await self._send_on(_part(chunk, part), part, channel)
            return
        elif row.state is not ChunkState.PLANNED:
            return
        await self._send_on(chunk, row, channel)

    async def _send_on(self, chunk: Chunk, row: ChunkRow | None, channel: Channel[Planned]) -> None:
        self._emit(ChunkPlanned(chunk=chunk.ordinal, ids=chunk.ids))
        planned = Planned(chunk, 0) if row is None else Planned(chunk, row.attempts, row.duplicate_risk)
        await channel.send(planned)

    async def _finish(self, report: InvalidReport | None, tail: Tally) -> None:
        if report is not None:
            await asyncio.to_thread(report.finish)
        await self._ledger.finish_source(tail)


def _part(chunk: Chunk, row: ChunkRow) -> Chunk:
    """Gives a part of a chunk again, as it was planned."""
    body = part_body(chunk.body, row.first, row.ids)
    if hashlib.sha256(body).hexdigest() != row.digest:
        raise InternalError(f"Part {row.ordinal} of chunk {chunk.ordinal} is not what was planned.")
    return dataclasses.replace(
        chunk,
        ordinal=row.ordinal,
        body=body,
        ids=row.ids,
        digest=row.digest,
        first_id=body.partition(b"\n")[0].decode("ascii"),
        last_id=body.rpartition(b"\n")[2].decode("ascii"),
        tally=Tally(),
        parent=row.parent,
        first=row.first,
    )


class _KnownChunks:
    """Walks through the chunks that the ledger knows, beside the ones that are cut now."""

    def __init__(self, ledger: Ledger, *, after: int = 0) -> None:
        self._ledger = ledger
        self._rows: list[ChunkRow] = []
        self._next = 0
        self._after = after
        self._exhausted = False

    async def match(self, chunk: Chunk, *, finished: bool) -> ChunkRow | None:
        """Gives the row of this chunk, or None when the ledger does not know it yet."""
        row = await self._peek()
        if row is None:
            if finished:
                raise SourceChanged(
                    f"{chunk.source} has more ids than when the run began: chunk {chunk.ordinal} (line {chunk.line}) "
                    f"was not there. Start another run for the new ids with --run."
                )
            return None
        if (row.ordinal, row.digest, row.tally) != (chunk.ordinal, chunk.digest, chunk.tally):
            raise SourceChanged(
                f"{chunk.source} changed since the run began: chunk {chunk.ordinal} (from line {chunk.line}, ids "
                f"{chunk.first_id} to {chunk.last_id}) is not what was planned. Nothing from it on was sent. Put the "
                f"source back as it was, or start another run with --run."
            )
        self._next += 1
        return row

    async def expect_no_more(self, sources: Sequence[Source]) -> None:
        """Checks that the sources did not end before the ledger's chunks did."""
        if (row := await self._peek()) is not None:
            raise SourceChanged(
                f"{_named(sources)} has fewer ids than when the run began: chunk {row.ordinal} is missing. Put it "
                f"back as it was, or start another run with --run."
            )

    async def _peek(self) -> ChunkRow | None:
        if self._next == len(self._rows) and not self._exhausted:
            self._rows = await self._ledger.chunk_rows(self._after, _ROWS)
            self._next = 0
            if self._rows:
                self._after = self._rows[-1].ordinal
            else:
                self._exhausted = True
        return self._rows[self._next] if self._next < len(self._rows) else None


def _named(sources: Sequence[Source]) -> str:
    return ", ".join(source.name for source in sources)
