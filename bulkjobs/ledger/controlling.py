"""What people told a run to do while it worked: each command with its time and who gave it.

A command is about the session that took it and no other: the next one begins as its options say.
"""

from __future__ import annotations

from typing import Final

from bulkjobs.ledger.schema import Database
from bulkjobs.ledger.values import ControlRow

__all__ = ["control_rows", "paused_by", "record_control"]

_COLUMNS: Final = "number, session, at_utc, command, value, origin"


def record_control(
    database: Database, session: int, at_utc: float, *, command: str, value: str | None, origin: str
) -> None:
    """Records a command that a session is about to carry out."""
    database.execute(
        "INSERT INTO control (session, at_utc, command, value, origin) VALUES (?, ?, ?, ?, ?)",
        (session, at_utc, command, value, origin),
    )


def control_rows(database: Database) -> list[ControlRow]:
    """Reads every command, in order."""
    return _rows(database, "ORDER BY number")


def paused_by(database: Database) -> ControlRow | None:
    """Reads the command that pauses the session that is open; None when nothing does."""
    switches = _rows(
        database,
        "WHERE session = (SELECT max(number) FROM session WHERE ended_utc IS NULL)"
        " AND command IN ('pause', 'resume', 'drain') ORDER BY number DESC LIMIT 1",
    )
    return switches[0] if switches and switches[0].command == "pause" else None


def _rows(database: Database, rest: str) -> list[ControlRow]:
    names = _COLUMNS.split(", ")
    rows = database.execute(f"SELECT {_COLUMNS} FROM control {rest}")  # nosec B608 # noqa: S608 - constants
    return [ControlRow(**dict(zip(names, row, strict=True))) for row in rows]
