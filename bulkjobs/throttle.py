"""Decides when the account may send its next request: the window, the lock-out, the open-job slots.

Everything here is a value or arithmetic on values. Clock readings are arguments, in seconds on one monotonic
axis, so that thirty days pass in a test as fast as they can be added up. The rules:

Window. A request takes one of N tokens and gives it back W seconds after its *end*. The server counts the
request at some moment between its start and its end, so two counts on one token lie at least W apart, and
no window of length W holds more than N counts: no clocks need to agree, and no latency matters.

Lock-out. The first throttle answer closes the account until every request in flight has ended and the
lock-out period, with a margin, has passed since the last end of any request. Then a slow start: one request
goes out, the probe; once it is answered, at most as many requests are in flight as were answered since the
lock-out, so 1, 2, 4, … per round trip, up to N. A probe that is throttled, or of which nothing comes back,
begins the lock-out anew.

Slots. A submit takes one of M slots and keeps it while its job is open. When the server says that its slots
are full although some of ours are free, the jobs in them are not ours: one submit at a time then tries
again, after growing waits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto
from heapq import heapify, heappop, heappush
from typing import Final

from bulkjobs.errors import InternalError
from bulkjobs.model import RequestKind
from bulkjobs.settings import Rate

__all__ = [
    "GRACE_S",
    "LOCKOUT_MARGIN",
    "MAX_RETRY_AFTER_S",
    "MAX_SLOT_RETRY_S",
    "Admit",
    "Decision",
    "Outcome",
    "Throttle",
    "Ticket",
    "WaitForSlot",
    "WaitUntil",
]

GRACE_S: Final = 10.0
"""How long after we gave up on an answer the server may still count the request."""

LOCKOUT_MARGIN: Final = 1.03
"""The lock-out is kept 3 % longer than configured (9 s of 300): a request into it may begin it anew."""

MAX_RETRY_AFTER_S: Final = 86_400.0
"""A server that asks for more than a day has made a mistake; after a day it is probed with one request."""

MAX_SLOT_RETRY_S: Final = 300.0
"""The wait between two tries for slots that other people's jobs hold doubles up to this."""

_LESSON_SHARE: Final = 0.9
_LESSON_FLOOR: Final = 10
"""One lesson leaves at least the tenth part: a stray 429 early in a window would otherwise teach a limit of
one request, for ever. A limit that is still too high meets its next lock-out, and its next lesson."""


class Outcome(Enum):
    """Is how a request ended, as far as the account is concerned."""

    NOT_SENT = auto()
    """No byte left: the server has counted nothing."""
    ANSWERED = auto()
    """An answer came, whatever it says, but not a throttle."""
    UNKNOWN_END = auto()
    """We gave up waiting: the server may still be about to count it."""
    THROTTLED = auto()


@dataclass(frozen=True, slots=True)
class Admit:
    """Says that the request may go now."""


@dataclass(frozen=True, slots=True)
class WaitUntil:
    """Says that no request may go, and when to ask again."""

    at: float
    """Infinite when only the end of a request in flight can change the answer."""
    reason: str


@dataclass(frozen=True, slots=True)
class WaitForSlot:
    """Says that no submit may go, while other kinds may; to be asked again when a job or a submit ends."""

    reason: str
    at: float = math.inf
    """When to ask again even if no job ends; infinite when there is no such time."""


Decision = Admit | WaitUntil | WaitForSlot

_ADMIT: Final = Admit()


class Ticket:
    """Stands for one admitted request until it has ended, and for a submit's slot until that is settled."""

    __slots__ = ("holds_slot", "in_flight", "kind")

    def __init__(self, kind: RequestKind) -> None:
        self.kind = kind
        self.in_flight = True
        self.holds_slot = kind is RequestKind.SUBMIT


class _Window:
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
        for start, end in history:
            # With the grace for all of them: an end may be that of an answer, or of our patience.
            last = (now if end is None else min(now, max(start, end))) + self._grace_s
            if last + self.window_s > now:
                self._free_at.append(last + self.window_s)
        heapify(self._free_at)


class _Phase(Enum):
    OPEN = auto()
    LOCKED = auto()
    PROBING = auto()
    RAMPING = auto()


