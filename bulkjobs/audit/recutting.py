"""The ledger against the sources: they are read and cut once more, and each chunk is compared.

All of an id's account hangs on this: a digest that agrees says that these ids, in this order, are that chunk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from bulkjobs.audit.findings import Findings, Progress, told
from bulkjobs.audit.reports import InvalidLines
from bulkjobs.audit.rereading import Reading, RecordedSource
from bulkjobs.chunking import Chunker, Cut
from bulkjobs.endpoints import endpoint_named
from bulkjobs.ledger import RunRow
from bulkjobs.ledger.inspection import ChunkRecord, Inspection
from bulkjobs.model import Chunk, Tally

__all__ = ["Recut", "chunker_of", "recut"]

_KINDS: Final = {
    "planned": "pending",
    "sending": "pending",
    "accepted": "accepted",
    "delivered": "accepted",
    "refused": "refused",
    "held": "held",
}
_NEXT: Final = "Put the source back as it was and audit again."
_NO_TRUST: Final = "If the source is as it was, the ledger is not: compare with a copy of it."


def chunker_of(run: RunRow) -> Chunker:
    """Makes the chunker that cuts the sources of a run as they were cut."""
    size, dedupe = run.identity["chunk_size"], run.identity["dedupe"]
    assert isinstance(size, int)
    return Chunker(size, dedupe=bool(dedupe), form=endpoint_named(run.endpoint).id_form)


def recut(chunker: Chunker, reading: Reading) -> Iterator[Cut]:
    """Cuts what is read, block by block; what is left in the chunker at the end is for the caller to take."""
    current = None
    for source, block in reading.blocks():
        if source is not current:
            chunker.begin(source.name)
            current = source
        yield chunker.end() if block is None else chunker.feed(block)


class Recut:
    """Cuts the sources of a run and compares what comes of it with the ledger."""

    def __init__(
        self,
        run: RunRow,
        sources: Sequence[RecordedSource],
        inspection: Inspection,
        findings: Findings,
        invalid: InvalidLines,
    ) -> None:
        """Makes it; `invalid` is told of each invalid id."""
        self._run = run
        self._sources = sources
        self._inspection = inspection
        self._findings = findings
        self._invalid = invalid
        self._rows = inspection.chunks()
        self.ids = dict.fromkeys(
            ("read", "invalid", "duplicate", "accepted", "refused", "held", "pending"), 0
        )
        """Counted from the sources, as far as chunks were planned."""
        self.chunks = 0
        """Chunks that were compared."""
        self.parts = 0
        self.unplanned = 0
        """Ids behind the last chunk that was planned."""
        self.broke_off = False
        """A source could not be read to its end."""

    def compare(self, progress: Progress | None) -> None:
        """Reads everything.

        Raises:
            SourceError: a source of which everything was read before cannot be read now.
        """
        chunker = chunker_of(self._run)
        for chunk in self._cut(chunker, progress):
            self._compare(chunk, next(self._rows, None))
        last, tail = chunker.finish()
        if last is not None:
            self._compare(last, next(self._rows, None))
        for row in self._rows:
            self._findings.differ(
                "source",
                f"Chunk {row.ordinal} ({row.ids} ids, {row.source} line {row.line}) stands in the ledger and no "
                f"longer in the sources. {_NEXT}",
            )
        if self._run.source_finished:
            self._compare_tail(tail)

    def _cut(self, chunker: Chunker, progress: Progress | None) -> Iterator[Chunk]:
        for source in self._sources:
            if source.changed():
                self._findings.note(
                    f"{source.name} has another size or time than when the run began. What follows tells whether its "
                    f"ids are the same."
                )
        reading = Reading(self._sources, finished=self._run.source_finished, progress=progress)
        for cut in recut(chunker, reading):
            self._invalid.expect(cut.invalid)
            yield from cut.chunks
        if reading.broke_off is not None:
            self.broke_off = True
            self._findings.note(reading.broke_off)

    def _compare(self, chunk: Chunk, row: ChunkRecord | None) -> None:
        if row is None:
            self._count_unplanned(chunk)
            return
        self.chunks += 1
        self.ids["read"] += chunk.ids + chunk.tally.invalid + chunk.tally.duplicate
        self.ids["invalid"] += chunk.tally.invalid
        self.ids["duplicate"] += chunk.tally.duplicate
        if wrong := list(_unlike(chunk, row)):
            self._findings.differ(
                "source",
                f"Chunk {chunk.ordinal} ({chunk.source} line {chunk.line}, ids {chunk.first_id} to {chunk.last_id}) "
                f"is not what the ledger has: {'; '.join(wrong)}. {_NEXT} {_NO_TRUST}",
            )
        if row.state == "split":
            self._compare_parts(chunk)
        elif row.state in _KINDS:
            self.ids[_KINDS[row.state]] += chunk.ids

    def _count_unplanned(self, chunk: Chunk) -> None:
        self.unplanned += chunk.ids
        if not self._run.source_finished:
            return
        self.ids["read"] += chunk.ids + chunk.tally.invalid + chunk.tally.duplicate
        self._findings.differ(
            "source",
            f"Chunk {chunk.ordinal} ({chunk.ids} ids, {chunk.source} line {chunk.line}) stands in the sources and "
            f"not in the ledger, although all was read. {_NEXT} {_NO_TRUST}",
        )

    def _compare_tail(self, tail: Tally) -> None:
        self.ids["read"] += tail.invalid + tail.duplicate
        self.ids["invalid"] += tail.invalid
        self.ids["duplicate"] += tail.duplicate
        if tail != self._run.tail:
            known = self._run.tail
            self._findings.differ(
                "source",
                f"Behind the last chunk stand {tail.invalid} invalid and {tail.duplicate} duplicate ids, but the "
                f"ledger has {known.invalid} and {known.duplicate}. {_NEXT}",
            )

    def _compare_parts(self, chunk: Chunk) -> None:
        """Compares each part with the slice it must be, and what is sent of them with the whole."""
        parts = self._inspection.parts(chunk.ordinal)
        ids = chunk.body.split(b"\n")
        for part in parts:
            self.parts += 1
            for wrong in _unlike_part(chunk, ids, part):
                self._findings.differ(
                    "source", f"Part {part.ordinal} of chunk {chunk.ordinal} {wrong}. {_NO_TRUST}"
                )
        leaves = [part for part in parts if part.state != "split"]
        for leaf in leaves:
            if leaf.state in _KINDS:
                self.ids[_KINDS[leaf.state]] += len(ids[leaf.first : leaf.first + leaf.ids])
        if gap := _uncovered(0, chunk.ids, leaves):
            self._findings.differ(
                "source", f"The parts of chunk {chunk.ordinal} are not the whole: {gap}. {_NO_TRUST}"
            )
        for divided in (part for part in parts if part.state == "split"):
            inside = [leaf for leaf in leaves if divided.first <= leaf.first < divided.first + divided.ids]
            if gap := _uncovered(divided.first, divided.ids, inside):
                self._findings.differ(
                    "source", f"The parts of part {divided.ordinal} are not the whole: {gap}. {_NO_TRUST}"
                )


def _unlike(chunk: Chunk, row: ChunkRecord) -> Iterator[str]:
    """Gives what the ledger has of a chunk and what it is, where they differ."""
    pairs: tuple[tuple[str, object, object], ...] = (
        ("number", chunk.ordinal, row.ordinal),
        ("ids", chunk.ids, row.ids),
        ("first id", chunk.first_id, row.first_id),
        ("last id", chunk.last_id, row.last_id),
        ("digest", chunk.digest, row.digest),
        ("bytes", len(chunk.body), row.body_bytes),
        ("source", chunk.source, row.source),
        ("line", chunk.line, row.line),
        ("invalid ids before its end", chunk.tally.invalid, row.tally.invalid),
        ("duplicate ids before its end", chunk.tally.duplicate, row.tally.duplicate),
    )
    for name, now, known in pairs:
        if now != known:
            yield f"{name} {told(known)} there, {told(now)} in the source"


def _unlike_part(chunk: Chunk, ids: Sequence[bytes], part: ChunkRecord) -> Iterator[str]:
    slice_ = ids[part.first : part.first + part.ids] if part.first >= 0 else []
    if len(slice_) != part.ids:
        yield f"reaches beyond it: {part.ids} ids from {part.first} of {chunk.ids}"
        return
    body = b"\n".join(slice_)
    pairs: tuple[tuple[str, object, object], ...] = (
        ("digest", hashlib.sha256(body).hexdigest(), part.digest),
        ("first id", slice_[0].decode(), part.first_id),
        ("last id", slice_[-1].decode(), part.last_id),
        ("bytes", len(body), part.body_bytes),
        ("source", chunk.source, part.source),
        ("line", chunk.line, part.line),
        ("tally", Tally(), part.tally),
    )
    for name, expected, known in pairs:
        if expected != known:
            yield f"has {name} {told(known)}, its ids from {part.first} on give {told(expected)}"


def _uncovered(first: int, ids: int, leaves: Iterable[ChunkRecord]) -> str | None:
    """Says where parts leave ids out or have them twice; None when they are exactly these ids."""
    at = first
    for leaf in sorted(leaves, key=lambda leaf: leaf.first):
        if leaf.first > at:
            return f"no part has the ids {at} to {leaf.first - 1}"
        if leaf.first < at:
            return f"more than one part has the ids from {leaf.first} on"
        at += leaf.ids
    return None if at == first + ids else f"they end at id {at}, it ends at id {first + ids}"
