"""What a session says to the shell, as a table of ranks."""

import itertools

import pytest

from bulkjobs.exits import Exit, exit_code

CLEAN = dict.fromkeys(("read", "invalid", "duplicate", "accepted", "refused", "held", "pending"), 0)


def code(*stops, **ids):
    return exit_code(CLEAN | ids, stops)


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ({}, 0),
        ({"accepted": 5}, 0),
        ({"accepted": 5, "duplicate": 5}, 0),
        ({"accepted": 5, "invalid": 1}, 3),
        ({"accepted": 5, "refused": 1}, 3),
        ({"accepted": 5, "held": 1}, 4),
        ({"held": 1, "invalid": 1, "refused": 1}, 4),
    ],
)
def test_a_session_that_was_not_stopped_speaks_for_its_ids(ids, expected):
    assert code(**ids) == expected


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        (Exit.BUG, 1),
        (Exit.USAGE, 2),
        (Exit.STOPPED, 5),
        (Exit.STORAGE, 6),
        (Exit.SIGINT, 130),
        (Exit.SIGTERM, 143),
    ],
)
def test_a_session_that_was_stopped_says_by_what(stop, expected):
    """Also when ids are held or refused: those can be read in the summary."""
    assert code(stop, pending=1, held=1, invalid=1) == expected


@pytest.mark.parametrize("signal", [Exit.SIGINT, Exit.SIGTERM])
def test_a_signal_that_left_no_work_does_not_count(signal):
    assert code(signal, accepted=5) == 0
    assert code(signal, held=1) == 4
    assert code(signal, Exit.STORAGE) == 6


@pytest.mark.parametrize("signal", [Exit.SIGINT, Exit.SIGTERM])
def test_a_signal_before_everything_was_read_and_handed_on_left_work(signal):
    """Although nothing is pending yet: what was not read is not counted."""
    assert exit_code(CLEAN | {"accepted": 5}, [signal], complete=False) == signal


RANKS = [Exit.BUG, Exit.STORAGE, Exit.SIGINT, Exit.SIGTERM, Exit.STOPPED, Exit.USAGE]


@pytest.mark.parametrize(("higher", "lower"), list(itertools.combinations(RANKS, 2)))
def test_of_two_reasons_the_higher_is_told(higher, lower):
    assert code(lower, higher, pending=1) == code(higher, lower, pending=1) == higher


def test_the_numbers_are_those_of_the_documentation():
    assert {each.name: each.value for each in Exit} == {
        "ACCEPTED": 0,
        "BUG": 1,
        "USAGE": 2,
        "PARTS_REFUSED": 3,
        "HELD": 4,
        "STOPPED": 5,
        "STORAGE": 6,
        "SIGINT": 130,
        "SIGTERM": 143,
    }