class _Lockout:
    """Keeps the account closed after a throttle answer and opens it again step by step."""

    __slots__ = ("_answered", "_hold_s", "phase", "until")

    def __init__(self, lockout_s: float) -> None:
        self.phase = _Phase.OPEN
        self.until = -math.inf
        self._hold_s = lockout_s * LOCKOUT_MARGIN
        self._answered = 0

    def opens_at(self, now: float, in_flight: int) -> float:
        """Gives when the account may be open; not later than `now` if it is."""
        if self.phase is _Phase.OPEN:
            return now
        if self.phase is _Phase.LOCKED and not in_flight:
            return self.until
        if self.phase is _Phase.RAMPING and in_flight < self._answered:
            return now
        return math.inf

    def started(self) -> None:
        if self.phase is _Phase.LOCKED:
            self.phase = _Phase.PROBING

    def ended(self, now: float, outcome: Outcome, retry_after_s: float | None, ramp_end: float) -> None:
        if outcome is Outcome.THROTTLED:
            self._close(now, retry_after_s)
        elif outcome is Outcome.NOT_SENT:
            if self.phase is _Phase.PROBING:
                self.phase = _Phase.LOCKED
        elif self.phase is _Phase.LOCKED or (self.phase is _Phase.PROBING and outcome is Outcome.UNKNOWN_END):
            self._close(now, None)
        elif outcome is Outcome.ANSWERED:
            self._step_up(ramp_end)

    def restore(self, now: float, until: float) -> None:
        """Takes up a stored lock-out; one that ended lately still has to be probed."""
        if until > now - self._hold_s:
            self.until = min(until, now + max(self._hold_s, MAX_RETRY_AFTER_S))
            self.phase = _Phase.LOCKED

    def _close(self, now: float, retry_after_s: float | None) -> None:
        # A comparison with NaN is false, so nonsense asks for nothing.
        asked_s = min(retry_after_s, MAX_RETRY_AFTER_S) if retry_after_s and retry_after_s > 0 else 0.0
        self.until = max(self.until, now + max(self._hold_s, asked_s))
        self.phase = _Phase.LOCKED
        self._answered = 0

    def _step_up(self, ramp_end: float) -> None:
        self._answered += 1
        self.phase = _Phase.RAMPING if self._answered < ramp_end else _Phase.OPEN


class _Slots:
    """Counts the open jobs, the submits that may become one, and what the server said about others."""

    __slots__ = ("_capacity", "_first_retry_s", "_full_until", "_open", "_reason", "_retry_s", "_submitting")

    def __init__(self, capacity: int | None, first_retry_s: float) -> None:
        self._capacity = capacity
        self._open: set[str] = set()
        self._submitting = 0
        self._first_retry_s = first_retry_s
        self._retry_s = first_retry_s
        self._full_until: float | None = None
        self._reason = ""

    def decide(self, now: float) -> WaitForSlot | None:
        if self._capacity is not None and len(self._open) + self._submitting >= self._capacity:
            return WaitForSlot(f"{self._capacity} jobs are open, which is as many as may be")
        if self._full_until is None or (self._full_until <= now and not self._submitting):
            return None
        return WaitForSlot(self._reason, at=math.inf if self._submitting else self._full_until)

    def taken(self) -> None:
        self._submitting += 1

    def settled(self) -> None:
        self._submitting -= 1

    def opened(self, job_id: str, now: float) -> None:
        self._open.add(job_id)
        # A job of a submit sent before the server said so proves nothing; that of a try made since does.
        if self._full_until is not None and self._full_until <= now:
            self._has_room()

    def closed(self, job_id: str) -> None:
        if job_id in self._open:
            self._open.remove(job_id)
            self._has_room()

    def full(self, now: float, reason: str) -> None:
        if self._full_until is not None and now < self._full_until:
            return  # said by one of several that were in flight together
        if self._full_until is not None:
            self._retry_s = min(2 * self._retry_s, max(MAX_SLOT_RETRY_S, self._first_retry_s))
        self._full_until = now + self._retry_s
        self._reason = reason

    def restore(self, open_jobs: Iterable[str]) -> None:
        self._open.update(open_jobs)

    def _has_room(self) -> None:
        self._full_until = None
        self._retry_s = self._first_retry_s


