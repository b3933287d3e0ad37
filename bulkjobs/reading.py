"""The reading of sources: blocks become chunks, with progress, the report of what is no id, and checkpoints.

Reading, cutting and sending go on side by side: while the chunks of one block are handed on, the next is cut.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from bulkjobs.checkpoint import Checkpoint, Checkpoints
from bulkjobs.chunking import Chunker, Cut
from bulkjobs.errors import SinkError, SourceChanged, SourceError
from bulkjobs.events import Event, SourceProgress
from bulkjobs.halt import Halt
from bulkjobs.jsonlines import json_line
from bulkjobs.model import Chunk, InvalidId, Tally
from bulkjobs.ports import SeekableSource, Source
from bulkjobs.rundir import not_written, sync_folder, write_all
from bulkjobs.sources.table import not_a_table

__all__ = ["HaltedError", "InvalidReport", "Reading"]


class HaltedError(Exception):
    """Ends the reading because sending has ended."""


@dataclass(frozen=True, slots=True)
class _Block:
    """Is some text, and where the source is behind it."""

    text: bytes
    position_bytes: int
    mark: str | None


@dataclass(frozen=True, slots=True)
class _Step:
    """Is what came of one block, and how far the reading was behind it."""

    cut: Cut
    read: int
    totals: Tally
    position_bytes: int


class Reading:
    """Reads the sources of a run, once."""

    def __init__(
        self,
        sources: Sequence[Source],
        chunker: Chunker,
        *,
        halt: Halt,
        emit: Callable[[Event], None],
        broke_off: Callable[[int], None],
        checkpoints: Checkpoints | None = None,
    ) -> None:
        """Takes what it reads with.

        Args:
            sources: all of them repeatable, in order.
            chunker: new, with the size and the dedupe switch of the run.
            halt: ends the reading between two blocks.
            emit: told of progress.
            broke_off: told the position of a source that cannot be read any further.
            checkpoints: of this run; None to read everything and to make none.
        """
        self._sources = sources
        self._chunker = chunker
        self._halt = halt
        self._emit = emit
        self._broke_off = broke_off
        self._checkpoints = checkpoints
        self._unsized = [source for source in sources if source.size_bytes is None]
        self._sized_bytes = sum(source.size_bytes or 0 for source in sources)
        self._passed_bytes = 0
        """Of the sources before the one that is read."""
        self.tail = Tally()
        """Once all was read: what stood behind the last chunk."""

    def start(self, last_passed: int, report: InvalidReport | None) -> Checkpoint | None:
        """Makes the chunker ready behind chunk `last_passed`, or some way before it.

        Returns:
            For `chunks`; None to begin at the beginning.
        """
        if self._checkpoints is None:
            return None

        def serves(checkpoint: Checkpoint) -> bool:
            names = [source.name for source in self._sources]
            return (
                checkpoint.versions == self._versions(len(checkpoint.versions) - 1)
                and list(checkpoint.chunker.sources) == names[: len(checkpoint.versions)]
                and (report is None or checkpoint.report_bytes <= report.size_bytes)
            )

        found = self._checkpoints.newest(last_passed, self._chunker.anew, serves)
        if found is None:
            return None
        checkpoint, self._chunker = found
        if report is not None:
            report.go_on_behind(checkpoint.report_bytes)
        return checkpoint

    def _versions(self, position: int) -> list[str] | None:
        """Gives the versions of the sources up to a position; None when one of them has none."""
        versions = [
            source.version if isinstance(source, SeekableSource) else None
            for source in self._sources[: position + 1]
        ]
        known = [version for version in versions if version is not None]
        return known if len(known) == len(versions) else None

    async def chunks(
        self, report: InvalidReport | None, start: Checkpoint | None = None
    ) -> AsyncGenerator[Chunk, None]:
        """Reads to the end and gives chunk after chunk; `tail` then tells what stood behind the last one.

        Args:
            report: takes what is no id; None where there is nothing to report.
            start: what `start` gave.

        Raises:
            HaltedError: sending has ended.
            SourceError: a source cannot be read any further.
            SinkError: the report cannot be written.
        """
        first = 0 if start is None else len(start.versions) - 1
        self._passed_bytes = sum(source.size_bytes or 0 for source in self._sources[:first])
        for position, source in enumerate(self._sources[first:], first):
            mark = None if start is None or position > first else start.mark
            if mark is None:
                self._chunker.begin(source.name)
            async with aclosing(self._steps(position, source, mark, report)) as steps:
                async for step in steps:
                    self._progress(source, step)  # before the chunks: handing them on may take hours
                    for chunk in step.cut.chunks:
                        yield chunk
            for chunk in (await asyncio.to_thread(self._end, report)).chunks:
                yield chunk
            self._passed_bytes += source.size_bytes or 0
        last, self.tail = self._chunker.finish()
        if last is not None:
            yield last
        self._progress(self._sources[-1], None)

    async def _steps(
        self, position: int, source: Source, mark: str | None, report: InvalidReport | None
    ) -> AsyncGenerator[_Step, None]:
        """Cuts the blocks of a source in a thread: the next one, if it is there, beside the work on the last."""
        loop = asyncio.get_running_loop()

        def begin(block: _Block) -> asyncio.Future[_Step]:
            return loop.run_in_executor(None, self._cut, block, position, report)

        async with aclosing(self._blocks(position, source, mark)) as blocks:
            coming = loop.create_task(_next_block(blocks, source))
            cutting: asyncio.Future[_Step] | None = None
            try:
                while True:
                    if cutting is None:
                        block = await coming
                        if block is None:
                            return
                        cutting, coming = begin(block), loop.create_task(_next_block(blocks, source))
                    step = await asyncio.shield(cutting)
                    cutting = None
                    if self._halt.pulled:
                        raise HaltedError
                    if (
                        coming.done()
                        and coming.exception() is None
                        and (block := coming.result()) is not None
                    ):
                        cutting, coming = begin(block), loop.create_task(_next_block(blocks, source))
                    yield step
            finally:
                coming.cancel()
                # The thread uses the report, which will be closed; what is being read cannot be closed.
                await asyncio.wait([coming])
                if cutting is not None:
                    await asyncio.wait([cutting])
                _ = coming.cancelled() or coming.exception()  # seen: whoever left does not ask for it

    def _cut(self, block: _Block, position: int, report: InvalidReport | None) -> _Step:
        """Cuts a block, reports what is invalid in it, and makes a checkpoint behind it if one is due."""
        cut = self._chunker.feed(block.text)
        if report is not None:
            report.write(cut.invalid)
            if self._checkpoints is not None and block.mark is not None:
                self._checkpoint(len(block.text), position, block.mark, report)
        totals = self._chunker.totals
        read = self._chunker.ids + totals.invalid + totals.duplicate
        return _Step(cut, read, totals, block.position_bytes)

    def _end(self, report: InvalidReport | None) -> Cut:
        cut = self._chunker.end()
        if report is not None:
            report.write(cut.invalid)
        return cut

    def _checkpoint(self, text_bytes: int, position: int, mark: str, report: InvalidReport) -> None:
        assert self._checkpoints is not None
        if not self._checkpoints.is_due(text_bytes, self._chunker.set_bytes):
            return
        versions = self._versions(position)
        if versions is not None:
            report.sync()
            self._checkpoints.save(
                Checkpoint(
                    versions=versions,
                    mark=mark,
                    report_bytes=report.written_bytes,
                    chunker=self._chunker.snapshot(),
                ),
                self._chunker.set_parts(),
            )

    async def _blocks(self, position: int, source: Source, mark: str | None) -> AsyncGenerator[bytes, None]:
        try:
            if mark is None:
                async with (
                    aclosing(source.blocks()) as blocks,
                    aclosing(not_a_table(source.name, blocks)) as ids,
                ):
                    async for block in ids:
                        yield block
            else:
                assert isinstance(source, SeekableSource)
                async with aclosing(source.blocks_after(mark)) as blocks:
                    async for block in blocks:
                        yield block
        except SourceChanged:
            raise
        except SourceError:
            # It will be mended, and then go on behind the chunks that were planned: they alone have to be the same.
            self._broke_off(position)
            raise

    def _size_bytes(self) -> int | None:
        """Gives the size of all sources, as soon as that of the last one is known."""
        late = [source.size_bytes for source in self._unsized]
        return None if None in late else self._sized_bytes + sum(size or 0 for size in late)

    def _progress(self, source: Source, step: _Step | None) -> None:
        """Tells how far the reading is; `step` is None at its end."""
        totals = self._chunker.totals if step is None else step.totals
        position_bytes = source.position_bytes if step is None else step.position_bytes
        self._emit(
            SourceProgress(
                source=source.name,
                position_bytes=position_bytes,
                size_bytes=source.size_bytes,
                read=self._chunker.ids + totals.invalid + totals.duplicate if step is None else step.read,
                invalid=totals.invalid,
                duplicate=totals.duplicate,
                finished=step is None,
                run_position_bytes=self._passed_bytes + (0 if step is None else position_bytes),
                run_size_bytes=self._size_bytes(),
            )
        )


class InvalidReport:
    """Writes `invalid.jsonl`. It is written over while the source is read again, so no line stands twice.

    The same source gives the same lines, so what an earlier session wrote beyond the point at which this one
    stops stays in place. It is cut only behind the last line there is.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.written_bytes = 0
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
        """Writes what is no id behind what was written before.

        Raises:
            SinkError: the disk does not take it.
        """
        if not invalid:
            return
        text = b"".join(
            json_line({"source": i.source, "line": i.line, "text": i.text, "reason": i.reason})
            for i in invalid
        )
        try:
            write_all(self._descriptor, text)
        except OSError as error:
            raise self._failed(error) from error
        self.written_bytes += len(text)

    @property
    def size_bytes(self) -> int:
        """Is the length of the file, with what an earlier session wrote."""
        return os.fstat(self._descriptor).st_size

    def go_on_behind(self, position_bytes: int) -> None:
        """Keeps what an earlier session wrote up to a position."""
        self.written_bytes = os.lseek(self._descriptor, position_bytes, os.SEEK_SET)

    def sync(self) -> None:
        """Makes the lines so far durable."""
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise self._failed(error) from error

    def finish(self) -> None:
        """Says that there are no more lines, and makes them durable."""
        try:
            os.ftruncate(self._descriptor, self.written_bytes)
        except OSError as error:
            raise self._failed(error) from error
        self.sync()

    def close(self) -> None:
        """Lets go of the file."""
        os.close(self._descriptor)

    def _failed(self, error: OSError) -> SinkError:
        return SinkError(not_written(self._path, error))


async def _next_block(blocks: AsyncGenerator[bytes, None], source: Source) -> _Block | None:
    """Reads on; None at the end."""
    text = await anext(blocks, None)
    if text is None:
        return None
    # Now: the source goes on while this block is cut.
    return _Block(text, source.position_bytes, source.mark if isinstance(source, SeekableSource) else None)
