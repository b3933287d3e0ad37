"""How long jobs took, as far as the ledger knows."""

from __future__ import annotations

from typing import Final

from bulkjobs.ledger.schema import Database
from bulkjobs.model import JobState

__all__ = ["job_durations"]

_QUERY: Final = f"""
    SELECT seen_utc - accepted_utc FROM job
    WHERE state IN ({", ".join("?" * sum(state.terminal for state in JobState))}) AND seen_utc > accepted_utc
    AND NOT EXISTS (
        SELECT 1 FROM session WHERE session.started_utc > job.accepted_utc AND session.started_utc <= job.seen_utc
    )
    ORDER BY seen_utc DESC LIMIT ?
"""  # nosec B608 # noqa: S608 - only question marks are put in


def job_durations(database: Database, most: int) -> list[float]:
    """Reads how long the last jobs took until their end was seen, in seconds, the oldest first.

    Jobs that no session saw from beginning to end are left out: their end may have been seen long after it came.
    """
    ends = [state.value for state in JobState if state.terminal]
    return [seconds for (seconds,) in database.execute(_QUERY, (*ends, most))][::-1]
