"""What an audit reads of a ledger: every row of it, at one moment, also while another process goes on writing.

Nothing here trusts what the rows say together: a chunk is given with all that is recorded of it, and whoever asks
judges whether it fits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from bulkjobs.clock import timestamp
from bulkjobs.ledger import queries
from bulkjobs.ledger.controlling import control_rows
from bulkjobs.ledger.schema import DATABASE_NAME, Database, reading
from bulkjobs.ledger.values import ControlRow, Counts, RunRow, SourceRow
from bulkjobs.model import FIRST_PART, JobRecord, Tally

__all__ = [
    "AttemptMark",
    "AttemptRow",
    "ChunkFile",
    "ChunkRecord",
    "Inspection",
    "JobRow",
    "LockoutRow",
    "SessionRow",
    "SettlementRow",
    "inspecting",
]

_Row = TypeVar("_Row", bound="_OfChunk")


@dataclass(frozen=True, slots=True, kw_only=True)
class _OfChunk:
    chunk: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkRecord:
    """Is a chunk as the ledger has it, without its body."""

    ordinal: int
    state: str
    """A word of `ChunkState`, if nobody has changed the ledger."""
    digest: str
    ids: int
    first_id: str
    last_id: str
    source: str
    line: int
    body_bytes: int
    tally: Tally
    parent: int | None
    first: int
    duplicate_risk: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptMark(_OfChunk):
    """Is an attempt without its evidence."""

    attempt: int
    started_utc: float
    ended_utc: float | None
    verdict: str | None
    """None while it is in flight."""
    cause: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRow(AttemptMark):
    """Is an attempt with all its evidence."""

    reason: str | None
    phase: int | None
    status: int | None
    error: str | None
    content_type: str | None
    retry_after: str | None
    connection_reused: bool | None
    job_hint: str | None
    body: bytes
    """The first 4 KiB of the answer."""
    body_cut: bool
    answer_bytes: int | None
    """None where a ledger of an earlier version did not count."""
    sent_utc: float | None
    answered_utc: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow(_OfChunk):
    """Is a job of the run."""

    job_id: str
    attempt: int
    accepted_utc: float
    accepted_state: str
    type: str
    state: str
    word: str | None
    processed: int | None
    seen_utc: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SettlementRow(_OfChunk):
    """Is one decision about a held chunk."""

    number: int
    attempt: int
    at_utc: float
    how: str
    job_id: str | None
    reason: str
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRow:
    """Is one session of the run."""

    number: int
    started_utc: float
    ended_utc: float | None
    exit_code: int | None
    stop_reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LockoutRow:
    """Is one lock-out of the account."""

    number: int
    began_utc: float
    until_utc: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkFile:
    """Is a chunk with all that is recorded of it but the evidence."""

    chunk: ChunkRecord
    attempts: list[AttemptMark]
    """In order."""
    job: JobRow | None
    settlements: list[SettlementRow]
    """In order."""


_CHUNK: Final = (
    "ordinal, state, digest, ids, first_id, last_id, source, line, body_bytes, invalid, duplicate, parent, first,"
    " duplicate_risk"
)
_MARK: Final = "chunk, attempt, started_utc, ended_utc, verdict, cause"
_ATTEMPT: Final = (
    f"{_MARK}, reason, phase, status, error, content_type, retry_after, connection_reused, job_hint, body, body_cut,"
    " answer_bytes, sent_utc, answered_utc"
)
_JOB: Final = "chunk, job_id, attempt, accepted_utc, accepted_state, type, state, word, processed, seen_utc"
_SETTLEMENT: Final = "chunk, number, attempt, at_utc, how, job_id, reason, by"


class Inspection:
    """Answers from one moment of a ledger. It belongs to the thread that opened it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def run(self) -> RunRow | None:
        """Gives what the run is; None when it was not made yet."""
        return queries.run_row(self._database)

    def sources(self) -> list[SourceRow]:
        """Gives the sources in their order."""
        return queries.sources(self._database)

    def source_positions(self) -> list[int]:
        """Gives the positions under which sources are recorded; without a gap they begin at 0."""
        return [position for (position,) in self._execute("SELECT position FROM source ORDER BY position")]

    def counts(self) -> Counts:
        """Counts everything as a summary does."""
        return queries.counts(self._database, None)

    def sink_positions(self) -> dict[str, int | None]:
        """Gives how far each sink is known to have got."""
        return queries.sink_positions(self._database)

    def sessions(self) -> list[SessionRow]:
        """Gives the sessions in their order."""
        rows = self._execute(
            "SELECT number, started_utc, ended_utc, exit_code, stop_reason FROM session ORDER BY number"
        )
        return [
            SessionRow(
                number=number, started_utc=started, ended_utc=ended, exit_code=code, stop_reason=stop_reason
            )
            for number, started, ended, code, stop_reason in rows
        ]

    def controls(self) -> list[ControlRow]:
        """Gives the commands that people gave to sessions while these worked, in their order."""
        return control_rows(self._database)

    def lockouts(self) -> Iterator[LockoutRow]:
        """Gives the lock-outs in their order."""
        rows = self._execute("SELECT number, began_utc, until_utc, reason FROM lockout ORDER BY number")
        for number, began, until, reason in rows:
            yield LockoutRow(number=number, began_utc=began, until_utc=until, reason=reason)

    def chunks(self) -> Iterator[ChunkRecord]:
        """Gives the chunks cut from the sources, in order."""
        return self._chunks("ordinal < ? ORDER BY ordinal", FIRST_PART)

    def chunk(self, ordinal: int) -> ChunkRecord | None:
        """Gives one chunk or part."""
        return next(self._chunks("ordinal = ?", ordinal), None)

    def parts(self, parent: int) -> list[ChunkRecord]:
        """Gives the parts of a chunk that was split, larger before smaller; those split again are among them."""
        return list(self._chunks("parent = ? ORDER BY first, ids DESC, ordinal", parent))

    def in_state(self, *states: str) -> Iterator[ChunkRecord]:
        """Gives the chunks and parts in any of some states, in order of their ordinals."""
        return self._chunks(f"state IN ({', '.join('?' * len(states))}) ORDER BY ordinal", *states)

    def chunk_files(self) -> Iterator[ChunkFile]:
        """Gives every chunk and part with what is recorded of it, in order of their ordinals."""
        attempts = _Beside(self._marks())
        jobs = _Beside(self.jobs())
        settlements = _Beside(self._settlements())
        for chunk in self._chunks("true ORDER BY ordinal"):
            job = list(jobs.of(chunk.ordinal))
            yield ChunkFile(
                chunk=chunk,
                attempts=list(attempts.of(chunk.ordinal)),
                job=job[0] if job else None,  # the key of the table is the chunk
                settlements=list(settlements.of(chunk.ordinal)),
            )

    def evidence(self, ordinal: int) -> list[AttemptRow]:
        """Gives the attempts of a chunk, in order, with all that they have shown."""
        rows = self._execute(f"SELECT {_ATTEMPT} FROM attempt WHERE chunk = ? ORDER BY attempt", ordinal)  # nosec B608 # noqa: S608 - a constant
        names = _ATTEMPT.split(", ")
        return [_attempt(dict(zip(names, row, strict=True))) for row in rows]

    def last_attempt(self, ordinal: int) -> AttemptRow | None:
        """Gives the last attempt of a chunk, None when there was none."""
        attempts = self.evidence(ordinal)
        return attempts[-1] if attempts else None

    def job(self, ordinal: int) -> JobRow | None:
        """Gives the job of a chunk."""
        return next(self._jobs("WHERE chunk = ?", ordinal), None)

    def jobs(self) -> Iterator[JobRow]:
        """Gives every job, in order of their chunks."""
        return self._jobs("ORDER BY chunk")

    def settlements(self, ordinal: int) -> list[SettlementRow]:
        """Gives how a chunk was settled, in order."""
        return list(self._settlements("WHERE chunk = ?", ordinal))

    def finding(self, ordinal: int) -> str | None:
        """Gives why a held chunk could not be settled; None when nobody tried."""
        row = next(self._execute("SELECT reason FROM finding WHERE chunk = ?", ordinal), None)
        return None if row is None else str(row[0])

    def misplaced_findings(self) -> list[int]:
        """Gives the chunks that are said not to be settled, and are not held."""
        held = "SELECT ordinal FROM chunk WHERE state = 'held'"
        rows = self._execute(f"SELECT chunk FROM finding WHERE chunk NOT IN ({held}) ORDER BY chunk")  # nosec B608 # noqa: S608 - a constant
        return [chunk for (chunk,) in rows]

    def last_settlement_utc(self) -> float | None:
        """Gives when a chunk was settled last, or found impossible to settle."""
        moment: float | None
        both = "SELECT at_utc FROM settlement UNION ALL SELECT at_utc FROM finding"
        (moment,) = next(self._execute(f"SELECT max(at_utc) FROM ({both})"))  # nosec B608 # noqa: S608 - a constant
        return moment

    def record(self, run: RunRow, ordinal: int) -> JobRecord | None:
        """Gives the job record that every sink gets of a chunk; None when there is no such chunk, or no job of it."""
        chunk, job = self.chunk(ordinal), self.job(ordinal)
        if chunk is None or job is None:
            return None
        return JobRecord(
            run_id=run.run_id,
            chunk=ordinal,
            digest=chunk.digest,
            job_id=job.job_id,
            status=job.accepted_state,
            type=job.type,
            endpoint=run.endpoint,
            ids=chunk.ids,
            first_id=chunk.first_id,
            last_id=chunk.last_id,
            source=chunk.source,
            attempt=job.attempt,
            accepted_at=timestamp(job.accepted_utc),
        )

    def strays(self) -> dict[str, list[int]]:
        """Gives, by table, the ordinals of chunks that are spoken of and not there."""
        found = {}
        for table in ("attempt", "job", "settlement"):
            rows = self._execute(
                f"SELECT DISTINCT chunk FROM {table} WHERE chunk NOT IN (SELECT ordinal FROM chunk) ORDER BY chunk"  # nosec B608 # noqa: S608 - a constant
            )
            if strays := [chunk for (chunk,) in rows]:
                found[table] = strays
        return found

    def repeated_jobs(self) -> list[str]:
        """Gives the job ids that more than one chunk has; the table is read, not its index."""
        return [
            job for (job,) in self._execute("SELECT job_id FROM job GROUP BY +job_id HAVING count(*) > 1")
        ]

    def foreign_jobs(self) -> list[str]:
        """Gives the job ids that the server listed before the run sent anything."""
        return [
            job
            for (job,) in self._execute(
                "SELECT job_id FROM job WHERE job_id IN (SELECT job_id FROM baseline)"
            )
        ]

    def damage(self, *, quick: bool) -> list[str]:
        """Gives what SQLite finds wrong with the file; `quick` does not compare the tables with their indexes."""
        check = "quick_check" if quick else "integrity_check"
        found = [str(text) for (text,) in self._execute(f"PRAGMA {check}")]
        return [] if found == ["ok"] else found

    def _chunks(self, condition: str, *parameters: int | str) -> Iterator[ChunkRecord]:
        rows = self._execute(f"SELECT {_CHUNK} FROM chunk WHERE {condition}", *parameters)  # nosec B608 # noqa: S608 - constants
        for ordinal, state, digest, ids, first_id, last_id, source, line, body_bytes, *rest in rows:
            invalid, duplicate, parent, first, risk = rest
            yield ChunkRecord(
                ordinal=ordinal,
                state=state,
                digest=digest,
                ids=ids,
                first_id=first_id,
                last_id=last_id,
                source=source,
                line=line,
                body_bytes=body_bytes,
                tally=Tally(invalid=invalid, duplicate=duplicate),
                parent=parent,
                first=first,
                duplicate_risk=bool(risk),
            )

    def _marks(self) -> Iterator[AttemptMark]:
        rows = self._execute(f"SELECT {_MARK} FROM attempt ORDER BY chunk, attempt")  # nosec B608 # noqa: S608 - a constant
        for chunk, attempt, started_utc, ended_utc, verdict, cause in rows:
            yield AttemptMark(
                chunk=chunk,
                attempt=attempt,
                started_utc=started_utc,
                ended_utc=ended_utc,
                verdict=verdict,
                cause=cause,
            )

    def _jobs(self, rest: str, *parameters: int) -> Iterator[JobRow]:
        names = _JOB.split(", ")
        for row in self._execute(f"SELECT {_JOB} FROM job {rest}", *parameters):  # nosec B608 # noqa: S608 - constants
            yield JobRow(**dict(zip(names, row, strict=True)))

    def _settlements(self, condition: str = "", *parameters: int) -> Iterator[SettlementRow]:
        names = _SETTLEMENT.split(", ")
        rows = self._execute(
            f"SELECT {_SETTLEMENT} FROM settlement {condition} ORDER BY chunk, number",  # nosec B608 # noqa: S608 - constants
            *parameters,
        )
        for row in rows:
            yield SettlementRow(**dict(zip(names, row, strict=True)))

    def _execute(self, sql: str, *parameters: int | str) -> Iterator[tuple[Any, ...]]:
        return self._database.execute(sql, parameters)


