"""What a session without limits has sent while nobody counted: kept for those who may have to count it later."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from bulkjobs.account.turn import Turn

__all__ = ["Uncounted"]

_KEPT: Final = 256
"""Requests. Whoever has sent more counts as having used up every limit; to enter them takes half a millisecond."""


class Uncounted:
    """Keeps until when each of the last requests may be counted."""

    __slots__ = ("_last", "lost_some")

    def __init__(self) -> None:
        self._last: deque[float] = deque(maxlen=_KEPT)
        self.lost_some = False
        """More were sent than are kept."""

    def add(self, counted_until: float | None) -> None:
        """Takes a request that has ended; None for one that was never sent."""
        if counted_until is not None:
            self._last.append(counted_until)

    def enter(self, turn: Turn, session: int, unknown_before: float | None) -> float | None:
        """Enters them, and forgets them.

        Returns:
            The moment before which any may be missing; `unknown_before` is what it was by now. None if none is.
        """
        turn.add_past_of(session, self._last)
        if len(self._last) == _KEPT:
            self.lost_some = True
            unknown_before = (
                min(self._last) if unknown_before is None else max(unknown_before, min(self._last))
            )
        self._last.clear()
        return unknown_before
