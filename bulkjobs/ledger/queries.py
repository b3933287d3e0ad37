"""What a ledger answers. Every figure is counted from the rows when asked for: no counter is kept beside them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from bulkjobs.clock import timestamp
from bulkjobs.ledger.schema import Database
from bulkjobs.ledger.values import (
    AccountState,
    ChunkRow,
    Counts,
    KnownJob,
    OpenJob,
    RunRow,
    SourceRow,
    StateCount,
    VerdictRow,
)
from bulkjobs.model import (
    FIRST_PART,
    Cause,
    ChunkState,
    JobId,
    JobRecord,
    JobState,
    Phase,
    RequestKind,
    RunSummary,
    Tally,
)

__all__ = [
    "account_state",
    "baseline",
    "chunk_rows",
    "chunks_named",
    "counts",
    "is_untouched",
    "known_jobs",
    "last_activity_utc",
    "last_ordinal",
    "last_passed",
    "last_planned",
    "learned_limit",
    "open_jobs",
    "parts",
    "run_row",
    "sink_positions",
    "sources",
    "summarise",
    "took_risks",
    "undelivered",
    "unknown_in_a_row",
    "verdict_rows",
]

_TOO_MANY_REQUESTS: Final = 429


def run_row(database: Database) -> RunRow | None:
    """Reads what the run is, or None before it is made."""
    row = database.execute(
        "SELECT run_id, created_utc, nonce_key, identity, source_finished, tail_invalid, tail_duplicate, baseline_utc"
        " FROM run"
    ).fetchone()
    if row is None:
        return None
    run_id, created_utc, nonce_key, identity, source_finished, invalid, duplicate, baseline_utc = row
    return RunRow(
        run_id=run_id,
        created_utc=created_utc,
        nonce_key=nonce_key,
        identity=json.loads(identity),
        source_finished=bool(source_finished),
        baseline_utc=baseline_utc,
        tail=Tally(invalid=invalid, duplicate=duplicate),
    )


def sources(database: Database) -> list[SourceRow]:
    """Reads the sources in their order."""
    rows = database.execute(
        "SELECT name, fingerprint, spooled, spooled_bytes, complete FROM source ORDER BY position"
    )
    return [
        SourceRow(
            name=name,
            fingerprint=mark,
            spooled=bool(spooled),
            spooled_bytes=spooled_bytes,
            complete=bool(complete),
        )
        for name, mark, spooled, spooled_bytes, complete in rows
    ]


def sink_positions(database: Database) -> dict[str, int | None]:
    """Reads how far each sink is known to have got."""
    return dict(database.execute("SELECT name, position FROM sink").fetchall())


def chunk_rows(database: Database, after: int, limit: int) -> list[ChunkRow]:
    """Reads up to `limit` chunks cut from the sources, behind ordinal `after`, in order."""
    return _chunk_rows(
        database, "ordinal > ? AND ordinal < ? ORDER BY ordinal LIMIT ?", (after, FIRST_PART, limit)
    )


def parts(database: Database, parent: int) -> list[ChunkRow]:
    """Reads the parts of a chunk that was split, in input order; parts that were split again are among them."""
    return _chunk_rows(database, "parent = ? ORDER BY first, ordinal", (parent,))


def _chunk_rows(database: Database, condition: str, parameters: tuple[int, ...]) -> list[ChunkRow]:
    rows = database.execute(
        "SELECT ordinal, state, digest, ids, body_bytes, invalid, duplicate, parent, first, duplicate_risk,"  # nosec B608 # noqa: S608 - constants
        " (SELECT coalesce(max(attempt), 0) FROM attempt WHERE chunk = ordinal)"
        f" FROM chunk WHERE {condition}",
        parameters,
    )
    return [
        ChunkRow(
            ordinal=ordinal,
            state=ChunkState(state),
            digest=digest,
            ids=ids,
            body_bytes=body_bytes,
            attempts=attempts,
            tally=Tally(invalid=invalid, duplicate=duplicate),
            parent=parent,
            first=first,
            duplicate_risk=bool(risk),
        )
        for ordinal, state, digest, ids, body_bytes, invalid, duplicate, parent, first, risk, attempts in rows
    ]


def last_ordinal(database: Database, state: ChunkState) -> int:
    """Reads the ordinal of the last chunk in a state, 0 when there is none."""
    return int(_one(database, "SELECT coalesce(max(ordinal), 0) FROM chunk WHERE state = ?", state.value))


def last_planned(database: Database) -> int:
    """Reads the last chunk, as cut from the sources, that is planned or has a planned part; 0 if there is none."""
    whole = "SELECT max(ordinal) FROM chunk WHERE state = 'planned' AND ordinal < ?"
    part = "SELECT max(parent) FROM chunk WHERE state = 'planned' AND ordinal >= ?"
    return int(
        _one(database, f"SELECT max(coalesce(({whole}), 0), coalesce(({part}), 0))", FIRST_PART, FIRST_PART)
    )


def last_passed(database: Database) -> int:
    """Reads the last chunk, as cut from the sources, up to which nothing has to go out again; 0 if there is none."""
    last = "SELECT max(ordinal) FROM chunk WHERE ordinal < ?"
    whole = "SELECT min(ordinal) - 1 FROM chunk WHERE state IN ('planned', 'sending') AND ordinal < ?"
    part = "SELECT min(parent) - 1 FROM chunk WHERE state IN ('planned', 'sending') AND ordinal >= ?"
    return int(
        _one(
            database,
            f"SELECT min(coalesce(({last}), 0), coalesce(({whole}), ?), coalesce(({part}), ?))",
            *[FIRST_PART] * 5,
        )
    )


def undelivered(database: Database, run: RunRow, after: int, limit: int) -> list[JobRecord]:
    """Reads up to `limit` job records that no sink has confirmed, of chunks behind ordinal `after`, in order."""
    rows = database.execute(
        "SELECT ordinal, digest, job_id, accepted_state, type, ids, first_id, last_id, source, attempt, accepted_utc"
        " FROM chunk JOIN job ON job.chunk = ordinal"
        " WHERE chunk.state = 'accepted' AND ordinal > ? ORDER BY ordinal LIMIT ?",
        (after, limit),
    )
    return [
        JobRecord(
            run_id=run.run_id,
            chunk=ordinal,
            digest=digest,
            job_id=job_id,
            status=status,
            type=job_type,
            endpoint=run.endpoint,
            ids=ids,
            first_id=first_id,
            last_id=last_id,
            source=source,
            attempt=attempt,
            accepted_at=timestamp(accepted_utc),
        )
        for ordinal, digest, job_id, status, job_type, ids, first_id, last_id, source, attempt, accepted_utc in rows
    ]


_VERDICT_COLUMNS: Final = (
    "digest, ids, first_id, last_id, source, line, attempt, reason, started_utc, sent_utc, answered_utc, ended_utc,"
    " phase, status, error, content_type, job_hint, answer_bytes, connection_reused, parent, first"
)


def verdict_rows(database: Database, state: ChunkState, after: int, limit: int) -> list[VerdictRow]:
    """Reads up to `limit` chunks in a state, behind ordinal `after`, each with the evidence of its last attempt."""
    return _verdict_rows(
        database, "state = ? AND ordinal > ? ORDER BY ordinal LIMIT ?", (state.value, after, limit)
    )


def chunks_named(database: Database, ordinals: Sequence[int]) -> list[VerdictRow]:
    """Reads some chunks that were sent, each with the evidence of its last attempt."""
    return _verdict_rows(database, f"ordinal IN ({', '.join('?' * len(ordinals))})", tuple(ordinals))


def _verdict_rows(database: Database, condition: str, parameters: tuple[int | str, ...]) -> list[VerdictRow]:
    rows = database.execute(
        "SELECT ordinal, body, body_cut, (SELECT finding.reason FROM finding WHERE finding.chunk = ordinal),"  # nosec B608 # noqa: S608 - constants
        f" {_VERDICT_COLUMNS}"
        " FROM chunk JOIN attempt ON attempt.chunk = ordinal"
        " AND attempt = (SELECT max(attempt) FROM attempt WHERE chunk = ordinal)"
        f" WHERE {condition}",
        parameters,
    )
    names = _VERDICT_COLUMNS.split(", ")
    return [
        VerdictRow(
            chunk=ordinal,
            body=body or b"",
            body_cut=bool(cut),
            finding=finding,
            **dict(zip(names, rest, strict=True)),
        )
        for ordinal, body, cut, finding, *rest in rows
    ]


# A clock that was set back since makes the wait no longer than the lock-out was. Of those that began in its future
# only the latest can be in force.
_LOCKED_UNTIL: Final = """
    SELECT max(min(until_utc, ? + until_utc - began_utc)) FROM lockout
    WHERE began_utc <= ? OR number = (SELECT max(number) FROM lockout)
