"""The ledger: what it records is durable, legal and adds up."""

import asyncio
import contextlib
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bulkjobs.clock import timestamp
from bulkjobs.errors import InternalError, LedgerError
from bulkjobs.ledger import DATABASE_NAME, SCHEMA_VERSION, Ledger, new_run_id, read_run, summarise
from bulkjobs.lifecycle import TRANSITIONS
from bulkjobs.model import (
    Accepted,
    Cause,
    Chunk,
    ChunkState,
    Evidence,
    JobId,
    JobState,
    JobStatus,
    NotApplied,
    Phase,
    Refused,
    RequestKind,
    Tally,
    Unknown,
)


class SettableClock:
    """Is a wall clock that a test sets."""

    def __init__(self, utc=1_800_000_000.0):
        self.now = utc

    def utc(self):
        return self.now


IDENTITY = {"endpoint": "contacts", "chunk_size": 3, "account": None, "dedupe": True}
THROTTLED = NotApplied(cause=Cause.THROTTLED, reason="too many requests")
UNKNOWN = Unknown(reason="the answer was lost")
UNSENT = NotApplied(cause=Cause.NOT_SENT, reason="refused by the network")


def a_chunk(ordinal, ids=3, invalid=0, duplicate=0):
    body = b"\n".join(b"%d" % (ordinal * 100 + number) for number in range(ids))
    return Chunk(
        ordinal=ordinal,
        body=body,
        ids=ids,
        digest=f"{ordinal:064x}",
        first_id=str(ordinal * 100),
        last_id=str(ordinal * 100 + ids - 1),
        source="ids.txt",
        line=ordinal * 100,
        tally=Tally(invalid=invalid, duplicate=duplicate),
    )


def evidence(phase=Phase.COMPLETE, *, started=1_800_000_000.0, ended=1_800_000_001.25, **more):
    return Evidence(phase=phase, started_utc=started, ended_utc=ended, **more)


def accepted(job_id, state=JobState.ACCEPTED):
    return Accepted(job_id=JobId(job_id), state=state, job_type="contacts")


@pytest.fixture
def clock():
    return SettableClock()


@pytest.fixture
def run_dir(tmp_path):
    return tmp_path / "a.run"


@pytest.fixture
async def ledger(run_dir, clock):
    async with await Ledger.open(run_dir, clock=clock) as opened:
        await opened.create_run(IDENTITY)
        await opened.begin_session()
        yield opened


async def attempt(ledger, ordinal, verdict, number=1, **more):
    await ledger.begin_attempt(ordinal, number)
    return await ledger.end_attempt(ordinal, number, evidence(**more), verdict)


async def state_of(ledger, ordinal):
    (row,) = await ledger.chunk_rows(ordinal - 1, 1)
    return row.state


def foreign(run_dir):
    return contextlib.closing(sqlite3.connect(run_dir / DATABASE_NAME, isolation_level=None))


def tear_down_like_a_crash(ledger):
    """Lets go of everything without a word, as the kernel does for a process that was killed."""
    ledger._writer._closing = True
    ledger._writer._queue.put(None)
    ledger._writer._thread.join()
    ledger._lock.release()


# The run


async def test_a_run_is_the_same_when_it_is_opened_again(run_dir, clock):
    """Its id, its nonce key and what it was begun with outlive the process."""
    async with await Ledger.open(run_dir, clock=clock) as ledger:
        assert ledger.run is None
        run = await ledger.create_run(IDENTITY)
        assert run.identity == IDENTITY
        assert run.endpoint == "contacts"
        assert len(run.nonce_key) == 16
    async with await Ledger.open(run_dir, clock=clock) as ledger:
        assert ledger.run == run


async def test_a_ledger_holds_one_run(ledger):
    """A second one is refused and the first stays."""
    run = ledger.run
    with pytest.raises(InternalError):
        await ledger.create_run(IDENTITY)
    assert ledger.run is run


async def test_a_run_without_an_endpoint_is_refused(run_dir, clock):
    """Job records could not be written."""
    async with await Ledger.open(run_dir, clock=clock) as ledger:
        with pytest.raises(InternalError, match="endpoint"):
            await ledger.create_run({})


@pytest.mark.parametrize("call", [lambda x: x.finish_source(Tally()), lambda x: x.undelivered(0, 1)])
async def test_before_there_is_a_run_nothing_can_be_asked_of_it(run_dir, clock, call):
    """An engine that forgets to make the run is told so."""
    async with await Ledger.open(run_dir, clock=clock) as ledger:
        with pytest.raises(InternalError, match="no run yet"):
            await call(ledger)


def test_run_ids_sort_by_time_and_are_20_plain_characters():
    """A listing of run directories is in the order of their making."""
    ids = [
        new_run_id(utc, chance)
        for utc, chance in [(0.0, 2**50 - 1), (0.001, 0), (1.8e9, 7), (1.8e9, 8), (3e9, 0)]
    ]
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)
    for run_id in ids:
        assert len(run_id) == 20
        assert run_id.isalnum()
        assert run_id == run_id.lower()


async def test_sources_come_back_in_their_order(ledger):
    """With their marks, and with how much of a spooled one is durable."""
    ledger.record_source(1, "stdin", None, spooled=True)
    ledger.record_source(0, "ids.txt", "12:34", spooled=False)
    ledger.source_spooled(1, 4096, complete=False)
    ledger.source_spooled(1, 5000, complete=True)
    first, second = await ledger.sources()
    assert (first.name, first.fingerprint, first.spooled, first.complete) == (
        "ids.txt",
        "12:34",
        False,
        False,
    )
    assert (second.name, second.fingerprint, second.spooled, second.spooled_bytes) == (
        "stdin",
        None,
        True,
        5000,
    )
    assert second.complete


async def test_finishing_the_source_counts_what_stood_behind_the_last_chunk(ledger, run_dir):
    """Ids behind the last chunk are read too, and finishing again changes nothing."""
    ledger.plan(a_chunk(1, invalid=1))
    for _ in range(2):
        await ledger.finish_source(Tally(invalid=2, duplicate=3))
    assert ledger.run.source_finished
    assert read_run(run_dir).run.source_finished
    assert (await ledger.counts()).tally == Tally(invalid=3, duplicate=3)


# The file


