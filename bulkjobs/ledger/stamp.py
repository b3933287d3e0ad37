"""What a ledger must at least know, kept outside of it: `ledger.stamp`, one line beside the database.

SQLite cannot tell an older copy of a database from the newest, nor that its write-ahead log was left behind: both
open without a word, and every chunk that they do not know of as sent would be sent and paid for again. So how many
attempts there are is written here, each time after they are durable there. A ledger with fewer is not the one.

The line is shorter than a sector and stays in its place, so that a power failure leaves the old or the new one. It
is synced when a session begins and once after each checkpoint, with the first attempts behind it: from then on the
database without its log has fewer. Between these it lies in the system's memory, which outlives a killed process.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Final

from bulkjobs.errors import LedgerError
from bulkjobs.ledger.schema import Database
from bulkjobs.rundir import sync_folder

__all__ = ["STAMP_NAME", "Stamp"]

STAMP_NAME: Final = "ledger.stamp"
_MOST_BYTES: Final = 256


class Stamp:
    """Is the stamp of one run directory. It belongs to the writer's thread."""

    def __init__(self, run_dir: Path) -> None:
        """Names the file; `check` reads and `begin` writes it."""
        self._run_dir = run_dir
        self._path = run_dir / STAMP_NAME
        self._descriptor = -1
        self._run_id = ""
        self._attempts = 0
        self._due = True

    def check(self, database: Database) -> None:
        """Compares the ledger with the stamp; without a stamp there is nothing to compare.

        Raises:
            LedgerError: the ledger knows less, or is another run's, or the stamp cannot be read.
        """
        stamp = self._read()
        if stamp is None:
            return
        run_id, attempts = stamp
        row = database.execute("SELECT run_id FROM run").fetchone()
        if row is None:
            raise LedgerError(
                f"{self._run_dir} has the stamp of a run, but its ledger.db knows of no run: it is lost, was "
                f"emptied, or came without the ledger.db-wal beside it. To begin anew would pay for the same ids "
                f"again. Put the ledger back, or choose another run directory with --run."
            )
        if row[0] != run_id:
            raise LedgerError(
                f"The ledger in {self._run_dir} is that of run {row[0]}, but {STAMP_NAME} beside it is that of run "
                f"{run_id}. Put back the two that belong together, or choose another run directory with --run."
            )
        known = _attempts(database)
        if known < attempts:
            raise LedgerError(
                f"The ledger in {self._run_dir} knows of {known} attempts, but {attempts} were made: it is an older "
                f"copy, or came without the ledger.db-wal beside it. What it forgot would be paid for again. Put "
                f"back the newest ledger.db together with its ledger.db-wal. Nothing was sent."
            )

    def begin(self, database: Database, run_id: str) -> None:
        """Stamps what the ledger knows now, durably, and keeps the file open.

        Raises:
            OSError: it cannot be written. No error of ours, which the writer would take for one of the row's and
                try again: a failed sync must end the ledger.
        """
        self._run_id, self._attempts = run_id, _attempts(database)
        # A file of its own that takes the place of the old one: a disk that is full takes half a line.
        new = self._path.with_name(STAMP_NAME + ".new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(new, flags, 0o600)
        self._due = True
        self.write()
        new.replace(self._path)
        sync_folder(self._run_dir)
        self._due = True  # the first attempts of the session stand in a new log

    def add(self, attempts: int) -> None:
        """Takes note of attempts that are durable in the ledger.

        Raises:
            OSError: the disk fails.
        """
        if self._descriptor >= 0 and attempts:
            self._attempts += attempts
            self.write()

    def write(self) -> None:
        """Writes the line, and syncs it if that is due.

        Raises:
            OSError: the disk fails.
        """
        text = f"bulkjobs 1 {self._run_id} {self._attempts:020d}"
        line, written = f"{text} {_sum(text)}\n".encode(), 0
        while written < len(line):
            # A nearly full disk takes a part without an error.
            written += os.pwrite(self._descriptor, line[written:], written)
        if self._due:
            os.fsync(self._descriptor)
        self._due = False

    def expect_checkpoint(self) -> None:
        """Has the next attempts synced: the log in which the last ones stood is written over from now on."""
        self._due = True

    def close(self) -> None:
        """Syncs and closes the file.

        Raises:
            OSError: the disk fails.
        """
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def _read(self) -> tuple[str, int] | None:
        try:
            line = self._path.read_bytes()[:_MOST_BYTES].decode("ascii", "replace")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise LedgerError(f"{self._path} cannot be read: {error.strerror or error}.") from error
        if not line:
            return None  # the power failed before it was written for the first time
        text, _, checksum = line.rstrip("\n").rpartition(" ")
        words = text.split(" ")
        if checksum != _sum(text) or len(words) != len(("name", "version", "run", "attempts")):
            raise LedgerError(
                f"{self._path} is damaged, so that nobody can tell whether ledger.db is the newest. Look at the "
                f"disk. If ledger.db is no older copy, remove {STAMP_NAME} and give the same command again. "
                f"Nothing was sent."
            )
        return words[2], int(words[3])


def _attempts(database: Database) -> int:
    (attempts,) = database.execute("SELECT count(*) FROM attempt").fetchone()
    return int(attempts)


def _sum(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"
