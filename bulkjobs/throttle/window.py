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

    from bulkjobs.settings import Rate

__all__ = ["GRACE_S", "Window"]

GRACE_S: Final = 10.0
"""How long after we gave up on an answer the server may still count the request."""

_LESSON_SHARE: Final = 0.9
_LESSON_FLOOR: Final = 10
"""One lesson leaves at least the tenth part: a stray 429 early in a window would otherwise teach a limit of
one request, for ever. A limit that is still too high meets its next lock-out, and its next lesson."""


class Window:
    """Keeps the tokens of ended requests until they are free again, and the limit in force."""

    __slots__ = ("_free_at", "_grace_s", "limit", "window_s")

    def __init__(self, rate: Rate, grace_s: float) -> None:
        self.limit = rate.count
        self.window_s = rate.period_s
        self._grace_s = grace_s
        # A heap, as ends do not come in the order of their tokens' return once some are unknown.
        self._free_at: list[float] = []

    def opens_at(self, now: float, in_flight: int) -> float:
        """Gives when a token may be free; not later than `now` if one is."""
        if self.held(now) + in_flight < self.limit:
            return now
        return self._free_at[0] if self._free_at else math.inf

    def held(self, now: float) -> int:
        """Counts the tokens that ended requests still hold."""
        free_at = self._free_at
        while free_at and free_at[0] <= now:
            heappop(free_at)
        return len(free_at)

    def ended(self, now: float, outcome: Outcome) -> None:
        """Keeps the token of a request that ended for as long as the server may count it."""
        if outcome is Outcome.UNKNOWN_END:
            heappush(self._free_at, now + self.window_s + self._grace_s)
        elif outcome is not Outcome.NOT_SENT:
            heappush(self._free_at, now + self.window_s)

    def learn(self, let_through: int) -> None:
        """Lowers the limit to nine tenths of what went through before the server refused."""
        if 0 < let_through < self.limit:
            # None at all says nothing: somebody else used the window up, or an older lock-out runs.
            self.limit = max(1, int(let_through * _LESSON_SHARE), self.limit // _LESSON_FLOOR)

    def restore(self, now: float, history: Iterable[tuple[float, float | None]]) -> None:
        """Takes up the requests of an earlier process."""
        for start, end in history:
            # With the grace for all of them: an end may be that of an answer, or of our patience.
            last = (now if end is None else min(now, max(start, end))) + self._grace_s
            if last + self.window_s > now:
                self._free_at.append(last + self.window_s)
        heapify(self._free_at)
