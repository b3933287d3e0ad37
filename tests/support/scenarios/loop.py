"""Time, as a list of what comes next: an hour passes as fast as what happens in it can be worked out."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Any, Final

__all__ = ["Loop"]

_MOST_AT_ONCE: Final = 100_000
"""So much does not happen at one moment: somebody waits for a time that has come, again and again."""


class Loop:
    """Calls functions at their times, in order; those of one moment in the order in which they were asked for."""

    def __init__(self) -> None:
        self.now = 0.0
        self.stopped = False
        self._next: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._order = count()

    def at(self, when: float, call: Callable[..., object], *arguments: Any) -> None:
        """Has a function called at a time; at once if that has passed."""
        heappush(self._next, (when, next(self._order), call, arguments))

    def run(self, until: float) -> None:
        """Lets time pass until somebody sets `stopped`, nothing is left, or a time has come."""
        upcoming, at_once = self._next, 0
        while upcoming and not self.stopped:
            when, _, call, arguments = heappop(upcoming)
            if when > until:
                return
            if when > self.now:
                self.now, at_once = when, 0
            else:
                at_once += 1
                if at_once > _MOST_AT_ONCE:
                    raise RuntimeError(f"time does not go on after {self.now} s")
            call(*arguments)
