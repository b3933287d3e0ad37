"""The server of a control socket, on a real socket in one event loop: who gets in, and what hostile clients may cost."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import threading
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from support.loops import on_both_loops

from bulkjobs.control import server as server_module
from bulkjobs.control import sockets
from bulkjobs.control.protocol import (
    MAX_LINE_BYTES,
    Ask,
    Pause,
    Refusal,
    SetWorkers,
    State,
    read_answer,
    request_line,
)
from bulkjobs.control.server import serve, under_control
from bulkjobs.control.sockets import SOCKET_NAME, connect, listen
from bulkjobs.events import ControlMissing

STATE = State(
    run_id="r1",
    pid=42,
    paused=False,
    draining=False,
    rate=None,
    window_used=None,
    locked_until=None,
    workers=8,
    in_flight=0,
)


class Side:
    """Is the run's side: remembers what it was told, and answers when it may."""

    def __init__(self):
        self.told = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def obey(self, command, origin):
        self.told.append((command, origin))
        await self.may_answer.wait()
        return STATE


@asynccontextmanager
async def serving(run_dir):
    """A server on the control socket of a folder."""
    side, listener = Side(), listen(run_dir)
    task = asyncio.create_task(serve(listener, side.obey))
    try:
        yield side
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        listener.close()


async def opened(run_dir):
    return await asyncio.open_unix_connection(run_dir / SOCKET_NAME)


async def exchanged(run_dir, line):
    """Sends some bytes and gives everything that comes back."""
    reader, writer = await opened(run_dir)
    writer.write(line)
    said = await reader.read()
    writer.close()
    return said


async def until(condition):
    while not condition():  # noqa: ASYNC110 - what is waited for belongs to the other side
        await asyncio.sleep(0)


# A request and its answer


@on_both_loops
async def test_a_request_is_answered_and_the_connection_ended(tmp_path):
    async with serving(tmp_path) as side:
        assert read_answer(await exchanged(tmp_path, request_line(SetWorkers(3)))) == STATE
        ((command, origin),) = side.told
    assert command == SetWorkers(3)
    assert origin == f"control, uid {os.geteuid()}, pid {os.getpid()}"


@on_both_loops
async def test_a_line_may_come_in_pieces(tmp_path):
    async with serving(tmp_path) as side:
        reader, writer = await opened(tmp_path)
        for byte in request_line(Pause()):
            writer.write(bytes([byte]))
            await asyncio.sleep(0)
        assert read_answer(await reader.read()) == STATE
        writer.close()
        assert [command for command, _ in side.told] == [Pause()]


@on_both_loops
async def test_who_has_nothing_more_to_say_may_still_listen(tmp_path):
    async with serving(tmp_path) as side:
        side.may_answer.clear()
        reader, writer = await opened(tmp_path)
        writer.write(request_line(Pause()))
        writer.write_eof()
        await until(lambda: side.told)
        side.may_answer.set()
        assert read_answer(await reader.read()) == STATE
        writer.close()


@on_both_loops
async def test_commands_are_carried_out_one_after_the_other(tmp_path):
    async with serving(tmp_path) as side:
        side.may_answer.clear()
        first = asyncio.create_task(exchanged(tmp_path, request_line(SetWorkers(1))))
        await until(lambda: side.told)
        second = asyncio.create_task(exchanged(tmp_path, request_line(SetWorkers(2))))
        for _ in range(20):
            await asyncio.sleep(0)
        assert [command for command, _ in side.told] == [SetWorkers(1)]
        side.may_answer.set()
        assert read_answer(await first) == read_answer(await second) == STATE
        assert [command for command, _ in side.told] == [SetWorkers(1), SetWorkers(2)]


@on_both_loops
async def test_a_client_that_left_before_its_answer_disturbs_nobody(tmp_path):
    async with serving(tmp_path) as side:
        side.may_answer.clear()
        _, writer = await opened(tmp_path)
        writer.write(request_line(Pause()))
        await until(lambda: side.told)
        writer.transport.abort()
        side.may_answer.set()
        assert read_answer(await exchanged(tmp_path, request_line(Ask()))) == STATE


# Hostile clients


