"""Blocks of text in, chunks out; invalid and duplicate ids told apart on the way.

A text file of ids already holds every request body, so a chunk is a slice between two newlines. What has to be done
for every byte (finding the ids, checking them, looking each up in the set of those already met) is done by the
extension `_scan`, which lets other threads run meanwhile. Here is what has to be done for every block, every chunk
and every id that is none:

1. a block is cut at its last separator, the rest waits for the next block;
2. what is no id is judged by `ids.fault_of`, which says in words what is wrong with it;
3. a full chunk gets its ordinal and its digest.

The result depends on the input alone, never on where a block happens to end. A chunk's tally counts exactly
what stood before its last id (the last chunk's: before the end of the input), so that a run which reads its
source again counts the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from bulkjobs._scan import Scanner
from bulkjobs.errors import InternalError, SinkError
from bulkjobs.ids import BLANKS, IdForm, fault_of, shown
from bulkjobs.model import Chunk, InvalidId, Tally

if TYPE_CHECKING:
    from bulkjobs._scan import Piece

__all__ = ["Chunker", "Cut", "Snapshot"]

_BOM: Final = b"\xef\xbb\xbf"
_LONGEST_TOKEN_BYTES: Final = 64 * 1024
"""A longer piece, without the blanks around it, is not an id whatever it holds; its rest is passed over unread."""


@dataclass(slots=True)
class Cut:
    """Is what one block gave."""

    chunks: list[Chunk] = field(default_factory=list)
    invalid: list[InvalidId] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Is where a chunker stands at the end of a block, but for the set of ids already met."""

    size: int
    dedupe: bool
    form: str
    ordinal: int
    """Of the last full chunk."""
    sources: Sequence[str]
    """Those begun so far."""
    line: int
    """Of the last of them, on which the next id stands."""
    rest: bytes
    """What waits for the next block."""
    overlong: bool
    bom_passed: bool
    filling: bytes
    """The ids of the chunk that is being filled, each with a newline behind it."""
    tally: Sequence[int]
    """Of that chunk: ids, number of the source and line of the first, and what else stood before its last id."""
    totals: Sequence[int]
    """Ids, invalid and duplicate of the full chunks."""


