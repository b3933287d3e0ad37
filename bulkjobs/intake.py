"""The way of ids into the run: sources are read, chunks cut, checked against the ledger, and handed on.

A run that goes on reads its sources again from the beginning, because only that gives back the bytes of the
chunks and the set of ids already met. Every chunk that the ledger knows is compared with it before anything
behind it can be sent; so whatever changed in a source is found before it costs anything.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, closing, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bulkjobs.channel import Channel, ChannelClosed
from bulkjobs.chunking import Chunker, Cut
from bulkjobs.errors import InternalError, SinkError, SourceChanged, SourceError
from bulkjobs.events import ChunkPlanned, Event, SourceProgress
from bulkjobs.halt import Halt
from bulkjobs.jsonlines import json_line
from bulkjobs.ledger import ChunkRow, Ledger, VerdictRow
from bulkjobs.model import Chunk, ChunkState, InvalidId, Tally
from bulkjobs.ports import Source
from bulkjobs.rundir import not_written, sync_folder, write_all
from bulkjobs.sources.table import not_a_table
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
    ) -> None:
        """Makes the stage.

        Args:
            sources: all of them repeatable, in order.
            chunker: new, with the size and the dedupe switch of the run.
            ledger: of this run.
            invalid_path: the file for ids that never go out.
            halt: ends the reading between two blocks.
            emit: told of progress and of each chunk.
        """
        self._sources = sources
        self._unsized = [source for source in sources if source.size_bytes is None]
        self._sized_bytes = sum(source.size_bytes or 0 for source in sources)
        self._passed_bytes = 0
        """Of the sources before the one that is read."""
        self._chunker = chunker
        self._ledger = ledger
        self._invalid_path = invalid_path
        self._halt = halt
        self._emit = emit

    async def run(self, channel: Channel[Planned]) -> None:
        """Reads everything and hands on, in order, each chunk that is to be sent; then closes the channel.

        Raises:
            SourceError: a source cannot be read any further. Ids that fill no whole chunk were not planned.
            SourceChanged: a chunk is not what the ledger says. Nothing from it on was handed on.
        """
        run = self._ledger.run
        known = _KnownChunks(self._ledger)
        finished = run is not None and run.source_finished
        last_wanted = await self._ledger.last_planned()
        try:
            if finished and last_wanted == 0:
                return
            # Once the source was read to its end the report of invalid ids is complete and stays as it is.
            report = None if finished else _InvalidReport(self._invalid_path)
            with nullcontext() if report is None else closing(report):
                async with aclosing(self._chunks(report)) as chunks:
                    async for chunk in chunks:
                        if finished and chunk.ordinal > last_wanted:
                            return
                        await self._hand_on(chunk, await known.match(chunk, finished=finished), channel)
                await known.expect_no_more(self._sources)
                if not finished:
                    await self._finish(report)
        except (ChannelClosed, _HaltedError):
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
        try:
            async with aclosing(self._chunks(None)) as chunks:
                async for chunk in chunks:
                    if await known.match(chunk, finished=finished) is None and not copied:
                        raise SourceChanged(
                            f"{_named(self._sources)} changed since the run began. The {chunk.ordinal - 1} chunks "
                            f"planned so far are the same, but from chunk {chunk.ordinal} on nobody can tell. Put it "
                            f"back as it was, with its time (touch -d), or start another run with --run. "
                            + " ".join(doubts)
                        )
            await known.expect_no_more(self._sources)
        except _HaltedError:
            return  # nothing will be sent
        if run is not None and finished and self._tail != run.tail:
            before, now = run.tail, self._tail
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
        with suppress(_HaltedError):
            await self._find(rows, found)
        return found

    async def _find(self, rows: Sequence[VerdictRow], found: dict[int, bytes]) -> None:
        wanted: dict[int, list[VerdictRow]] = {}
        for row in rows:
            wanted.setdefault(row.chunk if row.parent is None else row.parent, []).append(row)
        async with aclosing(self._chunks(None)) as chunks:
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

    async def _chunks(self, report: _InvalidReport | None) -> AsyncGenerator[Chunk, None]:
        for position, source in enumerate(self._sources):
            self._chunker.begin(source.name)
            async with aclosing(self._blocks(position, source)) as blocks:
                async for block in blocks:
                    if self._halt.pulled:
                        raise _HaltedError
                    cut = await asyncio.to_thread(self._chunker.feed, block)
                    self._progress(source)  # before the chunks: handing them on may take hours
                    async for chunk in self._reported(cut, report):
                        yield chunk
            async for chunk in self._reported(self._chunker.end(), report):
                yield chunk
            self._passed_bytes += source.size_bytes or 0
        last, self._tail = self._chunker.finish()
        if last is not None:
            yield last
        self._progress(self._sources[-1], finished=True)

    async def _blocks(self, position: int, source: Source) -> AsyncGenerator[bytes, None]:
        try:
            async with aclosing(source.blocks()) as blocks, aclosing(not_a_table(source.name, blocks)) as ids:
                async for block in ids:
                    yield block
        except SourceChanged:
            raise
        except SourceError:
            # It will be mended, and then go on behind the chunks that were planned: they alone have to be the same.
            self._ledger.source_broke_off(position)
            raise

    async def _reported(self, cut: Cut, report: _InvalidReport | None) -> AsyncIterator[Chunk]:
        if cut.invalid and report is not None:
            await asyncio.to_thread(report.write, cut.invalid)
        for chunk in cut.chunks:
            yield chunk

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

    async def _finish(self, report: _InvalidReport | None) -> None:
        if report is not None:
            await asyncio.to_thread(report.finish)
        await self._ledger.finish_source(self._tail)

    def _size_bytes(self) -> int | None:
        """Gives the size of all sources, as soon as that of the last one is known."""
        late = [source.size_bytes for source in self._unsized]
        return None if None in late else self._sized_bytes + sum(size or 0 for size in late)

    def _progress(self, source: Source, *, finished: bool = False) -> None:
        totals = self._chunker.totals
        self._emit(
            SourceProgress(
                source=source.name,
                position_bytes=source.position_bytes,
                size_bytes=source.size_bytes,
                read=self._chunker.ids + totals.invalid + totals.duplicate,
                invalid=totals.invalid,
                duplicate=totals.duplicate,
                finished=finished,
                run_position_bytes=self._passed_bytes + (0 if finished else source.position_bytes),
                run_size_bytes=self._size_bytes(),
            )
        )


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


class _HaltedError(Exception):
    """Ends the reading because sending has ended."""


class _KnownChunks:
    """Walks through the chunks that the ledger knows, beside the ones that are cut now."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._rows: list[ChunkRow] = []
        self._next = 0
        self._after = 0
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


