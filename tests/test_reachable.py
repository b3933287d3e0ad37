"""The bound for clients that must ask, against what can be worked out by other means."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from support.scenarios.reachable import Law, cheapest_s, most_jobs

from bulkjobs.simulator.config import Span

ALIKE = Law.of_spans([Span(min_s=60.0, max_s=60.0)])
SPREAD = Law.of_spans([Span(min_s=180.0, max_s=360.0)])


def law_of(ended: list[float]) -> Law:
    """Makes a law of jobs that end at 1, 2, 3 … seconds, which is looked at then only."""
    ages = np.arange(len(ended) + 1, dtype=float)
    chances = np.diff([0.0, *ended])
    mean_s = float(np.dot(ages[1:], chances))
    return Law(ages=ages, ended=np.array([0.0, *ended]), mean_s=mean_s, gap_s=0.0, gap_share=0.0)


def cost_s(law: Law, looks: tuple[int, ...], price_s: float, answer_s: float) -> float:
    """Adds up what looks at these ages cost, each one asked unless an answer before it told of the end."""
    total = 0.0
    for age, chance in zip(law.ages[1:], np.diff(law.ended), strict=True):
        seen = min(look for look in looks if look >= age)
        asked = sum(look < seen + answer_s or look <= seen for look in looks)
        total += chance * (seen - age + price_s * asked)
    return total


@pytest.mark.parametrize("price_s", [0.05, 0.3, 1.0, 4.0])
@pytest.mark.parametrize("answer_s", [0.0, 2.0])
def test_no_choice_of_looks_costs_less_than_the_cheapest_and_one_costs_as_much(
    price_s: float, answer_s: float
) -> None:
    law = law_of([0.1, 0.1, 0.4, 0.5, 0.8, 0.9, 0.9, 1.0])
    every = [
        cost_s(law, (*looks, 8), price_s, answer_s)
        for many in range(8)
        for looks in combinations(range(1, 8), many)
    ]
    cheapest = cheapest_s(law, price_s, answer_s)
    assert cheapest <= min(every) + 1e-9
    if not answer_s:  # else a look may be paid for that a clever client would not have asked
        assert cheapest == pytest.approx(min(every))


def test_a_job_whose_end_is_certain_costs_one_question() -> None:
    assert cheapest_s(ALIKE, 5.0) == pytest.approx(5.0, abs=0.01)


def test_close_looks_cost_what_arithmetic_says() -> None:
    """Evenly strewn ends over a width of w: with k looks the mean wait is w / 2k, and (k + 1) / 2 are asked."""
    price_s = 2.0
    even = min(180.0 / (2 * many) + price_s * (many + 1) / 2 for many in range(1, 40))
    assert 0.85 * even <= cheapest_s(SPREAD, price_s) <= even


def test_what_certain_ends_cost_is_the_window_of_who_sees_the_future_or_its_slots() -> None:
    seldom = most_jobs(ALIKE, slots=2, shared=2, requests=300.0, span_s=100_000.0, idle_s=1.0)
    assert seldom == pytest.approx(200.0, rel=0.01)
    often = most_jobs(ALIKE, slots=2, shared=2, requests=1e6, span_s=100_000.0, idle_s=1.0)
    assert often == pytest.approx(2 * 100_060.0 / 61.0, rel=0.01)


def test_without_a_limit_every_end_can_be_seen_at_once() -> None:
    most = most_jobs(SPREAD, slots=3, shared=1, requests=math.inf, span_s=10_000.0, idle_s=0.0)
    assert most == pytest.approx(3 * 10_270.0 / 270.0)


def test_fewer_requests_and_pages_that_tell_of_fewer_jobs_allow_fewer_jobs() -> None:
    def most(shared: int, requests: float) -> float:
        return most_jobs(SPREAD, slots=8, shared=shared, requests=requests, span_s=86_400.0, idle_s=0.4)

    assert most(1, 5_000.0) < most(2, 5_000.0) < most(8, 5_000.0) < most(8, 10_000.0)