@pytest.mark.parametrize(
    "garbage",
    [b"\n", b"pause\n", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x00\xff\n" * 100, b"[" * 4000 + b"\n"],
)
@on_both_loops
async def test_garbage_is_told_what_it_is(tmp_path, garbage):
    async with serving(tmp_path) as side:
        answer = read_answer(await exchanged(tmp_path, garbage))
        assert (answer.kind, side.told) == ("unreadable", [])
        assert read_answer(await exchanged(tmp_path, request_line(Ask()))) == STATE


@pytest.mark.parametrize("piece", [b"x" * 10_000_000, b'{"bulkjobs": 1, "why": "' + b"y" * 10_000])
@on_both_loops
async def test_a_line_without_an_end_is_not_kept(tmp_path, piece):
    async with serving(tmp_path) as side:
        reader, writer = await opened(tmp_path)
        writer.write(piece)
        answer = read_answer(await reader.readline())
        writer.transport.abort()
        assert answer == Refusal("unreadable", f"The line has more than {MAX_LINE_BYTES} bytes.")
        assert side.told == []


@on_both_loops
async def test_a_connection_that_ends_before_its_line_is_no_command(tmp_path):
    async with serving(tmp_path) as side:
        reader, writer = await opened(tmp_path)
        writer.write(request_line(Pause()).rstrip(b"\n"))
        writer.write_eof()
        assert read_answer(await reader.read()).kind == "unreadable"
        writer.close()
        assert side.told == []


@on_both_loops
async def test_only_the_first_line_of_a_connection_counts(tmp_path):
    async with serving(tmp_path) as side:
        said = await exchanged(tmp_path, request_line(SetWorkers(1)) + request_line(SetWorkers(2)))
        assert said.count(b"\n") == 1
        assert [command for command, _ in side.told] == [SetWorkers(1)]


@on_both_loops
async def test_of_too_many_connections_the_latest_are_closed_unheard(tmp_path):
    async with serving(tmp_path) as side:
        idle = [await opened(tmp_path) for _ in range(server_module._MOST_CONNECTIONS)]
        late, late_writer = await opened(tmp_path)
        assert await late.read() == b""
        idle[0][1].write(request_line(Ask()))
        assert read_answer(await idle[0][0].read()) == STATE
        idle[0][1].close()
        assert read_answer(await exchanged(tmp_path, request_line(Ask()))) == STATE  # its place is free again
        for _, writer in (*idle, (late, late_writer)):
            writer.transport.abort()
        assert len(side.told) == 2


@pytest.mark.parametrize("begun", [b"", b'{"bulkjobs": 1'])
@on_both_loops
async def test_a_connection_without_a_line_is_closed_after_a_while(tmp_path, monkeypatch, begun):
    monkeypatch.setattr(server_module, "_PATIENCE_S", 0.0)
    async with serving(tmp_path) as side:
        reader, writer = await opened(tmp_path)
        writer.write(begun)
        with suppress(ConnectionError):
            assert await reader.read() == b""
        writer.transport.abort()
        assert side.told == []


@on_both_loops
async def test_whoever_does_not_read_the_answer_costs_nothing(tmp_path):
    """It fits into what the system keeps; the connection is closed behind it."""
    async with serving(tmp_path) as side:
        sock = await asyncio.to_thread(connect, tmp_path, 5.0)
        sock.sendall(request_line(Pause()))
        await until(lambda: side.told)
        assert read_answer(await exchanged(tmp_path, request_line(Ask()))) == STATE
        assert read_answer(await asyncio.to_thread(sock.recv, 4096)) == STATE
        sock.close()


@on_both_loops
async def test_another_user_is_refused(tmp_path, monkeypatch):
    """The mode of the socket keeps that one out; this is for a system or a folder where it does not."""
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000)
    monkeypatch.setattr(sockets, "_ROOT", 4_000_001)
    async with serving(tmp_path) as side:
        reader, writer = await opened(tmp_path)
        writer.write(request_line(Pause()))
        answer = read_answer(await reader.readline())
        writer.transport.abort()
        assert answer == Refusal("refused", "Only the user whose run this is may control it.")
        assert side.told == []


@on_both_loops
async def test_where_the_system_does_not_tell_who_asks_the_origin_has_no_name(tmp_path, monkeypatch):
    monkeypatch.delattr(socket, "SO_PEERCRED")
    async with serving(tmp_path) as side:
        await exchanged(tmp_path, request_line(Pause()))
        assert side.told == [(Pause(), "control")]


# The socket


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_the_socket_is_the_owners_whatever_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        listener = listen(tmp_path)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / SOCKET_NAME).lstat().st_mode) == 0o600
    listener.close()
    assert not (tmp_path / SOCKET_NAME).exists()


