"""The generator of ids: exact counts, the same bytes for the same values, nothing held."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import data
from benchmarks.checked import WrongResult, check_books
from benchmarks.data import DataSpec, Permutation, blocks, distinct_ids, main, opaque_text
from bulkjobs.chunking import Chunker
from bulkjobs.ids import IdForm

SPECS = [
    DataSpec(ids=1),
    DataSpec(ids=1, duplicates=1.0, invalid=1.0),
    DataSpec(ids=70_000, duplicates=0.02, invalid=0.001),
    DataSpec(ids=70_001, duplicates=1.0, invalid=0.5, seed=7),
    DataSpec(ids=5_000, duplicates=0.1, spread=8),
    DataSpec(ids=5_000, duplicates=0.1, spread=10**12),
]
OPAQUE = DataSpec(ids=70_001, duplicates=0.3, invalid=0.01, opaque=True)


def positions(size: int) -> np.ndarray:
    return np.arange(size, dtype=np.uint64)


@given(size=st.integers(1, 3_000), seed=st.integers(0, 2**32))
def test_a_permutation_gives_every_number_once(size, seed):
    assert sorted(Permutation(size, seed)(positions(size)).tolist()) == list(range(size))


def test_a_permutation_of_any_size_gives_distinct_numbers_in_no_visible_order():
    """Half of the steps go up and half go down, as in a shuffled list, and the mean is that of the range."""
    values = Permutation(10**15, 3)(positions(50_000))
    assert len(np.unique(values)) == 50_000
    assert 0.48 < np.mean(values[1:] > values[:-1]) < 0.52
    assert 0.48 < values.mean() / 10**15 < 0.52


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_a_file_holds_exactly_what_it_says(spec):
    """Counted line by line: the distinct ids, each of them as often as it must be, and the lines that are none."""
    lines = b"".join(blocks(spec)).splitlines()
    valid = [line for line in lines if line.isdigit() and len(line) == spec.digits]
    assert len(lines) == spec.lines
    assert len(valid) == spec.ids + spec.duplicate_lines
    distinct = {int(line) for line in valid}
    assert len(distinct) == spec.ids
    assert distinct == {int(i) for block in distinct_ids(spec) for i in block}
    assert spec.lowest <= min(distinct) <= max(distinct) < spec.lowest + spec.ids * spec.spread


@pytest.mark.parametrize("spec", [*SPECS, OPAQUE], ids=str)
def test_the_program_counts_what_the_file_says(spec):
    chunker = Chunker(10_000, dedupe=True, form=IdForm.OPAQUE if spec.opaque else IdForm.INTEGER)
    chunker.begin("made")
    for block in blocks(spec):
        chunker.feed(block)
    chunker.end()
    found = (chunker.ids, chunker.totals.duplicate, chunker.totals.invalid)
    assert found == (spec.ids, spec.duplicate_lines, spec.invalid_lines)


def test_an_opaque_id_has_the_length_and_the_letters_of_real_ones():
    """And no more in common with the next than chance gives it."""
    words = opaque_text(positions(3)).split()
    assert all(re.fullmatch(rb"[A-Za-z0-9_-]{64}", word) for word in words)
    assert all(sum(a == b for a, b in zip(one, other, strict=True)) < 8 for one, other in pairwise(words))


def test_the_same_values_give_the_same_bytes_and_another_seed_another_order():
    first, again, other = (
        b"".join(blocks(DataSpec(ids=1_000, duplicates=0.1, invalid=0.1, seed=seed))) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other
    assert Counter(first.splitlines()).keys() == Counter(other.splitlines()).keys()  # the whole range, both


def test_duplicates_and_invalid_lines_come_throughout(monkeypatch):
    """Every block has its share of them, so a part of a file is like the whole."""
    monkeypatch.setattr(data, "_BLOCK_IDS", 1_000)
    spec = DataSpec(ids=10_000, duplicates=0.05, invalid=0.02)
    met: set[bytes] = set()
    for block in blocks(spec):
        lines = block.splitlines()
        fresh = {line for line in lines if len(line) == spec.digits and line.isdigit()} - met
        assert (len(lines), len(fresh)) == (1_070, 1_000)
        met |= fresh


def test_more_ids_than_eight_digits_can_tell_apart_get_another_digit():
    spec = DataSpec(ids=90_000_001)
    assert (DataSpec(ids=90_000_000).digits, spec.digits) == (8, 9)
    assert {len(line) for line in next(blocks(spec)).splitlines()} == {9}


@pytest.mark.parametrize("packed", [False, True])
def test_the_command_writes_the_file_and_tells_what_it_made(packed, tmp_path, capsys):
    path = tmp_path / "ids"
    argv = ["--ids", "1_000", "--duplicates", "0.02", "--invalid", "0.01", "--seed", "5", "-o", str(path)]
    main([*argv, "--gzip"] if packed else argv)
    stored = path.read_bytes()
    text = gzip.decompress(stored) if packed else stored
    spec = DataSpec(ids=1_000, duplicates=0.02, invalid=0.01, seed=5)
    assert text == b"".join(blocks(spec))
    assert json.loads(capsys.readouterr().out) == {
        "file": str(path),
        "lines": 1_030,
        "ids": 1_000,
        "duplicate": 20,
        "invalid": 10,
        "digits": 8,
        "opaque": False,
        "spread": 1,
        "seed": 5,
        "text_bytes": len(text),
        "file_bytes": len(stored),
    }


@pytest.mark.parametrize(
    "wrong",
    [
        ["--ids", "0"],
        ["--ids", "5", "--duplicates", "1.5"],
        ["--ids", "9", "--spread", str(10**18)],
        ["--ids", "x"],
    ],
)
def test_values_that_make_no_sense_are_refused(wrong, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main([*wrong, "-o", str(tmp_path / "ids")])
    assert end.value.code == 2
    assert "error" in capsys.readouterr().err
    assert not (tmp_path / "ids").exists()


BOOKED = DataSpec(ids=3)
FIRST, SECOND, THIRD = sorted(int(i) for block in distinct_ids(BOOKED) for i in block)


def are_right(books, accepted):
    books.write_text("".join(f"{i}\n" for i in accepted))
    try:
        check_books(BOOKED, books)
    except WrongResult:
        return False
    return True


def test_books_with_each_id_once_are_right_in_any_order(tmp_path):
    assert are_right(tmp_path / "books", [THIRD, FIRST, SECOND])


@pytest.mark.parametrize(
    "accepted",
    [[FIRST, SECOND], [FIRST, SECOND, SECOND], [FIRST, SECOND, THIRD, THIRD], [FIRST, SECOND, THIRD + 1]],
    ids=["missing", "missing and twice", "twice", "never made"],
)
def test_the_judge_of_the_benchmark_catches_a_wrong_result(accepted, tmp_path):
    assert not are_right(tmp_path / "books", accepted)
