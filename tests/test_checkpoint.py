"""Reading on from a checkpoint: the same run as without, only with less to read; and every reason not to."""

import json
import random
from contextlib import aclosing, closing
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulkjobs import checkpoint
from bulkjobs.checkpoint import Checkpoints
from bulkjobs.chunking import Chunker
from bulkjobs.halt import Halt
from bulkjobs.ids import IdForm
from bulkjobs.model import Tally
from bulkjobs.reading import InvalidReport, Reading

BLOCK = 7


@pytest.fixture(autouse=True)
def _a_checkpoint_behind_every_block():
    with mock.patch.multiple(checkpoint, _LEAST_BYTES=0, _READ_PER_WRITTEN=0):
        yield


class Text:
    """A seekable source in memory, which notes what was read of it."""

    repeatable = True
    fingerprint = None

    def __init__(self, text: bytes, *, name: str = "a", version: str | None = "v1"):
        self.name, self.version, self._text = name, version, text
        self.size_bytes = len(text)
        self.position_bytes = 0
        self.mark = None
        self.read_bytes = 0

    def blocks(self):
        return self.blocks_after("0")

    async def blocks_after(self, mark: str):
        self.position_bytes = int(mark)
        while block := self._text[self.position_bytes : self.position_bytes + BLOCK]:
            self.position_bytes += len(block)
            self.read_bytes += len(block)
            self.mark = str(self.position_bytes)
            yield block


class Run:
    """A run directory through sessions that crash; what the ledger would know is told by hand."""

    def __init__(self, folder):
        self.folder = folder / "checkpoints"
        self.invalid = folder / "invalid.jsonl"

    async def session(self, *sources, passed=0, size=2, dedupe=True, stop_after=None, checkpoints=True):
        """Reads the sources and gives the chunks, as many as `stop_after`; `passed`: the last that is not needed."""
        report = InvalidReport(self.invalid)
        reading = Reading(
            sources,
            Chunker(size, dedupe=dedupe),
            halt=Halt(),
            emit=lambda _event: None,
            broke_off=lambda _position: None,
            checkpoints=Checkpoints(self.folder) if checkpoints else None,
        )
        chunks = []
        with closing(report):
            start = reading.start(passed, report)
            async with aclosing(reading.chunks(report, start)) as cut:
                async for chunk in cut:
                    chunks.append(chunk)
                    if len(chunks) == stop_after:
                        return chunks
            report.finish()
        self.tail = reading.tail
        return chunks

    def reported(self):
        return [
            (row["source"], row["line"], row["text"])
            for row in map(json.loads, self.invalid.read_bytes().splitlines())
        ]

    def files(self):
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


IDS = b"".join(b"%d\n" % n for n in range(100, 130))
"""Thirty ids, 120 bytes: fifteen chunks of two in eighteen blocks."""


async def test_a_session_reads_on_near_where_the_last_one_was(run):
    first = await run.session(Text(IDS), stop_after=12)
    source = Text(IDS)
    rest = await run.session(source, passed=12)
    assert [c.ordinal for c in first] == list(range(1, 13))
    assert [c.ordinal for c in rest if c.ordinal > 12] == [13, 14, 15]
    assert source.read_bytes <= len(IDS) - 12 * 8 + 3 * BLOCK


pieces = st.sampled_from(
    [b"1", b"22", b"333", b"22", b"x", b"007", b" ", b",", b"\n", b"\r\n", b"\n", b"4444\n", b"55555\n"]
)
texts = st.lists(pieces, max_size=60).map(b"".join)


@given(
    st.lists(texts, min_size=1, max_size=3),
    st.integers(1, 20),
    st.integers(0, 20),
    st.tuples(st.integers(1, 4), st.booleans()),
)
@settings(max_examples=50, deadline=None)
async def test_a_run_with_a_crash_in_it_cuts_and_reports_what_one_without_does(
    tmp_path_factory, texts, stop_after, back, kind
):
    """Whatever the text, wherever it stops, whichever chunk has to go out again."""
    size, dedupe = kind
    whole, broken = Run(tmp_path_factory.mktemp("whole")), Run(tmp_path_factory.mktemp("broken"))

    def sources():
        return [Text(text, name=f"s{n}") for n, text in enumerate(texts)]

    plain = await whole.session(*sources(), size=size, dedupe=dedupe, checkpoints=False)
    passed = max(0, min(stop_after, len(plain)) - back)
    first = await broken.session(*sources(), size=size, dedupe=dedupe, stop_after=stop_after)
    second = await broken.session(*sources(), size=size, dedupe=dedupe, passed=passed)
    assert first == plain[: len(first)]
    assert second == plain[len(plain) - len(second) :]
    assert not plain or second[:1] == [] or second[0].ordinal <= passed + 1
    assert broken.tail == whole.tail
    assert broken.reported() == whole.reported()


async def read_again(run, source, **options):
    """Gives how many bytes a session reads after one that took twelve chunks."""
    await run.session(source, passed=12, **options)
    return source.read_bytes


