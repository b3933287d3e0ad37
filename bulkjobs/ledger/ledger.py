"""The ledger of a run: the only source of truth about every chunk, attempt and job.

Who calls what, in the life of a chunk: `plan`, then for each attempt `begin_attempt` before the first byte can
leave and `end_attempt` when the outcome is known, then `deliver` once every sink has the record. An `async` method
returns when its change is durable; the others queue it in order and report a failure through every later call.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from bulkjobs.errors import BulkJobsError, InternalError, LedgerError
from bulkjobs.ledger import queries
from bulkjobs.ledger.controlling import record_control
from bulkjobs.ledger.keeper import RunKeeper, open_sound
from bulkjobs.ledger.lock import RunLock, refuse_network_filesystem
from bulkjobs.ledger.operations import BEGIN_ATTEMPT, DELIVER, END_ATTEMPT, PLAN, RECORD_UNSENT, SPLIT
from bulkjobs.ledger.reader import LedgerReader
from bulkjobs.ledger.schema import DATABASE_NAME, Database, make_private
from bulkjobs.ledger.settling import Settlement, record_baseline, record_findings, settle
from bulkjobs.ledger.values import RunRow
from bulkjobs.ledger.writer import CALL, Writer
from bulkjobs.lifecycle import check_transition
from bulkjobs.model import (
    Chunk,
    ChunkState,
    Evidence,
    JobState,
    JobStatus,
    NotApplied,
    Phase,
    RequestKind,
    Tally,
    Verdict,
)
from bulkjobs.ports import Clock

__all__ = ["Ledger", "new_run_id"]

_CRASHED: Final = "the process ended while this chunk was being sent"
_ENDS: Final = tuple(state.value for state in JobState if state.terminal)
_JOB_SEEN: Final = (
    "UPDATE job SET state = ?, word = ?, processed = coalesce(?, processed), seen_utc = ?"  # nosec B608 # noqa: S608 - question marks
    f" WHERE job_id = ? AND state NOT IN ({', '.join('?' * len(_ENDS))})"
)
_LOCKOUT: Final = "INSERT INTO lockout (began_utc, until_utc, reason) VALUES (?, ?, ?)"
_LOCKOUT_ANEW: Final = (
    "UPDATE lockout SET began_utc = ?, until_utc = ?, reason = ?"
    " WHERE number = (SELECT max(number) FROM lockout)"
)
_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32 in lower case: sorts like the number and has no letters that look like digits."""


def new_run_id(utc: float, chance: int) -> str:
    """Makes the name of a run: 20 letters and digits that sort by time.

    Args:
        utc: Unix seconds; the first ten characters hold them in milliseconds.
        chance: a random number of 50 bits, in the last ten.
    """
    number = (int(utc * 1000) << 50) | chance
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(95, -1, -5))


