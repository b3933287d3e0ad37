"""The transport against a raw server that misbehaves: whatever happens ends in true evidence."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gzip
import inspect
import socket
import struct
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Self

import aiohttp
import pytest
import uvloop

from bulkjobs.api import HttpTransport, _without_secrets
from bulkjobs.endpoints import ENDPOINTS
from bulkjobs.errors import InternalError, LedgerError
from bulkjobs.model import JobId, Phase, Request, RequestKind
from bulkjobs.verdict import judge
from bulkjobs.wire.answer import ANSWER_CAP_BYTES
from bulkjobs.wire.request import login_request, status_request, submit_request

BODY = b"\n".join(b"%d" % number for number in range(10_000_000, 10_010_000))
TOKEN = "CANARY/token+=="
SECRET = "CANARY secret&"
WEBHOOK = "https://me.example/hook/CANARY-nonce"
ANSWER = b'{"jobId":"v9qh2to86kg85s03trag","status":"accepted","type":"contacts"}'


def on_both_loops(test):
    """Runs a coroutine test on asyncio's loop and on uvloop, which differ in how connections end."""

    @functools.wraps(test)
    def run(loop_factory, **arguments):
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            problems = []
            runner.get_loop().set_exception_handler(lambda _loop, context: problems.append(context))
            runner.run(test(**arguments))
        assert problems == []

    parameters = [
        inspect.Parameter("loop_factory", inspect.Parameter.KEYWORD_ONLY),
        *inspect.signature(test).parameters.values(),
    ]
    run.__signature__ = inspect.Signature(
        [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
    )
    del run.__wrapped__
    factories = [asyncio.new_event_loop, uvloop.new_event_loop]
    return pytest.mark.parametrize("loop_factory", factories, ids=["asyncio", "uvloop"])(run)


class Wire:
    """One connection as the server sees it."""

    def __init__(self, server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server, self.reader, self.writer = server, reader, writer

    async def head(self) -> bytes:
        """Reads a request's head and counts it."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        self.server.heads.append(head)
        self.server.asked.set()
        return head

    async def request(self) -> bytes:
        """Reads a whole request and gives its body."""
        head = (await self.head()).lower()
        _, found, rest = head.partition(b"content-length:")
        return await self.reader.readexactly(int(rest.split(b"\r\n")[0]) if found else 0)

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, status: str = "200 OK", body: bytes = ANSWER, headers: str = "") -> None:
        await self.send(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body)

    def reset(self) -> None:
        """Ends the connection with a RST."""
        self.writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        self.writer.transport.abort()


Script = Callable[[Wire], Awaitable[None]]


class RawServer:
    """Runs a script on every connection and keeps what arrived."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.heads: list[bytes] = []
        self.connections = 0
        self.unread = bytearray()
        """What came and no script read."""
        self.asked = asyncio.Event()
        """A request's head has arrived."""
        self.ended = asyncio.Event()
        """A connection is over."""
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self.script(Wire(self, reader, writer))
        except (asyncio.IncompleteReadError, ConnectionError) as exc:
            self.unread += getattr(exc, "partial", b"")
        except asyncio.CancelledError:
            pass
        finally:
            self._tasks.discard(task)
            writer.close()
            self.ended.set()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/v1"


class Ticks:
    """Is a wall clock that goes on by a second each time it is read."""

    now = 0.0

    def utc(self) -> float:
        self.now += 1.0
        return self.now


def transport(**changes) -> HttpTransport:
    options = {"connections": 4, "request_timeout_s": 20.0, "connect_timeout_s": 5.0, "clock": Ticks()}
    return HttpTransport(**(options | changes))


@contextlib.asynccontextmanager
async def playing(script: Script, **options) -> AsyncIterator[tuple[RawServer, HttpTransport]]:
    async with RawServer(script) as server, transport(**options) as client:
        yield server, client


def submit(base_url: str, body: bytes = BODY, webhook: str | None = None) -> Request:
    return submit_request(
        ENDPOINTS["contacts"], base_url=base_url, body=body, token=TOKEN, accept="json", webhook=webhook
    )


def ask(base_url: str) -> Request:
    return status_request(
        ENDPOINTS["contacts"], base_url=base_url, job_id=JobId("abc"), token=TOKEN, accept="json"
    )


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Hook:
    """Counts its calls."""

    calls = 0

    async def __call__(self) -> None:
        self.calls += 1


# What goes right


@on_both_loops
async def test_a_whole_answer_is_complete_evidence():
    bodies = []

    async def script(wire: Wire) -> None:
        bodies.append(await wire.request())
        await wire.answer(headers="Content-Type: application/json\r\nRetry-After: 7\r\n")

    hook = Hook()
    async with playing(script) as (server, client):
        evidence = await client.request(submit(server.base_url), before_first_byte=hook)
    assert bodies == [BODY]
    assert hook.calls == 1
    assert (evidence.phase, evidence.status, evidence.body) == (Phase.COMPLETE, 200, ANSWER)
    assert (evidence.content_type, evidence.retry_after) == ("application/json", "7")
    assert (evidence.error, evidence.body_cut, evidence.connection_reused) == (None, False, False)
    assert (evidence.started_utc, evidence.ended_utc) == (1.0, 2.0)


@on_both_loops
@pytest.mark.parametrize("kind", ["submit", "status", "login"])
async def test_a_request_reaches_the_wire_as_it_was_built(kind):
    """Only `Host` and the length are added, and percent-encoding is left alone."""

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.answer()

    async with playing(script) as (server, client):
        request = {
            "submit": submit(server.base_url, webhook=WEBHOOK + "?a=b%20c&d=é"),
            "status": ask(server.base_url),
            "login": login_request(login_url=server.base_url, client_id="a+b", client_secret=SECRET),
        }[kind]
        await client.request(request)
        line, *headers = server.heads[0].decode().removesuffix("\r\n\r\n").split("\r\n")
        target = request.url.removeprefix(f"http://127.0.0.1:{server.port}")
    assert line == f"{request.method} {target} HTTP/1.1"
    sent = {tuple(header.split(": ", 1)) for header in headers}
    length = {("Content-Length", str(len(request.body)))} if request.method == "POST" else set()
    assert sent == {*request.headers, ("Host", f"127.0.0.1:{server.port}"), *length}


@on_both_loops
async def test_nothing_is_added_to_a_request_that_says_little():
    """aiohttp would ask for compressed answers and name itself."""

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.answer()

    async with playing(script) as (server, client):
        await client.request(
            Request(kind=RequestKind.LIST, method="POST", url=server.base_url, headers=(), body=b"1")
        )
    host = b"Host: 127.0.0.1:%d" % server.port
    assert server.heads == [b"POST /api/v1 HTTP/1.1\r\n" + host + b"\r\nContent-Length: 1\r\n\r\n"]


@on_both_loops
async def test_a_connection_still_hot_is_used_again_and_the_evidence_says_so():
    async def script(wire: Wire) -> None:
        for headers in ("", "Connection: close\r\n"):
            await wire.request()
            await wire.answer(headers=headers)

    async with playing(script) as (server, client):
        reused = [(await client.request(submit(server.base_url))).connection_reused for _ in range(3)]
    assert reused == [False, True, False]
    assert server.connections == 2


@on_both_loops
async def test_cookies_are_not_kept():
    """A load balancer's cookie would pin a run of days to one machine."""

    async def script(wire: Wire) -> None:
        while True:
            await wire.request()
            await wire.answer(headers="Set-Cookie: a=b\r\n")

    async with playing(script) as (server, client):
        for _ in range(2):
            await client.request(ask(server.base_url))
    assert b"ookie" not in b"".join(server.heads)


# Nothing was sent


@on_both_loops
async def test_a_refused_connection_sent_nothing():
    hook = Hook()
    async with transport() as client:
        evidence = await client.request(submit(f"http://127.0.0.1:{unused_port()}"), before_first_byte=hook)
    assert (evidence.phase, evidence.status, evidence.connection_reused) == (Phase.STARTED, None, None)
    assert evidence.error.startswith("ClientConnectorError: ")
    assert hook.calls == 0


@on_both_loops
async def test_waiting_for_a_connection_too_long_sent_nothing():
    """The only connection is taken; the wait counts as connecting."""

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.reader.read()

    hook = Hook()
    async with playing(script, connections=1, connect_timeout_s=0.1) as (server, client):
        first = asyncio.create_task(client.request(submit(server.base_url)))
        await server.asked.wait()
        evidence = await client.request(submit(server.base_url), before_first_byte=hook)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
    assert evidence.phase is Phase.STARTED
    assert evidence.error == "ConnectionTimeoutError: Connection timeout to host <address>"
    assert hook.calls == 0


@on_both_loops
async def test_an_address_that_cannot_be_used_sent_nothing_and_is_not_shown():
    async with transport() as client:
        for url in ("http:///x?clientSecret=CANARY", "ftp://CANARY/", "http://h:CANARY/", ""):
            evidence = await client.request(
                Request(kind=RequestKind.LOGIN, method="POST", url=url, headers=())
            )
            assert evidence.phase is Phase.STARTED
            assert evidence.error
            assert "CANARY" not in repr(evidence)


@on_both_loops
@pytest.mark.parametrize(
    "failure",
    [
        LedgerError("the disk is full"),
        OSError(28, "no space"),
        TimeoutError("slow"),
        aiohttp.ServerDisconnectedError(),
    ],
    ids=lambda failure: type(failure).__name__,
)
@pytest.mark.parametrize("make", [submit, ask])
async def test_a_hook_that_raises_sends_nothing_and_its_exception_passes_through(failure, make):
    """Also one that aiohttp would wrap, take for its own, or answer with another try."""
    calls = []

    async def script(wire: Wire) -> None:
        await wire.request()

    async def hook() -> None:
        calls.append(1)
        raise failure

    async with playing(script) as (server, client):
        with pytest.raises(type(failure)) as caught:
            await client.request(make(server.base_url), before_first_byte=hook)
        await server.ended.wait()
    assert caught.value is failure
    assert calls == [1]
    assert server.connections == 1
    assert (server.heads, server.unread) == ([], b"")


@on_both_loops
async def test_a_time_out_within_the_hook_sent_nothing():
    """The hook has not ended, so no byte can have left, whatever the hook itself has done."""

    async def script(wire: Wire) -> None:
        await wire.request()

    async with playing(script, request_timeout_s=0.1) as (server, client):
        evidence = await client.request(submit(server.base_url), before_first_byte=asyncio.Event().wait)
        await server.ended.wait()
    assert (evidence.phase, evidence.error) == (Phase.CONNECTED, "TimeoutError")
    assert (server.heads, server.unread) == ([], b"")


@on_both_loops
async def test_a_disk_that_is_slow_within_the_hook_takes_nothing_from_the_time_for_the_answer():
    """Together they take longer than the time-out, each takes less. A false time-out would hold a chunk."""

    async def script(wire: Wire) -> None:
        await wire.request()
        await asyncio.sleep(0.25)
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    async def slow_disk() -> None:
        await asyncio.sleep(0.25)

    async with playing(script, request_timeout_s=0.4) as (server, client):
        evidence = await client.request(submit(server.base_url), before_first_byte=slow_disk)
    assert (evidence.phase, evidence.status, evidence.error) == (Phase.COMPLETE, 200, None)


@on_both_loops
async def test_the_hook_runs_when_a_connection_stands_and_before_any_byte():
    """This is what durable intents rest on; it must hold for every version of aiohttp."""
    seen_before, go_on = [], asyncio.Event()

    async def script(wire: Wire) -> None:
        first = asyncio.create_task(wire.reader.read(1))
        await asyncio.wait([first], timeout=0.1)
        seen_before.append(first.done())
        go_on.set()
        await first
        await wire.request()
        await wire.answer()

    async with playing(script) as (server, client):
        evidence = await client.request(submit(server.base_url), before_first_byte=go_on.wait)
    assert seen_before == [False]
    assert evidence.status == 200


# The outcome is unknown


async def reset_after_headers(wire: Wire) -> None:
    await wire.head()
    wire.reset()


async def reset_in_the_body(wire: Wire) -> None:
    await wire.head()
    await wire.reader.readexactly(20_000)
    wire.reset()


async def close_before_the_answer(wire: Wire) -> None:
    await wire.request()


async def garbage_status_line(wire: Wire) -> None:
    await wire.request()
    await wire.send(b"HTTP/9.9 what ever\r\n\r\n")


async def not_http(wire: Wire) -> None:
    await wire.request()
    await wire.send(b"\x15\x03\x01\x00\x02\x02\x50" * 3)


async def header_flood(wire: Wire) -> None:
    await wire.request()
    await wire.send(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1_000 + b"\r\n")


async def status_line_then_nothing(wire: Wire) -> None:
    await wire.request()
    await wire.send(b"HTTP/1.1 200 OK\r\n")


async def bad_chunk_with_the_head(wire: Wire) -> None:
    await wire.request()
    await wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n" + ANSWER)


NO_ANSWER = [
    bad_chunk_with_the_head,
    reset_after_headers,
    reset_in_the_body,
    close_before_the_answer,
    garbage_status_line,
    not_http,
    header_flood,
    status_line_then_nothing,
]


@on_both_loops
@pytest.mark.parametrize("script", NO_ANSWER, ids=lambda script: script.__name__)
async def test_a_submission_without_an_answer_was_sent_once_and_is_in_doubt(script):
    """The status that aiohttp's parser puts into its own errors is not the server's."""
    hook = Hook()
    async with playing(script) as (server, client):
        evidence = await client.request(submit(server.base_url, BODY * 10), before_first_byte=hook)
    assert evidence.phase >= Phase.HEADERS_SENT
    assert evidence.status is None
    assert evidence.error
    assert evidence.connection_reused is False
    assert (hook.calls, len(server.heads)) == (1, 1)
    assert type(judge(evidence)).__name__ == "Unknown"


@on_both_loops
async def test_a_status_that_the_client_made_up_is_not_shown():
    """aiohttp prints `400` in front of what its own parser refuses."""
    async with playing(garbage_status_line) as (server, client):
        evidence = await client.request(submit(server.base_url))
    assert evidence.error.startswith("ClientResponseError: ")
    assert "400" not in evidence.error


@on_both_loops
@pytest.mark.parametrize("make", [submit, ask])
async def test_a_request_on_a_connection_gone_stale_is_not_repeated(make):
    """aiohttp would repeat a GET by itself; that would be a request the account's window does not know of."""

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.answer()
        await wire.request()

    hook = Hook()
    async with playing(script) as (server, client):
        await client.request(make(server.base_url), before_first_byte=hook)
        evidence = await client.request(make(server.base_url), before_first_byte=hook)
    assert evidence.phase >= Phase.HEADERS_SENT
    assert evidence.status is None
    assert (hook.calls, len(server.heads)) == (2, 2)
    assert (server.unread, evidence.error is None) == (b"", False)


@on_both_loops
@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\nContent-Le"], ids=["silence", "half a head"])
async def test_an_answer_that_comes_too_late_is_a_time_out_after_the_body(sent):
    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(sent)
        await wire.reader.read()

    async with playing(script, request_timeout_s=0.15) as (server, client):
        evidence = await client.request(submit(server.base_url))
    assert (evidence.phase, evidence.status, evidence.error) == (Phase.BODY_SENT, None, "TimeoutError")


@on_both_loops
async def test_an_answer_that_drips_is_bounded_by_the_time_out():
    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + ANSWER[:30])
        while True:
            await asyncio.sleep(0.02)
            await wire.send(b" ")

    async with playing(script, request_timeout_s=0.15) as (server, client):
        evidence = await client.request(submit(server.base_url))
    assert (evidence.phase, evidence.status) == (Phase.STATUS_READ, 200)
    assert evidence.error.startswith("TimeoutError")
    assert evidence.body.startswith(ANSWER[:30])


@on_both_loops
@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + ANSWER,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n46\r\n" + ANSWER,
    ],
    ids=["short", "cut chunk"],
)
async def test_an_answer_that_breaks_off_keeps_its_status_and_is_not_complete(answer):
    """The id in it is only a hint: what follows could have said otherwise."""

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(answer)

    async with playing(script) as (server, client):
        evidence = await client.request(submit(server.base_url))
    assert (evidence.phase, evidence.status) == (Phase.STATUS_READ, 200)
    assert evidence.error.startswith("ClientPayloadError")
    assert type(judge(evidence)).__name__ == "Unknown"


