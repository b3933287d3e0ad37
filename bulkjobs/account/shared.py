"""The account's throttle when other processes of this machine use the account as well.

It is the controller of `throttle`, kept in step with the others through `store`: each operation first takes up what
they did, then does its own part, and enters it, in one transaction. What cannot be entered at the moment, because
another process is stopped in its turn, is done later; until then the others take the request for one in flight.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import orjson

from bulkjobs.account.store import AccountStore, Busy
from bulkjobs.account.turn import Counting
from bulkjobs.account.uncounted import Uncounted
from bulkjobs.errors import LedgerError
from bulkjobs.throttle import Outcome, Throttle, Ticket, WaitUntil
from bulkjobs.throttle.window import last_count, last_count_before

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from bulkjobs.account.turn import Turn
    from bulkjobs.model import RequestKind
    from bulkjobs.ports import Clock
    from bulkjobs.settings import Rate
    from bulkjobs.throttle import WaitForSlot

__all__ = ["SharedThrottle"]

_LOOK_AGAIN_S: Final = 0.25
"""How soon a waiter hears of what another process did."""
_CHECK_LIVES_S: Final = 1.0
_KEPT_S: Final = 60.0
"""How much longer than the longest window a request is kept, for a process that has not looked for long."""


class SharedThrottle(Throttle):
    """Is the account's controller for one of several processes."""

    def __init__(
        self,
        store: AccountStore,
        *,
        run_id: str,
        run_session: int,
        axis: str,
        now: float,
        clock: Clock,
        rate: Rate | None,
        lockout_s: float,
        max_active_jobs: int | None,
    ) -> None:
        """Joins the others. `restore` has to follow, with what the run's own ledger knows.

        Args:
            store: of the account; closed by `leave`.
            run_id: of the run.
            run_session: number of this session in the run's ledger.
            axis: names the clock of `now`.
            now: the present on the loop's clock.
            clock: wall clock.
            rate: as for `Throttle`.
            lockout_s: as for `Throttle`.
            max_active_jobs: as for `Throttle`.

        Raises:
            ConfigError: the store cannot be used.
            LedgerError: it cannot be read or written.
            Busy: another process has been in its turn for too long.
        """
        super().__init__(rate=rate, lockout_s=lockout_s, max_active_jobs=max_active_jobs)
        self._store = store
        self._run_id = run_id
        self._run_session = run_session
        self._axis = axis
        self._clock = clock
        self._utc_offset = clock.utc() - now
        self._limited = rate is not None or max_active_jobs is not None
        self._tracks = max_active_jobs is not None  # else nobody sees the ends of its jobs
        self._counting = Counting.of(limited=self._limited, others=())
        self._uncounted = Uncounted()
        self._seen = 0
        self._state = ""
        self._looked = now
        self._pruned = now
        self._others: dict[int, int] = {}
        self._others_jobs: set[str] = set()
        self._limits: dict[str, Any] = {}
        """What was learned, for each length of a window: it says nothing about another."""
        self._pending: list[Callable[[Turn], None]] = []
        self._longest_s = 0.0 if rate is None else rate.period_s
        """The longest window in which anybody has counted."""
        self._unknown_before: float | None = None
        """What was sent before this moment may be missing from the store; None if nothing was removed or lost."""
        self._behind = False
        """What others did could not be taken up, or what happened here not entered."""
        self._broken: LedgerError | None = None
        with store.turn(synced=True) as turn:
            self._join(turn, now)
            self._end_turn(turn)

    def _join(self, turn: Turn, now: float) -> None:
        shift_s = 0.0
        if turn.axis not in ("", self._axis):
            shift_s = turn.utc_offset - self._utc_offset
            turn.move_times(shift_s, now=now, grace_s=self._grace_s)
        not_counted = Counting.NOTHING in turn.other_sessions(0).values()
        self._session = turn.add_session(self._run_id, self._counting)
        self._store.begin_session(self._session)
        since, until, session = turn.known(self._run_id, now)
        self._known = since, until
        """What the run's ledger knows from this time is known here already."""
        self._knows_all = session == self._run_session - 1 and turn.axis == self._axis
        """All that the run's ledger knows stands here, and has times of a clock that nobody sets."""
        if turn.state is not None:
            self.load(orjson.loads(turn.state), shift_s=shift_s)
        if self._store.lost or turn.axis not in ("", self._axis):
            # The machine was started anew. Only the wall clock tells for how long it was down, and that may have been
            # set; what was entered last may be missing.
            self._unknown_before = now
            self._lockout.bound(now)
        if not_counted and self._limited:
            self._unknown_before = now  # from now on they count
        if self._unknown_before is not None:
            self._unknown_before = min(self._unknown_before, now)
            self.unknown_past(self._unknown_before)
        self._take_up(turn, None, everything=True)
        self._bury(turn, now)

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
        """Takes up what the ledger of the run knows beyond the store; see `Throttle.restore`.

        The ledger has wall times. Where all it knows stands in the store only what the store may have removed is of
        use: a clock that was set since can neither lengthen a lock-out nor have a window count twice.
        """
        since, until = self._known
        if self._knows_all:
            until, locked_until = math.inf, None
        older = [(start, end) for start, end in history if not since <= start <= until]
        open_jobs = set(open_jobs)

        def take_up(turn: Turn) -> None:
            super(SharedThrottle, self).restore(
                now,
                history=older,
                locked_until=locked_until,
                suspect=suspect,
                learned_limit=learned_limit,
                open_jobs=open_jobs,
            )
            for start, end in older:
                last = last_count_before(now, start, end, self._grace_s)
                turn.add_past(self._session, ended=now, counted_until=last)
            turn.keep_jobs(self._run_id, open_jobs if self._tracks else (), now)
            if self._limited:
                turn.known_session(self._run_id, self._run_session)

        self._do(take_up, now)

    @property
    def look_again_s(self) -> float:
        """Is after how long another process may have done something."""
        return _LOOK_AGAIN_S

    def refresh(self, now: float) -> bool:
        """Takes up what others did, and every second looks who still lives; tells whether there was reason to."""
        if not (self._store.changed or self._behind or now - self._looked >= _CHECK_LIVES_S):
            return False
        self._do(None, now)
        return True

    @property
    def may_send(self) -> bool:
        """Tells whether a request admitted earlier may still begin: no lock-out has begun, here or elsewhere."""
        if self._behind or self._store.changed:
            self._do(None, None)
        # While this process is behind, a lock-out may be among what it does not know.
        return self._broken is None and not self._behind and super().may_send

    def admit(self, kind: RequestKind, now: float) -> Ticket | WaitUntil | WaitForSlot:
        """Admits a request of a kind, or tells what it waits for.

        Raises:
            LedgerError: what the account has used up cannot be read or entered.
        """
        if self._broken is not None:
            raise self._broken
        if not self._counting and self._lockout.is_open and not self._behind and not self._store.changed:
            return super().admit(kind, now)
        admitted: Ticket | WaitUntil | WaitForSlot = WaitUntil(
            now + _LOOK_AGAIN_S, "another process is busy with the account"
        )

        def enter(turn: Turn) -> None:
            nonlocal admitted
            admitted = super(SharedThrottle, self).admit(kind, now)
            # The others must hear of a probe even where nothing is counted: they wait for its end.
            if isinstance(admitted, Ticket) and (self._counting or not self._lockout.is_open):
                admitted.number = turn.begin_request(self._session, slot=admitted.holds_slot and self._tracks)
                if self._limited:
                    turn.known_until(self._run_id, now)

        self._do(enter, now, later=False)
        if self._broken is not None:
            raise self._broken
        return admitted

    def set_rate(self, rate: Rate | None, now: float) -> None:
        """Puts another limit in force, for this process: each goes by the limit that it was given."""
        super().set_rate(rate, now)
        self._limited = self._limited or rate is not None
        self._longest_s = max(self._longest_s, 0.0 if rate is None else rate.period_s)
        # Once more: what others had learned until now is taken up first, and is to be forgotten as well.
        self._do(lambda _turn: super(SharedThrottle, self).set_rate(rate, now), now)

    def leave(self, now: float) -> None:
        """Ends the session. Its open jobs no longer count: the server says when they take the slots.

        What is still in flight counts as sent, because nobody would enter its end.
        """

        def go(turn: Turn) -> None:
            left = [number for number, ended in turn.left_behind(self._session) if not ended]
            self._in_flight -= len(left)
            self._others_in_flight.update(left)
            self._end_what_is_left(turn, self._session, now)
            for _ in range(self._in_flight):
                self._uncounted.add(last_count(now, Outcome.UNKNOWN_END, self._grace_s))
            self._unknown_before = self._uncounted.enter(turn, self._session, self._unknown_before)
            if self._limited or not self._uncounted.lost_some:
                turn.known_until(self._run_id, now)
                turn.known_session(self._run_id, self._run_session)
            turn.end_session(self._session, now)

        self._do(go, now)
        self._broken = LedgerError("The session has left the account.")
        self._store.forget_session(self._session)
        self._store.close()

    # What happens to requests and jobs

    def _ended(self, ticket: Ticket, now: float, outcome: Outcome, retry_after_s: float | None) -> None:
        # Where nobody counts this costs next to nothing: no turn, and no function made for one.
        is_open = self._lockout.is_open and outcome is not Outcome.THROTTLED
        if is_open and not (self._counting or ticket.number or self._store.changed):
            super()._ended(ticket, now, outcome, retry_after_s)
            self._uncounted.add(
                now if outcome is Outcome.ANSWERED else last_count(now, outcome, self._grace_s)
            )
            return

        def enter(turn: Turn) -> None:
            super(SharedThrottle, self)._ended(ticket, now, outcome, retry_after_s)
            counted_until = last_count(now, outcome, self._grace_s)
            if ticket.number:
                turn.end_request(ticket.number, ended=now, counted_until=counted_until)
            elif self._counting and counted_until is not None:  # it was in flight when others began to count
                turn.add_past_of(self._session, [counted_until])
            else:
                self._uncounted.add(counted_until)

        self._do(enter, now)

    def _slot_settled(self, ticket: Ticket) -> None:
        if not self._tracks:
            super()._slot_settled(ticket)
            return

        def enter(turn: Turn) -> None:
            super(SharedThrottle, self)._slot_settled(ticket)
            turn.free_slot(ticket.number)

        self._do(enter, None)

    def _job_opened(self, ticket: Ticket, job_id: str, now: float, *, held: bool) -> None:
        if not self._tracks:
            super()._job_opened(ticket, job_id, now, held=held)
            return

        # One turn: between two another process would find the slot free and the job not there yet.
        def enter(turn: Turn) -> None:
            super(SharedThrottle, self)._job_opened(ticket, job_id, now, held=held)
            turn.free_slot(ticket.number)
            turn.open_job(job_id, self._run_id, now)

        self._do(enter, now)

    def job_closed(self, job_id: str) -> None:
        """Frees the slot of a job that was seen to have ended; an unknown job frees none."""

        def enter(turn: Turn) -> None:
            super(SharedThrottle, self).job_closed(job_id)
            turn.close_job(job_id, self._looked)

        if self._tracks:
            self._do(enter, None)
        else:
            super().job_closed(job_id)

    def slots_full(self, now: float, reason: str) -> None:
        """Takes the server's word that no job more may be open."""
        self._do(lambda _turn: super(SharedThrottle, self).slots_full(now, reason), now)

    def jobs_listed(self, now: float, open_jobs: int) -> None:
        """Takes how many jobs of the account the list shows as open, ours and others'."""
        if self.slots_held_by_others_since is not None:
            self._do(lambda _turn: super(SharedThrottle, self).jobs_listed(now, open_jobs), now)

    # Keeping in step

    def _do(self, operation: Callable[[Turn], None] | None, now: float | None, *, later: bool = True) -> None:
        """Takes up what the others did, then does an operation; what cannot be entered now is done later.

        It raises nothing: what it is told of has happened. Whoever wants to send is told, by `admit`.

        Args:
            operation: to be done; None to take up what the others did and no more.
            now: the present; None where no check of the others is due.
            later: an operation that cannot be done now is kept.
        """
        if self._broken is not None:
            return
        pending = [*self._pending, operation] if operation is not None else list(self._pending)
        try:
            with self._store.turn() as turn:
                self._take_up(turn, now)
                for each in pending:
                    each(turn)
                self._end_turn(turn)
            self._pending.clear()
            self._behind = False
        except Busy:
            self._behind = True
            if operation is not None and later:
                self._pending.append(operation)
        except LedgerError as error:
            self._broken = error

    def _take_up(self, turn: Turn, now: float | None, *, everything: bool = False) -> None:
        if turn.change != self._seen or everything:
            if turn.state is not None and turn.state != self._state and not everything:
                self.load(orjson.loads(turn.state))
            since = -1 if everything else self._seen
            for number, slot, ended, until in turn.requests_of_others(self._session, since):
                self.mirror(number, in_flight=ended is None, holds_slot=bool(slot), counted_until=until)
            for job_id, is_open, at in turn.jobs_of_others(self._run_id, self._seen):
                self._mirror_job(job_id, at, is_open=bool(is_open))
            self._others = turn.other_sessions(self._session)
            self._seen = turn.change
        if now is not None and now - self._looked >= _CHECK_LIVES_S:
            if now - self._looked > _KEPT_S / 2:
                self._miss_nothing(turn, now)
            self._looked = now
            self._utc_offset = self._clock.utc() - now
            self._bury(turn, now)
            self._prune(turn, now)
        self._count_for_others(turn)

    def _count_for_others(self, turn: Turn) -> None:
        """Enters requests as long as any session has a limit, and what was sent before that."""
        counting = Counting.of(limited=self._limited, others=self._others.values())
        if counting is not self._counting:
            self._counting = counting
            turn.set_counting(self._session, counting)
            if counting:
                self._unknown_before = self._uncounted.enter(turn, self._session, self._unknown_before)

    def _mirror_job(self, job_id: str, at: float, *, is_open: bool) -> None:
        (self._others_jobs.add if is_open else self._others_jobs.discard)(job_id)
        self.mirror_job(job_id, at, is_open=is_open)

    def _miss_nothing(self, turn: Turn, now: float) -> None:
        """Takes up the end of what was removed meanwhile: this process has not looked for long."""
        for number in self._others_in_flight | self._others_slots:
            if not turn.has_request(number):
                self.mirror(number, in_flight=False, holds_slot=False)
        for job_id in list(self._others_jobs):
            if not turn.has_job(job_id):
                self._mirror_job(job_id, now, is_open=False)

    def _bury(self, turn: Turn, now: float) -> None:
        """Ends what sessions that were killed have left in flight. One of the answers may have been a throttle."""
        for session in [number for number in self._others if not self._store.lives(number)]:
            self._end_what_is_left(turn, session, now)
            for job_id in turn.end_session(session, now):
                self._mirror_job(job_id, now, is_open=False)
            if self._others.pop(session) == Counting.NOTHING:
                self._unknown_before = now  # for those that join: whoever is here has counted since
            self._store.forget_session(session)

    def _end_what_is_left(self, turn: Turn, session: int, now: float) -> None:
        for number, ended in turn.left_behind(session):
            if ended:
                self.mirror(number, in_flight=False, holds_slot=False)
            else:
                self.died(number, now)
                counted_until = last_count(now, Outcome.UNKNOWN_END, self._grace_s)
                turn.end_request(number, ended=now, counted_until=counted_until)
            turn.free_slot(number)

    def _prune(self, turn: Turn, now: float) -> None:
        """Removes what counts for nobody any more."""
        kept_s = self._longest_s + _KEPT_S
        if now - self._pruned >= kept_s / 4:
            self._pruned = now
            turn.prune(now - kept_s)
            lost_before = self._unknown_before
            self._unknown_before = now - kept_s if lost_before is None else max(lost_before, now - kept_s)

    def _end_turn(self, turn: Turn) -> None:
        state = orjson.dumps(self.state()).decode()
        if turn.end(axis=self._axis, utc_offset=self._utc_offset, state=state):
            self._seen = turn.next_change
        self._state = state

    def state(self) -> dict[str, Any]:
        """Gives what is not about single requests and jobs; what this process does not keep is passed on."""
        own = super().state()
        limit = own.pop("limit")
        return {
            "limits": self._limits if limit is None else {**self._limits, self._window_name(): limit},
            "longest_s": self._longest_s,
            "unknown_before": self._unknown_before,
            **own,
        }

    def load(self, state: Mapping[str, Any], *, shift_s: float = 0.0) -> None:
        """Takes up what `state` gave in another process."""
        self._limits = state["limits"]
        self._longest_s = max(self._longest_s, state["longest_s"])
        unknown_before = state["unknown_before"]
        self._unknown_before = None if unknown_before is None else unknown_before + shift_s
        super().load({**state, "limit": self._limits.get(self._window_name())}, shift_s=shift_s)

    def _window_name(self) -> str:
        return "" if self._window is None else f"{self._window.window_s:g}"
