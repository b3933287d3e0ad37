"""Blocks of text in, chunks out; invalid and duplicate ids told apart on the way.

A text file of ids already holds every request body, so a chunk is a slice between two newlines. All work on
a block is done on whole buffers, and only what is not a clean id is looked at one by one:

1. the block is cut at its last separator, the rest waits for the next block;
2. separators, and the few tokens that hold anything but a digit, are found with array operations;
3. those few are judged by `ids.fault_of`: blank, in need of a trim, or invalid;
4. the others become integers in one call, and the set of ids already met says which are new;
5. what stays is one text with one newline after each id, which is cut at every n-th newline.

The result depends on the input alone, never on where a block happens to end. A chunk's tally counts exactly
what stood before its last id (the last chunk's: before the end of the input), so that a run which reads its
source again counts the same.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from bulkjobs.ids import BLANKS, MAX_DIGITS, fault_of, shown
from bulkjobs.model import Chunk, InvalidId, Tally
from bulkjobs.seen import SeenIds

__all__ = ["Chunker", "Cut"]

_BOM: Final = b"\xef\xbb\xbf"
_NEWLINE: Final = 10
_ZERO: Final = 48
_DIGITS_AND_NEWLINE: Final = b"0123456789\n"
_IS_ODD: Final = np.array([byte not in _DIGITS_AND_NEWLINE for byte in range(256)], dtype=np.bool_)
_LONGEST_TOKEN_BYTES: Final = 64 * 1024
"""A longer piece, without the blanks around it, is not an id whatever it holds; its rest is passed over unread."""

_Positions = npt.NDArray[np.intp]
_Mask = npt.NDArray[np.bool_]


@dataclass(slots=True)
class Cut:
    """Is what one block gave."""

    chunks: list[Chunk] = field(default_factory=list)
    invalid: list[InvalidId] = field(default_factory=list)


@dataclass(slots=True)
class _Gathering:
    """Holds the chunk that is being filled."""

    parts: list[bytes] = field(default_factory=list)
    ids: int = 0
    source: str = ""
    line: int = 0
    invalid: int = 0
    duplicate: int = 0


class _Block:
    """Holds whole tokens of one source as a buffer and, for each token, where it starts and ends in it."""

    def __init__(self, data: bytes, source: str, line: int) -> None:
        """Finds the tokens.

        Args:
            data: text that ends with a separator, line ends as LF.
            source: name of the source.
            line: number of its line on which `data` starts.
        """
        self.source = source
        self.line = line
        self._newlines: _Positions | None = None
        if b"," in data:
            self._newlines = np.flatnonzero(np.frombuffer(data, np.uint8) == _NEWLINE)
            data = data.replace(b",", b"\n")
        self.data = data
        self.buffer = np.frombuffer(data, np.uint8)
        self.ends = np.flatnonzero(self.buffer == _NEWLINE)
        self.starts = np.empty_like(self.ends)
        self.starts[0] = 0
        self.starts[1:] = self.ends[:-1] + 1

    @property
    def lines(self) -> int:
        """Is how many lines end in this block."""
        return len(self.ends if self._newlines is None else self._newlines)

    def line_of(self, token: int) -> int:
        """Gives the number of the line on which a token stands."""
        if self._newlines is None:
            return self.line + token
        return self.line + int(np.searchsorted(self._newlines, self.starts[token]))

    def text_of(self, token: int) -> bytes:
        """Gives a token without the blanks around it."""
        return self.data[self.starts[token] : self.ends[token]].strip(BLANKS)

    def odd_tokens(self) -> _Positions:
        """Finds the tokens that are not surely ids: empty, too long, a leading zero, a byte not a digit."""
        lengths = self.ends - self.starts
        odd: _Mask = self.buffer[self.starts] == _ZERO
        if lengths.max() > MAX_DIGITS or not lengths.min():
            odd |= (lengths > MAX_DIGITS) | (lengths == 0)
        if self.data.translate(None, _DIGITS_AND_NEWLINE):
            odd[np.searchsorted(self.ends, np.flatnonzero(_IS_ODD[self.buffer]))] = True
        return np.flatnonzero(odd)

    def only(self, stays: _Mask) -> bytes:
        """Copies the tokens that stay, ids with at most blanks around them, each with its newline."""
        mask = np.repeat(stays, self.ends - self.starts + 1)
        mask &= (self.buffer != BLANKS[0]) & (self.buffer != BLANKS[1])
        return self.buffer[mask].tobytes()


@dataclass(slots=True)
class _Kept:
    """Holds the ids of one block that stay, and where the others stood among them."""

    text: bytes
    """The ids, each followed by a newline."""
    ends: _Positions
    """Position of each of these newlines."""
    tokens: _Positions
    """Number of each id among all tokens of the block."""
    invalid: _Positions
    """Numbers of the invalid tokens, ascending."""
    duplicate: _Positions
    """Numbers of the duplicate tokens, ascending."""


class Chunker:
    """Cuts the text of one or more sources into chunks. Chunks go on over the end of a source."""

    def __init__(self, size: int, *, dedupe: bool) -> None:
        """Makes a chunker.

        Args:
            size: most ids in a chunk, at least 1.
            dedupe: whether an id met before in this run is dropped.
        """
        self._size = size
        self._seen = SeenIds() if dedupe else None
        self._ordinal = 0
        self._read = Tally()
        self._ids = 0
        self._gathering = _Gathering()
        self._source = ""
        self._line = 1
        self._rest = b""
        self._overlong = False
        self._bom_passed = False

    @property
    def totals(self) -> Tally:
        """Is how many invalid and duplicate ids were met so far."""
        return self._read

    @property
    def ids(self) -> int:
        """Is how many ids were kept so far."""
        return self._ids

    @property
    def seen_bytes(self) -> int:
        """Is the memory of the set of ids already met."""
        return self._seen.nbytes if self._seen is not None else 0

    def begin(self, source: str) -> None:
        """Starts on a new source; the one before was ended with `end`."""
        self._source = source
        self._line = 1
        self._rest = b""
        self._overlong = False
        self._bom_passed = False

    def feed(self, block: bytes) -> Cut:
        """Takes the next block of the source: UTF-8 text of any length that may end anywhere."""
        if self._overlong:
            block = block[_first_separator(block) :]
            self._overlong = not block
        data = self._rest + block
        if not self._bom_passed:
            if len(data) < len(_BOM) and _BOM.startswith(data):
                self._rest = data
                return Cut()
            data = data.removeprefix(_BOM)
            self._bom_passed = True
        # A carriage return at the very end may be half a line end: it waits with what stands before it.
        end = max(data.rfind(b"\n"), data.rfind(b",")) + 1
        self._rest = data[end:]
        if len(self._rest) > _LONGEST_TOKEN_BYTES:
            self._shorten_rest()
        cut = Cut()
        if end:
            self._take(data[:end], cut)
        return cut

    def end(self) -> Cut:
        """Ends the source: what follows its last separator is a token too."""
        cut = Cut()
        if self._rest:
            data = self._rest.removeprefix(_BOM) if not self._bom_passed else self._rest
            if data:
                self._take(data + b"\n", cut)
        self._rest = b""
        return cut

    def finish(self) -> tuple[Chunk | None, Tally]:
        """Ends the run.

        Returns:
            The last, shorter chunk, or None when the last chunk was full; its tally reaches to the end of the
            input. And the tally of what stood after the last chunk.
        """
        last = self._emit() if self._gathering.ids else None
        gathering, self._gathering = self._gathering, _Gathering()
        return last, Tally(invalid=gathering.invalid, duplicate=gathering.duplicate)

    def _shorten_rest(self) -> None:
        """Keeps of a long beginning what decides about the whole: no more than twice the longest token."""
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

    def _take(self, data: bytes, cut: Cut) -> None:
        """Works on whole tokens: `data` ends with a separator."""
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n")
        if b", " in data:
            # As people write lists. Otherwise each of these ids would be an odd one: ten times slower.
            data = data.replace(b", ", b",")
        block = _Block(data, self._source, self._line)
        kept = self._sift(block, cut)
        self._fill(block, kept, cut)
        self._read += Tally(invalid=len(kept.invalid), duplicate=len(kept.duplicate))
        self._ids += len(kept.ends)
        self._line += block.lines

    def _sift(self, block: _Block, cut: Cut) -> _Kept:
        """Tells the ids that stay from the invalid and the duplicate ones."""
        stays: _Mask = np.ones(len(block.ends), np.bool_)
        odd = block.odd_tokens()
        invalid = np.array(_judge(block, odd.tolist(), stays, cut), dtype=np.intp)
        text = block.only(stays) if len(odd) else block.data
        duplicate = np.empty(0, np.intp)
        if self._seen is not None and text:
            fresh = self._seen.add(np.fromstring(text, np.uint64, sep="\n"))
            if not fresh.all():
                duplicate = np.flatnonzero(stays)[~fresh]
                stays[duplicate] = False
                text = block.only(stays)
        if text is block.data:
            return _Kept(text, block.ends, np.arange(len(block.ends)), invalid, duplicate)
        ends = np.flatnonzero(np.frombuffer(text, np.uint8) == _NEWLINE)
        return _Kept(text, ends, np.flatnonzero(stays), invalid, duplicate)

    def _fill(self, block: _Block, kept: _Kept, cut: Cut) -> None:
        """Moves the ids that stay into chunks."""
        begin, taken, total = 0, 0, len(kept.ends)
        invalid_done = duplicate_done = 0
        while taken < total:
            gathering = self._gathering
            if not gathering.ids:
                gathering.source = block.source
                gathering.line = block.line_of(int(kept.tokens[taken]))
            count = min(self._size - gathering.ids, total - taken)
            taken += count
            end = int(kept.ends[taken - 1]) + 1
            gathering.parts.append(kept.text[begin:end])
            gathering.ids += count
            begin = end
            if gathering.ids == self._size:
                last = kept.tokens[taken - 1]
                invalid = int(np.searchsorted(kept.invalid, last))
                duplicate = int(np.searchsorted(kept.duplicate, last))
                gathering.invalid += invalid - invalid_done
                gathering.duplicate += duplicate - duplicate_done
                invalid_done, duplicate_done = invalid, duplicate
                cut.chunks.append(self._emit())
        self._gathering.invalid += len(kept.invalid) - invalid_done
        self._gathering.duplicate += len(kept.duplicate) - duplicate_done

    def _emit(self) -> Chunk:
        """Closes the chunk that is being filled; what follows its last id belongs to the next."""
        full = self._gathering
        text = full.parts[0] if len(full.parts) == 1 else b"".join(full.parts)
        body = text[:-1]
        self._ordinal += 1
        self._gathering = _Gathering()
        return Chunk(
            ordinal=self._ordinal,
            body=body,
            ids=full.ids,
            digest=hashlib.sha256(body).hexdigest(),
            first_id=body[: body.find(b"\n")].decode() if full.ids > 1 else body.decode(),
            last_id=body[body.rfind(b"\n") + 1 :].decode(),
            source=full.source,
            line=full.line,
            tally=Tally(invalid=full.invalid, duplicate=full.duplicate),
        )


def _first_separator(block: bytes) -> int:
    """Gives the position of the first newline or comma; the length of the block if it has none."""
    return min((at for at in (block.find(b"\n"), block.find(b",")) if at >= 0), default=len(block))


def _fault_of(text: bytes) -> str | None:
    if len(text) <= _LONGEST_TOKEN_BYTES:
        return fault_of(text)
    reason = f"more than {_LONGEST_TOKEN_BYTES} bytes without a newline or a comma"
    if b"\r" in text[:_LONGEST_TOKEN_BYTES]:
        reason += ": are lines ended by CR alone? Convert them to LF"
    return reason


def _judge(block: _Block, odd: list[int], stays: _Mask, cut: Cut) -> list[int]:
    """Looks at the odd tokens one by one, takes out those that are no ids, gives the invalid ones."""
    invalid = []
    for token in odd:
        text = block.text_of(token)
        fault = _fault_of(text) if text else None
        if text and fault is None:
            continue  # only blanks around it made it odd
        stays[token] = False
        if fault is not None:
            invalid.append(token)
            cut.invalid.append(
                InvalidId(
                    source=block.source,
                    line=block.line_of(token),
                    text=shown(text[:_LONGEST_TOKEN_BYTES]),
                    reason=fault,
                )
            )
    return invalid