"""


def account_state(database: Database, since_utc: float, now_utc: float) -> AccountState:
    """Reads what counts in the window that begins at `since_utc`, the lock-out and the open jobs."""
    return AccountState(
        history=_history(database, since_utc),
        locked_until_utc=_one(database, _LOCKED_UNTIL, now_utc, now_utc),
        learned_limit=learned_limit(database),
        open_jobs=open_jobs(database),
    )


def learned_limit(database: Database) -> int | None:
    """Reads how many requests a window bears, as a lock-out has taught; None while none has."""
    limit: int | None = _one(database, "SELECT learned_limit FROM run")
    return limit


# An attempt without a phase is in flight, or was when its process died: bytes may have left.
_WIRE: Final = f"(phase IS NULL OR phase >= {int(Phase.HEADERS_SENT)})"
_HISTORY: Final = f"""
    SELECT started_utc, ended_utc FROM attempt WHERE ended_utc >= ? AND {_WIRE}
    UNION ALL SELECT started_utc, NULL FROM attempt WHERE ended_utc IS NULL AND started_utc >= ?
    UNION ALL SELECT started_utc, ended_utc FROM request WHERE ended_utc >= ?
    UNION ALL SELECT started_utc, NULL FROM request WHERE ended_utc IS NULL AND started_utc >= ?
    ORDER BY started_utc
