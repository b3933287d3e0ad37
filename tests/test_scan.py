"""The extension under the chunker: the set of ids already met against Python's own, and what it must refuse."""

import os
import random
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkjobs._scan import Scanner
from bulkjobs.rundir import unnamed_file

integers = st.one_of(
    st.integers(1, 200),
    st.integers(1, 10**19 - 1),
    st.integers(10**18, 10**18 + 500),
    st.integers(65_000, 66_100),
)
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"
opaque = st.text(ALPHABET, min_size=32, max_size=64)
FORMS = pytest.mark.parametrize("form", ["integer", "opaque"])


def scanner(*, form: str = "integer", dedupe: bool = True, size: int = 1) -> Scanner:
    return Scanner(size, dedupe=dedupe, opaque=form == "opaque")


def kept(one: Scanner, ids) -> list[str]:
    """Scans ids, one a line, and gives those that were met for the first time."""
    text = "".join(f"{i}\n" for i in ids).encode()
    pieces, faults = one.scan(text, 0, len(text))
    assert faults == []
    return [piece[0].decode() for piece in pieces]


def some(form: str, count: int, seed: int) -> list[str]:
    """Gives distinct ids; dense ones, ones near each other and scattered ones."""
    chance = random.Random(seed)
    if form == "opaque":
        return [
            "".join(chance.choices(ALPHABET, k=chance.choice((31, 43, 57)))) + f"{n}z" for n in range(count)
        ]
    numbers = {chance.choice((chance.randrange(1, 3 * count), chance.randrange(1, 10**9), chance.randrange(1, 10**19)))
               for _ in range(count)}  # fmt: skip
    return [str(n) for n in chance.sample(sorted(numbers), len(numbers))]


@given(st.lists(st.lists(integers, max_size=200), max_size=8))
def test_integers_are_met_first_exactly_where_a_set_says_so(blocks):
    one, plain = scanner(), set()
    for block in blocks:
        fresh = list(dict.fromkeys(i for i in block if i not in plain))
        plain.update(block)
        assert kept(one, block) == [str(i) for i in fresh]


@given(st.lists(st.lists(opaque, max_size=60), max_size=6))
def test_opaque_ids_are_met_first_exactly_where_a_set_says_so(blocks):
    one, plain = scanner(form="opaque"), set()
    for block in blocks:
        fresh = list(dict.fromkeys(i for i in block if i not in plain))
        plain.update(block)
        assert kept(one, block) == fresh


@pytest.mark.parametrize("step", [1, 64, 4096, 30_000, 2**41])
def test_it_keeps_every_integer_while_it_grows(step):
    """Many table sizes and page forms later every id is still known and none that was never met."""
    members = [n * step + 1 for n in random.Random(3).sample(range(100_000), 100_000)]
    one = scanner()
    for begin in range(0, len(members), 7_919):
        assert len(kept(one, members[begin : begin + 7_919])) == len(members[begin : begin + 7_919])
    assert kept(one, members) == []
    assert len(kept(one, [n + 100_000 * step for n in members])) == len(members)


@FORMS
def test_a_set_that_was_dumped_and_loaded_is_the_same_set(form):
    ids = some(form, 200_000, seed=5)
    first, second = scanner(form=form), scanner(form=form)
    assert kept(first, ids) == ids
    place, parts = 0, []
    while (dumped := first.dump(place))[0]:
        parts.append(dumped[0])
        place = dumped[1]
    for part in parts:
        second.load(part)
    others = some(form, 1_000, seed=6)
    assert len(parts) > 1
    assert kept(second, ids) == []
    assert kept(second, others) == kept(first, others)


@FORMS
@pytest.mark.parametrize("part", [b"\x00", b"x" * 11, b"\xff" * 40, b"\x07abc"])
def test_bytes_that_are_no_dump_are_refused(form, part):
    with pytest.raises(ValueError, match="no part of a set"):
        scanner(form=form).load(part)


@FORMS
def test_a_chunk_that_was_begun_is_gone_on_with_by_another_scanner(form):
    ids = some(form, 25, seed=7)
    text = "".join(f"{i}\n" for i in ids).encode()
    at = text.index(b"\n", 60) + 1
    whole, first, second = (scanner(form=form, size=20, dedupe=False) for _ in range(3))
    for one in (whole, first):
        one.begin(3)
    first.scan(text, 0, at)
    second.resume(first.pending(), first.closed)
    second.begin(3, first.line)
    assert second.scan(text, at, len(text)) == whole.scan(text, 0, len(text))
    assert (second.pending(), second.totals, second.line) == (whole.pending(), whole.totals, whole.line)


