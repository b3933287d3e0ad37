"""A database that stays open while one process after the other works on the ledger in it.

To open a ledger, to read its schema and to compile its statements takes a third of the time of a simulation. So the
ledger of a run is here a database in memory that is opened once. Each process gets a hold on it, through which the
ledger's own code runs as on a new connection, with its checks, and finds what was committed before it. Left out is what
is about the file: that SQLite writes and recovers it, and looks through its pages. Simulations on files, which come to
the same trace, have that too.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, cast

from bulkjobs.ledger import schema
from bulkjobs.ledger.schema import Database
from support.simulation.changes import Change, WatchedDatabase

__all__ = ["Hold", "OpenDatabases"]

_ANSWERED: Final = {
    "PRAGMA journal_mode = WAL": "SELECT 'wal'",
    "PRAGMA quick_check(1)": "SELECT 'ok'",  # there is no file whose pages could be damaged
}
_FORMS: Final = {
    kind: re.compile(form)
    for kind, form in {
        "read": r"\s*SELECT\b|PRAGMA \w+$",
        "begin": "BEGIN( IMMEDIATE)?$",
        "end": "(COMMIT|ROLLBACK)$",
        "pragma": "PRAGMA ",
        "part": "(SAVEPOINT|ROLLBACK TO|RELEASE) ",
    }.items()
}
"""The kinds of statements that a ledger makes; any other is a change."""


class _KeptDatabase:
    """Is a database that stays open."""

    def __init__(self) -> None:
        self._connection = sqlite3.connect(":memory:", isolation_level=None, cached_statements=512)
        self._settings: dict[str, str] = {}
        self._kinds: dict[str, str] = {}
        """Of each statement."""
        self._nothing = self._connection.cursor()
        self._watched: WatchedDatabase | None = None
        self._begins = False
        """A transaction is to begin when something is to be changed: nobody else is here who could do so."""
        self._doomed = False

    def watched(self, committed: Callable[[Sequence[Change]], None]) -> None:
        """Has its changes told to one process from now on; the triggers stay from the first time."""
        if self._watched is None:
            self._watched = WatchedDatabase(self._connection, committed)
        self._watched.tell(committed)

    def execute(self, sql: str, parameters: Sequence[Any]) -> sqlite3.Cursor:
        """Runs a statement, or what takes its place."""
        kind = self._kinds.get(sql)
        if kind is None:
            kind = self._kinds[sql] = next((one for one, form in _FORMS.items() if form.match(sql)), "change")
        if kind == "read":
            return self._connection.execute(sql, parameters)
        if kind == "begin":
            self._begins = True
            return self._nothing
        if kind == "end" and self._begins:
            self._begins = False
            return self._nothing
        if kind == "pragma":
            return self._pragma(sql)
        if self._begins:
            self._begins = False
            self._connection.execute("SAVEPOINT dead" if self._doomed else "BEGIN")
        if kind == "change":
            return self._connection.execute(sql, parameters)
        if kind == "end" and self._doomed:
            if sql == "ROLLBACK":
                self._connection.execute("ROLLBACK TO dead")
            sql = "RELEASE dead"
        return (self._watched or self._connection).execute(sql)

    def _pragma(self, sql: str) -> sqlite3.Cursor:
        """Sets what is not set yet: a setting that is made again would have each statement compiled again."""
        if sql in _ANSWERED:
            return self._connection.execute(_ANSWERED[sql])
        name = sql.split()[1]
        if "=" in sql and self._settings.get(name) != sql:
            self._settings[name] = sql
            self._connection.execute(sql)
        return self._nothing

    def set_progress_handler(self, handler: Callable[[], int] | None, steps: int) -> None:
        """As that of a connection."""
        self._connection.set_progress_handler(handler, steps)

    def let_go(self) -> None:
        """Takes back a transaction that a process did not end before it closed the ledger."""
        self._begins = False
        if self._connection.in_transaction and not self._doomed:
            self._connection.execute("ROLLBACK")

    def doom(self) -> None:
        """Begins what will be taken back: all that is done from now on."""
        self._connection.execute("BEGIN")
        self._doomed = True

    def restore(self) -> None:
        """Takes it back; when a dead process was the first to come here, that is everything."""
        if not self._doomed:
            self.clear()
            return
        self._connection.execute("ROLLBACK")
        self._begins = self._doomed = False

    def clear(self) -> None:
        """Deletes every row."""
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        self._begins = self._doomed = False
        self.watched(lambda _changes: None)
        tables = self._connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        self._connection.execute("BEGIN")
        for (table,) in tables:
            self._connection.execute(f"DELETE FROM {table}")
        self._connection.execute("COMMIT")


_shelf: list[_KeptDatabase] = []
"""Those that no simulation uses now, without rows."""


class Hold:
    """Is what a process has of a database that stays open, until it closes it. Implements `Database`."""

    def __init__(self, kept: _KeptDatabase) -> None:
        self._kept: _KeptDatabase | None = kept

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> sqlite3.Cursor:
        """Runs one statement."""
        return self._open.execute(sql, parameters)

    def set_progress_handler(self, handler: Callable[[], int] | None, steps: int) -> None:
        """As that of a connection."""
        self._open.set_progress_handler(handler, steps)

    def watched(self, committed: Callable[[Sequence[Change]], None]) -> None:
        """Has the changes told."""
        self._open.watched(committed)

    def close(self) -> None:
        """Lets go of the database."""
        if self._kept is not None:
            self._kept.let_go()
        self._kept = None

    @property
    def _open(self) -> _KeptDatabase:
        if self._kept is None:
            raise sqlite3.ProgrammingError("Cannot operate on a closed database.")
        return self._kept


class OpenDatabases:
    """Holds the databases of one simulation, by the path where a file of that ledger would be."""

    def __init__(self) -> None:
        self._kept: dict[Path, _KeptDatabase] = {}
        self._holds: list[Hold] = []
        self._dead_at: Path | None = None
        self._open_file = schema._opened

    def open(self, path: Path, how: str, prepare: Callable[[sqlite3.Connection, Path], None]) -> Database:
        """Stands in for what opens the file of a ledger."""
        if how != "mode=rw":
            return self._open_file(path, how, prepare)
        if path not in self._kept:
            self._kept[path] = _shelf.pop() if _shelf else _KeptDatabase()
        hold = Hold(self._kept[path])
        self._holds.append(hold)
        try:
            prepare(cast("sqlite3.Connection", hold), path)
        except BaseException:
            hold.close()
            raise
        return hold

    def crash(self, path: Path) -> None:
        """Takes it that the process which works on a ledger is dead: what it still does will not have been done."""
        self._dead_at = path
        if path in self._kept:
            self._kept[path].doom()

    def bury(self) -> None:
        """Takes it that nothing is left of the dead process."""
        assert self._dead_at is not None
        for hold in self._holds:
            hold.close()
        if self._dead_at in self._kept:
            self._kept[self._dead_at].restore()

    def close(self) -> None:
        """Leaves the databases to the next simulation."""
        for kept in self._kept.values():
            kept.clear()
        _shelf.extend(self._kept.values())
