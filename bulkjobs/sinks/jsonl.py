"""Job records as JSON Lines: to a file, exactly once; to standard output, at least once."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Final

from bulkjobs.errors import SinkError
from bulkjobs.forking import close_locked, keep_from_children
from bulkjobs.jsonlines import json_line
from bulkjobs.model import JobRecord
from bulkjobs.rundir import not_written, sync_folder, write_all

__all__ = ["JsonLinesSink", "StdoutSink"]

_REASONS: Final = {
    errno.ELOOP: "it is a symbolic link",
    errno.ENOENT: "it is gone, or its folder is. Put it back; --sink with another file gets what is still to come",
    errno.EWOULDBLOCK: "another process is writing it",
}


class JsonLinesSink:
    """Appends records to a file. Implements `ports.Sink`.

    The position is the length of the file, which the ledger keeps in the same transaction that calls the
    records delivered. What a crash left behind it is cut off, so each accepted chunk has exactly one line.
    """

    def __init__(self, path: Path, *, name: str | None = None) -> None:
        """Names the file; it is opened later.

        Args:
            path: the file.
            name: how the ledger remembers it; None for its absolute path. A file of the run directory has a name of
                its own, so that the directory can be moved.
        """
        # Bytes that are no UTF-8 are legal in a file name, but not in the ledger.
        self.name = name or "jsonl:" + os.fsencode(path.resolve()).decode("utf-8", "backslashreplace")
        self.path = path
        self._ours = name is not None
        self._descriptor = -1
        self._position = 0

    async def open(self, position: int | None, coming: Sequence[JobRecord] = ()) -> int:
        """Opens the file and cuts it to `position`; a file that was there before the run is kept and appended to.

        Raises:
            SinkError: it cannot be opened, another process writes it, it is shorter than `position`, or what
                stands behind that is not only what comes again: cutting it off would lose somebody's records.
        """
        try:
            await asyncio.to_thread(self._open, position, coming)
        except SinkError:
            await self.close()
            raise
        return self._position

    async def write(self, records: Sequence[JobRecord]) -> int:
        """Appends and syncs the records; gives the new length. See `ports.Sink`."""
        await asyncio.to_thread(self._append, _lines(records))
        return self._position

    async def close(self) -> None:
        """Closes the file."""
        if self._descriptor >= 0:
            close_locked(self._descriptor)
            self._descriptor = -1

    def _open(self, position: int | None, coming: Sequence[JobRecord]) -> None:
        try:
            # A file that was written to is not made anew: an empty one would hide that it is gone.
            create = 0 if position else os.O_CREAT
            flags = os.O_RDWR | create | os.O_CLOEXEC | os.O_NOFOLLOW
            self._descriptor = os.open(self.path, flags, 0o600)
            keep_from_children(self._descriptor)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            there = os.fstat(self._descriptor).st_size
            if position is not None and there < position:
                raise SinkError(
                    f"{self.path} has {there} bytes, but {position} were written to it. Put the file back."
                )
            # Of a file of the run directory all lines are the run's, so that a ledger without a position forgot them.
            self._position = position if position is not None else 0 if self._ours else there
            self._check_rest(there, coming)
            os.ftruncate(self._descriptor, self._position)
            os.lseek(self._descriptor, self._position, os.SEEK_SET)
            sync_folder(self.path.parent)
        except OSError as error:
            reason = _REASONS.get(error.errno or 0, error.strerror or error)
            raise SinkError(f"{self.path} cannot be opened for writing: {reason}.") from error
        end = self._position
        if position is None and end and os.pread(self._descriptor, 1, end - 1) != b"\n":
            self._append(b"\n")  # somebody else's last line; a record must not become a part of it

    def _check_rest(self, there: int, coming: Sequence[JobRecord]) -> None:
        """Passes what a crash left behind the position: lines that come again, perhaps torn."""
        rest = os.pread(self._descriptor, there - self._position, self._position)
        if not _is_left_of(rest, {_lines([record]) for record in coming}):
            raise SinkError(
                f"{self.path} has lines behind byte {self._position} that this run's ledger does not know. Another "
                f"run wrote them, or the ledger is an older copy and knows less than was sent: then put back the "
                f"newer one. Nothing was sent. To go on, give another --sink, or move these lines away."
            )

    def _append(self, text: bytes) -> None:
        try:
            write_all(self._descriptor, text)
            os.fsync(self._descriptor)
        except OSError as error:
            raise SinkError(not_written(self.path, error)) from error
        self._position += len(text)


class StdoutSink:
    """Writes records to standard output. Implements `ports.Sink`.

    A pipe cannot be cut back: records that were written just before a crash are written again.
    """

    name = "-"

    _out: BinaryIO

    async def open(self, position: int | None, coming: Sequence[JobRecord] = ()) -> None:
        """Takes standard output as it is now.

        Raises:
            SinkError: there is none, or it takes no bytes.
        """
        del position, coming
        out = getattr(sys.stdout, "buffer", None)
        if out is None:
            raise SinkError("Standard output cannot be written: there is none that takes bytes.")
        self._out = out

    async def write(self, records: Sequence[JobRecord]) -> None:
        """Writes and flushes the records. See `ports.Sink`."""
        await asyncio.to_thread(self._write, _lines(records))

    async def close(self) -> None:
        """Leaves standard output open."""

    def _write(self, text: bytes) -> None:
        try:
            self._out.write(text)
            self._out.flush()
        except (OSError, ValueError) as error:
            raise SinkError(f"Standard output cannot be written: {error}.") from error


def _is_left_of(rest: bytes, lines: set[bytes]) -> bool:
    """Tells whether bytes are what may be left of writing these lines in any order.

    The last may be cut off. A power failure may also keep a later sector of a write and lose an earlier one, which
    then reads as zeros; no line has a zero byte of its own.
    """
    for number, piece in enumerate(rest.split(b"\0")):
        for place, part in enumerate(piece.splitlines(keepends=True)):
            begins, ends = place > 0 or number == 0, part.endswith(b"\n")
            if begins and ends:
                known = part in lines
            elif begins:
                known = any(line.startswith(part) for line in lines)
            else:
                known = any(line.endswith(part) if ends else part in line for line in lines)
            if not known:
                return False
    return True


def _lines(records: Sequence[JobRecord]) -> bytes:
    return b"".join(json_line(record) for record in records)
