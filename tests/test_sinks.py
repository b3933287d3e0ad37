"""Sinks: one contract for all of them, then what is special about each."""

import asyncio
import io
import json
import os
from pathlib import Path

import pytest

from bulkjobs.errors import ConfigError, SinkError
from bulkjobs.model import JobRecord
from bulkjobs.ports import Sink
from bulkjobs.sinks import open_sink
from bulkjobs.sinks.callback import CallbackSink
from bulkjobs.sinks.jsonl import JsonLinesSink, StdoutSink
from bulkjobs.sinks.stream import StreamSink


def record(chunk: int) -> JobRecord:
    return JobRecord(
        run_id="r" * 20,
        chunk=chunk,
        digest="d" * 64,
        job_id=f"job{chunk}",
        status="accepted",
        type="contacts",
        endpoint="contacts",
        ids=3,
        first_id="1",
        last_id="3",
        source="ids.txt",
        attempt=1,
        accepted_at="2026-01-01T00:00:00.000Z",
    )


def chunks_in(path: Path) -> list[int]:
    return [json.loads(line)["chunk"] for line in path.read_bytes().splitlines()]


# The contract


class Taken:
    """A sink with a way to see what it took."""

    def __init__(self, sink, seen):
        self.sink, self.seen = sink, seen


def to_file(tmp_path, _):
    path = tmp_path / "jobs.jsonl"
    return Taken(JsonLinesSink(path), lambda: [json.loads(line) for line in path.read_bytes().splitlines()])


def to_stdout(_, monkeypatch):
    out = io.TextIOWrapper(io.BytesIO())

    class Replaced(StdoutSink):
        async def open(self, position, coming=()):
            # Only now: pytest puts its own standard output in place before each test.
            monkeypatch.setattr("sys.stdout", out)
            await super().open(position)

    return Taken(Replaced(), lambda: [json.loads(line) for line in out.buffer.getvalue().splitlines()])


def to_callback(_, __):
    took = []

    async def take(one):
        await asyncio.sleep(0)
        took.append(one.as_dict())

    return Taken(CallbackSink(take), lambda: took)


class ReadStream(StreamSink):
    """A stream with somebody who reads it."""

    def __init__(self):
        super().__init__()
        self.took = []

    async def open(self, position, coming=()):
        await super().open(position)
        self._reader = asyncio.create_task(self._read())

    async def close(self):
        self.end()
        await self._reader
        await super().close()

    async def _read(self):
        async for one in self:
            self.took.append(one.as_dict())


def to_stream(_, __):
    sink = ReadStream()
    return Taken(sink, lambda: sink.took)


@pytest.fixture(params=[to_file, to_stdout, to_callback, to_stream])
def taken(request, tmp_path, monkeypatch):
    return request.param(tmp_path, monkeypatch)


def test_every_sink_is_one_to_the_type_checker_and_to_open_sink(taken):
    assert isinstance(taken.sink, Sink)
    assert open_sink(taken.sink) is taken.sink
    assert isinstance(taken.sink.name, str)
    assert taken.sink.name


async def test_every_sink_takes_records_whole_and_in_order(taken):
    await taken.sink.open(None)
    await taken.sink.write([record(1), record(2)])
    await taken.sink.write([record(3)])
    await taken.sink.close()
    assert taken.seen() == [record(n).as_dict() for n in (1, 2, 3)]


async def test_every_sink_has_a_record_when_write_returns(taken):
    await taken.sink.open(None)
    await taken.sink.write([record(1)])
    assert taken.seen() == [record(1).as_dict()]
    await taken.sink.close()


async def test_every_sink_bears_nothing_at_all(taken):
    await taken.sink.open(None)
    await taken.sink.write([])
    await taken.sink.close()
    assert taken.seen() == []


async def test_a_position_is_an_integer_or_nothing(taken):
    opened = await taken.sink.open(None)
    written = await taken.sink.write([record(1)])
    await taken.sink.close()
    assert (opened is None) == (written is None)


# A file


@pytest.fixture
def path(tmp_path):
    return tmp_path / "jobs.jsonl"


async def session(path, position, *chunks, coming=None, close=True) -> int:
    """Opens the file at a position, writes the records, gives the position after."""
    sink = JsonLinesSink(path)
    now = await sink.open(position, [record(chunk) for chunk in (chunks if coming is None else coming)])
    for chunk in chunks:
        now = await sink.write([record(chunk)])
    if close:
        await sink.close()
    return now


async def test_a_line_holds_the_fields_in_their_documented_order(path):
    await session(path, None, 1)
    assert list(json.loads(path.read_bytes())) == [
        "run_id", "chunk", "digest", "job_id", "status", "type", "endpoint", "ids", "first_id", "last_id", "source",
        "attempt", "accepted_at",
    ]  # fmt: skip


