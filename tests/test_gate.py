"""The gate: order, cancellation, stopping, what is told and stored; on a virtual clock throughout."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulkjobs.account.exchange import exchange
from bulkjobs.account.gate import Gate, GateStopped, Permit, PermitWithdrawn
from bulkjobs.breaker import IN_A_ROW
from bulkjobs.errors import InternalError
from bulkjobs.events import (
    Event,
    LimitLearned,
    LockedOut,
    LockoutEnded,
    OneSubmitTries,
    RequestEnded,
    SlotsFull,
    SubmitsPaused,
    SubmitsResumed,
)
from bulkjobs.model import Evidence, Phase, Request, RequestKind
from bulkjobs.settings import Rate
from bulkjobs.testing import EPOCH_UTC, FakeTransport, VirtualClock, answered, lost, run_virtual
from bulkjobs.throttle import Throttle

LOGIN, SUBMIT, STATUS, LIST = RequestKind.LOGIN, RequestKind.SUBMIT, RequestKind.STATUS, RequestKind.LIST
W = 300.0
HOLD_S = W * 1.03


@dataclass
class Account:
    """A gate with all it tells, to be made inside the loop."""

    count: int | None = None
    pace: Rate | None = None
    max_active_jobs: int | None = None
    events: list[Event] = field(default_factory=list)
    """But for the ends of requests, which stand in a list of their own."""
    ended: list[RequestEnded] = field(default_factory=list)
    lockouts: list[tuple[float, str]] = field(default_factory=list)
    limits: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        rate = None if self.count is None else Rate(count=self.count, period_s=W)
        self.throttle = Throttle(rate=rate, lockout_s=W, max_active_jobs=self.max_active_jobs)
        self.gate = Gate(
            self.throttle,
            pace=self.pace,
            clock=VirtualClock(),
            observer=self.observe,
            on_lockout=lambda until_utc, reason, _: self.lockouts.append((until_utc, reason)),
            on_limit=self.limits.append,
        )

    def observe(self, event: Event) -> None:
        if isinstance(event, RequestEnded):
            self.ended.append(event)
        else:
            self.events.append(event)

    async def request(self, kind: RequestKind = STATUS, *, lasts_s: float = 0.0) -> float:
        """Makes a request that is answered; gives the time at which it was let through."""
        with await self.gate.admit(kind) as permit:
            admitted = now()
            await asyncio.sleep(lasts_s)
            permit.answered()
        return admitted

    async def throttle_once(self, retry_after_s: float | None = None) -> None:
        with await self.gate.admit(STATUS) as permit:
            permit.throttled(retry_after_s, "HTTP 429")


def now() -> float:
    return asyncio.get_running_loop().time()


async def settle() -> None:
    """Lets every task go as far as it can without time passing."""
    for _ in range(20):
        await asyncio.sleep(0)


def task_of(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    return asyncio.get_running_loop().create_task(work)


# --- letting through ---


def test_an_open_gate_costs_neither_a_future_nor_a_timer() -> None:
    async def main() -> None:
        account = Account()
        admission = account.gate.admit(SUBMIT)
        with pytest.raises(StopIteration) as finished:
            admission.send(None)  # a coroutine that ends at once has suspended nowhere
        with finished.value.value as permit:
            permit.answered()
        assert account.gate._timer is None
        assert not any(account.gate._queues)

    run_virtual(main())


def test_a_full_window_is_waited_out_to_the_end_of_the_oldest_request_and_a_window() -> None:
    async def main() -> list[float]:
        account = Account(count=2)
        return await asyncio.gather(*(account.request(lasts_s=5.0) for _ in range(5)))

    assert run_virtual(main()) == pytest.approx([0, 0, 305, 305, 610], abs=1e-3)


def test_waiters_go_by_kind_then_by_arrival() -> None:
    async def main() -> list[str]:
        account = Account(count=1)
        order: list[str] = []

        async def request(kind: RequestKind, name: str) -> None:
            await account.request(kind)
            order.append(name)

        await account.request()
        wanted = [(STATUS, "status 1"), (LIST, "list"), (STATUS, "status 2"), (SUBMIT, "submit 1")]
        wanted += [(LOGIN, "login"), (SUBMIT, "submit 2")]
        async with asyncio.TaskGroup() as tasks:
            for kind, name in wanted:
                tasks.create_task(request(kind, name))
        return order

    assert run_virtual(main()) == ["login", "submit 1", "submit 2", "status 1", "list", "status 2"]


def test_the_pace_spreads_what_the_window_would_let_through_at_once() -> None:
    async def main() -> list[float]:
        account = Account(count=900, pace=Rate(count=2, period_s=1.0))
        return await asyncio.gather(*(account.request() for _ in range(6)))

    assert run_virtual(main()) == pytest.approx([0, 0, 0.5, 1.0, 1.5, 2.0], abs=1e-3)


def test_a_submit_without_a_slot_blocks_no_poll() -> None:
    async def main() -> None:
        account = Account(max_active_jobs=1)
        with await account.gate.admit(SUBMIT) as permit:
            permit.job_opened("a")
        waiting = task_of(account.request(SUBMIT))
        await settle()
        assert await account.request(STATUS) == pytest.approx(0, abs=1e-3)
        assert not waiting.done()
        account.gate.job_closed("a")
        assert await waiting == pytest.approx(0, abs=1e-3)

    run_virtual(main())


def test_a_window_that_is_full_for_submits_is_full_for_polls() -> None:
    async def main() -> float:
        account = Account(count=1)
        await account.request(SUBMIT)
        return await account.request(STATUS)

    assert run_virtual(main()) == pytest.approx(W, abs=1e-3)


def test_a_newcomer_does_not_overtake_a_waiter_whose_time_has_just_come() -> None:
    async def main() -> None:
        account = Account(count=1)
        await account.request()
        waiter = task_of(account.request())
        await settle()
        asyncio.get_running_loop()._clock.now_s += W + 1.0  # the waiter's timer is due and did not run yet
        newcomer = task_of(account.request())
        await settle()
        assert (waiter.done(), newcomer.done()) == (True, False)
        await newcomer

    run_virtual(main())


# --- permits ---


def test_a_submit_that_waits_for_a_slot_goes_when_one_that_made_no_job_is_left() -> None:
    async def main() -> None:
        account = Account(max_active_jobs=1)
        with await account.gate.admit(SUBMIT) as permit:
            waiting = task_of(account.request(SUBMIT))
            permit.answered()
            await settle()
            assert not waiting.done()
        await settle()
        assert waiting.done()

    run_virtual(main())


def test_a_permit_that_was_passed_on_is_given_back_by_whoever_enters_it_next() -> None:
    async def main() -> None:
        account = Account(max_active_jobs=1)
        with await account.gate.admit(SUBMIT) as permit:
            permit.answered()
            passed_on = permit.pass_on()
        waiting = task_of(account.request(SUBMIT))
        await settle()
        assert not waiting.done()
        with passed_on:
            pass
        await settle()
        assert waiting.done()

    run_virtual(main())


def test_leaving_without_a_report_counts_as_lost() -> None:
    async def main() -> float:
        account = Account(count=1, max_active_jobs=1)
        with pytest.raises(OSError, match="broken"), await account.gate.admit(SUBMIT):
            raise OSError("broken")
        return await account.request(SUBMIT)

    assert run_virtual(main()) == pytest.approx(W + 10.0, abs=1e-3)


def test_a_request_that_was_not_sent_gives_token_and_slot_back_at_once() -> None:
    async def main() -> float:
        account = Account(count=1, max_active_jobs=1)
        with await account.gate.admit(SUBMIT) as permit:
            permit.not_sent()
        return await account.request(SUBMIT)

    assert run_virtual(main()) == pytest.approx(0.0, abs=1e-3)


def test_a_second_report_is_a_bug() -> None:
    async def main() -> None:
        account = Account()
        with await account.gate.admit(STATUS) as permit:
            permit.answered()
            with pytest.raises(InternalError, match="twice"):
                permit.lost()

    run_virtual(main())


def test_the_end_of_every_request_that_was_sent_is_told_but_that_of_a_submit() -> None:
    async def main() -> Account:
        account = Account(count=9)
        ends: list[Callable[[Permit], None]] = [
            Permit.answered,
            Permit.lost,
            Permit.not_sent,
            partial(Permit.throttled, retry_after_s=None, reason="HTTP 429"),
        ]
        for end in ends:
            for kind in (RequestKind.LIST, SUBMIT):
                with await account.gate.admit(kind) as permit:
                    (Permit.answered if kind is SUBMIT else end)(permit)
        return account

    account = run_virtual(main())
    assert account.ended == [
        RequestEnded(kind=RequestKind.LIST, outcome=outcome)
        for outcome in ("answered", "unknown", "throttled")
    ]


def test_a_request_that_waited_in_a_queue_of_several_kinds_is_told_as_what_it_is() -> None:
    async def main() -> Account:
        account = Account(count=1)
        kinds = [LIST, STATUS, RequestKind.USAGE, RequestKind.RESULTS, LOGIN]
        await asyncio.gather(*(account.request(kind) for kind in kinds))
        return account

    told = {event.kind for event in run_virtual(main()).ended}
    assert told == set(RequestKind) - {SUBMIT}


def test_only_a_submit_can_open_a_job_and_only_one() -> None:
    async def main() -> None:
        account = Account()
        with await account.gate.admit(STATUS) as permit, pytest.raises(InternalError, match="holds no slot"):
            permit.job_opened("a")
        with await account.gate.admit(SUBMIT) as permit:
            permit.answered()
            permit.job_opened("a")
            with pytest.raises(InternalError, match="holds no slot"):
                permit.job_opened("b")

    run_virtual(main())


def test_a_permit_is_withdrawn_when_a_lock_out_begins_before_its_first_byte() -> None:
    async def main() -> None:
        account = Account()
        with await account.gate.admit(SUBMIT) as permit:
            permit.check()
            await account.throttle_once()
            with pytest.raises(PermitWithdrawn):
                permit.check()
            permit.not_sent()
        with await account.gate.admit(SUBMIT) as probe:
            assert now() == pytest.approx(HOLD_S, abs=1e-3)
            probe.check()
            probe.answered()

    run_virtual(main())


# --- cancelling ---


def test_a_waiter_cancelled_with_its_permit_granted_gives_it_back() -> None:
    """The cancel lands in the very pass in which the permit was granted, before the waiter ran again."""

    async def main() -> None:
        account = Account(count=1, max_active_jobs=1)
        with await account.gate.admit(SUBMIT) as first:
            unlucky = task_of(account.gate.admit(SUBMIT))
            await settle()
            first.not_sent()
        unlucky.cancel()
        with pytest.raises(asyncio.CancelledError):
            await unlucky
        assert await account.request(SUBMIT) == pytest.approx(0, abs=1e-3)

    run_virtual(main())


@pytest.mark.parametrize("pace", [None, Rate(count=1, period_s=60.0)])
def test_thousands_of_cancelled_waiters_take_nothing(pace: Rate | None) -> None:
    async def main() -> float:
        account = Account(count=1, pace=pace)
        await account.request()
        waiters = [task_of(account.gate.admit(STATUS)) for _ in range(2_000)]
        await settle()
        for waiter in waiters:
            waiter.cancel()
        await asyncio.gather(*waiters, return_exceptions=True)
        return await account.request()

    assert run_virtual(main()) == pytest.approx(W, abs=1e-3)


@settings(max_examples=60, deadline=None)
@given(
    plan=st.lists(
        st.tuples(
            st.sampled_from(list(RequestKind)),
            st.integers(0, 40).map(lambda n: n * 10.0),  # begins
            st.integers(0, 20).map(lambda n: n * 10.0),  # lasts
            st.none() | st.integers(1, 60).map(lambda n: n * 10.0),  # is cancelled after
        ),
        max_size=25,
    )
)
def test_whatever_is_cancelled_whenever_every_token_and_slot_comes_back(plan) -> None:
    async def main() -> None:
        account = Account(count=3, max_active_jobs=2)

        async def request(kind, begins_s, lasts_s, patience_s) -> None:
            await asyncio.sleep(begins_s)
            try:
                async with asyncio.timeout(patience_s):
                    await account.request(kind, lasts_s=lasts_s)
            except TimeoutError:
                assert patience_s is not None

        await asyncio.gather(*(request(*row) for row in plan))
        assert account.throttle._in_flight == 0
        assert account.throttle._slots._submitting == 0
        before = now()
        await asyncio.gather(account.request(SUBMIT), account.request(SUBMIT), account.request(STATUS))
        assert now() - before <= W + 10.0 + 1e-3

    run_virtual(main())


# --- lock-outs ---


def test_a_lock_out_is_stored_and_announced_before_anybody_waits_and_its_end_is_told() -> None:
    async def main() -> Account:
        account = Account()
        await account.throttle_once()
        assert len(account.events) == 1
        await account.request()
        return account

    account = run_virtual(main())
    [(until_utc, reason)] = account.lockouts
    assert (until_utc, reason) == (pytest.approx(EPOCH_UTC + HOLD_S), "HTTP 429")
    announced, ended = account.events
    assert announced == LockedOut(until_utc=until_utc, wait_s=HOLD_S, reason="HTTP 429")
    assert ended == LockoutEnded()


def test_a_lock_out_that_moves_a_little_is_stored_each_time_but_announced_once() -> None:
    async def main() -> tuple[Account, float]:
        account = Account()
        late = [task_of(account.request(lasts_s=float(second))) for second in (1, 2, 3, 60)]
        await settle()
        await account.throttle_once()
        await asyncio.gather(*late)
        return account, await account.request()

    account, reopened = run_virtual(main())
    assert reopened == pytest.approx(60 + HOLD_S, abs=1e-3)
    assert [until_utc - EPOCH_UTC for until_utc, _ in account.lockouts] == pytest.approx(
        [HOLD_S, 1 + HOLD_S, 2 + HOLD_S, 3 + HOLD_S, 60 + HOLD_S], abs=1e-3
    )
    waits = [event.until_utc - EPOCH_UTC for event in account.events if isinstance(event, LockedOut)]
    assert waits == pytest.approx([HOLD_S, 60 + HOLD_S], abs=1e-3)


def test_eight_workers_meet_a_lock_out_with_one_probe_and_a_ramp() -> None:
    async def main() -> list[float]:
        account = Account(count=900)
        await account.throttle_once()
        return await asyncio.gather(*(account.request(lasts_s=1.0) for _ in range(8)))

    assert run_virtual(main()) == pytest.approx(
        [HOLD_S + second for second in (0, 1, 2, 2, 3, 3, 3, 3)], abs=1e-3
    )


def test_a_longer_wait_that_the_server_asks_for_is_obeyed() -> None:
    async def main() -> float:
        account = Account()
        await account.throttle_once(retry_after_s=1_000.0)
        return await account.request()

    assert run_virtual(main()) == pytest.approx(1_000.0, abs=1e-3)


def test_a_learned_limit_is_stored_and_told_and_holds() -> None:
    async def main() -> tuple[Account, list[float]]:
        account = Account(count=20)
        for _ in range(10):
            await account.request()
        await account.throttle_once()
        return account, [await account.request() for _ in range(10)]

    account, times = run_virtual(main())
    assert account.limits == [5]
    assert LimitLearned(requests=5, window_s=W) in account.events
    assert account.gate.rate == Rate(count=5, period_s=W)
    assert times[4] == pytest.approx(HOLD_S, abs=1e-3)
    assert times[5] == pytest.approx(HOLD_S + W, abs=1e-3)


def test_a_full_server_is_told_once_and_tried_again_later() -> None:
    async def main() -> float:
        account = Account(max_active_jobs=2)
        with await account.gate.admit(SUBMIT) as permit:
            permit.answered()
            account.gate.slots_full("2 jobs are already running.")
        waiting = [task_of(account.request(SUBMIT)) for _ in range(3)]
        await settle()
        assert account.events == [SlotsFull(reason="2 jobs are already running.")]
        return await waiting[0]

    admitted = run_virtual(main())
    assert admitted == pytest.approx(5.0, abs=1e-3)


# --- what an earlier process left behind ---


def test_a_restart_knows_window_lock_out_limit_and_jobs() -> None:
    async def main() -> tuple[Account, list[float]]:
        await asyncio.sleep(1_000)
        account = Account(count=3, max_active_jobs=1)
        wall = EPOCH_UTC + 1_000
        account.gate.restore(
            history_utc=[(wall - 200, wall - 100), (wall - 20, None)],
            locked_until_utc=wall + 50,
            learned_limit=2,
            open_jobs=["a"],
        )
        submit = task_of(account.request(SUBMIT))
        times = [await account.request() - 1_000]
        account.gate.job_closed("a")
        times.append(await submit - 1_000)
        return account, times

    account, times = run_virtual(main())
    assert times == pytest.approx([210, 310], abs=1e-3)
    assert [until_utc for until_utc, _ in account.lockouts] == [EPOCH_UTC + 1_050], (
        "by the clock as it is now"
    )
    first = account.events[0]
    assert isinstance(first, LockedOut)
    assert first.wait_s == pytest.approx(50, abs=1e-3)


def test_a_restart_without_a_past_begins_open_and_says_nothing() -> None:
    async def main() -> tuple[float, list[Event]]:
        account = Account(count=1)
        account.gate.restore(history_utc=[], locked_until_utc=None, learned_limit=None, open_jobs=[])
        return await account.request(), account.events

    assert run_virtual(main()) == (pytest.approx(0, abs=1e-3), [])


# --- stopping ---


@pytest.mark.parametrize("pace", [None, Rate(count=1, period_s=3_600.0)], ids=["in the queue", "in the pace"])
def test_stopping_submits_wakes_those_that_wait_and_lets_polls_go_on(pace: Rate | None) -> None:
    async def main() -> float:
        account = Account(count=1, pace=pace)
        await account.request()
        submits = [task_of(account.gate.admit(SUBMIT)) for _ in range(3)]
        poll = task_of(account.request(STATUS))
        await settle()
        account.gate.stop_submits()
        for submit in submits:
            with pytest.raises(GateStopped, match="submit"):
                await submit
        assert now() < 1.0
        with pytest.raises(GateStopped):
            await account.gate.admit(SUBMIT)
        return await poll

    assert run_virtual(main()) >= W


def test_closing_wakes_everybody_and_permits_may_still_report() -> None:
    async def main() -> None:
        account = Account(count=2, max_active_jobs=2)
        with await account.gate.admit(SUBMIT) as permit:
            await account.request()
            waiters = [task_of(account.gate.admit(kind)) for kind in RequestKind]
            await settle()
            account.gate.close()
            for waiter in waiters:
                with pytest.raises(GateStopped):
                    await waiter
            permit.job_opened("a")
        assert account.gate._timer is None

    run_virtual(main())


def test_a_waiter_cancelled_while_it_is_stopped_is_cancelled() -> None:
    async def main() -> None:
        account = Account(count=1)
        await account.request()
        waiter = task_of(account.gate.admit(STATUS))
        await settle()
        account.gate.close()
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter

    run_virtual(main())


# --- requests that may be sent again ---

POLL = Request(kind=STATUS, method="GET", url="https://host/job/1", headers=())


class FakeRequestLog:
    def __init__(self, *, takes_s: float = 0.0) -> None:
        self.takes_s = takes_s
        self.begun: list[RequestKind] = []
        self.ended: dict[int, int | None] = {}

    async def begin_request(self, kind: RequestKind) -> int:
        await asyncio.sleep(self.takes_s)
        self.begun.append(kind)
        return len(self.begun)

    def end_request(self, number: int, status: int | None) -> None:
        self.ended[number] = status


@pytest.mark.parametrize(
    ("evidence", "next_at"),
    [
        (answered(200), W),
        (answered(500), W),
        (lost(), W + 10.0),
        (answered(429), HOLD_S),
        (answered(429, retry_after="900"), 900.0),
    ],
    ids=["answered", "server error", "lost", "throttled", "throttled for longer"],
)
def test_the_evidence_of_a_request_reaches_gate_and_log(evidence: Evidence, next_at: float) -> None:
    async def main() -> tuple[FakeRequestLog, float]:
        account, log = Account(count=1), FakeRequestLog()
        await exchange(POLL, gate=account.gate, transport=FakeTransport(lambda _: evidence), request_log=log)
        return log, await account.request()

    log, admitted = run_virtual(main())
    assert (log.begun, log.ended) == ([STATUS], {1: evidence.status})
    assert admitted == pytest.approx(next_at, abs=1e-3)


def test_a_request_without_a_connection_is_neither_logged_nor_counted() -> None:
    async def main() -> tuple[FakeRequestLog, float]:
        account, log = Account(count=1), FakeRequestLog()
        transport = FakeTransport(
            lambda _: answered(200), connect=lambda _: lost("refused", phase=Phase.STARTED)
        )
        await exchange(POLL, gate=account.gate, transport=transport, request_log=log)
        return log, await account.request()

    log, admitted = run_virtual(main())
    assert (log.begun, log.ended, admitted) == ([], {}, pytest.approx(0, abs=1e-3))


def test_a_request_that_a_lock_out_overtakes_before_its_first_byte_waits_for_its_end() -> None:
    async def main() -> tuple[FakeRequestLog, list[float]]:
        account, log, sent = Account(), FakeRequestLog(takes_s=1.0), []

        def handler(_: Request) -> Evidence:
            sent.append(now())
            return answered(200)

        polling = task_of(
            exchange(POLL, gate=account.gate, transport=FakeTransport(handler), request_log=log)
        )
        await settle()
        await account.throttle_once()
        await polling
        return log, sent

    log, sent = run_virtual(main())
    assert sent == pytest.approx([HOLD_S + 1.0], abs=1e-3)
    assert log.ended == {1: None, 2: 200}


# --- outages ---


async def submitted(account: Account, *, known: bool | None) -> None:
    """Submits once; `known` is None for a submit that was not sent."""
    with await account.gate.admit(SUBMIT) as permit:
        if known is None:
            permit.not_sent()
            return
        permit.answered()
        permit.outcome_known() if known else permit.outcome_unknown()


def test_in_a_pause_everything_but_submits_goes_on() -> None:
    async def main() -> None:
        account = Account()
        for _ in range(IN_A_ROW):
            await submitted(account, known=False)
        waiting = task_of(submitted(account, known=True))
        assert await account.request(STATUS) == pytest.approx(now(), abs=1e-3)
        await asyncio.sleep(HOLD_S)
        assert not waiting.done()
        waiting.cancel()

    run_virtual(main())


def test_a_question_is_due_at_the_end_of_each_pause_and_never_else() -> None:
    async def main() -> list[float]:
        account, asked = Account(), []
        due = task_of(account.gate.question_due())
        await asyncio.sleep(100.0)
        assert not due.done()
        for _ in range(IN_A_ROW):
            await submitted(account, known=False)
        for trouble in ("HTTP 503", "HTTP 503", None):
            await due
            asked.append(now())
            account.gate.question_answered(trouble)
            due = task_of(account.gate.question_due())
        await asyncio.sleep(HOLD_S)
        assert not due.done()
        due.cancel()
        return asked

    assert run_virtual(main()) == pytest.approx([110.0, 130.0, 170.0], abs=1e-3)


def test_after_an_answer_submits_go_one_by_one_until_an_outcome_is_known() -> None:
    """One that was not sent says nothing, so the next one tries; the outcome of the second ends the pause."""

    async def main() -> list[type[Event]]:
        account = Account()
        for _ in range(IN_A_ROW):
            await submitted(account, known=False)
        await account.gate.question_due()
        account.gate.question_answered(None)
        with await account.gate.admit(SUBMIT) as first:
            others = [task_of(submitted(account, known=True)) for _ in range(3)]
            await settle()
            first.not_sent()
            assert not any(task.done() for task in others)
        await asyncio.gather(*others)
        return [type(event) for event in account.events]

    assert run_virtual(main()) == [SubmitsPaused, OneSubmitTries, SubmitsResumed]


def test_an_outcome_from_before_the_pause_does_not_end_it() -> None:
    async def main() -> None:
        account = Account()
        with await account.gate.admit(SUBMIT) as slow:
            for _ in range(IN_A_ROW):
                await submitted(account, known=False)
            await account.gate.question_due()
            account.gate.question_answered(None)
            with await account.gate.admit(SUBMIT) as alone:
                slow.answered()
                slow.outcome_known()
                other = task_of(submitted(account, known=True))
                await settle()
                assert not other.done()
                alone.answered()
                alone.outcome_known()
        await other

    run_virtual(main())


def test_a_gate_that_recalls_an_outage_asks_before_the_first_submit() -> None:
    async def main() -> None:
        account = Account()
        account.gate.recall_outcomes(IN_A_ROW)
        waiting = task_of(submitted(account, known=True))
        await account.gate.question_due()
        assert now() == pytest.approx(0.0, abs=1e-3)
        assert not waiting.done()
        account.gate.question_answered(None)
        await waiting
        assert [event.wait_s for event in account.events if isinstance(event, SubmitsPaused)] == [0.0]

    run_virtual(main())
