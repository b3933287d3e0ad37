"""Parquet as a source: a column of any type that can hold ids, read row group by row group."""

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.pipes import pipe_holding

from bulkjobs._table import integers_of, texts_of
from bulkjobs.errors import SourceError
from bulkjobs.sources import FileSource
from bulkjobs.sources.stdin import StdinSource

IDS = [225, 226, 13_496_440]
TEXT = b"225\n226\n13496440\n"


@pytest.fixture
def file(tmp_path: Path):
    def write(values, kind=None, *, name="id", **options) -> Path:
        columns = {"x": pa.nulls(len(values)), name: pa.array(values, kind)}
        pq.write_table(pa.table(columns), tmp_path / "ids", **options)
        return tmp_path / "ids"

    return write


async def read(source) -> bytes:
    return b"".join([block async for block in source.blocks()])


async def refused(source) -> str:
    with pytest.raises(SourceError) as caught:
        await read(source)
    assert str(caught.value).isprintable()
    return str(caught.value)


@pytest.mark.parametrize(
    "kind",
    [
        pa.int32(),
        pa.uint32(),
        pa.int64(),
        pa.uint64(),
        pa.decimal128(20, 0),
        pa.dictionary(pa.int32(), pa.int64()),
    ],
    ids=str,
)
async def test_whole_numbers_of_any_type_come_out_as_text(file, kind):
    """It is told by its content: the file has no ending."""
    source = FileSource(file(IDS, kind), column="id")
    assert await read(source) == TEXT
    assert source.position_bytes == source.size_bytes


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())], ids=str
)
async def test_texts_of_any_type_come_out_as_they_are(file, kind):
    assert await read(FileSource(file(list(map(str, IDS)), kind), column="id")) == TEXT


async def test_a_column_is_given_by_its_number_too(file):
    assert await read(FileSource(file(IDS), column=2)) == TEXT


async def test_a_file_of_one_column_needs_no_name(tmp_path: Path):
    pq.write_table(pa.table({"id": IDS}), tmp_path / "ids")
    assert await read(FileSource(tmp_path / "ids")) == TEXT


async def test_rows_without_an_id_are_told_on_their_lines(file):
    assert await read(FileSource(file([1, None, 3]), column="id")) == b"1\n(null)\n3\n"
    assert (
        await read(FileSource(file(["1", None, "", " "]), column="id"))
        == b"1\n(null)\n(empty cell)\n(empty cell)\n"
    )
    assert await read(FileSource(file([None], pa.null()), column="id")) == b"(null)\n"


async def test_a_value_stays_one_piece_whatever_is_in_it(file):
    source = FileSource(file(["5,6", "7\n8", "9\r"]), column="id")
    assert await read(source) == b"5\\x2c6\n7\\n8\n9\\r\n"


async def test_the_ends_of_the_integers_come_out_exactly(file):
    assert await read(FileSource(file([2**63 - 1, -(2**63), 0, -1]), column="id")) == (
        b"9223372036854775807\n-9223372036854775808\n0\n-1\n"
    )
    assert await read(FileSource(file([2**64 - 1], pa.uint64()), column="id")) == b"18446744073709551615\n"


@pytest.mark.parametrize(
    ("values", "kind", "said"),
    [
        (
            [1.0],
            pa.float64(),
            r"the column id has the type double, in which numbers above 2\*\*53 are not exact",
        ),
        ([1], pa.decimal128(9, 2), r"decimal128\(9, 2\), with places behind the point"),
        ([True], pa.bool_(), "type bool, not one of integers or text"),
        ([[1]], pa.list_(pa.int64()), "not one of integers or text"),
        ([{"a": 1}], pa.struct([("a", pa.int64())]), "not one of integers or text"),
    ],
    ids=["floats", "decimals", "booleans", "lists", "records"],
)
async def test_a_column_that_can_hold_no_ids_is_refused_before_anything_is_read(file, values, kind, said):
    path = file(values, kind)
    with pytest.raises(SourceError, match=said):
        await anext(FileSource(path, column="id").blocks())


