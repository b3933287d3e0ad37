"""The way of ids into a run, against a real ledger: new, resumed, and with sources that changed in between."""

import asyncio
import hashlib
import json
from pathlib import Path

import pytest

from bulkjobs.channel import Channel
from bulkjobs.chunking import Chunker
from bulkjobs.clock import SystemClock
from bulkjobs.errors import SinkError, SourceChanged, SourceError
from bulkjobs.events import ChunkPlanned, SourceProgress
from bulkjobs.halt import Halt
from bulkjobs.intake import Intake
from bulkjobs.ledger import Ledger, Settled, Settlement
from bulkjobs.model import (
    FIRST_PART,
    Accepted,
    Cause,
    Chunk,
    ChunkState,
    Evidence,
    JobId,
    JobState,
    NotApplied,
    Phase,
    Tally,
)
from bulkjobs.sources import FileSource
from bulkjobs.sources.objects import IterableSource
from bulkjobs.splitting import parts_of

IDS = b"".join(b"%d\n" % n for n in range(1, 10))
"""Nine ids: with chunks of two, four full chunks and a last one of one id."""


class Run:
    """One run over sessions that crash: each `session` opens the ledger anew, as after a crash."""

    def __init__(self, folder):
        self.folder = folder / "run"
        self.invalid_path = self.folder / "invalid.jsonl"
        self.events = []
        self.attempts = {}
        self.risky = set()

    async def session(self, *sources, stop_after=None, accept=(), verify=False, copied=False, dedupe=True):
        """Lets one session take in its sources.

        Returns:
            What was handed on: ordinal and body of each chunk, as far as `stop_after` chunks; the session then
            ends as by a signal. Those in `accept` become accepted, the others stay planned.
        """
        async with await Ledger.open(self.folder, clock=SystemClock()) as ledger:
            if ledger.run is None:
                await ledger.create_run({"endpoint": "contacts"})
            await ledger.begin_session()
            intake = Intake(
                sources,
                Chunker(2, dedupe=dedupe),
                ledger,
                invalid_path=self.invalid_path,
                halt=Halt(),
                emit=self.events.append,
            )
            if verify:
                await intake.verify([], copied=copied)
                return []
            return await self._take(intake, ledger, stop_after, accept)

    async def _take(self, intake, ledger, stop_after, accept):
        channel = Channel(1)
        handed_on = []

        async def take():
            async for planned in channel:
                chunk = planned.chunk
                handed_on.append((chunk.ordinal, chunk.body))
                self.attempts[chunk.ordinal] = planned.attempts
                self.risky |= {chunk.ordinal} if planned.duplicate_risk else set()
                if chunk.ordinal in accept:
                    await ledger.begin_attempt(chunk.ordinal, planned.attempts + 1)
                    evidence = Evidence(phase=Phase.COMPLETE, started_utc=1.0, ended_utc=2.0, status=200)
                    job = Accepted(
                        job_id=JobId(f"job{chunk.ordinal}"), state=JobState.ACCEPTED, job_type="contacts"
                    )
                    await ledger.end_attempt(chunk.ordinal, planned.attempts + 1, evidence, job)
                if len(handed_on) == stop_after:
                    channel.abort()

        taking = asyncio.create_task(take())
        self.handed_on = handed_on
        try:
            await intake.run(channel)
        finally:
            await taking
        return handed_on

    async def ledger(self):
        """Gives the chunks' states, the tally over everything, and whether the sources were read to their end."""
        async with await Ledger.open(self.folder, clock=SystemClock()) as ledger:
            rows = await ledger.chunk_rows(0, 1_000)
            tally = (await ledger.counts()).tally
            return [row.state for row in rows], tally, ledger.run.source_finished

    def invalid(self):
        return [json.loads(line) for line in self.invalid_path.read_bytes().splitlines()]


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


@pytest.fixture
def file(tmp_path):
    def make(content, name="ids.txt"):
        (tmp_path / name).write_bytes(content)
        return FileSource(tmp_path / name)

    return make


ALL = [(1, b"1\n2"), (2, b"3\n4"), (3, b"5\n6"), (4, b"7\n8"), (5, b"9")]


# A new run


async def test_a_new_run_hands_on_every_chunk_in_order_and_plans_it_first(run, file):
    assert await run.session(file(IDS)) == ALL
    assert await run.ledger() == ([ChunkState.PLANNED] * 5, Tally(), True)


