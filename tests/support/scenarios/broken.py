"""Controllers that are broken on purpose, each as people write them: the scenarios must find every one of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from bulkjobs.model import RequestKind
from bulkjobs.polling import Question
from bulkjobs.settings import Rate, Settings
from bulkjobs.throttle import Decision, Outcome, Throttle, Ticket, WaitUntil
from support.scenarios.polls import Polls

__all__ = ["BROKEN", "EagerPolls"]

_TICK_S: Final = 1e-6
"""Rounding must not end the wait just before its time, again and again."""


class FreedAtStart(Throttle):
    """Gives a token back a window after the *start* of its request, which the server may have counted later."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(**_arguments(settings))
        self._now = 0.0
        self._begun: dict[Ticket, float] = {}

    def decide(self, kind: RequestKind, now: float) -> Decision:
        """Remembers the time for `started`."""
        self._now = now
        return super().decide(kind, now)

    def started(self, kind: RequestKind) -> Ticket:
        """Takes the start for the end."""
        ticket = super().started(kind)
        self._begun[ticket] = self._now
        return ticket

    def ended(
        self, ticket: Ticket, now: float, outcome: Outcome, *, retry_after_s: float | None = None
    ) -> None:
        """Tells the window of the start; a lock-out still counts from now."""
        at = now if outcome is Outcome.THROTTLED else self._begun.pop(ticket)
        super().ended(ticket, at, outcome, retry_after_s=retry_after_s)


class LeakyBucket(Throttle):
    """Lets through what `AsyncLimiter(N, W)` does, and knows no window."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(**{**_arguments(settings), "rate": None})
        assert settings.rate is not None
        self._most = settings.rate.count
        self._per_s = settings.rate.count / settings.rate.period_s
        self._level = 0.0
        self._leaked_at = 0.0

    def decide(self, kind: RequestKind, now: float) -> Decision:
        """Waits until the bucket has room."""
        self._level = max(0.0, self._level - (now - self._leaked_at) * self._per_s)
        self._leaked_at = now
        if self._level + 1 > self._most:
            wait_s = (self._level + 1 - self._most) / self._per_s + _TICK_S
            return WaitUntil(now + wait_s, "the bucket is full")
        return super().decide(kind, now)

    def started(self, kind: RequestKind) -> Ticket:
        """Fills the bucket."""
        self._level += 1
        return super().started(kind)


class ForgetsLockout(Throttle):
    """Does not take up the lock-out of the process before."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(**_arguments(settings))

    def restore(self, now: float, **known: Any) -> None:
        """Leaves out what is known of lock-outs."""
        super().restore(now, **{**known, "locked_until": None, "suspect": False})


class ForgetsWindow(Throttle):
    """Begins the window anew with each process."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(**_arguments(settings))

    def restore(self, now: float, **known: Any) -> None:
        """Leaves out the history."""
        super().restore(now, **{**known, "history": ()})


class KeepsNothingForSubmits(Throttle):
    """Lets questions after jobs use the last token of a window, so that a free slot waits for the next one."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(**_arguments(settings))
        self._for_submits = 0


class SpreadsEvenly(Throttle):
    """Sends one request each W/N seconds."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(**_arguments(settings))
        assert settings.rate is not None
        self._apart_s = settings.rate.period_s / settings.rate.count
        self._next = -math.inf
        self._now = 0.0

    def decide(self, kind: RequestKind, now: float) -> Decision:
        """Waits for its turn."""
        self._now = now
        return WaitUntil(self._next, "it is not its turn") if now < self._next else super().decide(kind, now)

    def started(self, kind: RequestKind) -> Ticket:
        """Sets the next turn."""
        self._next = self._now + self._apart_s
        return super().started(kind)


class EagerPolls(Polls):
    """Asks for each open job every second, whatever the submits need."""

    def choose(self, now: float, rate: Rate | None, others_since: float | None) -> float:
        """Takes the next job in turn."""
        if self.waiting is not None or not len(self._plan):
            return math.inf
        if now < self._asked_at + 1.0 / len(self._plan):
            return self._asked_at + 1.0 / len(self._plan)
        self._asked_at = now
        jobs = list(self._plan._jobs)
        self._turn += 1
        self.waiting = Question(jobs=(jobs[self._turn % len(jobs)],))
        return math.inf

    _asked_at = -math.inf
    _turn = 0


BROKEN: Final[Mapping[str, Callable[[Settings], Throttle]]] = {
    "a token is free a window after the start of its request": FreedAtStart,
    "nothing but aiolimiter": LeakyBucket,
    "a lock-out is not restored": ForgetsLockout,
    "the window is not restored": ForgetsWindow,
    "no token is kept for submits": KeepsNothingForSubmits,
    "requests are spread evenly": SpreadsEvenly,
}
"""By what is wrong with it."""


def _arguments(settings: Settings) -> dict[str, Any]:
    return {
        "rate": settings.rate,
        "lockout_s": settings.effective_lockout_s,
        "max_active_jobs": settings.max_active_jobs,
    }
