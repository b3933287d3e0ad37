"""The chunker against a plain reading of the rules, on any text and any cutting of it into blocks."""

import hashlib
import itertools
import re
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkjobs import chunking
from bulkjobs.chunking import Chunker
from bulkjobs.ids import fault_of
from bulkjobs.model import Tally


def cut_up(text: bytes, size: int, *, dedupe: bool = True, blocks: list[int] | None = None, names=("a",)):
    """Runs the chunker over the text, cut into blocks at the given positions, and gives all it produced."""
    chunker = Chunker(size, dedupe=dedupe)
    chunks, invalid = [], []
    edges = [0, *sorted(b % (len(text) + 1) for b in blocks or []), len(text)]
    for name in names:
        chunker.begin(name)
        for start, stop in itertools.pairwise(edges):
            cut = chunker.feed(text[start:stop])
            chunks += cut.chunks
            invalid += cut.invalid
        cut = chunker.end()
        chunks += cut.chunks
        invalid += cut.invalid
    last, tail = chunker.finish()
    return chunks + ([last] if last else []), invalid, tail, chunker


def plainly(text: bytes, *, dedupe: bool):
    """Reads the same text token by token, as slowly and obviously as possible."""
    text = text.removeprefix(b"\xef\xbb\xbf") + b"\n"
    ids, invalid, duplicates, seen = [], [], 0, set()
    lines = text.replace(b"\r\n", b"\n").split(b"\n")
    for number, line in enumerate(lines, 1):
        for token in line.split(b","):
            stripped = token.strip(b" \t")
            if not stripped:
                continue
            if not re.fullmatch(rb"[1-9][0-9]{0,18}", stripped):
                invalid.append(number)
            elif dedupe and stripped in seen:
                duplicates += 1
            else:
                seen.add(stripped)
                ids.append((stripped, number))
    return ids, invalid, duplicates


pieces = st.sampled_from(
    [b"1", b"22", b"13496440", b"8802619", b"225", b"9999999999999999999", b"0", b"007", b"x", b"+5", b"1_2",
     b"1e5", b" ", b"\t", b",", b"\n", b"\r\n", b"\r", b", ", b"\x00", b"\xef\xbb\xbf", b"12345678901234567890"]
)  # fmt: skip
texts = st.lists(pieces, max_size=60).map(b"".join)


clean = st.integers(1, 10**19 - 1).map(lambda number: b"%d" % number)
short = st.integers(1, 10**8).map(lambda number: b"%d" % number)
flawed = st.sampled_from(
    [b"", b"0", b"012", b"9" * 20, b"8" * 27, b"1,2", b" 7", b"5 ", b"4\r", b"x", b"12/4", b"12:4", b"1\x003", b"1\x8a3",
     b"\xb1\xb2", b"\x8a"]
)  # fmt: skip
mostly_clean_lines = st.lists(st.one_of(clean, short, short, short, flawed), max_size=80).map(
    lambda lines: b"\n".join([*lines, b""])
)


@given(
    st.one_of(texts, mostly_clean_lines),
    st.integers(1, 13),
    st.booleans(),
    st.lists(st.integers(0, 500), max_size=6),
)
def test_any_text_in_any_blocks_gives_what_a_plain_reading_gives(text, size, dedupe, blocks):
    """Whole-buffer work and a token-by-token reading agree on ids, order, lines and counts."""
    chunks, invalid, tail, chunker = cut_up(text, size, dedupe=dedupe, blocks=blocks)
    ids, bad_lines, duplicates = plainly(text, dedupe=dedupe)

    assert b"\n".join(c.body for c in chunks) == b"\n".join(i for i, _ in ids)
    assert [i.line for i in invalid] == bad_lines
    total = sum((c.tally for c in chunks), tail)
    assert total == Tally(invalid=len(bad_lines), duplicate=duplicates) == chunker.totals
    assert chunker.ids == len(ids)
    for n, chunk in enumerate(chunks):
        mine = ids[n * size : (n + 1) * size]
        assert chunk.ordinal == n + 1
        assert chunk.body == b"\n".join(i for i, _ in mine)
        assert (chunk.ids, chunk.line) == (len(mine), mine[0][1])
        assert (chunk.first_id, chunk.last_id) == (mine[0][0].decode(), mine[-1][0].decode())
        assert chunk.digest == hashlib.sha256(chunk.body).hexdigest()


