"""Which chunk an id went into, and where in it.

The way of least work comes first: the ledger says on which line each chunk begins, so that the one chunk in question
is cut alone, and its digest says whether that was right. Where it was not (duplicates of ids far before it, several
chunks on one line), everything up to it is cut as the run has cut it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from bulkjobs.audit.findings import Progress
from bulkjobs.audit.recutting import chunker_of, recut
from bulkjobs.audit.rereading import Reading, RecordedSource
from bulkjobs.chunking import Chunker
from bulkjobs.endpoints import endpoint_named
from bulkjobs.ledger import RunRow
from bulkjobs.ledger.inspection import ChunkRecord, Inspection
from bulkjobs.model import Chunk

__all__ = ["Found", "Occurrence", "locate"]

_MOST_PLACES: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Occurrence:
    """Is one place at which an id stands."""

    position: int
    """Number of the source, from 0."""
    source: str
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Is one place of an id in a chunk."""

    chunk: ChunkRecord | None
    """None when the chunk was not planned yet."""
    index: int
    """In the chunk, from 0."""
    same: bool
    """The chunk cut now is the one that was planned."""


def locate(
    wanted: bytes,
    places: Sequence[Occurrence],
    run: RunRow,
    sources: Sequence[RecordedSource],
    inspection: Inspection,
    *,
    progress: Progress | None = None,
) -> list[Found]:
    """Finds the chunks that an id stands in: one where duplicates are removed, else one for each occurrence.

    Args:
        wanted: the id.
        places: where it stands, in order; at least one.
        run: the run.
        sources: of the run.
        inspection: of its ledger.
        progress: told of what is read.
    """
    if run.identity["dedupe"]:
        found = _at_once(wanted, places[0], run, sources, inspection)
        if found is not None:
            return [found]
    reading = Reading(sources, finished=run.source_finished, progress=progress)
    most = 1 if run.identity["dedupe"] else min(len(places), _MOST_PLACES)
    found_all: list[Found] = []
    for chunk in _chunks(chunker_of(run), reading):
        row = None
        for index in _indexes(chunk.body, wanted):
            row = row or inspection.chunk(chunk.ordinal)
            same = row is not None and row.digest == chunk.digest
            found_all.append(Found(chunk=row, index=index, same=same))
            if len(found_all) == most:
                return found_all
    return found_all


def _at_once(
    wanted: bytes,
    first: Occurrence,
    run: RunRow,
    sources: Sequence[RecordedSource],
    inspection: Inspection,
) -> Found | None:
    """Cuts the one chunk that an occurrence can be in; None when that does not give it."""
    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        return None  # the ledger names the source of a chunk, which is not enough then
    order = {name: position for position, name in enumerate(names)}
    row = next_row = None
    for next_row in inspection.chunks():
        if (order.get(next_row.source, -1), next_row.line) > (first.position, first.line):
            break
        row = next_row
    if row is None or row.source not in order:
        return None
    for dedupe in (False, True):
        chunk = _cut_alone(row, sources[order[row.source] :], run, dedupe=dedupe)
        if chunk is not None and chunk.digest == row.digest:
            index = next(_indexes(chunk.body, wanted), None)
            return None if index is None else Found(chunk=row, index=index, same=True)
    return None


def _cut_alone(
    row: ChunkRecord, sources: Sequence[RecordedSource], run: RunRow, *, dedupe: bool
) -> Chunk | None:
    """Cuts as many ids as a chunk has, from the line on which it begins."""
    chunker = Chunker(row.ids, dedupe=dedupe, form=endpoint_named(run.endpoint).id_form)
    reading = Reading(sources, finished=run.source_finished)
    before = row.line - 1
    current = None
    for source, block in reading.blocks():
        rest = block
        if source is not current:
            chunker.begin(source.name)
            current = source
        if before and rest is not None:
            passed = min(before, rest.count(b"\n"))
            rest = rest[_behind_newline(rest, passed) :] if passed == before else b""
            before -= passed
        cut = chunker.end() if rest is None else chunker.feed(rest)
        if cut.chunks:
            return cut.chunks[0]
    return chunker.finish()[0]


def _behind_newline(text: bytes, number: int) -> int:
    """Gives the position behind the n-th newline."""
    at = 0
    for _ in range(number):
        at = text.find(b"\n", at) + 1
    return at


def _chunks(chunker: Chunker, reading: Reading) -> Iterator[Chunk]:
    for cut in recut(chunker, reading):
        yield from cut.chunks
    last, _ = chunker.finish()
    if last is not None:
        yield last


def _indexes(body: bytes, wanted: bytes) -> Iterator[int]:
    """Gives the indexes at which an id stands in the body of a chunk."""
    if wanted not in body:
        return
    for index, one in enumerate(body.split(b"\n")):
        if one == wanted:
            yield index
