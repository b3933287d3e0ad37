"""Which job is whose, and when a list proves that there is none."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bulkjobs.matching import (
    Candidate,
    HeldChunk,
    Listing,
    Look,
    Looks,
    Matches,
    disagreement,
    distrust,
    match,
    proves_absence_at_utc,
)
from bulkjobs.model import JobId, JobState

SETTLE_S = 600.0
T0 = 1_800_000_000.0


def texts(ids: Iterable[int]) -> list[bytes]:
    return [b"%d" % one for one in ids]


def chunk(number: int, ids: Iterable[int], *, ended_utc: float = T0) -> HeldChunk:
    body = b"\n".join(texts(ids))
    return HeldChunk(
        chunk=number,
        digest=hashlib.sha256(body).hexdigest(),
        body=body,
        size=body.count(b"\n") + 1,
        started_utc=ended_utc - 1,
        ended_utc=ended_utc,
    )


def job(
    name: str,
    ids: Iterable[int] | None,
    *,
    size: int | None = None,
    state: JobState = JobState.FINISHED,
) -> Candidate:
    return Candidate(
        job_id=JobId(name),
        state=state,
        job_type="contacts",
        size=size,
        ids=None if ids is None else frozenset(texts(ids)),
        why_no_ids="its results cannot be read",
    )


def found(matches: Matches) -> dict[int, str]:
    return {number: candidate.job_id for number, (candidate, _) in matches.adopted.items()}


def matched(held: list[HeldChunk], *jobs: Candidate, exclusive: bool = False, **called: int) -> Matches:
    return match(held, jobs, called=called, exclusive=exclusive)


ONE = chunk(1, range(1, 11))
TWO = chunk(2, range(101, 111))


# By the ids in the results


@pytest.mark.parametrize("size", [None, 0, 7, 10])
def test_a_job_with_exactly_the_ids_of_a_chunk_is_its(size):
    """However many of them the server says it counted, if not more."""
    matches = matched([ONE, TWO], job("a", range(1, 11), size=size))
    assert found(matches) == {1: "a"}
    assert not matches.doubts


def test_a_job_of_more_ids_than_the_chunk_is_not_its_for_sure():
    """The others may have no row in the results."""
    matches = matched([ONE, TWO], job("a", range(1, 11), size=12))
    assert not matches.adopted
    assert list(matches.doubts) == [1]


def test_a_job_with_most_of_the_ids_and_no_other_is_the_chunks_if_it_is_of_its_size():
    matches = matched([ONE, TWO], job("a", range(1, 6), size=10))
    assert found(matches) == {1: "a"}
    assert "5 ids of this chunk and no other" in matches.adopted[1][1]


@pytest.mark.parametrize("size", [None, 0, 5, 9, 11])
def test_a_job_with_most_of_the_ids_and_another_size_may_be_the_chunks(size):
    """It is not adopted, and stands against there being no job."""
    matches = matched([ONE, TWO], job("a", range(1, 6), size=size))
    assert not matches.adopted
    assert list(matches.doubts) == [1]
    assert not matches.elsewhere


def test_a_job_with_few_of_the_ids_is_not_adopted_even_if_it_is_of_the_chunks_size():
    """Somebody else's ten ids, of which nine are unknown to the server and one is in our chunk."""
    matches = matched([ONE, TWO], job("a", [3], size=10))
    assert not matches.adopted
    assert list(matches.doubts) == [1]


@pytest.mark.parametrize("ids", [range(500, 510), [1, 500, 501], [*range(1, 5), *range(500, 506)]])
def test_a_job_whose_ids_are_mostly_others_is_somebody_elses(ids):
    matches = matched([ONE, TWO], job("a", ids, size=10))
    assert matches.elsewhere == {"a"}
    assert not matches.adopted
    assert not matches.doubts


