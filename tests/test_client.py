"""The library's face: a stream of records, a call with a summary, and what leaving early means."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvloop
from support.simulated import BASE_URL, LOGIN_URL, TOKEN, Account, SimulatedTransport, json_lines

import bulkjobs
from bulkjobs import Client, ConfigError, Exit, JobRecord, LedgerLocked, Secret, Settings, SourceError
from bulkjobs.clock import SystemClock
from bulkjobs.control.protocol import State
from bulkjobs.errors import LedgerError
from bulkjobs.ledger import Ledger
from bulkjobs.ledger.inspection import inspecting
from bulkjobs.simulator import FaultPlan, Service, ServiceConfig, SimulatorServer, Span
from bulkjobs.testing import VirtualClock, VirtualClockLoop, run_virtual

SETTINGS = Settings(
    on_unknown="hold",
    base_url=BASE_URL,
    login_url=LOGIN_URL,
    access_token=Secret(TOKEN),
    rate=None,
    pace=None,
    max_active_jobs=None,
    chunk_size=10,
    workers=3,
    forecast=False,
)
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
    "virtual": VirtualClockLoop,
}


class Office:
    """A service and a file of ids, as a program that embeds bulkjobs finds them."""

    def __init__(self, tmp_path: Path, *, chunks: int = 12, clock: Any = None, **config: Any) -> None:
        config.setdefault("latency", Span(min_s=0.001, max_s=0.004))
        self.service = Service(ServiceConfig(job_time=Span(min_s=0.0, max_s=0.0), **config))
        self.clock = clock or VirtualClock()
        self.transport = SimulatedTransport(self.service, clock=self.clock)
        self.ids = range(700_001, 700_001 + 10 * chunks)
        self.file = tmp_path / "ids.txt"
        self.file.write_text("\n".join(map(str, self.ids)))
        self.run_dir = tmp_path / "contacts.run"

    def client(self, settings: Settings = SETTINGS, **options: Any) -> Client:
        given = {"run": self.run_dir, "transport": self.transport, "clock": self.clock} | options
        return Client(settings, **given)

    def check(self) -> dict[str, Any]:
        return Account.of(self.run_dir, self.service, 1e11).check(self.ids)


@pytest.fixture
def office(tmp_path: Path):
    office = Office(tmp_path)
    yield office
    office.service.close()


def run_on(loop: str, main: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        return runner.run(main)


# --- live control ---


def controls(office: Office) -> list[tuple[str, str | None, str]]:
    with inspecting(office.run_dir) as moment:
        return [(row.command, row.value, row.origin) for row in moment.controls()]


def test_a_program_controls_its_run_as_the_command_does_and_each_word_is_on_record(office: Office) -> None:
    async def main() -> list[State]:
        states = []
        async with office.client() as client:
            async for _ in client.submit(office.file):
                if not states:
                    states += [
                        await client.control("workers", 2),
                        await client.control("rate", "600/5m"),
                        await client.control("pause"),
                        await client.control(),
                        await client.control("resume"),
                    ]
        return states

    workers, rate, paused, asked, resumed = run_virtual(main())
    assert (workers.workers, rate.rate) == (2, "600/5m")
    assert (rate.paused, paused.paused, asked.paused, resumed.paused) == (False, True, True, False)
    assert controls(office) == [
        ("workers", "2", "program"),
        ("rate", "600/5m", "program"),
        ("pause", None, "program"),
        ("resume", None, "program"),
    ]
    office.check()


def test_a_pause_by_the_program_keeps_chunks_back_until_it_is_over(tmp_path: Path) -> None:
    office = Office(tmp_path, latency=Span(min_s=1.0, max_s=1.0))

    async def main() -> tuple[int, int, int]:
        async with office.client() as client:
            work = asyncio.create_task(client.run(office.file))
            await asyncio.sleep(0.5)
            await client.control("pause")
            await asyncio.sleep(1_000.0)
            before = office.service.totals()["jobs"]
            await client.control("resume")
            return before, (await work).exit_code, office.service.totals()["jobs"]

    with office.service:
        assert run_virtual(main()) == (3, Exit.ACCEPTED, 12)


def test_a_drain_by_the_program_ends_the_session_in_order(office: Office) -> None:
    async def main() -> int:
        async with office.client() as client:
            async for _ in client.submit(office.file):
                await client.control("drain")
                assert (await client.control()).draining
                with pytest.raises(ConfigError, match="about to end"):
                    await client.control("resume")
            assert client.summary is not None
            return client.summary.exit_code

    assert run_virtual(main()) == Exit.SIGTERM
    assert set(controls(office)) == {("drain", None, "program")}
    office.check()


def test_a_word_that_is_none_changes_nothing(office: Office) -> None:
    async def main() -> None:
        async with office.client() as client:
            with pytest.raises(ConfigError, match="not at work"):
                await client.control("pause")
            async for _ in client.submit(office.file):
                for words in [("explode",), ("pause", "now"), ("rate",), ("workers", 0), ("rate", "lots")]:
                    with pytest.raises(ConfigError):
                        await client.control(*words)
            with pytest.raises(ConfigError, match="not at work"):
                await client.control("pause")

    run_virtual(main())
    assert controls(office) == []


def test_before_a_session_is_open_there_is_nothing_to_control(office: Office) -> None:
    async def main() -> int:
        async with office.client() as client:
            work = asyncio.create_task(client.run(office.file))
            await asyncio.sleep(0)
            with pytest.raises(ConfigError, match="just beginning or ending"):
                await client.control("pause")
            return (await work).exit_code

    assert run_virtual(main()) == Exit.ACCEPTED


def test_a_command_that_cannot_be_recorded_changes_nothing(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object) -> None:
        raise LedgerError("the disk is full")

    async def main() -> bool:
        async with office.client() as client:
            async for _ in client.submit(office.file):
                with pytest.raises(LedgerError, match="cannot be recorded: the disk is full"):
                    await client.control("pause")
                paused = (await client.control()).paused
        return paused

    monkeypatch.setattr(Ledger, "record_control", full)
    assert run_virtual(main()) is False


def test_commands_from_several_tasks_are_carried_out_in_the_order_of_their_record(office: Office) -> None:
    async def main() -> int:
        async with office.client() as client:
            async for _ in client.submit(office.file):
                await asyncio.gather(*(client.control("workers", count) for count in (1, 5, 2, 7, 4)))
                now = (await client.control()).workers
        return now

    assert run_virtual(main()) == 4
    assert [value for _, value, _ in controls(office)][-5:] == ["1", "5", "2", "7", "4"]


# --- the two layers ---


@pytest.mark.parametrize("loop", LOOPS)
def test_submit_streams_one_record_for_each_chunk_and_leaves_a_summary(tmp_path: Path, loop: str) -> None:
    office = Office(tmp_path, clock=None if loop == "virtual" else SystemClock())

    async def main() -> list[JobRecord]:
        async with office.client() as client:
            records = [record async for record in client.submit(office.file)]
            assert client.summary is not None
            assert client.summary.exit_code == Exit.ACCEPTED
            return records

    with office.service:
        records = run_on(loop, main())
        assert sorted(record.chunk for record in records) == list(range(1, 13))
        assert [record.as_dict() for record in records] == json_lines(office.run_dir / "jobs.jsonl")
        office.check()


@pytest.mark.parametrize("loop", LOOPS)
def test_run_gives_the_summary_that_stands_in_the_run_directory(tmp_path: Path, loop: str) -> None:
    office = Office(tmp_path, clock=None if loop == "virtual" else SystemClock())

    async def main() -> bulkjobs.RunSummary:
        async with office.client() as client:
            return await client.run(office.file)

    with office.service:
        summary = run_on(loop, main())
        assert summary.as_dict() == json.loads((office.run_dir / "summary.json").read_text())
        assert summary.ids["accepted"] == 120
        office.check()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_the_same_over_real_sockets(tmp_path: Path, loop: str) -> None:
    file = tmp_path / "ids.txt"
    file.write_text("\n".join(map(str, range(1, 501))))

    async def main() -> None:
        async with SimulatorServer(ServiceConfig(job_time=Span(min_s=0.0, max_s=0.01))) as server:
            settings = replace(SETTINGS, base_url=server.base_url, login_url=server.login_url)
            async with Client(settings, run=tmp_path / "run") as client:
                summary = await client.run(file)
            assert summary.exit_code == Exit.ACCEPTED
            Account.of(tmp_path / "run", server.service, 1e11).check(range(1, 501))

    run_on(loop, main())


def test_nothing_happens_before_a_method_is_called(office: Office) -> None:
    async def main() -> None:
        async with office.client() as client:
            assert client.summary is None

    run_virtual(main())
    assert not office.run_dir.exists()


# --- where ids come from ---


async def async_ids(ids: range):
    for one in ids:
        await asyncio.sleep(0.001)
        yield one


@pytest.mark.parametrize(
    "given",
    [
        lambda ids: [list(ids)],
        lambda ids: [str(one) for one in ids] and [iter([str(one) for one in ids])],
        lambda ids: [(str(one).encode() for one in ids)],
        lambda ids: [async_ids(ids)],
    ],
    ids=["list of numbers", "iterator of text", "generator of bytes", "async generator"],
)
def test_ids_may_come_from_any_iterable(office: Office, given: Callable[[range], list[Any]]) -> None:
    async def main() -> bulkjobs.RunSummary:
        async with office.client() as client:
            return await client.run(*given(office.ids))

    assert run_virtual(main()).exit_code == Exit.ACCEPTED
    office.check()


def test_an_iterable_that_raises_lets_its_exception_through_and_loses_nothing(office: Office) -> None:
    def broken():
        yield from office.ids[:55]
        raise ZeroDivisionError

    async def main() -> None:
        async with office.client() as client:
            with pytest.raises(ZeroDivisionError):
                await client.run(broken())
        async with office.client() as client:
            summary = await client.run(iter(office.ids))
            assert summary.exit_code in (Exit.ACCEPTED, Exit.HELD)

    run_virtual(main())
    office.check()


def test_a_missing_file_is_told_before_anything_is_made(office: Office) -> None:
    async def main() -> None:
        async with office.client() as client:
            with pytest.raises(SourceError, match="no such.txt"):
                await client.run("no such.txt")

    run_virtual(main())
    assert not office.run_dir.exists()


# --- the run directory ---


def test_the_run_directory_takes_its_name_from_the_first_file(office: Office) -> None:
    async def main() -> Path:
        async with office.client(run=None) as client:
            with pytest.raises(ConfigError, match="run="):
                _ = client.run_dir
            await client.run(office.file)
            return client.run_dir

    assert run_virtual(main()) == office.file.with_name("ids.txt.run")


def test_ids_without_a_file_need_a_run_directory(office: Office) -> None:
    async def main() -> None:
        async with office.client(run=None) as client:
            with pytest.raises(ConfigError, match="run="):
                await client.run([1, 2, 3])

    run_virtual(main())
    assert not office.transport.requests


def test_a_finished_run_is_resumed_without_sources_and_without_a_request(office: Office) -> None:
    async def main() -> None:
        async with office.client() as client:
            first = await client.run(office.file)
        sent = len(office.transport.requests)
        async with office.client() as client:
            assert await client.run() == first
        assert len(office.transport.requests) == sent

    run_virtual(main())


# --- sinks ---


def test_a_function_can_be_a_sink(office: Office) -> None:
    taken: list[int] = []

    async def take(record: JobRecord) -> None:
        taken.append(record.chunk)

    async def main() -> None:
        async with office.client() as client:
            await client.run(office.file, sink=take)

    run_virtual(main())
    assert sorted(taken) == list(range(1, 13))
    assert not (office.run_dir / "jobs.jsonl").exists()


def test_several_sinks_get_every_record(office: Office, tmp_path: Path) -> None:
    async def main() -> None:
        async with office.client() as client:
            await client.run(office.file, sink=[tmp_path / "a.jsonl", str(tmp_path / "b.jsonl")])

    run_virtual(main())
    assert len(json_lines(tmp_path / "a.jsonl")) == 12
    assert json_lines(tmp_path / "a.jsonl") == json_lines(tmp_path / "b.jsonl")


def test_a_function_that_raises_ends_the_session_with_6_and_gets_the_record_again(office: Office) -> None:
    taken: list[int] = []
    broken = True

    async def take(record: JobRecord) -> None:
        if broken and len(taken) == 4:
            raise ZeroDivisionError
        taken.append(record.chunk)

    async def main() -> None:
        nonlocal broken
        async with office.client() as client:
            assert (await client.run(office.file, sink=take)).exit_code == Exit.STORAGE
        broken = False
        async with office.client() as client:
            assert (await client.run(office.file, sink=take)).exit_code == Exit.ACCEPTED

    run_virtual(main())
    assert set(taken) == set(range(1, 13))
    assert office.service.totals()["repeated_bodies"] == 0


# --- leaving early ---


@pytest.mark.parametrize("pause_s", [0.0, 0.01])
def test_leaving_the_loop_stops_the_run_and_another_client_goes_on_at_once(
    office: Office, pause_s: float
) -> None:
    """What was dealt with before the loop was left may come again; nothing is missing."""
    seen: list[int] = []

    async def main() -> None:
        async with office.client() as client:
            async for record in client.submit(office.file):
                seen.append(record.chunk)
                if len(seen) == 3:
                    break
            await asyncio.sleep(pause_s)
        assert client.summary is not None
        assert client.summary.exit_code == Exit.SIGINT
        assert client.summary.ids["held"] == 0
        async with office.client() as client:
            seen.extend([record.chunk async for record in client.submit(office.file)])
            assert client.summary is not None
            assert client.summary.exit_code == Exit.ACCEPTED

    run_virtual(main())
    assert set(seen) == set(range(1, 13))
    office.check()


def test_an_exception_in_the_loop_passes_through_and_ends_the_session(office: Office) -> None:
    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            async with office.client() as client:
                async for record in client.submit(office.file):
                    raise ZeroDivisionError(record.chunk)
        assert client.summary is not None
        assert client.summary.exit_code == Exit.SIGINT
        async with office.client() as client:
            await client.run(office.file)

    run_virtual(main())
    office.check()


def test_leaving_the_loop_at_the_last_record_leaves_that_record_to_the_next_session(office: Office) -> None:
    async def main() -> None:
        count = 0
        async with office.client() as client:
            async for _ in client.submit(office.file):
                count += 1
                if count == 12:
                    break
        assert client.summary is not None
        assert client.summary.exit_code == Exit.SIGINT
        async with office.client() as client:
            assert (await client.run(office.file)).exit_code == Exit.ACCEPTED

    run_virtual(main())
    office.check()


def test_a_slow_loop_holds_up_nothing_but_itself(office: Office) -> None:
    async def main() -> int:
        count = 0
        async with office.client() as client:
            async for _ in client.submit(office.file):
                count += 1
                await asyncio.sleep(3600)
        return count

    assert run_virtual(main()) == 12
    office.check()


def test_a_cancelled_task_leaves_a_run_that_goes_on(office: Office) -> None:
    async def main() -> None:
        async def work() -> None:
            async with office.client() as client:
                async for _ in client.submit(office.file):
                    await asyncio.sleep(0.01)

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(work(), 0.025)
        async with office.client() as client:
            assert (await client.run(office.file)).exit_code == Exit.ACCEPTED

    run_virtual(main())
    office.check()


def test_errors_before_the_first_record_are_raised_by_the_loop(office: Office) -> None:
    async def main() -> None:
        async with office.client() as one, office.client() as other:
            records = one.submit(office.file)
            await anext(records)
            with pytest.raises(LedgerLocked):
                async for _ in other.submit(office.file):
                    pass
            await records.aclose()
            await one.run(office.file)

    run_virtual(main())
    office.check()


def test_drain_records_what_is_in_flight(office: Office) -> None:
    async def main() -> bulkjobs.RunSummary:
        async with office.client() as client:
            asyncio.get_running_loop().call_later(0.005, client.drain, "enough")
            return await client.run(office.file)

    summary = run_virtual(main())
    assert summary.exit_code == Exit.SIGINT
    assert summary.ids["held"] == 0 < summary.ids["pending"]
    office.check()


def test_drain_tells_the_reason_that_it_was_given(office: Office) -> None:
    async def main() -> bulkjobs.RunSummary:
        async with office.client() as client:
            asyncio.get_running_loop().call_later(0.005, lambda: client.drain("x", exit_code=Exit.SIGTERM))
            return await client.run(office.file)

    assert run_virtual(main()).exit_code == Exit.SIGTERM


@pytest.mark.parametrize("drained_as", [None, Exit.SIGINT, Exit.SIGTERM])
def test_cancel_gives_up_what_is_in_flight_as_held(tmp_path: Path, drained_as: Exit | None) -> None:
    office = Office(tmp_path, latency=Span(min_s=50.0, max_s=90.0))

    async def main() -> bulkjobs.RunSummary:
        async with office.client() as client:

            def stop() -> None:
                if drained_as is not None:
                    client.drain("enough", exit_code=drained_as)
                client.cancel()

            asyncio.get_running_loop().call_later(5.0, stop)
            return await client.run(office.file)

    with office.service:
        summary = run_virtual(main())
        assert summary.exit_code == (drained_as or Exit.SIGINT)
        assert summary.chunks["held"] == 3
        office.check()


def test_drain_and_cancel_of_an_idle_client_do_nothing(office: Office) -> None:
    async def main() -> None:
        async with office.client() as client:
            client.drain("nothing to drain")
            client.cancel()
            assert (await client.run(office.file)).exit_code == Exit.ACCEPTED
            client.drain("too late")

    run_virtual(main())


# --- several ---


def test_a_client_does_one_thing_at_a_time(office: Office) -> None:
    async def main() -> None:
        async with office.client() as client:
            records = client.submit(office.file)
            await anext(records)
            with pytest.raises(ConfigError, match="at work"):
                await client.run(office.file)
            await records.aclose()
            assert (await client.run(office.file)).exit_code == Exit.ACCEPTED

    run_virtual(main())
    office.check()


def test_clients_of_different_runs_work_side_by_side(tmp_path: Path) -> None:
    offices = []
    for name in "abc":
        (tmp_path / name).mkdir()
        offices.append(Office(tmp_path / name))

    async def work(office: Office) -> int:
        async with office.client() as client:
            return len([record async for record in client.submit(office.file)])

    async def main() -> list[int]:
        return await asyncio.gather(*map(work, offices))

    assert run_virtual(main()) == [12, 12, 12]
    for office in offices:
        with office.service:
            office.check()


def test_held_chunks_are_no_records(tmp_path: Path) -> None:
    office = Office(tmp_path, faults=FaultPlan.of("submit:reset_after@2", "submit:http500_before@5"))

    async def main() -> list[JobRecord]:
        async with office.client() as client:
            return [record async for record in client.submit(office.file)]

    with office.service:
        assert len(run_virtual(main())) == 10
        assert office.check()["exit_code"] == Exit.HELD
