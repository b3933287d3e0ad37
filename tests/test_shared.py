"""Runs of one account on one machine: what one uses up the other cannot use, and what one learns the other knows."""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulkjobs.account.axis import axis_of
from bulkjobs.account.shared import SharedThrottle
from bulkjobs.account.store import AccountStore, Busy, folder_of
from bulkjobs.account.turn import Turn
from bulkjobs.errors import ConfigError, LedgerError
from bulkjobs.model import RequestKind
from bulkjobs.settings import Rate
from bulkjobs.testing import run_virtual
from bulkjobs.throttle import GRACE_S, Outcome, Ticket, WaitForSlot, WaitUntil

SUBMIT, STATUS = RequestKind.SUBMIT, RequestKind.STATUS
ANSWERED, NOT_SENT, UNKNOWN_END, THROTTLED = (
    Outcome.ANSWERED,
    Outcome.NOT_SENT,
    Outcome.UNKNOWN_END,
    Outcome.THROTTLED,
)
W = 16.0
UTC = 1_700_000_000.0


class WallClock:
    """Shows what it is told."""

    def __init__(self, at: float = UTC) -> None:
        self.at = at

    def utc(self) -> float:
        return self.at


class Machine:
    """Has processes of one account on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.boot = "first"
        self.clock = WallClock()
        self.runs = 0

    def run(
        self,
        now: float = 0.0,
        *,
        limit: int | None = 4,
        slots: int | None = None,
        run_id: str | None = None,
        run_session: int = 1,
        restore: bool = True,
    ) -> SharedThrottle:
        self.runs += 1
        throttle = SharedThrottle(
            AccountStore(self.folder),
            run_id=run_id or f"run {self.runs}",
            run_session=run_session,
            axis=self.boot,
            now=now,
            clock=self.clock,
            rate=None if limit is None else Rate(count=limit, period_s=W),
            lockout_s=W,
            max_active_jobs=slots,
        )
        if restore:
            throttle.restore(now)
        return throttle

    def kill(self, throttle: SharedThrottle) -> None:
        """Ends a process without a word: its files are closed, and nothing else happens."""
        throttle._store.close()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "account")


def start(throttle: SharedThrottle, now: float, kind: RequestKind = STATUS) -> Ticket:
    ticket = throttle.admit(kind, now)
    assert isinstance(ticket, Ticket), ticket
    return ticket


def use(throttle: SharedThrottle, now: float, times: int = 1) -> None:
    for _ in range(times):
        throttle.ended(start(throttle, now), now, ANSWERED)


def stands(throttle: SharedThrottle, ticket: Ticket, job_id: str) -> tuple[bool, bool]:
    """Tells whether a request and a job have a row in the store."""
    with throttle._store.turn() as turn:
        return turn.has_request(ticket.number), turn.has_job(job_id)


# --- the window ---


def test_what_one_run_has_used_up_another_cannot_use(machine: Machine) -> None:
    first, second = machine.run(), machine.run()
    use(first, 1.0, 2)
    use(second, 2.0, 2)
    for throttle in (first, second):
        assert throttle.admit(STATUS, 3.0) == WaitUntil(1.0 + W, "the window is used up")
    use(second, 1.0 + W)


def test_a_request_in_flight_in_one_run_holds_its_token_in_the_other(machine: Machine) -> None:
    first, second = machine.run(limit=1), machine.run(limit=1)
    ticket = start(first, 0.0)
    assert isinstance(second.admit(STATUS, 100.0), WaitUntil)
    first.ended(ticket, 100.0, NOT_SENT)
    use(second, 100.0)


def test_a_run_that_begins_later_knows_what_went_before(machine: Machine) -> None:
    use(machine.run(), 1.0, 4)
    assert machine.run(2.0).admit(STATUS, 2.0) == WaitUntil(1.0 + W, "the window is used up")


def test_each_run_goes_by_its_own_limit_over_what_all_have_sent(machine: Machine) -> None:
    modest, bold = machine.run(limit=2), machine.run(limit=6)
    use(bold, 0.0, 3)
    assert isinstance(modest.admit(STATUS, 1.0), WaitUntil)
    use(bold, 1.0, 3)
    assert isinstance(bold.admit(STATUS, 1.0), WaitUntil)


def test_a_session_that_goes_on_counts_nothing_twice(machine: Machine) -> None:
    first = machine.run(run_id="the run")
    use(first, 1.0, 2)
    first.leave(1.0)
    again = machine.run(2.0, run_id="the run", restore=False)
    again.restore(2.0, history=[(1.0, 1.0), (1.0, 1.0)])
    use(again, 2.0, 2)
    assert isinstance(again.admit(STATUS, 2.0), WaitUntil)


def test_what_the_ledger_knows_from_before_the_store_counts_for_all(machine: Machine) -> None:
    first = machine.run(10.0, restore=False)
    first.restore(10.0, history=[(8.0, 9.0), (9.0, None)])
    second = machine.run(10.0)
    use(second, 10.0, 2)
    for throttle in (first, second):
        assert throttle.admit(STATUS, 11.0) == WaitUntil(10.0 + W, "the window is used up")
    use(second, 10.0 + W, 2)
    assert second.admit(STATUS, 10.0 + W) == WaitUntil(9.0 + GRACE_S + W, "the window is used up")


def test_what_a_session_that_did_not_share_has_sent_counts_beside_what_stands_in_the_store(
    machine: Machine,
) -> None:
    shared = machine.run(run_id="the run")
    use(shared, 1.0)
    shared.leave(1.0)
    again = machine.run(5.0, run_id="the run", restore=False)
    again.restore(5.0, history=[(1.0, 1.0), (3.0, 3.0), (3.0, 3.0), (3.0, 3.0)])
    assert again.admit(STATUS, 5.0) == WaitUntil(1.0 + W, "the window is used up")


def test_what_a_run_without_a_window_removes_counts_as_used_up_for_one_with_a_longer_window(
    machine: Machine,
) -> None:
    short = machine.run(limit=4)
    use(short, 0.0, 4)
    for now in (100.0, 200.0):
        use(short, now)
    long = SharedThrottle(
        AccountStore(machine.folder),
        run_id="long",
        run_session=1,
        axis=machine.boot,
        now=201.0,
        clock=machine.clock,
        rate=Rate(count=4, period_s=1_000.0),
        lockout_s=W,
        max_active_jobs=None,
    )
    long.restore(201.0)
    assert isinstance(long.admit(STATUS, 201.0), WaitUntil)
    long.leave(201.0)
    unlimited = machine.run(300.0, limit=None, slots=9)
    use(unlimited, 400.0)
    again = machine.run(401.0)
    use(again, 401.0, 3)
    assert isinstance(again.admit(STATUS, 401.0), WaitUntil), "one of the unlimited run counts, and no more"


# --- processes that are killed ---


def test_what_a_killed_process_had_in_flight_counts_as_sent_when_its_end_is_noticed(machine: Machine) -> None:
    killed, left = machine.run(limit=1), machine.run(limit=1)
    start(killed, 0.0)
    machine.kill(killed)
    assert isinstance(left.admit(STATUS, 50.0), WaitUntil)
    assert isinstance(left.admit(STATUS, 50.0 + W + GRACE_S - 0.1), WaitUntil)
    assert isinstance(left.admit(STATUS, 50.0 + W + GRACE_S), Ticket)


def test_after_a_kill_one_request_finds_out_whether_there_is_a_lock_out(machine: Machine) -> None:
    killed, left = machine.run(), machine.run()
    start(killed, 0.0)
    machine.kill(killed)
    probe = start(left, 50.0)
    assert isinstance(left.admit(STATUS, 50.0), WaitUntil)
    left.ended(probe, 51.0, ANSWERED)
    use(left, 51.0)


def test_a_process_that_was_killed_with_nothing_in_flight_leaves_no_doubt(machine: Machine) -> None:
    killed, left = machine.run(), machine.run()
    use(killed, 0.0)
    machine.kill(killed)
    for _ in range(2):
        start(left, 50.0)


def test_the_slot_of_a_submit_that_died_is_free_and_so_are_those_of_its_jobs(machine: Machine) -> None:
    killed, left = machine.run(limit=9, slots=2), machine.run(limit=9, slots=2)
    ticket = start(killed, 0.0, SUBMIT)
    killed.ended(ticket, 0.0, ANSWERED)
    killed.job_opened(ticket, "its job", 0.0)
    start(killed, 0.0, SUBMIT)
    assert isinstance(left.admit(SUBMIT, 0.5), WaitForSlot)
    machine.kill(killed)
    use(left, 50.0, 2)
    for _ in range(2):
        start(left, 50.0, SUBMIT)
    assert isinstance(left.admit(SUBMIT, 50.0), WaitForSlot)


def test_a_process_that_looks_away_for_long_misses_nothing(machine: Machine) -> None:
    away, busy = machine.run(limit=2, slots=3), machine.run(limit=2, slots=3)
    ticket = start(busy, 0.0, SUBMIT)
    assert isinstance(away.admit(SUBMIT, 0.0), Ticket)
    busy.ended(ticket, 1.0, ANSWERED)
    busy.job_opened(ticket, "a job", 1.0)
    assert away.admit(STATUS, 2.0)
    busy.job_closed("a job")
    assert stands(busy, ticket, "a job") == (True, True)
    for minute in range(1, 20):
        use(busy, 60.0 * minute)
    assert stands(busy, ticket, "a job") == (False, False)
    assert isinstance(away.admit(SUBMIT, 2_000.0), Ticket)


def test_what_is_in_flight_when_a_session_leaves_counts_as_sent(machine: Machine) -> None:
    leaving, other = machine.run(limit=1), machine.run(limit=1)
    start(leaving, 0.0)
    leaving.leave(1.0)
    for throttle in (other, machine.run(2.0, limit=1)):
        assert isinstance(throttle.admit(STATUS, 1.0 + W + GRACE_S - 0.1), WaitUntil)
    use(other, 1.0 + W + GRACE_S)


# --- lock-out, limit, slots ---


def test_a_lock_out_of_one_run_closes_the_others_at_once(machine: Machine) -> None:
    first, second = machine.run(), machine.run()
    admitted = start(second, 0.0)
    first.ended(start(first, 0.0), 1.0, THROTTLED)
    assert not second.may_send
    assert isinstance(second.admit(STATUS, 2.0), WaitUntil)
    second.ended(admitted, 3.0, NOT_SENT)
    assert second.locked_out
    until = second.locked_until
    assert until == first.locked_until == 1.0 + W * 1.03
    probe = start(second, until)
    assert isinstance(first.admit(STATUS, until), WaitUntil), "there is one probe for all"
    second.ended(probe, until, ANSWERED)
    use(first, until)


def test_without_a_limit_lock_outs_are_shared_all_the_same(machine: Machine) -> None:
    first, second = machine.run(limit=None), machine.run(limit=None)
    start(second, 0.0)
    first.ended(start(first, 0.0), 1.0, THROTTLED)
    assert not second.may_send
    assert isinstance(second.admit(STATUS, 2.0), WaitUntil)


def test_without_a_limit_there_is_one_probe_for_all_and_its_death_is_noticed(machine: Machine) -> None:
    first, second = machine.run(limit=None), machine.run(limit=None)
    first.ended(start(first, 0.0), 1.0, THROTTLED)
    until = first.locked_until
    probe = start(second, until)
    assert isinstance(first.admit(STATUS, until), WaitUntil)
    second.ended(probe, until, THROTTLED)
    until = second.locked_until
    start(second, until)
    machine.kill(second)
    assert isinstance(first.admit(STATUS, until + 1.0), WaitUntil)
    start(first, first.locked_until)


def test_a_limit_that_was_learned_holds_for_the_others_and_those_to_come(machine: Machine) -> None:
    first, second = machine.run(limit=100), machine.run(limit=100)
    use(first, 0.0, 20)
    use(second, 0.0, 20)
    first.ended(start(first, 0.0), 0.0, THROTTLED)
    assert first.limit == 20
    second.admit(STATUS, 1.0)
    assert second.limit == 20
    first.leave(1.0)
    second.leave(1.0)
    assert machine.run(1_000.0, limit=100).limit == 20


def test_a_refusal_that_a_modest_run_meets_is_a_lesson_for_a_bolder_one(machine: Machine) -> None:
    modest, bold = machine.run(limit=10), machine.run(limit=100)
    use(modest, 0.0, 5)
    ticket = start(modest, 0.0)
    use(bold, 0.0, 35)
    modest.ended(ticket, 0.0, THROTTLED)
    assert modest.limit == 10
    bold.admit(STATUS, 1.0)
    assert bold.limit == 20


def test_what_was_learned_about_a_window_is_not_taken_for_one_of_another_length(machine: Machine) -> None:
    first, other = machine.run(limit=100), machine.run(limit=100)
    other.set_rate(Rate(count=90, period_s=W / 2), 0.0)
    use(first, 0.0, 20)
    first.ended(start(first, 0.0), 0.0, THROTTLED)
    other.admit(STATUS, 1.0)
    other.ended(start(other, 200.0), 200.0, ANSWERED)
    assert other.limit == 90
    assert machine.run(201.0, limit=100).limit == 10


def test_a_run_without_a_limit_does_not_forget_what_others_learned(machine: Machine) -> None:
    first, unlimited = machine.run(limit=100), machine.run(limit=None)
    use(first, 0.0, 20)
    first.ended(start(first, 0.0), 0.0, THROTTLED)
    unlimited.admit(STATUS, 1.0)
    unlimited.ended(start(unlimited, 500.0), 500.0, ANSWERED)
    assert machine.run(501.0, limit=100).limit == 10


def test_open_jobs_take_slots_from_all_until_they_are_seen_to_have_ended(machine: Machine) -> None:
    first, second = machine.run(slots=1), machine.run(slots=1)
    ticket = start(first, 0.0, SUBMIT)
    assert isinstance(second.admit(SUBMIT, 0.0), WaitForSlot)
    first.ended(ticket, 0.0, ANSWERED)
    first.job_opened(ticket, "a job", 0.0)
    assert isinstance(second.admit(SUBMIT, 0.0), WaitForSlot)
    first.job_closed("a job")
    assert isinstance(second.admit(SUBMIT, 1.0), Ticket)


def test_no_other_run_slips_in_while_a_slot_becomes_a_job(machine: Machine) -> None:
    first, second = machine.run(slots=1), machine.run(slots=1)
    ticket = start(first, 0.0, SUBMIT)
    first.ended(ticket, 0.0, ANSWERED)
    turn, admitted = first._store.turn, []

    @contextmanager
    def watched(**options: bool) -> Iterator[Turn]:
        with turn(**options) as entered:
            yield entered
        admitted.append(second.admit(SUBMIT, 0.0))

    first._store.turn = watched
    first.job_opened(ticket, "a job", 0.0)
    assert admitted
    assert all(isinstance(answer, WaitForSlot) for answer in admitted)


def test_a_submit_that_made_no_job_frees_its_slot_for_all(machine: Machine) -> None:
    first, second = machine.run(slots=1), machine.run(slots=1)
    ticket = start(first, 0.0, SUBMIT)
    first.ended(ticket, 0.0, ANSWERED)
    assert isinstance(second.admit(SUBMIT, 0.0), WaitForSlot)
    first.slot_settled(ticket)
    assert isinstance(second.admit(SUBMIT, 0.0), Ticket)


def test_the_jobs_of_a_run_that_ends_leave_their_slots_to_the_server_to_count(machine: Machine) -> None:
    first, second = machine.run(slots=1), machine.run(slots=1)
    ticket = start(first, 0.0, SUBMIT)
    first.ended(ticket, 0.0, ANSWERED)
    first.job_opened(ticket, "a job", 0.0)
    first.leave(1.0)
    assert isinstance(second.admit(SUBMIT, 2.0), Ticket)


def test_a_resumed_run_holds_the_slots_of_the_jobs_in_its_ledger_and_of_no_others(machine: Machine) -> None:
    first = machine.run(slots=3, run_id="the run")
    for name in ("open", "ended meanwhile"):
        ticket = start(first, 0.0, SUBMIT)
        first.ended(ticket, 0.0, ANSWERED)
        first.job_opened(ticket, name, 0.0)
    machine.kill(first)
    other = machine.run(50.0, slots=3)
    again = machine.run(50.0, slots=3, run_id="the run", restore=False)
    again.restore(50.0, open_jobs=["open"])
    for _ in range(2):
        start(other, 50.0, SUBMIT)
    assert isinstance(other.admit(SUBMIT, 50.0), WaitForSlot)


# --- runs without any limit, whose requests count for others all the same ---


def entered(throttle: SharedThrottle) -> int:
    """Counts the requests in the store."""
    count: int = throttle._store._database.execute("SELECT count(*) FROM request").fetchone()[0]
    return count


def test_runs_without_limits_enter_nothing_while_nobody_has_one(machine: Machine) -> None:
    first, second = machine.run(limit=None), machine.run(limit=None)
    before = second._store._changes[0] if second._store._changes else None
    use(first, 1.0, 50)
    use(second, 1.0, 50)
    assert entered(first) == 0
    assert second._store._changes is not None
    assert second._store._changes[0] == before, "not one turn"


def test_a_run_with_a_limit_that_finds_one_without_begins_with_a_full_window_and_counts_it_from_then_on(
    machine: Machine,
) -> None:
    unlimited = machine.run(limit=None)
    use(unlimited, 1.0, 50)
    limited = machine.run(2.0)
    assert limited.admit(STATUS, 2.0) == WaitUntil(2.0 + W, "the window is used up")
    use(unlimited, 30.0, 3)
    use(limited, 31.0)
    assert limited.admit(STATUS, 31.0) == WaitUntil(30.0 + W, "the window is used up")


def test_what_a_run_without_limits_has_in_flight_when_others_come_counts_from_its_end(
    machine: Machine,
) -> None:
    unlimited = machine.run(limit=None)
    old = start(unlimited, 0.0)
    limited = machine.run(1.0)
    new = start(unlimited, 40.0)
    unlimited.ended(old, 50.0, ANSWERED)
    assert limited.used(50.0) == 0, "before it looks"
    use(limited, 50.0, 2)
    assert isinstance(limited.admit(STATUS, 50.0), WaitUntil), "one in flight, one that has ended"
    unlimited.ended(new, 51.0, NOT_SENT)
    use(limited, 51.0)


def test_a_run_without_limits_enters_nothing_any_more_when_those_with_one_are_gone(machine: Machine) -> None:
    unlimited, left, killed = machine.run(limit=None), machine.run(), machine.run()
    use(unlimited, 1.0)
    left.leave(2.0)
    use(unlimited, 3.0)
    assert entered(unlimited) == 2
    machine.kill(killed)
    use(unlimited, 5.0)  # which notices
    before = entered(unlimited)
    use(unlimited, 6.0, 50)
    assert entered(unlimited) == before


@pytest.mark.parametrize(("sent", "free"), [(0, 4), (1, 3), (4, 0), (5_000, 0)])
def test_what_a_run_without_limits_has_sent_counts_for_one_that_comes_when_it_has_left(
    machine: Machine, sent: int, free: int
) -> None:
    unlimited = machine.run(limit=None)
    use(unlimited, 1.0, sent)
    unlimited.leave(2.0)
    later = machine.run(3.0)
    use(later, 3.0, free)
    assert later.admit(STATUS, 3.0) == WaitUntil((1.0 if sent else 3.0) + W, "the window is used up")


def test_one_that_was_killed_may_have_used_up_everything(machine: Machine) -> None:
    machine.kill(machine.run(limit=None))
    for limited in (machine.run(5.0), machine.run(6.0)):
        assert limited.admit(STATUS, 6.0) == WaitUntil(5.0 + W, "the window is used up")
    use(machine.run(5.0 + W), 5.0 + W, 4)


def test_a_run_that_is_given_a_limit_while_it_works_has_others_count(machine: Machine) -> None:
    first, second = machine.run(limit=None), machine.run(limit=None)
    use(first, 1.0, 3)
    second.set_rate(Rate(count=4, period_s=W), 2.0)
    use(first, 2.0 + W)
    use(second, 2.0 + W, 3)
    assert second.admit(STATUS, 3.0 + W) == WaitUntil(2.0 + W + W, "the window is used up")


def test_a_run_that_goes_on_without_limits_is_counted_once(machine: Machine) -> None:
    first = machine.run(limit=None, run_id="the run")
    use(first, 1.0, 3)
    first.leave(2.0)
    again = machine.run(3.0, run_id="the run", run_session=2, restore=False)
    again.restore(3.0, history=[(1.0, 1.0)] * 3)
    use(again, 3.0)
    assert again.admit(STATUS, 3.0) == WaitUntil(1.0 + W, "the window is used up")


@pytest.mark.parametrize("limit", [None, 9])
def test_jobs_that_nobody_asks_for_take_no_slots_of_those_who_do(machine: Machine, limit: int | None) -> None:
    """Nobody would see their ends; the server says when they take the slots."""
    asking, other = machine.run(limit=9, slots=1), machine.run(limit=limit)
    for number in range(3):
        ticket = start(other, 40.0, SUBMIT)
        if number:
            other.ended(ticket, 40.0, ANSWERED)
            other.job_opened(ticket, f"j{number}", 40.0)
    start(asking, 60.0, SUBMIT)


# --- the wall clock ---

HOUR_S, YEAR_S = 3_600.0, 31_536_000.0
SETTINGS_OF_THE_CLOCK = [-YEAR_S, -HOUR_S, -1.0, 0.0, 1.0, HOUR_S, YEAR_S]
LOCKED_UNTIL = 1.0 + W * 1.03


def resume(machine: Machine, now: float, set_by: float, run_session: int = 2) -> SharedThrottle:
    """Goes on with a run that was locked out at 1.0, by a wall clock that was set since: its ledger has wall times."""
    again = machine.run(now, run_id="the run", run_session=run_session, restore=False)
    again.restore(now, history=[(1.0 - set_by, 1.0 - set_by)], locked_until=LOCKED_UNTIL - set_by)
    return again


@pytest.fixture
def locked_out(machine: Machine) -> Machine:
    """Its account was locked out at 1.0, when the only run met it; that run is no more."""
    first = machine.run(run_id="the run")
    first.ended(start(first, 1.0), 1.0, THROTTLED)
    machine.kill(first)
    return machine


@pytest.mark.parametrize("set_by", SETTINGS_OF_THE_CLOCK)
def test_a_wall_clock_that_is_set_between_two_sessions_moves_no_lock_out_that_stands_in_the_store(
    locked_out: Machine, set_by: float
) -> None:
    assert resume(locked_out, 2.0, set_by).locked_until == LOCKED_UNTIL


@pytest.mark.parametrize("set_by", SETTINGS_OF_THE_CLOCK)
def test_a_lock_out_that_is_over_by_the_clock_of_the_machine_is_over_however_the_wall_clock_was_set(
    locked_out: Machine, set_by: float
) -> None:
    again = resume(locked_out, LOCKED_UNTIL, set_by)
    use(again, LOCKED_UNTIL, 1)
    assert not again.locked_out


@pytest.mark.parametrize("set_by", SETTINGS_OF_THE_CLOCK)
def test_a_wall_clock_that_is_set_between_two_sessions_has_no_request_count_longer_or_twice(
    machine: Machine, set_by: float
) -> None:
    first = machine.run(run_id="the run")
    use(first, 1.0, 2)
    machine.kill(first)
    again = machine.run(2.0, run_id="the run", run_session=2, restore=False)
    again.restore(2.0, history=[(1.0 - set_by, 1.0 - set_by)] * 2)
    use(again, 2.0, 2)
    assert again.admit(STATUS, 2.0) == WaitUntil(1.0 + W, "the window is used up")


@pytest.mark.parametrize("lost", ["a session that did not share", "the store"])
def test_what_only_the_ledger_knows_of_a_lock_out_is_believed(locked_out: Machine, lost: str) -> None:
    if lost == "the store":
        shutil.rmtree(locked_out.folder)
    again = resume(locked_out, 5.0, set_by=-HOUR_S, run_session=3)
    assert again.locked_until == LOCKED_UNTIL + HOUR_S, "the ledger bounds it, when it is read"


def test_a_session_that_died_before_it_entered_what_its_ledger_knew_stands_for_none(machine: Machine) -> None:
    machine.kill(machine.run(run_id="the run", run_session=7, restore=False))
    again = machine.run(5.0, run_id="the run", run_session=8, restore=False)
    again.restore(5.0, locked_until=LOCKED_UNTIL)
    assert again.locked_until == LOCKED_UNTIL


def test_a_session_that_counts_nothing_stands_for_none(machine: Machine) -> None:
    machine.run(run_id="the run").leave(0.0)
    unlimited = machine.run(run_id="the run", run_session=2, limit=None)
    use(unlimited, 3.0, 3)
    unlimited.leave(3.0)
    again = machine.run(5.0, run_id="the run", run_session=3, restore=False)
    again.restore(5.0, history=[(3.0, 3.0)] * 3)
    use(again, 5.0)
    assert isinstance(again.admit(STATUS, 5.0), WaitUntil)


def test_a_store_of_the_version_before_is_brought_up_to_date(machine: Machine) -> None:
    use(machine.run(run_id="the run"), 1.0, 4)
    with sqlite3.connect(machine.folder / "account.db") as database:
        database.execute("ALTER TABLE run DROP COLUMN session")
        database.execute("ALTER TABLE session DROP COLUMN counting")
        database.execute("PRAGMA user_version = 2")
    database.close()
    again = resume(machine, 2.0, set_by=0.0)
    assert (again.used(2.0), again.locked_until) == (4, LOCKED_UNTIL)


# --- the machine ---


def test_after_a_restart_of_the_machine_times_are_moved_by_the_wall_clock(machine: Machine) -> None:
    first = machine.run(1_000.0, limit=3)
    use(first, 1_000.0, 2)
    first.ended(start(first, 1_000.0), 1_000.0, THROTTLED)
    first.leave(1_000.0)
    machine.boot, machine.clock.at = "second", UTC + 10.0
    again = machine.run(5.0, limit=3)
    assert again.locked_until == pytest.approx(5.0 - 10.0 + W * 1.03)
    assert again.limit == 1


def test_a_wall_clock_that_is_set_back_while_the_machine_is_down_makes_no_lock_out_longer(
    machine: Machine,
) -> None:
    first = machine.run(1_000.0)
    first.ended(start(first, 1_000.0), 1_000.0, THROTTLED)
    first.leave(1_000.0)
    machine.boot, machine.clock.at = "second", 10.0
    assert machine.run(5.0).locked_until == pytest.approx(5.0 + W * 1.03)


def test_after_a_power_failure_the_last_window_counts_as_full(machine: Machine) -> None:
    machine.kill(machine.run(1_000.0))
    machine.boot, machine.clock.at = "second", UTC + 2.0
    for again in (machine.run(5.0), machine.run(6.0)):
        assert again.admit(STATUS, 6.0) == WaitUntil(5.0 + W, "the window is used up")


def test_that_a_session_began_survives_a_power_failure(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.run().leave(0.0)
    said: list[str] = []
    store = AccountStore(machine.folder)
    store._database.set_trace_callback(said.append)
    monkeypatch.setitem(globals(), "AccountStore", lambda _folder: store)
    use(machine.run(), 0.0)
    entered = next(number for number, sql in enumerate(said) if sql.startswith("INSERT INTO session"))
    settings_of_it = [sql for sql in said[:entered] if "synchronous" in sql]
    assert settings_of_it == ["PRAGMA synchronous = FULL"]
    assert said.index("PRAGMA synchronous = NORMAL") < said.index("COMMIT", said.index("COMMIT") + 1)


def test_a_damaged_store_is_put_aside_and_the_last_window_counts_as_full(machine: Machine) -> None:
    machine.run().leave(0.0)
    (machine.folder / "account.db").write_bytes(b"this is no database" * 100)
    again = machine.run(5.0)
    assert again.admit(STATUS, 5.0) == WaitUntil(5.0 + W, "the window is used up")
    assert (machine.folder / "account.db.damaged").exists()


def test_nobody_else_can_read_it(machine: Machine) -> None:
    os.umask(0o000)
    try:
        machine.run()
    finally:
        os.umask(0o022)
    assert machine.folder.stat().st_mode & 0o777 == 0o700
    for path in machine.folder.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_store_of_another_format_is_refused(machine: Machine) -> None:
    machine.run().leave(0.0)
    with sqlite3.connect(machine.folder / "account.db") as database:
        database.execute("PRAGMA user_version = 9")
    with pytest.raises(ConfigError, match="has format 9"):
        machine.run()


def test_a_folder_that_cannot_be_made_is_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("")
    with pytest.raises(ConfigError, match="--state-dir"):
        AccountStore(tmp_path / "a file" / "state")


def test_the_folder_of_an_account_does_not_tell_its_token(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "https://host/api", "a-secret-token")
    assert "secret" not in str(folder)
    assert folder != folder_of(tmp_path, "https://other/api", "a-secret-token")
    assert folder != folder_of(tmp_path, "https://host/api", "another-token")


@pytest.fixture
def stopped_in_its_turn(machine: Machine) -> Iterator[sqlite3.Connection]:
    """Another process that does not go on in the middle of its turn."""
    machine.run().leave(0.0)
    database = sqlite3.connect(machine.folder / "account.db", isolation_level=None)
    yield database
    database.close()


def test_while_another_process_does_not_go_on_nothing_is_admitted_and_nothing_is_forgotten(
    machine: Machine, stopped_in_its_turn: sqlite3.Connection
) -> None:
    first, second = machine.run(limit=1), machine.run(limit=1)
    ticket = start(first, 0.0)
    stopped_in_its_turn.execute("BEGIN IMMEDIATE")
    first.ended(ticket, 1.0, ANSWERED)
    assert first.admit(STATUS, 1.0) == WaitUntil(1.25, "another process is busy with the account")
    with pytest.raises(Busy):
        machine.run()
    stopped_in_its_turn.execute("ROLLBACK")
    assert second.admit(STATUS, 2.0) == WaitUntil(float("inf"), "the window is used up")
    assert first.admit(STATUS, 2.0) == WaitUntil(1.0 + W, "the window is used up")
    assert second.admit(STATUS, 2.0) == WaitUntil(1.0 + W, "the window is used up")


def test_while_what_others_met_cannot_be_known_no_request_begins(
    machine: Machine, stopped_in_its_turn: sqlite3.Connection
) -> None:
    first, second = machine.run(), machine.run()
    admitted = [start(second, 0.0), start(second, 0.0)]
    first.ended(start(first, 0.0), 1.0, ANSWERED)
    stopped_in_its_turn.execute("BEGIN IMMEDIATE")
    assert not second.may_send, "the other's answer may have been a throttle"
    second.ended(admitted[0], 1.0, THROTTLED)
    assert not second.may_send, "the throttle answer is not entered yet"
    stopped_in_its_turn.execute("ROLLBACK")
    assert not second.may_send
    assert second.locked_out
    first.admit(STATUS, 2.0)
    assert first.locked_until == 1.0 + W * 1.03


def test_a_limit_that_is_set_holds_at_once_whatever_the_others_do(
    machine: Machine, stopped_in_its_turn: sqlite3.Connection
) -> None:
    throttle = machine.run()
    stopped_in_its_turn.execute("BEGIN IMMEDIATE")
    throttle.set_rate(Rate(count=2, period_s=W), 0.0)
    assert throttle.limit == 2
    throttle.set_rate(None, 0.0)
    assert throttle.limit is None
    stopped_in_its_turn.execute("ROLLBACK")
    start(throttle, 1.0)
    assert throttle.rate is None


def test_a_store_that_breaks_stops_sending_and_says_what_to_do(
    machine: Machine, stopped_in_its_turn: sqlite3.Connection
) -> None:
    throttle = machine.run()
    ticket = start(throttle, 0.0)
    stopped_in_its_turn.execute("DROP TABLE request")
    throttle.ended(ticket, 1.0, ANSWERED)
    assert not throttle.may_send
    with pytest.raises(LedgerError, match="--state-dir"):
        throttle.admit(STATUS, 2.0)


def test_a_store_that_is_overwritten_under_a_run_stops_sending_and_says_what_to_do(machine: Machine) -> None:
    throttle = machine.run()
    use(throttle, 0.0)
    for path in machine.folder.glob("account.db*"):
        with path.open("r+b") as file:
            file.write(b"x" * path.stat().st_size)
    with pytest.raises(LedgerError, match="--state-dir"):
        throttle.admit(STATUS, 1.0)


@pytest.mark.parametrize("removed", ["account.db", "account.changes", "sessions/1"])
def test_a_store_that_is_removed_under_a_run_stops_it_because_others_would_begin_another(
    machine: Machine, removed: str
) -> None:
    throttle = machine.run()
    use(throttle, 0.0)
    (machine.folder / removed).unlink()
    with pytest.raises(LedgerError, match="was removed or replaced"):
        throttle.admit(STATUS, 1.0)
    assert not throttle.may_send
    throttle.leave(1.0)
    use(machine.run(), 1.0)


def test_a_second_run_of_the_same_process_does_not_drop_the_locks_of_the_first(machine: Machine) -> None:
    first = machine.run(limit=2)
    machine.run(limit=2)
    code = (
        "import sqlite3, sys\n"
        "database = sqlite3.connect(sys.argv[1], timeout=0)\n"
        "database.execute('PRAGMA locking_mode = EXCLUSIVE')\n"
        "database.execute('PRAGMA journal_mode = DELETE')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(machine.folder / "account.db")], capture_output=True, check=False
    )
    assert b"locked" in done.stderr
    use(first, 1.0)


def test_a_store_that_another_process_is_opening_is_waited_for(machine: Machine) -> None:
    machine.run().leave(0.0)
    opening = os.open(machine.folder / "sessions", os.O_RDONLY)
    fcntl.flock(opening, fcntl.LOCK_EX)
    with pytest.raises(Busy):
        machine.run()
    os.close(opening)
    use(machine.run(), 0.0)


def test_what_ends_after_the_session_has_left_disturbs_nobody(machine: Machine) -> None:
    throttle = machine.run()
    ticket = start(throttle, 0.0)
    throttle.leave(1.0)
    throttle.ended(ticket, 2.0, ANSWERED)
    assert not throttle.may_send
    with pytest.raises(LedgerError, match="has left"):
        throttle.admit(STATUS, 3.0)


def test_loops_on_the_clock_of_the_machine_share_an_axis_and_others_have_one_of_their_own() -> None:
    async def axes() -> tuple[str, str]:
        import asyncio

        loop = asyncio.get_running_loop()
        return axis_of(loop), axis_of(loop)

    import asyncio

    first, second = asyncio.run(axes()), asyncio.run(axes())
    assert first == second
    virtual, other = run_virtual(axes()), run_virtual(axes())
    assert virtual[0] == virtual[1]
    assert len({first[0], virtual[0], other[0]}) == 3


# --- as a property ---


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), limit=st.integers(1, 5), processes=st.integers(2, 3))
def test_whatever_processes_do_and_die_of_no_window_of_the_server_holds_more_than_the_limit(
    tmp_path_factory: pytest.TempPathFactory, seed: int, limit: int, processes: int
) -> None:
    """Requests take effect at the worst moment between start and end; those of a killed process within the grace."""
    draw = random.Random(seed)
    machine = Machine(tmp_path_factory.mktemp("machine"))
    live = [machine.run(limit=limit) for _ in range(processes)]
    flying: list[tuple[SharedThrottle, Ticket, float]] = []
    counted: list[float] = []
    now = 0.0
    with ExitStack() as stack:
        for _ in range(120):
            now += draw.choice([0.0, 0.0, 0.25, 1.0, W / limit])
            actor = draw.choice(live)
            action = draw.random()
            if action < 0.6:
                ticket = actor.admit(STATUS, now)
                if isinstance(ticket, Ticket):
                    flying.append((actor, ticket, now))
            elif action < 0.9 and flying:
                owner, ticket, begun = flying.pop(draw.randrange(len(flying)))
                counted.append(draw.choice([begun, now]))
                owner.ended(ticket, now, ANSWERED)
            elif action > 0.97:
                machine.kill(actor)
                live[live.index(actor)] = machine.run(now, limit=limit)
                counted += [draw.choice([begun, now]) for owner, _, begun in flying if owner is actor]
                flying = [each for each in flying if each[0] is not actor]
        for throttle in live:
            stack.callback(throttle.leave, now)
    counted.sort()
    fullest = max((sum(first <= each < first + W for each in counted) for first in counted), default=0)
    assert fullest <= limit
