"""The changes of a chunk as operations on many rows at once (see `writer` for why).

Each operation writes its rows with multi-row VALUES in blocks of few different lengths, so that a handful of
statement texts, each kept prepared, serves groups of any size. Every move of a chunk is checked twice: against the
table in `lifecycle`, and by the database, since only a chunk in the expected state is updated and the updated are
counted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, Final, assert_never

from bulkjobs.errors import InternalError
from bulkjobs.ledger.schema import Database
from bulkjobs.ledger.writer import Operation
from bulkjobs.lifecycle import check_transition
from bulkjobs.model import (
    FIRST_PART,
    Accepted,
    Chunk,
    ChunkState,
    Evidence,
    NotApplied,
    Refused,
    Unknown,
    Verdict,
)

__all__ = [
    "BEGIN_ATTEMPT",
    "BODY_KEPT_BYTES",
    "DELIVER",
    "END_ATTEMPT",
    "PLAN",
    "RECORD_UNSENT",
    "SPLIT",
    "ended_attempt",
]

BODY_KEPT_BYTES: Final = 4096
"""How much of an answer is kept: what a person needs to judge it, not a whole HTML page for every chunk."""

_MOST_ROWS: Final = 64
"""Rows in one statement; 64 of the widest are 1,216 parameters, and SQLite allows 32,766 since 3.32."""

_ONE_BLOCK: Final = 16
"""Fewer rows than this go into one statement: a call of SQLite costs as much as some rows."""

Ended = tuple[int, int, Evidence, Verdict]
"""An attempt that has ended: chunk, number of the attempt, evidence, verdict."""


def _plan(database: Database, chunks: Sequence[Chunk]) -> Sequence[None]:
    _insert(database, f"INSERT INTO chunk ({_CHUNK_COLUMNS})", [_chunk_row(chunk) for chunk in chunks])
    return [None] * len(chunks)


_CHUNK_COLUMNS: Final = (
    "ordinal, digest, ids, first_id, last_id, source, line, body_bytes, invalid, duplicate, parent, first"
)


def _chunk_row(chunk: Chunk) -> tuple[Any, ...]:
    return (
        chunk.ordinal,
        chunk.digest,
        chunk.ids,
        chunk.first_id,
        chunk.last_id,
        chunk.source,
        chunk.line,
        len(chunk.body),
        chunk.tally.invalid,
        chunk.tally.duplicate,
        chunk.parent,
        chunk.first,
    )


def _begin_attempts(database: Database, rows: Sequence[tuple[int, int, float]]) -> Sequence[None]:
    _move(database, [row[0] for row in rows], ChunkState.PLANNED, ChunkState.SENDING)
    _insert(database, "INSERT INTO attempt (chunk, attempt, started_utc)", rows)
    return [None] * len(rows)


_ATTEMPT_COLUMNS: Final = (
    "chunk",
    "attempt",
    "started_utc",
    "ended_utc",
    "verdict",
    "cause",
    "reason",
    "phase",
    "status",
    "error",
    "content_type",
    "retry_after",
    "connection_reused",
    "job_hint",
    "body",
    "body_cut",
    "answer_bytes",
    "sent_utc",
    "answered_utc",
)
_INSERT_ATTEMPT: Final = f"INSERT INTO attempt ({', '.join(_ATTEMPT_COLUMNS)})"
# An upsert that never inserts: it is how SQLite updates many rows, each by its key, in one statement. An attempt
# that has ended already is left alone and missing from the count.
_UPDATE_ATTEMPT: Final = (
    " ON CONFLICT (chunk, attempt) DO UPDATE SET "  # nosec B608 - columns are constants
    + ", ".join(f"{column} = excluded.{column}" for column in _ATTEMPT_COLUMNS[2:])
    + " WHERE verdict IS NULL"
)


def _end_attempts(database: Database, rows: Sequence[Ended]) -> Sequence[Verdict]:
    verdicts = _insert_jobs(database, rows)
    moves: defaultdict[ChunkState, list[int]] = defaultdict(list)
    attempts = []
    for (chunk, attempt, evidence, _), verdict in zip(rows, verdicts, strict=True):
        moves[_state_after(verdict)].append(chunk)
        attempts.append(ended_attempt(chunk, attempt, evidence, verdict))
    for after, chunks in moves.items():
        _move(database, chunks, ChunkState.SENDING, after)
    _end(database, attempts)
    return verdicts


def _end(database: Database, attempts: Sequence[tuple[Any, ...]]) -> None:
    if _insert(database, _INSERT_ATTEMPT, attempts, _UPDATE_ATTEMPT) != len(attempts):
        raise InternalError(f"An attempt was ended twice: {_names(row[0] for row in attempts)}.")


def _split(database: Database, rows: Sequence[tuple[Ended, Sequence[Chunk]]]) -> Sequence[Sequence[Chunk]]:
    """Puts the parts of chunks in their place, and gives the parts with their ordinals."""
    _move(database, [ended[0] for ended, _ in rows], ChunkState.SENDING, ChunkState.SPLIT)
    _end(database, [ended_attempt(*ended) for ended, _ in rows])
    ordinal = database.execute(
        "SELECT coalesce(max(ordinal) + 1, ?) FROM chunk WHERE ordinal >= ?", (FIRST_PART, FIRST_PART)
    ).fetchone()[0]
    numbered = []
    for _, parts in rows:
        numbered.append([replace(part, ordinal=ordinal + index) for index, part in enumerate(parts)])
        ordinal += len(parts)
    _plan(database, [part for parts in numbered for part in parts])
    return numbered


def _record_unsent(database: Database, rows: Sequence[Ended]) -> Sequence[Verdict]:
    for chunk, _, _, _ in rows:
        state = _state_of(database, chunk)
        if state is not ChunkState.PLANNED:
            raise InternalError(f"Chunk {chunk} is {state.value}: an attempt of it cannot have ended unsent.")
    _insert(database, _INSERT_ATTEMPT, [ended_attempt(*row) for row in rows])
    return [row[3] for row in rows]


def _deliver(
    database: Database, rows: Sequence[tuple[Sequence[int], Mapping[str, int | None]]]
) -> Sequence[None]:
    _move(
        database, [chunk for chunks, _ in rows for chunk in chunks], ChunkState.ACCEPTED, ChunkState.DELIVERED
    )
    positions: dict[str, int | None] = {}
    for _, later in rows:
        positions |= later
    _insert(
        database,
        "INSERT INTO sink (name, position)",
        list(positions.items()),
        " ON CONFLICT (name) DO UPDATE SET position = excluded.position",
    )
    return [None] * len(rows)


# In the order in which a chunk meets them.
PLAN: Final = Operation(rank=0, apply=_plan)
BEGIN_ATTEMPT: Final = Operation(rank=1, apply=_begin_attempts, is_intent=True, adds_attempt=True)
END_ATTEMPT: Final = Operation(rank=2, apply=_end_attempts)
RECORD_UNSENT: Final = Operation(rank=3, apply=_record_unsent, adds_attempt=True)
SPLIT: Final = Operation(rank=4, apply=_split)
DELIVER: Final = Operation(rank=5, apply=_deliver)


def ended_attempt(chunk: int, attempt: int, evidence: Evidence, verdict: Verdict) -> tuple[Any, ...]:
    """Gives the row of an attempt that has ended, in the order of the table's columns."""
    cause = hint = None
    match verdict:
        case Accepted():
            kind, reason = "accepted", verdict.remark
        case Refused():
            kind, reason = "refused", verdict.reason
        case NotApplied():
            kind, reason, cause = "not_applied", verdict.reason, verdict.cause.value
        case Unknown():
            kind, reason, hint = "unknown", verdict.reason, verdict.job_hint
        case _:
            assert_never(verdict)
    return (
        chunk,
        attempt,
        evidence.started_utc,
        evidence.ended_utc,
        kind,
        cause,
        reason,
        int(evidence.phase),
        evidence.status,
        evidence.error,
        evidence.content_type,
        evidence.retry_after,
        evidence.connection_reused,
        hint,
        evidence.body[:BODY_KEPT_BYTES],
        evidence.body_cut or len(evidence.body) > BODY_KEPT_BYTES,
        evidence.answer_bytes,
        evidence.sent_utc,
        evidence.answered_utc,
    )


