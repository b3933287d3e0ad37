"""What the runs of one account on this machine know together: a small database beside the runs.

Each process keeps the account's throttle in memory and brings it up to date with what the others wrote before it
decides anything; decision and entry are one transaction. Rules of this file:

- Times are those of the event loop, which every process of one boot shares (CLOCK_MONOTONIC). `axis` names the boot.
  After another one the times are moved over by the wall clock.
- Commits are not synced: a killed process loses nothing by that, and after a power failure the last window counts as
  full, since what was entered last may be missing. That there was a session is synced, since that tells of it.
- Whether a session lives is told by the lock on its file, and by nothing else: process ids are used again.
- `change` numbers what was written; a process reads what has a higher one than it has seen.
- Whether there is anything to read is told by a number in memory that all processes share, raised within each turn
  that writes, before its commit. To ask SQLite takes 13 µs and lets go of the interpreter's lock, for which the loop
  then waits; and each request asks three times.
- SQLite's locks belong to the process: nothing else may open the database and close it again, which would drop those
  of every connection of this process.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import mmap
import os
import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from bulkjobs.account.turn import Turn
from bulkjobs.errors import ConfigError, LedgerError
from bulkjobs.forking import close_locked, keep_from_children
from bulkjobs.ledger.lock import network_filesystem
from bulkjobs.rundir import not_written

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["AccountStore", "Busy", "folder_of", "living_sessions"]

_NAME: Final = "account.db"
_CHANGES: Final = "account.changes"
_CHANGES_BYTES: Final = 8
_VERSION: Final = 3
_BUSY_TIMEOUT_MS: Final = 250
"""A turn of another process takes some ten microseconds. One that is stopped within it is waited for like this, again
and again: the event loop stands still for no longer at a time."""

_SCHEMA: Final = (
    """CREATE TABLE account (
        number INTEGER PRIMARY KEY CHECK (number = 1),
        change INTEGER NOT NULL,
        axis TEXT NOT NULL,
        utc_offset REAL NOT NULL,
        state TEXT
    ) STRICT""",
    "INSERT INTO account VALUES (1, 0, '', 0.0, NULL)",
    """CREATE TABLE session (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        run_id TEXT NOT NULL,
        counting INTEGER NOT NULL DEFAULT 2
    ) STRICT""",
    # From when to when all requests of a run stand here: it may have sessions of which nothing does. session: the
    # last one of its ledger of which all stands here, and all that the ledger knew before it.
    """CREATE TABLE run (
        run_id TEXT PRIMARY KEY,
        since REAL NOT NULL,
        until REAL NOT NULL,
        session INTEGER NOT NULL DEFAULT 0
    ) STRICT, WITHOUT ROWID""",
    # ended NULL: in flight. counted_until NULL in one that has ended: it was never sent.
    """CREATE TABLE request (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        session INTEGER NOT NULL,
        slot INTEGER NOT NULL,
        ended REAL,
        counted_until REAL,
        change INTEGER NOT NULL
    ) STRICT""",
    "CREATE INDEX request_change ON request (change)",
    # at: when it was opened, or seen to have ended.
    """CREATE TABLE job (
        job_id TEXT PRIMARY KEY,
        run_id TEXT NOT NULL,
        at REAL NOT NULL,
        open INTEGER NOT NULL,
        change INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX job_change ON job (change)",
    f"PRAGMA user_version = {_VERSION}",
)
_TO_VERSION_3: Final = (
    "ALTER TABLE run ADD COLUMN session INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE session ADD COLUMN counting INTEGER NOT NULL DEFAULT 2",
    _SCHEMA[-1],
)
# Version 1 is without the number in shared memory, which a process of that version would not raise.
_STEPS: Final = {0: _SCHEMA, 1: _TO_VERSION_3, 2: _TO_VERSION_3, _VERSION: ()}
"""What makes a store of each version one of this."""


