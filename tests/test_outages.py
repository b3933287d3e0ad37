"""Hours without one readable answer, on virtual time: what is held is bounded by the workers, and the run goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.simulated import LOGIN_URL
from test_engine import FREE, World, at_once, crash, now

from bulkjobs.account.auth import authenticator_from
from bulkjobs.account.gate import Gate
from bulkjobs.account.listing import JobReader
from bulkjobs.breaker import IN_A_ROW
from bulkjobs.endpoints import endpoint_named
from bulkjobs.events import OneSubmitTries, Stopping, SubmitsPaused, SubmitsResumed
from bulkjobs.exits import Exit
from bulkjobs.model import Evidence, Phase, Request, RequestKind, RunSummary
from bulkjobs.settings import Rate, Secret
from bulkjobs.simulator import Limit, Span
from bulkjobs.testing import FakeTransport, VirtualClock, answered, lost, run_virtual
from bulkjobs.throttle import Throttle

HOUR = 3_600.0
BEGINS = 5.0
LATENCY = Span(min_s=0.5, max_s=4.0)
WORKERS = 64
MANY = replace(FREE, workers=WORKERS)
BEFORE = IN_A_ROW - 1
"""Submits that follow unknown outcomes before there are enough of them to stop submits."""
ASKING = (RequestKind.LIST, RequestKind.SUBMIT)


class Outage:
    """Carries requests to the service, but for some hours."""

    def __init__(
        self,
        world: World,
        *,
        ends: float,
        how: str,
        kinds: tuple[RequestKind, ...] = tuple(RequestKind),
        list_status: int | None = None,
    ) -> None:
        """Makes a transport.

        Args:
            world: whose transport it wraps.
            ends: when the outage is over; it begins at `BEGINS`.
            how: what becomes of a request: `503`, `reset` or `hang`.
            kinds: requests that it meets.
            list_status: what the list of jobs is refused with, whenever the service answers; None shows it.
        """
        self.ends, self.how, self.kinds, self.list_status = ends, how, kinds, list_status
        self.sent: list[tuple[float, RequestKind]] = []
        self._request = world.transport.request
        self._timeout_s = world.settings.request_timeout_s

    async def request(
        self, request: Request, *, before_first_byte: Callable[[], Awaitable[None]] | None = None
    ) -> Evidence:
        """Sends one request."""

        async def leave() -> None:
            if before_first_byte is not None:
                await before_first_byte()
            self.sent.append((now(), request.kind))

        if BEGINS <= now() < self.ends and request.kind in self.kinds:
            await leave()
            if self.how == "hang":
                await asyncio.sleep(self._timeout_s)
            return answered(503) if self.how == "503" else lost(phase=Phase.BODY_SENT)
        if request.kind is RequestKind.LIST and self.list_status is not None:
            await leave()
            return answered(self.list_status)
        return await self._request(request, before_first_byte=leave)

    def during(self, *kinds: RequestKind) -> int:
        """Counts what left while it lasted."""
        return sum(BEGINS <= at < self.ends and kind in kinds for at, kind in self.sent)


# --- the question ---


class NoLog:
    """Keeps nothing."""

    async def begin_request(self, _: RequestKind) -> int:
        """Gives a number."""
        return 1

    def end_request(self, number: int, status: int | None) -> None:
        """Takes note of nothing."""


def reader_of(evidence: Evidence) -> JobReader:
    """Makes a reader that gets the same evidence for every request."""
    clock = VirtualClock()
    gate = Gate(
        Throttle(rate=None, lockout_s=300.0, max_active_jobs=None),
        pace=None,
        clock=clock,
        observer=lambda _: None,
        on_lockout=lambda *_: None,
        on_limit=lambda _: None,
    )
    transport, log = FakeTransport(lambda _: evidence, clock=clock), NoLog()
    return JobReader(
        endpoint_named(FREE.endpoint),
        base_url=FREE.base_url,
        accept="json",
        gate=gate,
        auth=authenticator_from(
            FREE, gate=gate, transport=transport, request_log=log, observer=lambda _: None, clock=clock
        ),
        transport=transport,
        request_log=log,
        clock=clock,
    )


@pytest.mark.parametrize(
    ("evidence", "trouble"),
    [
        (answered(200, b"<bulkJobs/>"), None),
        (answered(401), None),
        (answered(403), None),
        (answered(404), None),
        (answered(405), None),
        (answered(407), "HTTP 407"),
        (answered(408), "HTTP 408"),
        (answered(429), "HTTP 429"),
        (answered(302), "HTTP 302"),
        (answered(500), "HTTP 500"),
        (answered(503), "HTTP 503"),
        (lost("TimeoutError"), "TimeoutError"),
        (lost("Connection refused", phase=Phase.STARTED), "Connection refused"),
    ],
)
def test_every_answer_of_the_service_is_a_sign_of_life(evidence: Evidence, trouble: str | None) -> None:
    async def main() -> str | None:
        return await reader_of(evidence).trouble()

    assert run_virtual(main()) == trouble


def test_the_page_of_a_portal_is_no_sign_of_life() -> None:
    async def main() -> str | None:
        return await reader_of(answered(200, b"<html>Sign in</html>", content_type="text/html")).trouble()

    assert run_virtual(main()) is not None


# --- hours ---


def watch_resumed(at: list[float]) -> Callable[[Any], None]:
    def observe(event: Any) -> None:
        if isinstance(event, SubmitsResumed):
            at.append(now())

    return observe


@pytest.mark.parametrize(
    ("how", "list_status"), [("503", None), ("reset", None), ("hang", None), ("503", 404), ("reset", 405)]
)
@pytest.mark.parametrize("hours", [1 / 60, 6])
def test_an_outage_holds_what_was_in_flight_and_the_run_goes_on_soon_after_it(
    tmp_path: Path, how: str, list_status: int | None, hours: float
) -> None:
    with World(tmp_path, at_once(latency=LATENCY), chunks=300, settings=MANY) as world:
        ends, resumed = BEGINS + hours * HOUR, list[float]()

        async def main() -> tuple[Outage, RunSummary]:
            outage = Outage(world, ends=ends, how=how, list_status=list_status)
            return outage, await world.engine(transport=outage, observe=watch_resumed(resumed)).run()

        outage, summary = world.go(main())
        world.check()
        tries = len(world.seen(OneSubmitTries))
        held = summary.chunks["held"]
        print(f"{how=} {hours=:.2f} {list_status=}: {held=} {tries=}", end=" ")
        print(f"lists={outage.during(RequestKind.LIST)} submits={outage.during(RequestKind.SUBMIT)}", end=" ")
        print(f"resumed after {resumed[0] - ends:.0f} s")
        assert summary.exit_code == Exit.HELD
        assert summary.ids["pending"] == 0
        assert held <= WORKERS + BEFORE + tries - 1  # the last try ended it
        assert tries - 1 <= hours  # one after each hour without an answer
        assert outage.during(RequestKind.LIST) <= 6 + 6 * hours
        assert outage.during(RequestKind.SUBMIT) <= WORKERS + BEFORE + tries - 1
        # As long as the outage at most, and never longer than the longest wait and the question in flight.
        longest_s = min(max(hours * HOUR, 20.0), 600.0) + world.settings.request_timeout_s
        assert 0 <= resumed[0] - ends <= longest_s + LATENCY.max_s
        assert len(resumed) == 1


def test_when_only_submissions_fail_each_wait_costs_one_chunk(tmp_path: Path) -> None:
    """The question is answered, so that one chunk tries after each wait; the waits are those of any outage."""
    with World(tmp_path, at_once(latency=LATENCY), chunks=300, settings=MANY) as world:

        async def main() -> RunSummary:
            outage = Outage(world, ends=BEGINS + 6 * HOUR, how="reset", kinds=(RequestKind.SUBMIT,))
            return await world.engine(transport=outage).run()

        summary = world.go(main())
        tries = len(world.seen(OneSubmitTries))
        assert summary.chunks["held"] <= WORKERS + BEFORE + tries - 1
        assert tries <= 6 + 6 * 6
        assert summary.ids["pending"] == 0


def test_a_list_that_is_never_answered_does_not_stop_the_run_for_ever(tmp_path: Path) -> None:
    """The outage of submissions is over after a minute; the list of jobs stays broken."""
    with World(tmp_path, at_once(latency=LATENCY), chunks=300, settings=MANY) as world:

        async def main() -> RunSummary:
            outage = Outage(world, ends=BEGINS + 60, how="503", list_status=500)
            return await world.engine(transport=outage).run()

        summary = world.go(main())
        assert summary.chunks["held"] <= WORKERS + BEFORE
        assert summary.ids["pending"] == 0
        assert [event.reason for event in world.seen(OneSubmitTries)] == [
            "the server has not answered for long (HTTP 500)"
        ]


def test_a_pause_is_announced_with_its_reason_each_time_it_gets_longer(tmp_path: Path) -> None:
    with World(tmp_path, at_once(latency=LATENCY), chunks=300) as world:

        async def main() -> RunSummary:
            return await world.engine(transport=Outage(world, ends=BEGINS + 50, how="503")).run()

        world.go(main())
        said = [
            event
            for event in world.events
            if isinstance(event, SubmitsPaused | OneSubmitTries | SubmitsResumed)
        ]
        silent = "the server does not answer (HTTP 503)"
        assert [getattr(event, "reason", None) for event in said] == [
            "3 outcomes in a row are unknown", silent, silent, "the server answers again", None,
        ]  # fmt: skip
        assert [event.wait_s for event in world.seen(SubmitsPaused)] == [10.0, 20.0, 40.0]


def test_the_question_keeps_to_the_window_and_to_the_lock_out(tmp_path: Path) -> None:
    """An account of few requests: the simulated service counts every one, and none is too many."""
    rate = Rate(count=20, period_s=300.0)
    limit = Limit(count=20, window_s=300.0)
    settings = replace(MANY, rate=rate, workers=8)
    with World(tmp_path, at_once(rate=limit, latency=LATENCY), chunks=100, settings=settings) as world:

        async def main() -> RunSummary:
            real = world.transport.request
            seen = 0

            async def request(request: Request, **more: Any) -> Evidence:
                nonlocal seen
                evidence = await real(request, **more)
                seen += request.kind is RequestKind.SUBMIT
                # The service counts it and makes a job, but what comes back tells nothing.
                return answered(503) if seen > 10 and now() < HOUR and request.kind in ASKING else evidence

            world.transport.request = request  # type: ignore[method-assign]
            return await world.engine().run()

        summary = world.go(main())
        assert summary.ids["pending"] == 0
        assert summary.lockouts == 0
        assert summary.chunks["held"] <= 8 + BEFORE + len(world.seen(OneSubmitTries)) - 1


def test_a_token_that_expires_in_an_outage_is_renewed_after_it(tmp_path: Path) -> None:
    """A login would fail in it as well, and too many of them end a run."""
    settings = replace(
        MANY,
        access_token=None,
        client_id="simulator-client",
        client_secret=Secret("simulator-secret"),
        login_url=LOGIN_URL,
    )
    config = at_once(latency=LATENCY, token_ttl_s=1_200.0)
    with World(tmp_path, config, chunks=300, settings=settings) as world:

        async def main() -> tuple[Outage, RunSummary]:
            outage = Outage(world, ends=BEGINS + 2_700.0, how="503")
            return outage, await world.engine(transport=outage).run()

        outage, summary = world.go(main())
        world.check()
        assert summary.ids["pending"] == 0
        assert summary.chunks["held"] <= WORKERS + BEFORE
        assert outage.during(RequestKind.LOGIN) == 0


# --- restarts ---


def test_a_process_that_is_started_again_and_again_in_an_outage_holds_no_more(tmp_path: Path) -> None:
    """The first is killed, those after it are stopped; each asks before it submits anything."""
    with World(tmp_path, at_once(latency=LATENCY), chunks=300, settings=MANY) as world:

        async def main() -> RunSummary:
            await crash(world, world.engine(), after=100)
            await asyncio.sleep(BEGINS)
            outage = Outage(world, ends=BEGINS + HOUR, how="hang")
            for _ in range(10):
                engine = world.engine(transport=outage)
                session = asyncio.create_task(engine.run())
                await asyncio.sleep(200.0)
                engine.drain("restarted", Exit.SIGTERM)
                await session
            assert outage.during(RequestKind.SUBMIT) == 0
            await asyncio.sleep(HOUR)
            return await world.engine(transport=outage).run()

        summary = world.go(main())
        assert summary.chunks["held"] <= WORKERS + BEFORE
        assert summary.ids["pending"] == 0


def test_a_restart_after_known_outcomes_asks_nothing(tmp_path: Path) -> None:
    with World(tmp_path, at_once(latency=LATENCY), chunks=300, settings=MANY) as world:

        async def main() -> RunSummary:
            engine = world.engine()
            session = asyncio.create_task(engine.run())
            await asyncio.sleep(4.0)
            engine.drain("restarted", Exit.SIGTERM)
            await session
            return await world.engine().run()

        summary = world.go(main())
        assert summary.exit_code == Exit.ACCEPTED
        assert world.transport.sent(RequestKind.LIST) == []
        assert world.seen(SubmitsPaused) == []


# --- the end ---


def test_a_run_without_chunks_left_ends_although_submits_are_stopped(tmp_path: Path) -> None:
    with World(tmp_path, at_once(), chunks=4) as world:

        async def main() -> tuple[float, RunSummary]:
            await asyncio.sleep(BEGINS)
            summary = await world.engine(transport=Outage(world, ends=9 * HOUR, how="503")).run()
            return now(), summary

        ended, summary = world.go(main())
        assert summary.chunks["held"] == 4
        assert len(world.seen(SubmitsPaused)) == 1
        assert ended < BEGINS + 5


@pytest.mark.parametrize("after_s", [5.0, 15.0])
def test_a_drain_waits_neither_for_the_end_of_a_pause_nor_for_an_answer_to_the_question(
    tmp_path: Path, after_s: float
) -> None:
    """Five seconds after the last answer the pause of ten goes on, after fifteen the question hangs."""
    with World(tmp_path, at_once(), chunks=100) as world:

        async def main() -> tuple[float, int, RunSummary]:
            await asyncio.sleep(BEGINS)
            outage = Outage(world, ends=BEGINS + 9 * HOUR, how="503")
            engine = world.engine(transport=outage)
            session = asyncio.create_task(engine.run())
            await asyncio.sleep(1.0)
            outage.how = "hang"
            await asyncio.sleep(after_s)
            asked = outage.during(RequestKind.LIST)
            engine.drain("enough", Exit.SIGTERM)
            summary = await session
            return now(), asked, summary

        ended, asked, summary = world.go(main())
        assert asked == (after_s > 10)
        assert summary.exit_code == Exit.SIGTERM
        assert 3 <= summary.chunks["held"] <= FREE.workers + BEFORE
        assert ended == pytest.approx(BEGINS + 1.0 + after_s, abs=1.1)  # the reading has a second to end


def test_a_token_file_that_is_gone_when_the_server_is_asked_stops_the_run(tmp_path: Path) -> None:
    """No token was needed before: the session begins with the question."""
    token = tmp_path / "token"
    token.write_text("simulator-token")
    settings = replace(MANY, access_token=None, access_token_file=token)
    with World(tmp_path, at_once(latency=LATENCY), chunks=300, settings=settings) as world:

        async def main() -> RunSummary:
            await crash(world, world.engine(), after=100)
            token.unlink()
            return await world.engine().run()

        summary = world.go(main())
        assert summary.exit_code == Exit.USAGE
        assert len(world.seen(Stopping)) == 1