class Ledger(LedgerReader):
    """Is the durable account of one run. Its methods belong to the event loop that opened it."""

    def __init__(
        self, writer: Writer, lock: RunLock, clock: Clock, keeper: RunKeeper, run: RunRow | None
    ) -> None:
        super().__init__(writer, clock, run)
        self._lock = lock
        self._keeper = keeper
        self._session: int | None = None
        self._begun: set[tuple[int, int]] = set()
        """Attempts in flight, as far as this process has told the ledger: chunk and number."""

    @classmethod
    async def open(cls, run_dir: Path, *, clock: Clock) -> Ledger:
        """Opens the ledger of a run directory, making both when they are not there.

        Raises:
            LedgerLocked: another process works on the run; it is named.
            LedgerError: the ledger cannot be used; the message says why.
        """
        make_private(run_dir)
        refuse_network_filesystem(run_dir)
        lock = RunLock(run_dir)
        try:
            path = run_dir / DATABASE_NAME
            keeper = RunKeeper(run_dir)
            writer = Writer(f"The ledger {path}", lambda: open_sound(path, keeper), keeper)
            try:
                await writer.start()
                return cls(writer, lock, clock, keeper, await writer.call(queries.run_row))
            except BaseException:
                with contextlib.suppress(LedgerError):  # the same one, once more
                    await writer.close()
                raise
        except BaseException:
            lock.release()
            raise

    async def close(self) -> None:
        """Writes what is queued and lets go of the run.

        Guarantees:
            The lock is given back only when nothing can be written any more, also when this is cancelled.

        Raises:
            LedgerError: something that was queued could not be written.
        """
        try:
            await self._writer.close()
        finally:
            self._lock.release()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.close()
        except LedgerError:
            if error is None:  # else it would hide what went wrong first
                raise

    # The run

    async def create_run(self, identity: Mapping[str, object]) -> RunRow:
        """Makes the run of this ledger, with a fresh id and nonce key.

        Args:
            identity: what must be the same in every session, as JSON values; `endpoint` must be among it.

        Raises:
            InternalError: the run was made before, or has no endpoint.
        """
        if not isinstance(identity.get("endpoint"), str):
            raise InternalError("A run without an endpoint cannot be made.")
        now = self._clock.utc()
        row = RunRow(
            run_id=new_run_id(now, secrets.randbits(50)),
            created_utc=now,
            nonce_key=secrets.token_bytes(16),
            identity=dict(identity),
            source_finished=False,
        )
        values = (row.run_id, row.created_utc, row.nonce_key, json.dumps(row.identity))

        def create(database: Database) -> None:
            database.execute(
                "INSERT INTO run (number, run_id, created_utc, nonce_key, identity) VALUES (1, ?, ?, ?, ?)",
                values,
            )

        await self._writer.call(create)
        self._run = row
        return row

    def record_source(self, position: int, name: str, fingerprint: str | None, *, spooled: bool) -> None:
        """Records what a source is, in its place from 0; doing so again replaces what stood there."""
        self._execute(
            "INSERT OR REPLACE INTO source (position, name, fingerprint, spooled) VALUES (?, ?, ?, ?)",
            position,
            name,
            fingerprint,
            spooled,
        )

    async def record_sources(self, rows: Sequence[tuple[str, str | None, bool]]) -> None:
        """Records what the sources are, all or none: of a part nobody could tell what was named.

        Args:
            rows: name, fingerprint and whether it is spooled, in order.
        """

        def record(database: Database) -> None:
            for position, row in enumerate(rows):
                database.execute(
                    "INSERT INTO source (position, name, fingerprint, spooled) VALUES (?, ?, ?, ?)",
                    (position, *row),
                )

        await self._writer.call(record)

    def source_broke_off(self, position: int) -> None:
        """Queues that a source could not be read to its end: what it holds behind the chunks planned is not known."""
        self._execute("UPDATE source SET fingerprint = NULL WHERE position = ?", position)

    def source_spooled(self, position: int, spooled_bytes: int, *, complete: bool) -> None:
        """Queues how much of the copy of a source is on the disk, in order before the chunks cut from it."""
        self._execute(
            "UPDATE source SET spooled_bytes = ?, complete = ? WHERE position = ?",
            spooled_bytes,
            complete,
            position,
        )

    async def finish_source(self, tail: Tally) -> None:
        """Records that the last source was read to its end, and what stood behind the last chunk."""

        def finish(database: Database) -> None:
            database.execute(
                "UPDATE run SET source_finished = 1, tail_invalid = ?, tail_duplicate = ?",
                (tail.invalid, tail.duplicate),
            )

        run = self._known_run()
        await self._writer.call(finish)
        self._run = replace(run, source_finished=True, tail=tail)

    def _execute(self, sql: str, *parameters: object) -> None:
        """Queues one statement without waiting."""
        self._writer.post(CALL, lambda database: database.execute(sql, parameters))

    # Sessions

    @property
    def session(self) -> int:
        """Is the number of the session that is open; they are numbered from 1 without a gap."""
        if self._session is None:
            raise InternalError("No session is open.")
        return self._session

    async def begin_session(self) -> int:
        """Begins a session; chunks that an earlier one left in flight are held from now on.

        Returns:
            How many these are.

        Raises:
            InternalError: a session of this ledger is open.
        """
        if self._session is not None:
            raise InternalError("A session is open already.")
        now = self._clock.utc()
        run_id = self._known_run().run_id

        def begin(database: Database) -> tuple[int, int]:
            self._keeper.begin(database, run_id)
            return _begin_session(database, now)

        self._session, held = await self._writer.call(begin)
        return held

    async def end_session(self, exit_code: int, stop_reason: str | None) -> None:
        """Ends the session that `begin_session` began, and says how.

        Raises:
            InternalError: none is open.
        """
        if self._session is None:
            raise InternalError("No session is open.")
        values = (self._clock.utc(), exit_code, stop_reason, self._session)

        def end(database: Database) -> None:
            database.execute(
                "UPDATE session SET ended_utc = ?, exit_code = ?, stop_reason = ? WHERE number = ?", values
            )

        await self._writer.call(end)
        self._session = None

    async def record_control(self, command: str, value: str | None, origin: str) -> None:
        """Records what a person tells this session to do, before it is done.

        Args:
            command: one word.
            value: what it is given; None for a command without one.
            origin: who gave it, in words.

        Raises:
            InternalError: no session is open.
        """
        session, now = self._session, self._clock.utc()
        if session is None:
            raise InternalError("No session is open.")
        await self._writer.call(
            lambda database: record_control(
                database, session, now, command=command, value=value, origin=origin
            )
        )

    # Chunks

    def plan(self, chunk: Chunk) -> None:
        """Queues a new chunk as planned, without waiting: losing it with the process costs nothing."""
        self._writer.post(PLAN, chunk)

    async def begin_attempt(self, ordinal: int, attempt: int) -> None:
        """Records that the bytes of a chunk are about to leave.

        Guarantees:
            When it returns, the intent survives a crash and a power failure.

        Raises:
            InternalError: the chunk is not planned, or another attempt of it is in flight.
        """
        self._begun.add((ordinal, attempt))
        try:
            await self._writer.do(BEGIN_ATTEMPT, (ordinal, attempt, self._clock.utc()))
        except BulkJobsError:
            self._begun.discard((ordinal, attempt))
            raise

    def end_attempt(
        self, ordinal: int, attempt: int, evidence: Evidence, verdict: Verdict
    ) -> asyncio.Future[Verdict]:
        """Records what became of an attempt and moves its chunk, which stays planned if the attempt never began.

        Returns:
            What to wait for until that is durable. It gives the verdict that stands: an acceptance with a job that
            belongs to another chunk becomes unknown. It raises InternalError when the attempt has ended before.

        Guarantees:
            It is durable no later than whatever is recorded after this call.

        Raises:
            InternalError: the attempt claims to have been sent without having begun.
        """
        row = (ordinal, attempt, evidence, verdict)
        if (ordinal, attempt) in self._begun:
            self._begun.discard((ordinal, attempt))
            return self._writer.do(END_ATTEMPT, row)
        if evidence.phase >= Phase.HEADERS_SENT or not isinstance(verdict, NotApplied):
            raise InternalError(
                f"Attempt {attempt} of chunk {ordinal} was sent and is not recorded as in flight."
            )
        return self._writer.do(RECORD_UNSENT, row)

    async def split(
        self, ordinal: int, attempt: int, evidence: Evidence, verdict: Verdict, parts: Sequence[Chunk]
    ) -> list[Chunk]:
        """Records what became of an attempt, and that parts of its chunk go out in its place.

        Args:
            ordinal: the chunk.
            attempt: its attempt, proved not to have been applied.
            evidence: of it.
            verdict: on it.
            parts: what makes up the chunk, in order; each gets the ordinal that is the next free one.

        Returns:
            The parts with their ordinals; they are planned.

        Raises:
            InternalError: the attempt has ended before, or never began.
        """
        self._begun.discard((ordinal, attempt))
        numbered = await self._writer.do(SPLIT, ((ordinal, attempt, evidence, verdict), parts))
        return list(numbered)

    async def settle(self, ordinal: int, settlement: Settlement, *, job: JobStatus | None = None) -> None:
        """Records how a held chunk was settled, and moves it: to accepted with a job, else to planned.

        Args:
            ordinal: the chunk.
            settlement: how, why and by whom.
            job: what the server says of the job that is adopted; None when the chunk is to go out again.

        Raises:
            LedgerError: the chunk is not held, or the job belongs to another chunk. Nothing was changed.
        """
        now = self._clock.utc()
        await self._writer.call(lambda database: settle(database, ordinal, settlement, job, now))

    async def record_findings(self, findings: Mapping[int, str]) -> None:
        """Records, by chunk, why held chunks could not be settled."""
        now = self._clock.utc()
        await self._writer.call(lambda database: record_findings(database, findings, now))

    async def record_baseline(self, job_ids: Collection[str]) -> None:
        """Records the jobs that the server lists before the first chunk goes out: none of them is of this run."""
        now = self._clock.utc()
        await self._writer.call(lambda database: record_baseline(database, job_ids, now))

    async def deliver(self, ordinals: Sequence[int], positions: Mapping[str, int | None]) -> None:
        """Records that every sink has the records of these chunks, and how far each sink has got, in one step.

        Raises:
            InternalError: one of the chunks is not accepted; none was moved.
        """
        await self._writer.do(DELIVER, (ordinals, positions))

    # The account

    async def begin_request(self, kind: RequestKind) -> int:
        """Records durably that a request other than a submit is about to leave, and gives its number."""
        values = (kind.value, self._clock.utc())

        def begin(database: Database) -> int:
            cursor = database.execute("INSERT INTO request (kind, started_utc) VALUES (?, ?)", values)
            assert cursor.lastrowid is not None
            return cursor.lastrowid

        return await self._writer.call(begin)

    def end_request(self, number: int, status: int | None) -> None:
        """Records when a request ended, without waiting; the status is None when there was no answer."""
        self._execute(
            "UPDATE request SET ended_utc = ?, status = ? WHERE number = ?", self._clock.utc(), status, number
        )

    def lockout(self, until_utc: float, reason: str, begins: bool) -> None:
        """Records a lock-out that begins, or that the latest one begins anew: both its times are of this clock."""
        values = (min(self._clock.utc(), until_utc), until_utc, reason)

        def record(database: Database) -> None:
            if begins or not database.execute(_LOCKOUT_ANEW, values).rowcount:
                database.execute(_LOCKOUT, values)

        self._writer.post(CALL, record)

    def learn_limit(self, count: int) -> None:
        """Records how many requests a window of the account bears, as a lock-out has taught."""
        self._execute("UPDATE run SET learned_limit = ?", count)

    def job_seen(self, status: JobStatus) -> None:
        """Records what the server says of a job. An end is final; a job of somebody else changes nothing."""
        self._execute(
            _JOB_SEEN,
            *(status.state.value, status.word, status.processed, self._clock.utc()),
            *(status.job_id, *_ENDS),
        )


def _begin_session(database: Database, now: float) -> tuple[int, int]:
    check_transition(ChunkState.SENDING, ChunkState.HELD)
    database.execute(
        "UPDATE session SET ended_utc = max(started_utc, coalesce(?, started_utc)),"
        " stop_reason = 'the process ended without closing the run' WHERE ended_utc IS NULL",
        (queries.last_activity_utc(database),),
    )
    database.execute("UPDATE attempt SET verdict = 'unknown', reason = ? WHERE verdict IS NULL", (_CRASHED,))
    held = database.execute("UPDATE chunk SET state = 'held' WHERE state = 'sending'").rowcount
    number = database.execute("INSERT INTO session (started_utc) VALUES (?)", (now,)).lastrowid
    assert number is not None
    return number, held