def test_the_socket_is_the_owners_from_the_first_moment_on(tmp_path):
    """Another thread looks while it is made again and again."""
    modes, ended = set(), threading.Event()

    def look():
        while not ended.is_set():
            with suppress(FileNotFoundError):
                modes.add(stat.S_IMODE(os.lstat(tmp_path / SOCKET_NAME).st_mode))

    before = os.umask(0)
    watching = threading.Thread(target=look)
    watching.start()
    try:
        for _ in range(200):
            listen(tmp_path).close()
    finally:
        os.umask(before)
        ended.set()
        watching.join()
    assert modes <= {0o600}


def test_what_a_killed_process_left_is_replaced(tmp_path):
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(tmp_path / SOCKET_NAME))
    stale.close()
    with pytest.raises(ConnectionRefusedError):
        connect(tmp_path, 1.0)
    listener = listen(tmp_path)
    connect(tmp_path, 1.0).close()
    listener.close()


@on_both_loops
async def test_a_run_directory_may_have_a_name_longer_than_an_address(tmp_path):
    run_dir = tmp_path / ("n" * 120) / "the.run"
    run_dir.mkdir(parents=True)
    async with serving(run_dir) as side:
        assert stat.S_IMODE((run_dir / SOCKET_NAME).lstat().st_mode) == 0o600
        sock = await asyncio.to_thread(connect, run_dir, 5.0)
        sock.sendall(request_line(Pause()))
        assert read_answer(await asyncio.to_thread(sock.recv, 4096)) == STATE
        sock.close()
        assert len(side.told) == 1
    assert not (run_dir / SOCKET_NAME).exists()


def test_a_run_directory_that_was_renamed_is_left_clean(tmp_path):
    (tmp_path / "old").mkdir()
    listener = listen(tmp_path / "old")
    (tmp_path / "old").rename(tmp_path / "new")
    listener.close()
    assert list((tmp_path / "new").iterdir()) == []


# A session without a socket


def open_files():
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def _no_sockets(monkeypatch, _tmp_path):
    monkeypatch.delattr(socket, "AF_UNIX")


def _not_here(monkeypatch, _tmp_path):
    def refuse(*_arguments):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(sockets, "_bind", refuse)


def _in_the_way(_monkeypatch, tmp_path):
    (tmp_path / SOCKET_NAME).mkdir()


@pytest.mark.parametrize("trouble", [_no_sockets, _not_here, _in_the_way])
async def test_where_there_can_be_no_socket_the_work_is_done_and_that_is_told_once(
    tmp_path, monkeypatch, trouble
):
    done, events = [], []
    trouble(monkeypatch, tmp_path)
    descriptors = open_files()

    async def work():
        done.append(True)

    await under_control(tmp_path, Side().obey, work, emit=events.append)
    assert done == [True]
    assert [type(event) for event in events] == [ControlMissing]
    assert str(tmp_path) in events[0].reason
    assert open_files() == descriptors


@on_both_loops
async def test_the_socket_is_there_as_long_as_the_work(tmp_path):
    during = []

    async def work():
        await until((tmp_path / SOCKET_NAME).exists)
        during.append(read_answer(await exchanged(tmp_path, request_line(Ask()))))

    await under_control(tmp_path, Side().obey, work, emit=print)
    assert during == [STATE]
    assert list(tmp_path.iterdir()) == []


@on_both_loops
async def test_work_that_fails_takes_the_socket_away_and_leaves_nobody_waiting(tmp_path):
    async def work():
        reader, writer = await opened(tmp_path)
        waiting.append((reader, writer))
        await asyncio.sleep(0)
        raise ValueError("broken")

    waiting = []
    with pytest.raises(ExceptionGroup) as told:
        await under_control(tmp_path, Side().obey, work, emit=print)
    assert told.group_contains(ValueError, match="broken")
    ((reader, writer),) = waiting
    with suppress(ConnectionError):
        assert await reader.read() == b""
    writer.close()
    assert list(tmp_path.iterdir()) == []
