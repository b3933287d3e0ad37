"""Sources as a caller meets them: what they yield, and what is refused before anything is sent."""

import array
import asyncio
import gzip
import os
import select
import socket
import threading
import zlib
from pathlib import Path

import pytest
from support.pipes import pipe_holding

from bulkjobs.errors import SourceError
from bulkjobs.ports import SeekableSource, Source
from bulkjobs.sources import FileSource, StoredSource, open_sources
from bulkjobs.sources.blob import LocalFile
from bulkjobs.sources.objects import AsyncIterableSource, IterableSource, as_text
from bulkjobs.sources.stdin import StdinSource

TEXT = b"225\n226\n13496440\n"
TWO_MILLION = 2_000_000


async def read(source) -> bytes:
    return b"".join([block async for block in source.blocks()])


async def read_until_it_fails(source) -> tuple[bytes, str]:
    """Gives what came before the source failed, and what it said then."""
    blocks = []
    with pytest.raises(SourceError) as failure:
        async for block in source.blocks():
            blocks.append(block)
    return b"".join(blocks), str(failure.value)


@pytest.fixture
def file(tmp_path):
    def make(content: bytes, name: str = "ids.txt") -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return make


# Files


async def test_a_plain_file_comes_out_byte_for_byte(file):
    source = FileSource(file(TEXT))
    assert await read(source) == TEXT
    assert source.position_bytes == source.size_bytes == len(TEXT)


async def test_a_file_of_two_million_ids_comes_in_blocks_of_bounded_size(file):
    """Twenty megabytes pass through without ever being held: no block is larger than 1 MiB."""
    text = b"\n".join(b"%d" % n for n in range(10_000_000, 10_000_000 + TWO_MILLION))
    checksum = longest = 0
    source = FileSource(file(text))
    async for block in source.blocks():
        checksum, longest = zlib.crc32(block, checksum), max(longest, len(block))
    assert (checksum, longest) == (zlib.crc32(text), 1024 * 1024)


async def test_a_file_can_be_read_again_from_its_beginning(file):
    source = FileSource(file(TEXT))
    assert await read(source) == await read(source) == TEXT


@pytest.mark.parametrize("content", [b"", b"\x1f", b"5"])
async def test_a_file_too_short_for_a_signature_is_text(file, content):
    assert await read(FileSource(file(content))) == content


@pytest.mark.parametrize("name", ["ids.gz", "ids.txt", "ids"])
async def test_gzip_is_told_by_its_content(file, name):
    assert await read(FileSource(file(gzip.compress(TEXT), name))) == TEXT
    assert await read(FileSource(file(TEXT, name))) == TEXT


async def test_large_gzip_comes_out_whole_and_in_bounded_blocks(file):
    text = b"".join(b"%d\n" % n for n in range(300_000))
    blocks = [block async for block in FileSource(file(gzip.compress(text, 1))).blocks()]
    assert b"".join(blocks) == text
    assert max(map(len, blocks)) <= 1024 * 1024


async def test_a_wrong_check_sum_is_told_with_the_position(file):
    damaged = bytearray(gzip.compress(TEXT))
    damaged[-8] ^= 1
    _, said = await read_until_it_fails(FileSource(file(bytes(damaged))))
    assert f"damaged near byte {len(damaged)}" in said


@pytest.mark.parametrize(
    ("beginning", "kind"),
    [
        (b"PK\x03\x04\x14", "ZIP"),
        (b"SQLite format 3\x00", "SQLite"),
    ],
)
async def test_other_containers_are_refused_by_their_content(file, beginning, kind):
    """Read as text, their bytes would hold a paid-for "id" here and there."""
    content = beginning + b"\n5\n"
    text, said = await read_until_it_fails(FileSource(file(content)))
    assert text == b""
    assert kind in said
    with pipe_holding(content) as reading:
        assert kind in (await read_until_it_fails(StdinSource(reading)))[1]


async def test_a_file_that_changes_while_it_is_read_ends_in_an_error(file):
    path = file(TEXT * 300_000)
    source = FileSource(path)
    with pytest.raises(SourceError, match="changed while it was read"):
        async for _ in source.blocks():
            path.write_bytes(TEXT)


