"""What each fault on the wire proves, over real sockets: the tables of the transport and of the verdict together.

A case breaks when a version of aiohttp raises something else, raises it earlier or later, or sends a request twice.
Some exceptions of aiohttp have no case, as the transport gives them no occasion: `SocketTimeoutError` (there is no
`sock_read`), `ServerFingerprintMismatch` (no fingerprints), those of proxies (none is ever used).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass

import aiohttp
import pytest
from support.faults import FAULTS, Exchange, Fault, FaultProxy, Plan, answering, interim_flood
from support.faults.certificates import Certificates
from support.loops import on_both_loops
from support.sending import ANSWER, BODY, Hook, ask, submit, transport, unused_port

from bulkjobs.model import (
    Accepted,
    Cause,
    Evidence,
    NotApplied,
    Phase,
    Refused,
    RequestKind,
    Unknown,
    Verdict,
)
from bulkjobs.simulator import SimulatorServer
from bulkjobs.verdict import judge
from bulkjobs.wire.answer import ANSWER_CAP_BYTES

TOKEN = "simulator-token"
SHORT_S = 0.5
"""A time-out, where it is the subject; long enough to get as far as the fault on a busy machine."""


def error_class(evidence: Evidence) -> str | None:
    return evidence.error and evidence.error.partition(":")[0]


def assert_verdict(verdict: Verdict, expected: type | Cause) -> None:
    if isinstance(expected, Cause):
        assert isinstance(verdict, NotApplied), verdict
        assert verdict.cause is expected
    else:
        assert isinstance(verdict, expected), verdict


def assert_consistent(evidence: Evidence) -> None:
    """Holds what is true of all evidence, whatever happened."""
    assert (evidence.sent_utc is not None) == (evidence.phase >= Phase.HEADERS_SENT)
    assert (evidence.answered_utc is not None) == (evidence.phase >= Phase.STATUS_READ)
    assert (evidence.status is not None) == (evidence.phase >= Phase.STATUS_READ)
    times = [evidence.started_utc, evidence.sent_utc, evidence.answered_utc, evidence.ended_utc]
    known = [time for time in times if time is not None]
    assert known == sorted(known)
    assert len(evidence.body) <= evidence.answer_bytes or "***" in repr(evidence.body)
    assert (evidence.connection_reused is None) == (evidence.phase < Phase.CONNECTED)


# Nothing was sent


def assert_nothing_sent(evidence: Evidence, phase: Phase, error: str) -> None:
    assert_consistent(evidence)
    assert (evidence.phase, error_class(evidence)) == (phase, error)
    assert (evidence.status, evidence.answer_bytes, evidence.sent_utc) == (None, 0, None)
    assert_verdict(judge(evidence), Cause.NOT_SENT)


@on_both_loops
async def test_a_refused_connection_sent_nothing():
    hook = Hook()
    async with FaultProxy() as proxy, transport() as client, proxy.refusing():
        evidence = await client.request(submit(proxy.origin), before_first_byte=hook)
    assert_nothing_sent(evidence, Phase.STARTED, "ClientConnectorError")
    assert (hook.calls, proxy.connections) == (0, 0)


@contextlib.contextmanager
def crowded_port() -> Iterator[int]:
    """Gives a port at which the system drops every further connection attempt unanswered, as a firewall does."""
    with socket.socket() as server, contextlib.ExitStack() as waiting:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        while True:
            guest = waiting.enter_context(socket.socket())
            guest.settimeout(0.05)
            try:
                guest.connect(server.getsockname())
            except TimeoutError:
                break
        yield server.getsockname()[1]


@on_both_loops
async def test_a_connection_attempt_that_nobody_answers_sent_nothing():
    hook = Hook()
    with crowded_port() as port:
        async with transport(connect_timeout_s=SHORT_S) as client:
            evidence = await client.request(submit(f"http://127.0.0.1:{port}"), before_first_byte=hook)
    assert_nothing_sent(evidence, Phase.STARTED, "ConnectionTimeoutError")
    assert hook.calls == 0


class NoSuchName(aiohttp.abc.AbstractResolver):
    """Knows no name."""

    async def resolve(self, host, port=0, family=socket.AF_INET):
        raise OSError(socket.EAI_NONAME, "Name or service not known")

    async def close(self):
        pass


class SilentNameServer(NoSuchName):
    """Never answers."""

    async def resolve(self, host, port=0, family=socket.AF_INET):
        return await asyncio.Event().wait()


@on_both_loops
@pytest.mark.parametrize(
    ("resolver", "error"),
    [(NoSuchName, "ClientConnectorDNSError"), (SilentNameServer, "ConnectionTimeoutError")],
    ids=["unknown", "silent"],
)
async def test_a_name_that_cannot_be_resolved_sent_nothing(monkeypatch, resolver, error):
    monkeypatch.setattr(aiohttp.connector, "DefaultResolver", lambda *_, **__: resolver())
    hook = Hook()
    async with transport(connect_timeout_s=SHORT_S) as client:
        evidence = await client.request(submit("http://no.such.example"), before_first_byte=hook)
    assert_nothing_sent(evidence, Phase.STARTED, error)
    assert hook.calls == 0


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl command to make certificates with")
    return Certificates.make(tmp_path_factory.mktemp("certificates"))


@on_both_loops
async def test_a_submission_over_tls_is_accepted(certificates):
    async with (
        SimulatorServer() as server,
        FaultProxy(server.origin, tls=certificates.server("good")) as proxy,
        transport(ssl_context=certificates.client()) as client,
    ):
        evidence = await client.request(submit(proxy.through(server.base_url), token=TOKEN))
    assert proxy.origin.startswith("https:")
    assert_consistent(evidence)
    assert_verdict(judge(evidence), Accepted)


@on_both_loops
@pytest.mark.parametrize("name", ["expired", "other_host"])
async def test_a_certificate_that_cannot_be_trusted_sent_nothing(certificates, name):
    hook = Hook()
    async with (
        FaultProxy(tls=certificates.server(name)) as proxy,
        transport(ssl_context=certificates.client()) as client,
    ):
        evidence = await client.request(submit(proxy.origin), before_first_byte=hook)
    assert_nothing_sent(evidence, Phase.STARTED, "ClientConnectorCertificateError")
    assert (hook.calls, proxy.requests) == (0, [])


@on_both_loops
async def test_a_certificate_of_an_unknown_authority_sent_nothing(certificates):
    async with FaultProxy(tls=certificates.server("good")) as proxy, transport() as client:
        evidence = await client.request(submit(proxy.origin))
    assert_nothing_sent(evidence, Phase.STARTED, "ClientConnectorCertificateError")
    assert proxy.requests == []


@on_both_loops
@pytest.mark.parametrize(
    ("fault", "errors"),
    [
        ("plain_http", {"ClientConnectorSSLError"}),
        ("accept_silence", {"ConnectionTimeoutError"}),
        ("accept_close", {"ClientConnectorError", "ClientConnectorSSLError"}),
        ("accept_reset", {"ClientConnectorError", "ClientConnectorSSLError"}),
    ],
)
async def test_a_tls_handshake_that_fails_sent_nothing(fault, errors):
    hook = Hook()
    plan = Plan(every_connection=FAULTS[fault])
    patience_s = SHORT_S if fault == "accept_silence" else 5.0
    async with FaultProxy(plan=plan) as proxy, transport(connect_timeout_s=patience_s) as client:
        url = proxy.origin.replace("http:", "https:")
        evidence = await client.request(submit(url), before_first_byte=hook)
    assert error_class(evidence) in errors
    assert_nothing_sent(evidence, Phase.STARTED, error_class(evidence))
    assert (hook.calls, proxy.connections) == (0, 1)


async def settle() -> None:
    """Lets the loop see what the system has got already."""
    for _ in range(10):
        await asyncio.sleep(0)


@on_both_loops
@pytest.mark.parametrize("fault", ["accept_reset", "accept_close"])
async def test_a_connection_that_ends_before_the_first_byte_sent_nothing(fault):
    """The intent takes a sync of the disk, and then the connection is looked at once more."""
    async with FaultProxy(plan=Plan(every_connection=FAULTS[fault])) as proxy, transport() as client:

        async def hook() -> None:
            await proxy.quiet()
            await settle()

        evidence = await client.request(submit(proxy.origin), before_first_byte=hook)
    error = "the server closed the connection before anything was sent"
    assert_nothing_sent(evidence, Phase.CONNECTED, error)
    assert (proxy.requests, proxy.connections) == ([], 1)


@on_both_loops
@pytest.mark.parametrize("fault", ["accept_reset", "accept_close"])
async def test_a_connection_that_ends_with_the_first_byte_is_in_doubt_or_unused(fault):
    """Which of the two depends on the moment; what it says is true in both."""
    async with FaultProxy(plan=Plan(every_connection=FAULTS[fault])) as proxy, transport() as client:
        evidence = await client.request(submit(proxy.origin))
    assert_consistent(evidence)
    assert evidence.status is None
    assert_verdict(judge(evidence), Cause.NOT_SENT if evidence.phase < Phase.HEADERS_SENT else Unknown)
    assert proxy.requests == []


@on_both_loops
async def test_the_environments_proxy_is_not_used(monkeypatch):
    """It would see the token, and what its answers prove is another question."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{unused_port()}")
        monkeypatch.setenv(name.upper(), f"http://127.0.0.1:{unused_port()}")
    async with SimulatorServer() as server, transport() as client:
        evidence = await client.request(submit(server.base_url, token=TOKEN))
    assert_verdict(judge(evidence), Accepted)