def test_a_job_with_most_ids_of_a_chunk_and_one_other_may_be_its():
    """The server may give a contact under another id than it was asked for."""
    matches = matched([ONE, TWO], job("a", [*range(1, 10), 500], size=10))
    assert not matches.adopted
    assert list(matches.doubts) == [1]
    assert not matches.elsewhere


def test_a_small_job_of_a_colleague_with_ids_of_ours_stands_against_their_being_none():
    matches = matched([ONE, TWO], job("a", [1, 2, 3], size=3))
    assert not matches.adopted
    assert list(matches.doubts) == [1]


def test_two_jobs_that_fit_one_chunk_are_for_a_person():
    matches = matched([ONE, TWO], job("a", range(1, 11)), job("b", range(1, 11)))
    assert not matches.adopted
    assert "a and b" in matches.doubts[1][0]
    assert 2 not in matches.doubts


def test_a_job_with_all_ids_and_one_with_most_of_them_are_two_that_fit():
    matches = matched([ONE], job("a", range(1, 11)), job("b", range(1, 8), size=10))
    assert not matches.adopted
    assert matches.doubts[1]


def test_chunks_with_the_same_ids_take_jobs_of_theirs_in_any_pairing():
    """With --no-dedupe: what one of them cannot have, it may be proved not to have."""
    twins = [chunk(1, range(1, 11)), chunk(2, range(1, 11))]
    one = matched(twins, job("a", range(1, 11)))
    assert (found(one), dict(one.doubts)) == ({1: "a"}, {})
    assert found(matched(twins, job("a", range(1, 11)), job("b", range(1, 11)))) == {1: "a", 2: "b"}
    three = matched(twins, *(job(name, range(1, 11)) for name in "abc"))
    assert not three.adopted
    assert sorted(three.doubts) == [1, 2]


def test_a_job_that_two_overlapping_chunks_may_have_is_neithers():
    overlapping = [chunk(1, range(1, 11)), chunk(2, range(2, 12))]
    matches = matched(overlapping, job("a", range(2, 11), size=10))
    assert not matches.adopted
    assert sorted(matches.doubts) == [1, 2]


def test_of_overlapping_chunks_the_one_with_exactly_the_ids_has_the_job():
    overlapping = [chunk(1, range(1, 11)), chunk(2, range(1, 16))]
    assert found(matched(overlapping, job("a", range(1, 11), size=10))) == {1: "a"}
    assert found(matched(overlapping, job("a", range(1, 11), size=15))) == {2: "a"}


def test_an_id_that_stands_in_a_chunk_twice_stands_in_the_results_once():
    assert found(matched([chunk(1, [5, 5, 6])], job("a", [5, 6], size=2))) == {1: "a"}


@pytest.mark.parametrize("state", JobState)
def test_a_job_without_readable_results_may_be_anybodys(state):
    matches = matched([ONE, TWO], job("a", None, size=10, state=state))
    assert not matches.adopted
    assert sorted(matches.doubts) == [1, 2]
    assert not matches.elsewhere
    assert matches.unfinished == (set() if state.terminal else {"a"})


def test_results_without_an_id_prove_nothing():
    matches = matched([ONE], job("a", []))
    assert not matches.elsewhere
    assert matches.doubts[1]


def test_somebody_elses_job_counts_as_a_doubt_until_it_is_known_that_results_are_read_rightly():
    """Were the ids looked for in the wrong column, our own job would be somebody else's."""
    matches = distrust(matched([ONE, TWO], job("a", [77])), [ONE, TWO], "nothing to compare with")
    assert not matches.elsewhere
    assert matches.doubts[1] == matches.doubts[2] == ["job a may be its: nothing to compare with"]


# By the webhook


def test_a_job_that_called_a_chunks_webhook_is_its_without_results():
    matches = matched([ONE, TWO], job("a", None, state=JobState.PROCESSING), a=2)
    assert found(matches) == {2: "a"}
    assert not matches.unfinished


