"""What the ledger looks like on disk, and the only places that open it.

Rules of this file: version 3 is what stands here; a change of it is a new version with a migration in `migrations`.
The words in the `state` and `verdict` columns are those of `model`, so that a person can read the file with any
SQLite tool. Foreign keys are left out: each row that refers to a chunk is written together with a checked move of it.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import quote

from bulkjobs.errors import LedgerError
from bulkjobs.ledger.migrations import SCHEMA_VERSION, TABLES, migrate
from bulkjobs.rundir import not_written, sync_folder

__all__ = [
    "DATABASE_NAME",
    "SCHEMA_VERSION",
    "Database",
    "make_private",
    "open_for_reading",
    "open_for_writing",
    "reading",
]

DATABASE_NAME: Final = "ledger.db"
_APPLICATION_ID: Final = 0x626A6F62
"""Spells "bjob" in the file header, where file(1) finds it."""

_OLDEST_SQLITE: Final = (3, 37, 0)
"""STRICT tables; everything else in use is older."""

_SCHEMA: Final = (
    """CREATE TABLE run (
        number INTEGER PRIMARY KEY CHECK (number = 1),
        run_id TEXT NOT NULL,
        created_utc REAL NOT NULL,
        nonce_key BLOB NOT NULL CHECK (length(nonce_key) = 16),
        identity TEXT NOT NULL,
        source_finished INTEGER NOT NULL DEFAULT 0,
        tail_invalid INTEGER NOT NULL DEFAULT 0,
        tail_duplicate INTEGER NOT NULL DEFAULT 0,
        learned_limit INTEGER,
        baseline_utc REAL
    ) STRICT""",
    """CREATE TABLE source (
        position INTEGER PRIMARY KEY,
        name TEXT NOT NULL,
        fingerprint TEXT,
        spooled INTEGER NOT NULL,
        spooled_bytes INTEGER NOT NULL DEFAULT 0,
        complete INTEGER NOT NULL DEFAULT 0
    ) STRICT""",
    # ended_utc of a session that crashed is filled in by the next one; its exit_code stays NULL.
    """CREATE TABLE session (
        number INTEGER PRIMARY KEY,
        started_utc REAL NOT NULL,
        ended_utc REAL,
        exit_code INTEGER,
        stop_reason TEXT
    ) STRICT""",
    TABLES["chunk"],
    # Holds all that counting needs: a million chunks are counted without reading one of their rows. With the
    # ordinal in second place it also lists the chunks of a state in input order, from any point on.
    TABLES["chunk_state"],
    # The parts of a chunk that was split, and nothing else.
    TABLES["chunk_part"],
    # verdict NULL: in flight. ended_utc NULL with a verdict: the process died, nobody knows when it ended.
    """CREATE TABLE attempt (
        chunk INTEGER NOT NULL,
        attempt INTEGER NOT NULL CHECK (attempt >= 1),
        started_utc REAL NOT NULL,
        ended_utc REAL,
        verdict TEXT CHECK (verdict IN ('accepted', 'refused', 'not_applied', 'unknown')),
        cause TEXT,
        reason TEXT,
        phase INTEGER,
        status INTEGER,
        error TEXT,
        content_type TEXT,
        retry_after TEXT,
        connection_reused INTEGER,
        job_hint TEXT,
        body BLOB,
        body_cut INTEGER,
        answer_bytes INTEGER,
        sent_utc REAL,
        answered_utc REAL,
        PRIMARY KEY (chunk, attempt)
    ) STRICT, WITHOUT ROWID""",
    # The last line of defence against paying twice: no second attempt of a chunk while one is in flight.
    "CREATE UNIQUE INDEX attempt_in_flight ON attempt (chunk) WHERE verdict IS NULL",
    # Answers both "what counts in the window" (a range at one end) and "how many" (a scan without the evidence).
    "CREATE INDEX attempt_time ON attempt (ended_utc, started_utc, phase, cause)",
    """CREATE TABLE job (
        chunk INTEGER PRIMARY KEY,
        job_id TEXT NOT NULL UNIQUE,
        attempt INTEGER NOT NULL,
        accepted_utc REAL NOT NULL,
        accepted_state TEXT NOT NULL,
        type TEXT NOT NULL,
        state TEXT NOT NULL,
        word TEXT,
        processed INTEGER,
        seen_utc REAL
    ) STRICT""",
    "CREATE INDEX job_state ON job (state)",
    """CREATE TABLE request (
        number INTEGER PRIMARY KEY,
        kind TEXT NOT NULL,
        started_utc REAL NOT NULL,
        ended_utc REAL,
        status INTEGER
    ) STRICT""",
    "CREATE INDEX request_time ON request (ended_utc, started_utc, kind, status)",
    # Both times are of when the latest answer began it: no more of it can be left than lies between them.
    """CREATE TABLE lockout (
        number INTEGER PRIMARY KEY,
        began_utc REAL NOT NULL,
        until_utc REAL NOT NULL,
        reason TEXT NOT NULL
    ) STRICT""",
    "CREATE TABLE sink (name TEXT PRIMARY KEY, position INTEGER) STRICT, WITHOUT ROWID",
    # What the server's list of jobs showed before the first chunk went out: none of these is a job of this run.
    TABLES["baseline"],
    # How a held chunk was settled, in order; its attempt keeps the verdict it had.
    TABLES["settlement"],
    # Why a held chunk could not be settled when that was tried last.
    TABLES["finding"],
    # What people told a session to do while it worked, in order.
    TABLES["control"],
    f"PRAGMA application_id = {_APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)


class Database(Protocol):
    """Is the part of `sqlite3.Connection` that the ledger uses; tests put a failing one in its place."""

    def execute(self, sql: str, parameters: Sequence[Any] = ..., /) -> sqlite3.Cursor:
        """Runs one statement."""

    def close(self) -> None:
        """Ends the connection; an open transaction is rolled back."""


def make_private(run_dir: Path) -> None:
    """Makes the run directory for its owner only, durably. One that exists keeps the mode its owner gave it."""
    if os.path.isdir(run_dir):  # noqa: PTH112 - Path.is_dir raises for a very long one
        return
    if os.path.exists(run_dir):  # noqa: PTH110 - as above
        raise LedgerError(f"The run directory {run_dir} is a file. Choose another with --run.")
    above = [folder for folder in run_dir.parents if not folder.exists()]
    try:
        run_dir.parent.mkdir(parents=True, exist_ok=True)
        run_dir.mkdir(mode=0o700)
        run_dir.chmod(0o700)  # the mode given to mkdir() is cut by the umask
        # A new directory outlives a power failure only once its entry in the one above is on the disk.
        for folder in (run_dir, *above):
            sync_folder(folder.parent)
    except OSError as error:
        raise LedgerError(f"The run directory {not_written(run_dir, error, 'made')}") from error


def open_for_writing(path: Path, check: Callable[[sqlite3.Connection, Path], None]) -> Database:
    """Opens a ledger, making it when the file is new or empty. The connection belongs to the calling thread.

    Args:
        path: the file.
        check: looks at the ledger once it is open; what it raises is raised.

    Raises:
        LedgerError: SQLite is too old, or the file is no ledger, damaged, or of a newer version.
    """
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise LedgerError(
            f"SQLite {sqlite3.sqlite_version} is too old for the ledger; 3.37.0 or newer is needed. "
            "It comes with Python: use a newer build of it."
        )
    try:
        _create_private(path)
    except OSError as error:
        raise LedgerError(f"The ledger {not_written(path, error, 'made')}") from error

    def prepare(database: sqlite3.Connection, path: Path) -> None:
        _prepare(database, path)
        check(database, path)

    return _opened(path, "mode=rw", prepare)


@contextmanager
def reading(path: Path) -> Iterator[Database]:
    """Opens a ledger as `open_for_reading` does, for as long as the block lasts.

    Raises:
        LedgerError: as there, also when it is the block that meets what cannot be read.
    """
    database = open_for_reading(path)
    try:
        yield database
    except (sqlite3.Error, ValueError) as error:  # ValueError: a text in it is not what stood there
        raise _unreadable(path, error) from error
    finally:
        database.close()


def open_for_reading(path: Path) -> Database:
    """Opens a ledger that another process may be writing, without disturbing it.

    Raises:
        LedgerError: there is none, or it cannot be read, or it is of another version.
    """
    if not os.path.isfile(path):  # noqa: PTH113 - as above
        raise LedgerError(f"There is no ledger at {path}. Is this the run directory?")
    try:
        return _opened(path, "mode=ro", _check_readable)
    except LedgerError as error:
        at_rest = not path.with_name(path.name + "-wal").exists()
        if not isinstance(error.__cause__, sqlite3.OperationalError) or not at_rest:
            raise
        # SQLite puts files beside a ledger even to read it, which a read-only directory does not allow. Without a
        # log nobody has it open, so that it may be read as it is.
        return _opened(path, "immutable=1", _check_readable)


def _unreadable(path: Path, error: Exception) -> LedgerError:
    return LedgerError(
        f"The ledger {path} cannot be read: {error}. Put back a copy of it or choose another run."
    )


def _opened(path: Path, how: str, prepare: Callable[[sqlite3.Connection, Path], None]) -> Database:
    database = None
    # The name as the bytes that it is on disk, which need not be UTF-8.
    uri = f"file:{quote(os.fsencode(path))}?{how}"
    try:
        # Statements are the same few strings for ever; every one of them stays prepared.
        database = sqlite3.connect(uri, uri=True, isolation_level=None, cached_statements=512)
        prepare(database, path)
    except BaseException as error:
        if database is not None:
            database.close()
        if isinstance(error, sqlite3.Error):
            raise _unreadable(path, error) from error
        raise
    return database


def _create_private(path: Path) -> None:
    """Makes the file before SQLite would, so that it and what SQLite puts beside it are for the owner only."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    try:
        os.fchmod(fd, 0o600)  # the mode given to open() is cut by the umask
    finally:
        os.close(fd)


