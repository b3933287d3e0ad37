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
from typing import TYPE_CHECKING, Final, Literal

from bulkjobs.account.notices import Notices
from bulkjobs.account.permit import GateStopped, Permit, PermitWithdrawn
from bulkjobs.breaker import Breaker
from bulkjobs.clock import to_loop_time
from bulkjobs.errors import InternalError, LedgerError
from bulkjobs.events import OneSubmitTries, RequestEnded, SubmitsResumed
from bulkjobs.model import RequestKind
from bulkjobs.settings import default_pace
from bulkjobs.throttle import Outcome, Throttle, Ticket, WaitForSlot, WaitUntil

if TYPE_CHECKING:
    from aiolimiter import AsyncLimiter

    from bulkjobs.breaker import Pause
    from bulkjobs.events import Observer
    from bulkjobs.ports import Clock
    from bulkjobs.settings import Rate

__all__ = ["Gate", "GateStopped", "Permit", "PermitWithdrawn"]

_ORDER: Final = {RequestKind.LOGIN: 0, RequestKind.SUBMIT: 1} | dict.fromkeys(
    (RequestKind.STATUS, RequestKind.LIST, RequestKind.RESULTS, RequestKind.USAGE), 2
)
"""Without a token nothing goes, without submits nothing is earned; the others share what is left."""

_SAID: Final[dict[Outcome, Literal["answered", "throttled", "unknown"]]] = {
    Outcome.ANSWERED: "answered",
    Outcome.THROTTLED: "throttled",
    Outcome.UNKNOWN_END: "unknown",
}
"""How a request that was sent ends."""


