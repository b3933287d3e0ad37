"""The copy of an input that cannot be read again, over crashes at every step of its making.

A crash is modelled by what the ledger knows: the number of bytes it has recorded as good. The file may hold
more (written, not recorded), never less.
"""

import asyncio
from contextlib import aclosing

import pytest

from bulkjobs.errors import SinkError, SourceChanged, SourceError
from bulkjobs.sources import SpooledSource
from bulkjobs.sources.objects import IterableSource

BLOCKS = [b"1\n2\n", b"3\n4\n", b"5\n"]
WHOLE = b"".join(BLOCKS)


class Upstream:
    """An input that gives its blocks once; `fails` after them if told to."""

    name = "-"
    repeatable = False
    fingerprint = None
    size_bytes = None
    position_bytes = 0

    def __init__(self, *blocks, fails=None):
        self._given = list(blocks)
        self._fails = fails

    async def blocks(self):
        while self._given:
            yield self._given.pop(0)
        if self._fails is not None:
            raise self._fails


class Known:
    """What the ledger knows of the copy."""

    def __init__(self, spooled_bytes=0, complete=False):
        self.notes = []
        self.spooled_bytes, self.complete = spooled_bytes, complete
        self.all_kept = asyncio.Event()

    def record(self, spooled_bytes, complete):
        self.notes.append((spooled_bytes, complete))
        self.spooled_bytes, self.complete = spooled_bytes, complete
        if complete:
            self.all_kept.set()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "spool-0.txt"


def spooled(path, known, upstream=None):
    return SpooledSource(
        "-",
        path,
        upstream=upstream,
        spooled_bytes=known.spooled_bytes,
        complete=known.complete,
        on_spooled=known.record,
    )


async def read(source) -> bytes:
    return b"".join([block async for block in source.blocks()])


async def test_each_block_is_on_the_disk_and_recorded_before_it_is_handed_on(path):
    known = Known()
    so_far = b""
    async for block in spooled(path, known, Upstream(*BLOCKS)).blocks():
        so_far += block
        assert path.read_bytes() == so_far
        assert known.spooled_bytes == len(so_far)
    assert known.notes == [(4, False), (8, False), (10, False), (10, True)]


async def test_a_complete_copy_is_read_as_often_as_needed(path):
    known = Known()
    source = spooled(path, known, Upstream(*BLOCKS))
    assert await read(source) == WHOLE
    assert await read(source) == WHOLE
    assert source.position_bytes == len(WHOLE)


async def test_the_copy_is_for_the_owner_only(path):
    await read(spooled(path, Known(), Upstream(*BLOCKS)))
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("recorded", range(len(WHOLE) + 1))
@pytest.mark.parametrize("beyond", [b"", b"torn", WHOLE * 2])
async def test_after_a_crash_the_same_input_goes_on_behind_what_is_recorded(path, recorded, beyond):
    """Whatever was written beyond the record, and wherever that ends, the text comes out once and whole."""
    path.write_bytes(WHOLE[:recorded] + beyond)
    known = Known(recorded)
    assert await read(spooled(path, known, Upstream(*BLOCKS))) == WHOLE
    assert (path.read_bytes(), known.complete) == (WHOLE, True)


@pytest.mark.parametrize("recorded", range(len(WHOLE) + 1))
@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
async def test_the_input_given_again_may_come_in_other_blocks(path, recorded, size):
    """A pipe never gives the same pieces twice."""
    path.write_bytes(WHOLE[:recorded])
    pieces = [WHOLE[at : at + size] for at in range(0, len(WHOLE), size)]
    assert await read(spooled(path, Known(recorded), Upstream(*pieces))) == WHOLE
    assert path.read_bytes() == WHOLE


@pytest.mark.parametrize("recorded", [0, 3, len(WHOLE)])
async def test_an_unfinished_copy_without_the_input_gives_what_there_is_and_then_says_so(path, recorded):
    path.write_bytes(WHOLE[:recorded])
    got = b""
    with pytest.raises(SourceError, match=rf"was not read to its end \({recorded} bytes were kept\)"):
        async for block in spooled(path, Known(recorded)).blocks():
            got += block
    assert got == WHOLE[:recorded]


async def test_a_complete_copy_needs_no_input(path):
    path.write_bytes(WHOLE)
    assert await read(spooled(path, Known(len(WHOLE), complete=True))) == WHOLE


@pytest.mark.parametrize(
    ("other", "position"),
    [
        ([b"1\n2\n", b"7\n8\n"], 4),
        ([b"9\n"], 0),
        ([b"1\n2\n"], 4),
        ([], 0),
    ],
    ids=["differs later", "differs at once", "ends early", "is empty"],
)
async def test_another_input_is_refused_and_the_copy_stays_as_it_was(path, other, position):
    path.write_bytes(WHOLE[:8])
    with pytest.raises(SourceChanged, match=f"not the input that this run began with.*after byte {position}"):
        await read(spooled(path, Known(8), Upstream(*other)))
    assert path.read_bytes() == WHOLE[:8]