# Bytes left


@dataclass(frozen=True)
class Row:
    """Is what one fault must look like."""

    phase: Phase
    error: str | None
    answer: str
    """How much of the answer's body was read: none, some, all."""
    verdict: type | Cause
    jobs: int
    status: int | None = 200
    times_out: bool = False


def no_answer(error: str, *, jobs: int, times_out: bool = False) -> Row:
    return Row(Phase.BODY_SENT, error, "none", Unknown, jobs, None, times_out)


def broken_off(error: str, answer: str = "some", *, times_out: bool = False) -> Row:
    return Row(Phase.STATUS_READ, error, answer, Unknown, 1, 200, times_out)


def complete(answer: str = "all", verdict: type = Accepted) -> Row:
    return Row(Phase.COMPLETE, None, answer, verdict, 1)


RESET, CLOSED, NO_HTTP = "ClientOSError", "ServerDisconnectedError", "ClientResponseError"
LATE, BROKEN = "TimeoutError", "ClientPayloadError"

TABLE = {
    # the connection breaks
    "reset_after_head": no_answer(RESET, jobs=0),
    "reset_mid_body": no_answer(RESET, jobs=0),
    "limit_upload": no_answer(CLOSED, jobs=0),
    "reset_before_answer": no_answer(RESET, jobs=1),
    "reset_before_answer_lost": no_answer(RESET, jobs=0),
    "fin_before_answer": no_answer(CLOSED, jobs=1),
    "fin_before_answer_lost": no_answer(CLOSED, jobs=0),
    "limit_data": no_answer(CLOSED, jobs=1),
    # the time is up
    "stop_reading": no_answer(LATE, jobs=0, times_out=True),
    "slow_upload": no_answer(LATE, jobs=0, times_out=True),
    "no_answer": no_answer(LATE, jobs=1, times_out=True),
    "no_answer_lost": no_answer(LATE, jobs=0, times_out=True),
    "timeout": no_answer(LATE, jobs=1, times_out=True),
    "stall_after_status_line": no_answer(LATE, jobs=1, times_out=True),
    "stall_in_head": no_answer(LATE, jobs=1, times_out=True),
    "head_drip": no_answer(LATE, jobs=1, times_out=True),
    "interim_flood": no_answer(LATE, jobs=1, times_out=True),
    "stall_in_body": broken_off(LATE, times_out=True),
    "body_drip": broken_off(LATE, times_out=True),
    # the answer is no HTTP; the 400 in aiohttp's exception is not the server's
    "bad_chunk": no_answer(NO_HTTP, jobs=1),
    "garbage_status_line": no_answer(NO_HTTP, jobs=1),
    "not_http": no_answer(NO_HTTP, jobs=1),
    "header_flood": no_answer(NO_HTTP, jobs=1),
    "long_header": no_answer(NO_HTTP, jobs=1),
    # the answer breaks off: what came of it is kept, and the id in it is only a hint
    "short_length": broken_off(BROKEN, "all"),
    "cut_chunked": broken_off(BROKEN, "all"),
    "reset_in_answer": broken_off(BROKEN),
    "cut_by_close": complete("some", Unknown),  # HTTP cannot notice; only a full parse protects
    # the answer is odd, but an answer
    "ends_with_connection": complete(),
    "interim_answers": complete(),
    "answer_twice": complete(),
    "answer_late": complete(),
    "stale_closed": complete(),
    "gzip_bomb": Row(Phase.COMPLETE, None, "some", Unknown, 1),
    # the connection is bad, but holds
    "latency": complete(),
    "bandwidth": complete(),
    "slicer": complete(),
    "slow_close": complete(),
    "reset_peer": complete(),
    # a throttle that does not wait for the ids
    "early_429_close": Row(Phase.COMPLETE, None, "none", Cause.THROTTLED, 0, 429),
}


