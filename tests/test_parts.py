"""What goes out in the place of a chunk that is too large, or has bad ids: engine on virtual time, books that judge."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import shutil
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.fussy import FussyService
from support.simulated import BASE_URL, LOGIN_URL, TOKEN, Account, SimulatedTransport, crash_image, json_lines
from support.world import run_on

from bulkjobs.engine import Engine
from bulkjobs.errors import SourceChanged
from bulkjobs.events import ChunkSplit, Event
from bulkjobs.exits import Exit
from bulkjobs.ledger import read_run
from bulkjobs.model import FIRST_PART, Evidence, Request, RequestKind, RunSummary
from bulkjobs.rundir import RunDir
from bulkjobs.settings import Rate, Secret, Settings
from bulkjobs.simulator import FaultPlan, Limit, ServiceConfig, Span
from bulkjobs.sinks import open_sink
from bulkjobs.sources import FileSource
from bulkjobs.testing import VirtualClock

SIZE = 16
FIRST_ID = 7_000_001
FREE = Settings(
    base_url=BASE_URL,
    login_url=LOGIN_URL,
    access_token=Secret(TOKEN),
    rate=None,
    pace=None,
    max_active_jobs=None,
    chunk_size=SIZE,
    workers=1,
    on_unknown="hold",
    forecast=False,
)
BISECT = replace(FREE, bisect=True)


def fussy(
    *,
    bad: frozenset[int] = frozenset(),
    most_bytes: int | None = None,
    most_ids: tuple[int, str] | None = None,
    **more: Any,
) -> FussyService:
    """Makes a service whose jobs end at once unless told otherwise."""
    config = ServiceConfig(**{"job_time": Span(min_s=0.0, max_s=0.0)} | more)
    return FussyService(config, bad=bad, most_bytes=most_bytes, most_ids=most_ids)


class World:
    """A service, a source of ids and a run directory, at which one engine after the other works."""

    def __init__(
        self, tmp_path: Path, service: FussyService, *, chunks: int = 3, settings: Settings = FREE
    ) -> None:
        self.tmp_path = tmp_path
        self.service = service
        self.clock = VirtualClock()
        self.settings = settings
        assert settings.chunk_size is not None
        self.ids = range(FIRST_ID, FIRST_ID + chunks * settings.chunk_size)
        self.source = tmp_path / "ids.txt"
        self.source.write_text("".join(f"{one}\n" for one in self.ids))
        self.run_dir = tmp_path / "run"
        self.events: list[Event] = []
        self.transport = SimulatedTransport(service, clock=self.clock)

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        self.service.close()

    def engine(self, *, transport: Any = None, **changed: Any) -> Engine:
        run_dir = RunDir(self.run_dir)
        return Engine(
            replace(self.settings, **changed),
            run_dir,
            sources=[FileSource(self.source)],
            sinks=[open_sink(run_dir.jobs)],
            observers=[self.events.append],
            clock=self.clock,
            transport=transport or self.transport,
            jitter=random.Random(1),
        )

    def go(self, main: Coroutine[Any, Any, Any] | None = None) -> Any:
        """Runs something, by default a session, on virtual time; what comes next begins where it ended."""
        return run_on(self.clock, self.engine().run() if main is None else main)

    @property
    def sent(self) -> list[bytes]:
        """The bodies that the service has seen, in order."""
        return [request.body for request in self.transport.sent(RequestKind.SUBMIT)]

    @property
    def records(self) -> list[dict[str, Any]]:
        return json_lines(self.run_dir / "jobs.jsonl")

    @property
    def reasons(self) -> list[dict[str, Any]]:
        return json_lines(self.run_dir / "refused" / "reasons.jsonl")

    @property
    def refused_ids(self) -> list[int]:
        return sorted(
            int(one)
            for path in (self.run_dir / "refused").glob("chunk-*.txt")
            for one in path.read_text().split()
        )

    def check(self) -> dict[str, Any]:
        """Compares the run with the books of the service, and its parts with each other."""
        summary = Account.of(self.run_dir, self.service, self.clock.epoch_utc + 1e9).check(self.ids)
        assert summary["chunks"]["total"] == sum(
            count for name, count in summary["chunks"].items() if name != "total"
        )
        assert {line["file"] for line in self.reasons} == {
            path.name for path in (self.run_dir / "refused").glob("chunk-*.txt")
        }
        assert summary["ids"]["refused"] == len(self.refused_ids)
        return summary


def nth(index: int) -> int:
    return FIRST_ID + index


def size_of(ids: int) -> int:
    """Gives the bytes of a body with so many ids."""
    return 8 * ids - 1


# --- too large ---


def test_a_chunk_that_is_too_large_goes_out_in_halves_until_they_pass(tmp_path: Path) -> None:
    with World(tmp_path, fussy(most_bytes=size_of(5)), chunks=1) as world:
        summary = world.go()
        assert [len(body.split()) for body in world.sent] == [16, 8, 4, 4, 8, 4, 4]
        assert summary.exit_code == Exit.ACCEPTED
        assert summary.chunks == {"total": 4, "accepted": 4, "refused": 0, "held": 0, "pending": 0}
        assert summary.ids["accepted"] == summary.ids["read"] == 16
        assert [
            (told.chunk, told.ids, told.parts) for told in world.events if isinstance(told, ChunkSplit)
        ] == [
            (1, 16, 2),
            (FIRST_PART, 8, 2),
            (FIRST_PART + 1, 8, 2),
        ]
        world.check()


@pytest.mark.parametrize("number", ["400-185", "400-186"])
def test_too_many_ids_for_one_request_are_divided_as_well(tmp_path: Path, number: str) -> None:
    with World(tmp_path, fussy(most_ids=(8, number))) as world:
        summary = world.go()
        assert summary.exit_code == Exit.ACCEPTED
        assert [record["ids"] for record in world.records] == [8] * 6
        world.check()


def test_parts_are_numbered_behind_all_chunks_and_have_records_of_their_own(tmp_path: Path) -> None:
    """A record tells the ids of its part; source and line are those of the chunk that the source gave."""
    with World(tmp_path, fussy(most_bytes=size_of(8)), chunks=2) as world:
        world.go()
        assert [record["chunk"] for record in world.records] == [FIRST_PART + number for number in range(4)]
        for record, first in zip(world.records, (0, 8, 16, 24), strict=True):
            assert (record["first_id"], record["last_id"]) == (str(nth(first)), str(nth(first + 7)))
            body = "\n".join(str(nth(index)) for index in range(first, first + 8)).encode()
            assert record["digest"] == hashlib.sha256(body).hexdigest()
            assert record["attempt"] == 1
        world.check()


def test_a_single_id_that_is_too_large_is_refused_and_the_rest_accepted(tmp_path: Path) -> None:
    with World(tmp_path, fussy(most_bytes=size_of(4)), chunks=1) as world:
        giant = 10**18
        ids = [*world.ids[:-1], giant]
        world.source.write_text("".join(f"{one}\n" for one in ids))
        world.service.most_bytes = 18
        summary = world.go()
        assert summary.exit_code == Exit.PARTS_REFUSED
        assert (summary.ids["accepted"], summary.ids["refused"]) == (15, 1)
        assert world.refused_ids == [giant]
        assert "413" in world.reasons[0]["reason"]
        assert "only one id" in world.reasons[0]["reason"]


def test_a_chunk_of_one_id_that_is_too_large_is_refused_as_it_is(tmp_path: Path) -> None:
    with World(tmp_path, fussy(most_bytes=1), settings=replace(FREE, chunk_size=1)) as world:
        summary = world.go()
        assert summary.exit_code == Exit.PARTS_REFUSED
        assert summary.chunks["refused"] == summary.chunks["total"] == 3
        assert [line["chunk"] for line in world.reasons] == [1, 2, 3]
        assert len(world.sent) == 3
        world.check()


# --- bad ids among good ones ---


def test_without_bisect_a_chunk_with_a_bad_id_is_refused_whole(tmp_path: Path) -> None:
    with World(tmp_path, fussy(bad=frozenset({nth(20)}))) as world:
        summary = world.go()
        assert summary.exit_code == Exit.PARTS_REFUSED
        assert world.refused_ids == [nth(index) for index in range(16, 32)]
        assert len(world.sent) == 3
        world.check()


@pytest.mark.parametrize("bad", range(SIZE))
def test_with_bisect_one_bad_id_is_refused_alone(tmp_path: Path, bad: int) -> None:
    with World(tmp_path, fussy(bad=frozenset({nth(bad)})), chunks=1, settings=BISECT) as world:
        summary = world.go()
        assert summary.exit_code == Exit.PARTS_REFUSED
        assert (summary.ids["accepted"], summary.ids["refused"]) == (15, 1)
        assert world.refused_ids == [nth(bad)]
        (line,) = world.reasons
        assert line["file"] == f"chunk-{line['chunk']}.txt"
        assert line["chunk"] >= FIRST_PART
        assert (line["parent"], line["first"], line["line"], line["ids"]) == (1, bad, 1, 1)
        assert "400-187" in line["reason"]
        world.check()


@pytest.mark.parametrize("seed", range(8))
def test_with_bisect_exactly_the_bad_ids_are_refused(tmp_path: Path, seed: int) -> None:
    bad = frozenset(random.Random(seed).sample(range(FIRST_ID, FIRST_ID + 48), seed + 2))
    with World(tmp_path, fussy(bad=bad), settings=replace(BISECT, workers=3)) as world:
        summary = world.go()
        assert summary.exit_code == Exit.PARTS_REFUSED
        assert world.refused_ids == sorted(bad), f"seed {seed}"
        assert summary.ids["accepted"] == 48 - len(bad)
        world.check()


def test_with_bisect_a_chunk_of_nothing_but_bad_ids_is_refused_id_by_id(tmp_path: Path) -> None:
    ids = range(FIRST_ID, FIRST_ID + 16)
    with World(tmp_path, fussy(bad=frozenset(ids)), chunks=1, settings=BISECT) as world:
        summary = world.go()
        assert summary.exit_code == Exit.PARTS_REFUSED
        assert summary.chunks == {"total": 16, "accepted": 0, "refused": 16, "held": 0, "pending": 0}
        assert world.refused_ids == list(ids)
        assert len(world.sent) == 31
        world.check()


def test_one_bad_id_among_10_000_costs_at_most_28_submissions(tmp_path: Path) -> None:
    settings = replace(BISECT, chunk_size=10_000)
    with World(tmp_path, fussy(bad=frozenset({nth(4_999)})), chunks=1, settings=settings) as world:
        summary = world.go()
        assert world.refused_ids == [nth(4_999)]
        assert summary.ids["accepted"] == 9_999
        assert 20 < len(world.sent) <= 28
        world.check()


def test_parts_go_out_in_input_order(tmp_path: Path) -> None:
    with World(tmp_path, fussy(bad=frozenset({nth(5), nth(6)})), chunks=2, settings=BISECT) as world:
        world.go()
        settled = [record["first_id"] for record in world.records] + [str(one) for one in world.refused_ids]
        assert [record["first_id"] for record in world.records] == sorted(
            record["first_id"] for record in world.records
        )
        assert len(settled) == len(set(settled))
        assert world.sent[0].split() == [str(nth(index)).encode() for index in range(16)]
        assert world.sent[-1].split() == [str(nth(index)).encode() for index in range(16, 32)]
        world.check()


def test_too_large_and_bad_at_once(tmp_path: Path) -> None:
    service = fussy(bad=frozenset({nth(3)}), most_bytes=size_of(6))
    with World(tmp_path, service, settings=BISECT) as world:
        summary = world.go()
        assert world.refused_ids == [nth(3)]
        assert summary.ids["accepted"] == 47
        world.check()


def test_what_stood_between_the_ids_of_a_chunk_that_was_split_is_counted_once(tmp_path: Path) -> None:
    with World(tmp_path, fussy(most_bytes=size_of(8)), chunks=1) as world:
        text = world.source.read_text().splitlines()
        world.source.write_text("\n".join([*text[:3], "x", text[0], *text[3:], "y"]) + "\n")
        summary = world.go()
        assert summary.ids == {
            "read": 19,
            "invalid": 2,
            "duplicate": 1,
            "accepted": 16,
            "refused": 0,
            "held": 0,
            "pending": 0,
        }


def test_each_part_takes_a_slot_and_its_end_is_waited_for(tmp_path: Path) -> None:
    service = fussy(most_bytes=size_of(4), max_active_jobs=2, job_time=Span(min_s=60.0, max_s=120.0))
    settings = replace(FREE, max_active_jobs=2, workers=4, poll_s=30.0)
    with World(tmp_path, service, settings=settings) as world:
        summary = world.go()
        assert summary.exit_code == Exit.ACCEPTED
        assert summary.chunks["accepted"] == 12
        assert world.service.totals()["submits_refused"] == 0
        world.check()


def test_each_part_has_a_webhook_of_its_own(tmp_path: Path) -> None:
    settings = replace(FREE, webhook="https://me.example/hook")
    with World(tmp_path, fussy(most_bytes=size_of(8)), settings=settings) as world:
        world.go()
        urls = [request.url for request in world.transport.sent(RequestKind.SUBMIT)]
        assert len(set(urls)) == len(urls) == 9


# --- what is unknown stays unknown ---


def test_a_part_whose_outcome_is_unknown_is_held_alone(tmp_path: Path) -> None:
    """What `held.jsonl` says of it leads to its ids: so many behind the line of the chunk it was cut from."""
    service = fussy(most_bytes=size_of(8), faults=FaultPlan.of("submit:reset_after@3"))
    with World(tmp_path, service) as world:
        summary = world.go()
        assert summary.exit_code == Exit.HELD
        assert (summary.ids["held"], summary.ids["accepted"]) == (8, 40)
        (line,) = json_lines(world.run_dir / "held.jsonl")
        assert line["chunk"] > FIRST_PART
        begin = line["line"] + line["first"] - 1
        text = "\n".join(world.source.read_text().splitlines()[begin : begin + line["ids"]])
        assert hashlib.sha256(text.encode()).hexdigest() == line["digest"]
        assert line["parent"] == (begin // 16) + 1
        world.check()


def test_a_part_without_a_job_goes_out_again_once_that_is_proved(tmp_path: Path) -> None:
    """In the same session: its ids are cut from the source again, though the source was read to its end."""
    service = fussy(most_bytes=size_of(8), faults=FaultPlan.of("submit:reset_before@3"))
    settings = replace(FREE, on_unknown="reconcile", settle_s=600.0)
    with World(tmp_path, service, settings=settings) as world:
        summary = world.go()
        assert summary.exit_code == Exit.ACCEPTED
        assert summary.ids["accepted"] == 48
        (again,) = {body for body in world.sent if world.sent.count(body) == 2}
        assert len(again.split()) == 8
        (record,) = [record for record in world.records if record["attempt"] == 2]
        assert record["digest"] == hashlib.sha256(again).hexdigest()
        assert not world.run_dir.joinpath("duplicate-risk").exists()
        world.check()


# --- sessions that end in the middle ---


def stop_after(world: World, count: int) -> Coroutine[Any, Any, RunSummary]:
    """Runs a session that is stopped when the service has answered so many submissions."""

    class Stopping:
        async def request(
            self, request: Request, *, before_first_byte: Callable[[], Awaitable[None]] | None = None
        ) -> Evidence:
            evidence = await world.transport.request(request, before_first_byte=before_first_byte)
            if len(world.sent) == count:
                engine.drain("enough", Exit.SIGINT)
            return evidence

    engine = world.engine(transport=Stopping())
    return engine.run()


@pytest.mark.parametrize("count", range(1, 10))
def test_a_session_that_is_stopped_in_the_middle_is_gone_on_with_and_nothing_is_sent_twice(
    tmp_path: Path, count: int
) -> None:
    """What was answered before is not asked again: in all there are as many submissions as without the stop."""
    with World(tmp_path, fussy(bad=frozenset({nth(5)})), chunks=2, settings=BISECT) as world:
        stopped = world.go(stop_after(world, count))
        assert len(world.sent) == count
        assert stopped.exit_code == Exit.SIGINT
        assert stopped.ids["pending"] > 0
        assert stopped.ids["held"] == 0
        summary = world.go()
        assert summary.exit_code == Exit.PARTS_REFUSED
        assert world.refused_ids == [nth(5)]
        assert len(world.sent) == len(set(world.sent)) == 10
        world.check()


def test_parts_are_sent_although_the_run_was_read_to_its_end_and_has_nothing_else_left(
    tmp_path: Path,
) -> None:
    with World(tmp_path, fussy(most_bytes=size_of(4)), chunks=1) as world:
        stopped = world.go(stop_after(world, 3))
        assert (stopped.ids["accepted"], stopped.ids["pending"]) == (4, 12)
        assert world.go(stop_after(world, 4)).ids["accepted"] == 8
        run = read_run(world.run_dir).run
        assert run is not None
        assert run.source_finished
        summary = world.go()
        assert summary.exit_code == Exit.ACCEPTED
        assert summary.ids["accepted"] == 16
        assert len(world.sent) == 7
        world.check()


def test_a_source_with_another_time_is_compared_and_its_parts_go_out(tmp_path: Path) -> None:
    with World(tmp_path, fussy(most_bytes=size_of(4)), chunks=1) as world:
        world.go(stop_after(world, 3))
        world.go(stop_after(world, 4))
        os.utime(world.source, (1, 1))
        assert world.go().exit_code == Exit.ACCEPTED
        world.check()


def test_a_source_that_changed_is_found_before_a_part_is_sent(tmp_path: Path) -> None:
    with World(tmp_path, fussy(most_bytes=size_of(4)), chunks=1) as world:
        world.go(stop_after(world, 3))
        world.go(stop_after(world, 4))
        text = world.source.read_text()
        world.source.write_text(text.replace(str(nth(15)), str(nth(16))))
        with pytest.raises(SourceChanged):
            world.go()
        assert len(world.sent) == 4


def test_cancelling_holds_the_part_in_flight_and_keeps_the_others_planned(tmp_path: Path) -> None:
    service = fussy(most_bytes=size_of(4), latency=Span(min_s=5.0, max_s=5.0))
    with World(tmp_path, service, chunks=1) as world:

        async def main() -> RunSummary:
            engine = world.engine()
            session = asyncio.create_task(engine.run())
            await asyncio.sleep(1.0)  # refusals come at once, the first part that passes takes its time
            engine.cancel()
            return await session

        cancelled = world.go(main())
        assert (cancelled.ids["held"], cancelled.ids["pending"]) == (4, 12)
        summary = world.go()
        assert summary.exit_code == Exit.HELD
        assert (summary.ids["held"], summary.ids["accepted"]) == (4, 12)
        world.check()


def test_a_lock_out_in_the_middle_is_waited_out(tmp_path: Path) -> None:
    service = fussy(bad=frozenset({nth(5), nth(40)}), rate=Limit(count=4, window_s=300.0))
    settings = replace(BISECT, rate=Rate(count=100, period_s=300.0))
    with World(tmp_path, service, settings=settings) as world:
        summary = world.go()
        assert summary.lockouts > 0
        assert summary.exit_code == Exit.PARTS_REFUSED
        assert world.refused_ids == [nth(5), nth(40)]
        assert world.service.totals()["requests_during_lockout"] == 0
        world.check()


class MortalTransport:
    """Carries requests until the process dies at the n-th: before its intent, before the service sees it, or after."""

    def __init__(self, world: World, *, at: int, moment: str) -> None:
        self._world = world
        self._at = at
        self._moment = moment
        self._count = 0
        self.dead = asyncio.Event()

    async def request(
        self, request: Request, *, before_first_byte: Callable[[], Awaitable[None]] | None = None
    ) -> Evidence:
        async def leaving() -> None:
            self._count += 1
            if self._count == self._at and self._moment == "before the intent":
                await self._die()
            if before_first_byte is not None:
                await before_first_byte()
            if self._count == self._at and self._moment == "before it is seen":
                await self._die()
            if self._count == self._at:
                self._picture()

        evidence = await self._world.transport.request(request, before_first_byte=leaving)
        if self._count >= self._at:
            await asyncio.Event().wait()
        return evidence

    async def _die(self) -> None:
        self._picture()
        await asyncio.Event().wait()

    def _picture(self) -> None:
        crash_image(self._world.run_dir, self._world.tmp_path / "image")
        self.dead.set()


async def crashed(world: World, *, at: int, moment: str) -> bool:
    """Runs a session that dies; tells whether it did, and leaves what a killed process leaves."""
    transport = MortalTransport(world, at=at, moment=moment)
    session = asyncio.create_task(world.engine(transport=transport).run())
    dying = asyncio.create_task(transport.dead.wait())
    await asyncio.wait([session, dying], return_when=asyncio.FIRST_COMPLETED)
    await asyncio.sleep(0.001)  # what is seen at the very end is seen
    for task in (session, dying):
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    if transport.dead.is_set():
        shutil.rmtree(world.run_dir)
        (world.tmp_path / "image").rename(world.run_dir)
    return transport.dead.is_set()


@pytest.mark.parametrize("moment", ["before the intent", "before it is seen", "after it was seen"])
@pytest.mark.parametrize("at", range(1, 14))
def test_killed_anywhere_in_the_middle_the_next_session_goes_on_with_the_parts_that_are_left(
    tmp_path: Path, at: int, moment: str
) -> None:
    """At most the one in flight is held; nothing else is lost, repeated or counted twice."""
    service = fussy(bad=frozenset({nth(5), nth(6)}), most_bytes=size_of(12))
    with World(tmp_path, service, chunks=2, settings=BISECT) as world:
        assert world.go(crashed(world, at=at, moment=moment))
        seen = len(world.sent)
        summary = world.go()
        assert summary.ids["pending"] == 0
        # Before the next intent it may be the chunk before, whose outcome was on its way to the disk.
        assert summary.chunks["held"] in ((0, 1) if moment == "before the intent" else (1,))
        assert summary.exit_code == (Exit.HELD if summary.chunks["held"] else Exit.PARTS_REFUSED)
        again = [body for body in world.sent[seen:] if body in world.sent[:seen]]
        assert again == []
        assert set(world.refused_ids) <= {nth(5), nth(6)}
        assert world.check()["ids"]["read"] == 32
