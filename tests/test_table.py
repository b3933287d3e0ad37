"""Tables are refused before anything of them is taken for an id."""

import pytest

from bulkjobs.errors import SourceError
from bulkjobs.sources.table import not_a_table


async def read(text: bytes, size: int) -> bytes:
    async def blocks():
        for at in range(0, len(text), size):
            yield text[at : at + size]

    return b"".join([block async for block in not_a_table("ids.csv", blocks())])


TABLES = {
    "names": b"id,name\n1,Ada\n",
    "a mark in front": b"\xef\xbb\xbfcontactId,employees\r\n8802619,250\r\n",
    "quoted": b'"id","name"\n"1","Ada"\n',
    "blanks": b" id , name\n",
    "digits in a name": b"id,address1,address2\n",
    "no end": b"id,name",
    "a long head": b",".join(b"column%d" % n for n in range(2_000)),
}
LISTS = {
    "empty": b"",
    "a number first": b"1,Ada\n",
    "one column": b"contactId\n1\n",
    "one column and an empty one": b"contactId,\n1\n",
    "broken ids": b"+5,-7\n1\n",
    "other digits": "\u0663,\u0664\n5\n".encode(),
    "names further down": b"1\nid,name\n",
    "a long line of ids": b"1," * 100_000,
}


@pytest.mark.parametrize("size", [1, 7, 100_000])
@pytest.mark.parametrize("case", TABLES)
async def test_a_first_line_of_names_is_a_table_wherever_blocks_end(case, size):
    """The message names the source, shows the line and says what to do."""
    with pytest.raises(SourceError, match=r"ids.csv is a table: its first line is .*--column"):
        await read(TABLES[case], size)


@pytest.mark.parametrize("size", [1, 7, 100_000])
@pytest.mark.parametrize("case", LISTS)
async def test_anything_else_passes_unchanged(case, size):
    """Whatever is wrong with it is told id by id."""
    assert await read(LISTS[case], size) == LISTS[case]


async def test_a_hostile_head_is_shown_harmless():
    """It is printed."""
    with pytest.raises(SourceError) as caught:
        await read(b'id,"na\x1b[31mme"\n', 10)
    assert str(caught.value).isprintable()