async def test_several_sources_are_one_stream_of_ids(run, file):
    chunks = await run.session(file(b"1\n2\n3", "a"), file(b"3\n4", "b"), file(b"", "c"), file(b"5", "d"))
    assert chunks == [(1, b"1\n2"), (2, b"3\n4"), (3, b"5")]
    assert (await run.ledger())[1] == Tally(duplicate=1)


async def test_a_source_without_ids_finishes_the_run(run, file):
    assert await run.session(file(b"\n \n,,\n")) == []
    assert await run.ledger() == ([], Tally(), True)


async def test_what_stands_behind_the_last_full_chunk_is_counted(run, file):
    await run.session(file(b"1\n2\nx\n2\n"))
    assert await run.ledger() == ([ChunkState.PLANNED], Tally(invalid=1, duplicate=1), True)


async def test_progress_is_told_with_counts_that_add_up(run, file):
    source = file(b"1\nx\n1\n2\n")
    await run.session(source)
    progress = [event for event in run.events if isinstance(event, SourceProgress)]
    assert progress[-1] == SourceProgress(
        source=source.name,
        position_bytes=8,
        size_bytes=8,
        read=4,
        invalid=1,
        duplicate=1,
        finished=True,
        run_position_bytes=8,
        run_size_bytes=8,
    )
    assert [event.finished for event in progress] == [False, True]
    assert [event for event in run.events if isinstance(event, ChunkPlanned)] == [
        ChunkPlanned(chunk=1, ids=2)
    ]


async def test_two_million_ids_pass_through(run, tmp_path):
    """Real sizes: 200 chunks of 10,000, a duplicate file behind them, one wrong line between."""
    path = tmp_path / "ids.txt"
    path.write_bytes(b"\n".join(b"%d" % n for n in range(10_000_000, 12_000_000)) + b"\nwrong\n")
    async with await Ledger.open(run.folder, clock=SystemClock()) as ledger:
        await ledger.create_run({"endpoint": "contacts"})
        intake = Intake(
            [FileSource(path), FileSource(path)],
            Chunker(10_000, dedupe=True),
            ledger,
            invalid_path=run.invalid_path,
            halt=Halt(),
            emit=lambda _: None,
        )
        channel = Channel(4)
        taking = asyncio.create_task(intake.run(channel))
        sizes = [planned.chunk.ids async for planned in channel]
        await taking
        assert sizes == [10_000] * 200
        assert (await ledger.counts()).tally == Tally(invalid=2, duplicate=2_000_000)


# A run that goes on


@pytest.mark.parametrize("stop_after", [1, 2, 3, 4, 5])
async def test_a_resumed_run_hands_on_what_was_not_accepted_and_the_same_chunks(run, file, stop_after):
    first = await run.session(file(IDS), stop_after=stop_after, accept={1, 3})
    second = await run.session(file(IDS))
    assert first == ALL[:stop_after]
    assert second == [chunk for chunk in ALL if chunk[0] > stop_after or chunk[0] not in {1, 3}]
    states, _, finished = await run.ledger()
    assert finished
    assert states.count(ChunkState.ACCEPTED) == sum(n <= stop_after for n in (1, 3))


async def test_a_chunk_that_was_tried_before_comes_with_its_number_of_attempts(run, file):
    """Attempts are numbered on over all sessions, so the evidence of each is kept."""
    await run.session(file(IDS))
    throttled = NotApplied(cause=Cause.THROTTLED, reason="429")
    evidence = Evidence(phase=Phase.COMPLETE, started_utc=1.0, ended_utc=2.0, status=429)
    async with await Ledger.open(run.folder, clock=SystemClock()) as ledger:
        for attempt in (1, 2):
            await ledger.begin_attempt(2, attempt)
            await ledger.end_attempt(2, attempt, evidence, throttled)
    assert await run.session(file(IDS)) == ALL
    assert run.attempts == {1: 0, 2: 2, 3: 0, 4: 0, 5: 0}


async def test_a_chunk_that_was_in_flight_at_a_crash_is_held_and_not_handed_on(run, file):
    await run.session(file(IDS))
    async with await Ledger.open(run.folder, clock=SystemClock()) as ledger:
        await ledger.begin_attempt(2, 1)
    assert await run.session(file(IDS)) == [chunk for chunk in ALL if chunk[0] != 2]
    assert (await run.ledger())[0][1] is ChunkState.HELD


