"""What a ledger says of money: which ids are spent, or may be, and which are still to be sent."""

from __future__ import annotations

from typing import Final

from bulkjobs.ledger.schema import Database

__all__ = ["planned_ids", "settled_ids", "spent_ids", "undebited_ids"]

_SPENT: Final = "state IN ('accepted', 'delivered', 'held', 'sending')"


def spent_ids(database: Database) -> int:
    """Counts the ids that there is a job of, or may be one.

    The ids of a chunk that a person had sent again count once more: they may be paid for twice.
    """
    (ids,) = database.execute(
        f"SELECT (SELECT coalesce(sum(ids), 0) FROM chunk WHERE {_SPENT})"  # nosec B608 # noqa: S608 - a constant
        " + (SELECT coalesce(sum(ids), 0) FROM chunk WHERE duplicate_risk)"
    ).fetchone()
    return int(ids)


def planned_ids(database: Database) -> int:
    """Counts the ids that were read and are to be sent."""
    (ids,) = database.execute("SELECT coalesce(sum(ids), 0) FROM chunk WHERE state = 'planned'").fetchone()
    return int(ids)


def settled_ids(database: Database) -> int:
    """Counts the ids that were sent and need not be sent again, unless a held chunk turns out to have no job."""
    settled = "('accepted', 'delivered', 'refused', 'held')"
    (ids,) = database.execute(
        f"SELECT coalesce(sum(ids), 0) FROM chunk WHERE state IN {settled}"  # nosec B608 # noqa: S608 - a constant
    ).fetchone()
    return int(ids)


def undebited_ids(database: Database, accepted_since_utc: float, begun_since_utc: float) -> int:
    """Counts the ids of jobs, and of what may be jobs, that the server may not have debited.

    Args:
        database: where.
        accepted_since_utc: jobs not seen to begin count if they were accepted since then.
        begun_since_utc: jobs that were count if that was seen since then. A job that was aborted never began.
    """
    (ids,) = database.execute(
        """SELECT (
            SELECT coalesce(sum(chunk.ids), 0) FROM job JOIN chunk ON chunk.ordinal = job.chunk
            WHERE job.state IN ('accepted', 'unknown') AND job.accepted_utc > ?1
            OR job.state IN ('processing', 'finished', 'failed') AND job.seen_utc > ?2
        ) + (
            SELECT coalesce(sum(ids), 0) FROM chunk WHERE state = 'held'
            AND (SELECT max(started_utc) FROM attempt WHERE attempt.chunk = ordinal) > ?1
        )""",
        (accepted_since_utc, begun_since_utc),
    ).fetchone()
    return int(ids)