def _state_after(verdict: Verdict) -> ChunkState:
    match verdict:
        case Accepted():
            return ChunkState.ACCEPTED
        case Refused():
            return ChunkState.REFUSED
        case NotApplied():
            return ChunkState.PLANNED
        case Unknown():
            return ChunkState.HELD
        case _:
            assert_never(verdict)


def _insert_jobs(database: Database, rows: Sequence[Ended]) -> list[Verdict]:
    """Records the jobs that were made, and gives the verdicts as they stand after a look at all known jobs."""
    jobs = [
        (
            chunk,
            verdict.job_id,
            attempt,
            evidence.ended_utc,
            verdict.state.value,
            verdict.job_type,
            verdict.state.value,
        )
        for chunk, attempt, evidence, verdict in rows
        if isinstance(verdict, Accepted)
    ]
    inserted = _insert(
        database,
        "INSERT INTO job (chunk, job_id, attempt, accepted_utc, accepted_state, type, state)",
        jobs,
        " ON CONFLICT (job_id) DO NOTHING",
    )
    verdicts = [row[3] for row in rows]
    if inserted == len(jobs):
        return verdicts
    return [_unless_taken(database, row[0], row[3]) for row in rows]


def _unless_taken(database: Database, chunk: int, verdict: Verdict) -> Verdict:
    """Turns an acceptance into an unknown when its job belongs to another chunk: one of the two answers lies."""
    if not isinstance(verdict, Accepted):
        return verdict
    (owner,) = database.execute("SELECT chunk FROM job WHERE job_id = ?", (verdict.job_id,)).fetchone()
    if owner == chunk:
        return verdict
    return Unknown(
        reason=f"the server answered with job {verdict.job_id}, which is already the job of chunk {owner}",
        job_hint=verdict.job_id,
    )