async def assert_row(
    name: str, server_tls: ssl.SSLContext | None = None, client_tls: ssl.SSLContext | None = None
):
    row, hook = TABLE[name], Hook()
    async with (
        SimulatorServer() as server,
        FaultProxy(server.origin, Plan(rates={name: 1.0}), tls=server_tls) as proxy,
        transport(request_timeout_s=SHORT_S if row.times_out else 20.0, ssl_context=client_tls) as client,
    ):
        evidence = await client.request(
            submit(proxy.through(server.base_url), token=TOKEN), before_first_byte=hook
        )
        jobs = server.service.totals()["jobs"]
    assert proxy.errors == []
    assert_consistent(evidence)
    assert (evidence.phase, error_class(evidence), evidence.status) == (row.phase, row.error, row.status)
    whole = len(proxy.answers[0].body) if proxy.answers else 0
    match row.answer:
        case "none":
            assert evidence.answer_bytes == 0
        case "some":
            assert evidence.answer_bytes not in (0, whole)
        case _:
            assert evidence.answer_bytes == whole > 0
    assert_verdict(judge(evidence), row.verdict)
    assert evidence.connection_reused is False
    assert (hook.calls, len(proxy.posts), jobs) == (1, 1, row.jobs)


@on_both_loops
@pytest.mark.parametrize("name", TABLE)
async def test_each_fault_on_the_wire_has_its_evidence_and_its_verdict(name):
    """And whatever happens, the server sees one request at most."""
    await assert_row(name)