def test_a_call_counts_for_less_than_other_ids():
    matches = matched([ONE, TWO], job("a", range(1, 11)), a=2)
    assert not matches.adopted
    assert "called its webhook nonce" in matches.doubts[2][0]


def test_a_job_that_called_and_another_that_fits_are_two():
    matches = matched([ONE], job("a", None), job("b", range(1, 11)), a=1)
    assert not matches.adopted
    assert matches.doubts[1]


def test_a_call_for_a_chunk_that_is_not_held_tells_nothing():
    assert found(matched([ONE], job("a", range(1, 11)), a=9)) == {1: "a"}
    assert not matched([ONE], job("a", None), a=9).adopted


# By the size


def test_size_alone_settles_nothing():
    matches = matched([ONE], job("a", None, size=10))
    assert not matches.adopted
    assert matches.doubts[1]


def test_when_nobody_else_uses_the_account_one_job_and_one_chunk_of_a_size_are_a_pair():
    small = chunk(3, [7])
    matches = matched([ONE, small], job("a", None, size=1), job("b", None, size=10), exclusive=True)
    assert found(matches) == {1: "b", 3: "a"}


@pytest.mark.parametrize(
    ("held", "jobs"),
    [
        ([ONE, TWO], [job("a", None, size=10)]),
        ([ONE], [job("a", None, size=10), job("b", None, size=10)]),
        ([ONE], [job("a", None, size=9)]),
        ([ONE], [job("a", None)]),
        ([ONE], [job("a", None, size=10), job("b", None, size=0, state=JobState.ACCEPTED)]),
        ([ONE], [job("a", None, size=10), job("b", range(1, 4), size=4)]),
        ([ONE], [job("a", None, size=10), job("b", range(1, 11)), job("c", range(1, 11))]),
    ],
    ids=[
        "two chunks",
        "two jobs",
        "another size",
        "no size",
        "one at work",
        "one that may be its",
        "two that fit",
    ],
)
def test_what_is_not_one_to_one_is_not_paired_by_size(held, jobs):
    matches = matched(held, *jobs, exclusive=True)
    assert not matches.adopted
    assert sorted(matches.doubts) == [one.chunk for one in held]


# Any mixture


@st.composite
def worlds(draw):
    """Draws held chunks, and jobs with what they were really made of; results may lack ids."""
    number = st.integers(1, 12)
    bodies = draw(st.lists(st.lists(number, min_size=1, max_size=6, unique=True), min_size=1, max_size=4))
    held = [chunk(ordinal, body) for ordinal, body in enumerate(bodies, 1)]
    jobs, truth = [], {}
    made = draw(
        st.lists(
            st.sampled_from(bodies)
            | st.lists(number | st.integers(100, 103), min_size=1, max_size=6, unique=True),
            max_size=5,
        )
    )
    for index, ids in enumerate(made):
        rows = draw(st.none() | st.just(ids) | st.lists(st.sampled_from(ids), unique=True))
        jobs.append(job(f"j{index}", rows, size=draw(st.sampled_from([None, 0, len(rows or ids), len(ids)]))))
        truth[f"j{index}"] = frozenset(texts(ids))
    return held, jobs, truth


@given(worlds())
@settings(max_examples=250, deadline=None)
def test_one_job_for_a_chunk_and_one_chunk_for_a_job_and_only_with_its_ids(world):
    """What is adopted has in its results ids of the chunk and no other; all of them, or most and the size."""
    held, jobs, _ = world
    matches = matched(held, *jobs)
    names = list(found(matches).values())
    assert len(set(names)) == len(names)
    for number, (candidate, _) in matches.adopted.items():
        one = held[number - 1]
        assert candidate.ids
        assert candidate.ids <= one.ids
        assert candidate.ids == one.ids or (candidate.size == one.size and 2 * len(candidate.ids) >= one.size)


