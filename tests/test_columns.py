"""Tables as sources: a column comes out as text, with the lines of the table."""

import csv
import gzip
import io
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from support.pipes import pipe_holding

from bulkjobs._table import column_of
from bulkjobs.chunking import Chunker
from bulkjobs.errors import ConfigError, SourceError
from bulkjobs.ids import EMPTY_CELL, MISSING_CELL, fault_of
from bulkjobs.sources import FileSource, open_sources
from bulkjobs.sources.delimited import ColumnReader
from bulkjobs.sources.stdin import StdinSource

TABLE = b"id,name,employees\n225,Ada,7\n226,Grace,8\n"


def column(table: bytes, wanted: str | int, *, step: int = 0) -> bytes:
    """Gives the column of a table that comes in steps."""
    reader = ColumnReader("ids.csv", wanted)
    steps = range(0, len(table), step or max(1, len(table)))
    return b"".join([reader.feed(table[at : at + (step or len(table))]) for at in steps]) + reader.finish()


def refused(table: bytes, wanted: str | int) -> str:
    with pytest.raises(SourceError) as caught:
        column(table, wanted)
    assert str(caught.value).isprintable()
    return str(caught.value)


async def read(source) -> bytes:
    return b"".join([block async for block in source.blocks()])


# Which column


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "with a mark"])
def test_the_delimiter_is_told_from_the_names(delimiter, end, mark):
    table = mark + TABLE.replace(b",", delimiter.encode()).replace(b"\n", end)
    for wanted in ("id", 1):
        assert column(table, wanted) == b"\n225\n226\n"
    assert column(table, "employees") == column(table, 3) == b"\n7\n8\n"


def test_the_delimiter_that_gives_a_column_of_that_name_is_the_one():
    """Although there is more of another one."""
    assert column(b"id;last, first, middle\n5;a, b, c\n", "id") == b"\n5\n"


def test_a_table_of_one_column_needs_no_delimiter():
    assert column(b"id\n5\n6\n", "id") == b"\n5\n6\n"


@pytest.mark.parametrize("first", [b"225", b"007", b"-5", b"8802619.0", b'"225"', b"", b" 225", b"a" * 64])
def test_a_first_row_that_begins_like_an_id_is_one_when_the_column_is_given_by_its_number(first):
    """Also when something is wrong with it: then it is reported, and not taken for a name."""
    table = b"x," + first + b"\ny,226\n"
    assert column(table, 2).count(b"\n") == 2
    assert column(table, 2) != b"\n226\n"


@pytest.mark.parametrize("name", ["id", "Id 1", "ИД", "_id", '"id"'])
def test_a_first_row_of_names_is_passed_over(name):
    assert column(f"x,{name}\ny,226\n".encode(), 2) == b"\n226\n"


def test_blanks_around_a_name_and_quotes_are_no_part_of_it():
    assert column(b'x , "contact id" \n1,5\n'.replace(b' "', b'"'), "contact id") == b"\n5\n"


def test_names_may_go_over_several_lines():
    assert column(b'"the\nid",x\n5,6\n', "the\nid") == b"\n\n5\n"


def test_a_missing_column_is_refused_with_those_there_are():
    assert refused(TABLE, "ids") == "ids.csv has no column 'ids'. Its columns are: id, name, employees."
    assert refused(TABLE, 4).startswith(
        "ids.csv has no column number 4. Its columns are: id, name, employees"
    )


def test_of_many_columns_only_the_first_are_named():
    names = b",".join(b"c%d" % n for n in range(1_000))
    assert refused(names + b"\n", "id").endswith("c19 and 980 more.")


def test_a_name_that_stands_twice_is_refused_with_the_numbers():
    assert "Give the number of one: --column 1 or --column 3" in refused(b"id,x,id\n1,2,3\n", "id")


def test_a_hostile_name_is_shown_harmless():
    assert "\\x1b" in refused(b"na\x1b[31mme,x\n", "id")


def test_utf_16_is_refused_with_what_to_do():
    assert "iconv" in refused("id,x\n1,2\n".encode("utf-16"), "id")


@pytest.mark.parametrize("table", [b"", b"\xef\xbb\xbf", b"\n\n"])
def test_an_empty_file_is_an_empty_table(table):
    assert column(table, "id").strip() == b""


def test_names_without_rows_are_a_table_without_ids():
    assert column(b"id,x", "id") == column(b"id,x\n", "id") == b"\n"


# What comes out


def test_cells_come_out_without_their_quotes_and_on_their_lines():
    table = b'name,id\n"a\nb","5"\n"say ""hi""",6\nx,"7"\n'
    assert column(table, "id") == b"\n5\n\n6\n7\n"


def test_rows_without_an_id_are_told():
    """They would vanish otherwise, and somebody will miss them."""
    assert column(b'id,x\n,1\n"",2\n  ,3\n5\n', 1) == b"\n" + 3 * (EMPTY_CELL + b"\n") + b"5\n"
    assert column(b"x,id\n1\n", "id") == b"\n" + MISSING_CELL + b"\n"
    assert all("this row has no id" in fault_of(word) for word in (EMPTY_CELL, MISSING_CELL))