@on_both_loops
async def test_a_truncation_that_http_cannot_notice_is_left_to_the_parser():
    """Neither a length nor chunks: the end of the connection is the end of the answer."""

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(b"HTTP/1.1 200 OK\r\n\r\n" + ANSWER[:20])

    async with playing(script) as (server, client):
        evidence = await client.request(submit(server.base_url))
    assert (evidence.phase, evidence.body) == (Phase.COMPLETE, ANSWER[:20])
    assert type(judge(evidence)).__name__ == "Unknown"


# Answers that want too much


@on_both_loops
async def test_an_endless_answer_is_read_up_to_the_cap():
    """The connection is closed then, and the next request gets a fresh one."""

    async def script(wire: Wire) -> None:
        await wire.request()
        if wire.server.connections > 1:
            await wire.answer()
            return
        await wire.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await wire.send(b"x" * 50_000)

    async with playing(script, connections=1) as (server, client):
        endless = await client.request(submit(server.base_url))
        after = await client.request(submit(server.base_url))
    assert (endless.phase, endless.status, endless.body_cut) == (Phase.STATUS_READ, 200, True)
    assert len(endless.body) == ANSWER_CAP_BYTES[RequestKind.SUBMIT]
    assert (after.status, after.connection_reused) == (200, False)


@on_both_loops
async def test_an_answer_of_exactly_the_cap_is_whole():
    page = b"x" * ANSWER_CAP_BYTES[RequestKind.SUBMIT]

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.answer(body=page)

    async with playing(script) as (server, client):
        evidence = await client.request(submit(server.base_url))
    assert (evidence.body, evidence.body_cut, evidence.phase) == (page, False, Phase.COMPLETE)


