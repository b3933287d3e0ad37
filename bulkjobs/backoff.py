"""How long to wait: before an attempt is made again, and before a job is asked for again.

Pure arithmetic; randomness is an argument, so that a test names the very delay it expects.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from bulkjobs.settings import Rate

__all__ = ["MAX_POLL_DELAY_S", "delay_s", "poll_delay_s"]

MAX_POLL_DELAY_S: Final = 60.0
"""A finished job frees a slot that a chunk may be waiting for, so none goes unwatched for longer."""

_AGE_SHARE: Final = 0.1
_POLL_SHARE: Final = 0.5


def delay_s(attempt: int, *, base_s: float, cap_s: float, random: float) -> float:
    """Gives the wait after a failed attempt: capped exponential growth with full jitter.

    The whole span below the ceiling is used and not only its upper part, because workers that failed
    together must not come back together.

    Args:
        attempt: how many attempts have failed in a row, from 1; any size.
        base_s: ceiling after the first, in seconds, above 0.
        cap_s: the ceiling never exceeds this, in seconds; at least `base_s`.
        random: uniform in [0, 1).

    Returns:
        Seconds, from 0 to below `min(cap_s, base_s * 2 ** (attempt - 1))`.

    Raises:
        ValueError: an argument is out of range.

    Source: AWS Builders' Library, "Timeouts, retries and backoff with jitter".
    """
    if attempt < 1 or not 0 < base_s <= cap_s < math.inf or not 0 <= random < 1:
        raise ValueError(f"No delay for attempt {attempt}, base {base_s} s, cap {cap_s} s, random {random}.")
    # The doublings are compared with those the cap allows, since 2.0 ** 1024 is an OverflowError.
    capped = attempt - 1 >= math.log2(cap_s) - math.log2(base_s)
    ceiling_s = cap_s if capped else math.ldexp(base_s, attempt - 1)
    return random * min(cap_s, ceiling_s)


def poll_delay_s(age_s: float, open_jobs: int, rate: Rate | None, *, floor_s: float) -> float:
    """Gives the time until a job's next status request.

    Jobs take from a minute to hours, so the wait grows with what has passed: a tenth of the job's age means
    that its end is noticed at most a tenth late, for some 20 requests in the first hour. All status requests
    draw on the account's window; together they may take at most half of it, so that submits find room
    however many jobs are open.

    Args:
        age_s: seconds since the job was accepted; a negative age (the wall clock was set) counts as 0.
        open_jobs: how many jobs are polled, this one included.
        rate: the account's limit in force; None for none.
        floor_s: least seconds between two status requests for one job.

    Returns:
        Seconds, at least `floor_s`; at most `MAX_POLL_DELAY_S` unless the floor or the share of the rate
        demands more.
    """
    wanted_s = max(floor_s, min(MAX_POLL_DELAY_S, _AGE_SHARE * age_s))
    if rate is None:
        return wanted_s
    return max(wanted_s, open_jobs * rate.period_s / (_POLL_SHARE * rate.count))
