"""Compressed text, unpacked piece by piece in constant memory: gzip, zstd, bzip2 and xz.

Each may consist of several members (frames, streams) one behind the other, as `cat` and parallel compressors leave
them, with zeros between and behind them, as tapes and block devices do.
"""

from __future__ import annotations

import bz2
import functools
import lzma
import re
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from bulkjobs.errors import SourceError

__all__ = ["SIGNATURE_BYTES", "UNPACKED_BYTES", "Unpacker", "unpacker"]

UNPACKED_BYTES: Final = 1024 * 1024
"""Most text in one piece."""
_BOMB_BYTES: Final = 64 * 1024 * 1024
"""Below this much text it does not matter how little it was."""
SIGNATURE_BYTES: Final = 10
"""The longest signature."""
_HEADER_BYTES: Final = 1024 * 1024
"""Longest header of gzip that is waited for; it holds a name, a comment and up to 64 KiB of anything."""
_XZ_MEMORY_BYTES: Final = 256 * 1024 * 1024
"""`xz -9` needs 65 MiB; a file could ask for any amount."""


class _Member(Protocol):
    """Unpacks one member; the standard library's interface for bzip2, xz and, from Python 3.14 on, zstd."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class _ZlibMember:
    """Gives `zlib` that interface."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=31)
        self._tail = b""

    @property
    def eof(self) -> bool:
        return self._member.eof

    @property
    def needs_input(self) -> bool:
        return not self._tail and not self._member.eof

    @property
    def unused_data(self) -> bytes:
        return self._member.unused_data

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        text = self._member.decompress(self._tail + data if self._tail else data, max_length)
        self._tail = self._member.unconsumed_tail
        return text


class _IsalMember:
    """Gives isal's decompressor a whole header at once.

    Of a header that comes in parts it forgets which fields are in it: it then took a good file for a damaged one, and
    did not compare the header's check sum.

    Source: https://github.com/intel/isa-l/issues/224.
    """

    def __init__(self, member: _Member) -> None:
        self._member = member
        self._header: bytes | None = b""
        """What there is of it; None when it has been handed on."""

    @property
    def eof(self) -> bool:
        return self._member.eof

    @property
    def needs_input(self) -> bool:
        return self._header is not None or self._member.needs_input

    @property
    def unused_data(self) -> bytes:
        return self._member.unused_data

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        if self._header is not None:
            data = self._header + data
            if not _has_gzip_header(data):
                if len(data) > _HEADER_BYTES:
                    raise ValueError("the header does not end")
                self._header = data
                return b""
            self._header = None
        return self._member.decompress(data, max_length)


def _has_gzip_header(data: bytes) -> bool:
    """Tells whether a member's header is all there, or so wrong that more of it does not matter.

    Source: RFC 1952, section 2.3.
    """
    if not data.startswith(b"\x1f\x8b"[: len(data)]):
        return True
    if len(data) < 10:  # noqa: PLR2004 - the fields that are always there
        return False
    flags, end = data[3], 10
    if flags & 4:  # a length and so many bytes
        end += 2 + int.from_bytes(data[10:12], "little")
    for flag in (8, 16):  # a name and a comment, with a zero behind each
        if flags & flag:
            end = data.find(b"\0", end) + 1
            if end == 0:
                return False
    return len(data) >= end + (flags & 2)  # two bytes of check sum


@functools.cache
def _gzip_library() -> Callable[[], _Member]:
    """Finds the faster library for gzip, if it is there: it takes 0.4 of the time of `zlib`."""
    try:
        from isal.igzip_lib import DECOMP_GZIP, IgzipDecompressor  # noqa: PLC0415 - an extra
    except ImportError:
        return _ZlibMember
    return lambda: _IsalMember(IgzipDecompressor(flag=DECOMP_GZIP))


def _zstd_member(name: str) -> _Member:
    try:
        if sys.version_info >= (3, 14):
            from compression.zstd import ZstdDecompressor  # noqa: PLC0415 - an extra before
        else:
            from backports.zstd import ZstdDecompressor  # noqa: PLC0415 - an extra
    except ImportError:
        raise SourceError(
            f'{name} is zstd, which takes an extra: pip install "bulkjobs[zstd]". Or unpack it and give the text.'
        ) from None
    return ZstdDecompressor()


