"""The proxy that does harm: it passes everything on unchanged, strikes where it is told to, and counts what it saw."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib

import pytest
from support.faults import (
    FAULTS,
    Fault,
    FaultProxy,
    Plan,
    Seen,
    Stage,
    Toxic,
    answer_late,
    reset_mid_body,
    toxic,
)
from support.faults.stream import content_length
from support.loops import on_both_loops

from bulkjobs.simulator import SimulatorServer

BODY = b"\n".join(b"%d" % number for number in range(10_000_000, 10_001_000))


def post(body: bytes = BODY) -> bytes:
    head = (
        "POST /api/v1/contact/job HTTP/1.1\r\nHost: x\r\naccessToken: simulator-token\r\nAccept: application/json\r\n"
        f"Content-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


GET = b"GET /api/v1/job/nothing/status HTTP/1.1\r\nHost: x\r\naccessToken: simulator-token\r\n\r\n"


class Client:
    """Is a client of a few lines that sees what is on the wire."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, request: bytes) -> bytes:
        """Sends a request and gives the whole answer."""
        self.writer.write(request)
        head = await self.reader.readuntil(b"\r\n\r\n")
        return head + await self.reader.readexactly(content_length(head) or 0)

    async def rest(self) -> bytes:
        """Gives what comes until the end; a reset is an end too."""
        got = b""
        with contextlib.suppress(ConnectionError):
            while block := await self.reader.read(65_536):
                got += block
        return got


