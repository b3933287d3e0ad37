"""Stands before every request of the account: the async shell around `throttle`.

The rules of this file:

- Every decision is taken in `_pump`, which has no await in it, so that no two tasks see the same free token.
- The pace comes first (aiolimiter), the window, lock-out and slots after it. The pace only smooths; it
  cannot keep the window, since it never sees when an answer came.
- Waiters go by kind (login, submit, the rest), then by arrival. A submit that waits for a slot is passed over.
- A permit is given back exactly once, also when its waiter was cancelled with the permit already granted.
- While outcomes are unknown submits wait for the answer to a question, which somebody else asks (`outage`).
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, Self

from aiolimiter import AsyncLimiter

from bulkjobs.breaker import Breaker
from bulkjobs.clock import to_loop_time
from bulkjobs.errors import BulkJobsError, InternalError
from bulkjobs.events import (
    LimitLearned,
    LockedOut,
    LockoutEnded,
    OneSubmitTries,
    SlotsFull,
    SubmitsPaused,
    SubmitsResumed,
)
from bulkjobs.model import RequestKind
from bulkjobs.throttle import Admit, Decision, Outcome, Throttle, Ticket, WaitForSlot, WaitUntil

if TYPE_CHECKING:
    from types import TracebackType

    from bulkjobs.breaker import Pause
    from bulkjobs.events import Observer
    from bulkjobs.ports import Clock
    from bulkjobs.settings import Rate

__all__ = ["Gate", "GateStopped", "Permit", "PermitWithdrawn"]

_ORDER: Final = {RequestKind.LOGIN: 0, RequestKind.SUBMIT: 1} | dict.fromkeys(
    (RequestKind.STATUS, RequestKind.LIST, RequestKind.RESULTS), 2
)
"""Without a token nothing goes, without submits nothing is earned; the others share what is left."""

_QUEUE_KINDS: Final = (RequestKind.LOGIN, RequestKind.SUBMIT, RequestKind.STATUS)
"""A kind for each queue, to ask the throttle with; it tells only submits from others."""

_ANNOUNCE_SHARE: Final = 0.05
"""A lock-out that moves by less than this share of its rest is stored but not announced again: eight answers
in flight would otherwise make eight messages of one lock-out."""


class GateStopped(BulkJobsError):  # noqa: N818 - a condition that the caller handles, not a fault
    """Says that no request of this kind is let through any more. Nothing was sent."""


class PermitWithdrawn(BulkJobsError):  # noqa: N818 - as above
    """Says that a lock-out began after the request was admitted and before it began. Nothing was sent."""


class Permit:
    """Allows one request. Report its end as soon as it is known, once; leaving without a report is `lost`.

        with await gate.admit(RequestKind.SUBMIT) as permit:
            ...  # the request; `permit.check()` right before its first byte
            permit.answered()
            permit.outcome_known()
            permit.job_opened(job_id)

    A submit's slot is given back on leaving, unless `job_opened` made an open job of it.
    """

    __slots__ = ("_alone", "_gate", "_ticket")

    def __init__(self, gate: Gate, ticket: Ticket, *, alone: bool) -> None:
        self._gate = gate
        self._ticket = ticket
        self._alone = alone
        """It is for the one submit that tries alone, and its outcome was not reported yet."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ticket.in_flight:
            self.lost()
        self._gate._settle(self._ticket, alone=self._alone)  # noqa: SLF001 - a permit is a part of its gate

    def check(self) -> None:
        """Passes if the request may still begin. To be called when everything is ready for its first byte.

        Raises:
            PermitWithdrawn: a lock-out has begun since; report `not_sent` and ask for another permit.
        """
        if not self._gate._throttle.may_send:  # noqa: SLF001 - as above
            raise PermitWithdrawn("The account was locked out after this request was admitted.")

    def not_sent(self) -> None:
        """Reports that no byte left; the token is free at once."""
        self._gate._end(self._ticket, Outcome.NOT_SENT)  # noqa: SLF001 - as above

    def answered(self) -> None:
        """Reports that the server answered something other than a throttle."""
        self._gate._end(self._ticket, Outcome.ANSWERED)  # noqa: SLF001 - as above

    def lost(self) -> None:
        """Reports that we gave up on an answer: the server may still count the request."""
        self._gate._end(self._ticket, Outcome.UNKNOWN_END)  # noqa: SLF001 - as above

    def throttled(self, retry_after_s: float | None, reason: str) -> None:
        """Reports a throttle answer, which closes the gate for the whole account.

        Args:
            retry_after_s: the wait the server asked for; None if it asked for none.
            reason: what it said, for people.
        """
        self._gate._end(self._ticket, Outcome.THROTTLED, retry_after_s, reason)  # noqa: SLF001 - as above

    def outcome_known(self) -> None:
        """Reports that the outcome of a submission is known, whatever it is."""
        alone, self._alone = self._alone, False
        self._gate._known(alone=alone)  # noqa: SLF001 - as above

    def outcome_unknown(self) -> None:
        """Reports that the outcome of a submission is unknown; too many of them stop submits."""
        alone, self._alone = self._alone, False
        self._gate._unknown(alone=alone)  # noqa: SLF001 - as above

    def job_opened(self, job_id: str) -> None:
        """Turns the slot of a submit into an open job, and reports the answer if that was not done."""
        if self._ticket.in_flight:
            self.answered()
        self._gate._open_job(self._ticket, job_id)  # noqa: SLF001 - as above


