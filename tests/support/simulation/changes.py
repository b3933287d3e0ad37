"""What a commit changes in the ledger, row by row, as the database itself sees it.

Triggers that exist only on this connection report each change of a row, whoever made it and with which statement.
Changes that were rolled back are forgotten; what is left is handed over when COMMIT has returned. So the watcher
relies on nothing that the ledger's own code believes to have written.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from bulkjobs.ledger.schema import Database

__all__ = ["Change", "WatchedDatabase"]

Change = tuple[Any, ...]
"""What happened ("chunk+", "chunk", "attempt+", "attempt", "job+", "settlement+", "lockout+" or "gone") and values."""

_TRIGGERS: Final = (
    (
        "INSERT ON chunk",
        "'chunk+', NEW.ordinal, NEW.state, NEW.digest, NEW.ids, NEW.parent, NEW.first, NEW.invalid, NEW.duplicate",
    ),
    ("UPDATE OF state ON chunk", "'chunk', NEW.ordinal, OLD.state, NEW.state"),
    (
        "UPDATE OF digest, ids, first_id, last_id, invalid, duplicate, parent, first ON chunk",
        "'gone', 'chunk', NEW.ordinal, 'its contents'",
    ),
    ("DELETE ON chunk", "'gone', 'chunk', OLD.ordinal, 'the row'"),
    (
        "INSERT ON attempt",
        "'attempt+', NEW.chunk, NEW.attempt, NEW.verdict, NEW.cause, NEW.phase, NEW.status",
    ),
    (
        "UPDATE ON attempt",
        "'attempt', NEW.chunk, NEW.attempt, OLD.verdict, NEW.verdict, NEW.cause, NEW.phase, NEW.status",
    ),
    ("DELETE ON attempt", "'gone', 'attempt', OLD.chunk, 'the row'"),
    ("INSERT ON job", "'job+', NEW.chunk, NEW.job_id, NEW.attempt"),
    ("UPDATE OF chunk, job_id, attempt ON job", "'gone', 'job', OLD.chunk, 'its identity'"),
    ("DELETE ON job", "'gone', 'job', OLD.chunk, 'the row'"),
    ("INSERT ON settlement", "'settlement+', NEW.chunk, NEW.attempt, NEW.how, NEW.job_id"),
    ("UPDATE ON settlement", "'gone', 'settlement', OLD.chunk, 'a settlement'"),
    ("INSERT ON lockout", "'lockout+', NEW.number"),
)


class WatchedDatabase:
    """Passes statements on and tells of each commit what it changed. Implements `Database`."""

    def __init__(self, database: Database, committed: Callable[[Sequence[Change]], None]) -> None:
        """Puts the triggers in place.

        Args:
            database: a connection just opened.
            committed: told the changes of each transaction, in order, once it is durable.
        """
        self._database = database
        self._committed = committed
        self._changes: list[Change] = []
        self._savepoint = 0
        connection = cast("sqlite3.Connection", database)
        connection.create_function("simulation_saw", -1, self._saw)
        for number, (event, values) in enumerate(_TRIGGERS):
            database.execute(
                f"CREATE TEMP TRIGGER simulation_{number} AFTER {event} BEGIN SELECT simulation_saw({values}); END"
            )

    def tell(self, committed: Callable[[Sequence[Change]], None]) -> None:
        """Tells somebody else from now on, of what begins now."""
        self._committed = committed
        self._changes.clear()

    def _saw(self, *values: object) -> None:
        self._changes.append(values)

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> sqlite3.Cursor:
        """Runs one statement."""
        if sql.startswith("SAVEPOINT"):
            self._savepoint = len(self._changes)
        cursor = self._database.execute(sql, parameters)
        if sql.startswith("ROLLBACK TO"):
            del self._changes[self._savepoint :]
        elif sql.startswith("ROLLBACK"):
            self._changes.clear()
        elif sql == "COMMIT" and self._changes:
            changes, self._changes = self._changes, []
            self._committed(changes)
        return cursor

    def close(self) -> None:
        """Ends the connection."""
        self._database.close()