class Throttle:
    """Is the account's controller. Every operation takes O(log N) for a limit of N requests, or less.

    Ask `decide`; on `Admit` call `started` at the same reading of the clock, send, and report `ended` once.
    Clock readings never go backwards from call to call.
    """

    def __init__(
        self,
        *,
        rate: Rate | None,
        lockout_s: float,
        max_active_jobs: int | None,
        grace_s: float = GRACE_S,
        slot_retry_s: float = 30.0,
    ) -> None:
        """Begins with an empty window, open, without jobs.

        Args:
            rate: the account's limit; None for none, which leaves lock-out and slots.
            lockout_s: how long a throttle answer closes the account, without margin.
            max_active_jobs: how many jobs may be open at a time; None for no cap.
            grace_s: how long after we gave up on an answer the server may still count the request.
            slot_retry_s: first wait before another try for slots that other people's jobs hold; it doubles
                up to `MAX_SLOT_RETRY_S`.
        """
        self._window = None if rate is None else _Window(rate, grace_s)
        self._lockout = _Lockout(lockout_s)
        self._slots = _Slots(max_active_jobs, slot_retry_s)
        self._in_flight = 0
        self._let_through: int | None = None
        """While a lock-out gathers its last answers: the requests that the window before it let through."""

    def restore(
        self,
        now: float,
        *,
        history: Iterable[tuple[float, float | None]] = (),
        locked_until: float | None = None,
        learned_limit: int | None = None,
        open_jobs: Iterable[str] = (),
    ) -> None:
        """Takes up what an earlier process left behind. To be called before the first decision.

        Nonsense is bounded: an end in the future or before its start counts as late as it can have been.

        Args:
            now: the present.
            history: start and end of each request that may still count; None for an end nobody knows, which
                counts as now.
            locked_until: end of the last known lock-out, past or to come.
            learned_limit: the limit that an earlier lock-out taught.
            open_jobs: ids of the jobs not seen to have ended.
        """
        if self._window is not None:
            self._window.restore(now, history)
            if learned_limit is not None:
                self._window.limit = max(1, min(self._window.limit, learned_limit))
        if locked_until is not None:
            self._lockout.restore(now, locked_until)
        self._slots.restore(open_jobs)

    @property
    def limit(self) -> int | None:
        """Is how many requests a window may hold, as configured or learned; None for no limit."""
        return None if self._window is None else self._window.limit

    @property
    def rate(self) -> Rate | None:
        """Is the limit in force as a rate; None for none."""
        if self._window is None:
            return None
        return Rate(count=self._window.limit, period_s=self._window.window_s)

    @property
    def locked_out(self) -> bool:
        """Tells whether the account is closed, its probe included: no answer has shown it open again."""
        return self._lockout.phase in (_Phase.LOCKED, _Phase.PROBING)

    @property
    def locked_until(self) -> float:
        """Is the end of the latest lock-out; it moves while requests sent before it are still ending."""
        return self._lockout.until

    @property
    def may_send(self) -> bool:
        """Tells whether a request admitted earlier may still begin: no lock-out has begun since."""
        return self._lockout.phase is not _Phase.LOCKED

    def decide(self, kind: RequestKind, now: float) -> Decision:
        """Tells whether a request of a kind may go now, and if not, what it waits for."""
        if kind is RequestKind.SUBMIT and (wait := self._slots.decide(now)):
            return wait
        opens_at = self._lockout.opens_at(now, self._in_flight)
        if opens_at > now:
            return WaitUntil(opens_at, "the account is locked out, or has just been")
        if self._window is not None and (opens_at := self._window.opens_at(now, self._in_flight)) > now:
            return WaitUntil(opens_at, "the window is used up")
        return _ADMIT

    def started(self, kind: RequestKind) -> Ticket:
        """Takes token and slot for a request that was just admitted."""
        self._in_flight += 1
        self._lockout.started()
        if kind is RequestKind.SUBMIT:
            self._slots.taken()
        return Ticket(kind)

    def ended(
        self, ticket: Ticket, now: float, outcome: Outcome, *, retry_after_s: float | None = None
    ) -> None:
        """Takes the end of a request. A submit's slot stays taken until `job_opened` or `slot_settled`.

        Args:
            ticket: from `started`.
            now: when it ended.
            outcome: how it ended.
            retry_after_s: what a throttle answer asked for; obeyed, within bounds, when it is longer.

        Raises:
            InternalError: it has ended before.
        """
        if not ticket.in_flight:
            raise InternalError("The end of one request was reported twice.")
        ticket.in_flight = False
        self._in_flight -= 1
        self._count(now, outcome)
        if outcome is Outcome.THROTTLED or self._lockout.phase is not _Phase.OPEN:
            ramp_end = math.inf if self._window is None else self._window.limit
            self._lockout.ended(now, outcome, retry_after_s, ramp_end)

    def job_opened(self, ticket: Ticket, job_id: str, now: float) -> None:
        """Turns a submit's slot into an open job."""
        self.slot_settled(ticket)
        self._slots.opened(job_id, now)

    def slot_settled(self, ticket: Ticket) -> None:
        """Gives a submit's slot back if it was not turned into an open job."""
        if ticket.holds_slot:
            ticket.holds_slot = False
            self._slots.settled()

    def job_closed(self, job_id: str) -> None:
        """Frees the slot of a job that was seen to have ended; an unknown job frees none."""
        self._slots.closed(job_id)

    def slots_full(self, now: float, reason: str) -> None:
        """Takes the server's word that no job more may be open; it holds until a known job ends or a retry."""
        self._slots.full(now, reason)

    def _count(self, now: float, outcome: Outcome) -> None:
        """Counts an ended request, and what it says about the limit.

        The lesson waits until nothing is in flight any more, because what was sent before the refused request
        may have been let through and not be answered yet. It comes before the probe, which waits as well.
        """
        window = self._window
        if window is None:
            return
        if outcome is Outcome.THROTTLED and not self.locked_out:
            self._let_through = window.held(now)
        elif self._let_through is not None and outcome in (Outcome.ANSWERED, Outcome.UNKNOWN_END):
            self._let_through += 1
        window.ended(now, outcome)
        if self._let_through is not None and not self._in_flight:
            window.learn(self._let_through)
            self._let_through = None