async def test_a_finished_run_with_nothing_to_send_does_not_read_its_sources(run, file):
    await run.session(file(IDS), accept=range(1, 6))
    source = file(IDS)
    Path(source.name).unlink()
    assert await run.session(source) == []


async def test_a_finished_run_is_read_no_further_than_its_last_pending_chunk(run, file):
    await run.session(file(IDS + b"x" * 30_000_000), accept={1, 3, 4, 5})
    source = file(IDS + b"x" * 30_000_000)
    assert await run.session(source) == [(2, b"3\n4")]
    assert source.position_bytes < 5_000_000


# A run with chunks that were split


async def split(run, parent, *, accepted=()):
    """Lets a chunk be split as a worker does; gives the ordinals of its parts, those at `accepted` are done."""
    evidence = Evidence(phase=Phase.COMPLETE, started_utc=1.0, ended_utc=2.0, status=413)
    too_large = NotApplied(cause=Cause.TOO_LARGE, reason="413")
    async with await Ledger.open(run.folder, clock=SystemClock()) as ledger:
        await ledger.begin_attempt(parent.ordinal, 1)
        parts = await ledger.split(parent.ordinal, 1, evidence, too_large, parts_of(parent))
        for index in accepted:
            await ledger.begin_attempt(parts[index].ordinal, 1)
            job = Accepted(job_id=JobId(f"part{index}"), state=JobState.ACCEPTED, job_type="contacts")
            await ledger.end_attempt(parts[index].ordinal, 1, evidence, job)
    return [part.ordinal for part in parts]


def chunk_of(ordinal, *ids):
    """Gives a chunk as the source of these tests has it."""
    body = b"\n".join(b"%d" % one for one in ids)
    return Chunk(
        ordinal=ordinal,
        body=body,
        ids=len(ids),
        digest=hashlib.sha256(body).hexdigest(),
        first_id=str(ids[0]),
        last_id=str(ids[-1]),
        source="ids.txt",
        line=ids[0],
        tally=Tally(),
    )


async def test_of_a_chunk_that_was_split_the_parts_not_sent_yet_are_handed_on_in_its_place(run, file):
    await run.session(file(IDS), stop_after=4, accept={1})
    first, second = await split(run, chunk_of(2, 3, 4))
    assert (first, second) == (FIRST_PART, FIRST_PART + 1)
    assert await run.session(file(IDS)) == [(first, b"3"), (second, b"4"), *ALL[2:]]


async def test_a_part_that_was_tried_before_comes_with_its_number_of_attempts(run, file):
    await run.session(file(IDS))
    _, second = await split(run, chunk_of(2, 3, 4))
    evidence = Evidence(phase=Phase.COMPLETE, started_utc=1.0, ended_utc=2.0, status=429)
    async with await Ledger.open(run.folder, clock=SystemClock()) as ledger:
        await ledger.begin_attempt(second, 1)
        await ledger.end_attempt(second, 1, evidence, NotApplied(cause=Cause.THROTTLED, reason="429"))
    await run.session(file(IDS))
    assert run.attempts[second] == 1


async def test_a_finished_run_is_read_no_further_than_the_chunk_of_its_last_pending_part(run, file):
    text = IDS + b"x" * 30_000_000
    await run.session(file(text), accept={1, 3, 4, 5})
    _, second = await split(run, chunk_of(2, 3, 4), accepted={0})
    source = file(text)
    assert await run.session(source) == [(second, b"4")]
    assert source.position_bytes < 5_000_000


async def test_a_finished_run_whose_parts_are_all_settled_does_not_read_its_sources(run, file):
    await run.session(file(IDS), accept={1, 3, 4, 5})
    await split(run, chunk_of(2, 3, 4), accepted={0, 1})
    source = file(IDS)
    Path(source.name).unlink()
    assert await run.session(source) == []


@pytest.mark.parametrize("verify", [False, True])
async def test_a_change_of_a_chunk_that_was_split_is_found_before_a_part_goes_out(run, file, verify):
    await run.session(file(IDS))
    await split(run, chunk_of(2, 3, 4))
    with pytest.raises(SourceChanged, match=r"chunk 2 \(from line"):
        await run.session(file(IDS.replace(b"4\n", b"44\n")), verify=verify)
    assert verify or [ordinal for ordinal, _ in run.handed_on] == [1]


