"""Live control of a run: what each command does to the requests, to the ledger and to what people see.

The engine works on virtual time against the simulated service; commands reach it through its real socket. At the
end a process of its own is controlled from the command line, and killed.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.evidence import read_books, read_image, read_sources
from support.judge import judge
from support.launcher import Launcher
from support.oracle import TOKEN, Oracle
from test_engine import FREE, World, at_once, now

from bulkjobs.__main__ import main
from bulkjobs.cli import control as control_cli
from bulkjobs.control.protocol import (
    Answer,
    Command,
    Drain,
    Pause,
    Refusal,
    Resume,
    SetRate,
    SetWorkers,
    State,
    read_answer,
    request_line,
)
from bulkjobs.control.sockets import SOCKET_NAME, listen
from bulkjobs.errors import LedgerError
from bulkjobs.events import Controlled, LockedOut, LockoutEnded
from bulkjobs.exits import Exit
from bulkjobs.ledger import Ledger, read_run
from bulkjobs.ledger.inspection import inspecting
from bulkjobs.ledger.lock import RunLock
from bulkjobs.model import Evidence, Request, RequestKind, RunSummary
from bulkjobs.settings import Rate
from bulkjobs.simulator import Limit, ServiceConfig, Span
from bulkjobs.testing import FakeTransport, answered


async def tell(run_dir: Path, command: Command) -> Answer:
    """Gives a command to the engine that works in this loop."""
    reader, writer = await asyncio.open_unix_connection(run_dir / SOCKET_NAME)
    writer.write(request_line(command))
    answer = read_answer(await reader.readline())
    writer.close()
    return answer


async def in_force(run_dir: Path, command: Command) -> State:
    answer = await tell(run_dir, command)
    assert isinstance(answer, State), answer
    return answer


def commands_of(run_dir: Path) -> list[tuple[int, str, str | None]]:
    with inspecting(run_dir) as moment:
        return [(row.session, row.command, row.value) for row in moment.controls()]


async def with_a_person(world: World, acts: Callable[[], Awaitable[None]], **changed: Any) -> RunSummary:
    """Runs the engine, and a person who acts beside it."""
    async with asyncio.TaskGroup() as group:
        session = group.create_task(world.engine(**changed).run())
        person = group.create_task(acts())
        await session
        person.cancel()
    assert person.done()
    return session.result()


# --- pause and resume ---


def test_a_paused_run_submits_nothing_and_tracks_its_jobs(tmp_path: Path) -> None:
    config = ServiceConfig(max_active_jobs=2, job_time=Span(min_s=100.0, max_s=100.0))
    settings = replace(FREE, max_active_jobs=2, poll_s=30.0)
    with World(tmp_path, config, chunks=10, settings=settings) as world:
        submits: list[int] = []

        def sent() -> int:
            return len(world.transport.sent(RequestKind.SUBMIT))

        async def person() -> None:
            await asyncio.sleep(150.0)
            assert (await in_force(world.run_dir, Pause())).paused
            submits.append(sent())
            asked = len(world.transport.requests)
            await asyncio.sleep(3600.0)
            submits.append(sent())
            assert len(world.transport.requests) > asked
            pause = read_run(world.run_dir).paused_by
            assert pause is not None
            assert pause.origin.startswith("control, uid ")
            assert not (await in_force(world.run_dir, Resume())).paused

        summary = world.go(with_a_person(world, person))
        assert submits[0] == submits[1] < 10
        assert summary.exit_code == Exit.ACCEPTED
        assert commands_of(world.run_dir) == [(1, "pause", None), (1, "resume", None)]
        assert [event.command for event in world.seen(Controlled)] == ["pause", "resume"]
        assert world.check()["jobs"]["finished"] >= 8


def test_what_is_in_flight_when_a_pause_begins_is_recorded(tmp_path: Path) -> None:
    config = at_once(latency=Span(min_s=10.0, max_s=10.0))
    with World(tmp_path, config, chunks=12) as world:

        async def person() -> None:
            await asyncio.sleep(5.0)
            assert (await in_force(world.run_dir, Pause())).in_flight == 4
            await asyncio.sleep(60.0)
            assert (await in_force(world.run_dir, Pause())).in_flight == 0  # once more changes nothing
            assert read_run(world.run_dir).counts.states
            assert world.books["jobs"] == 4
            await tell(world.run_dir, Resume())

        assert world.go(with_a_person(world, person)).exit_code == Exit.ACCEPTED
        world.check()


@pytest.mark.parametrize("resumed_in", [True, False], ids=["resumed within it", "resumed after it"])
def test_a_pause_and_a_lock_out_are_both_kept(tmp_path: Path, resumed_in: bool) -> None:
    config = at_once(rate=Limit(count=10, window_s=300.0), lockout_s=300.0, lockout_extends=True)
    settings = replace(FREE, rate=Rate(count=30, period_s=300.0), workers=1)
    with World(tmp_path, config, chunks=25, settings=settings) as world:
        locked, resumed_at = asyncio.Event(), []

        def observe(event: Any) -> None:
            if isinstance(event, LockedOut):
                locked.set()

        async def person() -> None:
            await locked.wait()
            state = await in_force(world.run_dir, Pause())
            assert state.paused
            assert state.locked_until is not None
            await asyncio.sleep(50.0 if resumed_in else 2_000.0)
            resumed_at.append(now())
            sent = len(world.transport.sent(RequestKind.SUBMIT))
            await in_force(world.run_dir, Resume())
            if resumed_in:
                await asyncio.sleep(100.0)
                assert len(world.transport.sent(RequestKind.SUBMIT)) == sent

        summary = world.go(with_a_person(world, person, observe=observe))
        assert summary.exit_code == Exit.ACCEPTED
        assert world.books["requests_during_lockout"] == 0
        assert len(world.seen(LockoutEnded)) == summary.lockouts
        assert len(resumed_at) == 1
        world.check()


def test_a_session_that_follows_a_paused_one_is_not_paused(tmp_path: Path) -> None:
    with World(tmp_path, at_once(latency=Span(min_s=1.0, max_s=1.0)), chunks=20) as world:

        async def person() -> None:
            await asyncio.sleep(1.5)
            await in_force(world.run_dir, Pause())
            await asyncio.sleep(100.0)
            assert not (await in_force(world.run_dir, Drain())).paused

        summary = world.go(with_a_person(world, person))
        assert summary.exit_code == Exit.SIGTERM
        assert summary.ids["held"] == 0
        assert world.go(world.engine().run()).exit_code == Exit.ACCEPTED
        assert commands_of(world.run_dir) == [(1, "pause", None), (1, "drain", None)]
        world.check()


# --- drain ---


def test_draining_records_the_answers_in_flight_and_ends_as_after_sigterm(tmp_path: Path) -> None:
    with World(tmp_path, at_once(latency=Span(min_s=10.0, max_s=10.0)), chunks=20) as world:

        async def person() -> None:
            await asyncio.sleep(15.0)
            state = await in_force(world.run_dir, Drain())
            assert state.draining
            assert state.in_flight == 4
            refused = await tell(world.run_dir, Pause())
            assert isinstance(refused, Refusal)
            assert "about to end" in refused.reason
            assert (await in_force(world.run_dir, Drain())).draining

        summary = world.go(with_a_person(world, person))
        assert summary.exit_code == Exit.SIGTERM
        assert (summary.chunks["accepted"], summary.chunks["held"]) == (8, 0)
        assert "`drain` was given (control, uid" in str(read_run(world.run_dir).stop_reason)
        world.check()


def test_draining_a_run_that_has_nothing_left_to_send_is_no_stop(tmp_path: Path) -> None:
    with World(tmp_path, at_once(latency=Span(min_s=10.0, max_s=10.0)), chunks=4) as world:

        async def person() -> None:
            await asyncio.sleep(5.0)
            await in_force(world.run_dir, Drain())

        assert world.go(with_a_person(world, person)).exit_code == Exit.ACCEPTED


# --- rate ---


def test_another_rate_is_in_force_at_once(tmp_path: Path) -> None:
    """First too slow, then as the service allows."""
    config = at_once(rate=Limit(count=20, window_s=60.0))
    settings = replace(FREE, rate=Rate(count=2, period_s=60.0))
    with World(tmp_path, config, chunks=40, settings=settings) as world:
        sent: list[int] = []

        async def person() -> None:
            await asyncio.sleep(30.0)
            sent.append(len(world.transport.requests))
            state = await in_force(world.run_dir, SetRate(Rate(count=20, period_s=60.0)))
            assert state.rate == "20/1m"
            assert state.window_used == 2 + state.in_flight
            await asyncio.sleep(20.0)
            sent.append(len(world.transport.requests))

        summary = world.go(with_a_person(world, person))
        assert sent == [2, 20]
        assert summary.exit_code == Exit.ACCEPTED
        assert world.books["lockouts"] == 0
        assert world.books["max_in_window"] <= 20
        assert commands_of(world.run_dir) == [(1, "rate", "20/1m")]
        world.check()


def test_a_limit_can_be_taken_away(tmp_path: Path) -> None:
    with World(
        tmp_path, at_once(), chunks=20, settings=replace(FREE, rate=Rate(count=2, period_s=60.0))
    ) as world:
        ended_at: list[float] = []

        async def person() -> None:
            await asyncio.sleep(30.0)
            state = await in_force(world.run_dir, SetRate(None))
            assert (state.rate, state.window_used) == (None, None)
            ended_at.append(now())

        summary = world.go(with_a_person(world, person))
        assert summary.exit_code == Exit.ACCEPTED
        assert summary.elapsed_s < 31.0
        assert commands_of(world.run_dir) == [(1, "rate", "none")]


# --- workers ---


class Counting:
    """Plays a server whose answers take ten seconds, and counts what is in flight."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.seen: list[int] = []
        """How many were in flight when each request came."""
        self._numbers = itertools.count(1)

    async def __call__(self, _request: Request) -> Evidence:
        self.in_flight += 1
        self.seen.append(self.in_flight)
        await asyncio.sleep(10.0)
        self.in_flight -= 1
        return answered(
            200, b'{"jobId": "j%d", "status": "accepted", "type": "contacts"}' % next(self._numbers)
        )


