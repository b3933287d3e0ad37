"""The account's controller: strict windows, lock-outs nobody runs into, slots, lessons.

Times in the properties are multiples of 1/64 s, on which floats are exact: the brute-force check of the
windows needs no tolerance.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from dataclasses import dataclass, field
from itertools import count, pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bulkjobs.errors import InternalError
from bulkjobs.model import RequestKind
from bulkjobs.settings import Rate
from bulkjobs.throttle import (
    MAX_RETRY_AFTER_S,
    MAX_SLOT_RETRY_S,
    Admit,
    Outcome,
    Throttle,
    Ticket,
    WaitForSlot,
    WaitUntil,
)

SUBMIT, STATUS = RequestKind.SUBMIT, RequestKind.STATUS
ANSWERED, NOT_SENT, UNKNOWN_END, THROTTLED = (
    Outcome.ANSWERED,
    Outcome.NOT_SENT,
    Outcome.UNKNOWN_END,
    Outcome.THROTTLED,
)
W = 16.0
GRACE_S = 4.0
HOLD_S = W * 1.03


def throttle_of(count: int | None, *, max_active_jobs: int | None = None) -> Throttle:
    rate = None if count is None else Rate(count=count, period_s=W)
    return Throttle(rate=rate, lockout_s=W, max_active_jobs=max_active_jobs, grace_s=GRACE_S)


def start(throttle: Throttle, now: float, kind: RequestKind = STATUS) -> Ticket:
    assert throttle.decide(kind, now) == Admit()
    return throttle.started(kind)


def use(throttle: Throttle, times: int, now: float = 0.0) -> None:
    for _ in range(times):
        throttle.ended(start(throttle, now), now, ANSWERED)


def lock_out(throttle: Throttle, now: float = 0.0) -> None:
    throttle.ended(start(throttle, now), now, THROTTLED)


def open_again(throttle: Throttle, now: float) -> None:
    while throttle.locked_out or throttle.decide(STATUS, now) != Admit():
        throttle.ended(start(throttle, now), now, ANSWERED)


# --- the window ---


@pytest.mark.parametrize(
    ("outcome", "free_at"),
    [(NOT_SENT, 3.0), (ANSWERED, 3.0 + W), (UNKNOWN_END, 3.0 + W + GRACE_S)],
)
def test_a_token_comes_back_a_window_after_the_end_of_its_request(outcome: Outcome, free_at: float) -> None:
    throttle = throttle_of(1)
    ticket = start(throttle, 0.0)
    assert throttle.decide(STATUS, 2.0) == WaitUntil(math.inf, "the window is used up")
    throttle.ended(ticket, 3.0, outcome)
    if free_at > 3.0:
        assert throttle.decide(STATUS, 3.0) == WaitUntil(free_at, "the window is used up")
        assert throttle.decide(STATUS, math.nextafter(free_at, 0.0)) != Admit()
    assert throttle.decide(STATUS, free_at) == Admit()


def test_every_kind_of_request_draws_on_the_same_window() -> None:
    throttle = throttle_of(len(RequestKind))
    for kind in RequestKind:
        start(throttle, 0.0, kind)
    for kind in RequestKind:
        assert isinstance(throttle.decide(kind, 1.0), WaitUntil)


def test_without_a_rate_there_is_no_window() -> None:
    throttle = throttle_of(None)
    for _ in range(1_000):
        start(throttle, 0.0)
    assert (throttle.limit, throttle.rate) == (None, None)


def test_an_end_is_reported_once() -> None:
    throttle = throttle_of(1)
    ticket = start(throttle, 0.0)
    throttle.ended(ticket, 0.0, ANSWERED)
    with pytest.raises(InternalError, match="twice"):
        throttle.ended(ticket, 0.0, ANSWERED)


# --- the window, as a property over whole runs ---


@dataclass
class Sent:
    begun: float
    ends: float
    counted: float
    outcome: Outcome
    ended: float | None = None


@dataclass
class World:
    """Runs a throttle against scripted requests: plain event simulation, first come first served."""

    throttle: Throttle
    now: float = 0.0
    waiting: deque[tuple[float, float, Outcome]] = field(default_factory=deque)
    sent: list[Sent] = field(default_factory=list)
    flying: dict[int, tuple[Ticket, Sent]] = field(default_factory=dict)
    events: list[tuple[float, int, str, object]] = field(default_factory=list)
    number: count[int] = field(default_factory=count)

    def at(self, when: float, what: str, value: object = None) -> None:
        heapq.heappush(self.events, (when, next(self.number), what, value))

    def run(self) -> None:
        while self.events:
            self.now, _, what, value = heapq.heappop(self.events)
            if what == "arrival":
                self.waiting.append(value)
            elif what == "end" and value in self.flying:
                ticket, sent = self.flying.pop(value)
                sent.ended = self.now
                self.throttle.ended(ticket, self.now, sent.outcome)
            elif what == "restart":
                self.restart()
            self.pump()

    def pump(self) -> None:
        while self.waiting:
            decision = self.throttle.decide(STATUS, self.now)
            if not isinstance(decision, Admit):
                if decision.at < math.inf:
                    assert decision.at > self.now
                    self.at(decision.at, "wake")
                return
            latency, position, outcome = self.waiting.popleft()
            ends = self.now + latency
            last = ends + (GRACE_S if outcome is UNKNOWN_END else 0.0)
            sent = Sent(self.now, ends, self.now + position * (last - self.now), outcome)
            self.sent.append(sent)
            key = len(self.sent)
            self.flying[key] = (self.throttle.started(STATUS), sent)
            self.at(ends, "end", key)

    def restart(self) -> None:
        """Kills the process: what is in flight ends unknown, and is counted within the grace or never."""
        for _, sent in self.flying.values():
            sent.counted = min(sent.counted, self.now + GRACE_S)
        self.flying.clear()
        limit = self.throttle.limit
        assert limit is not None
        self.throttle = throttle_of(limit)
        recent = [sent for sent in self.sent if sent.ended is None or sent.ended > self.now - W - GRACE_S]
        self.throttle.restore(self.now, history=[(sent.begun, sent.ended) for sent in recent])

    def most_in_a_window(self) -> int:
        moments = sorted(sent.counted for sent in self.sent)
        return max((sum(m <= other < m + W for other in moments) for m in moments), default=0)


sixty_fourths = st.integers(min_value=0, max_value=int(2 * W * 64)).map(lambda n: n / 64)
scripts = st.lists(
    st.tuples(
        sixty_fourths.map(lambda gap: gap / 16),
        sixty_fourths,
        st.sampled_from([0.0, 0.25, 0.5, 1.0]),
        st.sampled_from([ANSWERED, ANSWERED, ANSWERED, UNKNOWN_END]),
    ),
    min_size=1,
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@example(
    limit=1, script=[(0.0, 0.0, 0.25, UNKNOWN_END), (0.0, 0.0, 0.0, ANSWERED)], restarts=[1 / 16]
)  # counted after we gave up on it and after the restart
@given(
    limit=st.integers(1, 8), script=scripts, restarts=st.lists(sixty_fourths.map(lambda s: 4 * s), max_size=3)
)
def test_no_window_holds_more_than_the_limit_and_all_work_gets_done(limit, script, restarts) -> None:
    world = World(throttle_of(limit))
    arrival = 0.0
    for gap, latency, position, outcome in script:
        arrival += gap
        world.at(arrival, "arrival", (latency, position, outcome))
    for restart in restarts:
        world.at(restart, "restart")
    world.run()
    assert world.most_in_a_window() <= limit
    assert len(world.sent) == len(script)


def test_the_check_of_the_windows_would_notice_one_request_too_many() -> None:
    world = World(throttle_of(3))
    for _ in range(4):
        world.at(0.0, "arrival", (0.0, 0.0, ANSWERED))
    world.run()
    assert world.most_in_a_window() == 3
    world.sent[-1].counted -= 1 / 64
    assert world.most_in_a_window() == 4


def test_with_instant_answers_the_whole_rate_is_used() -> None:
    limit, windows = 50, 40
    world = World(throttle_of(limit))
    for _ in range(limit * windows):
        world.at(0.0, "arrival", (0.0, 0.5, ANSWERED))
    world.run()
    assert world.most_in_a_window() == limit
    assert world.now <= windows * W * 1.01


@pytest.mark.parametrize("limit", [64, 65_536])
def test_a_window_in_full_use_keeps_one_number_for_each_of_its_tokens(limit: int) -> None:
    throttle = throttle_of(limit)
    for number in range(2 * limit):
        now = number * W / limit
        throttle.ended(start(throttle, now), now, ANSWERED)
        assert len(throttle._window._counted) <= limit


# --- restoring ---


@pytest.mark.parametrize(
    ("begun", "ended", "free_at"),
    [
        (990.0, 991.0, 991.0 + W + GRACE_S),
        (900.0, 901.0, None),
        (900.0, None, 1_000.0 + W + GRACE_S),
        (999.0, None, 1_000.0 + W + GRACE_S),
        (5_000.0, 5_001.0, 1_000.0 + W + GRACE_S),
        (5_000.0, None, 1_000.0 + W + GRACE_S),
        (995.0, 990.0, 995.0 + W + GRACE_S),
    ],
    ids=[
        "recent",
        "old",
        "old-unknown",
        "unknown",
        "in-the-future",
        "unknown-in-the-future",
        "ends-before-start",
    ],
)
def test_history_holds_its_tokens_within_a_window_of_now(begun, ended, free_at) -> None:
    throttle = throttle_of(1)
    throttle.restore(1_000.0, history=[(begun, ended)])
    expected = Admit() if free_at is None else WaitUntil(free_at, "the window is used up")
    assert throttle.decide(STATUS, 1_000.0) == expected


def test_a_restored_lock_out_goes_on_and_is_probed() -> None:
    throttle = throttle_of(9)
    throttle.restore(1_000.0, locked_until=1_010.0)
    assert throttle.decide(STATUS, 1_000.0) == WaitUntil(
        1_010.0, "the account is locked out, or has just been"
    )
    start(throttle, 1_010.0)
    assert throttle.decide(STATUS, 1_010.0) != Admit()


def test_a_lock_out_that_ended_while_nobody_was_there_is_probed_too() -> None:
    throttle = throttle_of(9)
    throttle.restore(1_000.0, locked_until=999.0)
    start(throttle, 1_000.0)
    assert throttle.decide(STATUS, 1_000.0) != Admit()


def test_a_lock_out_of_long_ago_is_forgotten() -> None:
    throttle = throttle_of(9)
    throttle.restore(1_000.0, locked_until=1_000.0 - HOLD_S)
    start(throttle, 1_000.0)
    start(throttle, 1_000.0)


@pytest.mark.parametrize("nonsense", [1e18, math.inf])
def test_a_lock_out_in_the_far_future_is_bounded(nonsense: float) -> None:
    throttle = throttle_of(9)
    throttle.restore(1_000.0, locked_until=nonsense)
    assert throttle.locked_until == 1_000.0 + MAX_RETRY_AFTER_S


@pytest.mark.parametrize(("learned", "limit"), [(5, 5), (50, 9), (0, 1), (None, 9)])
def test_a_learned_limit_is_kept_but_never_raises_the_configured_one(learned, limit) -> None:
    throttle = throttle_of(9)
    throttle.restore(0.0, learned_limit=learned)
    assert throttle.limit == limit
    assert throttle.rate == Rate(count=limit, period_s=W)


def test_restored_jobs_hold_their_slots() -> None:
    throttle = throttle_of(9, max_active_jobs=2)
    throttle.restore(0.0, open_jobs=["a", "b"])
    assert isinstance(throttle.decide(SUBMIT, 0.0), WaitForSlot)
    throttle.job_closed("a")
    assert throttle.decide(SUBMIT, 0.0) == Admit()


# --- the lock-out ---


@pytest.mark.parametrize("kind", list(RequestKind))
def test_a_throttle_closes_the_account_for_every_kind_until_the_margin_has_passed(kind: RequestKind) -> None:
    throttle = throttle_of(9)
    lock_out(throttle, 5.0)
    assert throttle.locked_out
    assert isinstance(throttle.decide(kind, math.nextafter(5.0 + HOLD_S, 0.0)), WaitUntil)
    assert throttle.decide(kind, 5.0 + HOLD_S) == Admit()


@pytest.mark.parametrize("late", [ANSWERED, UNKNOWN_END, THROTTLED])
def test_requests_still_in_flight_push_the_lock_out_to_a_period_after_their_end(late: Outcome) -> None:
    throttle = throttle_of(9)
    slow = start(throttle, 0.0)
    lock_out(throttle, 1.0)
    assert throttle.decide(STATUS, 100.0).at == math.inf
    throttle.ended(slow, 100.0, late)
    assert throttle.decide(STATUS, 100.0).at == 100.0 + HOLD_S


def test_a_request_that_was_never_sent_does_not_push_the_lock_out() -> None:
    throttle = throttle_of(9)
    slow = start(throttle, 0.0)
    lock_out(throttle, 1.0)
    throttle.ended(slow, 10.0, NOT_SENT)
    assert throttle.decide(STATUS, 10.0).at == 1.0 + HOLD_S


def test_a_request_admitted_before_the_lock_out_may_not_begin_in_it_but_the_probe_may() -> None:
    throttle = throttle_of(9)
    admitted = start(throttle, 0.0)
    assert throttle.may_send
    lock_out(throttle, 1.0)
    assert not throttle.may_send
    throttle.ended(admitted, 1.0, NOT_SENT)
    start(throttle, 1.0 + HOLD_S)
    assert throttle.may_send


@pytest.mark.parametrize(
    ("asked_s", "kept_s"),
    [
        (None, HOLD_S),
        (3.0, HOLD_S),
        (-5.0, HOLD_S),
        (math.nan, HOLD_S),
        (600.0, 600.0),
        (1e300, MAX_RETRY_AFTER_S),
        (math.inf, MAX_RETRY_AFTER_S),
    ],
)
def test_a_longer_wait_that_the_server_asks_for_is_obeyed_within_bounds(asked_s, kept_s) -> None:
    throttle = throttle_of(9)
    throttle.ended(start(throttle, 0.0), 0.0, THROTTLED, retry_after_s=asked_s)
    assert throttle.locked_until == kept_s


def test_after_the_lock_out_one_probe_goes_then_as_many_as_were_answered() -> None:
    throttle = throttle_of(32)
    lock_out(throttle)
    now, rounds = HOLD_S, []
    for _ in range(5):
        flying = []
        while throttle.decide(STATUS, now) == Admit():
            flying.append(throttle.started(STATUS))
        rounds.append(len(flying))
        now += 0.25
        for ticket in flying:
            throttle.ended(ticket, now, ANSWERED)
    assert rounds == [1, 1, 2, 4, 8]
    assert not throttle.locked_out


def test_the_ramp_ends_when_a_whole_limit_was_answered() -> None:
    throttle = throttle_of(4)
    lock_out(throttle)
    use(throttle, 4, HOLD_S)
    for _ in range(4):
        start(throttle, HOLD_S + W)


def test_a_throttled_probe_begins_the_lock_out_anew_and_teaches_nothing() -> None:
    throttle = throttle_of(9)
    lock_out(throttle)
    throttle.ended(start(throttle, HOLD_S), HOLD_S + 1.0, THROTTLED)
    assert throttle.locked_until == HOLD_S + 1.0 + HOLD_S
    assert throttle.limit == 9


def test_a_lost_probe_begins_the_lock_out_anew() -> None:
    throttle = throttle_of(9)
    lock_out(throttle)
    throttle.ended(start(throttle, HOLD_S), HOLD_S + 5.0, UNKNOWN_END)
    assert throttle.locked_out
    assert throttle.decide(STATUS, HOLD_S + 5.0).at == HOLD_S + 5.0 + HOLD_S


def test_a_probe_that_was_not_sent_makes_room_for_another() -> None:
    throttle = throttle_of(9)
    lock_out(throttle)
    throttle.ended(start(throttle, HOLD_S), HOLD_S + 1.0, NOT_SENT)
    start(throttle, HOLD_S + 1.0)
    assert throttle.decide(STATUS, HOLD_S + 1.0) != Admit()


@pytest.mark.parametrize("count", [None, 9])
def test_a_lock_out_needs_no_window(count: int | None) -> None:
    throttle = throttle_of(count)
    lock_out(throttle)
    assert isinstance(throttle.decide(STATUS, HOLD_S - 1.0), WaitUntil)
    open_again(throttle, HOLD_S)
    assert not throttle.locked_out


class LockingServer:
    """Counts requests in periods; beyond its limit it refuses all until a whole period without any passed."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.counts: list[float] = []
        self.closed_until = -math.inf
        self.refusals: list[float] = []

    def judge(self, now: float) -> Outcome:
        in_window = sum(moment > now - W for moment in self.counts)
        if now < self.closed_until or in_window >= self.limit:
            self.closed_until = now + W
            self.counts.clear()
            self.refusals.append(now)
            return THROTTLED
        self.counts.append(now)
        return ANSWERED


