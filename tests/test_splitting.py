"""Parts of a chunk are the chunk, only smaller; and few submissions find one bad id among many."""

from __future__ import annotations

import hashlib
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkjobs.model import FIRST_PART, Chunk, Tally
from bulkjobs.splitting import part_body, parts_of

MOST = 28
"""Submissions to find one bad id among 10,000, the first one included."""

some_ids = st.lists(st.integers(1, 10**19 - 1), min_size=2, max_size=200)


def chunk_of(ids: list[int], **more: object) -> Chunk:
    body = "\n".join(map(str, ids)).encode()
    given_ = {"ordinal": 7, "source": "ids.txt", "line": 61, "tally": Tally(invalid=3, duplicate=2)} | more
    return Chunk(
        body=body,
        ids=len(ids),
        digest=hashlib.sha256(body).hexdigest(),
        first_id=str(ids[0]),
        last_id=str(ids[-1]),
        **given_,
    )


@cache
def sizes_of(ids: int) -> list[int]:
    return [part.ids for part in parts_of(chunk_of(list(range(1, ids + 1))))]


@given(some_ids)
def test_the_parts_together_are_the_chunk(ids: list[int]) -> None:
    parts = parts_of(chunk_of(ids))
    assert b"\n".join(part.body for part in parts) == chunk_of(ids).body
    assert sum(part.ids for part in parts) == len(ids)
    assert len(parts) >= 2
    assert all(part.ids >= 1 for part in parts)


@given(some_ids)
def test_each_part_says_of_itself_what_is_true(ids: list[int]) -> None:
    chunk = chunk_of(ids)
    for part in parts_of(chunk):
        mine = ids[part.first : part.first + part.ids]
        assert part.body == "\n".join(map(str, mine)).encode()
        assert part.digest == hashlib.sha256(part.body).hexdigest()
        assert (part.first_id, part.last_id) == (str(mine[0]), str(mine[-1]))
        assert (part.source, part.line) == (chunk.source, chunk.line)
        assert part.ordinal >= FIRST_PART


@given(some_ids)
def test_what_stood_between_the_ids_is_counted_for_the_chunk_alone(ids: list[int]) -> None:
    assert all(part.tally == Tally() for part in parts_of(chunk_of(ids)))


@given(some_ids, st.data())
def test_a_part_of_a_part_is_found_in_the_chunk_that_the_source_gives(
    ids: list[int], data: st.DataObject
) -> None:
    """However deep it was divided: the source knows the chunk, not the parts in between."""
    chunk = chunk_of(ids)
    part = chunk
    while part.ids > 1:
        part = data.draw(st.sampled_from(parts_of(part)))
        assert part.parent == chunk.ordinal
        assert part_body(chunk.body, part.first, part.ids) == part.body


@pytest.mark.parametrize(
    ("ids", "sizes"),
    [(2, [1, 1]), (3, [1, 1, 1]), (4, [2, 2]), (5, [3, 2]), (7, [4, 3]), (10_000, [5_000, 5_000])],
)
def test_a_chunk_is_halved_and_from_three_ids_down_divided_into_single_ones(
    ids: int, sizes: list[int]
) -> None:
    assert sizes_of(ids) == sizes


@cache
def submissions(ids: int, bad: int) -> int:
    """Counts the submissions of a chunk and its parts until the one bad id is alone; `bad` is its index."""
    if ids == 1 or not 0 <= bad < ids:
        return 1
    count = 1
    for size in sizes_of(ids):
        count += submissions(size, bad if 0 <= bad < size else -1)
        bad -= size
    return count


def test_one_bad_id_anywhere_among_10_000_is_alone_after_at_most_28_submissions() -> None:
    counts = [submissions(10_000, bad) for bad in range(10_000)]
    assert max(counts) == MOST
    assert min(counts) > 1


@given(st.integers(1, 10_000), st.data())
def test_a_smaller_chunk_never_takes_more(ids: int, data: st.DataObject) -> None:
    assert submissions(ids, data.draw(st.integers(0, ids - 1))) <= MOST
