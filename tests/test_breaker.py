"""The stop of submits in an outage, on a clock that is an argument."""

import math

from hypothesis import given
from hypothesis import strategies as st

from bulkjobs.breaker import FIRST_WAIT_S, IN_A_ROW, MAX_WAIT_S, Breaker


def tripped_at(now: float) -> Breaker:
    breaker = Breaker()
    for _ in range(IN_A_ROW):
        breaker.unknown(now)
    return breaker


def test_a_single_unknown_stops_nothing():
    breaker = Breaker()
    for _ in range(100):
        assert breaker.unknown(0.0) is None
        assert breaker.opens_at(0.0, submitting=8) == 0.0
        assert not breaker.known()


def test_some_in_a_row_stop_submits_and_say_for_how_long():
    breaker = Breaker()
    waits = [breaker.unknown(5.0) for _ in range(IN_A_ROW)]
    assert waits == [None] * (IN_A_ROW - 1) + [FIRST_WAIT_S]
    assert breaker.opens_at(5.0, submitting=0) == 5.0 + FIRST_WAIT_S


def test_after_the_wait_one_goes_alone():
    breaker = tripped_at(0.0)
    assert breaker.opens_at(FIRST_WAIT_S, submitting=0) == FIRST_WAIT_S
    assert breaker.opens_at(FIRST_WAIT_S, submitting=1) == math.inf


def test_what_was_in_flight_when_it_stopped_makes_the_wait_no_longer():
    breaker = tripped_at(0.0)
    assert [breaker.unknown(1.0) for _ in range(8)] == [None] * 8
    assert breaker.opens_at(1.0, submitting=0) == FIRST_WAIT_S


def test_a_known_outcome_lets_all_go_again_and_the_next_outage_begins_anew():
    breaker = tripped_at(0.0)
    assert breaker.known()
    assert breaker.opens_at(1.0, submitting=8) == 1.0
    assert [breaker.unknown(2.0) for _ in range(IN_A_ROW)][-1] == FIRST_WAIT_S


@given(st.integers(1, 2_000))
def test_an_outage_of_any_length_costs_few_chunks(minutes):
    """Trying whenever it is allowed costs a handful of tries and then one in ten minutes."""
    breaker, now, tries = tripped_at(0.0), 0.0, 0
    while now < minutes * 60:
        now = breaker.opens_at(now, submitting=0)
        tries += 1
        breaker.unknown(now)
    assert tries <= 8 + minutes * 60 / MAX_WAIT_S
