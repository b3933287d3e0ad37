"""Looks through a ledger before anything is sent by it: whether it is whole, and whether its tables agree.

SQLite has no checksums. A damaged page mostly makes a file that cannot be read; the ones to be afraid of are an
older state of a page and a flipped bit that is good to read, by which a chunk that was sent is planned once more. So
what a planned chunk rests on is asked for in several places, of which no single page holds two.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Final

from bulkjobs.errors import LedgerError
from bulkjobs.ledger.schema import Database
from bulkjobs.model import FIRST_PART

__all__ = ["require_sound"]

_LONGEST_S: Final = 10.0
"""After so long the look at the structure of the file ends without a result; it reads every page of it."""
_STEPS: Final = 100_000
"""Steps of SQLite's machine between two looks at the clock: some milliseconds."""

_CHUNKS: Final = "SELECT state, count(*), sum(ordinal), sum(ids), sum(invalid), sum(duplicate) FROM chunk"
_ATTEMPTS: Final = "SELECT count(*), sum(chunk) FROM attempt"
_TWICE: Final = (
    ("chunks", f"{_CHUNKS} NOT INDEXED GROUP BY +state", f"{_CHUNKS} INDEXED BY chunk_state GROUP BY state"),
    # NOT INDEXED does not keep a table with a key of its own from being read through an index that holds all that is
    # asked for; the index has no verdicts.
    (
        "attempts",
        f"{_ATTEMPTS} WHERE verdict IS NULL OR verdict <> ''",
        f"{_ATTEMPTS} INDEXED BY attempt_time",
    ),
)
"""The same question to a table and to an index of it."""

_SETTLED: Final = (
    "SELECT 1 FROM settlement WHERE settlement.chunk = attempt.chunk AND settlement.attempt = attempt.attempt"
    " AND how IN ('absent', 'resubmitted')"
)
_APPLIED: Final = (
    "SELECT 1 FROM attempt WHERE chunk = ordinal AND verdict IS NOT 'not_applied'"  # noqa: S608 - constants
    f" AND NOT (verdict IS 'unknown' AND EXISTS ({_SETTLED}))"
)
_IN_FLIGHT: Final = "SELECT 1 FROM attempt WHERE chunk = ordinal AND verdict IS NULL"
_JOB: Final = "SELECT 1 FROM job WHERE job.chunk = ordinal"
_ACCEPTED: Final = "('accepted', 'delivered')"
_NEVER: Final = {
    "chunk {} is planned, but an attempt of it may have been applied": (
        f"SELECT ordinal FROM chunk WHERE state = 'planned' AND EXISTS ({_APPLIED})"  # noqa: S608 - constants
    ),
    "chunk {} has a job, but is not accepted": (
        f"SELECT ordinal FROM chunk WHERE state NOT IN {_ACCEPTED} AND EXISTS ({_JOB})"  # noqa: S608 - constants
    ),
    "chunk {} is accepted, but has no job": (
        f"SELECT ordinal FROM chunk WHERE state IN {_ACCEPTED} AND NOT EXISTS ({_JOB})"  # noqa: S608 - constants
    ),
    "chunk {} is being sent, but no attempt of it is in flight": (
        f"SELECT ordinal FROM chunk WHERE state = 'sending' AND NOT EXISTS ({_IN_FLIGHT})"  # noqa: S608 - constants
    ),
    "chunk {} has an attempt, but is not there": (
        "SELECT chunk FROM attempt WHERE NOT EXISTS (SELECT 1 FROM chunk WHERE ordinal = attempt.chunk)"
    ),
    "chunk {} has a job, but is not there": (
        "SELECT chunk FROM job WHERE NOT EXISTS (SELECT 1 FROM chunk WHERE ordinal = job.chunk)"
    ),
}
"""What is wrong with a ledger of which the query gives a chunk."""


def require_sound(database: sqlite3.Connection, path: Path, *, longest_s: float = _LONGEST_S) -> None:
    """Passes a ledger in which nothing contradicts anything.

    Args:
        database: a ledger of this version.
        path: for the message.
        longest_s: see `_LONGEST_S`; the comparison of the tables is always done, about 5 s for a million chunks.

    Raises:
        LedgerError: it is damaged; nothing of it may be believed.
        sqlite3.Error: it cannot even be read.
    """
    for problem in (_structure(database, longest_s), _disagreement(database)):
        if problem is not None:
            raise LedgerError(
                f"The ledger {path} is damaged: {problem}. Nothing was sent, because it could be paid for twice. "
                f"Look at the disk, and put back a copy of ledger.db and ledger.db-wal that is not older than the "
                f"last session; or choose another run for the ids that jobs.jsonl and held.jsonl do not account for."
            )


def _structure(database: sqlite3.Connection, longest_s: float) -> str | None:
    ends_s = time.monotonic() + longest_s
    database.set_progress_handler(lambda: int(time.monotonic() > ends_s), _STEPS)
    try:
        found = str(database.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            return None
        raise
    finally:
        database.set_progress_handler(None, 0)
    return None if found == "ok" else found.replace("\n", " ").removesuffix(".")


def _disagreement(database: Database) -> str | None:
    for rows, table, index in _TWICE:
        if sorted(database.execute(table).fetchall()) != sorted(database.execute(index).fetchall()):
            return f"its index of {rows} does not agree with them"
    for what, condition, before in (("chunks", "<", 0), ("parts of chunks", ">=", FIRST_PART - 1)):
        number, last = database.execute(
            f"SELECT count(*), coalesce(max(ordinal) - ?, 0) FROM chunk WHERE ordinal {condition} ?",  # noqa: S608 - constants
            (before, FIRST_PART),
        ).fetchone()
        if number != last:
            return f"it has {number} {what}, but the last one is number {last}"
    for problem, query in _NEVER.items():
        row = database.execute(f"{query} LIMIT 1").fetchone()
        if row is not None:
            return problem.format(row[0])
    return None
