"""What a session ends with: its exit code, and what is recorded when something breaks it off."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from bulkjobs.errors import LedgerError
from bulkjobs.exits import Exit, exit_code
from bulkjobs.ledger import Counts, Ledger, RunRow, summarise
from bulkjobs.model import ChunkState

__all__ = ["broken_by", "session_exit_code"]


def session_exit_code(ledger: Ledger, run: RunRow, counts: Counts, stops: Sequence[Exit]) -> int:
    """Derives the exit code of a session from its ledger and from what stopped it."""
    all_read = ledger.run is not None and ledger.run.source_finished
    all_delivered = not counts.states[ChunkState.ACCEPTED].chunks
    return exit_code(summarise(run, counts, 0).ids, stops, complete=all_read and all_delivered)


def broken_by(error: BaseException) -> tuple[Exit, str]:
    """Says what broke a session off: its caller, the ledger, or a bug."""
    if isinstance(error, asyncio.CancelledError | KeyboardInterrupt):
        return Exit.SIGINT, "The session was cancelled."
    if isinstance(error, LedgerError):
        return Exit.STORAGE, str(error)
    return Exit.BUG, f"A bug ended the session: {type(error).__name__}."
