"""Decides when an outage must not be fed any more chunks.

Each submission without a provable outcome leaves a held chunk behind, which somebody has to settle. A server that
answers everything with 503, or a network that swallows answers, would turn a whole run into held chunks. So after
some unknown outcomes submits stop; after a wait a request that costs nothing asks whether the server answers at all.
Only then one submit goes alone, and only when its outcome is known do the others follow. The waits grow, so an
outage of hours holds what was in flight when it began and next to nothing more.

    open ─ unknown outcomes ─▶ waiting ─ the server answers ─▶ ready ─ a submit goes ─▶ trying ─ known ─▶ open
                                  ▲ it does not: a longer wait                             │
                                  └──────────────────────── unknown: a longer wait ────────┘

What was in flight when submits stopped decides nothing any more: its outcomes come late and in any order.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from bulkjobs.errors import InternalError

__all__ = ["IN_A_ROW", "Breaker", "Pause"]

IN_A_ROW: Final = 3
"""One unknown in a hundred, as a bad day has them, makes three in a row once in a million submissions."""

RECENT: Final = 200
MOST_OF_RECENT: Final = max(5, RECENT // 100)
"""As many of the last `RECENT` outcomes may be unknown."""

FIRST_WAIT_S: Final = 10.0
MAX_WAIT_S: Final = 600.0

PATIENCE_S: Final = 3_600.0
"""After so long without an answer to a question one submit goes all the same: what is asked for may be broken by
itself, and a run must not wait for it for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """Is a wait before the next question."""

    wait_s: float
    reason: str


class _Phase(Enum):
    OPEN = auto()
    WAITING = auto()
    READY = auto()
    TRYING = auto()


class Breaker:
    """Counts unknown outcomes of submissions and tells when the next one may go. Clock readings are arguments."""

    def __init__(self) -> None:
        """Begins open, which means that everything passes."""
        self._phase = _Phase.OPEN
        self._in_a_row = 0
        self._recent: deque[bool] = deque(maxlen=RECENT)
        """Whether each of the last outcomes was unknown."""
        self._next_wait_s = FIRST_WAIT_S
        self._ask_at = 0.0
        self._last_try = 0.0

    @property
    def lets_through(self) -> bool:
        """Tells whether a submit may go now."""
        return self._phase in (_Phase.OPEN, _Phase.READY)

    @property
    def ask_at(self) -> float | None:
        """Is when the server is to be asked; None while there is nothing to ask."""
        return self._ask_at if self._phase is _Phase.WAITING else None

    def recall(self, in_a_row: int, now: float) -> Pause | None:
        """Takes up what the last session ended with; to be called before the first submit.

        Args:
            in_a_row: how many outcomes in a row were unknown at its end.
            now: the present.

        Returns:
            A pause without a wait, if these are enough to stop submits.
        """
        self._in_a_row = in_a_row
        if in_a_row < IN_A_ROW:
            return None
        return self._stop(now, "the last session ended with unknown outcomes", at_once=True)

    def started(self) -> bool:
        """Takes note that a submit goes; tells whether it is the one that tries alone."""
        if self._phase is not _Phase.READY:
            return False
        self._phase = _Phase.TRYING
        return True

    def left(self) -> None:
        """Takes note that the one that tried alone came to no outcome, as nothing was sent: another may try."""
        self._phase = _Phase.READY

    def known(self, *, alone: bool) -> bool:
        """Takes an outcome that is known, whatever it is; tells whether that ends a stop.

        Args:
            alone: it is that of the one that tried alone.
        """
        if alone:
            self._phase = _Phase.OPEN
            self._next_wait_s = FIRST_WAIT_S
        if self._phase is _Phase.OPEN:
            self._in_a_row = 0
            self._recent.append(False)
        return alone

    def unknown(self, now: float, *, alone: bool) -> Pause | None:
        """Takes an unknown outcome; gives the pause that it begins, if it does.

        Args:
            now: the present.
            alone: as in `known`.
        """
        if alone:
            return self._stop(now, "the outcome of the one chunk that tried is unknown as well")
        if self._phase is not _Phase.OPEN:
            return None  # one of those that were in flight together
        self._in_a_row += 1
        self._recent.append(True)
        if self._in_a_row >= IN_A_ROW:
            return self._stop(now, f"{self._in_a_row} outcomes in a row are unknown")
        if (count := sum(self._recent)) > MOST_OF_RECENT:
            return self._stop(now, f"{count} of the last {len(self._recent)} outcomes are unknown")
        return None

    def answers(self) -> None:
        """Takes note that the server answered a question: one submit may go alone."""
        self._check_asked()
        self._phase = _Phase.READY

    def silent(self, now: float, reason: str) -> Pause | None:
        """Takes note that the server did not answer a question.

        Returns:
            The pause that begins; None when patience is at an end, and one submit may go alone.
        """
        self._check_asked()
        if now - self._last_try < PATIENCE_S:
            return self._pause(now, reason)
        self._phase = _Phase.READY
        return None

    def _check_asked(self) -> None:
        if self._phase is not _Phase.WAITING:
            raise InternalError("The server was asked although there was nothing to ask.")

    def _stop(self, now: float, reason: str, *, at_once: bool = False) -> Pause:
        """Stops submits. What led to it is forgotten, or the first unknown afterwards would stop them again."""
        self._in_a_row = 0
        self._recent.clear()
        self._last_try = now
        return self._pause(now, reason, at_once=at_once)

    def _pause(self, now: float, reason: str, *, at_once: bool = False) -> Pause:
        wait_s = 0.0
        if not at_once:
            wait_s = self._next_wait_s
            self._next_wait_s = min(2 * wait_s, MAX_WAIT_S)
        self._phase = _Phase.WAITING
        self._ask_at = now + wait_s
        return Pause(wait_s=wait_s, reason=reason)