def test_empty_lines_are_no_rows():
    assert column(b"id,x\n\n5,1\n\r\n\n6,2\n\n", "id") == b"\n\n5\n\n\n6\n\n"


def test_a_cell_stays_one_piece_whatever_is_in_it():
    table = b'id;x\n"5,6";1\n"7\n8";2\n9,10;3\n11\r;4\n'
    assert column(table, "id") == b"\n5\\x2c6\n7\\n8\n\n9\\x2c10\n11\\r\n"


def test_invalid_ids_are_reported_on_the_line_of_the_table():
    chunker = Chunker(10, dedupe=True)
    chunker.begin("ids.csv")
    cut = chunker.feed(column(b'name,id\n"a\nb",5\nx,8802619.0\ny,\nz,6\n', "id"))
    assert [(one.line, one.text) for one in cut.invalid] == [(4, "8802619.0"), (5, "(empty cell)")]
    assert "floats" in cut.invalid[0].reason


@pytest.mark.parametrize("table", [b'id,x\n5,"open\n6,7\n', b'id,x\n5,6\n"7'])
def test_a_quote_that_is_not_closed_is_told_and_what_stands_before_it_stays(table):
    reader = ColumnReader("ids.csv", "id")
    read = reader.feed(table)
    with pytest.raises(SourceError, match="a quote is opened and not closed"):
        read += reader.finish()
    assert read in (b"\n", b"\n5\n")


def test_a_quote_that_stays_open_does_not_gather_the_whole_file():
    reader = ColumnReader("ids.csv", "id")
    reader.feed(b'id,x\n5,"')
    with pytest.raises(SourceError, match="not closed"):
        for _ in range(40):
            reader.feed(b"1,2\n" * 16_384)
    assert reader.held_bytes < 2 * 2**20


cells = st.text(st.sampled_from('15,;\n"x \r'), max_size=6)


def as_it_comes_out(cell: str) -> bytes:
    """Separators escaped, as they are in ids that are objects."""
    text = cell.encode() if cell.strip(" ") else EMPTY_CELL
    return text.replace(b"\r", b"\\r").replace(b"\n", b"\\n").replace(b",", b"\\x2c")


@settings(max_examples=50)
@given(
    st.lists(st.lists(cells, min_size=1, max_size=4), max_size=6),
    st.integers(0, 3),
    st.sampled_from([(csv.QUOTE_ALL, "\n"), (csv.QUOTE_ALL, "\r\n"), (csv.QUOTE_MINIMAL, "\r\n")]),
    st.integers(1, 40),
)
def test_what_the_standard_library_writes_is_read_wherever_blocks_end(rows, index, style, step):
    """One line for each line of the table; the cell on the first of its row."""
    written = io.StringIO()
    csv.writer(written, quoting=style[0], lineterminator=style[1]).writerows(rows)
    table = written.getvalue().encode()
    expected = b""
    for row in rows:
        cell = as_it_comes_out(row[index]) if index < len(row) else MISSING_CELL
        expected += cell + b"\n" * (1 + sum(one.count("\n") for one in row))
    found, held = b"", b""
    for at in range(0, len(table), step):
        held += table[at : at + step]
        text, taken = column_of(held, ord(","), index, EMPTY_CELL, MISSING_CELL)
        found, held = found + text, held[taken:]
    assert (found, held) == (expected, b"")


@settings(max_examples=50)
@given(
    st.binary(max_size=60).map(lambda text: bytes(b'1,"\n\rx'[byte % 6] for byte in text)), st.integers(0, 3)
)
def test_any_text_gives_a_line_for_each_of_its_lines_and_no_separator_in_one(table, index):
    text, taken = column_of(table, ord(","), index, EMPTY_CELL, MISSING_CELL)
    assert text.count(b"\n") == table[:taken].count(b"\n")
    assert b"," not in text
    assert b"\r" not in text


# Where tables come from


async def test_a_table_may_be_compressed_or_come_through_a_pipe(tmp_path: Path):
    path = tmp_path / "ids.csv"
    path.write_bytes(gzip.compress(TABLE))
    assert await read(FileSource(path, column="id")) == b"\n225\n226\n"
    with pipe_holding(TABLE) as reading:
        assert await read(StdinSource(reading, column=1)) == b"\n225\n226\n"


@pytest.mark.parametrize("wanted", ["id", 2])
async def test_a_table_can_be_read_on_behind_any_block(tmp_path: Path, wanted):
    """The names of the columns are looked up again."""
    path, whole = tmp_path / "ids.csv", b""
    path.write_bytes(b"name,id\n" + b"".join(b'"a\nb",%d\n' % n for n in range(200_000)))
    source, marks = FileSource(path, column=wanted), []
    async for block in source.blocks():
        whole += block
        marks.append((source.mark, len(whole)))
    assert len(marks) > 1
    for mark, length in marks:
        if mark is not None:
            again = FileSource(path, column=wanted)
            assert b"".join([block async for block in again.blocks_after(mark)]) == whole[length:]


def test_a_column_of_what_is_no_table_is_refused():
    with pytest.raises(ConfigError, match="--column"):
        open_sources([[1, 2]], column="id")
