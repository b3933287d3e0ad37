"""How a ledger of an earlier bulkjobs becomes one of today's: a copy first, then one transaction.

A million chunks with their attempts and jobs, 460 MB, take 8 s of CPU, 60 MB of memory, and as long as the disk needs
for the copy and a write-ahead log of 270 MB: 22 and 61 s on one that others were using. The ledger then has 570 MB.

Rules of this file: a migration changes the form and never a fact. Its statements are fixed once released; what a
later version needs is another step. `tests/ledgers` keeps a ledger of every released version.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import Final

from bulkjobs.errors import LedgerError

__all__ = ["SCHEMA_VERSION", "TABLES", "backup_path", "migrate"]

SCHEMA_VERSION: Final = 3

TABLES: Final = {
    "chunk": """CREATE TABLE chunk (
        ordinal INTEGER PRIMARY KEY CHECK (ordinal >= 1),
        state TEXT NOT NULL DEFAULT 'planned'
            CHECK (state IN ('planned', 'sending', 'accepted', 'delivered', 'refused', 'held', 'split')),
        digest TEXT NOT NULL,
        ids INTEGER NOT NULL CHECK (ids >= 1),
        first_id TEXT NOT NULL,
        last_id TEXT NOT NULL,
        source TEXT NOT NULL,
        line INTEGER NOT NULL,
        body_bytes INTEGER NOT NULL,
        invalid INTEGER NOT NULL,
        duplicate INTEGER NOT NULL,
        parent INTEGER,
        first INTEGER NOT NULL DEFAULT 0,
        duplicate_risk INTEGER NOT NULL DEFAULT 0
    ) STRICT""",
    "chunk_state": "CREATE INDEX chunk_state ON chunk (state, ordinal, ids, invalid, duplicate)",
    "chunk_part": "CREATE INDEX chunk_part ON chunk (parent, first) WHERE parent IS NOT NULL",
    "baseline": "CREATE TABLE baseline (job_id TEXT PRIMARY KEY) STRICT, WITHOUT ROWID",
    "finding": """CREATE TABLE finding (
        chunk INTEGER PRIMARY KEY,
        at_utc REAL NOT NULL,
        reason TEXT NOT NULL
    ) STRICT""",
    "settlement": """CREATE TABLE settlement (
        number INTEGER PRIMARY KEY,
        chunk INTEGER NOT NULL,
        attempt INTEGER NOT NULL,
        at_utc REAL NOT NULL,
        how TEXT NOT NULL CHECK (how IN ('adopted', 'absent', 'resubmitted')),
        job_id TEXT,
        reason TEXT NOT NULL,
        by TEXT NOT NULL CHECK (by IN ('reconcile', 'person'))
    ) STRICT""",
    # The words of `command` are not listed: one more of them is no new format.
    "control": """CREATE TABLE control (
        number INTEGER PRIMARY KEY,
        session INTEGER NOT NULL,
        at_utc REAL NOT NULL,
        command TEXT NOT NULL,
        value TEXT,
        origin TEXT NOT NULL
    ) STRICT""",
}
"""What later versions added or made anew, as it stands in a new ledger."""

_CHUNK_COLUMNS_1: Final = (
    "ordinal, state, digest, ids, first_id, last_id, source, line, body_bytes, invalid, duplicate"
)

_STEPS: Final[dict[int, tuple[str, ...]]] = {
    1: (
        # The words that `state` may hold are part of the table: SQLite changes them only by making it anew.
        "DROP INDEX chunk_state",
        "ALTER TABLE chunk RENAME TO chunk_1",
        TABLES["chunk"],
        f"INSERT INTO chunk ({_CHUNK_COLUMNS_1}) SELECT {_CHUNK_COLUMNS_1} FROM chunk_1",  # nosec B608 # noqa: S608 - a constant
        "DROP TABLE chunk_1",
        TABLES["chunk_state"],
        TABLES["chunk_part"],
        "ALTER TABLE attempt ADD COLUMN answer_bytes INTEGER",
        "ALTER TABLE attempt ADD COLUMN sent_utc REAL",
        "ALTER TABLE attempt ADD COLUMN answered_utc REAL",
        "ALTER TABLE run ADD COLUMN baseline_utc REAL",
        TABLES["baseline"],
        TABLES["settlement"],
        TABLES["finding"],
    ),
    2: (TABLES["control"],),
}
"""What leads from each version to the next."""


def backup_path(path: Path, version: int) -> Path:
    """Names the copy of a ledger that is kept before it is changed."""
    return path.with_name(f"{path.stem}-format-{version}{path.suffix}")


def migrate(database: sqlite3.Connection, path: Path, version: int) -> None:
    """Brings a ledger of an earlier version up to date, after a copy of it was made beside it.

    Guarantees:
        It is the old ledger or the new one, whatever happens in between, and the copy is whole.

    Raises:
        LedgerError: there is no room for the copy, or for the change.
    """
    copy = backup_path(path, version)
    _back_up(database, path, copy)
    try:
        _change(database, version)
    except sqlite3.Error as error:
        raise LedgerError(
            f"The ledger {path} is of an earlier bulkjobs and could not be brought up to date: {error}. It holds "
            f"what it held, and so does its copy {copy}. Mend the cause (is the disk full?), then give the command "
            "again."
        ) from error


def _change(database: sqlite3.Connection, version: int) -> None:
    database.execute("BEGIN IMMEDIATE")
    for step in range(version, SCHEMA_VERSION):
        for statement in _STEPS[step]:
            database.execute(statement)
    database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    database.execute("COMMIT")


def _back_up(database: sqlite3.Connection, path: Path, copy: Path) -> None:
    """Copies the ledger. A copy that an interrupted migration left is made anew: the ledger is still the old one."""
    part = copy.with_name(copy.name + ".new")
    try:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        target = sqlite3.connect(part)
        try:
            # Nobody needs a half copy again, so there is no journal to leave behind; it is synced once, when whole.
            target.execute("PRAGMA journal_mode = OFF")
            target.execute("PRAGMA synchronous = OFF")
            database.backup(target)
        finally:
            target.close()
        _sync(part, os.O_RDWR)
        part.replace(copy)
        _sync(copy.parent, os.O_RDONLY | os.O_DIRECTORY)
    except (OSError, sqlite3.Error) as error:
        raise LedgerError(
            f"The ledger {path} is of an earlier bulkjobs and has to be brought up to date, but the copy {copy} that "
            f"is kept of it cannot be made: {error}. Make room for it, then give the command again. "
            "Nothing was changed."
        ) from error


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
