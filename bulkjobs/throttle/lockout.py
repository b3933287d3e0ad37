"""The lock-out: a throttle answer closes the account, and a probe opens it again step by step.

The first throttle answer closes the account until every request in flight has ended and the lock-out period,
with a margin, has passed since the last end of any request. Then a slow start: one request goes out, the probe;
once it is answered, at most as many requests are in flight as were answered since the lock-out, so 1, 2, 4, …
per round trip, up to N. A probe that is throttled, or of which nothing comes back, begins the lock-out anew.

When answers died with a process, one of them may have been the first throttle. Then too one request goes alone. If
it gets lost as well, the next one follows after a wait that doubles from a second: nobody has seen a lock-out.
"""

from __future__ import annotations

import math
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final

from bulkjobs.throttle.decisions import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LOCKOUT_MARGIN", "MAX_RETRY_AFTER_S", "Lockout", "Phase"]

LOCKOUT_MARGIN: Final = 1.03
"""The lock-out is kept 3 % longer than configured (9 s of 300): a request into it may begin it anew."""

MAX_RETRY_AFTER_S: Final = 86_400.0
"""A server that asks for more than a day has made a mistake; after a day it is probed with one request."""


_MOST_DOUBTS: Final = 16
"""Doublings of the wait after a lost probe, before it is a lock-out's length anyway."""


class Phase(Enum):
    """Is how far the account is closed."""

    OPEN = auto()
    LOCKED = auto()
    PROBING = auto()
    RAMPING = auto()


class Lockout:
    """Keeps the account closed after a throttle answer and opens it again step by step."""

    __slots__ = ("_answered", "_doubts", "_hold_s", "_length_s", "phase", "until")

    def __init__(self, lockout_s: float) -> None:
        """Begins open; `lockout_s` is how long a throttle answer closes the account, without margin."""
        self.phase = Phase.OPEN
        self.until = -math.inf
        self._hold_s = lockout_s * LOCKOUT_MARGIN
        self._length_s = self._hold_s
        """Of the latest lock-out, when it began: no more of it can be left."""
        self._answered = 0
        self._doubts: int | None = None
        """While it is only possible that there is a lock-out: the probes that got lost. None else."""

    @property
    def doubtful(self) -> bool:
        """Tells whether nobody has seen a throttle answer: it may have been among answers that were lost."""
        return self._doubts is not None

    @property
    def is_open(self) -> bool:
        """Tells whether there is neither a lock-out nor what follows it."""
        return self.phase is Phase.OPEN

    def opens_at(self, now: float, in_flight: int) -> float:
        """Gives when the account may be open; not later than `now` if it is."""
        if self.phase is Phase.OPEN:
            return now
        if self.phase is Phase.LOCKED and not in_flight:
            return self.until
        if self.phase is Phase.RAMPING and in_flight < self._answered:
            return now
        return math.inf

    def started(self) -> None:
        """Takes the start of a request: the first one into a lock-out that is over is its probe."""
        if self.phase is Phase.LOCKED:
            self.phase = Phase.PROBING

    def ended(self, now: float, outcome: Outcome, retry_after_s: float | None, ramp_end: float) -> None:
        """Takes the end of a request; `ramp_end` is how many answers open the account wholly."""
        if outcome is Outcome.THROTTLED:
            self._close(now, retry_after_s)
        elif outcome is Outcome.NOT_SENT:
            if self.phase is Phase.PROBING:
                self.phase = Phase.LOCKED
        elif self.phase is Phase.LOCKED or (self.phase is Phase.PROBING and outcome is Outcome.UNKNOWN_END):
            self._last_or_lost(now)
        elif outcome is Outcome.ANSWERED:
            self._step_up(ramp_end)

    def restore(self, now: float, until: float) -> None:
        """Takes up a stored lock-out; one that ended lately still has to be probed."""
        if until > now - self._hold_s:
            self.until = max(self.until, min(until, now + max(self._hold_s, MAX_RETRY_AFTER_S)))
            self.phase = Phase.LOCKED
            self._doubts = None

    def suspect(self, now: float) -> None:
        """Takes it that answers were lost, one of which may have been a throttle: one request finds out."""
        if self.phase in (Phase.OPEN, Phase.RAMPING):
            self.phase, self.until = Phase.LOCKED, max(self.until, now)
            self._answered, self._doubts = 0, 0

    def state(self) -> dict[str, Any]:
        """Gives what another process of the account must know, as plain values."""
        return {
            "phase": self.phase.name,
            "until": None if self.until == -math.inf else self.until,
            "length_s": self._length_s,
            "answered": self._answered,
            "doubts": self._doubts,
        }

    def load(self, state: Mapping[str, Any], shift_s: float) -> None:
        """Takes up what `state` gave; `shift_s` is what has to be added to its times."""
        self.phase = Phase[state["phase"]]
        self.until = -math.inf if state["until"] is None else state["until"] + shift_s
        self._length_s = state["length_s"]
        self._answered = state["answered"]
        self._doubts = state["doubts"]

    def bound(self, now: float) -> None:
        """Lets no more be left of a lock-out than it began with: the clock that placed it may be wrong."""
        self.until = min(self.until, now + self._length_s)

    def _last_or_lost(self, now: float) -> None:
        """Takes the end of a request sent before the lock-out, or a probe of which nothing came back."""
        if self._doubts is None:
            self._close(now, None)
        elif self.phase is Phase.PROBING:
            # A lost answer is no throttle: a server that loses many must not cost a lock-out each.
            self.until = now + min(self._hold_s, 2.0**self._doubts)
            self.phase = Phase.LOCKED
            self._doubts = min(self._doubts + 1, _MOST_DOUBTS)

    def _close(self, now: float, retry_after_s: float | None) -> None:
        # A comparison with NaN is false, so nonsense asks for nothing.
        asked_s = min(retry_after_s, MAX_RETRY_AFTER_S) if retry_after_s and retry_after_s > 0 else 0.0
        self.until = max(self.until, now + max(self._hold_s, asked_s))
        self._length_s = self.until - now
        self.phase = Phase.LOCKED
        self._answered = 0
        self._doubts = None

    def _step_up(self, ramp_end: float) -> None:
        self._answered += 1
        self._doubts = None
        self.phase = Phase.RAMPING if self._answered < ramp_end else Phase.OPEN
