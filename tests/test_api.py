"""The transport against a server of a few lines: what goes over the wire, when the hook runs, what nobody may read.

What each fault on the wire proves stands in `test_evidence.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Self

import aiohttp
import pytest
from support.faults import FaultProxy, Plan
from support.loops import on_both_loops
from support.sending import ANSWER, BODY, TOKEN, Hook, ask, submit, transport, unused_port

from bulkjobs.api import HttpTransport, _without_secrets
from bulkjobs.errors import InternalError, LedgerError
from bulkjobs.model import Phase, Request, RequestKind
from bulkjobs.simulator import SimulatorServer
from bulkjobs.verdict import judge
from bulkjobs.wire.answer import ANSWER_CAP_BYTES
from bulkjobs.wire.request import login_request

SECRET = "CANARY secret&"
NO_ANSWER = (
    "bad_chunk",
    "fin_before_answer",
    "garbage_status_line",
    "header_flood",
    "not_http",
    "reset_after_head",
    "reset_before_answer",
    "reset_mid_body",
    "stall_after_status_line",
)
WEBHOOK = "https://me.example/hook/CANARY-nonce"


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


@contextlib.asynccontextmanager
async def playing(script: Script, **options) -> AsyncIterator[tuple[RawServer, HttpTransport]]:
    async with RawServer(script) as server, transport(**options) as client:
        yield server, client


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
    assert evidence.answer_bytes == len(ANSWER)
    times = (evidence.started_utc, evidence.sent_utc, evidence.answered_utc, evidence.ended_utc)
    assert times == (1.0, 2.0, 3.0, 4.0)


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


# What is kept of an answer


@on_both_loops
async def test_a_status_that_the_client_made_up_is_not_shown():
    """aiohttp prints `400` in front of what its own parser refuses."""

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(b"HTTP/9.9 what ever\r\n\r\n")

    async with playing(script) as (server, client):
        evidence = await client.request(submit(server.base_url))
    assert evidence.error.startswith("ClientResponseError: ")
    assert "400" not in evidence.error


@on_both_loops
async def test_an_answer_of_exactly_the_cap_is_whole():
    page = b"x" * ANSWER_CAP_BYTES[RequestKind.SUBMIT]

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.answer(body=page)

    async with playing(script) as (server, client):
        evidence = await client.request(submit(server.base_url))
    assert (evidence.body, evidence.body_cut, evidence.phase) == (page, False, Phase.COMPLETE)


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
@pytest.mark.parametrize("fault", [*NO_ANSWER, None], ids=lambda fault: fault or "refused")
async def test_no_secret_is_in_the_evidence_of_a_failure(fault):
    """Token, client secret and webhook stand in headers and queries, which aiohttp's errors show."""
    plan = Plan(rates={fault: 1.0} if fault else {}, methods=frozenset({"GET", "POST"}))
    async with (
        SimulatorServer() as server,
        FaultProxy(server.origin, plan) as proxy,
        transport(request_timeout_s=0.5 if fault == "stall_after_status_line" else 20.0) as client,
    ):
        base = proxy.through(server.base_url) if fault else f"http://127.0.0.1:{unused_port()}"
        requests = [submit(base, webhook=WEBHOOK)]
        if fault != "reset_mid_body":  # the others have no such body
            requests += [login_request(login_url=base, client_id="me", client_secret=SECRET), ask(base)]
        for request in requests:
            evidence = await client.request(request)
            assert evidence.error
            assert "CANARY" not in f"{evidence!r} {evidence.error} {judge(evidence)!r}"
    assert proxy.errors == []


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


ECHOES = [
    "CANARY/token+==",
    "CANARY\\/token+==",
    "CANARY/token+\\u003d\\u003D",
    "CANARY/token+\\x3d\\x3D",
    "CANARY\\\\/token+\\\\u003d=",
    "CANARY%2Ftoken%2b%3d%3D",
    "CANARY%252Ftoken%25252b%253d=",
    "CANARY/token&#43;&#x3d;=",
    "CANARY&sol;token&plus;&equals;=",
    "CANARY/token&amp;#43;&amp;amp;equals;=",
    "CANARY/token\\u0026#43;\\u0026equals;=",
    "CANARY/token%26#43;=%26#x3D;",
    "&#67;&#0065;&#x4E;ARY/token+==",
]


@pytest.mark.parametrize("echo", ECHOES)
def test_a_token_is_masked_in_every_form_in_which_a_server_may_echo_it(echo):
    """As it is, escaped once or more as JSON or XML may, by number or by name, or encoded as in an address."""
    assert (
        _without_secrets(f'{{"message":"bad token {echo}"}}'.encode(), (TOKEN,))
        == b'{"message":"bad token ***"}'
    )


@pytest.mark.parametrize(
    ("character", "name"),
    [("&", "amp"), ("<", "lt"), (">", "gt"), ('"', "quot"), ("'", "apos"), ("_", "lowbar")],
)
def test_a_secret_is_masked_under_the_names_that_xml_and_html_have_for_its_characters(character, name):
    """A client secret may hold any visible character."""
    for echo in (f"se&{name};cret", f"se&amp;{name};cret", f"se&{name.upper()};cret"):
        assert _without_secrets(f"<p>{echo}</p>".encode(), (f"se{character}cret",)) == b"<p>***</p>"


def test_the_beginning_of_a_secret_at_the_end_of_a_cut_answer_is_masked():
    """An answer that breaks off, or was cut at the cap, may end within a secret."""
    for length in range(6, len(TOKEN)):
        assert _without_secrets(b"accessToken: " + TOKEN[:length].encode(), (TOKEN,)) == b"accessToken: ***"
    assert _without_secrets(b"CANARY is no secret", (TOKEN,)) == b"CANARY is no secret"
    assert _without_secrets(b"A CAN", (TOKEN,)) == b"A CAN"


@pytest.mark.parametrize(
    "piece", [b"\\", b"%25", b"&amp;", b"&#0", b"CANARY", b"&", b"\\u0026amp;"], ids=repr
)
def test_masking_takes_no_long_time_whatever_is_in_an_answer(piece):
    """A pattern that tries anew at each byte and runs to the end each time would stop the loop for seconds."""
    body = (piece * ANSWER_CAP_BYTES[RequestKind.SUBMIT])[: ANSWER_CAP_BYTES[RequestKind.SUBMIT]]
    began = time.process_time()
    _without_secrets(body, (TOKEN, SECRET, WEBHOOK))
    assert time.process_time() - began < 1.0
