"""What watches over the disk of a run for the writer: the room that is left, and what the ledger must know."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path
from typing import Final

from bulkjobs.errors import LedgerError
from bulkjobs.ledger.reserve import LEAST_FREE_BYTES, Reserve
from bulkjobs.ledger.schema import Database, open_for_writing
from bulkjobs.ledger.soundness import require_sound
from bulkjobs.ledger.stamp import Stamp
from bulkjobs.ledger.writer import Keeper
from bulkjobs.rundir import not_written, sync_folder

__all__ = ["RunKeeper", "open_sound"]

_BLOCK_BYTES: Final = 1024 * 1024
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)


class RunKeeper(Keeper):
    """Keeps the reserve and the stamp of a run directory. It belongs to the writer's thread."""

    def __init__(self, run_dir: Path) -> None:
        """Names the files; nothing is touched yet."""
        self._run_dir = run_dir
        self._reserve = Reserve(run_dir)
        self._stamp = Stamp(run_dir)
        self._full = False

    def check(self, database: Database) -> None:
        """Compares the ledger with what was kept beside it.

        Raises:
            LedgerError: it is not the newest ledger of this run.
        """
        self._stamp.check(database)

    def begin(self, database: Database, run_id: str) -> None:
        """Makes ready for a session that sends.

        Raises:
            OSError: the disk does not take it.
        """
        self._reserve.make()
        self._stamp.begin(database, run_id)

    def refusal(self) -> str | None:
        """See `Keeper`."""
        if self._full:
            found = "the disk is full, or the quota used up"
        elif self._reserve.low():
            found = f"less than {LEAST_FREE_BYTES // 2**20} MiB are free on the disk"
        else:
            return None
        return (
            f"Nothing more is sent: {found} that holds {self._run_dir}. What the server answers to submissions in "
            f"flight is still recorded. Make room there, then give the same command again."
        )

    def make_room(self) -> bool:
        """See `Keeper`."""
        self._full = True
        return self._reserve.release()

    def committed(self, attempts: int) -> None:
        """See `Keeper`."""
        try:
            self._stamp.add(attempts)
        except OSError as error:
            if error.errno not in _NO_ROOM or not self.make_room():
                raise
            self._stamp.write()

    def expect_checkpoint(self) -> None:
        """See `Keeper`."""
        self._stamp.expect_checkpoint()

    def end(self) -> None:
        """See `Keeper`."""
        self._reserve.release()
        self._stamp.close()


def open_sound(path: Path, keeper: RunKeeper) -> Database:
    """Opens a ledger for writing and looks through it before anything is believed of it.

    Raises:
        LedgerError: as `open_for_writing`, or it is damaged, or not the newest ledger of its run.
    """

    def check(database: sqlite3.Connection, path: Path) -> None:
        require_sound(database, path)
        keeper.check(database)
        try:
            sync_folder(path.parent)  # SQLite does so when it makes the log, but does not mind if it fails
        except OSError as error:
            raise LedgerError(f"The run directory {not_written(path.parent, error)}") from error

    write_log_anew(path)
    return open_for_writing(path, check)


def write_log_anew(path: Path) -> None:
    """Makes durable what the last session left in the write-ahead log, by writing the same bytes once more.

    If a sync of them failed, the system shows them, takes them for written, and no later sync writes them. With the
    power they would be gone, and with them every commit behind such a hole: so nothing is written behind one.

    Raises:
        LedgerError: the disk does not take it.
    """
    log = path.with_name(path.name + "-wal")
    try:
        descriptor = os.open(log, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    except OSError as error:
        raise LedgerError(f"The log {not_written(log, error, 'opened')}") from error
    try:
        at = 0
        while block := os.pread(descriptor, _BLOCK_BYTES, at):
            at += os.pwrite(descriptor, block, at)
        os.fsync(descriptor)
    except OSError as error:
        raise LedgerError(f"The log {not_written(log, error)}") from error
    finally:
        os.close(descriptor)