"""  # nosec B608 # noqa: S608 - constants


def _history(database: Database, since_utc: float) -> list[tuple[float, float | None]]:
    return database.execute(_HISTORY, (since_utc,) * 4).fetchall()


def open_jobs(database: Database) -> list[OpenJob]:
    """Reads the jobs that were not seen to have ended."""
    still_open = [state.value for state in JobState if not state.terminal]
    rows = database.execute(
        f"SELECT job_id, chunk, state, accepted_utc FROM job"  # nosec B608 # noqa: S608 - only question marks are put in
        f" WHERE state IN ({', '.join('?' * len(still_open))}) ORDER BY chunk",
        still_open,
    )
    return [
        OpenJob(job_id=JobId(job_id), chunk=chunk, state=JobState(state), accepted_utc=accepted_utc)
        for job_id, chunk, state, accepted_utc in rows
    ]


def known_jobs(database: Database) -> list[KnownJob]:
    """Reads every job of the run."""
    rows = database.execute(
        "SELECT job_id, job.chunk, coalesce(sent_utc, started_utc), accepted_utc,"
        " job_id IN (SELECT job_id FROM settlement WHERE how = 'adopted')"
        " FROM job JOIN attempt ON attempt.chunk = job.chunk AND attempt.attempt = job.attempt"
    )
    return [
        KnownJob(
            job_id=JobId(job_id),
            chunk=chunk,
            sent_utc=sent_utc,
            accepted_utc=accepted_utc,
            adopted=bool(adopted),
        )
        for job_id, chunk, sent_utc, accepted_utc, adopted in rows
    ]


def took_risks(database: Database) -> bool:
    """Tells whether a person had a chunk sent again although nobody could know its outcome."""
    return bool(_one(database, "SELECT EXISTS (SELECT 1 FROM settlement WHERE how = 'resubmitted')"))


def is_untouched(database: Database) -> bool:
    """Tells whether no chunk of the run was ever sent."""
    return not _one(database, "SELECT EXISTS (SELECT 1 FROM attempt)")


# An attempt that died with its process was in flight until that session ended. Each half is the end of an index.
_LAST_VERDICTS: Final = f"""
    SELECT verdict FROM (
        SELECT * FROM (
            SELECT ended_utc AS at, 0 AS died, verdict FROM attempt
            WHERE ended_utc IS NOT NULL AND {_WIRE} ORDER BY ended_utc DESC LIMIT ?
        ) UNION ALL SELECT * FROM (
            SELECT coalesce((
                SELECT ended_utc FROM session WHERE session.started_utc <= attempt.started_utc
                ORDER BY number DESC LIMIT 1
            ), attempt.started_utc), 1, verdict FROM attempt
            WHERE ended_utc IS NULL AND {_WIRE} ORDER BY attempt.started_utc DESC LIMIT ?
        )
    ) ORDER BY at DESC, died DESC LIMIT ?