def test_workers_come_and_go_while_chunks_fly_and_nothing_is_lost(tmp_path: Path) -> None:
    with World(tmp_path, at_once(), chunks=60) as world:
        server, most = Counting(), []

        async def after(count: int) -> None:
            state = await in_force(world.run_dir, SetWorkers(count))
            assert state.workers == count
            await asyncio.sleep(10.0)  # those in flight end
            server.seen.clear()
            await asyncio.sleep(20.0)
            most.append(max(server.seen))

        async def person() -> None:
            await asyncio.sleep(5.0)
            for count in (7, 2, 1, 5):
                await after(count)

        transport = FakeTransport(server, clock=world.clock)
        summary = world.go(with_a_person(world, person, transport=transport))
        assert most == [7, 2, 1, 5]
        assert summary.exit_code == Exit.ACCEPTED
        assert summary.chunks["accepted"] == len(transport.requests) == 60
        assert len({request.body for request in transport.requests}) == 60
        assert [value for _, _, value in commands_of(world.run_dir)] == ["7", "2", "1", "5"]


def test_more_workers_than_files_may_be_open_are_refused_and_not_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (64, 4096))
    with World(tmp_path, at_once(latency=Span(min_s=10.0, max_s=10.0)), chunks=8) as world:
        answers: list[Answer] = []

        async def person() -> None:
            await asyncio.sleep(5.0)
            answers.append(await tell(world.run_dir, SetWorkers(1000)))

        summary = world.go(with_a_person(world, person))
        (refused,) = answers
        assert isinstance(refused, Refusal)
        assert refused.kind == "refused"
        assert "only 64 are allowed" in refused.reason
        assert summary.exit_code == Exit.ACCEPTED
        assert commands_of(world.run_dir) == []