def test_any_byte_at_any_place_of_a_clean_line_is_seen():
    """Eight bytes are checked at a time."""
    clean_text = b"12345678\n2345678901\n9\n0" + b"1234567890123456789\n" * 2
    for at in range(len(clean_text)):
        for byte in range(256):
            text = clean_text[:at] + bytes([byte]) + clean_text[at + 1 :]
            chunks, invalid, *_ = cut_up(text, 3, dedupe=False)
            ids, bad_lines, _ = plainly(text, dedupe=False)
            assert b"\n".join(chunk.body for chunk in chunks) == b"\n".join(id_ for id_, _ in ids), text
            assert [one.line for one in invalid] == bad_lines, text


@given(texts, st.integers(1, 7), st.lists(st.integers(0, 500), max_size=6))
def test_where_blocks_end_changes_nothing(text, size, blocks):
    """Chunks, tallies and reports are the same for every cutting of the same text, tally by tally."""
    assert cut_up(text, size, blocks=blocks)[:3] == cut_up(text, size)[:3]


CAP = 24
"""Longer than any id, short enough for many long pieces in a small text."""

longs = st.sampled_from(
    [b"1", b"x", b",", b"\n", b"\r\n", b"\r", b" ", b", ", b" " * 23, b" " * 24, b" " * 25, b"\t" * 60,
     b"7" * 19, b"7" * 24, b"7" * 25, b"7" * 60, b"x" * 23, b"x" * 26, b"x \r" * 9, b"1 \n " * 3]
)  # fmt: skip
long_texts = st.lists(longs, max_size=30).map(b"".join)


@given(long_texts, st.integers(1, 4), st.lists(st.integers(0, 700), max_size=40))
def test_overlong_pieces_are_told_alike_wherever_blocks_end(text, size, blocks):
    """Digits, junk and blanks beyond the longest token: the same report, and blanks around an id never matter."""
    with mock.patch.object(chunking, "_LONGEST_TOKEN_BYTES", CAP):
        whole = cut_up(text, size)
        assert cut_up(text, size, blocks=blocks)[:3] == whole[:3]
        assert cut_up(text, size, blocks=list(range(len(text))))[:3] == whole[:3]
    ids, bad_lines, duplicates = plainly(text, dedupe=True)
    assert b"\n".join(c.body for c in whole[0]) == b"\n".join(i for i, _ in ids)
    assert [i.line for i in whole[1]] == bad_lines
    assert whole[3].totals == Tally(invalid=len(bad_lines), duplicate=duplicates)


@pytest.mark.parametrize("text", [b"", b"5", b"5\r", b"\r"], ids=repr)
def test_blanks_without_end_are_no_fault_and_cost_no_memory(text):
    """A megabyte of them before and behind an id is what one blank is."""
    chunker = Chunker(10, dedupe=True)
    chunker.begin("a")
    invalid = []
    for block in [
        *([b" " * 65_536] * 16),
        text.rstrip(b"\r"),
        *([b"\t" * 65_536] * 16),
        text[-1:].strip(b"5"),
        b"\n6",
    ]:
        invalid += chunker.feed(block).invalid
        assert len(chunker._rest) <= 2 * 65_536 + 2
    invalid += chunker.end().invalid
    last, tail = chunker.finish()
    assert (invalid, last.body, last.tally + tail) == ([], b"5\n6" if b"5" in text else b"6", Tally())


def test_chunks_go_on_over_the_end_of_a_source():
    """Two files of three ids fill one chunk of four and one of two; line and source are those of the first id."""
    text = b"1\n2\n3"
    chunks, _, _, _ = cut_up(text, 4, dedupe=False, names=("a", "b"))
    assert [c.body for c in chunks] == [b"1\n2\n3\n1", b"2\n3"]
    assert [(c.source, c.line) for c in chunks] == [("a", 1), ("b", 2)]