@dataclass
class Pool:
    """Runs workers that always want to send against a server that locks out, until so much work is done."""

    throttle: Throttle
    server: LockingServer
    workers: int
    latencies: list[float]
    starts: list[float] = field(default_factory=list)
    ends: list[tuple[float, Outcome]] = field(default_factory=list)
    events: list[tuple[float, int, str, Ticket | None]] = field(default_factory=list)

    def run(self, work: int) -> None:
        outcomes: dict[int, Outcome] = {}
        self.fill(0.0)
        for _ in range(200_000):
            now, key, what, ticket = heapq.heappop(self.events)
            if what == "counted":
                outcomes[key] = self.server.judge(now)
            elif what == "end" and ticket is not None:
                self.throttle.ended(ticket, now, outcomes[key])
                self.ends.append((now, outcomes[key]))
            if sum(outcome is ANSWERED for _, outcome in self.ends) >= work:
                return
            self.fill(now)
        raise AssertionError("it never ends")

    def fill(self, now: float) -> None:
        while self.throttle._in_flight < self.workers:
            decision = self.throttle.decide(STATUS, now)
            if not isinstance(decision, Admit):
                if decision.at < math.inf:
                    heapq.heappush(self.events, (decision.at, -1, "wake", None))
                return
            key, ticket = len(self.starts), self.throttle.started(STATUS)
            latency = self.latencies[key % len(self.latencies)]
            self.starts.append(now)
            heapq.heappush(self.events, (now + latency / 2, key, "counted", ticket))
            heapq.heappush(self.events, (now + latency, key, "end", ticket))