@contextlib.asynccontextmanager
async def client_of(proxy: FaultProxy):
    host, port = proxy.origin.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield Client(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def seen(number: int, method: str = "POST") -> Seen:
    return Seen(number=number, post=number, connection=1, method=method, target="/", head=b"", length=0)


@on_both_loops
async def test_without_a_plan_requests_and_answers_pass_unchanged():
    async with SimulatorServer() as server, FaultProxy(server.origin) as proxy, client_of(proxy) as client:
        first = await client.ask(post())
        second = await client.ask(GET)
        jobs = server.service.totals()["jobs"]
    assert (proxy.errors, proxy.connections, jobs) == ([], 1, 1)
    assert [answer.raw for answer in proxy.answers] == [first, second]
    submitted, asked = proxy.requests
    assert (submitted.method, submitted.number, submitted.post, submitted.forwarded) == ("POST", 1, 1, True)
    assert (bytes(submitted.body), submitted.digest) == (BODY, hashlib.sha256(BODY).hexdigest())
    assert (submitted.status, submitted.delivered_bytes) == (200, len(first))
    assert (asked.method, asked.number, asked.post, asked.target) == (
        "GET",
        2,
        0,
        "/api/v1/job/nothing/status",
    )
    assert proxy.posts == [submitted]
    assert proxy.client_bytes == len(post()) + len(GET)
    assert proxy.server_bytes == len(first) + len(second)


@on_both_loops
async def test_an_upstream_that_cuts_its_answer_is_passed_on_as_such():
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
        writer.close()

    upstream = await asyncio.start_server(cut, "127.0.0.1", 0)
    origin = f"http://127.0.0.1:{upstream.sockets[0].getsockname()[1]}"
    async with upstream, FaultProxy(origin) as proxy, client_of(proxy) as client:
        client.writer.write(GET)
        answer = await client.rest()
    assert answer == b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"
    assert (proxy.requests[0].status, proxy.answers, proxy.errors) == (200, [], [])


@on_both_loops
async def test_a_chunked_answer_of_the_upstream_is_passed_on_whole():
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"

    async def chunked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await reader.read()
        writer.close()

    upstream = await asyncio.start_server(chunked, "127.0.0.1", 0)
    origin = f"http://127.0.0.1:{upstream.sockets[0].getsockname()[1]}"
    async with upstream, FaultProxy(origin) as proxy, client_of(proxy) as client:
        client.writer.write(GET)
        assert await client.reader.readexactly(len(answer)) == answer
    assert [one.raw for one in proxy.answers] == [answer]


@on_both_loops
async def test_a_script_names_the_post_or_the_connection_that_is_struck():
    plan = Plan(posts={2: FAULTS["reset_before_answer"]}, connections={2: FAULTS["accept_reset"]})
    async with SimulatorServer() as server, FaultProxy(server.origin, plan) as proxy:
        async with client_of(proxy) as client:
            assert b" 200 " in await client.ask(post(b"1"))
            await client.ask(GET)
            client.writer.write(post(b"2"))
            assert await client.rest() == b""
        async with client_of(proxy) as client:
            assert await client.rest() == b""
        async with client_of(proxy) as client:
            assert b" 200 " in await client.ask(post(b"3"))
        jobs = server.service.totals()["jobs"]
    assert [one.fault for one in proxy.requests] == [None, None, "reset_before_answer", None]
    assert [one.connection for one in proxy.requests] == [1, 1, 1, 3]
    assert (jobs, proxy.errors) == (3, [])


def test_a_draw_is_the_same_for_the_same_seed_and_another_for_another():
    rates = {"reset_before_answer": 0.2, "fin_before_answer": 0.3, "accept_reset": 0.5}

    def drawn(seed: int) -> list[str | None]:
        plan = Plan(rates=rates, seed=seed)
        return [fault and fault.name for fault in map(plan.at_request, map(seen, range(1, 1_001)))]

    first = drawn(1)
    assert first == drawn(1) != drawn(2)
    assert 150 < first.count("reset_before_answer") < 250
    assert 250 < first.count("fin_before_answer") < 350
    assert "accept_reset" not in first
    assert 400 < [Plan(rates=rates).at_connection(n) is None for n in range(1_000)].count(True) < 600


def test_a_draw_meets_only_the_methods_and_the_number_of_requests_it_is_for():
    plan = Plan(rates={"reset_before_answer": 1.0}, until=2)
    struck = [plan.at_request(one) is not None for one in (seen(1), seen(1, "GET"), seen(2), seen(3))]
    assert struck == [True, False, True, False]


def test_rates_that_add_up_to_more_than_one_are_a_mistake():
    with pytest.raises(AssertionError, match="add up"):
        Plan(rates={"reset_before_answer": 0.6, "fin_before_answer": 0.6})


@on_both_loops
async def test_a_test_is_called_when_so_many_bytes_of_a_body_have_passed_and_no_more_passes_meanwhile():
    read: list[int] = []

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        while sum(read) < len(BODY):
            read.append(len(await reader.read(65_536)))
            arrived.set()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await reader.read()
        writer.close()

    async def look() -> None:
        while sum(read) < 1_234:
            arrived.clear()
            await arrived.wait()
        for _ in range(20):
            await asyncio.sleep(0)
        at.append((sum(read), len(proxy.posts[0].body), proxy.posts[0].forwarded))

    arrived, at = asyncio.Event(), []
    upstream = await asyncio.start_server(count, "127.0.0.1", 0)
    origin = f"http://127.0.0.1:{upstream.sockets[0].getsockname()[1]}"
    async with upstream, FaultProxy(origin) as proxy, client_of(proxy) as client:
        proxy.when_body_passed(1_234, look)
        await client.ask(post())
    assert at == [(1_234, 1_234, False)]
    assert proxy.posts[0].forwarded


@on_both_loops
@pytest.mark.parametrize("at_bytes", [0, 5_000, len(BODY)])
async def test_a_cut_at_a_place_in_the_body_ends_both_sides_there(at_bytes):
    called = []
    async with SimulatorServer() as server, FaultProxy(server.origin) as proxy, client_of(proxy) as client:
        proxy.when_body_passed(at_bytes, lambda: called.append(1), cut=True)
        client.writer.write(post())
        assert await client.rest() == b""
        await proxy.quiet()
    assert (called, len(proxy.posts[0].body), proxy.posts[0].status) == ([1], at_bytes, None)
    assert proxy.errors == []


@on_both_loops
@pytest.mark.parametrize("at_bytes", [0, 25])
async def test_a_cut_at_a_place_in_the_answer_leaves_the_job_made(at_bytes):
    called = []
    async with SimulatorServer() as server, FaultProxy(server.origin) as proxy:
        proxy.when_answer_passed(at_bytes, lambda: called.append(1), post=2, cut=True)
        async with client_of(proxy) as client:
            assert b" 200 " in await client.ask(post(b"1"))
            client.writer.write(post(b"2"))
            got = await client.rest()
        jobs = server.service.totals()["jobs"]
    assert (called, jobs) == ([1], 2)
    assert got == proxy.answers[1].raw[:at_bytes]
    assert proxy.posts[1].delivered_bytes == at_bytes


@on_both_loops
async def test_places_in_an_answer_count_over_what_is_sent_in_pieces():
    async with SimulatorServer() as server:
        drips = Plan(every_post=FAULTS["body_drip"])
        async with FaultProxy(server.origin, drips) as proxy, client_of(proxy) as client:
            called: list[int] = []
            client.writer.write(post())
            head = await client.reader.readuntil(b"\r\n\r\n")
            proxy.when_answer_passed(
                len(head) + 8, lambda: called.append(proxy.posts[0].delivered_bytes), cut=True
            )
            rest = await client.rest()
    assert called == [len(head) + 8]
    assert len(rest) == 8


@on_both_loops
async def test_a_reset_in_the_body_comes_after_so_many_bytes_of_it():
    async with FaultProxy(plan=Plan(posts={1: reset_mid_body(777)})) as proxy, client_of(proxy) as client:
        client.writer.write(post())
        with pytest.raises(ConnectionResetError):
            assert await client.reader.read() == b"never"
    assert len(proxy.posts[0].body) == 777


@on_both_loops
async def test_refusing_leaves_standing_connections_alone_and_ends():
    async with SimulatorServer() as server, FaultProxy(server.origin) as proxy, client_of(proxy) as client:
        await client.ask(GET)
        async with proxy.refusing():
            with pytest.raises(ConnectionRefusedError):
                async with client_of(proxy):
                    pass
            assert b" 200 " in await client.ask(post())
        async with client_of(proxy) as other:
            assert b"HTTP/1.1 404 " in await other.ask(GET)
    assert (len(proxy.requests), proxy.connections) == (3, 2)


@on_both_loops
async def test_a_server_that_stops_reading_is_noticed_by_the_client():
    """With a small buffer in the system, and a body larger than all buffers on the way."""
    plan = Plan(every_post=FAULTS["stop_reading"])
    async with FaultProxy(plan=plan, receive_buffer_bytes=4_096) as proxy, client_of(proxy) as client:
        client.writer.write(post(b"1" * 20_000_000))
        await proxy.seen()
        drained = asyncio.create_task(client.writer.drain())
        await asyncio.wait([drained], timeout=0.1)
        stuck = not drained.done()
        drained.cancel()
        client.writer.transport.abort()
    assert stuck
    assert len(proxy.posts[0].body) == 0


TOXICS = {
    "latency": Toxic(latency_s=0.01, jitter_s=0.01),
    "bandwidth": Toxic(bandwidth_bytes_per_s=1_000_000),
    "slicer": Toxic(slicer_bytes=3),
    "slow_close": Toxic(slow_close_s=0.01),
}


@on_both_loops
@pytest.mark.parametrize("name", TOXICS)
async def test_a_toxic_that_only_delays_changes_no_byte(name):
    plan = Plan(every_connection=toxic(name, to_client=TOXICS[name], to_server=TOXICS[name]))
    async with (
        SimulatorServer() as server,
        FaultProxy(server.origin, plan) as proxy,
        client_of(proxy) as client,
    ):
        answer = await client.ask(post())
    assert proxy.answers[0].raw == answer
    assert proxy.posts[0].forwarded


@on_both_loops
async def test_delays_take_the_time_they_say():
    delay_s = 0.05
    slow = Toxic(bandwidth_bytes_per_s=len(BODY) / delay_s)
    plans = {
        "latency": Plan(every_connection=toxic("latency", to_client=Toxic(latency_s=delay_s))),
        "bandwidth": Plan(every_connection=toxic("bandwidth", to_server=slow)),
        "late": Plan(every_post=answer_late(delay_s)),
    }
    loop = asyncio.get_running_loop()
    async with SimulatorServer() as server:
        for name, plan in plans.items():
            async with FaultProxy(server.origin, plan) as proxy, client_of(proxy) as client:
                begun = loop.time()
                await client.ask(post())
                assert loop.time() - begun >= delay_s * 0.9, name


@on_both_loops
@pytest.mark.parametrize(
    ("harm", "left"),
    [(Toxic(limit_data_bytes=33), 33), (Toxic(timeout_s=0.01), 0), (Toxic(reset_peer_s=0.0), None)],
    ids=["limit_data", "timeout", "reset_peer"],
)
async def test_a_toxic_that_ends_the_connection_lets_so_much_pass(harm, left):
    plan = Plan(every_connection=toxic("x", to_client=harm))
    async with (
        SimulatorServer() as server,
        FaultProxy(server.origin, plan) as proxy,
        client_of(proxy) as client,
    ):
        client.writer.write(post())
        got = await client.rest()
        jobs = server.service.totals()["jobs"]
    assert jobs == 1
    assert got == proxy.answers[0].raw[:left]


async def test_a_fault_that_breaks_is_told_and_not_lost():
    async def broken(_exchange: object) -> None:
        raise ZeroDivisionError

    plan = Plan(every_post=Fault("broken", broken))
    async with FaultProxy(plan=plan) as proxy, client_of(proxy) as client:
        client.writer.write(post())
        await client.rest()
        await proxy.quiet()
    assert [type(error) for error in proxy.errors] == [ZeroDivisionError]


def test_every_fault_is_in_the_table_under_its_name_and_its_stage():
    assert all(name == fault.name for name, fault in FAULTS.items())
    assert {fault.stage for fault in FAULTS.values()} == set(Stage)