async def test_a_source_that_may_have_changed_is_read_from_its_beginning(run):
    await run.session(Text(IDS), stop_after=12)
    assert await read_again(run, Text(IDS, version="v2")) == len(IDS)
    assert await read_again(run, Text(IDS, version=None)) == len(IDS)
    assert await read_again(run, Text(IDS, name="b")) == len(IDS)


async def test_another_kind_of_chunking_is_begun_at_the_beginning(run):
    await run.session(Text(IDS), stop_after=12)
    assert await read_again(run, Text(IDS), size=3) == len(IDS)
    assert await read_again(run, Text(IDS), dedupe=False) == len(IDS)


async def test_a_chunk_that_has_to_go_out_again_is_read_again(run):
    await run.session(Text(IDS), stop_after=12)
    chunks = await run.session(Text(IDS), passed=3)
    assert chunks[0].ordinal <= 4


async def test_chunks_that_the_ledger_has_lost_are_read_again(run):
    """A checkpoint may have reached the disk before the plans of the chunks before it."""
    await run.session(Text(IDS), stop_after=12)
    source = Text(IDS)
    chunks = await run.session(source, passed=0)
    assert (chunks[0].ordinal, source.read_bytes) == (1, len(IDS))


async def test_a_report_that_lost_lines_is_written_anew(run):
    text = b"x\n" + IDS + b"y\n"
    await run.session(Text(text), stop_after=12)
    run.invalid.write_bytes(b"")
    assert await read_again(run, Text(text)) == len(text)
    assert run.reported() == [("a", 1, "x"), ("a", 32, "y")]


@pytest.mark.parametrize("harm", ["flipped", "cut", "longer", "empty", "other format"])
async def test_a_damaged_checkpoint_is_no_worse_than_none(run, harm):
    """At any byte: the older one serves, or the beginning does, and the chunks are the same."""
    plain = await run.session(Text(IDS), checkpoints=False)
    await run.session(Text(IDS), stop_after=12)
    newest = run.folder / run.files()[-1]
    good = newest.read_bytes()
    chance = random.Random(7)
    for _ in range(20):
        at = chance.randrange(len(good))
        newest.write_bytes(
            {
                "flipped": good[:at] + bytes([good[at] ^ 1 << chance.randrange(8)]) + good[at + 1 :],
                "cut": good[:at],
                "longer": good + b"x",
                "empty": b"",
                "other format": good.replace(b"checkpoint 1", b"checkpoint 2"),
            }[harm]
        )
        with mock.patch.object(Checkpoints, "save"):
            chunks = await run.session(Text(IDS), passed=14)
        assert chunks == plain[15 - len(chunks) :]
        assert chunks[0].ordinal <= int(newest.stem)


async def test_no_byte_of_a_checkpoint_can_change_unnoticed(run):
    """Nothing in it is believed before all of it is known to be as it was, lengths and numbers included."""
    await run.session(Text(IDS), stop_after=12)
    newest = run.folder / run.files()[-1]
    good = newest.read_bytes()

    def found():
        return Checkpoints(run.folder).newest(14, lambda: Chunker(2, dedupe=True), lambda _checkpoint: True)

    assert found()[0].chunker.ordinal == int(newest.stem)
    for at in range(len(good)):
        for bit in (0x01, 0x80):
            newest.write_bytes(good[:at] + bytes([good[at] ^ bit]) + good[at + 1 :])
            assert found()[0].chunker.ordinal < int(newest.stem)


async def test_two_checkpoints_are_kept_and_none_when_nothing_is_left(run):
    await run.session(Text(IDS))
    assert len(run.files()) == 2
    Checkpoints(run.folder).clear()
    assert not run.folder.exists()
    Checkpoints(run.folder).clear()


async def test_a_disk_that_takes_no_checkpoint_stops_nothing(run):
    with mock.patch.object(checkpoint, "_write", side_effect=OSError(28, "No space left on device")) as write:
        chunks = await run.session(Text(IDS))
    assert [c.ordinal for c in chunks] == list(range(1, 16))
    assert write.call_count == 1
    assert run.files() == []


def test_a_checkpoint_is_due_when_four_times_its_size_was_read():
    with mock.patch.multiple(checkpoint, _LEAST_BYTES=100, _READ_PER_WRITTEN=4):
        made = Checkpoints(mock.MagicMock())
        assert [made.is_due(60, 0), made.is_due(60, 0)] == [False, True]
        assert [made.is_due(60, 50), made.is_due(60, 60)] == [False, True]


def test_a_chunker_of_opaque_ids_is_restored_too():
    ids = ["".join(random.Random(n).choices("abcXYZ019_-", k=64)) for n in range(50)]
    text = "".join(f"{i}\n" for i in ids).encode()
    first, second = (Chunker(8, dedupe=True, form=IdForm.OPAQUE) for _ in range(2))
    first.begin("a")
    first.feed(text[:1500])
    second.restore(first.snapshot(), first.set_parts())
    assert second.feed(text[1500:] + text) == first.feed(text[1500:] + text)
    assert second.totals == first.totals == Tally(duplicate=50)