@pytest.mark.parametrize("umask", [0, 0o277])
async def test_everything_is_private_whatever_the_umask(run_dir, clock, umask):
    """The directory 0700, each file 0600: ids are personal data."""
    before = os.umask(umask)
    try:
        async with await Ledger.open(run_dir, clock=clock) as ledger:
            await ledger.create_run(IDENTITY)
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in run_dir.iterdir()}
    finally:
        os.umask(before)
    assert stat.S_IMODE(run_dir.stat().st_mode) == 0o700
    assert set(modes) >= {"ledger.db", "ledger.db-wal", "ledger.lock"}
    assert set(modes.values()) == {0o600}


async def test_a_directory_that_exists_keeps_its_mode(tmp_path, clock):
    """It is somebody's own."""
    tmp_path.chmod(0o755)
    async with await Ledger.open(tmp_path, clock=clock):
        assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


async def test_commits_are_synced(ledger):
    """NORMAL would lose the last intents with the power, and they are what stops a second payment."""

    def pragmas(database):
        names = ("journal_mode", "synchronous", "trusted_schema", "user_version")
        return {name: database.execute(f"PRAGMA {name}").fetchone()[0] for name in names}

    assert await ledger._writer.call(pragmas) == {
        "journal_mode": "wal",
        "synchronous": 2,
        "trusted_schema": 0,
        "user_version": SCHEMA_VERSION,
    }


async def test_a_newer_ledger_is_refused_untouched(run_dir, clock):
    """An older program must not guess what a newer one meant."""
    async with await Ledger.open(run_dir, clock=clock) as ledger:
        await ledger.create_run(IDENTITY)
    with foreign(run_dir) as database:
        database.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(
        LedgerError,
        match=f"has format {SCHEMA_VERSION + 1}; this bulkjobs knows formats up to {SCHEMA_VERSION}",
    ):
        await Ledger.open(run_dir, clock=clock)
    with pytest.raises(LedgerError, match="has format"):
        read_run(run_dir)


async def test_a_database_of_something_else_is_refused_untouched(tmp_path, clock):
    """Nothing is added to it."""
    with contextlib.closing(sqlite3.connect(tmp_path / DATABASE_NAME)) as database:
        database.execute("CREATE TABLE mine (x)")
    before = (tmp_path / DATABASE_NAME).read_bytes()
    with pytest.raises(LedgerError, match="no ledger"):
        await Ledger.open(tmp_path, clock=clock)
    assert (tmp_path / DATABASE_NAME).read_bytes() == before


async def test_a_file_that_is_no_database_is_refused_untouched(tmp_path, clock):
    """And the lock is free again."""
    (tmp_path / DATABASE_NAME).write_bytes(b"not a database, certainly not" * 100)
    for _ in range(2):
        with pytest.raises(LedgerError, match=r"cannot be read: file is not a database\."):
            await Ledger.open(tmp_path, clock=clock)
    with pytest.raises(LedgerError, match="cannot be read"):
        read_run(tmp_path)


async def test_a_damaged_ledger_is_an_error_and_not_a_guess(run_dir, clock):
    """Pages of noise raise LedgerError when they are met."""
    async with await Ledger.open(run_dir, clock=clock) as ledger:
        await ledger.create_run(IDENTITY)
        for ordinal in range(1, 200):
            ledger.plan(a_chunk(ordinal))
    path = run_dir / DATABASE_NAME
    path.write_bytes(path.read_bytes()[:8192] + b"\xff" * (path.stat().st_size - 8192))
    with pytest.raises(LedgerError):
        async with await Ledger.open(run_dir, clock=clock) as ledger:
            await ledger.counts()


@pytest.mark.parametrize("damage", ["pages", "words"])
async def test_an_onlooker_calls_a_damaged_ledger_damaged(run_dir, clock, damage):
    """Whatever it meets while it reads."""
    async with await Ledger.open(run_dir, clock=clock) as ledger:
        await ledger.create_run(IDENTITY)
        for ordinal in range(1, 200):
            ledger.plan(a_chunk(ordinal))
    path = run_dir / DATABASE_NAME
    if damage == "pages":
        path.write_bytes(path.read_bytes()[:8192] + b"\xff" * (path.stat().st_size - 8192))
    else:
        with foreign(run_dir) as database:
            database.execute("UPDATE run SET identity = '{'")
    with pytest.raises(LedgerError, match=r"ledger\.db cannot be read: .* Put back a copy"):
        read_run(run_dir)


async def test_a_ledger_at_rest_can_be_read_where_nothing_can_be_written(run_dir, clock, monkeypatch):
    """On a read-only disk, for instance; with a log beside it, it is not at rest."""
    connect = sqlite3.connect

    def connect_on_read_only_disk(database, **options):
        if "immutable=1" not in database:
            raise sqlite3.OperationalError("unable to open database file")
        return connect(database, **options)

    async with await Ledger.open(run_dir, clock=clock) as ledger:
        await ledger.create_run(IDENTITY)
    monkeypatch.setattr("bulkjobs.ledger.schema.sqlite3.connect", connect_on_read_only_disk)
    assert read_run(run_dir).run.identity == IDENTITY
    (run_dir / f"{DATABASE_NAME}-wal").touch()
    with pytest.raises(LedgerError, match="unable to open"):
        read_run(run_dir)


async def test_a_path_need_not_be_utf_8(run_dir, clock):
    """File names are bytes."""
    odd = run_dir.with_name(os.fsdecode(b"caf\xe9.run"))
    async with await Ledger.open(odd, clock=clock) as ledger:
        await ledger.create_run(IDENTITY)
    assert read_run(odd).run.identity == IDENTITY


async def test_a_crash_while_the_schema_is_made_leaves_an_empty_file_that_is_used(tmp_path, clock):
    """The schema is one transaction: all of it or nothing."""
    (tmp_path / DATABASE_NAME).touch()
    async with await Ledger.open(tmp_path, clock=clock) as ledger:
        run = await ledger.create_run(IDENTITY)
    assert read_run(tmp_path).run == run


async def test_a_file_in_the_place_of_the_run_directory_is_named(tmp_path, clock):
    """What, which, what next."""
    (tmp_path / "a.run").touch()
    with pytest.raises(LedgerError, match=r"a\.run is a file\. Choose another with --run"):
        await Ledger.open(tmp_path / "a.run", clock=clock)