@given(worlds())
@settings(max_examples=250, deadline=None)
def test_a_chunk_that_has_a_job_on_the_list_never_seems_to_have_none(world):
    """It is adopted, or there is a doubt, or its like has the job."""
    held, jobs, truth = world
    matches = matched(held, *jobs)
    for one in held:
        mine = [name for name, ids in truth.items() if ids == one.ids]
        alike = [other.chunk for other in held if other.ids == one.ids]
        settled = [number for number in alike if number in matches.adopted or matches.doubts.get(number)]
        assert len(settled) >= min(len(mine), len(alike))
        assert not set(mine) & matches.elsewhere


def test_ids_are_shared_only_as_a_whole():
    """12 is no part of 112, nor of 123."""
    one = chunk(1, [112, 123])
    assert one.shares(frozenset([b"12", b"11", b"23"])) == 0
    assert one.shares(frozenset([b"112", b"5"])) == 1


# Two listings


def listing(began_utc: float, *jobs: str, took_s: float = 0.0) -> Listing:
    return Listing(began_utc=began_utc, ended_utc=began_utc + took_s, jobs=frozenset(jobs))


KNOWN = {"k": T0 - 60}


@pytest.mark.parametrize(
    ("first", "second", "known", "says"),
    [
        (("k",), ("k",), KNOWN, None),
        (("k",), ("k", "new"), KNOWN, None),
        (("k", "else"), ("k",), KNOWN, None),
        (("k",), ("k",), {}, "no job of this run"),
        ((), ("k",), KNOWN, "does not show job k"),
        (("k",), (), KNOWN, "does not show job k"),
        (("k", "gone"), ("k",), KNOWN, "no longer shows job gone"),
    ],
)
def test_two_listings_agree_when_they_show_what_they_must_and_nothing_goes(first, second, known, says):
    why = disagreement(listing(T0, *first), listing(T0 + 9, *second), known=known, elsewhere={"else"})
    assert (why is None) if says is None else says in (why or "")


def test_the_second_listing_proves_after_the_settling_time_and_later_if_the_list_may_lag_more():
    """The first shows a job of 900 s, so the list lags by 900 s at the most; so old must the held one's job be."""
    first = listing(T0 + SETTLE_S, "k")
    at_utc = proves_absence_at_utc(ONE, first, known={"k": T0 + 1}, settle_s=SETTLE_S)
    assert at_utc == first.began_utc + SETTLE_S
    late = proves_absence_at_utc(ONE, first, known={"k": T0 - 300}, settle_s=SETTLE_S)
    assert late == T0 + SETTLE_S + 300 + SETTLE_S


def test_a_listing_that_took_long_says_less_of_the_lag():
    """The job may have come up on its last page only."""
    slow = listing(T0 + SETTLE_S, "k", took_s=310)
    known = {"k": T0 - 300}
    assert proves_absence_at_utc(ONE, slow, known=known, settle_s=SETTLE_S) == T0 + SETTLE_S + 310 + 900


# Looks one after another


class Watch:
    """Takes looks at a list as the reconciler does, on a clock of its own."""

    def __init__(self, *held: HeldChunk, now: float = T0) -> None:
        self.held = {one.chunk: one for one in held or (ONE,)}
        self.now = now
        self.looks = Looks(SETTLE_S, began_utc=now)

    def wait(self) -> None:
        self.now = max(self.now, self.looks.next_utc(self.held.values())[0])

    def look(self, *jobs: str, known=KNOWN, doubts=(), unfinished=(), elsewhere=(), took_s=0.0, back_s=1e9):
        self.wait()
        matches = Matches(unfinished=set(unfinished))
        for number in doubts:
            matches.doubts[number].append("a doubt")
        absent = self.looks.add(
            self.held.values(),
            Look(
                listing=listing(self.now, *jobs, took_s=took_s),
                known=known,
                matches=matches,
                elsewhere=frozenset(elsewhere),
                reaches_back_to=(T0 - back_s, 1),
            ),
        )
        self.now += took_s
        return absent

    @property
    def over(self) -> bool:
        return self.looks.over(self.now)


