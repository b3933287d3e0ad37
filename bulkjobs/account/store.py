"""What the runs of one account on this machine know together: a small database beside the runs.

Each process keeps the account's throttle in memory and brings it up to date with what the others wrote before it
decides anything; decision and entry are one transaction. Rules of this file:

- Times are those of the event loop, which every process of one boot shares (CLOCK_MONOTONIC). `axis` names the boot.
  After another one the times are moved over by the wall clock.
- Commits are not synced: a killed process loses nothing by that, and after a power failure the last window counts as
  full, since what was entered last may be missing.
- Whether a session lives is told by the lock on its file, and by nothing else: process ids are used again.
- `change` numbers what was written; a process reads what has a higher one than it has seen.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from bulkjobs.errors import ConfigError, LedgerError
from bulkjobs.forking import close_locked, keep_from_children
from bulkjobs.ledger.lock import network_filesystem
from bulkjobs.rundir import not_written

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

__all__ = ["AccountStore", "Busy", "Turn", "folder_of"]

_NAME: Final = "account.db"
_VERSION: Final = 1
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
    # window_s NULL: it counts nothing.
    """CREATE TABLE session (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        run_id TEXT NOT NULL,
        window_s REAL
    ) STRICT""",
    # Since when all requests of a run stand here: what its ledger knows besides is older.
    "CREATE TABLE run (run_id TEXT PRIMARY KEY, since REAL NOT NULL) STRICT, WITHOUT ROWID",
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


def folder_of(state_dir: Path, base_url: str, account: str) -> Path:
    """Gives the folder of an account: the same for all runs with the same service and account.

    Args:
        state_dir: holds a folder for each account.
        base_url: of the service.
        account: name, client id or token. It cannot be read from the folder's name.
    """
    return state_dir / hashlib.sha256(f"{base_url}\n{account}".encode()).hexdigest()[:32]


_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class Busy(Exception):  # noqa: N818 - a condition that is waited out
    """Says that another process has been in its turn for too long."""


class Turn:
    """Is one transaction: what it reads stays true until it is over, and what it writes is seen as a whole."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self.change, self.axis, self.utc_offset, self.state = self._one(
            "SELECT change, axis, utc_offset, state FROM account"
        )
        self._dirty = False

    @property
    def next_change(self) -> int:
        """Is the number of what this turn changes."""
        return int(self.change) + 1

    def end(self, *, axis: str, utc_offset: float, state: str) -> bool:
        """Writes what is not about single requests; tells whether the turn has changed anything."""
        if state == self.state and not self._dirty and axis == self.axis:
            return False
        self._write(
            "UPDATE account SET change = ?, axis = ?, utc_offset = ?, state = ?",
            self.next_change,
            axis,
            utc_offset,
            state,
        )
        return True

    def move_times(self, shift_s: float, *, now: float, grace_s: float) -> None:
        """Moves every time by so many seconds, and none of them further than it can be."""
        self._write(
            "UPDATE request SET ended = min(ended + ?1, ?2), counted_until = min(counted_until + ?1, ?2 + ?3)",
            shift_s,
            now,
            grace_s,
        )
        self._write("UPDATE job SET at = min(at + ?1, ?2)", shift_s, now)
        self._write("UPDATE run SET since = min(since + ?1, ?2)", shift_s, now)

    # Sessions

    def sessions(self) -> set[int]:
        """Reads the sessions that have not ended in order."""
        return {number for (number,) in self._rows("SELECT number FROM session")}

    def add_session(self, run_id: str, window_s: float | None) -> int:
        """Enters a session and gives its number."""
        return self._write("INSERT INTO session (run_id, window_s) VALUES (?, ?)", run_id, window_s)

    def set_window(self, session: int, window_s: float | None) -> None:
        """Enters in which window a session counts."""
        self._write("UPDATE session SET window_s = ? WHERE number = ?", window_s, session)

    def end_session(self, session: int, now: float) -> list[str]:
        """Takes a session out, and with it its open jobs, which it gives: nobody would see them end."""
        row = self._one("SELECT run_id FROM session WHERE number = ?", session)
        self._write("DELETE FROM session WHERE number = ?", session)
        return [] if row is None else self.keep_jobs(row[0], (), now)

    def longest_window_s(self) -> float:
        """Gives the longest window in which a session counts; 0 if none counts."""
        return float(self._one("SELECT coalesce(max(window_s), 0) FROM session")[0])

    def since(self, run_id: str, now: float) -> float:
        """Gives since when all requests of a run stand here, which is from now on if it was not here before."""
        self._write("INSERT INTO run VALUES (?, ?) ON CONFLICT DO NOTHING", run_id, now)
        return float(self._one("SELECT since FROM run WHERE run_id = ?", run_id)[0])

    # Requests

    def begin_request(self, session: int, *, slot: bool) -> int:
        """Enters a request in flight and gives its number."""
        return self._write(
            "INSERT INTO request (session, slot, change) VALUES (?, ?, ?)", session, slot, self.next_change
        )

    def end_request(self, number: int, *, ended: float, counted_until: float | None) -> None:
        """Enters that a request has ended."""
        self._write(
            "UPDATE request SET ended = ?, counted_until = ?, change = ? WHERE number = ?",
            ended,
            counted_until,
            self.next_change,
            number,
        )

    def add_past(self, session: int, *, ended: float, counted_until: float) -> None:
        """Enters a request that ended before it could be entered."""
        number = self.begin_request(session, slot=False)
        self.end_request(number, ended=ended, counted_until=counted_until)

    def free_slot(self, number: int) -> None:
        """Enters that a submit no longer holds a slot for a job it may make."""
        self._write("UPDATE request SET slot = 0, change = ? WHERE number = ?", self.next_change, number)

    def requests_of_others(
        self, session: int, since: int
    ) -> list[tuple[int, bool, float | None, float | None]]:
        """Reads the requests of other sessions changed since: number, slot, end, until when it may be counted."""
        return self._rows(
            "SELECT number, slot, ended, counted_until FROM request WHERE change > ? AND session != ?",
            since,
            session,
        )

    def left_behind(self, session: int) -> list[tuple[int, bool]]:
        """Reads the requests of a session that are in flight or hold a slot: number and whether it has ended."""
        return self._rows(
            "SELECT number, ended IS NOT NULL FROM request WHERE session = ? AND (ended IS NULL OR slot)",
            session,
        )

    def has_request(self, number: int) -> bool:
        """Tells whether a request still stands here."""
        return self._one("SELECT 1 FROM request WHERE number = ?", number) is not None

    # Jobs

    def open_job(self, job_id: str, run_id: str, now: float) -> None:
        """Enters a job of a run that is open."""
        self._write(
            "INSERT INTO job VALUES (?1, ?2, ?3, 1, ?4) ON CONFLICT DO UPDATE SET run_id = ?2, open = 1, change = ?4",
            job_id,
            run_id,
            now,
            self.next_change,
        )

    def close_job(self, job_id: str, now: float) -> None:
        """Enters that a job was seen to have ended."""
        self._write(
            "UPDATE job SET open = 0, at = ?, change = ? WHERE job_id = ?", now, self.next_change, job_id
        )

    def keep_jobs(self, run_id: str, job_ids: Collection[str], now: float) -> list[str]:
        """Enters which jobs of a run are open: these, and no others; gives those that are open no longer."""
        entered = self._rows("SELECT job_id FROM job WHERE run_id = ? AND open", run_id)
        over = [job_id for (job_id,) in entered if job_id not in job_ids]
        for job_id in over:
            self.close_job(job_id, now)
        for job_id in job_ids:
            self.open_job(job_id, run_id, now)
        return over

    def jobs_of_others(self, run_id: str, since: int) -> list[tuple[str, bool, float]]:
        """Reads the jobs of other runs changed since: id, whether it is open, and when it was opened or ended."""
        return self._rows("SELECT job_id, open, at FROM job WHERE change > ? AND run_id != ?", since, run_id)

    def has_job(self, job_id: str) -> bool:
        """Tells whether a job still stands here."""
        return self._one("SELECT 1 FROM job WHERE job_id = ?", job_id) is not None

    def prune(self, before: float) -> None:
        """Removes what was over before this moment."""
        self._write(
            "DELETE FROM request WHERE NOT slot AND max(ended, ifnull(counted_until, ended)) < ?", before
        )
        self._write("DELETE FROM job WHERE NOT open AND at < ?", before)

    def _one(self, sql: str, *parameters: Any) -> Any:
        return self._database.execute(sql, parameters).fetchone()

    def _rows(self, sql: str, *parameters: Any) -> list[Any]:
        return self._database.execute(sql, parameters).fetchall()

    def _write(self, sql: str, *parameters: Any) -> int:
        self._dirty = True
        return self._database.execute(sql, parameters).lastrowid or 0


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
        if kind := network_filesystem(folder):
            raise ConfigError(
                f"The state of the account {folder} lies on a network file system ({kind}), where it can be damaged. "
                "Give a --state-dir on a local disk, or none."
            )
        try:
            self._sessions.mkdir(mode=0o700, parents=True, exist_ok=True)
            for private in (folder, self._sessions):
                private.chmod(0o700)
            self._database = self._opened()
        except OSError as error:
            raise ConfigError(
                f"The state of the account {not_written(folder, error, 'made')} Give another --state-dir, or none."
            ) from error
        self._seen_version = -1
        self._lock: int | None = None

    def _opened(self) -> sqlite3.Connection:
        path = self._folder / _NAME
        try:
            return _connect(path)
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                raise Busy from error
            if error.sqlite_errorcode not in _DAMAGED:
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
        """Tells whether another process may have written since this was asked last."""
        try:
            version = self._database.execute("PRAGMA data_version").fetchone()[0]
        except sqlite3.Error:
            return True  # the turn that follows says what is wrong
        changed, self._seen_version = version != self._seen_version, version
        return bool(changed)

    @contextmanager
    def turn(self) -> Iterator[Turn]:
        """Has the account to itself for the length of the block.

        Raises:
            Busy: another process has it for too long.
            LedgerError: it cannot be read or written.
        """
        try:
            self._database.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                raise Busy from error
            raise self._broken(error) from error
        try:
            yield Turn(self._database)
            self._database.execute("COMMIT")
        except BaseException as error:
            with contextlib.suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise self._broken(error) from error
            raise

    def begin_session(self, number: int) -> None:
        """Takes the lock that tells the others that this session lives."""
        path = self._session_file(number)
        try:
            self._lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            keep_from_children(self._lock)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(
                f"The state of the account {not_written(path, error)} Give another --state-dir, or none."
            ) from error

    def lives(self, number: int) -> bool:
        """Tells whether a session has not ended and was not killed."""
        try:
            descriptor = os.open(self._session_file(number), os.O_RDWR | os.O_NOFOLLOW)
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

    def forget_session(self, number: int) -> None:
        """Removes what is left of a session that is over."""
        with contextlib.suppress(OSError):
            self._session_file(number).unlink()

    def close(self) -> None:
        """Ends the session: from now on it does not live."""
        self._database.close()
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


def _connect(path: Path) -> sqlite3.Connection:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    os.close(descriptor)
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
    if version not in (0, _VERSION):
        raise ConfigError(
            f"The state of the account {path} has format {version}; this bulkjobs knows format {_VERSION}. "
            "Use the same version for all runs of the account, or give another --state-dir."
        )
    if version == 0:
        for statement in _SCHEMA:
            database.execute(statement)
    database.execute("COMMIT")