async def test_the_position_is_the_length_of_the_file(path):
    assert await session(path, None, 1, 2) == path.stat().st_size


async def test_what_a_crash_left_behind_the_position_is_cut_off(path):
    """However much of a record had been written, chunk 2 has one line in the end."""
    one = await session(path, None, 1)
    two = await session(path, one, 2, 3)
    whole = path.read_bytes()
    for torn in range(one, two + 1, 11):
        path.write_bytes(whole[:torn])
        assert await session(path, one, coming=(2, 3)) == path.stat().st_size == one
        await session(path, one, 2)
        assert chunks_in(path) == [1, 2]


async def test_what_a_power_failure_lost_of_the_middle_of_a_write_reads_as_zeros_and_is_cut_off(path):
    one = await session(path, None, 1)
    two = await session(path, one, 2, 3)
    whole = path.read_bytes()
    for begins in range(one, two, 7):
        for ends in range(begins + 1, two + 1, 31):
            path.write_bytes(whole[:begins] + bytes(ends - begins) + whole[ends:])
            assert await session(path, one, coming=(3, 2)) == path.stat().st_size == one


async def test_zeros_do_not_hide_lines_that_do_not_come_again(path):
    one = await session(path, None, 1)
    await session(path, one, 2)
    whole = path.read_bytes()
    for rest in (
        bytes(9) + whole[one + 9 :],
        whole[one:] + bytes(9),
        whole[one:-9] + bytes(9),
        bytes(9) + whole,
    ):
        path.write_bytes(whole[:one] + rest)
        with pytest.raises(SinkError, match="does not know"):
            await session(path, one, coming=(3,))
        assert path.read_bytes() == whole[:one] + rest


async def test_lines_that_do_not_come_again_are_never_cut_off(path):
    """They are another run's, or the proof that the ledger is an older copy: cutting them would lose somebody's records."""
    one = await session(path, None, 1)
    await session(path, one, 2)
    whole = path.read_bytes()
    for coming in ((), (3,)):
        with pytest.raises(SinkError, match="does not know"):
            await session(path, one, coming=coming)
        assert path.read_bytes() == whole


async def test_a_torn_line_that_begins_like_none_that_comes_is_not_cut_off(path):
    one = await session(path, None, 1)
    with path.open("ab") as file:
        file.write(b'{"run_id":"somebody else')
    with pytest.raises(SinkError, match="does not know"):
        await session(path, one, 2)


async def test_one_file_is_written_by_one_process_at_a_time(path):
    sink = JsonLinesSink(path)
    await sink.open(None)
    with pytest.raises(SinkError, match="another process is writing it"):
        await session(path, None, 1)
    await sink.close()
    await session(path, None, 1)


async def test_a_file_that_was_written_to_and_is_gone_is_not_made_anew(path):
    one = await session(path, None, 1)
    path.unlink()
    with pytest.raises(SinkError, match="gone"):
        await session(path, one, 2)
    assert not path.exists()


async def test_a_file_that_was_there_before_the_run_is_appended_to(path):
    path.write_bytes(b'{"chunk":0}\n')
    await session(path, None, 1)
    assert chunks_in(path) == [0, 1]


async def test_a_last_line_without_end_does_not_swallow_the_first_record(path):
    path.write_bytes(b'{"chunk":0}')
    assert await session(path, None, 1) == path.stat().st_size
    assert chunks_in(path) == [0, 1]


async def test_a_file_shorter_than_its_position_is_refused(path):
    position = await session(path, None, 1)
    path.write_bytes(b"")
    with pytest.raises(SinkError, match=f"has 0 bytes, but {position} were written to it. Put the file back"):
        await session(path, position, 2)
    assert path.read_bytes() == b""


async def test_a_symbolic_link_is_not_followed(path, tmp_path):
    other = tmp_path / "precious.txt"
    other.write_bytes(b"mine")
    path.symlink_to(other)
    with pytest.raises(SinkError, match="it is a symbolic link"):
        await session(path, 0, 1)
    assert other.read_bytes() == b"mine"


@pytest.mark.parametrize("make", ["missing folder", "folder"])
async def test_what_cannot_be_opened_is_told(path, make):
    target = path / "jobs.jsonl"
    if make == "folder":
        target.mkdir(parents=True)
    with pytest.raises(SinkError, match="cannot be opened for writing: (it is gone|Is a directory)"):
        await session(target, None, 1)


@pytest.mark.parametrize("umask", [0o000, 0o077])
async def test_the_file_is_for_the_owner_only(path, umask):
    before = os.umask(umask)
    try:
        await session(path, None, 1)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600


async def test_a_disk_that_takes_a_part_gets_the_rest(path, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, bytes(data)[:7]))
    await session(path, None, 1, 2)
    assert chunks_in(path) == [1, 2]


