"""The plan of questions: not before a job may have ended, closely around when it should, within what submits leave."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkjobs.polling import PollPlan, Question
from bulkjobs.polling.budget import PollBudget, best_terms
from bulkjobs.polling.durations import Durations
from bulkjobs.polling.pages import PAGE_JOBS, Pages
from bulkjobs.settings import Rate

RATE = Rate(count=900, period_s=300.0)
ages = st.floats(min_value=0.0, max_value=1e6)


def questions(durations: Durations, duration_s: float, price_s: float = 0.0) -> list[float]:
    """Gives the ages at which a job is asked for until its end is seen, with answers that come at once."""
    asked = [0.0]
    while asked[-1] < duration_s:
        asked.append(durations.next_question(asked[-1], asked[-1], price_s))
    return asked[1:]


def learned(*durations_s: float) -> Durations:
    durations = Durations()
    for seconds in durations_s:
        durations.learn(0.98 * seconds, 1.01 * seconds)
    return durations


# --- durations ---


@pytest.mark.parametrize("duration_s", [1.0, 10.0, 60.0, 3_600.0, 36_000.0])
def test_with_nothing_known_the_end_of_any_job_is_seen_a_small_share_of_its_duration_late(
    duration_s: float,
) -> None:
    asked = questions(Durations(), duration_s)
    assert asked[-1] < 1.05 * duration_s + 0.1
    assert len(asked) < 250


def test_a_job_is_not_asked_for_much_before_it_can_have_ended() -> None:
    asked = questions(learned(*[60.0] * 30), 60.0, price_s=0.06)
    assert len([age_s for age_s in asked if age_s < 50]) < 6
    assert asked[-1] < 61.0


def test_around_the_time_at_which_jobs_end_questions_are_close_and_then_become_rarer() -> None:
    source = random.Random(1)
    asked = questions(learned(*(source.uniform(54, 66) for _ in range(60))), 600.0)
    gaps = [later - before for before, later in pairwise(asked)]
    near = [gap for age_s, gap in zip(asked, gaps, strict=False) if 55 < age_s < 64]
    late = [gap for age_s, gap in zip(asked, gaps, strict=False) if age_s > 300]
    assert max(near) < 3
    assert min(late) > 5


def test_two_kinds_of_jobs_are_both_met() -> None:
    durations = learned(*([60.0] * 9 + [7_200.0]) * 4)
    assert questions(durations, 60.0, price_s=1.0)[-1] < 63
    long = questions(durations, 7_200.0, price_s=1.0)
    assert long[-1] < 1.01 * 7_200
    assert len(long) < 100


def test_wide_intervals_that_overlap_tell_together_when_jobs_end() -> None:
    """Each alone says next to nothing: all of them only go together with an end just above 40 s."""
    durations = Durations()
    for low_s, high_s in [(0, 43), (40, 80), (20, 44), (40.5, 90), (0, 42)] * 4:
        durations.learn(low_s, high_s)
    assert durations.chance(38.0, 45.0) > 0.6


def test_jobs_that_become_shorter_are_seen_before_the_old_duration_has_passed() -> None:
    durations = learned(*[3_600.0] * 64)
    seen_s = []
    for _ in range(20):
        asked = questions(durations, 1.0)
        seen_s.append(asked[-1])
        durations.learn(asked[-2] if len(asked) > 1 else 0.0, asked[-1])
    assert seen_s[0] < 10.0
    assert seen_s[-1] < 1.3


def test_jobs_that_become_longer_are_followed() -> None:
    asked = questions(learned(*[1.0] * 64), 3_600.0)
    assert asked[-1] < 1.05 * 3_600
    assert len(asked) < 300


@given(
    seen=st.lists(st.tuples(ages, ages), max_size=70),
    unfinished_s=ages,
    more_s=ages,
    price_s=st.floats(min_value=0.0, max_value=1e5),
)
def test_a_question_always_lies_ahead_and_one_comes_unless_another_is_under_way(
    seen: list[tuple[float, float]], unfinished_s: float, more_s: float, price_s: float
) -> None:
    durations = Durations()
    for low_s, high_s in seen:
        durations.learn(low_s, high_s)
    assert unfinished_s < durations.next_question(unfinished_s, unfinished_s, price_s) < math.inf
    asked_s = unfinished_s + more_s
    assert durations.next_question(unfinished_s, asked_s, price_s) >= asked_s


def test_a_higher_price_makes_fewer_and_later_questions() -> None:
    source = random.Random(1)
    durations = learned(*(source.lognormvariate(4, 1) for _ in range(60)))
    cheap, dear = durations.prospect(0.05, 0.2), durations.prospect(5.0, 0.2)
    assert cheap[0] > 2 * dear[0]
    assert cheap[1] < dear[1]


# --- what it may cost ---


def test_questions_are_cheap_where_the_account_has_requests_to_spare_and_dear_where_not() -> None:
    durations = learned(*(0.9 + 0.2 * step / 40 for step in range(40)))
    few = best_terms(
        durations, rate=Rate(count=9_000, period_s=300.0), open_jobs=2, answer_s=0.05, told=1.0, reach=1
    )
    many = best_terms(durations, rate=RATE, open_jobs=10, answer_s=0.05, told=1.0, reach=1)
    assert durations.prospect(few.price_s, 0.05)[0] > 2
    assert durations.prospect(many.price_s, 0.05)[0] < 1.1


def test_jobs_wait_for_each_other_only_where_one_page_for_all_gets_more_of_them_through() -> None:
    durations = learned(*[1.0] * 30)
    scarce = best_terms(durations, rate=RATE, open_jobs=10, answer_s=0.2, told=1.0, reach=10)
    plenty = best_terms(durations, rate=None, open_jobs=10, answer_s=0.2, told=1.0, reach=10)
    assert scarce.patience_s > 0
    assert plenty.patience_s == 0


def test_without_a_rate_a_question_may_always_be_asked() -> None:
    budget = PollBudget()
    for _ in range(10_000):
        assert budget.opens_at(0.0, None, reach=1, taught=False) == 0.0
        budget.spent()


def test_questions_take_what_submits_leave_and_no_more() -> None:
    budget, now, asked = PollBudget(), 0.0, 0
    while now < 3_000.0:
        for _ in range(2):  # of the three requests a second
            budget.submitted()
        while budget.opens_at(now, RATE, reach=1, taught=True) <= now:
            budget.spent()
            asked += 1
        now += 1.0
    # At the least half of the rate is left to them: no slot is free before it was asked for.
    assert asked <= 90 + 3_000 * 1.6
    assert asked >= 3_000 * 1.4


def test_a_tiny_rate_lets_a_question_through_now_and_then() -> None:
    budget, rate = PollBudget(), Rate(count=3, period_s=300.0)
    assert budget.opens_at(0.0, rate, reach=1, taught=False) == 0.0
    budget.spent()
    assert budget.opens_at(0.0, rate, reach=1, taught=False) == pytest.approx(200.0)


# --- pages of the list ---


def test_a_list_that_shows_nothing_of_ours_is_left_alone_for_longer_each_time() -> None:
    pages, now, pauses = Pages(), 0.0, []
    for _ in range(8):
        assert pages.usable(now, RATE)
        pages.read(now, rows=3, wanted=2, shown=0)
        begun = now
        while not pages.usable(now, RATE):
            now += 10.0
        pauses.append(now - begun)
    assert pauses == sorted(pauses)
    assert pauses[0] == 60.0
    assert pauses[-1] == 3_600.0


@pytest.mark.parametrize("ours", [1, 2, 3, 7, 20, 55])
def test_our_jobs_are_found_on_the_last_page_of_a_list_that_begins_with_the_oldest(ours: int) -> None:
    pages, asked = Pages(), 0
    while pages.page != ours and asked < 20:
        assert pages.usable(0.0, RATE)
        pages.read(0.0, rows=PAGE_JOBS if pages.page < ours else 0, wanted=2, shown=0)
        asked += 1
    assert pages.page == ours
    assert asked <= 13
    pages.read(0.0, rows=PAGE_JOBS, wanted=2, shown=1)  # it has become full
    assert pages.page == ours + 1


def test_with_a_small_rate_the_page_is_looked_for_in_parts_until_it_is_found() -> None:
    """At midnight the list loses the day before yesterday, and our page lies far before the one that was known."""
    pages, rate, now = Pages(), Rate(count=20, period_s=300.0), 0.0
    for ours in (40, 17):
        asked = 0
        while True:
            now += 60.0
            if not pages.usable(now, rate):
                continue
            asked += 1
            assert asked < 30
            found = pages.page == ours
            rows = 50 if pages.page < ours else 20 if found else 0
            pages.read(now, rows=rows, wanted=8, shown=8 if found else 0)
            if found:
                break


def test_while_jobs_lie_on_two_pages_the_one_with_more_of_them_is_asked_for() -> None:
    pages = Pages()
    pages.read(0.0, rows=50, wanted=8, shown=5)
    assert pages.page == 1
    pages.read(1.0, rows=50, wanted=8, shown=4)
    assert pages.page == 2


def test_with_a_tiny_rate_one_useless_page_is_enough() -> None:
    pages, rate = Pages(), Rate(count=3, period_s=300.0)
    assert pages.usable(0.0, rate)
    pages.read(0.0, rows=PAGE_JOBS, wanted=2, shown=0)
    assert not pages.usable(4_000.0, rate)


# --- the plan ---


def ask(plan: PollPlan, now: float, rate: Rate | None = RATE) -> Question:
    question = plan.choose(now, rate)
    assert question is not None
    plan.sent(question, now)
    return question


def test_nothing_is_due_without_jobs() -> None:
    assert PollPlan().next_at(0.0, RATE) == math.inf
    assert PollPlan().choose(0.0, RATE) is None


def test_jobs_due_together_make_one_page_and_those_it_hides_are_asked_for_themselves() -> None:
    plan = PollPlan(least_s=5.0)
    for job_id in "abc":
        plan.opened(job_id, 0.0, 0.0)
    assert plan.choose(4.9, RATE) is None
    question = ask(plan, 5.0)
    assert (set(question.jobs), question.page) == (set("abc"), 1)
    plan.answered(question, 5.0, 5.2, {"a": True, "b": False}, rows=2)
    assert ask(plan, 5.2) == Question(jobs=("c",))
    assert "a" not in plan
    assert len(plan) == 2


def test_one_question_under_way_after_a_job_that_has_surely_ended_is_enough() -> None:
    plan = PollPlan()
    plan.recall([(59.9, 60.0)] * 30)
    plan.opened("a", 0.0, 0.0, at_once=True)
    ask(plan, 60.1)
    assert 61.0 < plan.due_at("a") < math.inf  # should the answer never come


def test_a_question_that_fails_is_asked_again_after_growing_waits() -> None:
    plan, now, waits = PollPlan(), 0.0, []
    plan.opened("a", 0.0, 0.0)
    for _ in range(9):
        now = plan.due_at("a")
        question = ask(plan, now)
        plan.answered(question, now, now, {})
        waits.append(plan.due_at("a") - now)
    assert waits[:4] == pytest.approx([1.0, 2.0, 4.0, 8.0], abs=0.5)
    assert waits[-1] == pytest.approx(60.0)


def test_a_job_that_never_ends_costs_less_and_less() -> None:
    plan, now, asked = PollPlan(), 0.0, 0
    plan.opened("a", 0.0, 0.0)
    while now < 30 * 86_400:
        now = max(plan.next_at(now, RATE), math.nextafter(now, math.inf))
        if question := plan.choose(now, RATE):
            plan.sent(question, now)
            plan.answered(question, now, now, {"a": False})
            asked += 1
    assert asked < 5_000  # one in ten minutes


def test_thousands_of_open_jobs_are_planned_quickly_and_stay_within_the_budget() -> None:
    plan, now, asked = PollPlan(), 0.0, 0
    for number in range(5_000):
        plan.opened(str(number), 0.0, 0.0)
    while now < 600.0:
        question = plan.choose(now, RATE)
        if question is None:
            now = max(plan.next_at(now, RATE), math.nextafter(now, math.inf))
            continue
        plan.sent(question, now)
        plan.answered(question, now, now, dict.fromkeys(question.jobs, False), rows=PAGE_JOBS)
        asked += 1
    assert asked <= 90 + 600 * 1.5 + 1


def test_while_others_hold_slots_the_list_is_looked_at_more_rarely_the_longer_it_takes() -> None:
    plan, now, looks = PollPlan(), 0.0, []
    plan.watch_others(0.0)
    while now < 3_600.0:
        now = plan.next_at(now, RATE)
        question = ask(plan, now)
        assert question == Question(jobs=(), page=1)
        plan.answered(question, now, now, {}, rows=3)
        looks.append(now)
    assert looks[0] == 2.0
    assert 40 < len(looks) < 100
    plan.watch_others(None)
    assert plan.next_at(now, RATE) == math.inf