def folder_of(state_dir: Path, base_url: str, account: str) -> Path:
    """Gives the folder of an account: the same for all runs with the same service and account.

    Args:
        state_dir: holds a folder for each account.
        base_url: of the service.
        account: name, client id or token. It cannot be read from the folder's name.
    """
    return state_dir / hashlib.sha256(f"{base_url}\n{account}".encode()).hexdigest()[:32]


def living_sessions(folder: Path) -> int:
    """Counts the sessions of an account that are at work, without joining them."""
    try:
        files = list((folder / "sessions").iterdir())
    except OSError:
        return 0
    return sum(_is_held(file) for file in files)


def _is_held(session_file: Path) -> bool:
    """Tells whether a session has not ended and was not killed."""
    try:
        descriptor = os.open(session_file, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    except OSError:
        return True  # it is not known, and to wait for it is safe
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class Busy(Exception):  # noqa: N818 - a condition that is waited out
    """Says that another process has been in its turn for too long."""


class AccountStore:
    """Is the open database of one account, and this session's place in it."""

    def __init__(self, folder: Path) -> None:
        """Opens it, and makes it if there is none. A damaged one is put aside: nothing is known then.

        Raises:
            ConfigError: the folder cannot be used.
            Busy: another process has been in its turn for too long.
        """
        self._folder = folder
        self._sessions = folder / "sessions"
        self.lost = False
        """What was known is lost: the database was damaged."""
        try:
            kind = network_filesystem(folder)
        except (OSError, RuntimeError) as error:  # links that lead in a circle
            raise ConfigError(
                f"The state of the account {folder} cannot be found: {error}. Give another --state-dir, or none."
            ) from error
        if kind:
            raise ConfigError(
                f"The state of the account {folder} lies on a network file system ({kind}), where it can be damaged. "
                "Give a --state-dir on a local disk, or none."
            )
        self._lock: int | None = None
        self._session = 0
        self._changes: memoryview | None = None
        self._seen = -1
        try:
            self._sessions.mkdir(mode=0o700, parents=True, exist_ok=True)
            for private in (folder, self._sessions):
                private.chmod(0o700)
            with _alone(self._sessions):
                self._database = self._opened()
                self._changes = _shared_number(folder / _CHANGES)
                self._identities = self._there()
        except BlockingIOError as error:
            raise Busy from error
        except OSError as error:
            raise ConfigError(
                f"The state of the account {not_written(folder, error, 'made')} Give another --state-dir, or none."
            ) from error

    def _opened(self) -> sqlite3.Connection:
        path = self._folder / _NAME
        try:
            return _connect(path)
        except sqlite3.DatabaseError as error:
            if _primary(error) == sqlite3.SQLITE_BUSY:
                raise Busy from error
            if _primary(error) not in _DAMAGED:
                raise ConfigError(
                    f"The state of the account {path} cannot be opened: {error}. Give another --state-dir, or none."
                ) from error
        self.lost = True
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                path.with_name(path.name + suffix).replace(path.with_name(f"{path.name}{suffix}.damaged"))
        try:
            return _connect(path)
        except sqlite3.Error as error:
            raise ConfigError(
                f"The state of the account {path} cannot be made: {error}. Give another --state-dir, or none."
            ) from error

    @property
    def changed(self) -> bool:
        """Tells whether another process may have written since the last turn of this one."""
        return self._changes is None or self._changes[0] != self._seen

    @contextmanager
    def turn(self, *, synced: bool = False) -> Iterator[Turn]:
        """Has the account to itself for the length of the block.

        Args:
            synced: what is written survives a power failure.

        Raises:
            Busy: another process has it for too long.
            LedgerError: it cannot be read or written.
        """
        self._check_in_place()
        try:
            if synced:
                self._database.execute("PRAGMA synchronous = FULL")
            self._database.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            if _primary(error) == sqlite3.SQLITE_BUSY:
                raise Busy from error
            raise self._broken(error) from error
        try:
            turn = Turn(self._database)
            yield turn
            assert self._changes is not None
            if turn.has_written:
                # Before the commit: whoever sees the old number has nothing to read, whoever sees the new one waits.
                self._changes[0] = (self._changes[0] + 1) % 2**64
            seen = self._changes[0]
            self._database.execute("COMMIT")
            self._seen = seen
            if synced:
                self._database.execute("PRAGMA synchronous = NORMAL")
        except BaseException as error:
            with contextlib.suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise self._broken(error) from error
            raise

    def _check_in_place(self) -> None:
        """Passes while others find this database, and this session's lock, under their names."""
        try:
            in_place = self._there() == self._identities
            if in_place and self._lock is not None:
                locked = _identity(os.fstat(self._lock))
                in_place = _identity(self._session_file(self._session).stat()) == locked
        except OSError:
            in_place = False
        if not in_place:
            raise LedgerError(
                f"The state of the account in {self._folder} was removed or replaced while this run used it. Nothing "
                "more is sent. Give the command again."
            )

    def _there(self) -> list[tuple[int, int]]:
        """Tells which files others find here."""
        return [_identity((self._folder / name).stat()) for name in (_NAME, _CHANGES)]

    def begin_session(self, number: int) -> None:
        """Takes the lock that tells the others that this session lives.

        Raises:
            ConfigError: the folder cannot be used.
            Busy: a process holds it that used a database which is here no longer.
        """
        path = self._session_file(number)
        try:
            self._lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            keep_from_children(self._lock)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._session = number
        except BlockingIOError as error:
            raise Busy from error
        except OSError as error:
            raise ConfigError(
                f"The state of the account {not_written(path, error)} Give another --state-dir, or none."
            ) from error

    def lives(self, number: int) -> bool:
        """Tells whether a session has not ended and was not killed."""
        return _is_held(self._session_file(number))

    def forget_session(self, number: int) -> None:
        """Removes what is left of a session that is over."""
        with contextlib.suppress(OSError):
            self._session_file(number).unlink()

    def close(self) -> None:
        """Ends the session: from now on it does not live."""
        self._database.close()
        self._changes = None
        if self._lock is not None:
            close_locked(self._lock)
            self._lock = None

    def _session_file(self, number: int) -> Path:
        return self._sessions / str(number)

    def _broken(self, error: sqlite3.Error) -> LedgerError:
        return LedgerError(
            f"The state of the account in {self._folder} cannot be kept: {error}. Nothing more is sent. Make room or "
            "give another --state-dir, and give the command again."
        )


def _primary(error: sqlite3.Error) -> int:
    """Gives the error's code without what SQLite adds to it; -1 if it comes from elsewhere."""
    return getattr(error, "sqlite_errorcode", -1) & 0xFF


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Has no other process open a database here meanwhile: one that another has just made is not put aside.

    Raises:
        BlockingIOError: another process is about it.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _shared_number(path: Path) -> memoryview:
    """Gives a number that every process sees which has the file open. It begins anywhere."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(descriptor).st_size < _CHANGES_BYTES:
            # Written and not only made longer: on a full disk a hole in the file would end the process later.
            os.pwrite(descriptor, bytes(_CHANGES_BYTES), 0)
        return memoryview(mmap.mmap(descriptor, _CHANGES_BYTES)).cast("Q")
    finally:
        os.close(descriptor)


def _connect(path: Path) -> sqlite3.Connection:
    with contextlib.suppress(FileExistsError):  # a new file has no locks that the closing could drop
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    database = sqlite3.connect(path, isolation_level=None, cached_statements=128)
    try:
        _prepare(database, path)
    except BaseException:
        database.close()
        raise
    return database


def _prepare(database: sqlite3.Connection, path: Path) -> None:
    database.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
    database.execute("PRAGMA trusted_schema = OFF")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = NORMAL")
    if database.execute("PRAGMA user_version").fetchone()[0] == _VERSION:
        return
    database.execute("BEGIN IMMEDIATE")
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if version not in _STEPS:
        raise ConfigError(
            f"The state of the account {path} has format {version}; this bulkjobs knows format {_VERSION}. "
            "Use the same version for all runs of the account, or give another --state-dir."
        )
    for statement in _STEPS[version]:
        database.execute(statement)
    database.execute("COMMIT")