@on_both_loops
async def test_a_compressed_answer_is_not_expanded():
    """Nothing compressed was asked for, and a megabyte of zeros fits into a kilobyte."""
    bomb = gzip.compress(b"0" * 1_000_000)

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.answer(body=bomb, headers="Content-Encoding: gzip\r\n")

    async with playing(script) as (server, client):
        evidence = await client.request(submit(server.base_url))
    assert (evidence.phase, evidence.body) == (Phase.COMPLETE, bomb)


@on_both_loops
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(status):
    """The body would be paid for at an address nobody chose, with our token."""

    async def script(wire: Wire) -> None:
        while True:
            await wire.request()
            await wire.answer(f"{status} Elsewhere", b"", "Location: /elsewhere\r\n")

    async with playing(script) as (server, client):
        evidence = await client.request(submit(server.base_url))
    assert evidence.status == status
    assert len(server.heads) == 1


@on_both_loops
async def test_an_answer_before_the_body_was_read_is_taken():
    """A throttle that does not wait for the ids is proof all the same."""

    async def script(wire: Wire) -> None:
        await wire.head()
        await wire.answer("429 Too Many Requests", b"", "Connection: close\r\n")
        await wire.reader.read()

    async with playing(script) as (server, client):
        evidence = await client.request(submit(server.base_url, BODY * 10))
    assert (evidence.phase, evidence.status) == (Phase.COMPLETE, 429)


