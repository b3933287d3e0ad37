"""The way of job records out: with a real ledger, and sinks that fail when told to."""

import asyncio
import json

import pytest

from bulkjobs.channel import Channel
from bulkjobs.clock import SystemClock
from bulkjobs.delivery import Delivery
from bulkjobs.errors import SinkError
from bulkjobs.ledger import Ledger
from bulkjobs.model import Accepted, Chunk, ChunkState, Evidence, JobId, JobState, Phase, Tally
from bulkjobs.sinks.jsonl import JsonLinesSink


class ListSink:
    """Keeps records in a list. Fails at the n-th write if told to."""

    def __init__(self, name="list", *, fail_at=None, position=None):
        self.name = name
        self.chunks = []
        self.opened_at = []
        self.closed = 0
        self.groups = []
        self._fail_at = fail_at
        self._position = position

    async def open(self, position, coming=()):
        self.opened_at.append(position)
        return self._position if position is None else position

    async def write(self, records):
        if len(self.groups) + 1 == self._fail_at:
            raise SinkError(f"{self.name} is full.")
        self.groups.append([record.chunk for record in records])
        self.chunks += self.groups[-1]
        if self._position is not None:
            self._position += len(records)
        return self._position

    async def close(self):
        self.closed += 1


@pytest.fixture
async def ledger(tmp_path):
    async with await Ledger.open(tmp_path / "run", clock=SystemClock()) as ledger:
        await ledger.create_run({"endpoint": "contacts"})
        await ledger.begin_session()
        yield ledger


async def accept(ledger, *ordinals):
    """Brings chunks as far as the worker does: accepted, with a job; gives their records."""
    for ordinal in ordinals:
        ledger.plan(
            Chunk(
                ordinal=ordinal,
                body=b"%d" % ordinal,
                ids=1,
                digest=f"{ordinal:064}",
                first_id=str(ordinal),
                last_id=str(ordinal),
                source="ids.txt",
                line=ordinal,
                tally=Tally(),
            )
        )
        await ledger.begin_attempt(ordinal, 1)
        evidence = Evidence(phase=Phase.COMPLETE, started_utc=1.0, ended_utc=2.0, status=200)
        verdict = Accepted(job_id=JobId(f"job{ordinal}"), state=JobState.ACCEPTED, job_type="contacts")
        await ledger.end_attempt(ordinal, 1, evidence, verdict)
    return [record for record in await ledger.undelivered(0, 1_000_000) if record.chunk in ordinals]


async def states(ledger):
    return {row.ordinal: row.state for row in await ledger.chunk_rows(0, 1_000)}


def unexpected(error):
    raise AssertionError(error)


async def hand_on(delivery, records):
    """Runs the stage over these records to its end."""
    channel = Channel(len(records) + 1)
    for record in records:
        await channel.send(record)
    channel.close()
    await delivery.run(channel)


async def test_a_record_goes_to_every_sink_and_is_then_delivered(ledger):
    sinks = [ListSink("a"), ListSink("b", position=0)]
    delivery = Delivery(ledger, sinks, on_failure=unexpected)
    await delivery.open()
    await hand_on(delivery, await accept(ledger, 1, 2))
    await delivery.close()
    assert [sink.chunks for sink in sinks] == [[1, 2], [1, 2]]
    assert set((await states(ledger)).values()) == {ChunkState.DELIVERED}
    assert await ledger.sink_positions() == {"a": None, "b": 2}
    assert [sink.closed for sink in sinks] == [1, 1]


async def test_a_sink_that_is_new_to_the_run_has_its_position_noted_before_anything_is_written(ledger):
    """Else a crash in the first write would leave its part in the file for ever."""
    delivery = Delivery(ledger, [ListSink("a", position=77)], on_failure=unexpected)
    await delivery.open()
    assert await ledger.sink_positions() == {"a": 77}


async def test_what_an_earlier_session_left_goes_first(ledger):
    records = await accept(ledger, 1, 2, 3)
    sink = ListSink()
    delivery = Delivery(ledger, [sink], on_failure=unexpected)
    await delivery.open()
    assert sink.chunks == [1, 2, 3]
    assert await ledger.undelivered(0, 10) == []
    assert records[0].chunk == 1


async def test_a_large_backlog_comes_in_groups(ledger):
    await accept(ledger, *range(1, 1_202))
    sink = ListSink()
    await Delivery(ledger, [sink], on_failure=unexpected).open()
    assert sink.chunks == list(range(1, 1_202))
    assert [len(group) for group in sink.groups] == [1_000, 201]


async def test_a_backlog_that_is_not_taken_ends_the_session(ledger):
    await accept(ledger, 1)
    with pytest.raises(SinkError, match="list is full"):
        await Delivery(ledger, [ListSink(fail_at=1)], on_failure=unexpected).open()
    assert await states(ledger) == {1: ChunkState.ACCEPTED}