@on_both_loops
@pytest.mark.parametrize(
    "name",
    [
        "reset_after_head", "reset_mid_body", "reset_before_answer", "fin_before_answer", "stop_reading",
        "stall_in_head", "stall_in_body", "garbage_status_line", "short_length", "cut_chunked",
        "reset_in_answer", "cut_by_close", "ends_with_connection",
    ],
)  # fmt: skip
async def test_a_fault_behind_tls_proves_the_same(certificates, name):
    await assert_row(name, certificates.server("good"), certificates.client())


def test_the_table_has_every_fault_that_is_not_tried_in_a_test_of_its_own():
    elsewhere = {
        "accept_close", "accept_reset", "accept_silence", "plain_http", "speaks_first", "stale_keep_alive",
        "answer_of_before", "early_413_reset", "endless_body",
    }  # fmt: skip
    assert set(TABLE) | elsewhere == set(FAULTS)


@on_both_loops
async def test_an_answer_that_a_reset_may_erase_is_taken_or_in_doubt():
    """A 413 before the ids were read, and a RST behind it: the system may drop what it has not handed over."""
    plan = Plan(every_post=FAULTS["early_413_reset"])
    async with FaultProxy(plan=plan) as proxy, transport() as client:
        evidence = await client.request(submit(proxy.origin, BODY * 10))
    assert_consistent(evidence)
    if evidence.status == 413:
        assert isinstance(judge(evidence), NotApplied)
    else:
        assert error_class(evidence) in (RESET, "ClientConnectionResetError", CLOSED)
        assert_verdict(judge(evidence), Unknown)
    assert len(proxy.posts) == 1