async def test_verifying_passes_a_run_with_a_chunk_that_was_split(run, file):
    await run.session(file(IDS))
    await split(run, chunk_of(4, 7, 8))
    await run.session(file(IDS), verify=True)


@pytest.mark.parametrize("settlement", [Settled.ABSENT, Settled.RESUBMITTED])
async def test_a_held_chunk_that_was_settled_is_handed_on_and_with_it_what_a_person_risked(
    run, file, settlement
):
    await run.session(file(IDS))
    _, second = await split(run, chunk_of(4, 7, 8))
    async with await Ledger.open(run.folder, clock=SystemClock()) as ledger:
        for ordinal in (2, second):
            await ledger.begin_attempt(ordinal, 1)
        await ledger.begin_session()
        for ordinal in (2, second):
            await ledger.settle(ordinal, Settlement(how=settlement, reason="said so"))
    await run.session(file(IDS))
    risky = {2, second} if settlement is Settled.RESUBMITTED else set()
    assert run.risky == risky
    assert run.attempts[2] == run.attempts[second] == 1


# Sources that changed


@pytest.mark.parametrize(
    ("changed", "chunk"),
    [
        (IDS.replace(b"5\n", b"55\n"), 3),
        (b"0" + IDS, 1),
        (IDS.replace(b"3\n", b""), 2),
        (b"".join(reversed(IDS.splitlines(keepends=True))), 1),
    ],
    ids=["an id", "a digit in front", "a line less", "another order"],
)
async def test_a_changed_source_names_the_first_chunk_that_is_another(run, file, changed, chunk):
    """Nothing from that chunk on is handed on, also when the one before was a session that broke off."""
    await run.session(file(IDS), stop_after=4)
    with pytest.raises(
        SourceChanged, match=rf"ids\.txt changed since the run began: chunk {chunk} \(from line"
    ):
        await run.session(file(changed))
    assert [ordinal for ordinal, _ in run.handed_on] == list(range(1, chunk))


async def test_a_change_that_moves_only_what_is_counted_is_a_change_too(run, file):
    """Else the report of invalid ids would no longer agree with the summary."""
    await run.session(file(b"1\nx\n2\n3\n4\n5\n"), stop_after=2)
    with pytest.raises(SourceChanged, match="chunk 1 "):
        await run.session(file(b"1\nx\ny\n2\n3\n4\n5\n"))


async def test_ids_appended_to_a_source_that_was_read_to_its_end_are_not_mixed_in(run, file):
    await run.session(file(IDS))
    with pytest.raises(SourceChanged, match="chunk 5"):
        await run.session(file(IDS + b"10\n11\n"))
    assert [ordinal for ordinal, _ in run.handed_on] == [1, 2, 3, 4]


async def test_chunks_appended_behind_a_full_one_are_told_as_new(run, file):
    await run.session(file(IDS[:-2]))
    with pytest.raises(
        SourceChanged, match=r"has more ids than when the run began: chunk 5 \(line 9\) was not there"
    ):
        await run.session(file(IDS), verify=True)


async def test_a_source_still_being_read_may_have_grown_beyond_what_was_read(run, file):
    """Nobody had seen its end yet, so nothing contradicts the ledger."""
    await run.session(file(IDS), stop_after=2)
    assert (await run.session(file(IDS + b"10\n")))[-1] == (5, b"9\n10")


@pytest.mark.parametrize(("kept", "chunk"), [(b"1\n2\n3\n", 2), (b"1\n2\n", 2), (b"", 1)])
async def test_a_shortened_source_names_what_is_missing(run, file, kept, chunk):
    await run.session(file(IDS), stop_after=4)
    with pytest.raises(SourceChanged, match=rf"chunk {chunk}\b"):
        await run.session(file(kept))


async def test_verifying_passes_an_unchanged_source_and_hands_on_nothing(run, file):
    await run.session(file(IDS))
    await run.session(file(IDS), verify=True)


async def test_verifying_a_copy_passes_chunks_that_a_crash_left_unplanned(run, file):
    await run.session(file(IDS), stop_after=2)
    with pytest.raises(SourceChanged, match="from chunk 4 on nobody can tell"):
        await run.session(file(IDS), verify=True)
    assert await run.session(file(IDS), verify=True, copied=True) == []


