"""The stop of submits in an outage, on a clock that is an argument."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkjobs.breaker import (
    FIRST_WAIT_S,
    IN_A_ROW,
    MAX_WAIT_S,
    MOST_OF_RECENT,
    PATIENCE_S,
    RECENT,
    Breaker,
)
from bulkjobs.errors import InternalError


def tripped_at(now: float) -> Breaker:
    breaker = Breaker()
    for _ in range(IN_A_ROW):
        breaker.unknown(now, alone=False)
    return breaker


def trying_at(now: float) -> Breaker:
    breaker = tripped_at(now)
    breaker.answers()
    assert breaker.started()
    return breaker


def wait_of(pause) -> float | None:
    return None if pause is None else pause.wait_s


# --- what stops submits ---


def test_a_single_unknown_stops_nothing():
    breaker = Breaker()
    for _ in range(100):
        assert breaker.unknown(0.0, alone=False) is None
        assert breaker.lets_through
        assert not breaker.started()
        for _ in range(50):  # so that it is less than the share that would
            assert not breaker.known(alone=False)


def test_some_in_a_row_stop_submits_and_say_for_how_long():
    breaker = Breaker()
    waits = [wait_of(breaker.unknown(5.0, alone=False)) for _ in range(IN_A_ROW)]
    assert waits == [None] * (IN_A_ROW - 1) + [FIRST_WAIT_S]
    assert not breaker.lets_through
    assert breaker.ask_at == 5.0 + FIRST_WAIT_S


def test_too_many_among_the_last_ones_stop_submits_although_never_two_follow_each_other():
    breaker = Breaker()
    pauses = []
    for _ in range(MOST_OF_RECENT + 1):
        breaker.known(alone=False)
        pauses.append(breaker.unknown(0.0, alone=False))
    assert [wait_of(pause) for pause in pauses] == [None] * MOST_OF_RECENT + [FIRST_WAIT_S]
    assert pauses[-1].reason == "6 of the last 12 outcomes are unknown"


def test_what_lies_further_back_than_the_last_ones_is_forgotten():
    breaker = Breaker()
    for _ in range(MOST_OF_RECENT):
        breaker.unknown(0.0, alone=False)
        for _ in range(RECENT // MOST_OF_RECENT - 1):
            breaker.known(alone=False)
    for _ in range(1_000):
        assert breaker.unknown(0.0, alone=False) is None
        for _ in range(RECENT // MOST_OF_RECENT - 1):
            breaker.known(alone=False)


def test_what_was_in_flight_when_it_stopped_neither_ends_the_stop_nor_makes_it_longer():
    breaker = tripped_at(0.0)
    assert [breaker.unknown(1.0, alone=False) for _ in range(8)] == [None] * 8
    assert not breaker.known(alone=False)
    assert not breaker.lets_through
    assert breaker.ask_at == FIRST_WAIT_S


# --- the question ---


def test_the_server_is_asked_before_a_submit_goes_and_then_one_goes_alone():
    breaker = tripped_at(0.0)
    breaker.answers()
    assert breaker.ask_at is None
    assert breaker.lets_through
    assert breaker.started()
    assert not breaker.lets_through
    assert breaker.ask_at is None


def test_without_an_answer_the_waits_double_up_to_a_most_and_no_submit_goes():
    breaker, now, waits = tripped_at(0.0), FIRST_WAIT_S, []
    while (pause := breaker.silent(now, "HTTP 503")) is not None:
        assert not breaker.lets_through
        assert pause.reason == "HTTP 503"
        waits.append(pause.wait_s)
        now += pause.wait_s
        assert breaker.ask_at == now
    assert waits == [20.0, 40.0, 80.0, 160.0, 320.0] + [MAX_WAIT_S] * 5
    assert now > PATIENCE_S


def test_a_question_that_nobody_ever_answers_does_not_stop_the_run_for_ever():
    breaker = tripped_at(0.0)
    assert breaker.silent(PATIENCE_S, "HTTP 500") is None
    assert breaker.started()
    assert wait_of(breaker.unknown(PATIENCE_S, alone=True)) == 2 * FIRST_WAIT_S
    assert breaker.silent(2 * PATIENCE_S - 1, "HTTP 500") is not None
    assert breaker.silent(2 * PATIENCE_S, "HTTP 500") is None


@pytest.mark.parametrize("breaker", [Breaker(), trying_at(0.0)])
def test_an_answer_to_a_question_that_was_not_due_is_a_bug(breaker):
    with pytest.raises(InternalError):
        breaker.answers()
    with pytest.raises(InternalError):
        breaker.silent(0.0, "HTTP 503")


# --- the one that goes alone ---


def test_its_known_outcome_lets_all_go_again_and_the_next_outage_begins_anew():
    breaker = trying_at(0.0)
    assert breaker.known(alone=True)
    assert breaker.lets_through
    assert not breaker.started()
    waits = [wait_of(breaker.unknown(2.0, alone=False)) for _ in range(IN_A_ROW)]
    assert waits == [None] * (IN_A_ROW - 1) + [FIRST_WAIT_S]


def test_its_unknown_outcome_begins_a_longer_wait():
    breaker = trying_at(0.0)
    assert wait_of(breaker.unknown(3.0, alone=True)) == 2 * FIRST_WAIT_S
    assert breaker.ask_at == 3.0 + 2 * FIRST_WAIT_S
    assert not breaker.lets_through


def test_the_outcomes_of_others_decide_nothing_while_it_is_on_its_way():
    breaker = trying_at(0.0)
    assert not breaker.known(alone=False)
    assert breaker.unknown(0.0, alone=False) is None
    assert not breaker.lets_through


def test_another_goes_alone_when_it_was_not_sent():
    breaker = trying_at(0.0)
    breaker.left()
    assert breaker.lets_through
    assert breaker.started()
    assert not breaker.lets_through


# --- a restart ---


def test_a_session_that_ended_in_an_outage_is_followed_by_one_that_asks_at_once():
    breaker = Breaker()
    assert wait_of(breaker.recall(IN_A_ROW, 7.0)) == 0.0
    assert breaker.ask_at == 7.0
    assert not breaker.lets_through
    assert wait_of(breaker.silent(7.0, "HTTP 503")) == FIRST_WAIT_S


def test_unknown_outcomes_of_two_sessions_are_in_a_row():
    breaker = Breaker()
    assert breaker.recall(IN_A_ROW - 1, 0.0) is None
    assert breaker.lets_through
    assert wait_of(breaker.unknown(0.0, alone=False)) == FIRST_WAIT_S


@given(st.integers(1, 2_000), st.booleans())
def test_an_outage_of_any_length_costs_few_chunks(minutes, answers):
    """One in ten minutes if only submissions fail; one in an hour if nothing is answered."""
    breaker, now, tries = tripped_at(0.0), 0.0, 0
    while now < minutes * 60:
        now = max(now, breaker.ask_at)
        if answers:
            breaker.answers()
        else:
            breaker.silent(now, "HTTP 503")
        if breaker.lets_through:
            tries += breaker.started()
            breaker.unknown(now, alone=True)
    assert tries <= (8 + minutes * 60 / MAX_WAIT_S if answers else 1 + minutes * 60 / PATIENCE_S)
