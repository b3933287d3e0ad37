"""Compressed sources: whatever they are called, however they are joined, padded, cut off or damaged."""

import bz2
import contextlib
import gzip
import lzma
import random
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from backports import zstd
from support.pipes import pipe_holding

from bulkjobs.errors import SourceError
from bulkjobs.sources import FileSource, compression
from bulkjobs.sources.compression import UNPACKED_BYTES, unpacker
from bulkjobs.sources.stdin import StdinSource

TEXT = b"225\n226\n13496440\n"
PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": lambda text: zstd.compress(
        text, options={zstd.CompressionParameter.checksum_flag: 1}
    ),  # as its command
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}
SKIPPED_FRAME = b"\x50\x2a\x4d\x18\x04\x00\x00\x00size"


@pytest.fixture(autouse=True)
def library(request, monkeypatch):
    """Gzip is unpacked by either of two libraries."""
    if "by zlib" in request.node.name:
        monkeypatch.setitem(sys.modules, "isal.igzip_lib", None)
    compression._gzip_library.cache_clear()
    yield
    compression._gzip_library.cache_clear()


every_kind = pytest.mark.parametrize("kind", [*PACK, pytest.param("gzip", id="gzip by zlib")])


async def read(source) -> bytes:
    return b"".join([block async for block in source.blocks()])


def unpacked(stored: bytes, *, step: int = 0) -> tuple[bytes, str]:
    """Gives what comes out of these bytes, fed in steps, and what was said if that ended in an error."""
    reader, text = unpacker("ids", stored[:10]), b""
    assert reader is not None
    try:
        for at in range(0, len(stored), step or len(stored)):
            reader.start(stored[at : at + (step or len(stored))])
            while piece := reader.next():
                assert len(piece) <= UNPACKED_BYTES
                text += piece
        reader.finish()
    except SourceError as error:
        return text, str(error)
    return text, ""


@every_kind
async def test_it_is_told_by_its_content_and_not_by_its_name(kind, tmp_path: Path):
    path = tmp_path / "ids.txt"
    path.write_bytes(PACK[kind](TEXT))
    source = FileSource(path)
    assert await read(source) == TEXT
    assert source.position_bytes == source.size_bytes
    assert source.mark is None


@every_kind
async def test_it_may_come_through_a_pipe(kind):
    stored = PACK[kind](TEXT)
    with pipe_holding(stored[:1], stored[1:]) as reading:
        assert await read(StdinSource(reading)) == TEXT


@every_kind
@pytest.mark.parametrize("step", [0, 1, 7])
def test_members_follow_each_other_with_zeros_between_and_behind(kind, step):
    pack = PACK[kind]
    stored = pack(TEXT) + bytes(512) + pack(b"") + pack(b"9\n") + bytes(64)
    assert unpacked(stored, step=step) == (TEXT + b"9\n", "")


@every_kind
def test_what_is_larger_than_a_piece_comes_out_whole(kind):
    text = b"".join(b"%d\n" % n for n in range(10**7, 10**7 + 150_000))
    assert unpacked(PACK[kind](text), step=65_536) == (text, "")


@every_kind
def test_wherever_it_is_cut_off_that_is_noticed_and_what_came_before_stays(kind):
    """Down to the last byte of the check sum; only an end that is also one of a member is none."""
    stored = PACK[kind](TEXT)
    for length in range(10, len(stored)):
        text, said = unpacked(stored[:length])
        assert TEXT.startswith(text)
        assert f"the {kind} data ends early, after {length} bytes ({len(text)} bytes of text)" in said


@every_kind
def test_damage_is_told_with_its_place_whatever_was_damaged(kind):
    """Of each of a hundred damaged files either nothing but the true text comes, or it is told."""
    seed = random.randrange(2**32)
    print("seed", seed)
    rng, stored = random.Random(seed), PACK[kind](TEXT * 20)
    for _ in range(100):
        damaged = bytearray(stored)
        damaged[rng.randrange(10, len(stored))] ^= 1 << rng.randrange(8)
        text, said = unpacked(bytes(damaged))
        assert (text == TEXT * 20 and not said) or "damaged near byte" in said or "ends early" in said


@every_kind
def test_garbage_behind_it_comes_after_the_ids(kind):
    text, said = unpacked(PACK[kind](TEXT) + b"garbage, and more of it")
    assert text == TEXT
    assert f"the {kind} data is damaged near byte" in said


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_what_unpacks_out_of_all_proportion_is_stopped(kind):
    """It ends soon after 64 MiB of text, however much more there is."""
    bomb = PACK[kind](b"1\n" * 36 * 2**20)
    reader, read_bytes = unpacker("ids", bomb[:10]), 0
    reader.start(bomb)
    with pytest.raises(SourceError, match="this is no list of ids"):
        while piece := reader.next():
            read_bytes += len(piece)
    assert read_bytes <= 65 * 2**20


def gzip_with(flags: int) -> bytes:
    """Packs the text behind a header with the fields that the flags of RFC 1952 name."""
    packed = gzip.compress(TEXT, mtime=0)
    header = packed[:3] + bytes([flags]) + packed[4:10]
    header += b"\x06\x00BC\x02\x00\x1b\x00" if flags & 4 else b""
    header += b"ids.txt\x00" if flags & 8 else b""
    header += b"a comment\x00" if flags & 16 else b""
    header += (zlib.crc32(header) & 0xFFFF).to_bytes(2, "little") if flags & 2 else b""
    return header + packed[10:]


@pytest.mark.parametrize("kind", ["gzip", pytest.param("gzip", id="gzip by zlib")])
@pytest.mark.parametrize("flags", range(0, 32, 2))
def test_a_header_of_gzip_may_come_in_parts_whatever_fields_it_has(kind, flags):
    """Blocks of a file, a pipe and a connection end anywhere, also in the header of a second member."""
    stored = gzip_with(flags)
    assert gzip.decompress(stored) == TEXT
    for step in range(1, len(stored)):
        assert unpacked(stored + stored, step=step) == (TEXT + TEXT, "")


@pytest.mark.parametrize("kind", ["gzip", pytest.param("gzip", id="gzip by zlib")])
def test_a_wrong_check_sum_of_the_header_is_told_wherever_the_header_is_cut(kind):
    stored = bytearray(gzip_with(2 + 8))
    stored[12] ^= 1
    for step in range(1, len(stored)):
        assert "damaged near byte" in unpacked(bytes(stored), step=step)[1]


def test_a_header_of_gzip_without_an_end_is_not_waited_for():
    """Memory stays constant, whatever a file says."""
    text, said = unpacked(gzip_with(8)[:10] + b"x" * 3 * UNPACKED_BYTES, step=UNPACKED_BYTES)
    assert text == b""
    assert "damaged near byte 2097152 (the header does not end)" in said


def test_frames_of_zstd_that_are_to_be_skipped_are_skipped():
    """Compressors that work in parallel write one in front, or behind with an index of the frames."""
    assert unpacked(SKIPPED_FRAME + zstd.compress(TEXT) + SKIPPED_FRAME) == (TEXT, "")


def test_an_opaque_id_that_begins_like_a_signature_is_an_id():
    for beginning in (b"BZh1abcdefgh", b"PAR1abcdefgh", b"BZh91AYabcde"):
        assert unpacker("ids", beginning[:10]) is None


def test_without_the_package_for_zstd_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "backports.zstd", None)
    with contextlib.suppress(KeyError):
        monkeypatch.setitem(sys.modules, "compression.zstd", None)
    with pytest.raises(SourceError, match=r'pip install "bulkjobs\[zstd\]"'):
        unpacker("ids", zstd.compress(TEXT)[:10])
