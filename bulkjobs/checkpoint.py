"""Places in the sources from which a later session can read on, instead of reading everything again.

A checkpoint holds what the chunker knows at the end of a block: the ids already met, the chunk that is being filled,
and where in which source it stands. It is made now and then while a run reads, and only speeds up what comes after:
whatever speaks against one (a source that may have changed, a damaged file, a chunk that the ledger does not know or
that has to go out again) leads to an older one, or to the beginning.

The file: a line that names its format, a line of JSON, the rest of the last block, the chunk that is being filled,
the parts of the set of ids, each after its length, and the SHA-256 of all that.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, Final

import orjson

from bulkjobs.chunking import Chunker, Snapshot

__all__ = ["Checkpoint", "Checkpoints"]

_FORMAT: Final = f"bulkjobs checkpoint 1 {sys.byteorder}-endian\n".encode()
_KEPT: Final = 2
"""The newest may lie behind a chunk that has to go out again; the one before rarely does."""
_LEAST_BYTES: Final = 64 * 1024 * 1024
"""Text between two checkpoints: a fraction of a second of reading."""
_READ_PER_WRITTEN: Final = 4
"""Text between two checkpoints for each byte that one takes, so that they stay a small part of the work."""
_LENGTH_BYTES: Final = 8
_AT_ONCE_BYTES: Final = 1024 * 1024
_NAME: Final = re.compile(r"\d{10}\.checkpoint")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Is a place in the sources."""

    versions: Sequence[str]
    """Of each source up to the one that is read there: what `ports.SeekableSource.version` said."""
    mark: str
    """Where in the last of these."""
    report_bytes: int
    """Length of the report of invalid ids."""
    chunker: Snapshot


class Checkpoints:
    """Keeps the checkpoints of one run in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        """Names the folder; it is made when the first checkpoint is."""
        self._folder = folder
        self._read_bytes = 0
        self._broken = False

    def is_due(self, text_bytes: int, set_bytes: int) -> bool:
        """Takes note of text that was read, and tells whether enough was to make a checkpoint.

        Args:
            text_bytes: how much was read since the last call.
            set_bytes: size of the set of ids, which a checkpoint has to write.
        """
        self._read_bytes += text_bytes
        return not self._broken and self._read_bytes >= max(_LEAST_BYTES, _READ_PER_WRITTEN * set_bytes)

    def save(self, checkpoint: Checkpoint, parts: Iterable[bytes]) -> None:
        """Writes a checkpoint and drops old ones. A disk that does not take it ends the making, and nothing else.

        Args:
            checkpoint: see there.
            parts: of the set of ids already met.
        """
        self._read_bytes = 0
        path = self._folder / f"{checkpoint.chunker.ordinal:010d}.checkpoint"
        temporary = path.with_suffix(".new")
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                _write(file, checkpoint, parts)
                file.flush()
                os.fsync(descriptor)
            temporary.replace(path)
            for old in self._newest_first()[_KEPT:]:
                old.unlink()
        except OSError:
            self._broken = True  # whoever has to write will say what is wrong with the disk
            with suppress(OSError):
                temporary.unlink()

    def newest(
        self, most_ordinal: int, make_chunker: Callable[[], Chunker], serves: Callable[[Checkpoint], bool]
    ) -> tuple[Checkpoint, Chunker] | None:
        """Finds the newest checkpoint that can be gone on from.

        Args:
            most_ordinal: the last chunk of which nothing is needed any more.
            make_chunker: gives a new chunker of the run.
            serves: tells of a checkpoint whether the sources are still what they were.

        Returns:
            The checkpoint, and a chunker that is where it was then; None when all has to be read.
        """
        for path in self._newest_first():
            if int(path.stem) > most_ordinal:
                continue
            chunker = make_chunker()
            with suppress(
                OSError, ValueError, KeyError, TypeError
            ):  # whatever is wrong with a file, there is another way
                checkpoint = _load(path, chunker, serves)
                if checkpoint is not None:
                    return checkpoint, chunker
        return None

    def clear(self) -> None:
        """Drops all of them: nothing is left to read."""
        with suppress(OSError):
            for path in self._folder.iterdir():
                path.unlink()
            self._folder.rmdir()

    def _newest_first(self) -> list[Path]:
        try:
            names = [name for name in os.listdir(self._folder) if _NAME.fullmatch(name)]  # noqa: PTH208 - plain names
        except OSError:
            return []
        return [self._folder / name for name in sorted(names, reverse=True)]


class _Hashed:
    """Passes bytes to a file and hashes them."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()

    def write(self, data: bytes) -> None:
        self._hash.update(data)
        self._file.write(data)

    def write_sized(self, data: bytes) -> None:
        self.write(len(data).to_bytes(_LENGTH_BYTES, "little"))
        self.write(data)

    def digest(self) -> bytes:
        return self._hash.digest()


def _read_sized(file: BinaryIO) -> bytes:
    return file.read(int.from_bytes(file.read(_LENGTH_BYTES), "little"))


def _write(file: BinaryIO, checkpoint: Checkpoint, parts: Iterable[bytes]) -> None:
    out = _Hashed(file)
    values = asdict(checkpoint)
    rest, filling = values["chunker"].pop("rest"), values["chunker"].pop("filling")
    out.write(_FORMAT)
    out.write(orjson.dumps(values) + b"\n")
    for piece in (rest, filling):
        out.write_sized(piece)
    for part in parts:
        out.write_sized(part)
    out.write_sized(b"")
    file.write(out.digest())


def _load(path: Path, chunker: Chunker, serves: Callable[[Checkpoint], bool]) -> Checkpoint | None:
    """Reads a checkpoint into a chunker; None when it does not serve, and then neither may the chunker."""
    with path.open("rb") as file:
        if not _is_whole(file) or file.readline() != _FORMAT:
            return None
        values = orjson.loads(file.readline())
        rest, filling = _read_sized(file), _read_sized(file)
        values["chunker"] = Snapshot(**values["chunker"], rest=rest, filling=filling)
        checkpoint = Checkpoint(**values)
        if not serves(checkpoint):
            return None
        chunker.restore(checkpoint.chunker, _parts(file))
        return checkpoint


def _is_whole(file: BinaryIO) -> bool:
    """Tells whether a file is as it was written, before anything in it is believed; goes back to its beginning."""
    left = file.seek(-hashlib.sha256().digest_size, os.SEEK_END)
    stated = file.read()
    file.seek(0)
    found = hashlib.sha256()
    while left and (block := file.read(min(left, _AT_ONCE_BYTES))):
        found.update(block)
        left -= len(block)
    file.seek(0)
    return found.digest() == stated


def _parts(file: BinaryIO) -> Iterator[bytes]:
    while part := _read_sized(file):
        yield part