# --- the record, and several runs ---


def test_what_cannot_be_recorded_is_not_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(*_arguments: object) -> None:
        raise LedgerError("The disk is full.")

    monkeypatch.setattr(Ledger, "record_control", full)
    with World(tmp_path, at_once(latency=Span(min_s=10.0, max_s=10.0)), chunks=8) as world:
        answers: list[Answer] = []

        async def person() -> None:
            await asyncio.sleep(5.0)
            answers.append(await tell(world.run_dir, Pause()))

        summary = world.go(with_a_person(world, person))
        assert answers == [
            Refusal("storage", "Nothing was changed, because it cannot be recorded: The disk is full.")
        ]
        assert summary.exit_code == Exit.ACCEPTED
        assert world.seen(Controlled) == []


def test_a_command_is_on_record_before_it_is_in_force(tmp_path: Path) -> None:
    with World(tmp_path, at_once(latency=Span(min_s=10.0, max_s=10.0)), chunks=8) as world:
        on_record: list[bool] = []

        def observe(event: Any) -> None:
            if isinstance(event, Controlled):
                on_record.append((1, event.command, event.value) in commands_of(world.run_dir))

        async def person() -> None:
            await asyncio.sleep(5.0)
            await tell(world.run_dir, SetWorkers(2))
            await tell(world.run_dir, Pause())
            await tell(world.run_dir, Resume())

        world.go(with_a_person(world, person, observe=observe))
        assert on_record == [True, True, True]


def test_engines_side_by_side_are_controlled_one_by_one(tmp_path: Path) -> None:
    config = at_once(latency=Span(min_s=10.0, max_s=10.0))
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with World(tmp_path / "a", config, chunks=8) as one, World(tmp_path / "b", config, chunks=8) as other:

        async def both() -> tuple[RunSummary, RunSummary]:
            async def person() -> None:
                await asyncio.sleep(5.0)
                await in_force(one.run_dir, Drain())

            async with asyncio.TaskGroup() as group:
                first = group.create_task(with_a_person(one, person))
                second = group.create_task(other.engine().run())
            return first.result(), second.result()

        first, second = one.go(both())
        assert (first.exit_code, second.exit_code) == (Exit.SIGTERM, Exit.ACCEPTED)
        assert not (one.run_dir / SOCKET_NAME).exists()
        assert not (other.run_dir / SOCKET_NAME).exists()