class _InvalidReport:
    """Writes `invalid.jsonl`. It is written over while the source is read again, so no line stands twice.

    The same source gives the same lines, so what an earlier session wrote beyond the point at which this one
    stops stays in place. It is cut only behind the last line there is.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written_bytes = 0
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._failed(error) from error
        try:
            sync_folder(path.parent)  # once the source is finished nobody writes it again
        except OSError as error:
            self.close()
            raise self._failed(error) from error

    def write(self, invalid: Sequence[InvalidId]) -> None:
        text = b"".join(
            json_line({"source": i.source, "line": i.line, "text": i.text, "reason": i.reason})
            for i in invalid
        )
        try:
            write_all(self._descriptor, text)
        except OSError as error:
            raise self._failed(error) from error
        self._written_bytes += len(text)

    def finish(self) -> None:
        """Says that there are no more lines, and makes them durable."""
        try:
            os.ftruncate(self._descriptor, self._written_bytes)
            os.fsync(self._descriptor)
        except OSError as error:
            raise self._failed(error) from error

    def close(self) -> None:
        os.close(self._descriptor)

    def _failed(self, error: OSError) -> SinkError:
        return SinkError(not_written(self._path, error))


def _named(sources: Sequence[Source]) -> str:
    return ", ".join(source.name for source in sources)
