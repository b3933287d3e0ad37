"""The durable account of a run: every chunk, attempt and job, in one SQLite file with one writer."""

from bulkjobs.ledger.ledger import Ledger, new_run_id
from bulkjobs.ledger.lock import LOCK_NAME
from bulkjobs.ledger.queries import summarise
from bulkjobs.ledger.schema import DATABASE_NAME, SCHEMA_VERSION
from bulkjobs.ledger.settling import Settled, Settlement
from bulkjobs.ledger.snapshot import read_run
from bulkjobs.ledger.values import (
    AccountState,
    ChunkRow,
    ControlRow,
    Counts,
    KnownJob,
    OpenJob,
    RunRow,
    RunSnapshot,
    SourceRow,
    StateCount,
    VerdictRow,
)

__all__ = [
    "DATABASE_NAME",
    "LOCK_NAME",
    "SCHEMA_VERSION",
    "AccountState",
    "ChunkRow",
    "ControlRow",
    "Counts",
    "KnownJob",
    "Ledger",
    "OpenJob",
    "RunRow",
    "RunSnapshot",
    "Settled",
    "Settlement",
    "SourceRow",
    "StateCount",
    "VerdictRow",
    "new_run_id",
    "read_run",
    "summarise",
]