class Chunker:
    """Cuts the text of one or more sources into chunks. Chunks go on over the end of a source."""

    def __init__(
        self,
        size: int,
        *,
        dedupe: bool,
        form: IdForm = IdForm.INTEGER,
        file: Callable[[], int] | None = None,
    ) -> None:
        """Makes a chunker.

        Args:
            size: most ids in a chunk, at least 1.
            dedupe: whether an id met before in this run is dropped.
            form: what an id looks like.
            file: opens a file in which a set of opaque ids has room, and gives its descriptor; -1 if there is none.
        """
        self._size = size
        self._dedupe = dedupe
        self._form = form
        self._file = file
        opaque = form is IdForm.OPAQUE
        self._scanner = Scanner(
            size, dedupe=dedupe, opaque=opaque, file=file() if file is not None and opaque and dedupe else -1
        )
        self._ordinal = 0
        self._sources: list[str] = []
        self._rest = b""
        self._overlong = False
        self._bom_passed = False

    def anew(self, file: Callable[[], int] | None = None) -> Chunker:
        """Gives a new chunker of the same kind, if need be with a file."""
        return Chunker(self._size, dedupe=self._dedupe, form=self._form, file=file or self._file)

    @property
    def totals(self) -> Tally:
        """Is how many invalid and duplicate ids were met so far."""
        _, invalid, duplicate = self._scanner.totals
        return Tally(invalid=invalid, duplicate=duplicate)

    @property
    def ordinal(self) -> int:
        """Is the number of the last full chunk."""
        return self._ordinal

    @property
    def ids(self) -> int:
        """Is how many ids were kept so far."""
        return self._scanner.totals[0]

    @property
    def set_bytes(self) -> int:
        """Is the size of the set of ids already met, in memory and in its file."""
        return self._scanner.seen_bytes

    def begin(self, source: str) -> None:
        """Starts on a new source; the one before was ended with `end`."""
        self._scanner.begin(len(self._sources))
        self._sources.append(source)
        self._rest = b""
        self._overlong = False
        self._bom_passed = False

    def feed(self, block: bytes) -> Cut:
        """Takes the next block of the source: UTF-8 text of any length that may end anywhere."""
        cut = Cut()
        if not self._bom_passed:
            block = self._rest + block
            self._rest = b""
            if len(block) < len(_BOM) and _BOM.startswith(block):
                self._rest = block
                return cut
            block = block.removeprefix(_BOM)
            self._bom_passed = True
        if self._overlong:
            block = block[_first_separator(block) :]
            self._overlong = not block
        begin = 0
        if self._rest:
            # Only its end is put to what waits: to put the block to it would copy the block.
            begin = _first_separator(block) + 1
            self._rest += block[:begin]
            if begin > len(block):
                self._shorten_rest()
                return cut
            self._take(self._rest, 0, len(self._rest), cut)
        # A carriage return at the very end may be half a line end: it waits with what stands before it.
        end = block.rfind(b"\n", begin) + 1
        end = max(block.rfind(b",", max(begin, end)) + 1, end, begin)
        self._take(block, begin, end, cut)
        self._rest = block[end:]
        self._shorten_rest()
        return cut

    def end(self) -> Cut:
        """Ends the source: what follows its last separator is a token too."""
        cut = Cut()
        data = self._rest if self._bom_passed else self._rest.removeprefix(_BOM)
        if data:
            self._take(data + b"\n", 0, len(data) + 1, cut)
        self._rest = b""
        return cut

    def finish(self) -> tuple[Chunk | None, Tally]:
        """Ends the run.

        Returns:
            The last, shorter chunk, or None when the last chunk was full; its tally reaches to the end of the
            input. And the tally of what stood after the last chunk.
        """
        text, ids, source, line, invalid, duplicate = self._scanner.pending()
        if not ids:
            return None, Tally(invalid=invalid, duplicate=duplicate)
        return self._chunk((text[:-1], ids, source, line, invalid, duplicate)), Tally()

    def snapshot(self) -> Snapshot:
        """Gives where the chunker stands, for `restore`."""
        filling, *tally = self._scanner.pending()
        return Snapshot(
            size=self._size,
            dedupe=self._dedupe,
            form=self._form,
            ordinal=self._ordinal,
            sources=tuple(self._sources),
            line=self._scanner.line,
            rest=self._rest,
            overlong=self._overlong,
            bom_passed=self._bom_passed,
            filling=filling,
            tally=tally,
            totals=self._scanner.closed,
        )

    def set_parts(self) -> Iterator[bytes]:
        """Gives the set of ids already met in parts of about a megabyte, for `restore` on this machine."""
        part, place = self._scanner.dump(0)
        while part:
            yield part
            part, place = self._scanner.dump(place)

    def restore(self, snapshot: Snapshot, set_parts: Iterable[bytes]) -> None:
        """Makes this chunker, which is new, what another was; what it cuts from then on is the same.

        Raises:
            ValueError: the snapshot is one of another kind of chunker, or the parts are none; this one is spoilt.
        """
        if (snapshot.size, snapshot.dedupe, snapshot.form) != (self._size, self._dedupe, self._form):
            raise ValueError("The snapshot is one of another kind of chunker.")
        self._ordinal = snapshot.ordinal
        self._sources = list(snapshot.sources)
        self._rest = snapshot.rest
        self._overlong = snapshot.overlong
        self._bom_passed = snapshot.bom_passed
        for part in set_parts:
            self._scanner.load(part)
        ids, source, line, invalid, duplicate = snapshot.tally
        all_ids, all_invalid, all_duplicate = snapshot.totals
        self._scanner.resume(
            (snapshot.filling, ids, source, line, invalid, duplicate), (all_ids, all_invalid, all_duplicate)
        )
        self._scanner.begin(len(self._sources) - 1, snapshot.line)

    def _shorten_rest(self) -> None:
        """Keeps of a long beginning what decides about the whole: no more than twice the longest token."""
        if len(self._rest) <= _LONGEST_TOKEN_BYTES:
            return
        rest = self._rest.lstrip(BLANKS)
        # What stands at its end may be behind the id: blanks, and the first half of a line end.
        core = rest.removesuffix(b"\r").rstrip(BLANKS)
        if len(core) > _LONGEST_TOKEN_BYTES:
            self._overlong = True
            # One byte too long, and that one not blank, so that it stays too long.
            self._rest = core[:_LONGEST_TOKEN_BYTES] + b"x"
        else:
            # More blanks than these say no more: whatever follows, the token is too long, or they are trimmed.
            behind = rest[len(core) :]
            line_end = b"\r" if behind.endswith(b"\r") else b""
            self._rest = core + behind.removesuffix(b"\r")[:_LONGEST_TOKEN_BYTES] + line_end

    def _take(self, text: bytes, start: int, end: int, cut: Cut) -> None:
        """Works on whole tokens: this part of the text ends with a separator.

        Raises:
            SinkError: the set of ids already met cannot be read back from its file.
        """
        try:
            pieces, faults = self._scanner.scan(text, start, end)
        except OSError as error:
            raise SinkError(
                f"The ids already met are kept in the run directory, and cannot be read there: {error.strerror}."
            ) from error
        cut.chunks += [self._chunk(piece) for piece in pieces]
        cut.invalid += [self._invalid(line, text[at : at + length]) for line, at, length in faults]

    def _chunk(self, piece: Piece) -> Chunk:
        body, ids, source, line, invalid, duplicate = piece
        self._ordinal += 1
        return Chunk(
            ordinal=self._ordinal,
            body=body,
            ids=ids,
            digest=hashlib.sha256(body).hexdigest(),
            first_id=body[: body.find(b"\n")].decode() if ids > 1 else body.decode(),
            last_id=body[body.rfind(b"\n") + 1 :].decode(),
            source=self._sources[source],
            line=line,
            tally=Tally(invalid=invalid, duplicate=duplicate),
        )

    def _invalid(self, line: int, text: bytes) -> InvalidId:
        reason = self._fault_of(text)
        if reason is None:
            raise InternalError(f"{shown(text)} was taken for no id, but nothing is wrong with it.")
        return InvalidId(
            source=self._sources[-1], line=line, text=shown(text[:_LONGEST_TOKEN_BYTES]), reason=reason
        )

    def _fault_of(self, text: bytes) -> str | None:
        if len(text) <= _LONGEST_TOKEN_BYTES:
            return fault_of(text, self._form)
        reason = f"more than {_LONGEST_TOKEN_BYTES} bytes without a newline or a comma"
        if b"\r" in text[:_LONGEST_TOKEN_BYTES]:
            reason += ": are lines ended by CR alone? Convert them to LF"
        return reason


def _first_separator(block: bytes) -> int:
    """Gives the position of the first newline or comma; the length of the block if it has none."""
    newline = block.find(b"\n")
    end = newline if newline >= 0 else len(block)
    comma = block.find(b",", 0, end)
    return comma if comma >= 0 else end