def _move(database: Database, chunks: Sequence[int], before: ChunkState, after: ChunkState) -> None:
    check_transition(before, after)
    moved = 0
    for block in _blocks(chunks):
        moved += database.execute(_move_sql(len(block)), (after.value, before.value, *block)).rowcount
    if moved != len(chunks):
        if len(chunks) == 1:
            check_transition(_state_of(database, chunks[0]), after)
        raise InternalError(
            f"Not all of these are {before.value}, so they cannot be {after.value}: {_names(chunks)}."
        )


def _state_of(database: Database, chunk: int) -> ChunkState:
    row = database.execute("SELECT state FROM chunk WHERE ordinal = ?", (chunk,)).fetchone()
    if row is None:
        raise InternalError(f"There is no chunk {chunk} in the ledger.")
    return ChunkState(row[0])


def _names(chunks: Iterable[int]) -> str:
    return "chunks " + ", ".join(map(str, sorted(chunks)))


def _insert(database: Database, insert: str, rows: Sequence[tuple[Any, ...]], conflict: str = "") -> int:
    """Inserts rows of one width and gives how many the statement wrote."""
    written = 0
    for block in _blocks(rows):
        sql = _insert_sql(insert, len(block), len(block[0]), conflict)
        written += database.execute(sql, [value for row in block for value in row]).rowcount
    return written


@cache
def _insert_sql(insert: str, rows: int, columns: int, conflict: str) -> str:
    row = f"({', '.join('?' * columns)})"
    return f"{insert} VALUES {', '.join([row] * rows)}{conflict}"


@cache
def _move_sql(chunks: int) -> str:
    return f"UPDATE chunk SET state = ? WHERE state = ? AND ordinal IN ({', '.join('?' * chunks)})"  # nosec B608 # noqa: S608 - only question marks are put in


def _blocks(rows: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Cuts rows into blocks of 64, 32 or 16 and one of what is left: 18 statement texts do for every length."""
    start = 0
    while left := len(rows) - start:
        size = left if left < _ONE_BLOCK else min(_MOST_ROWS, 1 << (left.bit_length() - 1))
        yield rows[start : start + size]
        start += size
