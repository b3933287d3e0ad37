"""What the ledger records when a chunk is split, and when a held one is settled."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.telling import HandClock

from bulkjobs.errors import InternalError, LedgerError
from bulkjobs.ledger import DATABASE_NAME, Ledger, Settled, Settlement, read_run, summarise
from bulkjobs.model import (
    FIRST_PART,
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
    Tally,
    Unknown,
    Verdict,
)
from bulkjobs.splitting import parts_of

NOW = 1_800_000_000.0
TOO_LARGE = NotApplied(cause=Cause.TOO_LARGE, reason="HTTP 413.")
HELD = Unknown(reason="There was no answer.")


def a_chunk(ordinal: int, ids: int = 4, **more: Any) -> Chunk:
    numbers = [str(ordinal * 100 + number) for number in range(ids)]
    body = "\n".join(numbers).encode()
    return Chunk(
        ordinal=ordinal,
        body=body,
        ids=ids,
        digest=hashlib.sha256(body).hexdigest(),
        first_id=numbers[0],
        last_id=numbers[-1],
        source="ids.txt",
        line=ordinal * 100,
        tally=Tally(**more),
    )


def evidence() -> Evidence:
    return Evidence(phase=Phase.COMPLETE, started_utc=NOW, ended_utc=NOW + 1, status=413)


def accepted(job_id: str) -> Accepted:
    return Accepted(job_id=JobId(job_id), state=JobState.ACCEPTED, job_type="contacts")


def job(job_id: str, state: JobState = JobState.FINISHED) -> JobStatus:
    return JobStatus(job_id=JobId(job_id), state=state, word=state.value, job_type="contact", processed=4)


ADOPTED = Settlement(how=Settled.ADOPTED, reason="Its results have the ids of the chunk.")
ABSENT = Settlement(how=Settled.ABSENT, reason="Two listings show no job of it.")
RESUBMITTED = Settlement(how=Settled.RESUBMITTED, reason="A person takes the risk.", by_person=True)


@pytest.fixture
async def ledger(tmp_path: Path) -> Any:
    async with await Ledger.open(tmp_path / "run", clock=HandClock(NOW)) as opened:
        await opened.create_run({"endpoint": "contacts"})
        await opened.begin_session()
        yield opened


async def sent(ledger: Ledger, chunk: Chunk, verdict: Verdict, number: int = 1, *, plan: bool = True) -> None:
    if plan:
        ledger.plan(chunk)
    await ledger.begin_attempt(chunk.ordinal, number)
    await ledger.end_attempt(chunk.ordinal, number, evidence(), verdict)


async def states(ledger: Ledger) -> dict[int, ChunkState]:
    rows = await ledger.chunk_rows(0, 100)
    parts = [part for row in rows for part in await ledger.parts(row.ordinal)]
    return {row.ordinal: row.state for row in (*rows, *parts)}


def rows(tmp_path: Path, sql: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(tmp_path / "run" / DATABASE_NAME)) as database:
        return database.execute(sql).fetchall()


def everything(tmp_path: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(tmp_path / "run" / DATABASE_NAME)) as database:
        return list(database.iterdump())


# Splitting


async def split(ledger: Ledger, chunk: Chunk, *, plan: bool = True) -> list[Chunk]:
    if plan:
        ledger.plan(chunk)
    await ledger.begin_attempt(chunk.ordinal, 1)
    return await ledger.split(chunk.ordinal, 1, evidence(), TOO_LARGE, parts_of(chunk))


async def test_a_chunk_leaves_its_place_to_its_parts_in_one_step(ledger: Ledger, tmp_path: Path) -> None:
    parts = await split(ledger, a_chunk(1, invalid=2, duplicate=3))
    assert [part.ordinal for part in parts] == [FIRST_PART, FIRST_PART + 1]
    assert await states(ledger) == {
        1: ChunkState.SPLIT,
        FIRST_PART: ChunkState.PLANNED,
        FIRST_PART + 1: ChunkState.PLANNED,
    }
    assert rows(tmp_path, "SELECT chunk, attempt, verdict, cause, status FROM attempt") == [
        (1, 1, "not_applied", "too_large", 413)
    ]
    assert rows(tmp_path, "SELECT ordinal, parent, first, ids FROM chunk WHERE parent IS NOT NULL") == [
        (FIRST_PART, 1, 0, 2),
        (FIRST_PART + 1, 1, 2, 2),
    ]


async def test_parts_are_numbered_in_the_order_of_the_splits_also_within_a_group(ledger: Ledger) -> None:
    chunks = [a_chunk(number) for number in (1, 2, 3)]
    for chunk in chunks:
        ledger.plan(chunk)
        await ledger.begin_attempt(chunk.ordinal, 1)
    done = await asyncio.gather(
        *(ledger.split(chunk.ordinal, 1, evidence(), TOO_LARGE, parts_of(chunk)) for chunk in chunks)
    )
    assert [part.ordinal for parts in done for part in parts] == [FIRST_PART + number for number in range(6)]


async def test_parts_of_a_part_belong_to_the_chunk_that_was_cut_from_the_source(ledger: Ledger) -> None:
    first, second = await split(ledger, a_chunk(1))
    deeper = await split(ledger, second, plan=False)
    assert [(part.ordinal, part.parent, part.first) for part in deeper] == [
        (FIRST_PART + 2, 1, 2),
        (FIRST_PART + 3, 1, 3),
    ]
    assert [row.ordinal for row in await ledger.parts(1)] == [first.ordinal, second.ordinal, *(
        part.ordinal for part in deeper
    )]  # fmt: skip


async def test_a_chunk_that_was_split_counts_nowhere_but_what_stood_around_its_ids_does(
    ledger: Ledger,
) -> None:
    parts = await split(ledger, a_chunk(1, invalid=2, duplicate=3))
    await sent(ledger, parts[0], accepted("job1"), plan=False)
    await sent(ledger, parts[1], Refused(reason="bad"), plan=False)
    assert ledger.run is not None
    summary = summarise(ledger.run, await ledger.counts(), 0)
    assert summary.ids == {
        "read": 9, "invalid": 2, "duplicate": 3, "accepted": 2, "refused": 2, "held": 0, "pending": 0,
    }  # fmt: skip
    assert summary.chunks == {"total": 2, "accepted": 1, "refused": 1, "held": 0, "pending": 0}
    assert summary.requests["submit"] == 3


async def test_the_last_chunk_with_something_to_send_is_the_one_of_its_last_part(ledger: Ledger) -> None:
    for ordinal in (1, 2, 3):
        ledger.plan(a_chunk(ordinal))
    parts = await split(ledger, a_chunk(2), plan=False)
    await sent(ledger, a_chunk(3), accepted("job3"), plan=False)
    assert await ledger.last_planned() == 2
    for number, part in enumerate(parts):
        await sent(ledger, part, accepted(f"part{number}"), plan=False)
    assert await ledger.last_planned() == 1
    await sent(ledger, a_chunk(1), accepted("job1"), plan=False)
    assert await ledger.last_planned() == 0


async def test_parts_are_not_among_the_chunks_cut_from_the_sources(ledger: Ledger) -> None:
    """The intake compares those with what the sources give."""
    await split(ledger, a_chunk(1))
    ledger.plan(a_chunk(2))
    assert [row.ordinal for row in await ledger.chunk_rows(0, 100)] == [1, 2]


@pytest.mark.parametrize("begun", [False, True])
async def test_only_a_chunk_in_flight_can_be_split_and_only_once(
    ledger: Ledger, tmp_path: Path, *, begun: bool
) -> None:
    ledger.plan(a_chunk(1))
    if begun:
        await split(ledger, a_chunk(1), plan=False)
    await ledger.chunk_rows(0, 1)
    before = everything(tmp_path)
    with pytest.raises(InternalError):
        await ledger.split(1, 1, evidence(), TOO_LARGE, parts_of(a_chunk(1)))
    assert everything(tmp_path) == before


async def test_a_part_that_was_in_flight_at_a_crash_is_held(tmp_path: Path) -> None:
    async with await Ledger.open(tmp_path / "run", clock=HandClock(NOW)) as ledger:
        await ledger.create_run({"endpoint": "contacts"})
        await ledger.begin_session()
        parts = await split(ledger, a_chunk(1))
        await ledger.begin_attempt(parts[1].ordinal, 1)
    async with await Ledger.open(tmp_path / "run", clock=HandClock(NOW)) as ledger:
        assert await ledger.begin_session() == 1
        assert (await states(ledger))[parts[1].ordinal] is ChunkState.HELD
        assert [row.chunk for row in await ledger.held(0, 9)] == [parts[1].ordinal]


async def test_a_part_is_as_large_as_its_row_says(ledger: Ledger) -> None:
    parts = await split(ledger, a_chunk(1, ids=5))
    for part, row in zip(parts, await ledger.parts(1), strict=True):
        assert (row.digest, row.ids, row.body_bytes, row.first) == (
            part.digest,
            part.ids,
            len(part.body),
            part.first,
        )
        assert row.tally == Tally()
        assert replace(part, ordinal=row.ordinal) == part


# Settling


async def test_a_job_that_was_found_is_adopted_and_its_record_waits_to_be_delivered(
    ledger: Ledger, tmp_path: Path
) -> None:
    await sent(ledger, a_chunk(1), HELD)
    await ledger.settle(1, ADOPTED, job=job("job7"))
    assert await states(ledger) == {1: ChunkState.ACCEPTED}
    (record,) = await ledger.undelivered(0, 9)
    assert (record.chunk, record.job_id, record.attempt, record.type) == (1, "job7", 1, "contact")
    assert (record.digest, record.ids) == (a_chunk(1).digest, 4)
    assert await ledger.held(0, 9) == []
    assert rows(tmp_path, "SELECT chunk, attempt, at_utc, how, job_id, reason, by FROM settlement") == [
        (1, 1, NOW, "adopted", "job7", ADOPTED.reason, "reconcile")
    ]
    assert rows(tmp_path, "SELECT verdict, reason FROM attempt") == [("unknown", HELD.reason)]
    await ledger.deliver([1], {})
    assert await states(ledger) == {1: ChunkState.DELIVERED}


async def test_a_job_that_is_adopted_while_it_works_holds_a_slot_and_one_that_ended_does_not(
    ledger: Ledger,
) -> None:
    for ordinal, state in ((1, JobState.PROCESSING), (2, JobState.FINISHED)):
        await sent(ledger, a_chunk(ordinal), HELD)
        await ledger.settle(ordinal, ADOPTED, job=job(f"job{ordinal}", state))
    assert [one.job_id for one in (await ledger.account_state(0.0)).open_jobs] == ["job1"]


@pytest.mark.parametrize(("settlement", "risk"), [(ABSENT, False), (RESUBMITTED, True)])
async def test_a_chunk_without_a_job_goes_out_again_as_its_next_attempt(
    ledger: Ledger, tmp_path: Path, settlement: Settlement, *, risk: bool
) -> None:
    """And it is remembered for ever that a person took the risk of paying twice."""
    await sent(ledger, a_chunk(1), HELD)
    await ledger.settle(1, settlement)
    (row,) = await ledger.chunk_rows(0, 9)
    assert (row.state, row.attempts, row.duplicate_risk) == (ChunkState.PLANNED, 1, risk)
    assert await ledger.last_planned() == 1
    await sent(ledger, a_chunk(1), HELD, 2, plan=False)
    await ledger.settle(1, ABSENT)
    (row,) = await ledger.chunk_rows(0, 9)
    assert row.duplicate_risk is risk
    by = "person" if risk else "reconcile"
    assert rows(tmp_path, "SELECT attempt, how, job_id, by FROM settlement ORDER BY number") == [
        (1, settlement.how.value, None, by),
        (2, "absent", None, "reconcile"),
    ]


async def test_the_job_of_another_chunk_is_not_adopted_and_nothing_is_changed(
    ledger: Ledger, tmp_path: Path
) -> None:
    await sent(ledger, a_chunk(1), accepted("job7"))
    await sent(ledger, a_chunk(2), HELD)
    before = everything(tmp_path)
    with pytest.raises(LedgerError, match="Job job7 is the job of another chunk, not of chunk 2") as told:
        await ledger.settle(2, ADOPTED, job=job("job7"))
    assert not isinstance(told.value, InternalError)
    assert everything(tmp_path) == before
    await ledger.settle(2, ADOPTED, job=job("job8"))
    assert (await states(ledger))[2] is ChunkState.ACCEPTED


@pytest.mark.parametrize("verdict", [None, accepted("job1"), Refused(reason="bad")])
@pytest.mark.parametrize("settlement", [ADOPTED, ABSENT, RESUBMITTED])
async def test_what_is_not_held_cannot_be_settled(
    ledger: Ledger, tmp_path: Path, verdict: Verdict | None, settlement: Settlement
) -> None:
    if verdict is None:
        ledger.plan(a_chunk(1))
    else:
        await sent(ledger, a_chunk(1), verdict)
    await ledger.chunk_rows(0, 1)
    before = everything(tmp_path)
    with pytest.raises(LedgerError, match="Chunk 1 is not held: there is nothing to settle"):
        await ledger.settle(1, settlement, job=job("job9") if settlement is ADOPTED else None)
    assert everything(tmp_path) == before


async def test_a_chunk_that_does_not_exist_cannot_be_settled(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="Chunk 77 is not held"):
        await ledger.settle(77, ABSENT)


@pytest.mark.parametrize(("settlement", "found"), [(ADOPTED, None), (ABSENT, "job1"), (RESUBMITTED, "job1")])
async def test_an_adoption_needs_a_job_and_nothing_else_may_have_one(
    ledger: Ledger, settlement: Settlement, found: str | None
) -> None:
    """An accepted chunk without a job would wait for its record for ever."""
    await sent(ledger, a_chunk(1), HELD)
    with pytest.raises(InternalError, match=f"cannot be {settlement.how.value}"):
        await ledger.settle(1, settlement, job=None if found is None else job(found))
    assert await states(ledger) == {1: ChunkState.HELD}


async def test_several_may_be_settled_at_once_and_one_that_cannot_be_fails_alone(ledger: Ledger) -> None:
    for ordinal in (1, 2, 3):
        await sent(ledger, a_chunk(ordinal), HELD)
    done = await asyncio.gather(
        ledger.settle(1, ADOPTED, job=job("job1")),
        ledger.settle(2, ADOPTED, job=job("job1")),
        ledger.settle(3, ABSENT),
        return_exceptions=True,
    )
    assert [type(one) for one in done] == [type(None), LedgerError, type(None)]
    assert await states(ledger) == {1: ChunkState.ACCEPTED, 2: ChunkState.HELD, 3: ChunkState.PLANNED}


async def test_a_held_part_is_settled_like_a_chunk(ledger: Ledger) -> None:
    first, second = await split(ledger, a_chunk(1))
    for part in (first, second):
        await sent(ledger, part, HELD, plan=False)
    await ledger.settle(first.ordinal, ADOPTED, job=job("job1"))
    await ledger.settle(second.ordinal, RESUBMITTED)
    assert await ledger.last_planned() == 1
    assert [(row.state, row.duplicate_risk) for row in await ledger.parts(1)] == [
        (ChunkState.ACCEPTED, False),
        (ChunkState.PLANNED, True),
    ]


async def test_a_settlement_outlives_the_process(tmp_path: Path) -> None:
    async with await Ledger.open(tmp_path / "run", clock=HandClock(NOW)) as ledger:
        await ledger.create_run({"endpoint": "contacts"})
        await ledger.begin_session()
        await sent(ledger, a_chunk(1), HELD)
        await ledger.settle(1, ADOPTED, job=job("job1", JobState.PROCESSING))
        assert [one.job_id for one in read_run(tmp_path / "run").open_jobs] == ["job1"]
    async with await Ledger.open(tmp_path / "run", clock=HandClock(NOW)) as ledger:
        assert await states(ledger) == {1: ChunkState.ACCEPTED}
        assert len(await ledger.undelivered(0, 9)) == 1


# What is known of the account


async def test_every_job_of_the_run_is_known_accepted_and_adopted_alike(ledger: Ledger) -> None:
    await sent(ledger, a_chunk(1), accepted("job1"))
    await sent(ledger, a_chunk(2), HELD)
    await ledger.settle(2, ADOPTED, job=job("job2"))
    assert {(one.job_id, one.chunk, one.adopted) for one in await ledger.known_jobs()} == {
        ("job1", 1, False),
        ("job2", 2, True),
    }


async def test_a_job_was_not_made_before_the_first_byte_of_its_request_could_leave(ledger: Ledger) -> None:
    """How old a job is at the least makes a list seem prompter than it is."""
    ledger.plan(a_chunk(1))
    await ledger.begin_attempt(1, 1)
    late = replace(evidence(), sent_utc=NOW + 0.5, ended_utc=NOW + 90)
    await ledger.end_attempt(1, 1, late, accepted("job1"))
    await sent(ledger, a_chunk(2), accepted("job2"))
    assert {one.chunk: one.sent_utc for one in await ledger.known_jobs()} == {1: NOW + 0.5, 2: NOW}


async def test_chunks_that_were_sent_can_be_named_whatever_became_of_them(ledger: Ledger) -> None:
    await sent(ledger, a_chunk(1), accepted("job1"))
    await sent(ledger, a_chunk(2), HELD)
    ledger.plan(a_chunk(3))
    assert [row.chunk for row in await ledger.chunks_named([1, 2, 3, 4])] == [1, 2]
    assert await ledger.chunks_named([]) == []


async def test_it_is_known_whether_a_person_took_a_risk(ledger: Ledger) -> None:
    await sent(ledger, a_chunk(1), HELD)
    assert not await ledger.took_risks()
    await ledger.settle(1, RESUBMITTED)
    assert await ledger.took_risks()


async def test_a_baseline_is_what_was_recorded_and_an_empty_one_is_not_none(ledger: Ledger) -> None:
    """That the list was empty is knowledge, that nobody looked is not."""
    assert await ledger.baseline() is None
    await ledger.record_baseline([])
    assert await ledger.baseline() == frozenset()
    await ledger.record_baseline(["old1", "old2", "old1"])
    assert await ledger.baseline() == {"old1", "old2"}


async def test_a_baseline_that_is_read_again_only_grows(ledger: Ledger, tmp_path: Path) -> None:
    await ledger.record_baseline(["old1"])
    await ledger.record_baseline(["old2"])
    assert await ledger.baseline() == {"old1", "old2"}
    assert rows(tmp_path, "SELECT baseline_utc FROM run") == [(NOW,)]