@pytest.mark.parametrize("changed", [IDS.replace(b"9", b"8888"), IDS[:-2], IDS + b"10\n", b""])
async def test_verifying_finds_a_change_anywhere(run, file, changed):
    await run.session(file(IDS))
    with pytest.raises(SourceChanged):
        await run.session(file(changed), verify=True)


async def test_verifying_says_when_nobody_can_tell(run, file):
    await run.session(file(IDS), stop_after=2)
    with pytest.raises(
        SourceChanged, match="The 3 chunks planned so far are the same, but from chunk 4 on nobody can"
    ):
        await run.session(file(IDS), verify=True)


async def test_a_source_that_breaks_off_leaves_its_whole_chunks_planned(run):
    """The ids of the unfinished chunk were never planned, and the run is not finished."""

    class Breaking(IterableSource):
        async def blocks(self):
            yield b"1\n2\n3\n"
            raise SourceError("disk gone")

    with pytest.raises(SourceError, match="disk gone"):
        await run.session(Breaking([], "breaking"))
    assert run.handed_on == [(1, b"1\n2")]
    assert await run.ledger() == ([ChunkState.PLANNED], Tally(), False)


# Ids that never go out

TROUBLE = b"1\nx\n2\n\n007, +5\n3\n12 13\n\xff\n4\n5\n"
REPORT = [
    (2, "x", "not a number"),
    (5, "007", "leading zero"),
    (5, "+5", "signed number"),
    (7, "12 13", "blank inside: separate ids by a newline or a comma"),
    (8, "\\xff", "not an ASCII digit: other digits, a no-break space or an invisible character"),
]


async def test_each_invalid_id_is_reported_with_its_place_and_the_reason(run, file):
    source = file(TROUBLE)
    await run.session(source)
    assert run.invalid() == [
        {"source": source.name, "line": line, "text": text, "reason": reason} for line, text, reason in REPORT
    ]
    assert (await run.ledger())[1] == Tally(invalid=len(REPORT))
    assert run.invalid_path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("stops", [[1], [2], [1, 1], [2, 1], [3]])
async def test_however_often_a_run_is_resumed_each_invalid_id_has_one_line(run, file, stops):
    for stop_after in stops:
        await run.session(file(TROUBLE), stop_after=stop_after)
    await run.session(file(TROUBLE))
    assert [(line["line"], line["text"], line["reason"]) for line in run.invalid()] == REPORT
    await run.session(file(TROUBLE))
    assert len(run.invalid()) == len(REPORT)


async def test_a_session_that_stops_early_keeps_what_an_earlier_one_reported(run, file):
    """The summary counts these ids, so the report must not lose them on the way."""
    text = b"1\nx\n2\n3\n4\n5\n6\n" + b"\n" * 300_000 + b"y\n7\n8\n9\n10\n11\n12\n13\n14\n"
    await run.session(file(text), stop_after=4)
    assert len(run.invalid()) == 2
    await run.session(file(text), stop_after=1)
    assert len(run.invalid()) == 2


async def test_a_torn_line_of_a_crash_is_gone_in_the_end(run, file):
    await run.session(file(TROUBLE), stop_after=1)
    with run.invalid_path.open("ab") as report:
        report.write(b'{"source": "torn')
    await run.session(file(TROUBLE))
    assert len(run.invalid()) == len(REPORT)


async def test_a_report_that_cannot_be_written_ends_the_intake_with_its_reason(run, file):
    """/dev/full stands for a full disk. The source is not called finished, so nothing is missing later."""
    run.folder.mkdir()
    run.invalid_path.symlink_to("/dev/full")
    with pytest.raises(SinkError, match="invalid.jsonl cannot be written: No space left"):
        await run.session(file(TROUBLE))
    assert not (await run.ledger())[2]


async def test_a_report_that_cannot_be_opened_is_told(run, file):
    run.invalid_path.mkdir(parents=True)
    with pytest.raises(SinkError, match="invalid.jsonl cannot be written: Is a directory"):
        await run.session(file(TROUBLE))


async def test_the_workers_channel_ends_whatever_happens(run, file):
    """Else the workers would wait for chunks for ever."""
    source = file(IDS)
    Path(source.name).unlink()
    with pytest.raises(SourceError, match="No such file"):
        await run.session(source)
    assert run.handed_on == []
