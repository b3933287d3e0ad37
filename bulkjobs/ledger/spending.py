"""What a ledger says of money: which ids are spent, or may be, and which are still to be sent."""

from __future__ import annotations

from typing import Final

from bulkjobs.ledger.schema import Database

__all__ = ["planned_ids", "spent_ids"]

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