# --- from the command line ---


def test_a_run_that_nobody_works_on_is_told_from_one_that_cannot_be_reached(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["control", str(tmp_path / "no.run"), "pause"]) == Exit.USAGE
    assert "There is no run directory" in capsys.readouterr().err
    assert main(["control", str(tmp_path), "pause"]) == Exit.USAGE
    assert f"No process works on {tmp_path}" in capsys.readouterr().err
    lock = RunLock(tmp_path)
    assert main(["control", str(tmp_path), "pause"]) == Exit.USAGE
    said = capsys.readouterr().err
    assert "takes no commands (No such file or directory)" in said
    assert "Nothing was changed." in said
    listen(tmp_path).sock.close()  # as a killed process leaves it
    assert main(["control", str(tmp_path), "pause"]) == Exit.USAGE
    assert "takes no commands (Connection refused)" in capsys.readouterr().err
    lock.release()


def test_a_process_that_does_not_answer_is_given_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_cli, "_TIMEOUT_S", 0.01)
    lock, listener = RunLock(tmp_path), listen(tmp_path)
    assert main(["control", str(tmp_path), "pause"]) == control_cli.Outcome.UNKNOWN
    said = capsys.readouterr().err
    assert "has not answered for 0.01 s. Whether it took the command is not known" in said
    listener.close()
    lock.release()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["fly"], "'fly' is no command"),
        (["rate", "5"], "rate is '5'; it may be N/TIME"),
        (["workers", "none"], "workers is 'none'"),
        (["pause", "5m"], "`pause` takes no value"),
    ],
)
def test_wrong_words_are_told_before_anybody_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    assert main(["control", str(tmp_path), *words]) == Exit.USAGE
    assert says in capsys.readouterr().err


def test_the_help_says_what_each_command_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["control", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for word in ("pause:", "resume:", "drain:", "rate N/TIME", "workers N", "--json"):
        assert word in said


# --- a process of its own ---


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    with Launcher() as launcher:
        yield launcher


def until(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 30.0
    while not condition():
        assert time.monotonic() < give_up_at, "it did not happen"
        time.sleep(0.005)


def test_a_process_is_controlled_killed_and_controlled_again(
    tmp_path: Path, launcher: Launcher, capsys: pytest.CaptureFixture[str]
) -> None:
    """Paused from the shell it sends nothing; killed it leaves a socket, which the next session replaces."""
    (tmp_path / "ids.txt").write_text("".join(f"{number}\n" for number in range(1_000, 1_200)))
    run_dir = tmp_path / "the.run"

    def control(*words: str) -> Any:
        assert main(["control", str(run_dir), *words, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    with Oracle(tmp_path, "--latency", "20ms", launcher=launcher) as oracle:
        command = ["submit", "ids.txt", "--run", "the.run", "--chunk-size", "5", "--workers", "2", "--quiet"]
        command += ["--on-unknown", "hold", *oracle.options()]

        def start() -> Any:
            environ = {"BULKJOBS_ACCESS_TOKEN": TOKEN}
            return launcher.start(command, folder=tmp_path, environ=environ)

        def jobs() -> int:
            return len(read_books(oracle.books).jobs)

        session = start()
        until(lambda: jobs() >= 2)
        assert control("pause")["paused"]
        until(lambda: control()["in_flight"] == 0)
        seen = jobs()
        assert control("workers", "1")["workers"] == 1
        assert main(["status", str(run_dir)]) == 0
        assert "paused     since" in capsys.readouterr().out
        assert jobs() == seen
        session.send_signal(signal.SIGKILL)
        session.wait()
        assert (run_dir / SOCKET_NAME).is_socket()
        assert main(["control", str(run_dir)]) == Exit.USAGE
        assert "No process works on" in capsys.readouterr().err
        session = start()
        until(lambda: jobs() > seen)
        state = control()
        assert (state["paused"], state["workers"], state["pid"]) == (False, 2, session.pid)
        assert control("drain")["draining"]
        assert session.wait() in (Exit.SIGTERM, Exit.ACCEPTED)
        assert not (run_dir / SOCKET_NAME).exists()
        assert start().wait() == Exit.ACCEPTED
        assert (
            judge(
                read_sources([tmp_path / "ids.txt"]), read_books(oracle.books), read_image(run_dir)
            ).violations
            == []
        )
    assert main(["status", str(run_dir), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert not told["paused"]
    assert [(row["session"], row["command"], row["value"]) for row in told["control"]] == [
        (1, "pause", None),
        (1, "workers", "1"),
        (2, "drain", None),
    ]
    assert {row["origin"].partition(", pid")[0] for row in told["control"]} == {
        f"control, uid {os.geteuid()}"
    }