def _attempt(columns: dict[str, Any]) -> AttemptRow:
    reused = columns["connection_reused"]
    return AttemptRow(
        **columns
        | {
            "body": columns["body"] or b"",
            "body_cut": bool(columns["body_cut"]),
            "connection_reused": None if reused is None else bool(reused),
        }
    )


class _Beside(Generic[_Row]):
    """Walks through rows in the order of their chunks, beside a walk through the chunks."""

    def __init__(self, rows: Iterator[_Row]) -> None:
        self._rows = rows
        self._next = next(rows, None)

    def of(self, chunk: int) -> Iterator[_Row]:
        """Gives the rows of a chunk; those of chunks before it that nobody asked for are passed over."""
        while self._next is not None and self._next.chunk <= chunk:
            row, self._next = self._next, next(self._rows, None)
            if row.chunk == chunk:
                yield row


@contextmanager
def inspecting(run_dir: Path) -> Iterator[Inspection]:
    """Opens the ledger of a run as it is at this moment, without a lock; nobody who writes it waits.

    Raises:
        LedgerError: there is none, or it cannot be read, or it is of another version.
    """
    with reading(run_dir / DATABASE_NAME) as database:
        database.execute("BEGIN")
        database.execute("SELECT count(*) FROM run").fetchone()  # the moment is that of the first read
        yield Inspection(database)