@settings(max_examples=100, deadline=None)
@given(
    configured=st.integers(1, 40),
    true_limit=st.integers(1, 40),
    workers=st.integers(1, 8),
    latencies=st.lists(st.integers(0, 128).map(lambda n: n / 64), min_size=1, max_size=20),
    work=st.integers(1, 150),
)
def test_nothing_starts_in_a_lock_out_and_all_work_gets_done(
    configured, true_limit, workers, latencies, work
) -> None:
    pool = Pool(throttle_of(configured), LockingServer(true_limit), workers, latencies)
    pool.run(work)
    for refused, outcome in pool.ends:
        if outcome is THROTTLED:
            assert not [begun for begun in pool.starts if refused < begun < refused + HOLD_S]
    # Requests that crossed in flight may be refused together; nothing else ever prolongs a lock-out.
    for first, second in pairwise(pool.server.refusals):
        assert second - first <= max(latencies) or second - first >= W
    if true_limit >= configured:
        assert not pool.server.refusals


# --- the learned limit ---


@pytest.mark.parametrize(
    ("configured", "let_through", "learned"),
    [
        (900, 500, 250),
        (900, 899, 450),
        (10, 5, 3),
        (10, 1, 1),
        (2, 1, 1),
        (900, 0, 900),
        (900, 3, 90),
        (1, 0, 1),
    ],
)
def test_a_lock_out_teaches_half_of_what_went_through_but_a_tenth_of_the_limit_at_least(
    configured, let_through, learned
) -> None:
    throttle = throttle_of(configured)
    use(throttle, let_through)
    lock_out(throttle, 1.0)
    assert throttle.limit == learned


