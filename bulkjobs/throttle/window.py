"""The window: never more than N requests in any period of W seconds, as the server counts.

A request takes one of N tokens and gives it back W seconds after its *end*. The server counts the request at
some moment between its start and its end, so two counts on one token lie at least W apart, and no window of
length W holds more than N counts: no clocks need to agree, and no latency matters.
"""

from __future__ import annotations

import math
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Final

from bulkjobs.throttle.decisions import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["GRACE_S", "Window", "last_count", "last_count_before"]

GRACE_S: Final = 10.0
"""How long after we gave up on an answer the server may still count the request."""


def last_count(now: float, outcome: Outcome, grace_s: float) -> float | None:
    """Gives the last moment at which the server may count a request that ended now; None if it never saw it."""
    if outcome is Outcome.NOT_SENT:
        return None
    return now + grace_s if outcome is Outcome.UNKNOWN_END else now


def last_count_before(now: float, start: float, end: float | None, grace_s: float) -> float:
    """Gives the same of a request of an earlier process, of which no end may be known."""
    # With the grace for all of them: an end may be that of an answer, or of our patience.
    return (now if end is None else min(now, max(start, end))) + grace_s


class Window:
    """Keeps the tokens of ended requests until they are free again."""

    __slots__ = ("_counted", "window_s")

    def __init__(self, window_s: float) -> None:
        """Begins with every token free."""
        self.window_s = window_s
        self._counted: list[float] = []
        """The last moment at which each may be counted. A heap: out of order once some ends are unknown."""

    def opens_at(self, now: float, limit: int, in_flight: int) -> float:
        """Gives when a token may be free; not later than `now` if one is."""
        if self.held(now) + in_flight < limit:
            return now
        return self._counted[0] + self.window_s if self._counted else math.inf

    def held(self, now: float) -> int:
        """Counts the tokens that ended requests still hold."""
        counted = self._counted
        while counted and counted[0] + self.window_s <= now:
            heappop(counted)
        return len(counted)

    def hold(self, counted_until: float) -> None:
        """Keeps a token for a request that the server counts at this moment at the latest."""
        heappush(self._counted, counted_until)

    def fill(self, now: float, limit: int) -> None:
        """Takes it that nothing is known of the last window: no token is free before it has passed."""
        self._counted = [now] * limit

    def restore(self, now: float, history: Iterable[tuple[float, float | None]], grace_s: float) -> None:
        """Takes up the requests of an earlier process."""
        for start, end in history:
            last = last_count_before(now, start, end, grace_s)
            if last + self.window_s > now:
                self._counted.append(last)
        heapify(self._counted)