@dataclass(frozen=True, slots=True)
class _Kind:
    """Is one way of compression."""

    name: str
    signature: re.Pattern[bytes]
    """Of the first bytes of a file."""
    member: Callable[[str], _Member]
    """Begins a member; takes the name of the source."""
    most: int
    """What grows more than so many times is no list of ids."""


_KINDS: Final = (
    # Lists of ids shrink to a third or a tenth.
    _Kind("gzip", re.compile(rb"\x1f\x8b"), lambda _: _gzip_library()(), 200),
    # A frame; or one to be skipped, with which parallel compressors begin. These three do far better than gzip on
    # numbers without a gap: xz makes a 134th of a million of them.
    _Kind("zstd", re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18", re.DOTALL), _zstd_member, 1_000),
    # With what follows in every file: an opaque id may begin like its first four bytes.
    _Kind("bzip2", re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)"), lambda _: bz2.BZ2Decompressor(), 1_000),
    _Kind(
        "xz",
        re.compile(rb"\xfd7zXZ\x00"),
        lambda _: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES),
        1_000,
    ),
)


def unpacker(name: str, beginning: bytes) -> Unpacker | None:
    """Tells by its first bytes how a source is compressed; None when it is not.

    Args:
        name: how messages call the source.
        beginning: its first `SIGNATURE_BYTES`, or all there is.

    Raises:
        SourceError: unpacking it takes a package that is not installed.
    """
    kind = next((one for one in _KINDS if one.signature.match(beginning)), None)
    return None if kind is None else Unpacker(name, kind)


class Unpacker:
    """Unpacks a source piece by piece: several members, padding with zeros, in constant memory."""

    def __init__(self, name: str, kind: _Kind) -> None:
        """Starts unpacking; `name` is how messages call the source."""
        self._name = name
        self._kind = kind
        self._member = kind.member(name)
        self._begun = False
        self._pending = b""
        self._stored_bytes = 0
        self._text_bytes = 0

    def start(self, stored: bytes) -> None:
        """Takes the next stored bytes, once `next` gave nothing more; it then gives their text."""
        self._stored_bytes += len(stored)
        self._pending = stored

    def next(self) -> bytes:
        """Gives the next piece of text, at most `UNPACKED_BYTES`; nothing when more stored bytes are needed.

        Raises:
            SourceError: the data is damaged, followed by something else, or unpacks out of all proportion.
        """
        while self._pending or not (self._member.eof or self._member.needs_input):
            if self._member.eof:
                self._pending = self._pending.lstrip(b"\x00")
                if not self._pending:
                    break
                self._member = self._kind.member(self._name)
                self._begun = False
            try:
                text = self._member.decompress(self._pending, UNPACKED_BYTES)
            except Exception as error:  # each library has its own, and zlib's is a plain Exception
                raise SourceError(
                    f"{self._name}: the {self._kind.name} data is damaged near byte {self._stored_bytes} "
                    f"({error}). The ids before it stay valid; repair the file and give the same command again."
                ) from error
            self._begun = True
            self._pending = self._member.unused_data if self._member.eof else b""
            if text:
                self._count(len(text))
                return text
        return b""

    def finish(self) -> None:
        """Checks that the data did not stop in the middle.

        Raises:
            SourceError: it did.
        """
        if self._begun and not self._member.eof:
            raise SourceError(
                f"{self._name}: the {self._kind.name} data ends early, after {self._stored_bytes} bytes "
                f"({self._text_bytes} bytes of text). The ids before that stay valid; get the whole file and "
                f"give the same command again."
            )

    def _count(self, text_bytes: int) -> None:
        self._text_bytes += text_bytes
        if self._text_bytes > max(_BOMB_BYTES, self._kind.most * self._stored_bytes):
            raise SourceError(
                f"{self._name}: {self._stored_bytes} bytes unpack to more than {self._text_bytes}: this is no "
                f"list of ids. If it is, unpack it and give the text file."
            )
