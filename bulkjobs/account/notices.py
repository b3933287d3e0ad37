"""Tells of what the gate waits for before it waits, and stores what must outlive the process."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from bulkjobs.events import LimitLearned, LockedOut, LockoutEnded, SlotsFull, SubmitsPaused
from bulkjobs.throttle import WaitForSlot

if TYPE_CHECKING:
    from collections.abc import Callable

    from bulkjobs.breaker import Pause
    from bulkjobs.events import Observer
    from bulkjobs.ports import Clock
    from bulkjobs.throttle import Throttle, WaitUntil

__all__ = ["Notices"]

_ANNOUNCE_SHARE: Final = 0.05
"""A lock-out that moves by less than this share of its rest is stored but not announced again: eight answers
in flight would otherwise make eight messages of one lock-out."""


class Notices:
    """Tells an observer, and stores, what has changed since it was told last."""

    def __init__(
        self,
        throttle: Throttle,
        *,
        clock: Clock,
        observer: Observer,
        on_lockout: Callable[[float, str, bool], None],
        on_limit: Callable[[int], None],
    ) -> None:
        """Takes the throttle as it is now for what is known. The arguments are those of `Gate`."""
        self._throttle = throttle
        self._clock = clock
        self._observer = observer
        self._on_lockout = on_lockout
        self._on_limit = on_limit
        self._limit = throttle.limit
        self._stored_until = -math.inf
        self._announced_until = -math.inf
        self._locked_out = False
        self._slots_announced = False

    def restored(self, now: float, *, recorded: bool) -> None:
        """Takes up what was restored. A lock-out that is not over is announced, and stored by the clock as it is now.

        Args:
            now: on the loop's clock.
            recorded: the run's ledger knows of the lock-out.
        """
        self._limit = self._throttle.limit
        self._stored_until = now
        self._locked_out = recorded
        self.changed(now, "a lock-out of an earlier session is not over")

    def changed(self, now: float, reason: str = "another process of the account met it") -> None:
        """Looks for what has changed: the limit, and a lock-out that begins, moves or ends.

        Args:
            now: on the loop's clock.
            reason: of a lock-out that begins or moves.
        """
        if self._throttle.limit != self._limit:
            self._limit_changed()
        if self._throttle.locked_out:
            self._locked(now, reason)
            return
        self._locked_out = False
        if self._announced_until > -math.inf:
            self._announced_until = -math.inf
            self._observer(LockoutEnded())

    def limit_set(self) -> None:
        """Takes it that a person set the limit, who need not be told."""
        self._limit = self._throttle.limit

    def slots(self, decision: WaitUntil | WaitForSlot) -> None:
        """Announces that submits wait for a slot, once until one is let through again."""
        if isinstance(decision, WaitForSlot) and not self._slots_announced:
            self._slots_announced = True
            self._observer(SlotsFull(reason=decision.reason))

    def submit_admitted(self) -> None:
        """Takes it that a submit had a slot."""
        self._slots_announced = False

    def pause(self, pause: Pause) -> None:
        """Announces that submits stop for a while because too many outcomes are unknown."""
        until_utc = self._clock.utc() + pause.wait_s
        self._observer(SubmitsPaused(until_utc=until_utc, wait_s=pause.wait_s, reason=pause.reason))

    def _limit_changed(self) -> None:
        rate = self._throttle.rate
        assert rate is not None  # a limit that was not set by a person never goes away
        self._limit = rate.count
        self._on_limit(rate.count)
        self._observer(LimitLearned(requests=rate.count, window_s=rate.period_s))

    def _locked(self, now: float, reason: str) -> None:
        begins, self._locked_out = not self._locked_out, True
        until, doubtful = self._throttle.locked_until, self._throttle.doubtful
        until_utc = self._clock.utc() + (until - now)
        if doubtful:
            # Nobody has seen it: it is not counted, and the next session would have to doubt as well.
            self._locked_out = False
            reason = "answers were lost, and one of them may have been a throttle"
        elif until > self._stored_until:
            self._stored_until = until
            self._on_lockout(until_utc, reason, begins)
        if until > now and until - self._announced_until > _ANNOUNCE_SHARE * (until - now):
            self._announced_until = until
            self._observer(LockedOut(until_utc=until_utc, wait_s=until - now, reason=reason))