def test_nothing_is_read_before_the_last_attempt_has_settled():
    watch = Watch(ONE, replace(TWO, ended_utc=T0 + 50))
    assert watch.looks.next_utc(watch.held.values())[0] == T0 + 50 + SETTLE_S


def test_the_second_look_that_agrees_proves_absence_and_the_first_never_does():
    watch = Watch()
    assert watch.look("k") == []
    assert not watch.over
    assert watch.look("k") == [1]
    assert watch.now == T0 + 2 * SETTLE_S + 60  # the known job is a minute older than the held attempt


def test_each_chunk_has_the_time_of_its_own_proof():
    watch = Watch(replace(ONE, ended_utc=T0 - 9_000), TWO)
    assert watch.look("k") == []
    assert watch.look("k") == [1]
    del watch.held[1]
    assert watch.look("k") == [2]


def test_a_doubt_stands_against_absence_for_its_chunk_alone():
    watch = Watch(ONE, TWO)
    watch.look("k", "x", doubts=[1])
    assert watch.look("k", "x", doubts=[1]) == [2]
    assert watch.looks.finding(1) == "a doubt"


def test_a_job_that_appears_and_vanishes_in_between_is_not_forgotten():
    """The third look agrees with the first; but the second showed what may be its job."""
    watch = Watch(replace(ONE, ended_utc=T0))
    watch.look("k")
    assert watch.look("k", "x", doubts=[1], unfinished=["x"]) == []
    assert watch.look("k") == []
    assert "no longer shows job x" in watch.looks.finding(1)


def test_a_list_that_shows_nothing_older_than_the_attempt_may_not_reach_back_to_its_job():
    watch = Watch(replace(ONE, started_utc=T0 - 500), replace(TWO, started_utc=T0 - 100))
    watch.look("k", back_s=300)
    assert watch.look("k", back_s=300) == [2]
    assert "reach back" in watch.looks.finding(1)


@pytest.mark.parametrize(("number", "proved"), [(6, False), (7, False), (8, True)])
def test_when_the_clock_does_not_tell_the_order_of_the_chunks_does(number: int, proved: bool):
    watch = Watch(replace(ONE, chunk=number, started_utc=T0))
    for _ in range(2):
        watch.wait()
        absent = watch.looks.add(
            watch.held.values(),
            Look(
                listing=listing(watch.now, "k"),
                known=KNOWN,
                matches=Matches(),
                elsewhere=frozenset(),
                reaches_back_to=(T0, 7),
            ),
        )
    assert absent == [number] * proved


def test_somebody_elses_jobs_may_come_and_go():
    watch = Watch()
    watch.look("k", "x", elsewhere=["x"])
    assert watch.look("k", "y", elsewhere=["x", "y"]) == [1]


def test_without_a_known_job_two_looks_are_enough_to_see_that_nothing_can_be_proved():
    watch = Watch()
    assert watch.look(known={}) == []
    assert not watch.over
    assert watch.look(known={}) == []
    assert watch.over
    assert "no job of this run was accepted" in watch.looks.finding(1)


def test_a_list_that_lags_is_looked_at_some_more_times():
    watch = Watch()
    assert watch.look() == []
    assert watch.look() == []
    for _ in range(2):
        assert not watch.over
        assert watch.look("k") == []
    assert watch.look("k") == [1]


def test_a_list_that_never_shows_what_it_must_is_given_up():
    watch = Watch()
    for _ in range(4):
        assert not watch.over
        assert watch.look("x") == []
    assert watch.over
    assert "does not show job k" in watch.looks.finding(1)


def test_a_list_that_cannot_be_read_is_asked_for_four_times():
    watch = Watch()
    for _ in range(4):
        assert not watch.over
        watch.wait()
        watch.looks.failed(watch.held, "no list", watch.now)
    assert watch.over
    assert watch.looks.finding(1) == "no list"