class Gate:
    """Lets requests through, one permit each, as the account's throttle allows.

    To be made inside the running loop, one for an account. Without rate and pace, and with a slot free, a
    permit costs neither a future nor a timer.
    """

    def __init__(
        self,
        throttle: Throttle,
        *,
        pace: Rate | Literal["default"] | None,
        clock: Clock,
        observer: Observer,
        on_lockout: Callable[[float, str, bool], None],
        on_limit: Callable[[int], None],
    ) -> None:
        """Opens the gate.

        Args:
            throttle: decides; nobody else may use it.
            pace: short-term pace; None for none, "default" for what follows from the limit in force.
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
        self._pace_given = pace
        self._pace_rate = throttle.rate
        self._pace = self._limiter()
        self._clock = clock
        self._observer = observer
        self._notices = Notices(
            throttle, clock=clock, observer=observer, on_lockout=on_lockout, on_limit=on_limit
        )
        self._queues: tuple[deque[tuple[RequestKind, asyncio.Future[Permit]]], ...] = (
            deque(),
            deque(),
            deque(),
        )
        self._pacing: dict[asyncio.Timeout, RequestKind] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._due = math.inf
        """When somebody who waits may be let through, if nothing happens before."""
        self._stopped: frozenset[RequestKind] = frozenset()
        self._held_back = False
        """A person has told submits to wait."""

    def restore(
        self,
        *,
        history_utc: Iterable[tuple[float, float | None]],
        locked_until_utc: float | None,
        learned_limit: int | None,
        open_jobs: Iterable[str],
        suspect: bool = False,
    ) -> None:
        """Takes up what the ledger knows of the account. To be called before the first request.

        Args:
            history_utc: start and end (None: not known) of every request whose end may lie within the last
                window, in Unix seconds.
            locked_until_utc: end of the last lock-out, past or to come, in Unix seconds.
            learned_limit: the limit that an earlier lock-out taught.
            open_jobs: ids of the jobs not seen to have ended.
            suspect: answers were lost, one of which may have been a throttle: the first request goes alone.
        """
        now, now_utc = self._loop.time(), self._clock.utc()

        def placed(utc: float) -> float:
            return to_loop_time(utc, now_utc=now_utc, now_loop=now)

        locked_until = None if locked_until_utc is None else placed(locked_until_utc)
        self._throttle.restore(
            now,
            history=[(placed(start), None if end is None else placed(end)) for start, end in history_utc],
            locked_until=locked_until,
            suspect=suspect,
            learned_limit=learned_limit,
            open_jobs=open_jobs,
        )
        self._notices.restored(now, recorded=locked_until is not None and locked_until > now)
        self._follow_rate()

    @property
    def rate(self) -> Rate | None:
        """Is the account's limit in force, as configured or learned; None for none."""
        return self._throttle.rate

    @property
    def limit(self) -> int | None:
        """Is how many requests a window may hold; None for no limit."""
        return self._throttle.limit

    @property
    def used(self) -> int:
        """Is how many of them are used up at the moment."""
        return self._throttle.used(self._loop.time())

    @property
    def in_flight(self) -> int:
        """Is how many requests of the account have not ended."""
        return self._throttle.in_flight

    @property
    def locked_until_utc(self) -> float | None:
        """Is when the lock-out that is in force ends, in Unix seconds; None when there is none."""
        if not self._throttle.locked_out:
            return None
        return self._clock.utc() + max(0.0, self._throttle.locked_until - self._loop.time())

    @property
    def paused(self) -> bool:
        """Tells whether a person has told submits to wait."""
        return self._held_back

    def pause(self) -> None:
        """Lets submits wait until `resume`. Everything else goes on, and so do those in flight."""
        self._held_back = True

    def resume(self) -> None:
        """Ends what `pause` began."""
        self._held_back = False
        self._pump()

    def set_rate(self, rate: Rate | None) -> None:
        """Puts another limit in force at once, and with it another pace if that follows from the limit.

        What was learned is forgotten. None is for no limit.
        """
        self._throttle.set_rate(rate, self._loop.time())
        self._notices.limit_set()
        self._follow_rate()
        self._pump()

    async def admit(self, kind: RequestKind) -> Permit:
        """Waits until a request of a kind may go.

        Returns:
            The permit, to be entered with `with` before the next await.

        Raises:
            GateStopped: requests of this kind are stopped.
            LedgerError: what the account has used up cannot be kept.

        Guarantees:
            A cancelled caller takes nothing from the account.
        """
        self._check_running(kind)
        if self._pace is not None:
            await self._keep_pace(self._pace, kind)
        if not any(self._queues):
            permit = self._try(kind, self._loop.time())
            if isinstance(permit, Permit):
                return permit
        return await self._queue(kind)

    def job_closed(self, job_id: str) -> None:
        """Frees the slot of a job that was seen to have ended."""
        self._throttle.job_closed(job_id)
        self._pump()

    def recall_outcomes(self, unknown_in_a_row: int) -> None:
        """Takes up how many outcomes in a row were unknown at the end of the last session."""
        self._announce(self._breaker.recall(unknown_in_a_row, self._loop.time()))

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
            self._announce(pause)
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
            for waiting, waiter in self._queues[_ORDER[kind]]:
                if waiting is kind and not waiter.done():
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
        self._queues[_ORDER[kind]].append((kind, waiter))
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
        try:
            self._due = self._grant_what_can_be(now)
        except LedgerError as error:
            self._fail(error)
        self._notices.changed(now)
        self._wait(now)

    def _look(self) -> None:
        """Grants what can be granted when something is due, or when another process has done something."""
        now = self._loop.time()
        if now >= self._due or self._throttle.refresh(now):
            self._pump()
        else:
            self._wait(now)

    def _wait(self, now: float) -> None:
        """Sets the timer for the next look, if anybody waits."""
        if self._timer is not None:
            self._timer.cancel()
        look_at = min(self._due, now + self._throttle.look_again_s)
        waits = look_at < math.inf and any(self._queues)
        self._timer = self._loop.call_at(look_at, self._look) if waits else None

    def _grant_what_can_be(self, now: float) -> float:
        """Gives permits to those that can have one; gives when the next may be due, which may be never."""
        wake_at = math.inf
        for queue in self._queues:
            while queue:
                kind, waiter = queue[0]
                if waiter.done():
                    queue.popleft()
                    continue
                permit = self._try(kind, now)
                if not isinstance(permit, Permit):
                    wake_at = min(wake_at, permit.at)
                    self._notices.slots(permit)
                    break
                queue.popleft()
                waiter.set_result(permit)
        return wake_at

    def _fail(self, error: LedgerError) -> None:
        """Tells everybody who waits that nothing goes any more."""
        for queue in self._queues:
            for _, waiter in queue:
                if not waiter.done():
                    waiter.set_exception(error)

    def _try(self, kind: RequestKind, now: float) -> Permit | WaitUntil | WaitForSlot:
        """Gives a permit, or what a request of a kind waits for."""
        if kind is RequestKind.SUBMIT:
            if self._held_back:
                return WaitUntil(math.inf, "the run is paused")
            if not self._breaker.lets_through:
                return WaitUntil(math.inf, "the outcomes of the last submissions are unknown")
        ticket = self._throttle.admit(kind, now)
        if not isinstance(ticket, Ticket):
            return ticket
        alone = False
        if kind is RequestKind.SUBMIT:
            self._notices.submit_admitted()
            alone = self._breaker.started()
        return Permit(self, ticket, alone=alone)

    def _may_send(self) -> bool:
        return self._throttle.may_send

    def _end(
        self, ticket: Ticket, outcome: Outcome, retry_after_s: float | None = None, reason: str = ""
    ) -> None:
        now = self._loop.time()
        self._throttle.ended(ticket, now, outcome, retry_after_s=retry_after_s)
        if ticket.kind is not RequestKind.SUBMIT and (said := _SAID.get(outcome)) is not None:
            self._observer(RequestEnded(kind=ticket.kind, outcome=said))
        self._notices.changed(now, reason or "requests sent before the lock-out have ended")
        self._follow_rate()
        if any(self._queues):
            self._pump()

    def _limiter(self) -> AsyncLimiter | None:
        pace = default_pace(self._pace_rate) if self._pace_given == "default" else self._pace_given
        if pace is None:
            return None
        from aiolimiter import AsyncLimiter  # noqa: PLC0415 - looks for its own version in all packages: 30 ms

        return AsyncLimiter(pace.count, pace.period_s)

    def _follow_rate(self) -> None:
        """Has the pace follow the limit. Those that keep the former pace at this moment keep it for one request."""
        rate = self._throttle.rate
        if rate != self._pace_rate:
            self._pace_rate = rate
            self._pace = self._limiter()

    def _known(self, *, alone: bool) -> None:
        if self._breaker.known(alone=alone):
            self._observer(SubmitsResumed())
            self._pump()

    def _unknown(self, *, alone: bool) -> None:
        self._announce(self._breaker.unknown(self._loop.time(), alone=alone))

    def _announce(self, pause: Pause | None) -> None:
        """Announces a pause of submits, if one begins, and has the server asked at its end."""
        if pause is not None:
            self._notices.pause(pause)
            self._paused.set()

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


def _stopped(kind: RequestKind) -> GateStopped:
    return GateStopped(f"No {kind.value} request is let through any more; this one was not sent.")
