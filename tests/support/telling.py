"""What a run tells its observers, made by hand."""

from __future__ import annotations

from typing import Final

from bulkjobs.events import ChunkAccepted
from bulkjobs.model import JobRecord

__all__ = ["NOON", "HandClock", "accepted"]

NOON: Final = 1_800_000_000.0 - 1_800_000_000.0 % 86_400 + 43_200
"""On the wall, in UTC."""


class HandClock:
    """Is a wall clock that a test sets. Implements `ports.Clock`."""

    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def utc(self) -> float:
        """Gives what was set."""
        return self.now


def accepted(
    chunk: int = 1, *, ids: int = 100, elapsed_s: float = 0.5, remark: str | None = None
) -> ChunkAccepted:
    """Says that a chunk was accepted."""
    record = JobRecord(
        run_id="r1",
        chunk=chunk,
        digest="d" * 64,
        job_id=f"job{chunk}",
        status="accepted",
        type="contacts",
        endpoint="contacts",
        ids=ids,
        first_id="8800001",
        last_id="8800002",
        source="ids.txt",
        attempt=1,
        accepted_at="2027-01-15T12:00:00Z",
    )
    return ChunkAccepted(record=record, elapsed_s=elapsed_s, remark=remark)