def test_a_failed_look_in_between_does_not_make_the_proof_earlier():
    watch = Watch()
    watch.look("k")
    watch.wait()
    watch.looks.failed(watch.held, "no list", watch.now)
    assert watch.look("k") == [1]
    assert watch.now >= T0 + 2 * SETTLE_S


def test_a_job_at_work_is_looked_at_more_and_more_rarely_for_a_day():
    watch = Watch()
    looks = 0
    while not watch.over:
        assert watch.look("k", "x", doubts=[1], unfinished=["x"]) == []
        looks += 1
    assert watch.now - T0 == pytest.approx(24 * 3_600 + SETTLE_S, abs=SETTLE_S)
    assert looks == pytest.approx(24 * 6, abs=5)


def test_a_list_that_agrees_and_disagrees_in_turn_is_given_up_within_a_day():
    """A known job of long ago puts the proof off, and each time the list has changed by then."""
    watch = Watch(now=T0)
    old, name = {"k": T0 - 5_000}, 0
    assert watch.look("k", "first", known=old) == []
    while not watch.over:
        for _ in range(2):
            assert watch.look("k", str(name), known=old) == []
        name += 1
        assert watch.now < T0 + 26 * 3_600
    assert name > 4


def test_a_clock_that_was_set_back_puts_the_proof_off():
    watch = Watch()
    watch.look("k")
    watch.wait()
    watch.now -= 300
    matches = Look(
        listing=listing(watch.now, "k"),
        known=KNOWN,
        matches=Matches(),
        elsewhere=frozenset(),
        reaches_back_to=(0, 0),
    )
    assert watch.looks.add(watch.held.values(), matches) == []


def test_before_the_first_look_there_is_nothing_to_say_of_a_chunk():
    assert "was not read" in Looks(SETTLE_S, began_utc=T0).finding(1)


@dataclass(frozen=True, kw_only=True)
class Lag:
    """Is a list that lags by the same time always, and two jobs on it."""

    lag_s: float
    known_age_s: float
    """How long before the held attempt ended the known job's request could leave."""
    made_s: float
    """How long after that the held chunk's job is made."""
    answer_s: float
    """How long after it could leave the known job is made."""
    took_s: list[float]
    """How long each reading takes."""
    start_s: float
    """How long after the attempt ended the reconciling begins."""


LAGS = st.builds(
    Lag,
    lag_s=st.floats(0, 20_000),
    known_age_s=st.floats(-20_000, 20_000),
    made_s=st.floats(-120, SETTLE_S),
    answer_s=st.floats(0, 120),
    took_s=st.lists(st.floats(0, 400), min_size=1, max_size=4),
    start_s=st.floats(0, 40_000),
)
PLAIN = Lag(lag_s=900, known_age_s=300, made_s=SETTLE_S, answer_s=0, took_s=[0], start_s=0)


@given(LAGS)
@example(PLAIN)
@example(replace(PLAIN, lag_s=1_300, known_age_s=310, took_s=[400, 0]))
@settings(max_examples=400, deadline=None)
def test_under_a_constant_lag_absence_is_never_proved_while_the_job_may_still_appear(lag):
    """A page may show what came up while the list was read; for the held chunk only that counts which did before."""
    made_utc = T0 + lag.made_s
    sent_utc = T0 - lag.known_age_s
    watch = Watch(now=T0 + lag.start_s)
    for number in range(12):
        watch.wait()
        took_s = lag.took_s[number % len(lag.took_s)]
        if watch.over or made_utc + lag.lag_s <= watch.now:
            return  # on the list from here on, where matching finds it
        shown = sent_utc + lag.answer_s + lag.lag_s <= watch.now + took_s
        assert watch.look(*["k"] * shown, known={"k": sent_utc}, took_s=took_s) == []
