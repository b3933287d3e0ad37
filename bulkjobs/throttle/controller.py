"""The account's controller: asks window, lock-out and slots, and tells them what became of each request."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from bulkjobs.errors import InternalError
from bulkjobs.model import RequestKind
from bulkjobs.settings import Rate
from bulkjobs.throttle.decisions import Admit, Outcome, WaitForSlot, WaitUntil
from bulkjobs.throttle.limit import Limit
from bulkjobs.throttle.lockout import Lockout, Phase
from bulkjobs.throttle.slots import Slots
from bulkjobs.throttle.window import GRACE_S, Window, last_count

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bulkjobs.throttle.decisions import Decision

__all__ = ["Throttle", "Ticket"]

_ADMIT: Final = Admit()
_FIRST: Final = frozenset({RequestKind.LOGIN, RequestKind.SUBMIT})
"""What may use the last token of a window: without a token nothing goes, without submits nothing is earned."""
_TRIES_SHARE: Final = 0.25
"""Of the rate may go into tries for slots that jobs of others hold."""
_RAMP_WITHOUT_LIMIT: Final = 1_024
"""Answers after which a lock-out is over for good where there is no limit: more workers there are not."""
_LEAST_TO_RESERVE: Final = 4
"""In a window of fewer tokens none is kept for submits: questions free the slots that submits wait for."""


class Ticket:
    """Stands for one admitted request until it has ended, and for a submit's slot until that is settled."""

    __slots__ = ("holds_slot", "in_flight", "kind", "number")

    def __init__(self, kind: RequestKind) -> None:
        self.kind = kind
        self.in_flight = True
        self.holds_slot = kind is RequestKind.SUBMIT
        self.number = 0
        """Under which it is known to other processes, if there may be any."""