"""  # nosec B608 # noqa: S608 - constants


def unknown_in_a_row(database: Database, most: int) -> int:
    """Counts the unknown outcomes behind the last known one, up to `most`."""
    verdicts = [verdict for (verdict,) in database.execute(_LAST_VERDICTS, (most,) * 3)]
    return next((count for count, verdict in enumerate(verdicts) if verdict != "unknown"), len(verdicts))


def baseline(database: Database) -> frozenset[str] | None:
    """Reads the jobs listed before the first chunk went out, or None when nobody asked."""
    if _one(database, "SELECT baseline_utc FROM run") is None:
        return None
    return frozenset(job_id for (job_id,) in database.execute("SELECT job_id FROM baseline"))


def counts(database: Database, now_utc: float | None) -> Counts:
    """Counts everything.

    Args:
        database: where.
        now_utc: until when an open session counts; None: until the last thing it recorded.
    """
    states = dict.fromkeys(
        ChunkState, StateCount()
    )  # those that are split among them: they count by their tally
    tally = Tally()
    for state, chunks, ids, invalid, duplicate in database.execute(
        "SELECT state, count(*), sum(ids), sum(invalid), sum(duplicate) FROM chunk GROUP BY state"
    ):
        states[ChunkState(state)] = StateCount(chunks=chunks, ids=ids)
        tally += Tally(invalid=invalid, duplicate=duplicate)
    for invalid, duplicate in database.execute("SELECT tail_invalid, tail_duplicate FROM run"):
        tally += Tally(invalid=invalid, duplicate=duplicate)
    return Counts(
        states=states,
        tally=tally,
        jobs=dict(database.execute("SELECT state, count(*) FROM job GROUP BY state").fetchall()),
        requests=_requests(database),
        lockouts=_one(database, "SELECT count(*) FROM lockout"),
        elapsed_s=_elapsed_s(database, now_utc),
    )


def _requests(database: Database) -> dict[str, int]:
    requests = {kind.value: 0 for kind in RequestKind}
    submits, throttled = database.execute(
        f"SELECT coalesce(sum{_WIRE}, 0), coalesce(sum(cause IS ?), 0) FROM attempt",  # nosec B608 # noqa: S608 - a constant
        (Cause.THROTTLED.value,),
    ).fetchone()
    requests[RequestKind.SUBMIT.value] = submits
    for kind, number, refused in database.execute(
        "SELECT kind, count(*), sum(status IS ?) FROM request GROUP BY kind", (_TOO_MANY_REQUESTS,)
    ):
        requests[kind] = number
        throttled += refused
    return requests | {"throttled": throttled}


def _elapsed_s(database: Database, now_utc: float | None) -> float:
    until_utc = last_activity_utc(database) if now_utc is None else now_utc
    elapsed_s: float = _one(
        database,
        "SELECT coalesce(sum(max(0.0, coalesce(ended_utc, ?) - started_utc)), 0.0) FROM session",
        until_utc,
    )
    return elapsed_s


def last_activity_utc(database: Database) -> float | None:
    """Gives when the last request began or ended, or None when there was none."""
    # Scalar subqueries, each the end of an index: max() over a union would read every row.
    ends = [
        f"(SELECT max(ended_utc) FROM {table}), (SELECT max(started_utc) FROM {table} WHERE ended_utc IS NULL)"  # nosec B608 # noqa: S608 - constants
        for table in ("attempt", "request")
    ]
    moments = database.execute("SELECT " + ", ".join(ends)).fetchone()
    return max((moment for moment in moments if moment is not None), default=None)


def _one(database: Database, sql: str, *parameters: float | str | None) -> Any:
    """Gives the only column of the first row, or None when there is no row."""
    row = database.execute(sql, parameters).fetchone()
    return None if row is None else row[0]


def summarise(run: RunRow, counts: Counts, exit_code: int) -> RunSummary:
    """Derives the account of a run from its figures."""
    accepted, refused, held, pending = (
        _total(counts, states)
        for states in (
            (ChunkState.ACCEPTED, ChunkState.DELIVERED),
            (ChunkState.REFUSED,),
            (ChunkState.HELD,),
            (ChunkState.PLANNED, ChunkState.SENDING),
        )
    )
    settled = {"accepted": accepted, "refused": refused, "held": held, "pending": pending}
    ids = {"invalid": counts.tally.invalid, "duplicate": counts.tally.duplicate}
    ids |= {name: total.ids for name, total in settled.items()}
    chunks = {name: total.chunks for name, total in settled.items()}
    return RunSummary(
        run_id=run.run_id,
        endpoint=run.endpoint,
        ids={"read": sum(ids.values()), **ids},
        chunks={"total": sum(chunks.values()), **chunks},
        jobs=counts.jobs,
        requests=counts.requests,
        lockouts=counts.lockouts,
        elapsed_s=round(counts.elapsed_s, 3),
        exit_code=exit_code,
    )


def _total(counts: Counts, states: tuple[ChunkState, ...]) -> StateCount:
    parts = [counts.states[state] for state in states]
    return StateCount(chunks=sum(part.chunks for part in parts), ids=sum(part.ids for part in parts))