def test_requests_in_flight_at_the_lock_out_count_if_they_were_let_through() -> None:
    throttle = throttle_of(80)
    flying = [start(throttle, 0.0) for _ in range(20)]
    throttle.ended(flying.pop(), 1.0, THROTTLED)
    assert throttle.limit == 80
    for outcome, times in ((ANSWERED, 12), (UNKNOWN_END, 3), (THROTTLED, 3), (NOT_SENT, 1)):
        for _ in range(times):
            throttle.ended(flying.pop(), 2.0, outcome)
    assert throttle.limit == 8


def test_a_lesson_outlasts_the_window_in_which_it_was_learned() -> None:
    throttle = throttle_of(20)
    use(throttle, 10)
    lock_out(throttle)
    now = 1_000_000.0
    open_again(throttle, now)
    assert throttle.limit == 5


def test_a_lowered_limit_waits_for_the_tokens_above_it() -> None:
    throttle = throttle_of(20)
    use(throttle, 10)
    throttle.restore(0.0, learned_limit=3)
    assert isinstance(throttle.decide(STATUS, W - 1.0), WaitUntil)
    assert throttle.decide(STATUS, W) == Admit()


# --- slots ---


def test_a_submit_takes_a_slot_before_it_goes_and_polls_pass_by() -> None:
    throttle = throttle_of(99, max_active_jobs=2)
    start(throttle, 0.0, SUBMIT)
    start(throttle, 0.0, SUBMIT)
    assert throttle.decide(SUBMIT, 0.0) == WaitForSlot("2 jobs are open, which is as many as may be")
    assert throttle.decide(STATUS, 0.0) == Admit()