async def test_a_file_replaced_before_it_is_read_ends_in_an_error(file):
    source = FileSource(file(TEXT))
    file(TEXT + TEXT)
    assert (await read_until_it_fails(source))[1].startswith(source.name)


def test_the_fingerprint_changes_with_size_and_time(file):
    path = file(TEXT)
    before = FileSource(path).fingerprint
    assert FileSource(path).fingerprint == before
    os.utime(path, (1, 1))
    touched = FileSource(path).fingerprint
    file(TEXT + b"1")
    os.utime(path, (1, 1))
    assert len({before, touched, FileSource(path).fingerprint}) == 3


async def test_a_reader_that_stops_early_leaves_no_open_file(file):
    blocks = FileSource(file(TEXT)).blocks()
    await anext(blocks)
    await blocks.aclose()


async def test_a_file_removed_before_it_is_read_is_told(file):
    path = file(TEXT)
    source = FileSource(path)
    path.unlink()
    assert "No such file" in (await read_until_it_fails(source))[1]


async def test_a_name_that_is_no_utf8_can_be_told_everywhere(tmp_path):
    """The name goes into JSON and SQLite, which take no lone surrogates."""
    path = os.fsencode(tmp_path) + b"/ids-\xff.txt"
    Path(os.fsdecode(path)).write_bytes(TEXT)
    source = FileSource(os.fsdecode(path))
    assert source.name.endswith("ids-\\xff.txt")
    assert await read(source) == TEXT


async def test_a_plain_file_can_be_read_on_behind_any_block(file):
    text = b"".join(b"%d\n" % n for n in range(300_000))
    source, seen = FileSource(file(text)), b""
    async for block in source.blocks():
        seen += block
        assert (
            b"".join([rest async for rest in FileSource(source.name).blocks_after(source.mark)])
            == text[len(seen) :]
        )
    assert isinstance(source, SeekableSource)


# What is refused at once