async def test_a_run_directory_that_cannot_be_made_is_named(tmp_path, clock):
    """What, which, why."""
    (tmp_path / "file").touch()
    with pytest.raises(LedgerError, match=r"cannot be made: File exists"):
        await Ledger.open(tmp_path / "file" / "a.run", clock=clock)


# Attempts


async def test_the_intent_is_visible_to_others_before_a_byte_can_leave(ledger, run_dir):
    """When `begin_attempt` returns, a second connection sees the chunk as sending and the attempt in flight."""
    ledger.plan(a_chunk(1))
    await ledger.begin_attempt(1, 1)
    with foreign(run_dir) as database:
        assert database.execute("SELECT state FROM chunk").fetchall() == [("sending",)]
        assert database.execute("SELECT chunk, attempt, verdict FROM attempt").fetchall() == [(1, 1, None)]


@pytest.mark.parametrize(
    ("verdict", "state"),
    [
        (accepted("j1"), ChunkState.ACCEPTED),
        (Refused(reason="bad ids"), ChunkState.REFUSED),
        (THROTTLED, ChunkState.PLANNED),
        (Unknown(reason="reset"), ChunkState.HELD),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_a_verdict_moves_its_chunk(ledger, verdict, state):
    """Accepted, refused, not applied, unknown: each has its state, and the verdict comes back as it stands."""
    ledger.plan(a_chunk(1))
    assert await attempt(ledger, 1, verdict) == verdict
    (row,) = await ledger.chunk_rows(0, 10)
    assert (row.state, row.attempts, row.ids, row.body_bytes) == (state, 1, 3, 11)


async def test_a_chunk_in_flight_cannot_be_sent_again(ledger):
    """Neither in the same attempt nor in another."""
    ledger.plan(a_chunk(1))
    await ledger.begin_attempt(1, 1)
    for number in (1, 2):
        with pytest.raises(InternalError, match="cannot go from sending to sending"):
            await ledger.begin_attempt(1, number)


async def test_the_database_itself_refuses_a_second_attempt_in_flight(ledger, run_dir):
    """Also for a program that does not ask the lifecycle."""
    ledger.plan(a_chunk(1))
    await ledger.begin_attempt(1, 1)
    with foreign(run_dir) as database, pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        database.execute("INSERT INTO attempt (chunk, attempt, started_utc) VALUES (1, 2, 0)")


@pytest.mark.parametrize("verdict", [accepted("j1"), Refused(reason="no"), Unknown(reason="?")], ids=str)
async def test_a_settled_chunk_is_not_sent_again(ledger, verdict):
    """Only proof that nothing was applied makes a chunk planned."""
    ledger.plan(a_chunk(1))
    await attempt(ledger, 1, verdict)
    with pytest.raises(InternalError, match="cannot go from"):
        await ledger.begin_attempt(1, 2)


async def test_a_chunk_that_is_not_planned_cannot_be_sent(ledger):
    """There is nothing to account it to."""
    with pytest.raises(InternalError, match="no chunk 7"):
        await ledger.begin_attempt(7, 1)


async def test_the_number_of_an_attempt_is_used_once(ledger):
    """Its evidence is kept for ever."""
    ledger.plan(a_chunk(1))
    await attempt(ledger, 1, THROTTLED)
    with pytest.raises(InternalError, match="UNIQUE"):
        await ledger.begin_attempt(1, 1)
    assert await state_of(ledger, 1) is ChunkState.PLANNED


async def test_an_attempt_ends_once(ledger):
    """A second ending with other evidence is refused."""
    ledger.plan(a_chunk(1))
    await attempt(ledger, 1, THROTTLED)
    with pytest.raises(InternalError, match="not recorded as in flight"):
        await ledger.end_attempt(1, 1, evidence(), Unknown(reason="?"))


async def test_an_attempt_that_never_began_leaves_its_evidence_and_the_chunk_planned(ledger):
    """The connection was refused: nothing was sent, and it is on record."""
    ledger.plan(a_chunk(1))
    assert await ledger.end_attempt(1, 1, evidence(Phase.STARTED, error="refused"), UNSENT) == UNSENT
    (row,) = await ledger.chunk_rows(0, 10)
    assert (row.state, row.attempts) == (ChunkState.PLANNED, 1)
    assert (await ledger.counts()).requests["submit"] == 0
    await attempt(ledger, 1, accepted("j1"), number=2)


async def test_an_attempt_that_never_began_cannot_have_been_sent(ledger):
    """Bytes without an intent would be a broken promise."""
    ledger.plan(a_chunk(1))
    for phase, verdict in [(Phase.HEADERS_SENT, THROTTLED), (Phase.CONNECTED, Unknown(reason="?"))]:
        with pytest.raises(InternalError, match="not recorded as in flight"):
            await ledger.end_attempt(1, 1, evidence(phase), verdict)


async def test_a_chunk_in_flight_has_no_second_attempt_that_was_not_sent(ledger):
    """One chunk, one worker."""
    ledger.plan(a_chunk(1))
    await ledger.begin_attempt(1, 1)
    with pytest.raises(InternalError, match="is sending"):
        await ledger.end_attempt(1, 2, evidence(Phase.STARTED), UNSENT)


async def test_the_wish_to_send_of_a_cancelled_worker_is_on_record(ledger):
    """Its cleanup ends the attempt, in order, though it never heard that the attempt had begun."""
    ledger.plan(a_chunk(1))
    begin = asyncio.ensure_future(ledger.begin_attempt(1, 1))
    await asyncio.sleep(0)
    begin.cancel()
    with pytest.raises(asyncio.CancelledError):
        await begin
    await ledger.end_attempt(1, 1, evidence(Phase.CONNECTED), UNSENT)
    assert await state_of(ledger, 1) is ChunkState.PLANNED


async def test_a_job_belongs_to_one_chunk(ledger):
    """A server that answers with a job already known makes the second chunk's outcome unknown, also to the caller."""
    for ordinal in (1, 2):
        ledger.plan(a_chunk(ordinal))
    await attempt(ledger, 1, accepted("j1"))
    verdict = await attempt(ledger, 2, accepted("j1"))
    assert isinstance(verdict, Unknown)
    assert "already the job of chunk 1" in verdict.reason
    assert verdict.job_hint == "j1"
    assert await state_of(ledger, 1) is ChunkState.ACCEPTED
    (held,) = await ledger.held(0, 10)
    assert (held.chunk, held.reason, held.job_hint) == (2, verdict.reason, "j1")


async def test_a_job_belongs_to_one_chunk_also_within_a_group(ledger):
    """Two answers with one job at the same moment: the first keeps it."""
    for ordinal in range(1, 6):
        ledger.plan(a_chunk(ordinal))
        await ledger.begin_attempt(ordinal, 1)
    verdicts = await asyncio.gather(
        *(ledger.end_attempt(ordinal, 1, evidence(), accepted(f"j{ordinal % 4}")) for ordinal in range(1, 6))
    )
    assert [type(verdict) for verdict in verdicts] == [Accepted] * 4 + [Unknown]
    assert await state_of(ledger, 5) is ChunkState.HELD


async def test_many_callers_at_once_are_all_recorded(ledger):
    """A group of any size, with an illegal move in it, moves exactly the others."""
    for ordinal in range(1, 151):
        ledger.plan(a_chunk(ordinal))
    await ledger.begin_attempt(77, 1)
    outcomes = await asyncio.gather(
        *(ledger.begin_attempt(ordinal, 1) for ordinal in range(1, 151)), return_exceptions=True
    )
    assert [number for number, outcome in enumerate(outcomes, 1) if outcome is not None] == [77]
    assert (await ledger.counts()).states[ChunkState.SENDING].chunks == 150


async def test_the_evidence_of_a_held_chunk_is_there_to_be_judged(ledger):
    """Times, status, error and the first 4 KiB of the answer, of the last attempt."""
    ledger.plan(a_chunk(1))
    await attempt(ledger, 1, THROTTLED)
    await attempt(
        ledger,
        1,
        Unknown(reason="the answer cannot be read", job_hint=JobId("j9")),
        number=2,
        status=200,
        content_type="text/html",
        body=b"x" * 5000,
        error="none",
    )
    (held,) = await ledger.held(0, 10)
    assert (held.chunk, held.attempt, held.ids, held.first_id, held.last_id) == (1, 2, 3, "100", "102")
    assert (held.source, held.line, held.digest) == ("ids.txt", 100, f"{1:064x}")
    assert (held.reason, held.job_hint) == ("the answer cannot be read", "j9")
    assert (held.started_utc, held.ended_utc, held.phase) == (
        1_800_000_000.0,
        1_800_000_001.25,
        Phase.COMPLETE,
    )
    assert (held.status, held.content_type, held.error) == (200, "text/html", "none")
    assert (held.body, held.body_cut) == (b"x" * 4096, True)
    assert await ledger.held(1, 10) == []


async def test_refused_chunks_are_listed_with_the_reason(ledger):
    """Page by page, in input order."""
    for ordinal in range(1, 6):
        ledger.plan(a_chunk(ordinal))
        await attempt(ledger, ordinal, Refused(reason=f"bad {ordinal}"), status=400, body=b"{}")
    assert [row.reason for row in await ledger.refused(2, 2)] == ["bad 3", "bad 4"]


async def test_a_chunk_planned_twice_ends_the_ledger(run_dir, clock):
    """Nobody waits for `plan`, so the failure meets whoever comes next."""
    ledger = await Ledger.open(run_dir, clock=clock)
    ledger.plan(a_chunk(1))
    ledger.plan(a_chunk(1))
    await ledger.sources()
    with pytest.raises(LedgerError, match="cannot go on: What was to be recorded contradicts"):
        await ledger.begin_attempt(1, 1)
    with pytest.raises(LedgerError, match="contradicts"):
        await ledger.close()


# Delivery


async def test_records_wait_until_every_sink_has_them(ledger, run_dir, clock):
    """They come again, the same each time, until they are delivered; the server's later words do not change them."""
    for ordinal in (1, 2, 3):
        ledger.plan(a_chunk(ordinal))
        await attempt(ledger, ordinal, accepted(f"j{ordinal}", JobState.PROCESSING))
    first = await ledger.undelivered(0, 2)
    ledger.job_seen(seen("j1", JobState.FINISHED))
    assert first == await ledger.undelivered(0, 2)
    assert [record.chunk for record in await ledger.undelivered(2, 9)] == [3]
    assert first[0].as_dict() == {
        "run_id": ledger.run.run_id,
        "chunk": 1,
        "digest": f"{1:064x}",
        "job_id": "j1",
        "status": "processing",
        "type": "contacts",
        "endpoint": "contacts",
        "ids": 3,
        "first_id": "100",
        "last_id": "102",
        "source": "ids.txt",
        "attempt": 1,
        "accepted_at": "2027-01-15T08:00:01.250Z",
    }
    await ledger.deliver([1, 2], {"jobs.jsonl": 700, "table": None})
    assert [record.chunk for record in await ledger.undelivered(0, 9)] == [3]
    assert await ledger.sink_positions() == {"jobs.jsonl": 700, "table": None}


async def test_a_delivery_is_whole_or_not_at_all(ledger):
    """One chunk that is not accepted keeps the others and the positions as they were."""
    for ordinal in (1, 2):
        ledger.plan(a_chunk(ordinal))
    await attempt(ledger, 1, accepted("j1"))
    with pytest.raises(InternalError, match="chunks 1, 2"):
        await ledger.deliver([1, 2], {"jobs.jsonl": 1})
    assert await state_of(ledger, 1) is ChunkState.ACCEPTED
    assert await ledger.sink_positions() == {}


async def test_positions_are_recorded_without_chunks_too(ledger):
    """A sink that is new to the run begins where it stands."""
    await ledger.deliver([], {"jobs.jsonl": 12})
    await ledger.deliver([], {"jobs.jsonl": 13})
    assert await ledger.sink_positions() == {"jobs.jsonl": 13}


def test_timestamps_are_rfc_3339_in_utc_with_milliseconds():
    """Always the same width, so that they sort."""
    assert timestamp(0.0) == "1970-01-01T00:00:00.000Z"
    assert timestamp(1_800_000_000.5) == "2027-01-15T08:00:00.500Z"


# Sessions


async def test_after_a_crash_what_was_in_flight_is_held(run_dir, clock):
    """Its outcome is unknown, it counts as sent, and it is not sent again."""
    ledger = await Ledger.open(run_dir, clock=clock)
    await ledger.create_run(IDENTITY)
    assert await ledger.begin_session() == 0
    for ordinal in (1, 2, 3):
        ledger.plan(a_chunk(ordinal))
    await ledger.begin_attempt(1, 1)
    await attempt(ledger, 2, accepted("j2"))
    tear_down_like_a_crash(ledger)
    async with await Ledger.open(run_dir, clock=clock) as ledger:
        assert await ledger.begin_session() == 1
        states = [row.state for row in await ledger.chunk_rows(0, 9)]
        assert states == [ChunkState.HELD, ChunkState.ACCEPTED, ChunkState.PLANNED]
        (held,) = await ledger.held(0, 9)
        assert held.reason == "the process ended while this chunk was being sent"
        assert (held.ended_utc, held.phase, held.body) == (None, None, b"")
        with foreign(run_dir) as database:
            assert database.execute("SELECT verdict FROM attempt WHERE chunk = 1").fetchall() == [
                ("unknown",)
            ]
        assert (await ledger.counts()).requests["submit"] == 2
        await ledger.end_session(4, None)
        assert await ledger.begin_session() == 0


async def test_elapsed_time_is_the_sum_of_the_sessions(run_dir, clock):
    """One that crashed counts until the last thing it recorded, the present one until now."""
    ledger = await Ledger.open(run_dir, clock=clock)
    await ledger.create_run(IDENTITY)
    await ledger.begin_session()
    clock.now += 10
    await ledger.end_session(0, None)
    clock.now += 1000
    await ledger.begin_session()
    clock.now += 5
    await ledger.begin_request(RequestKind.LIST)
    assert read_run(run_dir).counts.elapsed_s == 15
    tear_down_like_a_crash(ledger)
    clock.now += 1000
    async with await Ledger.open(run_dir, clock=clock) as ledger:
        await ledger.begin_session()
        assert (await ledger.counts()).elapsed_s == 15
        clock.now += 2.5
        assert (await ledger.counts()).elapsed_s == 17.5


async def test_a_session_that_crashed_at_once_took_no_time(run_dir, clock):
    """Nothing recorded, nothing counted; also when the clock was set back."""
    ledger = await Ledger.open(run_dir, clock=clock)
    await ledger.create_run(IDENTITY)
    await ledger.begin_session()
    tear_down_like_a_crash(ledger)
    clock.now -= 3600
    async with await Ledger.open(run_dir, clock=clock) as ledger:
        await ledger.begin_session()
        assert (await ledger.counts()).elapsed_s == 0


async def test_looking_at_a_run_whose_last_session_crashed_adds_no_time_to_it(run_dir, clock):
    """All was settled, so that no session is begun any more; the crashed one has not gone on for ever."""
    ledger = await Ledger.open(run_dir, clock=clock)
    await ledger.create_run(IDENTITY)
    await ledger.begin_session()
    clock.now += 5
    await ledger.begin_request(RequestKind.LIST)
    tear_down_like_a_crash(ledger)
    clock.now += 1000
    async with await Ledger.open(run_dir, clock=clock) as ledger:
        assert (await ledger.counts()).elapsed_s == 5


async def test_sessions_do_not_overlap(ledger):
    """A second beginning would hold what the first has in flight."""
    with pytest.raises(InternalError, match="open already"):
        await ledger.begin_session()
    await ledger.end_session(0, None)
    with pytest.raises(InternalError, match="No session"):
        await ledger.end_session(0, None)


# The account


def seen(job_id, state, word=None, processed=None):
    return JobStatus(
        job_id=JobId(job_id), state=state, word=word or state.value, job_type="contact", processed=processed
    )


async def test_a_restart_knows_what_counts_in_the_window(ledger, clock):
    """Every kind of request that may have reached the server and began or ended since; no other."""
    now = clock.now
    for ordinal in range(1, 6):
        ledger.plan(a_chunk(ordinal))
    await attempt(ledger, 1, THROTTLED, started=now - 50, ended=now - 40)  # too old
    await attempt(ledger, 2, THROTTLED, started=now - 30, ended=now - 10)  # ended since
    await ledger.end_attempt(3, 1, evidence(Phase.STARTED, started=now, ended=now), UNSENT)  # never left
    clock.now = now + 1
    await ledger.begin_attempt(4, 1)  # in flight
    clock.now = now + 2
    number = await ledger.begin_request(RequestKind.STATUS)
    clock.now = now + 3
    ledger.end_request(number, 200)
    await ledger.begin_request(RequestKind.LOGIN)
    state = await ledger.account_state(now - 20)
    assert state.history == [(now - 30, now - 10), (now + 1, None), (now + 2, now + 3), (now + 3, None)]
    assert (await ledger.account_state(now + 100)).history == []


async def test_unknown_outcomes_are_counted_back_to_the_last_known_one(ledger, clock):
    """In the order in which they ended; an attempt that never left says nothing."""
    assert await ledger.unknown_in_a_row(3) == 0
    for ordinal in range(1, 7):
        ledger.plan(a_chunk(ordinal))
    now = clock.now
    await attempt(ledger, 1, UNKNOWN, started=now, ended=now + 10)
    assert await ledger.unknown_in_a_row(3) == 1
    await attempt(ledger, 2, accepted("j2"), started=now, ended=now + 20)
    assert await ledger.unknown_in_a_row(3) == 0
    await attempt(ledger, 3, UNKNOWN, started=now - 300, ended=now + 30)
    await attempt(ledger, 4, UNKNOWN, started=now, ended=now + 40)
    await ledger.begin_attempt(5, 1)
    await ledger.end_attempt(5, 1, evidence(Phase.STARTED, started=now + 50, ended=now + 50), UNSENT)
    assert await ledger.unknown_in_a_row(3) == 2
    await attempt(ledger, 6, UNKNOWN, started=now, ended=now + 60)
    assert await ledger.unknown_in_a_row(3) == 3
    assert await ledger.unknown_in_a_row(2) == 2


async def test_what_was_in_flight_when_a_process_died_counts_as_its_last_unknown_outcomes(run_dir, clock):
    """Although it had begun before the last known outcome; and not once a later session knows one."""
    ledger = await Ledger.open(run_dir, clock=clock)
    await ledger.create_run(IDENTITY)
    await ledger.begin_session()
    for ordinal in range(1, 6):
        ledger.plan(a_chunk(ordinal))
        clock.now += 1
        await ledger.begin_attempt(ordinal, 1)
    clock.now += 10
    await ledger.end_attempt(5, 1, evidence(ended=clock.now), accepted("j5"))
    tear_down_like_a_crash(ledger)
    clock.now += 1000
    async with await Ledger.open(run_dir, clock=clock) as ledger:
        await ledger.begin_session()
        assert await ledger.unknown_in_a_row(10) == 4
        ledger.plan(a_chunk(6))
        await attempt(ledger, 6, accepted("j6"), started=clock.now, ended=clock.now + 1)
        assert await ledger.unknown_in_a_row(10) == 0


async def test_requests_are_counted_by_kind(ledger):
    """And those answered by a throttle once more."""
    ledger.plan(a_chunk(1))
    await attempt(ledger, 1, THROTTLED, status=429)
    await attempt(ledger, 1, NotApplied(cause=Cause.SLOTS_FULL, reason="2 jobs run"), number=2, status=429)
    for kind, status in [(RequestKind.STATUS, 200), (RequestKind.STATUS, 429), (RequestKind.LIST, None)]:
        ledger.end_request(await ledger.begin_request(kind), status)
    requests = (await ledger.counts()).requests
    others = {"results": 0, "login": 0, "usage": 0}
    assert requests == {"submit": 2, "status": 2, "list": 1, **others, "throttled": 2}


async def test_a_lock_out_that_lasts_longer_is_one_lock_out(ledger, clock):
    ledger.lockout(clock.now + 309, "429", begins=True)
    clock.now += 5
    ledger.lockout(clock.now + 309, "429 again", begins=False)
    until = clock.now + 309
    assert (await ledger.account_state(0)).locked_until_utc == until
    assert (await ledger.counts()).lockouts == 1
    clock.now = until
    ledger.lockout(clock.now + 309, "429 after a while", begins=True)
    assert (await ledger.counts()).lockouts == 2
    assert (await ledger.account_state(0)).locked_until_utc == until + 309


async def test_a_clock_that_was_set_back_does_not_make_a_lock_out_longer_than_it_was(ledger, clock):
    ledger.lockout(clock.now + 309, "429", begins=True)
    clock.now -= 36_000
    assert (await ledger.account_state(0)).locked_until_utc == clock.now + 309


@pytest.mark.parametrize("set_by", [-31_536_000, -3_600, -10, 0])
async def test_a_lock_out_that_was_met_again_and_again_is_no_longer_than_when_it_was_met_last(
    ledger, clock, set_by
):
    for _ in range(100):
        ledger.lockout(clock.now + 309, "429", begins=False)
        clock.now += 309
    clock.now += set_by
    assert (await ledger.account_state(0)).locked_until_utc <= clock.now + 309
    assert (await ledger.counts()).lockouts == 1


@pytest.mark.parametrize("ahead", [3_600, 31_536_000])
async def test_a_clock_that_was_ahead_during_a_lock_out_does_not_make_it_longer(ledger, clock, ahead):
    ledger.lockout(clock.now + 309, "429", begins=True)
    clock.now += 1 + ahead
    ledger.lockout(clock.now + 309, "requests sent before the lock-out have ended", begins=False)
    clock.now += 10 - ahead
    assert (await ledger.account_state(0)).locked_until_utc == clock.now + 309


async def test_a_lock_out_from_the_future_of_a_clock_that_was_set_back_counts_once(ledger, clock):
    """With the next one it is over, even if the clock will not show its end for a year."""
    clock.now += 31_536_000
    ledger.lockout(clock.now + 309, "429", begins=True)
    clock.now -= 31_536_000
    ledger.lockout(clock.now + 309, "429", begins=True)
    until = clock.now + 309
    clock.now += 1_000
    assert (await ledger.account_state(0)).locked_until_utc == until


async def test_a_learned_limit_is_remembered(ledger):
    """The latest lesson counts."""
    assert (await ledger.account_state(0)).learned_limit is None
    ledger.learn_limit(90)
    ledger.learn_limit(81)
    assert (await ledger.account_state(0)).learned_limit == 81


async def test_a_slot_is_held_until_the_end_of_its_job_is_seen(ledger):
    """An unknown word is no end, and an end is final."""
    for ordinal in (1, 2):
        ledger.plan(a_chunk(ordinal))
        await attempt(ledger, ordinal, accepted(f"j{ordinal}"))

    async def open_jobs():
        return {job.job_id: job.state for job in (await ledger.account_state(0)).open_jobs}

    assert await open_jobs() == {"j1": JobState.ACCEPTED, "j2": JobState.ACCEPTED}
    ledger.job_seen(seen("j1", JobState.UNKNOWN, "paused"))
    ledger.job_seen(seen("somebody-elses", JobState.FINISHED))
    assert await open_jobs() == {"j1": JobState.UNKNOWN, "j2": JobState.ACCEPTED}
    ledger.job_seen(seen("j1", JobState.FINISHED, processed=3))
    ledger.job_seen(seen("j1", JobState.PROCESSING))
    assert await open_jobs() == {"j2": JobState.ACCEPTED}
    assert (await ledger.counts()).jobs == {"accepted": 1, "finished": 1}


# Figures


async def test_the_summary_adds_up(ledger):
    """Every id read is in exactly one place."""
    verdicts = [accepted("j1"), accepted("j2"), Refused(reason="no"), Unknown(reason="?"), THROTTLED]
    for ordinal, verdict in enumerate(verdicts, 1):
        ledger.plan(a_chunk(ordinal, ids=ordinal, invalid=1, duplicate=2))
        await attempt(ledger, ordinal, verdict)
    ledger.plan(a_chunk(6, ids=6))
    await ledger.begin_attempt(6, 1)
    await ledger.deliver([1], {})
    await ledger.finish_source(Tally(invalid=10))
    summary = summarise(ledger.run, await ledger.counts(), 3)
    assert summary.ids == {
        "read": 15 + 10 + 1 + 2 + 3 + 4 + 5 + 6,
        "invalid": 15,
        "duplicate": 10,
        "accepted": 1 + 2,
        "refused": 3,
        "held": 4,
        "pending": 5 + 6,
    }
    assert summary.chunks == {"total": 6, "accepted": 2, "refused": 1, "held": 1, "pending": 2}
    assert summary.jobs == {"accepted": 2}
    assert summary.exit_code == 3
    assert list(summary.as_dict())[:3] == ["run_id", "endpoint", "ids"]


async def test_the_last_chunk_of_a_state_can_be_asked_for(ledger):
    """Zero when there is none."""
    for ordinal in (1, 2, 3):
        ledger.plan(a_chunk(ordinal))
    await attempt(ledger, 2, accepted("j2"))
    assert await ledger.last_ordinal(ChunkState.PLANNED) == 3
    assert await ledger.last_ordinal(ChunkState.ACCEPTED) == 2
    assert await ledger.last_ordinal(ChunkState.HELD) == 0


async def test_an_onlooker_sees_the_same_figures_as_the_process_at_work(ledger, run_dir, clock):
    """`status` reads while another process writes, and takes nothing away from it."""
    ledger.record_source(0, "ids.txt", "1:2", spooled=False)
    ledger.plan(a_chunk(1, invalid=2))
    await attempt(ledger, 1, accepted("j1"))
    ledger.lockout(clock.now + 300, "429", begins=True)
    ledger.learn_limit(81)
    counts = await ledger.counts()
    seen_by_other = read_run(run_dir)
    assert seen_by_other.run == ledger.run
    assert [source.name for source in seen_by_other.sources] == ["ids.txt"]
    assert (seen_by_other.counts.states, seen_by_other.counts.tally) == (counts.states, counts.tally)
    assert [job.job_id for job in seen_by_other.open_jobs] == ["j1"]
    assert (seen_by_other.locked_until_utc, seen_by_other.learned_limit) == (clock.now + 300, 81)
    assert (seen_by_other.exit_code, seen_by_other.stop_reason) == (None, None)
    await ledger.end_session(5, "no quota left")
    assert (read_run(run_dir).exit_code, read_run(run_dir).stop_reason) == (5, "no quota left")


async def test_an_onlooker_may_look_at_a_ledger_at_rest(run_dir, clock):
    """Also when the path needs quoting, and twice."""
    odd = run_dir.with_name("50% of a?b#c.run")
    async with await Ledger.open(odd, clock=clock) as ledger:
        await ledger.create_run(IDENTITY)
    for _ in range(2):
        assert read_run(odd).run.identity == IDENTITY
    async with await Ledger.open(odd, clock=clock):
        assert read_run(odd).exit_code is None


def test_a_directory_without_a_ledger_is_named(tmp_path):
    """What, which, what next."""
    with pytest.raises(LedgerError, match=r"There is no ledger at .*Is this the run directory"):
        read_run(tmp_path)


def test_a_ledger_in_which_nothing_was_begun_is_named(tmp_path):
    """A crash before the schema stood."""
    (tmp_path / DATABASE_NAME).touch()
    with pytest.raises(LedgerError, match="no run was begun"):
        read_run(tmp_path)


async def test_leaving_with_an_error_does_not_hide_it(run_dir, clock):
    """What went wrong first is what is raised; without it, the ledger's own failure is."""

    async def work(end):
        async with await Ledger.open(run_dir, clock=clock) as ledger:
            ledger.plan(a_chunk(0))  # ordinals begin at 1
            end()

    def fail():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await work(fail)
    with pytest.raises(LedgerError, match="contradicts"):
        await work(lambda: None)


# Crashes

STREAM = """
import asyncio, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_ledger import IDENTITY, SettableClock, a_chunk, accepted, evidence
from bulkjobs.ledger import Ledger

async def main():
    ledger = await Ledger.open(Path(sys.argv[1]), clock=SettableClock())
    await ledger.create_run(IDENTITY)
    await ledger.begin_session()
    ordinals = iter(range(1, 1_000_000))
    async def worker():
        for ordinal in ordinals:
            ledger.plan(a_chunk(ordinal))
            await ledger.begin_attempt(ordinal, 1)
            os.write(1, b"%d sending\\n" % ordinal)
            await ledger.end_attempt(ordinal, 1, evidence(), accepted(f"j{ordinal}"))
            os.write(1, b"%d accepted\\n" % ordinal)
            await ledger.deliver([ordinal], {"jobs.jsonl": ordinal})
            os.write(1, b"%d delivered\\n" % ordinal)
    await asyncio.gather(*(worker() for _ in range(8)))

asyncio.run(main())
"""
ORDER = ["planned", "sending", "accepted", "delivered"]


def killed_after(run_dir, lines):
    """Runs the stream until it has told so many transitions, kills it, and gives the last state told of each chunk."""
    with subprocess.Popen(
        [sys.executable, "-c", STREAM, str(run_dir), str(Path(__file__).parent)], stdout=subprocess.PIPE
    ) as process:
        told = [process.stdout.readline() for _ in range(lines)]
        process.send_signal(signal.SIGKILL)
        told += process.stdout.read().splitlines(keepends=True)
        process.wait(timeout=10)
    acknowledged = {}
    for line in told:
        if line.endswith(b"\n"):
            ordinal, state = line.split()
            acknowledged[int(ordinal)] = state.decode()
    return acknowledged


@pytest.mark.parametrize("lines", [1, 100, 1500, 4000])
async def test_kill_9_loses_nothing_that_was_acknowledged(run_dir, clock, lines):
    """Every transition that was told is there; at most the workers' chunks are held; the figures add up."""
    acknowledged = killed_after(run_dir, lines)
    async with await Ledger.open(run_dir, clock=clock) as ledger:
        before = {row.ordinal: row.state for row in await ledger.chunk_rows(0, 1_000_000)}
        held = await ledger.begin_session()
        after = {row.ordinal: row.state for row in await ledger.chunk_rows(0, 1_000_000)}
        integrity = await ledger._writer.call(
            lambda database: database.execute("PRAGMA integrity_check").fetchall()
        )
    assert integrity == [("ok",)]
    for ordinal, state in acknowledged.items():
        assert ORDER.index(before[ordinal]) >= ORDER.index(state)
    in_flight = {ordinal for ordinal, state in before.items() if state == "sending"}
    assert held == len(in_flight) <= 8
    assert after == {
        ordinal: ChunkState.HELD if ordinal in in_flight else state for ordinal, state in before.items()
    }


# Any legal sequence


class LedgerMachine(RuleBasedStateMachine):
    """Drives a ledger through legal steps beside a model of it, with crashes and restarts in between."""

    ordinals = st.integers(min_value=1, max_value=40)

    def __init__(self):
        super().__init__()
        self.clock = SettableClock()
        self.run_dir = Path(tempfile.mkdtemp()) / "a.run"
        self.runner = asyncio.Runner()
        self.states = {}
        self.ids = {}
        self.attempts = {}
        self.outside = Tally()
        self.ledger = None

    def do(self, awaitable):
        async def wait():
            return await awaitable

        return self.runner.run(wait())

    def pick(self, state, data):
        return data.draw(st.sampled_from([ordinal for ordinal, at in self.states.items() if at is state]))

    def has(self, state):
        return state in self.states.values()

    @initialize()
    def begin(self):
        self.ledger = self.do(Ledger.open(self.run_dir, clock=self.clock))
        self.do(self.ledger.create_run(IDENTITY))
        self.do(self.ledger.begin_session())

    @rule(
        ids=st.integers(1, 9), tally=st.builds(Tally, invalid=st.integers(0, 5), duplicate=st.integers(0, 5))
    )
    def plan(self, ids, tally):
        ordinal = len(self.states) + 1
        self.do(self.run_on_loop(self.ledger.plan, a_chunk(ordinal, ids, tally.invalid, tally.duplicate)))
        self.states[ordinal], self.ids[ordinal], self.attempts[ordinal] = ChunkState.PLANNED, ids, 0
        self.outside += tally

    async def run_on_loop(self, function, *arguments):
        function(*arguments)

    @precondition(lambda self: self.has(ChunkState.PLANNED))
    @rule(data=st.data())
    def send(self, data):
        ordinal = self.pick(ChunkState.PLANNED, data)
        self.attempts[ordinal] += 1
        self.do(self.ledger.begin_attempt(ordinal, self.attempts[ordinal]))
        self.states[ordinal] = ChunkState.SENDING

    @precondition(lambda self: self.has(ChunkState.SENDING))
    @rule(data=st.data())
    def answer(self, data):
        ordinal = self.pick(ChunkState.SENDING, data)
        choices = {
            ChunkState.ACCEPTED: accepted(f"j{ordinal}"),
            ChunkState.REFUSED: Refused(reason="no"),
            ChunkState.PLANNED: THROTTLED,
            ChunkState.HELD: Unknown(reason="?"),
        }
        after = data.draw(st.sampled_from(list(choices)))
        self.do(self.ledger.end_attempt(ordinal, self.attempts[ordinal], evidence(), choices[after]))
        self.states[ordinal] = after

    @precondition(lambda self: self.has(ChunkState.PLANNED))
    @rule(data=st.data())
    def fail_to_connect(self, data):
        ordinal = self.pick(ChunkState.PLANNED, data)
        self.attempts[ordinal] += 1
        self.do(self.ledger.end_attempt(ordinal, self.attempts[ordinal], evidence(Phase.STARTED), UNSENT))

    @precondition(lambda self: self.has(ChunkState.ACCEPTED))
    @rule(data=st.data())
    def deliver(self, data):
        ready = [ordinal for ordinal, state in self.states.items() if state is ChunkState.ACCEPTED]
        some = data.draw(st.lists(st.sampled_from(ready), unique=True, min_size=1))
        self.do(self.ledger.deliver(some, {"jobs.jsonl": len(some)}))
        self.states |= dict.fromkeys(some, ChunkState.DELIVERED)

    @precondition(lambda self: self.states)
    @rule(data=st.data())
    def try_what_is_illegal(self, data):
        ordinal = data.draw(st.sampled_from(list(self.states)))
        state = self.states[ordinal]
        if (state, ChunkState.SENDING) not in TRANSITIONS:
            with pytest.raises(InternalError):
                self.do(self.ledger.begin_attempt(ordinal, self.attempts[ordinal] + 1))
        if (state, ChunkState.DELIVERED) not in TRANSITIONS:
            with pytest.raises(InternalError):
                self.do(self.ledger.deliver([ordinal], {}))

    @rule()
    def crash_and_resume(self):
        tear_down_like_a_crash(self.ledger)
        self.ledger = self.do(Ledger.open(self.run_dir, clock=self.clock))
        in_flight = [ordinal for ordinal, state in self.states.items() if state is ChunkState.SENDING]
        assert self.do(self.ledger.begin_session()) == len(in_flight)
        self.states |= dict.fromkeys(in_flight, ChunkState.HELD)

    @rule()
    def close_and_open_again(self):
        before = self.do(self.ledger.counts())
        self.do(self.ledger.close())
        self.ledger = self.do(Ledger.open(self.run_dir, clock=self.clock))
        after = self.do(self.ledger.counts())
        assert replace(after, elapsed_s=before.elapsed_s) == before
        self.crash_and_resume()

    @invariant()
    def every_id_is_in_one_place(self):
        if self.ledger is None:
            return
        summary = summarise(self.ledger.run, self.do(self.ledger.counts()), 0)

        def ids(*states):
            return sum(self.ids[ordinal] for ordinal, state in self.states.items() if state in states)

        assert summary.ids == {
            "read": sum(self.ids.values()) + self.outside.invalid + self.outside.duplicate,
            "invalid": self.outside.invalid,
            "duplicate": self.outside.duplicate,
            "accepted": ids(ChunkState.ACCEPTED, ChunkState.DELIVERED),
            "refused": ids(ChunkState.REFUSED),
            "held": ids(ChunkState.HELD),
            "pending": ids(ChunkState.PLANNED, ChunkState.SENDING),
        }
        rows = self.do(self.ledger.chunk_rows(0, 1000))
        assert {row.ordinal: (row.state, row.attempts) for row in rows} == {
            ordinal: (state, self.attempts[ordinal]) for ordinal, state in self.states.items()
        }

    def teardown(self):
        if self.ledger is not None:
            self.do(self.ledger.close())
        self.runner.close()
        shutil.rmtree(self.run_dir.parent)


LedgerMachine.TestCase.settings = settings(
    max_examples=15, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestAnyLegalSequence = LedgerMachine.TestCase