@pytest.mark.parametrize("outcome", [NOT_SENT, ANSWERED, UNKNOWN_END])
def test_a_submit_that_made_no_job_gives_its_slot_back_when_it_is_settled(outcome: Outcome) -> None:
    throttle = throttle_of(99, max_active_jobs=1)
    ticket = start(throttle, 0.0, SUBMIT)
    throttle.ended(ticket, 0.0, outcome)
    assert isinstance(throttle.decide(SUBMIT, 0.0), WaitForSlot)
    throttle.slot_settled(ticket)
    throttle.slot_settled(ticket)
    assert throttle.decide(SUBMIT, 0.0) == Admit()


def test_an_open_job_keeps_the_slot_until_it_is_seen_to_have_ended() -> None:
    throttle = throttle_of(99, max_active_jobs=1)
    ticket = start(throttle, 0.0, SUBMIT)
    throttle.ended(ticket, 0.0, ANSWERED)
    throttle.job_opened(ticket, "a", 0.0)
    throttle.slot_settled(ticket)
    throttle.job_closed("somebody else's")
    assert isinstance(throttle.decide(SUBMIT, 1e9), WaitForSlot)
    throttle.job_closed("a")
    throttle.job_closed("a")
    start(throttle, 1e9, SUBMIT)
    assert isinstance(throttle.decide(SUBMIT, 1e9), WaitForSlot)