# Cancellation, secrets, use


@on_both_loops
async def test_a_cancelled_request_is_cancelled_and_gives_its_connection_back():
    async def script(wire: Wire) -> None:
        await wire.request()
        if wire.server.connections > 1:
            await wire.answer()
        await wire.reader.read()

    async with playing(script, connections=1) as (server, client):
        task = asyncio.create_task(client.request(submit(server.base_url)))
        await server.asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await client.request(submit(server.base_url))).status == 200


@on_both_loops
@pytest.mark.parametrize(
    "script", [*NO_ANSWER, None], ids=lambda script: getattr(script, "__name__", "refused")
)
async def test_no_secret_is_in_the_evidence_of_a_failure(script):
    """Token, client secret and webhook stand in headers and queries, which aiohttp's errors show."""
    async with RawServer(script or close_before_the_answer) as server, transport() as client:
        base = server.base_url if script else f"http://127.0.0.1:{unused_port()}"
        requests = [submit(base, webhook=WEBHOOK)]
        if script is not reset_in_the_body:  # the others have none
            requests += [login_request(login_url=base, client_id="me", client_secret=SECRET), ask(base)]
        for request in requests:
            evidence = await client.request(request)
            assert evidence.error
            assert "CANARY" not in f"{evidence!r} {evidence.error} {judge(evidence)!r}"