def test_a_fifo_is_refused_without_waiting_for_a_writer(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(SourceError, match="not a regular file. Pipe it in and give -"):
        open_sources([tmp_path / "fifo"])


@pytest.mark.parametrize("name", ["missing.txt", "", "a\0b", "x" * 5_000, "225\n226\n" * 1_000])
def test_a_path_that_leads_nowhere_is_refused_whatever_it_looks_like(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match="cannot be read|is no path"):
        open_sources([name])


def test_an_unreadable_file_is_refused(file):
    path = file(TEXT)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(SourceError, match="Permission denied"):
        open_sources([path])


@pytest.mark.parametrize("given", [5, None, 1.5, object(), b"225\n", bytearray(b"225")])
def test_what_is_no_source_is_refused_by_its_type(given):
    with pytest.raises(SourceError, match="no source"):
        open_sources([given])


# Patterns


def test_a_pattern_stands_for_its_files_sorted(file, tmp_path, monkeypatch):
    for name in ("b.txt", "a.txt", "c.txt", "other.csv"):
        file(TEXT, name)
    (tmp_path / "folder.txt").mkdir()
    monkeypatch.chdir(tmp_path)
    assert [source.name for source in open_sources(["*.txt"])] == ["a.txt", "b.txt", "c.txt"]


def test_a_pattern_goes_into_folders_with_two_stars(tmp_path, monkeypatch):
    (tmp_path / "x" / "y").mkdir(parents=True)
    (tmp_path / "x" / "y" / "deep.txt").write_bytes(TEXT)
    (tmp_path / "top.txt").write_bytes(TEXT)
    monkeypatch.chdir(tmp_path)
    assert [source.name for source in open_sources(["**/*.txt"])] == ["top.txt", "x/y/deep.txt"]


def test_a_pattern_without_a_file_is_refused(tmp_path):
    with pytest.raises(SourceError, match="No file matches"):
        open_sources([str(tmp_path / "*.txt")])


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(file):
    path = file(TEXT, "ids[1].txt")
    assert [source.name for source in open_sources([path])] == [str(path)]


# Folders


def test_a_folder_stands_for_the_files_in_it_in_the_order_of_their_bytes(tmp_path, monkeypatch):
    """Also for those in its folders. Upper case comes first, whatever the language of the user."""
    for name in ("b.txt", "a.csv", "B.txt", "a/z", "ä"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(TEXT)
    monkeypatch.chdir(tmp_path)
    expected = ["in/B.txt", "in/a.csv", "in/a/z", "in/b.txt", "in/ä"]
    assert [source.name for source in open_sources(["in"])] == expected
    assert [source.name for source in open_sources(["in/"])] == expected


def test_what_is_no_file_of_ids_in_a_folder_is_left_out(tmp_path):
    """Hidden files and folders, what is no regular file, folders behind links, and run directories."""
    for name in ("ids", ".hidden", ".git/ids", "ids.run/ledger.db", "ids.run/jobs.jsonl"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(TEXT)
    os.mkfifo(tmp_path / "in" / "fifo")
    (tmp_path / "in" / "round").symlink_to(tmp_path / "in")
    assert [source.name for source in open_sources([tmp_path / "in"])] == [str(tmp_path / "in" / "ids")]


def test_a_folder_without_a_file_is_refused(tmp_path):
    (tmp_path / ".hidden").write_bytes(TEXT)
    with pytest.raises(SourceError, match="There is no file in the folder"):
        open_sources([tmp_path])


# Several sources


def test_standard_input_cannot_stand_twice(monkeypatch):
    with pipe_holding() as reading, os.fdopen(os.dup(reading)) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        with pytest.raises(SourceError, match="- stands twice"):
            open_sources(["-", "-"])


def test_the_same_file_may_stand_twice(file):
    """It can be read twice; its ids are duplicates the second time."""
    path = file(TEXT)
    assert len(open_sources([path, path])) == 2


def test_several_iterables_are_told_apart_by_name():
    async def stream():
        yield 3

    names = [source.name for source in open_sources([[1], iter([2]), stream()])]
    assert names == ["iterable 1", "iterable 2", "async iterable 3"]


def test_a_source_of_ones_own_is_taken_as_it_is():
    own = IterableSource([1], "mine")
    assert open_sources([own]) == [own]
    assert isinstance(own, Source)
    with pytest.raises(SourceError, match="mine stands twice"):
        open_sources([own, own])


# Standard input


@pytest.mark.parametrize(
    "pieces",
    [(TEXT,), (TEXT[:5], TEXT[5:]), (gzip.compress(TEXT),), (b"\x1f", gzip.compress(TEXT)[1:])],
    ids=["text", "text in pieces", "gzip", "gzip in pieces"],
)
async def test_a_pipe_is_read_to_its_end(pieces):
    with pipe_holding(*pieces) as reading:
        assert await read(StdinSource(reading)) == TEXT


async def test_gzip_is_known_even_when_its_first_byte_comes_alone():
    reading, writing = os.pipe()
    stored = gzip.compress(TEXT)
    os.write(writing, stored[:1])
    source = asyncio.create_task(read(StdinSource(reading)))
    while select.select([reading], [], [], 0)[0]:  # noqa: ASYNC110 - until the reader has taken it
        await asyncio.sleep(0)
    os.write(writing, stored[1:])
    os.close(writing)
    assert await source == TEXT
    os.close(reading)


async def test_a_pipe_larger_than_its_buffer_is_read_while_it_is_written():
    text = b"".join(b"%d\n" % n for n in range(200_000))
    reading, writing = os.pipe()

    def write():
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(text)

    writer = asyncio.create_task(asyncio.to_thread(write))
    assert await read(StdinSource(reading)) == text
    await writer
    os.close(reading)


async def test_a_socket_is_read_like_a_pipe():
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            theirs.sendall(TEXT)
        assert await read(StdinSource(ours.fileno())) == TEXT


@pytest.mark.parametrize("stored", [TEXT, gzip.compress(TEXT), b""], ids=["plain", "gzip", "empty"])
async def test_a_redirected_file_is_read_like_a_pipe(file, stored):
    with file(stored).open("rb") as stdin:
        assert await read(StdinSource(stdin.fileno())) == (TEXT if stored else b"")


async def test_the_null_device_is_an_empty_input():
    """epoll does not take it, and neither cron nor a service manager gives anything else."""
    with Path("/dev/null").open("rb") as stdin:
        assert await read(StdinSource(stdin.fileno())) == b""


async def test_a_folder_as_standard_input_is_told(tmp_path):
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        assert "Standard input cannot be read" in (await read_until_it_fails(StdinSource(descriptor)))[1]
    finally:
        os.close(descriptor)


def test_a_missing_standard_input_is_told(monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(SourceError, match="There is no standard input"):
        open_sources(["-"])


async def test_cancelling_a_wait_for_input_leaves_nothing_behind():
    """The loop no longer watches the descriptor, no thread waits on it, and what comes later is still there."""
    reading, writing = os.pipe()
    loop = asyncio.get_running_loop()
    reader = asyncio.create_task(read(StdinSource(reading)))
    await asyncio.sleep(0)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert not loop.remove_reader(reading)
    os.write(writing, TEXT)
    os.close(writing)
    assert os.read(reading, 100) == TEXT
    os.close(reading)


# Objects


class Named:
    def __str__(self):
        return "225"


@pytest.mark.parametrize(
    ("item", "line"),
    [
        (225, b"225"),
        ("225", b"225"),
        (b"225", b"225"),
        (Named(), b"225"),
        (" 225\t", b" 225\t"),
        ("225\n", b"225"),
        ("225\r\n", b"225"),
        (b"225\n", b"225"),
        ("", b""),
        (True, b"True"),
        (-5, b"-5"),
        (1.0, b"1.0"),
        (None, b"None"),
        (2**64, b"18446744073709551616"),
        (bytearray(b"225"), b"bytearray(b'225')"),
        ("225,226", b"225\\x2c226"),
        ("225\n226", b"225\\n226"),
        ("225\r226", b"225\\r226"),
        ("225\n\n", b"225\\n"),
        ("\ud800", b"\xed\xa0\x80"),
    ],
)
def test_an_object_becomes_one_line(item, line):
    """Whatever an item is, it stays one piece: it cannot become two ids, nor shift the items behind it."""
    assert as_text([1, item, 2]) == b"1\n" + line + b"\n2\n"


def test_numbers_of_an_array_are_ids():
    assert as_text(list(array.array("Q", [1, 2**63]))) == b"1\n9223372036854775808\n"


async def test_an_iterable_is_read_lazily_and_in_order():
    taken = []

    def ids():
        for n in range(1, 10_001):
            taken.append(n)
            yield n

    source = IterableSource(ids(), "numbers")
    blocks = source.blocks()
    first = await anext(blocks)
    assert len(taken) < 10_000
    rest = b"".join([block async for block in blocks])
    assert (first + rest).split() == [b"%d" % n for n in range(1, 10_001)]
    assert source.position_bytes == len(first + rest)


async def test_an_async_iterable_is_read_to_its_end():
    async def ids():
        for n in range(1, 5_002):
            yield n

    source = AsyncIterableSource(ids(), "numbers")
    text = await read(source)
    assert text.split() == [b"%d" % n for n in range(1, 5_002)]
    assert source.position_bytes == len(text)


async def test_an_open_file_is_an_iterable_of_its_lines(file):
    with file(b"225\r\n226\n\n227").open("rb") as lines:
        (source,) = open_sources([lines])
        assert await read(source) == b"225\n226\n\n227\n"


@pytest.mark.parametrize("ids", [[], (), {}, iter(())])
async def test_an_empty_iterable_is_an_empty_source(ids):
    (source,) = open_sources([ids])
    assert await read(source) == b""


async def test_an_exception_of_the_iterable_passes_through_as_it_is():
    def ids():
        yield 1
        raise LookupError("the cursor is gone")

    with pytest.raises(LookupError, match="the cursor is gone"):
        await read(IterableSource(ids(), "cursor"))


async def test_cancelling_while_a_file_is_opened_leaves_it_closed(file):
    """The thread that opens it cannot be cancelled, so the file is closed when it is there."""
    opened, go_on = [], threading.Event()

    class Slow(LocalFile):
        def open(self):
            go_on.wait()
            opened.append(super().open())
            return opened[0]

    reading = asyncio.ensure_future(read(StoredSource(Slow(file(b"1\n2\n")))))
    await asyncio.sleep(0.01)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    go_on.set()
    await asyncio.get_running_loop().shutdown_default_executor()  # which waits for its threads
    while not opened[0].closed:  # noqa: ASYNC110 - the loop is told by the thread, then it closes
        await asyncio.sleep(0)
    assert opened[0].closed
