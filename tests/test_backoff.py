"""Delays grow, are capped, and never overflow."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkjobs.backoff import delay_s

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
