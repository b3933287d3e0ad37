"""What lock-outs teach about the account's limit, and how it rises again: against servers that count either way."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulkjobs.model import RequestKind
from bulkjobs.settings import Rate
from bulkjobs.throttle import Outcome, Throttle, Ticket

W = 300.0
DAY_S = 86_400.0


class Server:
    """Refuses what exceeds a limit, by a sliding window or by windows that begin at a phase, and locks out for one."""

    def __init__(self, limit: int, phase_s: float | None = None) -> None:
        self.limit = limit
        self.phase_s = phase_s
        self.locked_until = 0.0
        self.times: deque[float] = deque()
        self.lockouts = 0

    def takes(self, now: float) -> bool:
        assert now >= self.locked_until, "a request was sent into a lock-out"
        begins = now - W if self.phase_s is None else now - (now - self.phase_s) % W
        while self.times and (self.times[0] < begins or (self.phase_s is None and self.times[0] <= begins)):
            self.times.popleft()
        self.times.append(now)
        if len(self.times) <= self.limit:
            return True
        self.times.clear()
        self.lockouts += 1
        self.locked_until = now + W
        return False


class Client:
    """Sends as fast as the throttle lets it, one request at a time, answered at once."""

    def __init__(self, server: Server, rate: Rate) -> None:
        self.server = server
        self.throttle = Throttle(rate=rate, lockout_s=W, max_active_jobs=None)
        self.now = 0.0
        self.taken = 0

    def work(self, until: float, pace_s: float) -> None:
        while self.now < until:
            ticket = self.throttle.admit(RequestKind.SUBMIT, self.now)
            if not isinstance(ticket, Ticket):
                self.now = max(self.now + pace_s, min(ticket.at, until))
                continue
            took = self.server.takes(self.now)
            self.taken += took
            self.throttle.ended(ticket, self.now, Outcome.ANSWERED if took else Outcome.THROTTLED)
            self.now += pace_s


def test_after_one_lock_out_the_limit_rises_to_nine_tenths_of_what_went_through_and_no_further() -> None:
    client = Client(Server(limit=50), Rate(count=90, period_s=W))
    client.work(DAY_S, pace_s=1.0)
    assert client.server.lockouts == 1
    assert client.throttle.limit == 45


def test_the_limit_stays_when_the_work_never_uses_it_up() -> None:
    client = Client(Server(limit=50), Rate(count=90, period_s=W))
    client.work(W, pace_s=1.0)
    assert client.throttle.limit == 25
    client.work(DAY_S, pace_s=2 * W / 25)
    assert client.throttle.limit == 25


@settings(max_examples=25, deadline=None)
@given(phase_s=st.floats(0.0, W), limit=st.integers(10, 80), pace_s=st.sampled_from([0.1, 1.0, 2.0]))
def test_wherever_the_windows_of_the_server_begin_two_lock_outs_teach_enough(phase_s, limit, pace_s) -> None:
    client = Client(Server(limit=limit, phase_s=phase_s), Rate(count=90, period_s=W))
    client.work(DAY_S / 4, pace_s)
    assert client.server.lockouts <= 2
    assert client.throttle.limit <= limit or client.server.lockouts == 0
    settled = client.server.lockouts
    client.work(DAY_S / 2, pace_s)
    assert client.server.lockouts == settled


def test_the_limit_that_was_found_is_used_from_then_on() -> None:
    client = Client(Server(limit=50), Rate(count=90, period_s=W))
    client.work(DAY_S, pace_s=1.0)
    later = Client(Server(limit=50), Rate(count=90, period_s=W))
    later.throttle.restore(0.0, learned_limit=client.throttle.learned)
    later.work(DAY_S, pace_s=1.0)
    assert later.server.lockouts == 0
    assert later.throttle.limit == 45


def test_a_limit_that_has_held_for_long_comes_back_after_a_refusal_that_nobody_explains() -> None:
    client = Client(Server(limit=50), Rate(count=50, period_s=W))
    client.work(DAY_S / 4, pace_s=1.0)
    ticket = client.throttle.admit(RequestKind.SUBMIT, client.now + W)
    assert isinstance(ticket, Ticket)
    client.throttle.ended(ticket, client.now + W, Outcome.THROTTLED)
    client.work(DAY_S / 2, pace_s=1.0)
    assert client.throttle.limit == 50
    assert client.server.lockouts == 0


# --- auto ---

AUTO = Rate(count=90, period_s=W, auto=True)


def test_auto_finds_a_limit_below_its_first_guess_by_one_lock_out() -> None:
    client = Client(Server(limit=50), AUTO)
    client.work(DAY_S, pace_s=1.0)
    assert client.server.lockouts == 1
    assert client.throttle.limit == 50


def test_auto_finds_a_limit_far_below_its_first_guess_by_one_lock_out_and_asks_again_after_an_hour() -> None:
    client = Client(Server(limit=8), AUTO)
    client.work(3_000.0, pace_s=1.0)
    assert client.server.lockouts == 1
    assert client.throttle.limit <= 8
    client.work(DAY_S, pace_s=1.0)
    assert client.server.lockouts == 2
    assert client.throttle.limit == 8


def test_auto_gets_over_a_refusal_that_comes_before_it_has_sent_much() -> None:
    client = Client(Server(limit=90), AUTO)
    for outcome in (Outcome.ANSWERED, Outcome.ANSWERED, Outcome.THROTTLED):
        ticket = client.throttle.admit(RequestKind.SUBMIT, 0.0)
        assert isinstance(ticket, Ticket)
        client.throttle.ended(ticket, 0.0, outcome)
    client.work(DAY_S, pace_s=1.0)
    assert client.server.lockouts <= 1
    assert client.throttle.limit > 80


def test_auto_finds_a_limit_above_its_first_guess_within_a_twentieth() -> None:
    client = Client(Server(limit=130), AUTO)
    client.work(DAY_S, pace_s=0.5)
    assert client.server.lockouts == 1
    assert 130 / 1.05 - 1 <= client.throttle.limit <= 130


def test_thirty_days_of_auto_meet_few_walls() -> None:
    client = Client(Server(limit=50, phase_s=17.0), AUTO)
    client.work(30 * DAY_S, pace_s=5.0)
    assert client.server.lockouts <= 6
    assert client.taken >= 0.93 * 50 * 30 * DAY_S / W


def test_a_limit_that_was_raised_is_noticed_when_the_wall_has_stood_for_its_time() -> None:
    client = Client(Server(limit=50), AUTO)
    client.work(DAY_S / 2, pace_s=1.0)
    client.server.limit = 80
    client.work(3 * DAY_S, pace_s=1.0)
    assert client.throttle.limit > 75
    assert client.server.lockouts <= 3


def test_a_limit_that_was_lowered_is_learned_again() -> None:
    client = Client(Server(limit=80), AUTO)
    client.work(DAY_S / 2, pace_s=1.0)
    client.server.limit = 40
    client.work(DAY_S, pace_s=1.0)
    assert client.throttle.limit <= 40
    before = client.server.lockouts
    client.work(1.4 * DAY_S, pace_s=1.0)
    assert client.server.lockouts == before


def test_a_limit_that_a_person_sets_replaces_what_was_learned() -> None:
    client = Client(Server(limit=50), Rate(count=90, period_s=W))
    client.work(DAY_S, pace_s=1.0)
    client.throttle.set_rate(Rate(count=48, period_s=W), client.now)
    assert client.throttle.limit == 48
    client.work(2 * DAY_S, pace_s=1.0)
    assert (client.throttle.limit, client.server.lockouts) == (48, 1)


@pytest.mark.parametrize("before", [None, Rate(count=10, period_s=W / 2)])
def test_a_window_of_which_little_is_known_counts_as_used_up(before: Rate | None) -> None:
    throttle = Throttle(rate=before, lockout_s=W, max_active_jobs=None)
    throttle.set_rate(Rate(count=5, period_s=W), 100.0)
    wait = throttle.admit(RequestKind.SUBMIT, 100.0)
    assert not isinstance(wait, Ticket)
    assert wait.at == 100.0 + W


def test_what_one_process_knows_of_the_limit_another_can_take_up() -> None:
    client = Client(Server(limit=50), AUTO)
    client.work(DAY_S / 3, pace_s=1.0)
    other = Throttle(rate=AUTO, lockout_s=W, max_active_jobs=None)
    other.load(client.throttle.state(), shift_s=1_000.0)
    assert other.limit == client.throttle.limit
    assert other.state()["limit"]["wall_until"] == client.throttle.state()["limit"]["wall_until"] + 1_000.0
