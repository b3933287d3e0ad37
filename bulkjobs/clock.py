"""The wall clock, and how its times are placed on the clock that waits.

Stored times are Unix seconds, because they must outlive the process. Everything that waits uses the event
loop's monotonic clock, because the wall clock can be set back and forth.
"""

from __future__ import annotations

import math
import time
from functools import lru_cache

__all__ = ["SystemClock", "timestamp", "to_loop_time"]


class SystemClock:
    """Tells the wall time of this machine; it is a `ports.Clock`."""

    def utc(self) -> float:
        """Gives Unix seconds."""
        return time.time()


def to_loop_time(utc: float, *, now_utc: float, now_loop: float) -> float:
    """Places a stored wall time on the event loop's clock, or any other monotonic one.

    Args:
        utc: the stored time, in Unix seconds.
        now_utc: what the wall clock shows.
        now_loop: what the monotonic clock shows at the same moment.

    Returns:
        The time as the monotonic clock would have shown it, in seconds. It is as wrong as the wall clock has
        been set in between, so whoever uses it bounds it.
    """
    return now_loop + (utc - now_utc)


def timestamp(utc: float) -> str:
    """Writes Unix seconds as RFC 3339 in UTC with milliseconds, e.g. "2026-01-31T12:00:00.250Z"."""
    fraction, whole = math.modf(utc)
    seconds, microseconds = divmod(
        int(whole) * 1_000_000 + round(fraction * 1e6), 1_000_000
    )  # as `datetime` does
    return f"{_second(seconds)}.{microseconds // 1_000:03d}Z"


@lru_cache(maxsize=2)
def _second(seconds: int) -> str:
    """Writes a whole second; a fast session makes thousands of job records in each."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
