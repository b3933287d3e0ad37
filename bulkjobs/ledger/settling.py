"""How a held chunk is settled: its job is adopted, its absence was proved, or a person has it sent again."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from bulkjobs.errors import InternalError, LedgerError
from bulkjobs.ledger.schema import Database
from bulkjobs.lifecycle import check_transition
from bulkjobs.model import ChunkState, JobStatus

__all__ = ["Settled", "Settlement", "record_baseline", "record_findings", "settle"]


class Settled(StrEnum):
    """Is how a held chunk was settled."""

    ADOPTED = "adopted"
    """The server has made a job of it."""
    ABSENT = "absent"
    """It is proved that there is no job; the chunk goes out again."""
    RESUBMITTED = "resubmitted"
    """Nobody knows, and a person has it sent again: its ids may be paid for twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """Is one decision about a held chunk, kept for ever beside the attempt that it is about."""

    how: Settled
    reason: str
    """The evidence, in a sentence."""
    by_person: bool = False


_STATES: Final = {
    Settled.ADOPTED: ChunkState.ACCEPTED,
    Settled.ABSENT: ChunkState.PLANNED,
    Settled.RESUBMITTED: ChunkState.PLANNED,
}


def settle(
    database: Database, chunk: int, settlement: Settlement, job: JobStatus | None, now_utc: float
) -> None:
    """Records a settlement and moves its chunk, in the transaction of the caller.

    Raises:
        InternalError: a job without an adoption, or the other way round.
        LedgerError: the chunk is not held, or the job is that of another chunk.
    """
    if (job is None) is (settlement.how is Settled.ADOPTED):
        raise InternalError(f"Chunk {chunk} cannot be {settlement.how.value} with job {job}.")
    after = _STATES[settlement.how]
    check_transition(ChunkState.HELD, after)
    moved = database.execute(
        "UPDATE chunk SET state = ?, duplicate_risk = max(duplicate_risk, ?) WHERE ordinal = ? AND state = 'held'",
        (after.value, settlement.how is Settled.RESUBMITTED, chunk),
    ).rowcount
    if moved != 1:
        raise LedgerError(f"Chunk {chunk} is not held: there is nothing to settle.")
    (attempt,) = database.execute("SELECT max(attempt) FROM attempt WHERE chunk = ?", (chunk,)).fetchone()
    if job is not None:
        try:
            database.execute(
                "INSERT INTO job (chunk, job_id, attempt, accepted_utc, accepted_state, type, state, word, processed,"
                " seen_utc) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(chunk, job.job_id, attempt, now_utc, job.state.value, job.job_type),
                    *(job.state.value, job.word, job.processed, now_utc),
                ),
            )
        except sqlite3.IntegrityError:
            raise LedgerError(
                f"Job {job.job_id} is the job of another chunk, not of chunk {chunk}."
            ) from None
    database.execute("DELETE FROM finding WHERE chunk = ?", (chunk,))
    database.execute(
        "INSERT INTO settlement (chunk, attempt, at_utc, how, job_id, reason, by) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            chunk,
            attempt,
            now_utc,
            settlement.how.value,
            None if job is None else job.job_id,
            settlement.reason,
            "person" if settlement.by_person else "reconcile",
        ),
    )


def record_baseline(database: Database, job_ids: Collection[str], now_utc: float) -> None:
    """Records the jobs that are none of this run's."""
    for job_id in job_ids:
        database.execute("INSERT OR IGNORE INTO baseline (job_id) VALUES (?)", (job_id,))
    database.execute("UPDATE run SET baseline_utc = ?", (now_utc,))


def record_findings(database: Database, findings: Mapping[int, str], now_utc: float) -> None:
    """Records why held chunks could not be settled; an earlier finding gives way."""
    for chunk, reason in findings.items():
        database.execute(
            "INSERT OR REPLACE INTO finding (chunk, at_utc, reason) VALUES (?, ?, ?)",
            (chunk, now_utc, reason),
        )