class Throttle:
    """Is the account's controller. Every operation takes O(log N) for a limit of N requests, or less.

    Ask `admit`, send when it gives a ticket, and report `ended` once. (`decide` only asks, and `started` takes what
    `decide` admitted at the same reading of the clock.) Clock readings never go backwards from call to call.
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
        self._window = None if rate is None else Window(rate.period_s)
        self._limit = None if rate is None else Limit(rate)
        self._lockout = Lockout(lockout_s)
        self._slots = Slots(max_active_jobs, slot_retry_s)
        self._grace_s = grace_s
        self._for_submits = 0 if max_active_jobs is None else 1
        self._in_flight = 0
        self._others_in_flight: set[int] = set()
        self._others_slots: set[int] = set()
        self._let_through: int | None = None
        """While a lock-out gathers its last answers: the requests that the window before it let through."""

    def restore(
        self,
        now: float,
        *,
        history: Iterable[tuple[float, float | None]] = (),
        locked_until: float | None = None,
        suspect: bool = False,
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
            suspect: answers were lost, one of which may have been a throttle: the first request goes alone.
            learned_limit: the limit that an earlier lock-out taught.
            open_jobs: ids of the jobs not seen to have ended.
        """
        if self._window is not None:
            self._window.restore(now, history, self._grace_s)
        if self._limit is not None and learned_limit is not None:
            self._limit.recall(learned_limit)
        if locked_until is not None:
            self._lockout.restore(now, locked_until)
        if suspect:
            self._lockout.suspect(now)
        self._slots.restore(open_jobs)

    @property
    def limit(self) -> int | None:
        """Is how many requests a window may hold, as configured or learned; None for no limit."""
        return None if self._limit is None else self._limit.count

    @property
    def learned(self) -> int | None:
        """Is the limit that lock-outs and trying taught; None for none."""
        return None if self._limit is None else self._limit.learned

    @property
    def rate(self) -> Rate | None:
        """Is the limit in force as a rate; None for none."""
        if self._window is None or self._limit is None:
            return None
        return Rate(count=self._limit.count, period_s=self._window.window_s)

    @property
    def locked_out(self) -> bool:
        """Tells whether the account is closed, its probe included: no answer has shown it open again."""
        return self._lockout.phase in (Phase.LOCKED, Phase.PROBING)

    @property
    def doubtful(self) -> bool:
        """Tells whether it is closed only because a throttle may have been among answers that were lost."""
        return self._lockout.doubtful

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

    @property
    def in_flight(self) -> int:
        """Is how many requests of the account have not ended, those of other processes included."""
        return self._in_flight + len(self._others_in_flight)

    @property
    def look_again_s(self) -> float:
        """Is after how long something may have changed without word; infinite while all words come from here."""
        return math.inf

    def refresh(self, now: float) -> bool:  # noqa: ARG002 - others need it
        """Takes up what has changed without word; tells whether there may have been anything."""
        return False

    def used(self, now: float) -> int:
        """Counts the tokens of the window that are taken; 0 without a limit."""
        return 0 if self._window is None else self._window.held(now) + self.in_flight

    def admit(self, kind: RequestKind, now: float) -> Ticket | WaitUntil | WaitForSlot:
        """Admits a request of a kind, or tells what it waits for."""
        decision = self.decide(kind, now)
        return self.started(kind) if isinstance(decision, Admit) else decision

    def decide(self, kind: RequestKind, now: float) -> Decision:
        """Tells whether a request of a kind may go now, and if not, what it waits for."""
        if kind is RequestKind.SUBMIT and (wait := self._slots.decide(now)):
            return wait
        opens_at = self._lockout.opens_at(now, self.in_flight)
        if opens_at > now:
            return WaitUntil(opens_at, "the account is locked out, or has just been")
        if self._window is None or self._limit is None:
            return _ADMIT
        opens_at = self._window_opens_at(kind, now)
        if opens_at > now and self._limit.used_up(now):
            opens_at = self._window_opens_at(kind, now)
        return _ADMIT if opens_at <= now else WaitUntil(opens_at, "the window is used up")

    def _window_opens_at(self, kind: RequestKind, now: float) -> float:
        assert self._window is not None
        assert self._limit is not None
        count = self._limit.count
        if kind not in _FIRST and count >= _LEAST_TO_RESERVE:
            count -= self._for_submits
        return self._window.opens_at(now, count, self.in_flight)

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
        self._mark_ended(ticket)
        self._ended(ticket, now, outcome, retry_after_s)

    @staticmethod
    def _mark_ended(ticket: Ticket) -> None:
        if not ticket.in_flight:
            raise InternalError("The end of one request was reported twice.")
        ticket.in_flight = False

    def _ended(self, _ticket: Ticket, now: float, outcome: Outcome, retry_after_s: float | None) -> None:
        self._in_flight -= 1
        self._end(now, outcome, retry_after_s)

    def _end(self, now: float, outcome: Outcome, retry_after_s: float | None = None) -> None:
        self._count(now, outcome)
        if outcome is Outcome.THROTTLED or self._lockout.phase is not Phase.OPEN:
            ramp_end = _RAMP_WITHOUT_LIMIT if self._limit is None else self._limit.count
            self._lockout.ended(now, outcome, retry_after_s, ramp_end)

    def job_opened(self, ticket: Ticket, job_id: str, now: float) -> None:
        """Turns a submit's slot into an open job."""
        held, ticket.holds_slot = ticket.holds_slot, False
        self._job_opened(ticket, job_id, now, held=held)

    def slot_settled(self, ticket: Ticket) -> None:
        """Gives a submit's slot back if it was not turned into an open job."""
        if ticket.holds_slot:
            ticket.holds_slot = False
            self._slot_settled(ticket)

    def _job_opened(self, _ticket: Ticket, job_id: str, now: float, *, held: bool) -> None:
        if held:
            self._slots.settled()
        self._slots.opened(job_id, now)

    def _slot_settled(self, _ticket: Ticket) -> None:
        self._slots.settled()

    def job_closed(self, job_id: str) -> None:
        """Frees the slot of a job that was seen to have ended; an unknown job frees none."""
        self._slots.closed(job_id)

    def slots_full(self, now: float, reason: str) -> None:
        """Takes the server's word that no job more may be open, although slots of ours are free."""
        rate = self.rate
        self._slots.full(now, reason, 0.0 if rate is None else rate.period_s / (rate.count * _TRIES_SHARE))

    def jobs_listed(self, now: float, open_jobs: int) -> None:
        """Takes how many jobs of the account the list shows as open, ours and others'."""
        self._slots.listed(now, open_jobs)

    def set_rate(self, rate: Rate | None, now: float) -> None:
        """Puts another limit in force at once and forgets what was learned.

        How much of a longer window is used up is not known, nor of any after there was none: it counts as full.
        """
        before = self._window
        self._limit = None if rate is None else Limit(rate)
        if rate is None:
            self._window = None
        elif before is None or before.window_s < rate.period_s:
            self._window = Window(rate.period_s)
            self._window.fill(now, rate.count)
        else:
            before.window_s = rate.period_s

    # What other processes of the account do

    def mirror(
        self, number: int, *, in_flight: bool, holds_slot: bool, counted_until: float | None = None
    ) -> None:
        """Takes up a request of another process, or what has become of it since.

        Args:
            number: of the request.
            in_flight: it has not ended.
            holds_slot: it is a submit that may still make a job, or whose job is not known yet.
            counted_until: the last moment at which the server may count it, if it has ended and was sent.
        """
        is_news = number in self._others_in_flight or number not in self._others_slots
        if in_flight:
            self._others_in_flight.add(number)
        else:
            self._others_in_flight.discard(number)
            if is_news and counted_until is not None and self._window is not None:
                self._window.hold(counted_until)
        if holds_slot and number not in self._others_slots:
            self._others_slots.add(number)
            self._slots.taken()
        elif not holds_slot and number in self._others_slots:
            self._others_slots.remove(number)
            self._slots.settled()

    def mirror_job(self, job_id: str, now: float, *, is_open: bool) -> None:
        """Takes up that a job of another process was opened, or has ended."""
        if is_open:
            self._slots.opened(job_id, now)
        else:
            self._slots.closed(job_id)

    def died(self, number: int, now: float) -> None:
        """Takes it that a request in flight died with its process. One of the answers may have been a throttle."""
        if number in self._others_in_flight:
            self.mirror(number, in_flight=False, holds_slot=False)
            self._end(now, Outcome.UNKNOWN_END)
            self._lockout.suspect(now)

    def unknown_past(self, before: float) -> None:
        """Takes it that nothing is known of what was sent before this moment, and that it was all of the window."""
        if self._window is not None and self._limit is not None:
            self._window.fill(before, self._limit.count)

    def state(self) -> dict[str, Any]:
        """Gives what is not about single requests and jobs, as plain values."""
        return {
            "lockout": self._lockout.state(),
            "slots": self._slots.state(),
            "limit": None if self._limit is None else self._limit.state(),
            "let_through": self._let_through,
        }

    def load(self, state: Mapping[str, Any], *, shift_s: float = 0.0) -> None:
        """Takes up what `state` gave in another process; `shift_s` is what has to be added to its times."""
        self._lockout.load(state["lockout"], shift_s)
        self._slots.load(state["slots"], shift_s)
        if self._limit is not None and state["limit"] is not None:
            self._limit.load(state["limit"], shift_s)
        self._let_through = state["let_through"]

    def _count(self, now: float, outcome: Outcome) -> None:
        """Counts an ended request, and what it says about the limit.

        The lesson waits until nothing is in flight any more, because what was sent before the refused request
        may have been let through and not be answered yet. It comes before the probe, which waits as well.
        """
        window, limit = self._window, self._limit
        if window is None or limit is None:
            return
        if outcome is Outcome.THROTTLED and not self.locked_out:
            self._let_through = window.held(now)
        elif self._let_through is not None and outcome in (Outcome.ANSWERED, Outcome.UNKNOWN_END):
            self._let_through += 1
        if (counted_until := last_count(now, outcome, self._grace_s)) is not None:
            window.hold(counted_until)
        if self._let_through is not None and not self.in_flight:
            limit.refused(now, self._let_through)
            self._let_through = None