@pytest.mark.parametrize("ids", [-1, 2, 3])
def test_a_chunk_that_is_full_is_not_gone_on_with(ids):
    with pytest.raises(ValueError, match="not full"):
        scanner(size=2, dedupe=False).resume((b"1\n2\n3\n", ids, 0, 1, 0, 0), (0, 0, 0))


def test_dense_ids_take_a_few_bits_each_and_scattered_ones_some_bytes():
    dense, near, far = scanner(), scanner(), scanner()
    kept(dense, range(1, 1_000_001))
    kept(near, range(1, 10_000_001, 100))
    kept(far, range(1, 10**18, 10**13))
    assert dense.seen_bytes < 200_000
    assert near.seen_bytes < 6 * 100_000
    assert far.seen_bytes < 48 * 100_000


@pytest.mark.parametrize(("start", "end"), [(0, 3), (-1, 2), (0, 5), (3, 2)])
def test_only_whole_tokens_inside_the_text_are_scanned(start, end):
    with pytest.raises(ValueError, match="whole tokens"):
        scanner().scan(b"1\n2\n"[:4], start, end)


def test_digits_up_to_the_very_end_of_the_text_are_read_within_it():
    """Every length of an id and of the text before it, each at the end of a buffer of its own."""
    for before in range(40):
        for digits in range(1, 22):
            text = bytearray(b"5\n" * before + b"7" * digits + b"\n")
            one = scanner(size=10**6, dedupe=False)
            pieces, faults = one.scan(text, 0, len(text))
            assert (pieces, [f[2] for f in faults]) == ([], [] if digits <= 19 else [digits])
            assert one.pending()[0] == (bytes(text) if digits <= 19 else b"5\n" * before)


def test_two_threads_cannot_scan_with_one_scanner_at_a_time():
    one, text, refusals = scanner(size=10**9), b"1234567\n" * 500_000, []
    ready = threading.Barrier(2)

    def work() -> None:
        ready.wait()
        try:
            one.scan(text, 0, len(text))
        except RuntimeError as error:
            refusals.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept_ids, _, duplicates = one.totals
    assert kept_ids + duplicates == 500_000 * (2 - len(refusals))
    assert refusals in ([], ["A Scanner works for one thread at a time."])


@pytest.mark.parametrize("size", [0, -1])
def test_a_chunk_has_at_least_one_id(size):
    with pytest.raises(ValueError, match="at least one"):
        Scanner(size, dedupe=True, opaque=False)


# --- a set of texts that is larger than its memory should be ---


def words(count: int) -> list[str]:
    return [f"{number:064d}" for number in range(count)]


@pytest.mark.parametrize("kept_in", ["a file", "a full disk", "memory"])
def test_texts_are_told_apart_wherever_they_are_kept(tmp_path, kept_in):
    """Some in memory and some in the file, in the order of their coming and in none; also after a dump."""
    file = {"a file": lambda: unnamed_file(tmp_path), "a full disk": lambda: os.open("/dev/full", os.O_RDWR)}
    ids, others = words(40_000), words(50_000)
    one = Scanner(1, dedupe=True, opaque=True, file=file.get(kept_in, lambda: -1)())
    assert kept(one, ids) == ids
    assert kept(one, random.Random(1).sample(others, len(others))) != []
    assert kept(one, others) == []
    second, place = scanner(form="opaque"), 0
    while (dumped := one.dump(place))[0]:
        second.load(dumped[0])
        place = dumped[1]
    assert kept(second, others) == []


def test_a_file_takes_the_place_of_memory_and_goes_with_the_set(tmp_path):
    descriptor = unnamed_file(tmp_path)
    one = Scanner(1, dedupe=True, opaque=True, file=descriptor)
    kept(one, words(40_000))
    assert os.fstat(descriptor).st_size == 2 * 2**20
    assert list(tmp_path.iterdir()) == []
    del one
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_a_file_that_cannot_be_read_is_no_reason_to_guess(tmp_path):
    """Whether an id was met is in the file alone."""
    one = Scanner(1, dedupe=True, opaque=True, file=os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT))
    ids = words(20_000)
    kept(one, ids)
    with pytest.raises(OSError, match="Bad file descriptor"):
        kept(one, ids)
    with pytest.raises(OSError, match="Bad file descriptor"):
        one.dump(0)