async def test_after_a_failed_write_the_position_is_where_it_was(path, monkeypatch):
    """The next session cuts off the part that got through and writes the record again."""
    sink = JsonLinesSink(path)
    await sink.open(None)
    position = await sink.write([record(1)])
    real, calls = os.write, []

    def fail_later(descriptor, data):
        calls.append(len(data))
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return real(descriptor, bytes(data)[:10])

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", fail_later)
        with pytest.raises(SinkError, match="cannot be written: No space left"):
            await sink.write([record(2)])
    await sink.close()
    assert path.stat().st_size == position + 10
    await session(path, position, 2)
    assert chunks_in(path) == [1, 2]


async def test_a_name_that_is_no_utf8_fits_into_the_ledger(tmp_path):
    sink = JsonLinesSink(tmp_path / os.fsdecode(b"jobs-\xff.jsonl"))
    assert sink.name.endswith("jobs-\\xff.jsonl")
    await sink.open(None)
    await sink.close()


async def test_closing_twice_or_unopened_does_no_harm(path):
    sink = JsonLinesSink(path)
    await sink.close()
    await sink.open(None)
    await sink.close()
    await sink.close()


# Standard output


async def test_standard_output_stays_open(capfdbinary):
    sink = StdoutSink()
    await sink.open(None)
    await sink.write([record(1)])
    await sink.close()
    print("after")
    assert [line[:2] for line in capfdbinary.readouterr().out.splitlines()] == [b'{"', b"af"]


async def test_a_reader_that_went_away_is_told(monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    out = os.fdopen(writing, "w")
    monkeypatch.setattr("sys.stdout", out)
    sink = StdoutSink()
    await sink.open(None)
    with pytest.raises(SinkError, match="Standard output cannot be written: .*Broken pipe"):
        await sink.write([record(1)])
    with pytest.raises(BrokenPipeError):
        out.close()


@pytest.mark.parametrize("stdout", [None, io.StringIO()])
async def test_a_standard_output_without_bytes_is_told_at_once(monkeypatch, stdout):
    monkeypatch.setattr("sys.stdout", stdout)
    with pytest.raises(SinkError, match="there is none that takes bytes"):
        await StdoutSink().open(None)


# A function


async def test_what_a_function_raises_is_told_with_the_chunk():
    async def take(one):
        if one.chunk == 2:
            raise LookupError("no such table")

    with pytest.raises(
        SinkError, match=r"take did not take the record of chunk 2: LookupError\('no such table'\)"
    ):
        await CallbackSink(take).write([record(1), record(2), record(3)])


async def test_records_behind_a_failed_one_are_not_handed_out():
    took = []

    async def take(one):
        took.append(one.chunk)
        raise LookupError

    with pytest.raises(SinkError):
        await CallbackSink(take).write([record(1), record(2)])
    assert took == [1]


async def test_cancelling_is_not_a_failure_of_the_function():
    async def take(_):
        await asyncio.Event().wait()

    writing = asyncio.create_task(CallbackSink(take).write([record(1)]))
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing


# A loop


async def test_a_record_counts_as_taken_when_the_loop_comes_back():
    stream = StreamSink()
    writing = asyncio.create_task(stream.write([record(1), record(2)]))
    records = aiter(stream)
    assert (await anext(records)).chunk == 1
    await asyncio.sleep(0)
    assert not writing.done()
    assert (await anext(records)).chunk == 2
    await asyncio.sleep(0)
    assert not writing.done()
    stream.end()
    with pytest.raises(StopAsyncIteration):
        await anext(records)
    await writing


async def test_a_loop_that_is_left_leaves_its_last_record_untaken():
    stream = StreamSink()
    writing = asyncio.create_task(stream.write([record(1), record(2)]))
    async for one in stream:
        assert one.chunk == 1
        break
    stream.leave()
    with pytest.raises(SinkError, match="Nobody takes the record of chunk 1 and what follows"):
        await writing
    with pytest.raises(SinkError, match="chunk 3"):
        await stream.write([record(3)])


# What a caller names


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ("-", StdoutSink),
        ("x.jsonl", JsonLinesSink),
        (Path("x.jsonl"), JsonLinesSink),
        (asyncio.sleep, CallbackSink),
    ],
)
def test_what_is_named_becomes_a_sink(given, kind):
    assert isinstance(open_sink(given), kind)


@pytest.mark.parametrize(
    "given", ["x.csv", "", "s3://bucket/x.jsonl", "x.jsonl/", Path("x"), 5, None, [], io.BytesIO()]
)
def test_what_is_no_sink_is_refused_with_what_there_is(given):
    with pytest.raises(ConfigError, match=r"is not known\. It may be -|is no sink: give -"):
        open_sink(given)
