"""Decides when an outage must not be fed any more chunks.

Each submission without a provable outcome leaves a held chunk behind, which somebody has to settle. A server that
answers everything with 503, or a network that swallows answers, would turn a whole run into held chunks. So after
some unknown outcomes in a row submits stop; after a wait one goes out alone, and only when its outcome is known
do the others follow. The waits grow, so an outage of hours costs a few chunks more than were in flight.
"""

from __future__ import annotations

import math
from typing import Final

__all__ = ["Breaker"]

IN_A_ROW: Final = 3
"""One unknown in a hundred, as a bad day has them, makes three in a row once in a million submissions."""

FIRST_WAIT_S: Final = 10.0
MAX_WAIT_S: Final = 600.0


class Breaker:
    """Counts unknown outcomes of submissions and tells when the next one may go. Clock readings are arguments."""

    def __init__(self) -> None:
        """Begins closed, which means that everything passes."""
        self._in_a_row = 0
        self._wait_s = FIRST_WAIT_S
        self._until: float | None = None

    @property
    def tripped(self) -> bool:
        """Tells whether submits are stopped, or let through one at a time."""
        return self._until is not None

    def opens_at(self, now: float, submitting: int) -> float:
        """Gives when a submit may go; not later than `now` if one may.

        Args:
            now: the present, in seconds on the clock of all calls.
            submitting: submits in flight. While there is one, the answer is infinite: its outcome decides.
        """
        if self._until is None:
            return now
        return math.inf if submitting else max(now, self._until)

    def known(self) -> bool:
        """Takes an outcome that is known, whatever it is; tells whether that ends a stop."""
        ends = self.tripped
        self._in_a_row = 0
        self._wait_s = FIRST_WAIT_S
        self._until = None
        return ends

    def unknown(self, now: float) -> float | None:
        """Takes an unknown outcome; gives the wait in seconds that it begins, if it does."""
        self._in_a_row += 1
        if self._in_a_row < IN_A_ROW:
            return None
        if self._until is not None:
            if now < self._until:
                return None  # one of those that were in flight together
            self._wait_s = min(2 * self._wait_s, MAX_WAIT_S)
        self._until = now + self._wait_s
        return self._wait_s