@on_both_loops
async def test_an_endless_answer_is_read_up_to_the_cap_and_its_connection_closed():
    """All that was read is counted, the cap's worth is kept, and the server is not left writing."""
    cap = ANSWER_CAP_BYTES[RequestKind.SUBMIT]
    plan = Plan(posts={1: FAULTS["endless_body"]})
    async with (
        SimulatorServer() as server,
        FaultProxy(server.origin, plan) as proxy,
        transport(connections=1) as client,
    ):
        url = proxy.through(server.base_url)
        endless = await client.request(submit(url, token=TOKEN))
        await proxy.quiet()
        after = await client.request(submit(url, b"1", token=TOKEN))
    assert_consistent(endless)
    assert (endless.phase, endless.status, endless.body_cut) == (Phase.STATUS_READ, 200, True)
    assert (len(endless.body), endless.answer_bytes > cap) == (cap, True)
    assert_verdict(judge(endless), Unknown)
    assert (after.connection_reused, len(proxy.posts)) == (False, 2)
    assert_verdict(judge(after), Accepted)


@on_both_loops
async def test_a_compressed_answer_is_not_expanded():
    """Nothing compressed was asked for, and 20 MB of zeros fit into 20 KB."""
    async with (
        SimulatorServer() as server,
        FaultProxy(server.origin, Plan(every_post=FAULTS["gzip_bomb"])) as proxy,
        transport() as client,
    ):
        evidence = await client.request(submit(proxy.through(server.base_url), token=TOKEN))
    assert evidence.answer_bytes == len(evidence.body) < 30_000
    assert evidence.body.startswith(b"\x1f\x8b")


# A connection that is not silent


@on_both_loops
@pytest.mark.parametrize("make", [submit, ask])
async def test_a_request_on_a_connection_gone_stale_is_not_repeated(make):
    """That would be a request the account's window does not know of, or a second job."""
    hook = Hook()
    plan = Plan(rates={"stale_keep_alive": 1.0}, methods=frozenset({"GET", "POST"}))
    async with SimulatorServer() as server, FaultProxy(server.origin, plan) as proxy, transport() as client:
        url = proxy.through(server.base_url)
        first = await client.request(make(url), before_first_byte=hook)
        second = await client.request(make(url), before_first_byte=hook)
    assert first.phase is Phase.COMPLETE
    assert_consistent(second)
    assert (second.phase >= Phase.HEADERS_SENT, second.status, second.connection_reused) == (True, None, True)
    assert error_class(second) == "ClientOSError"
    assert_verdict(judge(second), Unknown)
    assert (hook.calls, len(proxy.requests), proxy.connections) == (2, 1, 1)


@on_both_loops
async def test_a_connection_that_the_server_has_closed_is_not_used_again():
    async with (
        SimulatorServer() as server,
        FaultProxy(server.origin, Plan(posts={1: FAULTS["stale_closed"]})) as proxy,
        transport() as client,
    ):
        url = proxy.through(server.base_url)
        await client.request(submit(url, b"1", token=TOKEN))
        await proxy.quiet()
        await settle()
        evidence = await client.request(submit(url, b"2", token=TOKEN))
    assert (evidence.connection_reused, proxy.connections) == (False, 2)
    assert_verdict(judge(evidence), Accepted)


UNASKED = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n"


class Talkative:
    """Answers, and says something more when it is told to."""

    def __init__(self, unasked: bytes = UNASKED) -> None:
        self.unasked = unasked
        self.go_on, self.said = asyncio.Event(), asyncio.Event()

    async def play(self, exchange: Exchange) -> None:
        await exchange.pass_on()
        await self.go_on.wait()
        await exchange.client.write(self.unasked)
        self.said.set()

    async def speak(self) -> None:
        self.go_on.set()
        await self.said.wait()
        await settle()


@on_both_loops
@pytest.mark.parametrize(
    "unasked", [UNASKED, b"HTTP/1.1 200 OK\r\n\r\n" + ANSWER, b"?"], ids=["429", "200", "noise"]
)
async def test_an_answer_that_came_before_the_question_is_not_taken(unasked):
    """A 429 that belongs to nothing would prove that a job was not made which was: the ids would be paid twice."""
    talkative = Talkative(unasked)
    plan = Plan(posts={1: Fault("talkative", talkative.play)})
    async with SimulatorServer() as server, FaultProxy(server.origin, plan) as proxy, transport() as client:
        url = proxy.through(server.base_url)
        await client.request(submit(url, b"1", token=TOKEN))
        await talkative.speak()
        evidence = await client.request(submit(url, b"2", token=TOKEN))
        jobs = server.service.totals()["jobs"]
    assert (evidence.connection_reused, evidence.body) == (False, proxy.answers[1].body)
    assert_verdict(judge(evidence), Accepted)
    assert (jobs, len(proxy.posts)) == (2, 2)