@on_both_loops
@pytest.mark.parametrize("place", ["body", "status line"])
async def test_a_secret_that_the_server_echoes_is_masked(place):
    """Answers and errors are kept in the ledger and shown to people."""

    async def script(wire: Wire) -> None:
        head = await wire.head()
        if place == "body":
            await wire.answer("400 Bad Request", b"<pre>" + head + b"</pre>", "Connection: close\r\n")
        else:
            await wire.send(b"BAD " + head.replace(b"\r\n", b" ") + b"\r\n\r\n")
        await wire.reader.read()

    async with playing(script) as (server, client):
        for request in (
            submit(server.base_url, b"1", webhook=WEBHOOK),
            login_request(login_url=server.base_url, client_id="me", client_secret=SECRET),
        ):
            evidence = await client.request(request)
            shown = f"{evidence!r} {evidence.body!r} {judge(evidence)!r}"
            assert "CANARY" not in shown
            assert "***" in shown or place == "status line"


@on_both_loops
async def test_no_secret_is_in_the_traceback_of_a_hooks_exception():
    async def script(wire: Wire) -> None:
        await wire.request()

    async def hook() -> None:
        raise OSError(5, "I/O error")

    async with playing(script) as (server, client):
        with pytest.raises(OSError) as caught:
            await client.request(submit(server.base_url, webhook=WEBHOOK), before_first_byte=hook)
    assert "CANARY" not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__context__ is None


@on_both_loops
async def test_a_transport_that_is_not_open_is_a_bug_of_the_caller():
    client = transport()
    with pytest.raises(InternalError):
        await client.request(ask("http://127.0.0.1:1"))
    async with client:
        pass
    with pytest.raises(InternalError):
        await client.request(ask("http://127.0.0.1:1"))


@pytest.mark.parametrize(
    "echo",
    [
        "CANARY/token+==",
        "CANARY\\/token+==",
        "CANARY/token+\\u003d\\u003D",
        "CANARY%2Ftoken%2b%3d%3D",
        "CANARY/token&#43;&#x3d;=",
    ],
)
def test_a_token_is_masked_in_every_form_in_which_a_server_may_echo_it(echo):
    """As it is, escaped as JSON or XML may, or encoded as in an address."""
    assert (
        _without_secrets(f'{{"message":"bad token {echo}"}}'.encode(), (TOKEN,))
        == b'{"message":"bad token ***"}'
    )
