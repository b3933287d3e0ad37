"""The virtual clock jumps when nothing can be done, and stands still while a thread works."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from aiolimiter import AsyncLimiter

from bulkjobs.clock import SystemClock, to_loop_time
from bulkjobs.model import Evidence, Phase, Request, RequestKind
from bulkjobs.testing import (
    EPOCH_UTC,
    FakeTransport,
    VirtualClock,
    VirtualClockLoop,
    answered,
    lost,
    run_virtual,
)

REQUEST = Request(kind=RequestKind.STATUS, method="GET", url="https://host/x", headers=())


def now() -> float:
    return asyncio.get_running_loop().time()


def test_thirty_days_pass_to_the_microsecond() -> None:
    async def main() -> float:
        for _ in range(30):
            await asyncio.sleep(86_400)
        return now()

    assert run_virtual(main()) == pytest.approx(30 * 86_400, abs=1e-5)


def test_timers_fire_in_the_order_of_their_times() -> None:
    async def main() -> list[str]:
        seen: list[str] = []

        async def after(delay_s: float, name: str) -> None:
            await asyncio.sleep(delay_s)
            seen.append(name)

        await asyncio.gather(after(300, "late"), after(1, "early"), after(20, "middle"))
        return seen

    assert run_virtual(main()) == ["early", "middle", "late"]


def test_a_limiter_does_not_spin_on_a_rounding_error() -> None:
    async def main() -> float:
        limiter = AsyncLimiter(7, 0.3)
        for _ in range(5_000):
            await limiter.acquire()
        return now()

    assert run_virtual(main()) == pytest.approx(4_993 * 0.3 / 7, rel=1e-3)


def test_no_time_passes_while_a_thread_works_for_a_task() -> None:
    async def main() -> tuple[float, bool]:
        go_on = threading.Event()
        timer = asyncio.get_running_loop().call_later(300, go_on.set)  # would be due first, if time passed
        threading.Timer(0.02, go_on.set).start()
        await asyncio.to_thread(go_on.wait)
        timer.cancel()
        return now(), go_on.is_set()

    passed_s, done = run_virtual(main())
    assert done
    assert passed_s < 1.0


def test_no_time_passes_while_a_thread_of_ones_own_has_work() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualClockLoop)
        answer = loop.create_future()

        def finish() -> None:
            loop.external_work_ended()
            answer.set_result(None)

        loop.external_work_began()
        thread = threading.Timer(0.02, lambda: loop.call_soon_threadsafe(finish))
        thread.start()
        async with asyncio.timeout(300):
            await answer
        thread.join()
        return now()

    assert run_virtual(main()) < 1.0


def test_time_passes_again_once_the_thread_is_done() -> None:
    async def main() -> float:
        await asyncio.to_thread(time.monotonic)
        await asyncio.sleep(300)
        return now()

    assert run_virtual(main()) == pytest.approx(300, abs=1e-3)


def test_a_thread_that_was_not_told_of_still_wakes_the_loop() -> None:
    async def main() -> str:
        loop = asyncio.get_running_loop()
        answer = loop.create_future()
        thread = threading.Timer(0.02, lambda: loop.call_soon_threadsafe(answer.set_result, "here"))
        thread.start()
        thread_answer = await answer
        thread.join()
        return thread_answer

    assert run_virtual(main()) == "here"


def test_a_loop_on_which_nothing_can_happen_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bulkjobs.testing._STALL_S", 0.0)
    loop = VirtualClockLoop()
    waiting = loop.create_task(asyncio.Event().wait())
    with pytest.raises(RuntimeError, match="Nothing will ever happen"):
        loop.run_until_complete(waiting)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(waiting)
    loop.close()


def test_the_clock_still_moves_when_floats_have_no_nanoseconds_left() -> None:
    async def main() -> bool:
        await asyncio.sleep(86_400)
        loop = asyncio.get_running_loop()
        loop._clock.now_s = 2.0**40
        before = now()
        await asyncio.sleep(0)
        return now() > before

    assert run_virtual(main())


def test_the_wall_clock_goes_with_the_loop_and_can_be_set() -> None:
    async def main() -> list[float]:
        clock = VirtualClock()
        await asyncio.sleep(60)
        before = clock.utc()
        clock.epoch_utc -= 3_600
        return [before, clock.utc()]

    assert run_virtual(main()) == pytest.approx([EPOCH_UTC + 60, EPOCH_UTC - 3_540])


def test_the_system_clock_tells_unix_seconds() -> None:
    before = time.time()
    assert before <= SystemClock().utc() <= time.time()


def test_a_stored_time_is_placed_on_the_loops_clock() -> None:
    assert to_loop_time(1_000.0, now_utc=1_300.0, now_loop=20.0) == -280.0
    assert to_loop_time(1_400.0, now_utc=1_300.0, now_loop=20.0) == 120.0


def test_a_fake_transport_stamps_the_times_and_keeps_the_requests() -> None:
    async def handler(request: Request) -> Evidence:
        await asyncio.sleep(7)
        return answered(200, b"{}")

    async def main() -> tuple[Evidence, list[Request]]:
        transport = FakeTransport(handler)
        return await transport.request(REQUEST), transport.requests

    evidence, requests = run_virtual(main())
    assert evidence.started_utc == pytest.approx(EPOCH_UTC)
    assert evidence.ended_utc == pytest.approx(EPOCH_UTC + 7)
    assert (evidence.status, evidence.phase, requests) == (200, Phase.COMPLETE, [REQUEST])


def test_a_fake_transport_sends_nothing_when_the_caller_objects_at_the_first_byte() -> None:
    async def object_to_it() -> None:
        raise PermissionError

    async def main() -> list[Request]:
        transport = FakeTransport(lambda request: answered(200))
        with pytest.raises(PermissionError):
            await transport.request(REQUEST, before_first_byte=object_to_it)
        return transport.requests

    assert run_virtual(main()) == []


def test_a_fake_transport_without_a_connection_sends_no_byte() -> None:
    async def never() -> None:
        raise AssertionError

    async def main() -> tuple[Phase, list[Request]]:
        transport = FakeTransport(lambda request: answered(200), connect=lambda _: lost(phase=Phase.STARTED))
        evidence = await transport.request(REQUEST, before_first_byte=never)
        return evidence.phase, transport.requests

    assert run_virtual(main()) == (Phase.STARTED, [])