def refused(throttle: Throttle, now: float, reason: str = "full") -> None:
    """Plays a submit that the server has no slot for."""
    ticket = start(throttle, now, SUBMIT)
    throttle.ended(ticket, now, ANSWERED)
    throttle.slots_full(now, reason)
    throttle.slot_settled(ticket)


def test_slots_filled_by_jobs_of_others_are_tried_one_at_a_time_after_growing_waits() -> None:
    throttle = throttle_of(None, max_active_jobs=2)
    now, waits = 0.0, []
    while now < 3_600.0:
        refused(throttle, now, "2 jobs are already running.")
        wait = throttle.decide(SUBMIT, now)
        assert isinstance(wait, WaitForSlot)
        assert wait.reason == "2 jobs are already running."
        waits.append(wait.at - now)
        now = wait.at
    assert waits[0] == 5.0
    assert waits == sorted(waits)
    assert waits[-1] == MAX_SLOT_RETRY_S
    assert len(waits) < 35
    start(throttle, now, SUBMIT)
    assert throttle.decide(SUBMIT, now).at == math.inf


def test_tries_for_slots_of_others_take_at_most_a_quarter_of_the_rate() -> None:
    throttle = throttle_of(3, max_active_jobs=2)
    refused(throttle, 0.0)
    wait = throttle.decide(SUBMIT, 0.0)
    assert isinstance(wait, WaitForSlot)
    assert wait.at == 4 * W / 3


