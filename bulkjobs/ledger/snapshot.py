"""A run as another process sees it at one moment, without a lock."""

from __future__ import annotations

from pathlib import Path

from bulkjobs.ledger import queries
from bulkjobs.ledger.controlling import control_rows, paused_by
from bulkjobs.ledger.lock import lock_owner
from bulkjobs.ledger.schema import DATABASE_NAME, Database, reading
from bulkjobs.ledger.values import RunSnapshot

__all__ = ["read_run"]


def read_run(run_dir: Path) -> RunSnapshot:
    """Reads a run as it is at this moment, without a lock, also while another process works on it.

    Raises:
        LedgerError: there is no ledger, or it cannot be read.
    """
    with reading(run_dir / DATABASE_NAME) as database:
        return _snapshot(database, lock_owner(run_dir))


def _snapshot(database: Database, owner: str | None) -> RunSnapshot:
    """Reads all that `status` shows, in one transaction."""
    database.execute("BEGIN")
    last = database.execute(
        "SELECT exit_code, stop_reason FROM session ORDER BY number DESC LIMIT 1"
    ).fetchone()
    exit_code, stop_reason = last or (None, None)
    (locked_until_utc,) = database.execute("SELECT max(until_utc) FROM lockout").fetchone()
    result = RunSnapshot(
        run=queries.run_row(database),
        sources=queries.sources(database),
        counts=queries.counts(database, None),
        locked_until_utc=locked_until_utc,
        learned_limit=queries.learned_limit(database),
        open_jobs=queries.open_jobs(database),
        # What an open session was told is true of the process that has the run, and of no other.
        paused_by=None if owner is None else paused_by(database),
        controls=control_rows(database),
        exit_code=exit_code,
        stop_reason=stop_reason,
        owner=owner,
    )
    database.execute("COMMIT")
    return result