@on_both_loops
async def test_an_answer_that_comes_while_the_intent_is_written_sends_nothing():
    talkative = Talkative()
    plan = Plan(posts={1: Fault("talkative", talkative.play)})
    async with SimulatorServer() as server, FaultProxy(server.origin, plan) as proxy, transport() as client:
        url = proxy.through(server.base_url)
        await client.request(submit(url, b"1", token=TOKEN))
        evidence = await client.request(submit(url, b"2", token=TOKEN), before_first_byte=talkative.speak)
        after = await client.request(submit(url, b"2", token=TOKEN))
    error = "the server spoke before it was asked, so its answer could not be told from an older one"
    assert_nothing_sent(evidence, Phase.CONNECTED, error)
    assert evidence.connection_reused is True
    assert_verdict(judge(after), Accepted)
    assert (len(proxy.posts), proxy.connections) == (2, 2)


@on_both_loops
@pytest.mark.parametrize(
    ("data", "error"),
    [
        (UNASKED, "the server spoke before it was asked, so its answer could not be told from an older one"),
        (b"", "the server closed the connection before anything was sent"),
    ],
    ids=["speaks", "closes"],
)
async def test_what_has_reached_this_machine_before_the_first_byte_is_seen(data, error):
    """Even if it came at the last moment of the hook, and the loop has had no turn since."""
    with socket.create_server(("127.0.0.1", 0)) as server, contextlib.ExitStack() as stack:

        async def hook() -> None:
            end = stack.enter_context(server.accept()[0])
            if data:
                end.sendall(data)
            else:
                end.close()

        async with transport() as client:
            url = f"http://127.0.0.1:{server.getsockname()[1]}"
            evidence = await client.request(submit(url), before_first_byte=hook)
    assert_nothing_sent(evidence, Phase.CONNECTED, error)


@on_both_loops
async def test_a_server_that_speaks_first_is_asked_nothing():
    """One fresh connection is enough to see it: there is no loop of connects."""
    async with FaultProxy(plan=Plan(every_connection=FAULTS["speaks_first"])) as proxy, transport() as client:

        async def hook() -> None:
            await proxy.accepted()
            await settle()

        evidence = await client.request(submit(proxy.origin), before_first_byte=hook)
    assert evidence.phase is Phase.CONNECTED
    assert_verdict(judge(evidence), Cause.NOT_SENT)
    assert (proxy.requests, proxy.connections) == ([], 1)


@on_both_loops
async def test_a_second_answer_behind_the_first_spoils_the_connection_and_nothing_else():
    async with (
        SimulatorServer() as server,
        FaultProxy(server.origin, Plan(posts={1: FAULTS["answer_twice"]})) as proxy,
        transport() as client,
    ):
        url = proxy.through(server.base_url)
        first = await client.request(submit(url, b"1", token=TOKEN))
        second = await client.request(submit(url, b"2", token=TOKEN))
    assert [judge(one).job_id for one in (first, second)] == [
        json.loads(answer.body)["jobId"] for answer in proxy.answers
    ]
    assert second.connection_reused is False


@on_both_loops
async def test_an_answer_that_belongs_to_another_request_cannot_be_told_from_the_wire():
    """It shows as a job id that the ledger has already; the transport can only hand it on."""
    async with (
        SimulatorServer() as server,
        FaultProxy(server.origin, Plan(posts={2: FAULTS["answer_of_before"]})) as proxy,
        transport() as client,
    ):
        url = proxy.through(server.base_url)
        first, second = [judge(await client.request(submit(url, ids, token=TOKEN))) for ids in (b"1", b"2")]
        jobs = server.service.totals()["jobs"]
    assert isinstance(first, Accepted)
    assert (first, jobs) == (second, 2)


# Cancellation