def test_duplicates_are_found_across_sources():
    chunks, _, tail, _ = cut_up(b"1\n2\n3", 10, names=("a", "b"))
    assert [c.body for c in chunks] == [b"1\n2\n3"]
    assert (chunks[0].tally, tail) == (Tally(duplicate=3), Tally())


def test_a_tally_counts_what_stood_before_the_last_id_of_its_chunk():
    chunks, _, tail, _ = cut_up(b"x\n1\n1\n2\ny\n3\n4\nz\n4", 2)
    assert [c.tally for c in chunks] == [Tally(invalid=1, duplicate=1), Tally(invalid=1)]
    assert tail == Tally(invalid=1, duplicate=1)


def test_a_line_without_end_is_reported_once_and_not_kept():
    """A gigabyte without a separator costs one report and no memory; what follows it is read as usual."""
    chunker = Chunker(10, dedupe=True)
    chunker.begin("big")
    chunker.feed(b"1\n")
    for _ in range(64):
        chunker.feed(b"7" * 65_536)
    assert len(chunker._rest) < 200_000
    cut = chunker.feed(b"7\n2\n")
    assert [(i.line, i.reason) for i in cut.invalid] == [
        (2, "more than 65536 bytes without a newline or a comma")
    ]
    assert len(cut.invalid[0].text) <= 200
    chunker.end()
    last, tail = chunker.finish()
    assert last is not None
    assert last.body == b"1\n2"
    assert last.line == 1
    assert last.tally + tail == Tally(invalid=1)


def test_a_line_number_goes_on_after_an_overlong_line():
    chunker = Chunker(10, dedupe=True)
    chunker.begin("big")
    chunker.feed(b"x" * 100_000)
    cut = chunker.feed(b",5\nbad\n")
    assert [(i.line, i.text[:3]) for i in cut.invalid] == [(1, "xxx"), (2, "bad")]


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n", b"\r\n\r\n", b",", b"  ", b"\r"])
def test_any_last_line_end_will_do(ending):
    text = b"1\r\n2" + ending
    chunks, invalid, _, _ = cut_up(text, 10)
    assert (chunks[0].body, invalid) == (b"1\n2", [])


def test_ids_up_to_nineteen_digits_are_kept_to_the_digit():
    """No float is on the way: the largest ids, above 2**63 too, come out as they went in."""
    ids = [
        b"9999999999999999999",
        b"9223372036854775807",
        b"9223372036854775808",
        b"1",
        b"9999999999999999998",
    ]
    chunks = cut_up(b"\n".join(ids * 2), 100)[0]
    assert chunks[0].body == b"\n".join(ids)
    assert chunks[0].tally.duplicate == len(ids)


@pytest.mark.parametrize("separator", [b"\n", b"\r\n"])
@pytest.mark.parametrize("dedupe", [True, False])
def test_large_blocks_take_the_same_way(separator, dedupe):
    """A few hundred thousand ids with every kind of trouble strewn in come out as a plain reading says."""
    random = np.random.default_rng(5)
    tokens = [b"%d" % n for n in random.integers(1, 400_000, 300_000)]
    for at, odd in zip(
        random.integers(0, len(tokens), 900), [b"x", b" 7 ", b"", b"007", b"1,2,,3"] * 180, strict=True
    ):
        tokens[at] = odd
    text = separator.join(tokens)
    blocks = list(range(0, len(text), 250_000))
    chunks, invalid, tail, _ = cut_up(text, 10_000, dedupe=dedupe, blocks=blocks)
    ids, bad_lines, duplicates = plainly(text, dedupe=dedupe)
    assert b"\n".join(c.body for c in chunks) == b"\n".join(i for i, _ in ids)
    assert [i.line for i in invalid] == bad_lines
    assert sum((c.tally for c in chunks), tail).duplicate == duplicates


def test_the_rule_of_the_plain_reading_is_the_rule_of_the_module():
    for text in (b"1", b"9" * 19, b"0", b"01", b"9" * 20, b"1 2", b"\xd9\xa3", b"1.0", b"-1"):
        assert (fault_of(text) is None) == bool(re.fullmatch(rb"[1-9][0-9]{0,18}", text))
