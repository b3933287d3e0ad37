"""Delays grow, are capped, never overflow; polls stay within half of the account's rate."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkjobs.backoff import MAX_POLL_DELAY_S, delay_s, poll_delay_s
from bulkjobs.settings import Rate

ALMOST_ONE = math.nextafter(1.0, 0.0)


@pytest.mark.parametrize(
    ("attempt", "ceiling_s"),
    [(1, 1.0), (2, 2.0), (3, 4.0), (6, 32.0), (7, 60.0), (8, 60.0), (2_000, 60.0), (10**30, 60.0)],
)
def test_the_ceiling_doubles_with_every_attempt_up_to_the_cap(attempt: int, ceiling_s: float) -> None:
    assert delay_s(attempt, base_s=1.0, cap_s=60.0, random=ALMOST_ONE) == pytest.approx(ceiling_s)


@given(
    attempt=st.integers(min_value=1, max_value=10**40),
    base_s=st.floats(min_value=1e-300, max_value=1e300),
    factor=st.floats(min_value=1.0, max_value=1e8),
    random=st.floats(min_value=0.0, max_value=1.0, exclude_max=True),
)
def test_a_delay_is_never_negative_and_never_above_the_cap(attempt, base_s, factor, random) -> None:
    cap_s = base_s * factor
    assert 0.0 <= delay_s(attempt, base_s=base_s, cap_s=cap_s, random=random) <= cap_s


def test_the_jitter_uses_the_whole_span_below_the_ceiling() -> None:
    assert delay_s(5, base_s=1.0, cap_s=60.0, random=0.0) == 0.0
    assert delay_s(5, base_s=1.0, cap_s=60.0, random=0.5) == 8.0


@pytest.mark.parametrize(
    "change",
    [
        {"attempt": 0},
        {"base_s": 0.0},
        {"base_s": 61.0},
        {"cap_s": math.inf},
        {"cap_s": math.nan},
        {"random": 1.0},
        {"random": -0.1},
    ],
)
def test_arguments_out_of_range_are_refused(change: dict[str, float]) -> None:
    arguments = {"attempt": 1, "base_s": 1.0, "cap_s": 60.0, "random": 0.5} | change
    with pytest.raises(ValueError, match="No delay"):
        delay_s(**arguments)


@pytest.mark.parametrize(
    ("age_s", "expected_s"),
    [(-7_200.0, 5.0), (0.0, 5.0), (50.0, 5.0), (100.0, 10.0), (600.0, 60.0), (86_400.0, 60.0)],
)
def test_a_job_is_asked_for_after_a_tenth_of_its_age_between_the_floor_and_a_minute(
    age_s, expected_s
) -> None:
    assert poll_delay_s(age_s, 1, None, floor_s=5.0) == expected_s


def test_a_floor_above_the_cap_holds() -> None:
    assert poll_delay_s(10_000.0, 1, None, floor_s=300.0) == 300.0


@given(
    ages_s=st.lists(st.floats(min_value=0, max_value=1e6), min_size=1, max_size=50),
    count=st.integers(min_value=1, max_value=10_000),
    period_s=st.floats(min_value=1.0, max_value=3_600.0),
)
def test_all_polls_together_use_at_most_half_of_the_rate(ages_s, count, period_s) -> None:
    rate = Rate(count=count, period_s=period_s)
    polls_per_s = sum(1 / poll_delay_s(age_s, len(ages_s), rate, floor_s=1.0) for age_s in ages_s)
    assert polls_per_s <= 0.5 * count / period_s * (1 + 1e-9)


def test_the_default_rate_leaves_two_jobs_at_a_minute() -> None:
    assert poll_delay_s(3_600.0, 2, Rate(count=900, period_s=300.0), floor_s=5.0) == MAX_POLL_DELAY_S