def _prepare(database: sqlite3.Connection, path: Path) -> None:
    database.execute("PRAGMA trusted_schema = OFF")
    database.execute("PRAGMA busy_timeout = 5000")
    version = _version(database, path)
    mode = database.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise LedgerError(
            f"The ledger {path} cannot use a write-ahead log here ({mode}). Choose a local disk."
        )
    # NORMAL would be some times faster and may lose the last commits with the power: a lost intent pays twice.
    database.execute("PRAGMA synchronous = FULL")
    if sys.platform == "darwin":
        database.execute("PRAGMA fullfsync = 1")  # fsync() there does not empty the drive's own cache
    database.execute("PRAGMA wal_autocheckpoint = 0")  # see `writer`
    database.execute("PRAGMA cell_size_check = ON")
    database.execute("PRAGMA cache_size = -16384")
    if version == 0:
        database.execute("BEGIN IMMEDIATE")
        for statement in _SCHEMA:
            database.execute(statement)
        database.execute("COMMIT")
    elif version < SCHEMA_VERSION:
        migrate(database, path, version)


def _check_readable(database: sqlite3.Connection, path: Path) -> None:
    database.execute("PRAGMA trusted_schema = OFF")
    version = _version(database, path)
    if version == 0:
        raise LedgerError(f"The ledger {path} is empty: no run was begun in it.")
    if version < SCHEMA_VERSION:
        raise LedgerError(
            f"The ledger {path} has format {version} of an earlier bulkjobs. `bulkjobs resume` brings it up to "
            f"date and keeps a copy of it as it is."
        )


def _version(database: sqlite3.Connection, path: Path) -> int:
    """Gives the format of a ledger, 0 for an empty database, and refuses everything else."""
    application = database.execute("PRAGMA application_id").fetchone()[0]
    version = database.execute("PRAGMA user_version").fetchone()[0]
    tables = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if (application, version, tables) == (0, 0, 0):
        return 0
    if application != _APPLICATION_ID:
        raise LedgerError(f"The file {path} is a database but no ledger. Choose another run directory.")
    if not 1 <= version <= SCHEMA_VERSION:
        raise LedgerError(
            f"The ledger {path} has format {version}; this bulkjobs knows formats up to {SCHEMA_VERSION}. "
            "Use the version of bulkjobs that worked on the run last, or a newer one. Nothing was changed."
        )
    return int(version)