@pytest.mark.parametrize(
    ("other", "position"),
    [([WHOLE + b"6\n"], 10), ([*BLOCKS, b"6\n"], 10), (BLOCKS[:2], 8), ([b"9\n"], 0), ([], 0)],
)
async def test_another_input_is_refused_by_a_complete_copy_too(path, other, position):
    """Ids that nobody would ever send must not be taken in silence."""
    path.write_bytes(WHOLE)
    known = Known(len(WHOLE), complete=True)
    with pytest.raises(SourceChanged, match=f"differs after byte {position}"):
        await read(spooled(path, known, Upstream(*other)))
    assert (path.read_bytes(), known.notes) == (WHOLE, [])


async def test_a_complete_copy_takes_the_same_input_again(path):
    path.write_bytes(WHOLE)
    known = Known(len(WHOLE), complete=True)
    source = spooled(path, known, Upstream(WHOLE))
    assert await read(source) == await read(source) == WHOLE
    assert known.notes == []


async def test_a_copy_shorter_than_recorded_is_refused_before_anything_is_read(path):
    path.write_bytes(WHOLE[:7])
    with pytest.raises(SourceError, match="has 7 bytes, but the ledger knows of 8. Put the file back"):
        await read(spooled(path, Known(8), Upstream(*BLOCKS)))


async def test_a_copy_that_shrinks_while_it_is_read_is_told(path):
    path.write_bytes(WHOLE * 100_000)
    blocks = spooled(path, Known(len(WHOLE) * 100_000, complete=True)).blocks()
    await anext(blocks)
    path.write_bytes(WHOLE)
    with pytest.raises(SourceError, match="Put the file back"):
        [block async for block in blocks]


async def test_what_came_before_a_failing_input_is_kept(path):
    known = Known()
    with pytest.raises(SourceError, match="line noise"):
        await read(spooled(path, known, Upstream(BLOCKS[0], fails=SourceError("line noise"))))
    assert (path.read_bytes(), known.notes) == (BLOCKS[0], [(4, False)])


async def test_a_disk_that_takes_nothing_more_is_told_and_nothing_is_handed_on(tmp_path):
    """/dev/full stands for it: every write fails with ENOSPC."""
    path = tmp_path / "spool-0.txt"
    path.symlink_to("/dev/full")
    with pytest.raises(SinkError, match="cannot be written: No space left on device"):
        await read(spooled(path, Known(), Upstream(*BLOCKS)))


async def test_a_folder_that_is_gone_is_told(tmp_path):
    with pytest.raises(SourceError, match="cannot be opened: No such file"):
        await read(spooled(tmp_path / "gone" / "spool-0.txt", Known(), Upstream(*BLOCKS)))


async def test_an_iterable_is_spooled_as_text(path):
    assert await read(spooled(path, Known(), IterableSource([1, "2", b"3"], "ids"))) == b"1\n2\n3\n"
    assert path.read_bytes() == b"1\n2\n3\n"


# --- a source that is copied ahead of the reading ---


def copied_ahead(path, known, upstream):
    return SpooledSource(
        "query",
        path,
        upstream=upstream,
        spooled_bytes=known.spooled_bytes,
        complete=known.complete,
        on_spooled=known.record,
        ahead=True,
        advice="Give ORDER BY. ",
    )


async def test_a_copy_ahead_is_complete_while_its_first_block_is_still_worked_on(path):
    """So a database need not wait for hours of sending."""
    known = Known()
    source = copied_ahead(path, known, Upstream(*BLOCKS))
    async with aclosing(source.blocks()) as blocks:
        first = await anext(blocks)
        await known.all_kept.wait()
        assert (path.read_bytes(), source.size_bytes, source.position_bytes) == (
            WHOLE,
            len(WHOLE),
            len(first),
        )
        assert first + b"".join([block async for block in blocks]) == WHOLE


@pytest.mark.parametrize("recorded", range(len(WHOLE) + 1))
async def test_a_copy_ahead_goes_on_behind_what_is_recorded(path, recorded):
    path.write_bytes(WHOLE[:recorded] + b"torn")
    known = Known(recorded)
    source = copied_ahead(path, known, Upstream(*BLOCKS))
    assert await read(source) == WHOLE == path.read_bytes()
    assert await read(source) == WHOLE


async def test_an_error_of_a_source_copied_ahead_comes_behind_all_that_it_gave(path):
    got = b""
    with pytest.raises(SourceError, match="gone"):
        async for block in copied_ahead(path, Known(), Upstream(*BLOCKS, fails=SourceError("gone"))).blocks():
            got += block
    assert got == WHOLE


async def test_a_source_copied_ahead_that_is_another_says_so_with_advice(path):
    path.write_bytes(WHOLE)
    with pytest.raises(SourceChanged, match=r"differs after byte 0. Give ORDER BY. Start another run"):
        await read(copied_ahead(path, Known(len(WHOLE)), Upstream(b"7\n2\n")))


async def test_leaving_a_copy_ahead_leaves_no_task_behind(path):
    before = asyncio.all_tasks()
    async with aclosing(copied_ahead(path, Known(), Upstream(*BLOCKS * 50)).blocks()) as blocks:
        assert await anext(blocks)
    assert asyncio.all_tasks() == before
