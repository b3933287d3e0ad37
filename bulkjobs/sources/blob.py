"""Where stored bytes come from. How they are read is the same for all of them: see `stored`."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO, Protocol

from bulkjobs.errors import SourceChanged, SourceError

__all__ = ["Blob", "LocalFile"]


class Blob(Protocol):
    """Is a number of bytes with a name, which can be opened as often as needed."""

    @property
    def name(self) -> str:
        """Is how records, messages and `invalid.jsonl` call it; stable between runs."""

    @property
    def repeatable(self) -> bool:
        """Tells whether opening it again gives the same bytes."""

    @property
    def size_bytes(self) -> int | None:
        """Is how many bytes there are; None when nobody knows."""

    @property
    def fingerprint(self) -> str | None:
        """Is a cheap mark that changes when the content does, or None when there is none."""

    @property
    def version(self) -> str | None:
        """Changes whenever the content may have, also where `fingerprint` does not; None when nobody can tell."""

    def open(self) -> BinaryIO:
        """Opens it for reading from its beginning. Blocks, so it is called in a thread, as is all that it gives.

        Returns:
            A file of which `read`, `close` and, where it can begin in the middle, `seekable`, `seek` and `tell` are
            used. `read` may give less than was asked for, and nothing only at the end; it raises OSError.

        Raises:
            SourceError: it cannot be opened.
        """

    def check_unchanged(self, file: BinaryIO) -> None:
        """Passes when what was read from an opened file, to its end, is what `fingerprint` speaks of.

        Raises:
            SourceChanged: it is not.
        """


class LocalFile:
    """Is a file on this machine. Implements `Blob`."""

    repeatable = True

    def __init__(self, path: str | Path, name: str | None = None) -> None:
        """Looks at the file, without reading it; `name` is its name where that is not the path.

        Raises:
            SourceError: there is no such file, it is not a regular file, or it cannot be opened.
        """
        # Bytes that are no UTF-8 are legal in a file name, but neither in JSON nor in the ledger.
        self.name = name if name is not None else os.fsencode(path).decode("utf-8", "backslashreplace")
        self._path = Path(path)
        try:
            status = os.stat(path)  # noqa: PTH116 - Path("") would be the folder we are in
            if stat.S_ISDIR(status.st_mode):
                raise SourceError(
                    f"{self.name} is a folder. Name the files in it, for example {self.name}/*.txt."
                )
            if not stat.S_ISREG(status.st_mode):
                raise SourceError(f"{self.name} is not a regular file. Pipe it in and give - as the source.")
            with self._path.open("rb"):
                pass  # only to learn now, before anything is sent, whether it may be read
        except OSError as error:
            raise self._unreadable(error) from error
        except ValueError as error:  # a NUL in it
            raise SourceError(f"{self.name!r} is no path: {error}.") from error
        self._status = status
        self.size_bytes = status.st_size

    @property
    def fingerprint(self) -> str:
        """Is the size and the time of the last change."""
        return f"{self._status.st_size}:{self._status.st_mtime_ns}"

    @property
    def version(self) -> str:
        """Is the fingerprint with what no program sets at will: the inode, and the time of its own last change."""
        return f"{self.fingerprint}:{self._status.st_ctime_ns}:{self._status.st_ino}"

    def open(self) -> BinaryIO:
        """Opens the file. See `Blob`."""
        try:
            return self._path.open("rb", buffering=0)
        except OSError as error:
            raise self._unreadable(error) from error

    def check_unchanged(self, file: BinaryIO) -> None:
        """Compares size and time with those of the first look. See `Blob`."""
        now = os.fstat(file.fileno())
        if (now.st_size, now.st_mtime_ns) != (self._status.st_size, self._status.st_mtime_ns):
            raise SourceChanged(
                f"{self.name} changed while it was read. What was sent stays valid; put the file back as it was "
                f"to go on with this run, or start another run with the new one."
            )

    def _unreadable(self, error: OSError) -> SourceError:
        return SourceError(f"{self.name or repr('')} cannot be read: {error.strerror or error}.")