class Gate:
    """Lets requests through, one permit each, as the account's throttle allows.

    To be made inside the running loop, one for an account. Without rate and pace, and with a slot free, a
    permit costs neither a future nor a timer.
    """

    def __init__(
        self,
        throttle: Throttle,
        *,
        pace: Rate | None,
        clock: Clock,
        observer: Observer,
        on_lockout: Callable[[float, str, bool], None],
        on_limit: Callable[[int], None],
    ) -> None:
        """Opens the gate.

        Args:
            throttle: decides; nobody else may use it.
            pace: short-term pace; None for none.
            clock: tells the wall time for what is stored and shown.
            observer: is told of waits before they begin.
            on_lockout: stores the end of a lock-out (Unix seconds), its reason, and whether it begins: it is
                called again when the end moves.
            on_limit: stores a learned limit, in requests a window.
        """
        self._loop = asyncio.get_running_loop()
        self._throttle = throttle
        self._breaker = Breaker()
        self._paused = asyncio.Event()
        """Set while the breaker wants to have the server asked."""
        self._pace = None if pace is None else AsyncLimiter(pace.count, pace.period_s)
        self._clock = clock
        self._observer = observer
        self._on_lockout = on_lockout
        self._on_limit = on_limit
        self._queues: tuple[deque[asyncio.Future[Permit]], ...] = (deque(), deque(), deque())
        self._pacing: dict[asyncio.Timeout, RequestKind] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._stopped: frozenset[RequestKind] = frozenset()
        self._rate = throttle.rate
        self._stored_until = -math.inf
        self._announced_until = -math.inf
        self._slots_announced = False

    def restore(
        self,
        *,
        history_utc: Iterable[tuple[float, float | None]],
        locked_until_utc: float | None,
        learned_limit: int | None,
        open_jobs: Iterable[str],
    ) -> None:
        """Takes up what the ledger knows of the account. To be called before the first request.

        Args:
            history_utc: start and end (None: not known) of every request whose end may lie within the last
                window, in Unix seconds.
            locked_until_utc: end of the last lock-out, past or to come, in Unix seconds.
            learned_limit: the limit that an earlier lock-out taught.
            open_jobs: ids of the jobs not seen to have ended.
        """
        now, now_utc = self._loop.time(), self._clock.utc()

        def placed(utc: float) -> float:
            return to_loop_time(utc, now_utc=now_utc, now_loop=now)

        self._throttle.restore(
            now,
            history=[(placed(start), None if end is None else placed(end)) for start, end in history_utc],
            locked_until=None if locked_until_utc is None else placed(locked_until_utc),
            learned_limit=learned_limit,
            open_jobs=open_jobs,
        )
        self._rate = self._throttle.rate
        self._stored_until = self._throttle.locked_until
        self._tell_lockout("a lock-out of an earlier session is not over", begins=False)

    @property
    def rate(self) -> Rate | None:
        """Is the account's limit in force, as configured or learned; None for none."""
        return self._rate

    async def admit(self, kind: RequestKind) -> Permit:
        """Waits until a request of a kind may go.

        Returns:
            The permit, to be entered with `with` before the next await.

        Raises:
            GateStopped: requests of this kind are stopped.

        Guarantees:
            A cancelled caller takes nothing from the account.
        """
        self._check_running(kind)
        if self._pace is not None:
            await self._keep_pace(self._pace, kind)
        if not any(self._queues) and type(self._decide(kind, self._loop.time())) is Admit:
            return self._grant(kind)
        return await self._queue(kind)

    def job_closed(self, job_id: str) -> None:
        """Frees the slot of a job that was seen to have ended."""
        self._throttle.job_closed(job_id)
        self._pump()

    def recall_outcomes(self, unknown_in_a_row: int) -> None:
        """Takes up how many outcomes in a row were unknown at the end of the last session."""
        self._tell_pause(self._breaker.recall(unknown_in_a_row, self._loop.time()))

    async def question_due(self) -> None:
        """Waits until submits are stopped and it is time to ask the server whether it answers."""
        await self._paused.wait()
        ask_at = self._breaker.ask_at
        assert ask_at is not None
        # Nothing but the answer can end or move a pause, so one look at the clock is enough.
        await asyncio.sleep(max(0.0, ask_at - self._loop.time()))

    def question_answered(self, trouble: str | None) -> None:
        """Takes what came of the question: None, or why the server does not answer. To be called when it was due."""
        self._paused.clear()
        if trouble is None:
            self._breaker.answers()
            self._observer(OneSubmitTries(reason="the server answers again"))
        elif pause := self._breaker.silent(self._loop.time(), f"the server does not answer ({trouble})"):
            self._tell_pause(pause)
        else:
            self._observer(OneSubmitTries(reason=f"the server has not answered for long ({trouble})"))
        self._pump()

    def slots_full(self, reason: str) -> None:
        """Takes the server's word that it runs as many jobs as it allows."""
        self._throttle.slots_full(self._loop.time(), reason)
        self._pump()

    @property
    def slots_held_by_others_since(self) -> float | None:
        """Is since when, in loop time, jobs of others are known to hold slots; None without such jobs."""
        return self._throttle.slots_held_by_others_since

    def jobs_listed(self, open_jobs: int) -> None:
        """Takes how many jobs of the account the list shows as open: with fewer than before a slot may be free."""
        self._throttle.jobs_listed(self._loop.time(), open_jobs)
        self._pump()

    def stop_submits(self) -> None:
        """Lets no further submit through; those waiting get `GateStopped`. Other kinds go on."""
        self._stop(RequestKind.SUBMIT)

    def close(self) -> None:
        """Lets nothing through any more; whoever waits gets `GateStopped`. Permits out may still report."""
        self._stop(*RequestKind)

    def _stop(self, *kinds: RequestKind) -> None:
        self._stopped |= set(kinds)
        for kind in kinds:
            for waiter in self._queues[_ORDER[kind]]:
                if not waiter.done():
                    waiter.set_exception(_stopped(kind))
        for pacing, kind in self._pacing.items():
            if kind in self._stopped:
                pacing.reschedule(self._loop.time())
        self._pump()

    def _check_running(self, kind: RequestKind) -> None:
        if kind in self._stopped:
            raise _stopped(kind)

    async def _keep_pace(self, pace: AsyncLimiter, kind: RequestKind) -> None:
        if pace.has_capacity():
            await pace.acquire()  # does not suspend
            return
        try:
            async with asyncio.timeout(None) as pacing:
                self._pacing[pacing] = kind
                try:
                    await pace.acquire()
                finally:
                    del self._pacing[pacing]
        except TimeoutError:
            raise _stopped(kind) from None
        self._check_running(kind)

    async def _queue(self, kind: RequestKind) -> Permit:
        waiter: asyncio.Future[Permit] = self._loop.create_future()
        self._queues[_ORDER[kind]].append(waiter)
        self._pump()
        try:
            return await waiter
        except asyncio.CancelledError:
            # The cancel may land after the permit was granted and before this task ran again.
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                with waiter.result() as permit:
                    permit.not_sent()
            raise

    def _pump(self) -> None:
        """Grants what can be granted now, and sets the timer for the next time something may be."""
        now = self._loop.time()
        wake_at = math.inf
        for kind, queue in zip(_QUEUE_KINDS, self._queues, strict=True):
            while queue:
                if queue[0].done():
                    queue.popleft()
                    continue
                decision = self._decide(kind, now)
                if not isinstance(decision, Admit):
                    wake_at = min(wake_at, decision.at)
                    self._tell_slots(decision)
                    break
                queue.popleft().set_result(self._grant(kind))
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if wake_at == math.inf else self._loop.call_at(wake_at, self._pump)

    def _decide(self, kind: RequestKind, now: float) -> Decision:
        if kind is RequestKind.SUBMIT and not self._breaker.lets_through:
            return WaitUntil(math.inf, "the outcomes of the last submissions are unknown")
        return self._throttle.decide(kind, now)

    def _grant(self, kind: RequestKind) -> Permit:
        alone = False
        if kind is RequestKind.SUBMIT:
            self._slots_announced = False
            alone = self._breaker.started()
        return Permit(self, self._throttle.started(kind), alone=alone)

    def _end(
        self, ticket: Ticket, outcome: Outcome, retry_after_s: float | None = None, reason: str = ""
    ) -> None:
        begins = outcome is Outcome.THROTTLED and self._throttle.may_send
        self._throttle.ended(ticket, self._loop.time(), outcome, retry_after_s=retry_after_s)
        self._tell_limit()
        self._tell_lockout(reason or "requests sent before the lock-out have ended", begins=begins)
        if any(self._queues):
            self._pump()

    def _known(self, *, alone: bool) -> None:
        if self._breaker.known(alone=alone):
            self._observer(SubmitsResumed())
            self._pump()

    def _unknown(self, *, alone: bool) -> None:
        self._tell_pause(self._breaker.unknown(self._loop.time(), alone=alone))

    def _settle(self, ticket: Ticket, *, alone: bool) -> None:
        """Takes a permit back. `alone`: it was for the one that tries alone, and came to no outcome."""
        if ticket.kind is not RequestKind.SUBMIT:
            return
        if alone:
            self._breaker.left()
        if ticket.holds_slot:
            self._throttle.slot_settled(ticket)
        if any(self._queues):
            self._pump()

    def _open_job(self, ticket: Ticket, job_id: str) -> None:
        if not ticket.holds_slot:
            raise InternalError("A job was reported for a request that holds no slot.")
        self._throttle.job_opened(ticket, job_id, self._loop.time())

    def _tell_pause(self, pause: Pause | None) -> None:
        """Announces a pause of submits, if one begins, and has the server asked at its end."""
        if pause is not None:
            until_utc = self._clock.utc() + pause.wait_s
            self._observer(SubmitsPaused(until_utc=until_utc, wait_s=pause.wait_s, reason=pause.reason))
            self._paused.set()

    def _tell_lockout(self, reason: str, *, begins: bool) -> None:
        """Stores and announces a lock-out that begins or moved, and announces its end."""
        throttle = self._throttle
        if not throttle.locked_out:
            if self._announced_until > -math.inf:
                self._announced_until = -math.inf
                self._observer(LockoutEnded())
            return
        until, now = throttle.locked_until, self._loop.time()
        until_utc = self._clock.utc() + (until - now)
        if until > self._stored_until:
            self._stored_until = until
            self._on_lockout(until_utc, reason, begins)
        if until > now and until - self._announced_until > _ANNOUNCE_SHARE * (until - now):
            self._announced_until = until
            self._observer(LockedOut(until_utc=until_utc, wait_s=until - now, reason=reason))

    def _tell_limit(self) -> None:
        """Stores and announces a limit that a lock-out taught."""
        if self._rate is None or self._throttle.limit == self._rate.count:
            return
        rate = self._rate = self._throttle.rate
        assert rate is not None  # a limit never goes away
        self._on_limit(rate.count)
        self._observer(LimitLearned(requests=rate.count, window_s=rate.period_s))

    def _tell_slots(self, decision: WaitUntil | WaitForSlot) -> None:
        """Announces that submits wait for a slot, once until one is let through again."""
        if isinstance(decision, WaitForSlot) and not self._slots_announced:
            self._slots_announced = True
            self._observer(SlotsFull(reason=decision.reason))


def _stopped(kind: RequestKind) -> GateStopped:
    return GateStopped(f"No {kind.value} request is let through any more; this one was not sent.")