def test_one_full_answer_to_many_submits_is_one_wait() -> None:
    throttle = throttle_of(None)
    for _ in range(6):
        throttle.slots_full(5.0, "full")
    assert throttle.decide(SUBMIT, 5.0) == WaitForSlot("full", at=10.0)


def test_a_job_of_ours_that_ends_lets_one_submit_through_while_others_hold_the_rest() -> None:
    throttle = throttle_of(None, max_active_jobs=10)
    throttle.restore(0.0, open_jobs=["a", "b"])
    refused(throttle, 0.0)
    assert throttle.slots_held_by_others_since == 0.0
    throttle.job_closed("b")
    ticket = start(throttle, 1.0, SUBMIT)
    assert isinstance(throttle.decide(SUBMIT, 1.0), WaitForSlot)
    throttle.ended(ticket, 1.0, ANSWERED)
    throttle.job_opened(ticket, "c", 1.0)
    assert isinstance(throttle.decide(SUBMIT, 1.0), WaitForSlot)


def test_a_try_that_opens_a_job_is_followed_by_another_until_all_slots_are_ours() -> None:
    throttle = throttle_of(None, max_active_jobs=3)
    throttle.restore(0.0, open_jobs=["a"])
    refused(throttle, 0.0)
    for job_id in ("b", "c"):
        assert throttle.slots_held_by_others_since is not None
        ticket = start(throttle, 5.0, SUBMIT)
        assert isinstance(throttle.decide(SUBMIT, 5.0), WaitForSlot)
        throttle.ended(ticket, 5.0, ANSWERED)
        throttle.job_opened(ticket, job_id, 5.0)
    assert throttle.slots_held_by_others_since is None


def test_a_list_with_fewer_open_jobs_than_before_is_a_reason_to_try_at_once_and_only_once() -> None:
    throttle = throttle_of(None, max_active_jobs=2)
    throttle.restore(0.0, open_jobs=["a"])
    refused(throttle, 0.0)
    throttle.jobs_listed(1.0, 2)
    assert isinstance(throttle.decide(SUBMIT, 1.0), WaitForSlot)
    throttle.jobs_listed(2.0, 1)
    refused(throttle, 2.0)
    throttle.jobs_listed(3.0, 1)
    assert isinstance(throttle.decide(SUBMIT, 3.0), WaitForSlot)
    throttle.jobs_listed(4.0, 2)
    throttle.jobs_listed(5.0, 1)
    start(throttle, 5.0, SUBMIT)


def test_a_list_says_nothing_while_no_submit_was_refused() -> None:
    throttle = throttle_of(None, max_active_jobs=2)
    throttle.jobs_listed(0.0, 7)
    assert throttle.decide(SUBMIT, 0.0) == Admit()


def test_what_is_known_of_others_jobs_is_told_to_other_processes() -> None:
    throttle, other = throttle_of(None, max_active_jobs=2), throttle_of(None, max_active_jobs=2)
    refused(throttle, 100.0)
    other.load(throttle.state(), shift_s=-60.0)
    assert other.slots_held_by_others_since == 40.0
    assert other.decide(SUBMIT, 40.0) == WaitForSlot("full", at=45.0)
    other.load(throttle_of(None).state())
    assert other.decide(SUBMIT, 40.0) == Admit()


def test_a_try_that_opens_a_job_ends_the_full_period_but_an_older_submit_does_not() -> None:
    throttle = throttle_of(None)
    older = start(throttle, 0.0, SUBMIT)
    throttle.slots_full(0.0, "full")
    throttle.job_opened(older, "a", 1.0)
    assert throttle.decide(SUBMIT, 1.0) == WaitForSlot("full", at=5.0)
    throttle.job_opened(start(throttle, 5.0, SUBMIT), "b", 6.0)
    start(throttle, 6.0, SUBMIT)
    start(throttle, 6.0, SUBMIT)


def test_without_a_rate_nothing_is_kept_of_a_request() -> None:
    throttle = throttle_of(None)
    use(throttle, 10_000)
    assert throttle._window is None
    assert throttle._in_flight == 0
