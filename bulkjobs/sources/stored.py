"""Ids in stored bytes, wherever these are: text, plain or compressed, a column of such, or one of a Parquet file."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, Final

from bulkjobs.errors import SourceError
from bulkjobs.sources.ahead import Piece, Pieces, ahead
from bulkjobs.sources.blob import Blob, LocalFile
from bulkjobs.sources.compression import SIGNATURE_BYTES, Unpacker, unpacker
from bulkjobs.sources.delimited import Column, ColumnReader
from bulkjobs.sources.kinds import check_text, is_parquet
from bulkjobs.sources.parquet import parquet_pieces

__all__ = ["FileSource", "StoredSource"]

_BLOCK_BYTES: Final = 1024 * 1024


class StoredSource:
    """Reads the ids in a blob. Implements `ports.SeekableSource`."""

    def __init__(self, blob: Blob, *, column: Column | None = None) -> None:
        """Takes the blob, which is opened when the reading begins.

        Args:
            blob: where the bytes are.
            column: name or number of the column with the ids, if it is a table.
        """
        self._blob = blob
        self._column = column
        self.name = blob.name
        self.repeatable = blob.repeatable
        self.size_bytes = blob.size_bytes
        self.position_bytes = 0
        self.mark: str | None = None

    @property
    def fingerprint(self) -> str | None:
        """Is that of the blob."""
        return self._blob.fingerprint

    @property
    def version(self) -> str | None:
        """Is that of the blob."""
        return self._blob.version

    def blocks(self) -> AsyncGenerator[bytes, None]:
        """Reads from the beginning. See `ports.Source`."""
        return self._blocks(None)

    def blocks_after(self, mark: str) -> AsyncGenerator[bytes, None]:
        """Reads on behind a mark. See `ports.SeekableSource`."""
        return self._blocks(mark)

    async def _blocks(self, mark: str | None) -> AsyncGenerator[bytes, None]:
        self.position_bytes = 0
        self.mark = mark
        pieces = ahead(self._pieces(mark))
        try:
            async for piece in pieces:
                self.position_bytes, self.mark = piece.position_bytes, piece.mark
                yield piece.text
        finally:
            await pieces.aclose()
        if self.size_bytes is not None:
            self.position_bytes = self.size_bytes

    def _pieces(self, mark: str | None) -> Pieces:
        with closing(self._blob.open()) as file:
            stored = _Stored(self.name, file)
            beginning = stored.beginning()
            if is_parquet(beginning):
                yield from parquet_pieces(self.name, file, self.size_bytes, self._column, mark)
            else:
                check_text(self.name, beginning)
                yield from self._texts(stored, unpacker(self.name, beginning), mark)
            self._blob.check_unchanged(file)

    def _texts(self, stored: _Stored, packed: Unpacker | None, mark: str | None) -> Pieces:
        pieces = _plain(stored) if packed is None else _unpacked(packed, stored)
        reader = None if self._column is None else ColumnReader(self.name, self._column)
        if mark is not None:
            if reader is not None:
                while not reader.knows_its_column and (piece := next(pieces, None)) is not None:
                    reader.feed(piece.text)
                reader.go_on()
            stored.seek(int(mark))
        yield from pieces if reader is None else _column(reader, pieces)


class FileSource(StoredSource):
    """Reads the ids in a file on this machine."""

    def __init__(self, path: str | Path, *, column: Column | None = None) -> None:
        """Looks at the file, without reading its content.

        Raises:
            SourceError: there is no such file, it is not a regular file, or it cannot be opened.
        """
        super().__init__(LocalFile(path), column=column)


class _Stored:
    """Reads an opened blob block by block, and tells where it could not."""

    def __init__(self, name: str, file: BinaryIO) -> None:
        self._name = name
        self._file = file
        self._held = b""
        self.position_bytes = 0
        """Of what was given."""

    def beginning(self) -> bytes:
        """Gives the first bytes, enough to tell what this is, or all there are; `read` gives them again."""
        while len(self._held) < SIGNATURE_BYTES and (block := self._read()):
            self._held += block
        return self._held[:SIGNATURE_BYTES]

    def read(self) -> bytes:
        """Gives the next block, nothing at the end."""
        block, self._held = self._held or self._read(), b""
        self.position_bytes += len(block)
        return block

    def seek(self, position_bytes: int) -> None:
        """Goes on at a position."""
        self._held, self.position_bytes = b"", position_bytes
        try:
            self._file.seek(position_bytes)
        except OSError as error:
            raise self._unreadable(error) from error

    def _read(self) -> bytes:
        try:
            return self._file.read(_BLOCK_BYTES)
        except OSError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: OSError) -> SourceError:
        return SourceError(
            f"{self._name} cannot be read beyond byte {self.position_bytes}: {error.strerror or error}."
        )


def _plain(stored: _Stored) -> Pieces:
    while block := stored.read():
        yield Piece(block, stored.position_bytes, str(stored.position_bytes))


def _unpacked(packed: Unpacker, stored: _Stored) -> Pieces:
    while block := stored.read():
        packed.start(block)
        while text := packed.next():
            yield Piece(text, stored.position_bytes)
    packed.finish()


def _column(reader: ColumnReader, pieces: Pieces) -> Pieces:
    position_bytes = 0
    for piece in pieces:
        position_bytes = piece.position_bytes
        if text := reader.feed(piece.text):
            mark = None if piece.mark is None else str(int(piece.mark) - reader.held_bytes)
            yield Piece(text, position_bytes, mark)
    if text := reader.finish():
        yield Piece(text, position_bytes)
