"""The engine on virtual time against the simulated service: nothing lost, nothing sent twice, no limit exceeded."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from support.simulated import BASE_URL, LOGIN_URL, TOKEN, SimulatedTransport, crash_image, json_lines
from support.world import FIRST_ID, SimulatedWorld

from bulkjobs.engine import Engine
from bulkjobs.errors import ConfigError, LedgerError, LedgerLocked, SinkError, SourceChanged
from bulkjobs.events import (
    ChunkHeld,
    Event,
    JobChanged,
    LimitLearned,
    LockedOut,
    LockoutEnded,
    RunFinished,
    RunStarted,
    SlotsFull,
    Stopping,
)
from bulkjobs.exits import Exit
from bulkjobs.ledger import read_run
from bulkjobs.model import Evidence, JobRecord, JobState, Request, RunSummary
from bulkjobs.rundir import RunDir
from bulkjobs.settings import Rate, Secret, Settings
from bulkjobs.simulator import FaultPlan, Limit, Service, ServiceConfig, Span
from bulkjobs.sinks import open_sink
from bulkjobs.sources import FileSource, open_sources
from bulkjobs.testing import FakeTransport, answered, run_virtual

FREE = Settings(
    on_unknown="hold",
    base_url=BASE_URL,
    login_url=LOGIN_URL,
    access_token=Secret(TOKEN),
    rate=None,
    pace=None,
    max_active_jobs=None,
    chunk_size=10,
    workers=4,
    forecast=False,
)
"""No limit of ours, and no request but those that a test is about."""


def now() -> float:
    return asyncio.get_running_loop().time()


def at_once(**more: Any) -> ServiceConfig:
    return ServiceConfig(job_time=Span(min_s=0.0, max_s=0.0), **more)


class World(SimulatedWorld):
    """Is what outlives an engine, and what the server has counted."""

    def __init__(
        self, tmp_path: Path, config: ServiceConfig, *, chunks: int, settings: Settings = FREE
    ) -> None:
        super().__init__(tmp_path, config, chunks=chunks, settings=settings)

    @property
    def books(self) -> dict[str, Any]:
        return self.service.totals()


async def crash(world: World, engine: Engine, *, after: int, pick: random.Random | None = None) -> None:
    """Runs an engine until a number of requests has been sent, and leaves what a killed process leaves."""
    for_ever, crashed = asyncio.Event(), asyncio.Event()
    image = world.tmp_path / "image"
    counted = 0

    async def on_leaving(request: Request) -> None:
        nonlocal counted
        counted += 1
        if counted == after:
            crash_image(world.run_dir, image)
            crashed.set()
        if counted >= after:
            await for_ever.wait()

    engine._transport = world.new_transport(on_leaving)
    session = asyncio.create_task(engine.run())
    dying = asyncio.create_task(crashed.wait())
    await asyncio.wait([session, dying], return_when=asyncio.FIRST_COMPLETED)
    for task in (session, dying):
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    if crashed.is_set():
        shutil.rmtree(world.run_dir)
        image.rename(world.run_dir)
    world.new_transport()


# --- a whole run ---


def test_each_id_is_accepted_once_and_each_job_has_one_line(tmp_path: Path) -> None:
    with World(tmp_path, at_once(), chunks=25) as world:
        summary = world.go(world.engine().run())
        assert summary.exit_code == Exit.ACCEPTED
        assert summary.ids == {
            "read": 250,
            "invalid": 0,
            "duplicate": 0,
            "accepted": 250,
            "refused": 0,
            "held": 0,
            "pending": 0,
        }
        assert world.check() == summary.as_dict()
        assert isinstance(world.events[0], RunStarted)
        assert world.events[-1] == RunFinished(summary=summary)


def test_invalid_and_duplicate_ids_are_told_apart_and_counted(tmp_path: Path) -> None:
    with World(tmp_path, at_once(), chunks=0) as world:
        world.source.write_text("1\n2\nx\n2\n3\n-5\n\n1\n4")
        summary = world.go(world.engine().run())
        assert summary.exit_code == Exit.PARTS_REFUSED
        assert summary.ids["read"] == 8
        assert (summary.ids["accepted"], summary.ids["invalid"], summary.ids["duplicate"]) == (4, 2, 2)
        assert [line["line"] for line in json_lines(world.run_dir / "invalid.jsonl")] == [3, 6]


def test_a_source_without_ids_is_finished_at_once(tmp_path: Path) -> None:
    with World(tmp_path, at_once(), chunks=0) as world:
        world.source.write_text("\n\n")
        assert world.go(world.engine().run()).exit_code == Exit.ACCEPTED
        assert not world.transport.requests


def test_without_limits_as_many_requests_are_in_flight_as_there_are_workers(tmp_path: Path) -> None:
    in_flight = most = 0

    async def handler(request: Request) -> Evidence:
        nonlocal in_flight, most
        in_flight += 1
        most = max(most, in_flight)
        await asyncio.sleep(1.0)
        in_flight -= 1
        return answered(200, b'{"jobId": "j%d", "status": "accepted", "type": "contacts"}' % id(request))

    with World(tmp_path, at_once(), chunks=30) as world:
        transport = FakeTransport(handler, clock=world.clock)
        world.go(world.engine(transport=transport, workers=7).run())
        assert most == 7


# --- the account's limits ---


def test_the_window_of_the_service_is_never_exceeded(tmp_path: Path) -> None:
    """300 chunks and their status requests through 20 requests in five minutes: hours, and no lock-out."""
    config = ServiceConfig(
        rate=Limit(count=20, window_s=300.0),
        max_active_jobs=4,
        job_time=Span(min_s=30.0, max_s=400.0),
        latency=Span(min_s=0.05, max_s=20.0),
        lockout_extends=True,
    )
    settings = replace(
        FREE, rate=Rate(count=20, period_s=300.0), max_active_jobs=4, pace="default", poll_s=60.0
    )
    with World(tmp_path, config, chunks=300, settings=settings) as world:

        async def main() -> tuple[RunSummary, float]:
            return await world.engine().run(), now()

        summary, elapsed_s = world.go(main())
        assert summary.exit_code == Exit.ACCEPTED
        assert world.books["lockouts"] == 0
        assert 0 < world.books["max_in_window"] <= 20
        assert elapsed_s > 4 * 3600
        assert summary.elapsed_s == pytest.approx(elapsed_s, abs=0.1)
        assert world.check()["requests"]["submit"] == 300


def test_a_lock_out_is_waited_out_without_one_request_and_teaches_the_limit(tmp_path: Path) -> None:
    config = at_once(rate=Limit(count=10, window_s=300.0), lockout_s=300.0, lockout_extends=True)
    settings = replace(FREE, rate=Rate(count=30, period_s=300.0), workers=1)
    with World(tmp_path, config, chunks=40, settings=settings) as world:
        summary = world.go(world.engine().run())
        assert summary.exit_code == Exit.ACCEPTED
        assert world.books["requests_during_lockout"] == 0
        assert world.books["lockouts"] == summary.lockouts == 1
        assert summary.requests["throttled"] == 1
        (told,) = world.seen(LockedOut)
        assert told.wait_s == pytest.approx(309.0, abs=0.1)
        assert len(world.seen(LockoutEnded)) == 1
        assert [told.requests for told in world.seen(LimitLearned)] == [5, 7, 8, 9]
        world.check()


@pytest.mark.parametrize("workers", [2, 8])
def test_requests_in_flight_when_a_lock_out_begins_are_the_only_ones_it_meets(
    tmp_path: Path, workers: int
) -> None:
    config = at_once(
        rate=Limit(count=10, window_s=300.0), lockout_extends=True, latency=Span(min_s=0.5, max_s=2.0)
    )
    with World(tmp_path, config, chunks=40, settings=replace(FREE, workers=workers)) as world:
        summary = world.go(world.engine(rate=Rate(count=100, period_s=300.0)).run())
        assert summary.exit_code == Exit.ACCEPTED
        assert world.books["requests_during_lockout"] < workers
        world.check()


def test_jobs_of_minutes_go_through_two_slots_without_one_refusal(tmp_path: Path) -> None:
    config = ServiceConfig(max_active_jobs=2, job_time=Span(min_s=60.0, max_s=600.0))
    settings = replace(FREE, max_active_jobs=2, poll_s=30.0)
    with World(tmp_path, config, chunks=40, settings=settings) as world:
        summary = world.go(world.engine().run())
        assert summary.exit_code == Exit.ACCEPTED
        assert world.books["submits_refused"] == 0
        assert summary.jobs["finished"] >= 38
        assert world.seen(SlotsFull)
        assert {event.state for event in world.seen(JobChanged)} >= {JobState.PROCESSING, JobState.FINISHED}
        world.check()


def test_slots_that_other_peoples_jobs_hold_are_waited_for(tmp_path: Path) -> None:
    config = ServiceConfig(max_active_jobs=1, job_time=Span(min_s=300.0, max_s=300.0))
    with World(tmp_path, config, chunks=5, settings=replace(FREE, max_active_jobs=3)) as world:
        summary = world.go(world.engine().run())
        assert summary.exit_code == Exit.ACCEPTED
        # Some tries are needed, since nobody tells when somebody else's job ends; they become fewer.
        assert world.books["submits_refused"] < 40
        world.check()


def test_a_run_without_quota_stops_with_all_that_was_accepted_and_goes_on_later(tmp_path: Path) -> None:
    with World(tmp_path, at_once(quota_ids=70), chunks=20) as world:
        summary = world.go(world.engine().run())
        assert summary.exit_code == Exit.STOPPED
        assert (summary.ids["accepted"], summary.ids["held"]) == (70, 0)
        assert "quota" in " ".join(event.reason for event in world.seen(Stopping))
        world.check()
    with Service(at_once(seed=1)) as service:  # somebody bought more
        world.service = service
        world.new_transport()
        summary = world.go(world.engine().run())
        assert summary.exit_code == Exit.ACCEPTED
        assert service.totals()["jobs"] == 13


def test_a_refused_token_without_a_successor_stops_the_run_and_loses_nothing(tmp_path: Path) -> None:
    with World(tmp_path, at_once(), chunks=10) as world:
        summary = world.go(world.engine(access_token=Secret("another")).run())
        assert summary.exit_code == Exit.STOPPED
        assert summary.ids["pending"] > 0
        assert summary.ids["held"] == 0
        assert world.go(world.engine().run()).exit_code == Exit.ACCEPTED
        world.check()


def test_a_login_mints_the_tokens_that_expire_on_the_way(tmp_path: Path) -> None:
    config = ServiceConfig(max_active_jobs=1, job_time=Span(min_s=600.0, max_s=600.0), token_ttl_s=3600.0)
    settings = replace(
        FREE,
        access_token=None,
        client_id="simulator-client",
        client_secret=Secret("simulator-secret"),
        max_active_jobs=1,
    )
    with World(tmp_path, config, chunks=30, settings=settings) as world:
        summary = world.go(world.engine().run())
        assert summary.exit_code == Exit.ACCEPTED
        assert 4 <= summary.requests["login"] <= 8
        # A submit that waited for its slot for longer than its token lived finds out once.
        assert world.books["unauthorized"] <= 30
        world.check()


def test_a_token_file_that_vanishes_stops_the_run_without_giving_up_what_is_in_flight(tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    token_file.write_text(TOKEN)
    settings = replace(FREE, access_token=None, access_token_file=token_file)
    with World(tmp_path, at_once(latency=Span(min_s=1.0, max_s=9.0)), chunks=20, settings=settings) as world:

        async def refuse(request: Request) -> Evidence:
            if len(world.transport.requests) == 6:
                token_file.unlink(missing_ok=True)
                return answered(401)
            return await world.transport.request(request)

        summary = world.go(world.engine(transport=FakeTransport(refuse, clock=world.clock)).run())
        assert summary.exit_code == Exit.USAGE
        assert summary.ids["held"] == 0
        assert summary.ids["pending"] > 0
        world.check()


# --- stopping and going on ---


def test_drain_records_what_is_in_flight_and_sends_nothing_more(tmp_path: Path) -> None:
    with World(tmp_path, at_once(latency=Span(min_s=5.0, max_s=9.0)), chunks=30) as world:

        async def main() -> RunSummary:
            engine = world.engine()
            asyncio.get_running_loop().call_later(12.0, engine.drain, "enough", Exit.SIGINT)
            return await engine.run()

        summary = world.go(main())
        assert summary.exit_code == Exit.SIGINT
        assert summary.ids["held"] == 0
        assert summary.chunks["accepted"] == world.books["jobs"] < 30
        world.check()
        assert world.go(world.engine().run()).exit_code == Exit.ACCEPTED
        assert world.books["repeated_bodies"] == 0
        assert world.check()["chunks"]["total"] == 30


def test_drain_during_a_lock_out_does_not_wait_for_its_end(tmp_path: Path) -> None:
    config = at_once(rate=Limit(count=5, window_s=300.0), lockout_s=300.0)
    with World(tmp_path, config, chunks=30) as world:

        async def main() -> float:
            engine = world.engine()
            asyncio.get_running_loop().call_later(20.0, engine.drain, "enough", Exit.SIGTERM)
            summary = await engine.run()
            assert summary.exit_code == Exit.SIGTERM
            return now()

        assert world.go(main()) < 21.0
        world.check()


def test_drain_before_anything_was_read_says_that_work_is_left(tmp_path: Path) -> None:
    with World(tmp_path, at_once(), chunks=30) as world:
        engine = world.engine()
        engine.drain("enough", Exit.SIGINT)
        assert world.go(engine.run()).exit_code == Exit.SIGINT
        assert not world.transport.requests
        assert world.go(world.engine().run()).exit_code == Exit.ACCEPTED
        world.check()


def test_drain_does_not_wait_for_a_source_that_gives_nothing(tmp_path: Path) -> None:
    async def slow_ids():
        for one in range(25):
            yield one + 1
        await asyncio.sleep(86_400)
        yield 26

    with World(tmp_path, at_once(), chunks=0) as world:

        async def main() -> tuple[RunSummary, float]:
            engine = world.engine(sources=open_sources([slow_ids()]))
            asyncio.get_running_loop().call_later(20.0, engine.drain, "enough", Exit.SIGINT)
            return await engine.run(), now()

        summary, elapsed_s = world.go(main())
        assert elapsed_s < 30.0
        assert summary.exit_code == Exit.SIGINT


def test_cancel_holds_what_is_in_flight_and_keeps_the_rest_pending(tmp_path: Path) -> None:
    with World(tmp_path, at_once(latency=Span(min_s=50.0, max_s=90.0)), chunks=30) as world:

        async def main() -> tuple[RunSummary, float]:
            engine = world.engine()

            def stop() -> None:
                engine.drain("enough", Exit.SIGTERM)
                engine.cancel()

            asyncio.get_running_loop().call_later(12.0, stop)
            return await engine.run(), now()

        summary, elapsed_s = world.go(main())
        assert elapsed_s < 13.0
        assert summary.exit_code == Exit.SIGTERM
        assert summary.chunks["held"] == 4
        assert len(world.seen(ChunkHeld)) in (0, 4)
        world.check()
        assert world.go(world.engine().run()).exit_code == Exit.HELD
        assert world.check()["ids"]["held"] == 40


def test_a_cancelled_session_is_not_recorded_as_a_success(tmp_path: Path) -> None:
    with World(tmp_path, at_once(latency=Span(min_s=50.0, max_s=90.0)), chunks=30) as world:

        async def main() -> None:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(world.engine().run(), 10.0)

        world.go(main())
        assert world.check()["exit_code"] == Exit.SIGINT
        assert read_run(world.run_dir).exit_code == Exit.SIGINT


def test_a_bug_is_recorded_as_one(tmp_path: Path) -> None:
    def observe(event: Event) -> None:
        if len(world.events) > 8:
            raise ZeroDivisionError

    with World(tmp_path, at_once(), chunks=30) as world:
        with pytest.raises(ZeroDivisionError):
            world.go(world.engine(observe=observe).run())
        assert world.check()["exit_code"] == Exit.BUG
        world.go(world.engine().run())
        world.check()


def test_the_same_command_on_a_finished_run_sends_nothing_and_ends_alike(tmp_path: Path) -> None:
    with World(tmp_path, at_once(faults=FaultPlan.of("submit:reset_after@3")), chunks=10) as world:
        first = world.go(world.engine().run())
        assert first.exit_code == Exit.HELD
        files = {path.name: path.read_bytes() for path in world.run_dir.glob("*.jsonl")}
        sent = len(world.transport.requests)
        again = world.go(world.engine().run())
        resumed = world.go(world.engine(sources=[]).run())
        assert again == resumed == first
        assert len(world.transport.requests) == sent
        assert {path.name: path.read_bytes() for path in world.run_dir.glob("*.jsonl")} == files


def test_a_finished_run_can_be_looked_at_after_its_source_is_gone(tmp_path: Path) -> None:
    with World(tmp_path, at_once(), chunks=5) as world:
        world.go(world.engine().run())
        world.source.unlink()
        assert world.go(world.engine(sources=[]).run()).exit_code == Exit.ACCEPTED


@pytest.mark.parametrize("after", [3, 19, 20, 21, 33])
def test_a_restart_in_the_middle_of_a_window_does_not_exceed_it(tmp_path: Path, after: int) -> None:
    config = at_once(rate=Limit(count=20, window_s=300.0), latency=Span(min_s=0.1, max_s=4.0))
    settings = replace(FREE, rate=Rate(count=20, period_s=300.0))
    with World(tmp_path, config, chunks=60, settings=settings) as world:

        async def main() -> RunSummary:
            await crash(world, world.engine(), after=after)
            await asyncio.sleep(2.0)
            return await world.engine().run()

        summary = world.go(main())
        assert summary.exit_code in (Exit.ACCEPTED, Exit.HELD)
        assert world.books["lockouts"] == 0
        assert world.books["max_in_window"] <= 20
        world.check()


@pytest.mark.parametrize("pause_s", [0.0, 200.0, 400.0])
def test_a_restart_in_the_middle_of_a_lock_out_sends_nothing_into_it(tmp_path: Path, pause_s: float) -> None:
    config = at_once(rate=Limit(count=10, window_s=300.0), lockout_extends=True)
    with World(tmp_path, config, chunks=15, settings=replace(FREE, workers=1)) as world:

        async def main() -> RunSummary:
            engine = world.engine()
            asyncio.get_running_loop().call_later(100.0, engine.drain, "restart", Exit.SIGTERM)
            assert (await engine.run()).exit_code == Exit.SIGTERM
            await asyncio.sleep(pause_s)
            return await world.engine().run()

        summary = world.go(main())
        assert summary.exit_code == Exit.ACCEPTED
        assert world.books["requests_during_lockout"] == 0
        assert world.books["lockouts"] == 1
        world.check()


def test_a_restart_knows_the_jobs_that_hold_the_slots(tmp_path: Path) -> None:
    config = ServiceConfig(max_active_jobs=2, job_time=Span(min_s=600.0, max_s=600.0))
    with World(tmp_path, config, chunks=8, settings=replace(FREE, max_active_jobs=2)) as world:

        async def main() -> RunSummary:
            engine = world.engine()
            asyncio.get_running_loop().call_later(100.0, engine.drain, "restart", Exit.SIGTERM)
            await engine.run()
            return await world.engine().run()

        assert world.go(main()).exit_code == Exit.ACCEPTED
        assert world.books["submits_refused"] == 0
        world.check()


def test_input_that_cannot_be_read_again_is_kept_and_gone_on_with(tmp_path: Path) -> None:
    with World(tmp_path, at_once(latency=Span(min_s=1.0, max_s=1.0)), chunks=0) as world:
        ids = [str(one) for one in range(1, 401)]

        async def main() -> RunSummary:
            engine = world.engine(sources=open_sources([iter(ids)]))
            asyncio.get_running_loop().call_later(3.5, engine.drain, "restart", Exit.SIGTERM)
            stopped = await engine.run()
            assert stopped.exit_code == Exit.SIGTERM
            return await world.engine(sources=open_sources([iter(ids)])).run()

        assert world.go(main()).exit_code == Exit.ACCEPTED
        world.ids = range(1, 401)
        assert world.check()["chunks"]["total"] == 40


# --- what is refused before anything is sent ---


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"chunk_size": 20}, "chunk size 10, not 20"),
        ({"dedupe": False}, "dedupe True, not False"),
        ({"base_url": "http://127.0.0.1:9/api/v2"}, "base url"),
    ],
)
def test_a_session_that_does_not_belong_to_the_run_is_refused(
    tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    with World(tmp_path, at_once(), chunks=5) as world:
        world.go(world.engine().run())
        sent = len(world.transport.requests)
        with pytest.raises(ConfigError, match=said):
            world.go(world.engine(**changed).run())
        assert len(world.transport.requests) == sent


def test_other_sources_are_refused(tmp_path: Path) -> None:
    with World(tmp_path, at_once(), chunks=5) as world:
        world.go(world.engine().run())
        other = tmp_path / "other.txt"
        other.write_text("1\n")
        with pytest.raises(ConfigError, match="ids.txt, not .*other.txt"):
            world.go(world.engine(sources=[FileSource(other)]).run())


def test_nothing_can_be_resumed_where_there_is_no_run(tmp_path: Path) -> None:
    with World(tmp_path, at_once(), chunks=5) as world, pytest.raises(ConfigError, match="no run in"):
        world.go(world.engine(sources=[]).run())


def test_another_account_is_refused(tmp_path: Path) -> None:
    with World(tmp_path, at_once(), chunks=5) as world:
        login = {"access_token": None, "client_secret": Secret("simulator-secret")}
        world.go(world.engine(client_id="simulator-client", **login).run())
        with pytest.raises(ConfigError, match="account"):
            world.go(world.engine(client_id="somebody-else", **login).run())


def test_a_source_that_changed_is_found_before_anything_is_sent(tmp_path: Path) -> None:
    with World(tmp_path, at_once(latency=Span(min_s=1.0, max_s=1.0)), chunks=20) as world:

        async def main() -> None:
            engine = world.engine()
            asyncio.get_running_loop().call_later(1.5, engine.drain, "restart", Exit.SIGTERM)
            await engine.run()
            text, status = world.source.read_text(), world.source.stat()
            world.source.write_text(text.replace(str(FIRST_ID + 57), "77"))
            sent = len(world.transport.requests)
            with pytest.raises(SourceChanged, match="chunk 6"):
                await world.engine().run()
            assert len(world.transport.requests) == sent
            world.source.write_text(text)
            os.utime(world.source, ns=(status.st_atime_ns, status.st_mtime_ns))
            assert (await world.engine().run()).exit_code == Exit.ACCEPTED

        world.go(main())
        world.check()


def test_a_second_engine_on_the_same_run_is_refused_before_any_request(tmp_path: Path) -> None:
    with World(tmp_path, at_once(latency=Span(min_s=1.0, max_s=1.0)), chunks=20) as world:

        async def main() -> RunSummary:
            first = asyncio.create_task(world.engine().run())
            await asyncio.sleep(1.5)
            other = SimulatedTransport(world.service, clock=world.clock)
            with pytest.raises(LedgerLocked):
                await world.engine(transport=other).run()
            assert not other.requests
            return await first

        assert world.go(main()).exit_code == Exit.ACCEPTED
        world.check()


# --- sinks and disk ---


@dataclass
class ShakySink:
    """Fails from the n-th record on, until it is mended."""

    fails_from: float
    name: str = "shaky"
    taken: list[int] = field(default_factory=list)

    async def open(self, position: int | None, coming: Sequence[JobRecord] = ()) -> int | None:
        del position
        return None

    async def write(self, records: Sequence[JobRecord]) -> int | None:
        if len(self.taken) + len(records) >= self.fails_from:
            raise SinkError("The shaky sink is full.")
        self.taken += [record.chunk for record in records]
        return None

    async def close(self) -> None:
        pass


def test_a_sink_that_fails_ends_the_session_with_6_and_gets_the_rest_later(tmp_path: Path) -> None:
    sink = ShakySink(fails_from=7)
    with World(tmp_path, at_once(latency=Span(min_s=0.5, max_s=2.0)), chunks=30) as world:
        summary = world.go(world.engine(sinks=[sink]).run())
        assert summary.exit_code == Exit.STORAGE
        assert summary.ids["held"] == 0
        assert summary.chunks["accepted"] == world.books["jobs"] > len(sink.taken)
        sink.fails_from = 1e9
        assert world.go(world.engine(sinks=[sink]).run()).exit_code == Exit.ACCEPTED
        assert sorted(sink.taken) == list(range(1, 31))
        assert world.books["jobs"] == 30


def test_of_two_sinks_the_good_one_has_each_record_once_although_the_other_failed(tmp_path: Path) -> None:
    sink = ShakySink(fails_from=7)
    with World(tmp_path, at_once(latency=Span(min_s=0.5, max_s=2.0)), chunks=30) as world:
        for fails_from in (7, 1e9):
            sink.fails_from = fails_from
            world.go(world.engine(sinks=[open_sink(world.run_dir / "jobs.jsonl"), sink]).run())
        assert world.check()["exit_code"] == Exit.ACCEPTED


def test_a_sink_that_cannot_be_opened_is_found_before_anything_is_sent(tmp_path: Path) -> None:
    with World(tmp_path, at_once(), chunks=5) as world:
        summary = world.go(world.engine(sinks=[open_sink(tmp_path / "no such folder" / "x.jsonl")]).run())
        assert summary.exit_code == Exit.STORAGE
        assert not world.transport.requests


def test_refused_ids_that_cannot_be_kept_are_not_called_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = b'{"errorNumber": "400-108", "message": "Illegal values for the field contactId."}'
    write = RunDir.write

    def full(self: RunDir, path: Path, content: bytes) -> None:
        if path.parent == self.refused:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write(self, path, content)

    async def main() -> RunSummary:
        transport = FakeTransport(lambda _: answered(400, refusal), clock=world.clock)
        monkeypatch.setattr(RunDir, "write", full)
        stopped = await world.engine(transport=transport).run()
        assert stopped.exit_code == Exit.STORAGE
        assert (stopped.ids["refused"], stopped.ids["pending"]) == (0, stopped.ids["read"])
        monkeypatch.undo()
        return await world.engine(transport=transport).run()

    with World(tmp_path, at_once(), chunks=6) as world:
        summary = world.go(main())
        assert summary.exit_code == Exit.PARTS_REFUSED
        assert summary.ids["refused"] == 60
        world.check()


def test_a_ledger_that_fails_ends_the_run_with_its_own_error(tmp_path: Path) -> None:
    """Whichever task meets the failure first, the caller sees a LedgerError and no group of errors."""
    config = ServiceConfig(max_active_jobs=2, job_time=Span(min_s=60.0, max_s=60.0))
    with World(tmp_path, config, chunks=10, settings=replace(FREE, max_active_jobs=2)) as world:

        def observe(event: Event) -> None:
            if isinstance(event, JobChanged):
                raise LedgerError("The disk is gone.")

        with pytest.raises(LedgerError, match="disk is gone"):
            world.go(world.engine(observe=observe).run())


# --- several at once ---


def test_engines_of_different_runs_work_side_by_side(tmp_path: Path) -> None:
    worlds = []
    for name in ("a", "b", "c"):
        folder = tmp_path / name
        folder.mkdir()
        worlds.append(World(folder, at_once(latency=Span(min_s=0.1, max_s=3.0)), chunks=12))

    async def main() -> list[RunSummary]:
        return await asyncio.gather(*(world.engine().run() for world in worlds))

    assert [summary.exit_code for summary in run_virtual(main())] == [Exit.ACCEPTED] * 3
    for world in worlds:
        with world:
            world.check()


# --- whatever goes wrong ---

FAULTS = (
    "submit:reset_after",
    "submit:reset_before",
    "submit:close_after",
    "submit:http500_before",
    "submit:http502_after",
    "submit:http503_after",
    "submit:cut_after",
    "submit:html_before",
    "submit:html_after",
    "submit:error200_before",
    "submit:mislabel_after",
    "submit:http400_before",
    "submit:http401_before",
    "submit:http425_before",
    "submit:reset_late",
    "status:reset_before",
    "status:http404_before",
    "status:http500_before",
    "status:cut_after",
    "status:html_before",
)


def stormy(seed: int) -> tuple[ServiceConfig, Settings]:
    """Draws a service that fails in some ways, and settings that do not quite fit its limits."""
    draw = random.Random(seed)
    faults = [f"{name}={draw.uniform(0.005, 0.08):.3f}" for name in draw.sample(FAULTS, 5)]
    limited = draw.random() < 0.6
    count = draw.randint(8, 40)
    slots = draw.choice([None, 1, 2, 3])
    config = ServiceConfig(
        seed=seed,
        rate=Limit(count=count, window_s=300.0) if limited else None,
        lockout_extends=draw.random() < 0.5,
        retry_after=draw.choice([None, "seconds", "date", "soon"]),
        max_active_jobs=slots,
        slots_refusal=draw.choice([400, 429]),
        job_time=Span(min_s=0.0, max_s=draw.choice([1.0, 120.0])),
        job_failure_rate=0.1,
        latency=Span(min_s=0.0, max_s=draw.choice([0.0, 2.0, 40.0])),
        faults=FaultPlan.of(*faults, late_s=60.0),
    )
    settings = replace(
        FREE,
        rate=Rate(count=max(2, int(count * draw.uniform(0.5, 1.6))), period_s=300.0) if limited else None,
        max_active_jobs=draw.choice([slots, 2]),
        workers=draw.choice([1, 3, 8]),
        accept=draw.choice(["json", "xml"]),
        request_timeout_s=draw.choice([30.0, 300.0]),
    )
    return config, settings


async def run_to_the_end(world: World, draw: random.Random) -> RunSummary:
    """Gives the same command again until it has nothing left to do; some sessions crash, some are stopped."""
    for _ in range(draw.choice([0, 0, 1, 3])):
        await crash(world, world.engine(), after=draw.randint(1, 30))
        await asyncio.sleep(draw.choice([0.0, 30.0, 500.0]))
    for _ in range(40):
        summary = await world.engine().run()
        if summary.exit_code != Exit.STOPPED:
            return summary
        await asyncio.sleep(30.0)
    return summary


@pytest.mark.parametrize("block", range(8))
def test_whatever_goes_wrong_nothing_is_lost_and_nothing_is_sent_twice(tmp_path: Path, block: int) -> None:
    for seed in range(block * 10, block * 10 + 10):
        config, settings = stormy(seed)
        folder = tmp_path / str(seed)
        folder.mkdir()
        with World(folder, config, chunks=30, settings=settings) as world:
            try:
                summary = world.go(run_to_the_end(world, random.Random(seed)))
                assert summary.exit_code in (Exit.ACCEPTED, Exit.HELD)
                assert summary.ids["pending"] == 0
                assert summary.as_dict() == world.check()
                if not config.faults.rules:
                    assert summary.exit_code == Exit.ACCEPTED
            except BaseException:
                print(f"seed {seed}: {config}, {settings}")
                raise
