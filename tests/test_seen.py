"""The set of ids already met against Python's own set."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkjobs.seen import SeenIds

ids = st.one_of(st.integers(1, 200), st.integers(1, 2**64 - 2**8), st.integers(10**18, 10**18 + 500))


@given(st.lists(st.lists(ids, max_size=200), max_size=8))
def test_it_tells_first_occurrences_exactly_as_a_set_does(blocks):
    """For any blocks of ids, the mask is true where a plain set meets an id for the first time."""
    seen, plain = SeenIds(), set()
    for block in blocks:
        expected = []
        for i in block:
            expected.append(i not in plain)
            plain.add(i)
        assert seen.add(np.array(block, dtype=np.uint64)).tolist() == expected


@pytest.mark.parametrize("step", [1, 64, 4096, 2**40])
def test_it_keeps_everything_while_it_grows(step):
    """Many table sizes later every id is still known and none that was never met."""
    seen = SeenIds()
    random = np.random.default_rng(3)
    members = random.permutation(200_000).astype(np.uint64) * np.uint64(step) + np.uint64(1)
    for block in np.array_split(members, 37):
        assert seen.add(block).all()
    assert not seen.add(members).any()
    assert seen.add(members + np.uint64(200_000 * step)).all()


def test_dense_ids_take_less_than_a_byte_each():
    seen = SeenIds()
    seen.add(np.arange(1, 2_000_001, dtype=np.uint64))
    assert seen.nbytes < 2_000_000