@on_both_loops
async def test_a_cancel_before_the_hook_sent_nothing():
    hook = Hook()
    async with (
        FaultProxy(plan=Plan(every_connection=FAULTS["accept_silence"])) as proxy,
        transport() as client,
    ):
        url = proxy.origin.replace("http:", "https:")  # the handshake hangs
        task = asyncio.create_task(client.request(submit(url), before_first_byte=hook))
        await proxy.accepted()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert (hook.calls, proxy.requests) == (0, [])


@on_both_loops
async def test_a_cancel_after_the_hook_may_have_made_a_job():
    """So whether the hook has ended is what the caller must go by."""
    hook = Hook()
    async with (
        SimulatorServer() as server,
        FaultProxy(server.origin, Plan(every_post=FAULTS["no_answer"])) as proxy,
        transport() as client,
    ):
        answered = asyncio.Event()
        url = proxy.through(server.base_url)
        proxy.when_body_passed(len(BODY), answered.set)
        task = asyncio.create_task(client.request(submit(url, token=TOKEN), before_first_byte=hook))
        await answered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [seen.body for seen in proxy.posts] == [BODY]
    assert hook.calls == 1


# What the server says


def said(number: str, message: str = "") -> bytes:
    return json.dumps({"errorNumber": number, "message": message, "status": number[:3]}).encode()


SAID = {
    "200": ("200 OK", ANSWER, Accepted),
    "201": ("201 Created", ANSWER, Accepted),
    "200 without a job id": ("200 OK", b'{"status":"accepted"}', Unknown),
    "200 empty": ("200 OK", b"", Unknown),
    "204": ("204 No Content", b"", Unknown),
    "200 with a page": ("200 OK", b"<!DOCTYPE html><html><body>Log in</body></html>", Unknown),
    "200 with an error": ("200 OK", said("500-1", "Try later"), Unknown),
    "200 over the cap": ("200 OK", ANSWER + b" " * 100_000, Unknown),
    "400 input": ("400 Bad Request", said("400-108"), Refused),
    "400 quota": ("400 Bad Request", said("400-1", "Insufficient transaction quota."), Cause.NO_QUOTA),
    "400 slots": ("400 Bad Request", said("400-1", "2 jobs are already running."), Cause.SLOTS_FULL),
    "400 unknown": ("400 Bad Request", said("400-999", "Something else."), Unknown),
    "400 page": ("400 Bad Request", b"<html><h1>400</h1></html>", Unknown),
    "401": ("401 Unauthorized", b"", Cause.UNAUTHORIZED),
    "429": ("429 Too Many Requests", b"", Cause.THROTTLED),
    **{
        f"{status} configuration": (f"{status} No", b"", Cause.MISCONFIGURED)
        for status in (301, 302, 307, 308, 403, 404, 405, 415, 426)
    },
    **{f"{status} not processed": (f"{status} No", b"", Cause.NOT_PROCESSED) for status in (421, 425)},
    **{f"{status} in doubt": (f"{status} No", b"", Unknown) for status in (303, 408, 409, 423)},
    **{
        f"{status} with a job": (f"{status} No", ANSWER, Unknown) for status in (500, 501, 502, 503, 504, 520)
    },
}


@pytest.mark.parametrize(("status", "body", "expected"), SAID.values(), ids=SAID)
async def test_each_answer_has_its_verdict_and_is_asked_for_once(status, body, expected):
    """Also a redirect: the ids would be paid for at an address nobody chose, with our token."""
    fault = answering(status, body, "Location: /elsewhere\r\nRetry-After: 7\r\n")
    async with FaultProxy(plan=Plan(every_post=fault)) as proxy, transport() as client:
        evidence = await client.request(submit(proxy.origin))
    assert_consistent(evidence)
    assert (evidence.status, evidence.retry_after) == (int(status[:3]), "7")
    assert evidence.answer_bytes >= len(evidence.body)
    assert_verdict(judge(evidence), expected)
    assert [seen.method for seen in proxy.requests] == ["POST"]
    assert [bytes(seen.body) for seen in proxy.posts] == [BODY]


async def test_interim_answers_are_not_the_answer():
    plan = Plan(every_post=interim_flood(100))
    async with SimulatorServer() as server, FaultProxy(server.origin, plan) as proxy, transport() as client:
        evidence = await client.request(submit(proxy.through(server.base_url), token=TOKEN))
    assert (evidence.status, evidence.body) == (200, proxy.answers[0].body)
