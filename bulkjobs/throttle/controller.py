"""The account's controller: asks window, lock-out and slots, and tells them what became of each request."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from bulkjobs.errors import InternalError
from bulkjobs.model import RequestKind
from bulkjobs.settings import Rate
from bulkjobs.throttle.decisions import Admit, Outcome, WaitUntil
from bulkjobs.throttle.lockout import Lockout, Phase
from bulkjobs.throttle.slots import Slots
from bulkjobs.throttle.window import GRACE_S, Window

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bulkjobs.throttle.decisions import Decision

__all__ = ["Throttle", "Ticket"]

_ADMIT: Final = Admit()


class Ticket:
    """Stands for one admitted request until it has ended, and for a submit's slot until that is settled."""

    __slots__ = ("holds_slot", "in_flight", "kind")

    def __init__(self, kind: RequestKind) -> None:
        self.kind = kind
        self.in_flight = True
        self.holds_slot = kind is RequestKind.SUBMIT


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
        slot_retry_s: float = 5.0,
    ) -> None:
        """Begins with an empty window, open, without jobs.

        Args:
            rate: the account's limit; None for none, which leaves lock-out and slots.
            lockout_s: how long a throttle answer closes the account, without margin.
            max_active_jobs: how many jobs may be open at a time; None for no cap.
            grace_s: how long after we gave up on an answer the server may still count the request.
            slot_retry_s: least wait before another try for slots that other people's jobs hold; it grows
                up to `MAX_SLOT_RETRY_S`.
        """
        self._window = None if rate is None else Window(rate, grace_s)
        self._lockout = Lockout(lockout_s)
        self._slots = Slots(max_active_jobs, slot_retry_s)
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
        return self._lockout.phase in (Phase.LOCKED, Phase.PROBING)

    @property
    def locked_until(self) -> float:
        """Is the end of the latest lock-out; it moves while requests sent before it are still ending."""
        return self._lockout.until

    @property
    def may_send(self) -> bool:
        """Tells whether a request admitted earlier may still begin: no lock-out has begun since."""
        return self._lockout.phase is not Phase.LOCKED

    @property
    def slots_held_by_others_since(self) -> float | None:
        """Is since when jobs of others are known to hold slots; None when nothing is known of such jobs."""
        return self._slots.held_by_others_since

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
        if outcome is Outcome.THROTTLED or self._lockout.phase is not Phase.OPEN:
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
        """Takes the server's word that no job more may be open, although slots of ours are free."""
        self._slots.full(now, reason)

    def jobs_listed(self, now: float, open_jobs: int) -> None:
        """Takes how many jobs of the account the list shows as open, ours and others'."""
        self._slots.listed(now, open_jobs)

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