async def test_a_missing_column_is_refused_with_those_there_are(file):
    assert (await refused(FileSource(file(IDS), column="ids"))).endswith(
        "has no column 'ids'. Its columns are: x, id."
    )
    assert "has no column number 3" in await refused(FileSource(file(IDS), column=3))
    assert "Say which column has the ids, with --column: x, id." in await refused(FileSource(file(IDS)))


async def test_a_name_that_stands_twice_is_refused(tmp_path: Path):
    """Its parts are read by their names, so not even the number tells them apart."""
    pq.write_table(pa.Table.from_arrays([pa.array(IDS)] * 2, ["id", "id"]), tmp_path / "ids")
    assert "several columns 'id'" in await refused(FileSource(tmp_path / "ids", column=2))
    assert "2 columns 'id'" in await refused(FileSource(tmp_path / "ids", column="id"))


@pytest.mark.parametrize("keep", [8, 100, -100, -1])
async def test_a_file_that_is_cut_off_is_told(file, keep):
    path = file(IDS)
    path.write_bytes(path.read_bytes()[:keep])
    assert "the Parquet data is damaged or not whole" in await refused(FileSource(path, column="id"))


async def test_what_was_read_before_a_damaged_row_group_stays(file):
    path = file(list(range(1, 2_001)), row_group_size=1_000, use_dictionary=False, compression="snappy")
    place = pq.ParquetFile(path).metadata.row_group(1).column(1).data_page_offset
    stored = bytearray(path.read_bytes())
    stored[place : place + 40] = b"\xff" * 40
    path.write_bytes(stored)
    blocks = []
    with pytest.raises(SourceError, match="damaged"):
        async for block in FileSource(path, column="id").blocks():
            blocks.append(block)
    assert b"".join(blocks) == b"".join(b"%d\n" % n for n in range(1, 1_001))


async def test_it_can_be_read_on_behind_any_block(file):
    """Also in the middle of a row group."""
    path = file(list(range(200_000)), row_group_size=150_000)
    whole, marks, source = b"", [], FileSource(path, column="id")
    async for block in source.blocks():
        whole += block
        marks.append((source.mark, len(whole)))
    assert len(marks) > 3
    for mark, length in marks:
        rest = [block async for block in FileSource(path, column="id").blocks_after(mark)]
        assert b"".join(rest) == whole[length:]


async def test_it_is_not_read_from_a_pipe(file):
    with pipe_holding(file(IDS).read_bytes()) as reading:
        assert "give it as a file" in await refused(StdinSource(reading, column="id"))


async def test_without_the_package_the_extra_is_named(file, monkeypatch):
    path = file(IDS)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert 'pip install "bulkjobs[parquet]"' in await refused(FileSource(path, column="id"))


@settings(max_examples=30)
@given(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1)), st.integers(0, 9))
def test_integers_of_any_slice_are_written_exactly(values, offset):
    array = pa.array(values, pa.int64())[offset:]
    validity, data = array.buffers()
    text = integers_of(data or b"", validity, array.offset, len(array), True, b"null")
    assert text == b"".join(b"null\n" if one is None else b"%d\n" % one for one in values[offset:])


def test_an_array_that_does_not_hold_what_it_should_is_refused():
    """Nothing is read beyond it."""
    with pytest.raises(ValueError, match="does not hold"):
        integers_of(bytes(15), None, 0, 2, True, b"")
    with pytest.raises(ValueError, match="does not hold"):
        integers_of(bytes(800), bytes(1), 0, 9, True, b"")
    with pytest.raises(ValueError, match="does not hold"):
        texts_of(b"abc", (5).to_bytes(4, "little") * 2, None, 0, 1, False, b"", b"")
    with pytest.raises(ValueError, match="does not hold"):
        texts_of(b"abc", bytes(7), None, 0, 1, False, b"", b"")