async def test_records_that_come_while_a_group_is_written_are_the_next_group(ledger):
    records = await accept(ledger, 1, 2, 3, 4)
    channel = Channel(8)

    class Slow(ListSink):
        async def write(self, group):
            if not self.groups:
                for record in records[1:]:
                    await channel.send(record)
                channel.close()
            return await super().write(group)

    sink = Slow()
    await channel.send(records[0])
    await Delivery(ledger, [sink], on_failure=unexpected).run(channel)
    assert sink.groups == [[1], [2, 3, 4]]


async def test_a_failing_sink_is_told_once_and_the_records_stay_undelivered(ledger):
    """The answers that are still in flight pass through; the ledger keeps them for the next session."""
    failures = []
    good, bad = ListSink("good"), ListSink("bad", fail_at=2)
    delivery = Delivery(ledger, [good, bad], on_failure=failures.append)
    await delivery.open()
    channel = Channel(1)
    stage = asyncio.create_task(delivery.run(channel))
    for chunk in (1, 2, 3, 4):
        for record in await accept(ledger, chunk):
            await channel.send(record)
    channel.close()
    await stage
    assert [str(error) for error in failures] == ["bad is full."]
    assert bad.chunks == [1]
    assert [record.chunk for record in await ledger.undelivered(0, 10)] == [2, 3, 4]

    again = ListSink("bad")
    await Delivery(ledger, [again], on_failure=unexpected).open()
    assert again.chunks == [2, 3, 4]


async def test_what_never_came_through_the_channel_is_handed_on_at_the_end(ledger):
    """A worker that was cancelled after its answer was recorded could not hand on the record itself."""
    sink = ListSink()
    records = await accept(ledger, 1, 2, 3)
    await hand_on(Delivery(ledger, [sink], on_failure=unexpected), records[:1])
    assert sink.chunks == [1, 2, 3]
    assert await ledger.undelivered(0, 10) == []


async def test_a_sender_never_waits_for_a_failed_sink(ledger):
    """Workers must be able to end: the channel is emptied although nothing is written any more."""
    delivery = Delivery(ledger, [ListSink(fail_at=1)], on_failure=lambda _: None)
    channel = Channel(1)
    stage = asyncio.create_task(delivery.run(channel))
    for record in await accept(ledger, 1, 2, 3):
        await channel.send(record)
    channel.close()
    await stage
    assert len(channel) == 0
    assert [record.chunk for record in await ledger.undelivered(0, 10)] == [1, 2, 3]


async def test_a_crash_between_sink_and_ledger_leaves_one_line_a_chunk(ledger, tmp_path):
    """The write is repeated after a restart; the file was first cut back to what the ledger knows."""
    path = tmp_path / "jobs.jsonl"
    delivery = Delivery(ledger, [JsonLinesSink(path)], on_failure=unexpected)
    await delivery.open()
    await hand_on(delivery, await accept(ledger, 1))
    await delivery.close()
    lost = JsonLinesSink(path)  # the session that dies here writes, and never tells the ledger
    await lost.open((await ledger.sink_positions())[lost.name])
    await lost.write(await accept(ledger, 2, 3))
    await lost.close()

    delivery = Delivery(ledger, [JsonLinesSink(path)], on_failure=unexpected)
    await delivery.open()
    await hand_on(delivery, await accept(ledger, 4))
    await delivery.close()
    assert [json.loads(line)["chunk"] for line in path.read_bytes().splitlines()] == [1, 2, 3, 4]


async def test_each_sink_is_opened_where_the_ledger_knows_it_stood(ledger):
    sink = ListSink("a", position=0)
    delivery = Delivery(ledger, [sink], on_failure=unexpected)
    await delivery.open()
    await hand_on(delivery, await accept(ledger, 1, 2, 3))
    again, new = ListSink("a", position=0), ListSink("b", position=9)
    await Delivery(ledger, [again, new], on_failure=unexpected).open()
    assert (again.opened_at, new.opened_at) == ([3], [None])


async def test_a_sink_that_fails_to_close_does_not_keep_the_others_open(ledger):
    class Stuck(ListSink):
        async def close(self):
            raise SinkError("stuck")

    sinks = [ListSink("a"), Stuck("b"), ListSink("c")]
    delivery = Delivery(ledger, sinks, on_failure=unexpected)
    await delivery.open()
    with pytest.raises(SinkError, match="stuck"):
        await delivery.close()
    assert (sinks[0].closed, sinks[2].closed) == (1, 1)


async def test_without_sinks_records_are_delivered_to_nobody(ledger):
    delivery = Delivery(ledger, [], on_failure=unexpected)
    await delivery.open()
    await hand_on(delivery, await accept(ledger, 1))
    assert await states(ledger) == {1: ChunkState.DELIVERED}
