"""What can go wrong on the wire, as scripts of a few lines each.

`_made` and `_lost` in a name tell whether the upstream got the request: with a service behind the proxy, whether there
is a job. A fault of the answer is `_made` unless its name says otherwise. `FAULTS` has each with usual figures, and
the functions make them with other ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from support.faults.exchange import Exchange, Fault, Stage, stall
from support.faults.stream import CLEAN, Message, Toxic

__all__ = [
    "FAULTS",
    "answer_late",
    "answering",
    "drip",
    "interim_flood",
    "reset_mid_body",
    "spoiling",
    "toxic",
]

_OK: Final = b"HTTP/1.1 200 OK\r\n"
_DRIP_S: Final = 0.02


def answering(
    status: str, body: bytes = b"", headers: str = "", *, read_first: bool = True, then: str = "keep"
) -> Fault:
    """Answers itself; the upstream hears nothing of the request.

    Args:
        status: number and words of the status line.
        body: what follows, with its true length.
        headers: more headers, each with its line end.
        read_first: whether the request's body is read before the answer.
        then: "keep" the connection, "close" it in order, or "reset" it.
    """

    async def play(exchange: Exchange) -> None:
        if read_first:
            await exchange.read_body()
        last = "Connection: close\r\n" if then == "close" else ""
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}{last}\r\n"
        await exchange.send(head.encode() + body)
        if then == "close":
            await exchange.end()
        elif then == "reset":
            exchange.client.reset()

    return Fault(f"answering_{status.split(maxsplit=1)[0]}", play)


def spoiling(name: str, spoil: Callable[[Exchange, Message], Awaitable[None]], *, made: bool = True) -> Fault:
    """Makes a fault that gets the upstream's answer (an empty one unless `made`) and sends what it likes."""

    async def play(exchange: Exchange) -> None:
        await spoil(exchange, await exchange.ask(made=made))

    return Fault(name, play)


def toxic(name: str, *, to_client: Toxic = CLEAN, to_server: Toxic = CLEAN) -> Fault:
    """Makes a fault that puts toxics on a new connection, which goes on with them."""

    async def play(exchange: Exchange) -> None:
        exchange.client.toxic = to_client
        exchange.connection.toxic_to_server = to_server

    return Fault(name, play, Stage.CONNECT)


def reset_mid_body(at_bytes: int) -> Fault:
    """Resets the connection when so much of the request's body was read."""

    async def play(exchange: Exchange) -> None:
        await exchange.read_body(at_bytes)
        exchange.client.reset()

    return Fault("reset_mid_body", play)


def answer_late(delay_s: float) -> Fault:
    """Holds the answer back for so long."""

    async def spoil(exchange: Exchange, answer: Message) -> None:
        await asyncio.sleep(delay_s)
        await exchange.send(answer.raw)

    return spoiling("answer_late", spoil)


def interim_flood(count: int | None) -> Fault:
    """Sends so many interim answers before the real one, or without an end."""

    async def spoil(exchange: Exchange, answer: Message) -> None:
        sent = 0
        while count is None or sent < count:
            await exchange.send(b"HTTP/1.1 102 Processing\r\n\r\n" * 100)
            sent += 100
        await exchange.send(answer.raw)

    return spoiling("interim_flood" if count is None else "interim_answers", spoil)


def drip(part: str, pause_s: float = _DRIP_S) -> Fault:
    """Sends the "head" or the "body" of the answer byte by byte."""

    async def spoil(exchange: Exchange, answer: Message) -> None:
        slow = answer.raw if part == "head" else answer.body
        if part == "body":
            await exchange.send(answer.head)
        for at in range(len(slow)):
            await exchange.send(slow[at : at + 1])
            await asyncio.sleep(pause_s)

    return spoiling(f"{part}_drip", spoil)


# When a connection was accepted


async def _accept_reset(exchange: Exchange) -> None:
    exchange.client.reset()


async def _accept_close(exchange: Exchange) -> None:
    exchange.client.close()


async def _accept_silence(exchange: Exchange) -> None:
    await exchange.client.wait_until_gone()


async def _plain_http(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    await exchange.end()


async def _speaks_first(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n")


# Before there is an answer


async def _reset_after_head(exchange: Exchange) -> None:
    exchange.client.reset()


async def _stop_reading(_exchange: Exchange) -> None:
    await stall()


async def _stale(exchange: Exchange) -> None:
    """Answers, then behaves as a server that has given the connection up: the next byte is met by a RST."""
    await exchange.pass_on()
    if await exchange.client.read(1):
        exchange.client.reset()


async def _stale_closed(exchange: Exchange) -> None:
    """Answers as if the connection stayed open, and closes it at once."""
    await exchange.pass_on()
    exchange.client.close()


async def _fin(exchange: Exchange, _answer: Message) -> None:
    await exchange.end()


async def _reset(exchange: Exchange, _answer: Message) -> None:
    exchange.client.reset()


async def _silence(exchange: Exchange, _answer: Message) -> None:
    await exchange.client.wait_until_gone()


# Answers that are not what they should be


async def _stall_after(exchange: Exchange, _answer: Message, *, sent: bytes) -> None:
    await exchange.send(sent)
    await exchange.client.wait_until_gone()


async def _stall_in_body(exchange: Exchange, answer: Message) -> None:
    await exchange.send(answer.head + answer.body[: len(answer.body) // 2])
    await exchange.client.wait_until_gone()


async def _cut_length(exchange: Exchange, answer: Message) -> None:
    await exchange.send(_OK + b"Content-Length: %d\r\n\r\n" % (len(answer.body) + 430) + answer.body)
    await exchange.end()


async def _reset_in_answer(exchange: Exchange, answer: Message) -> None:
    await exchange.send(answer.head + answer.body[: len(answer.body) // 2])
    exchange.client.reset()


async def _cut_chunked(exchange: Exchange, answer: Message) -> None:
    size = b"%x\r\n" % len(answer.body)
    await exchange.send(_OK + b"Transfer-Encoding: chunked\r\n\r\n" + size + answer.body)
    await exchange.end()


async def _bad_chunk(exchange: Exchange, answer: Message) -> None:
    await exchange.send(_OK + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n" + answer.body)
    await exchange.client.wait_until_gone()


async def _cut_silently(exchange: Exchange, answer: Message) -> None:
    await exchange.send(_OK + b"\r\n" + answer.body[: len(answer.body) // 2])
    await exchange.end()


async def _ends_with_connection(exchange: Exchange, answer: Message) -> None:
    await exchange.send(_OK + b"\r\n" + answer.body)
    await exchange.end()


async def _garbage(exchange: Exchange, answer: Message, *, line: bytes) -> None:
    await exchange.send(line + b"\r\n\r\n" + answer.body)
    await exchange.client.wait_until_gone()


async def _header_flood(exchange: Exchange, answer: Message) -> None:
    await exchange.send(_OK + b"X: y\r\n" * 10_000 + b"\r\n" + answer.body)
    await exchange.client.wait_until_gone()


async def _long_header(exchange: Exchange, answer: Message) -> None:
    await exchange.send(_OK + b"X: " + b"y" * 1_000_000 + b"\r\n\r\n" + answer.body)
    await exchange.client.wait_until_gone()


async def _endless_body(exchange: Exchange, _answer: Message) -> None:
    await exchange.send(_OK + b"\r\n")
    while True:
        await exchange.send(b"x" * 50_000)


async def _gzip_bomb(exchange: Exchange, _answer: Message) -> None:
    bomb = gzip.compress(b"0" * 20_000_000)
    length = b"Content-Length: %d\r\n" % len(bomb)
    await exchange.send(_OK + b"Content-Encoding: gzip\r\n" + length + b"\r\n" + bomb)


async def _answer_twice(exchange: Exchange, answer: Message) -> None:
    await exchange.send(answer.raw * 2)


async def _answer_of_before(exchange: Exchange, answer: Message) -> None:
    """Gives the oldest answer again, as a proxy that has mixed up its connections; the first request gets its own."""
    await exchange.send((exchange.answers[0] if exchange.answers else answer).raw)


def _table() -> dict[str, Fault]:
    at_connect = {
        "accept_reset": _accept_reset,
        "accept_close": _accept_close,
        "accept_silence": _accept_silence,
        "plain_http": _plain_http,
        "speaks_first": _speaks_first,
    }
    at_request = {
        "reset_after_head": _reset_after_head,
        "stop_reading": _stop_reading,
        "stale_keep_alive": _stale,
        "stale_closed": _stale_closed,
    }
    of_answers: dict[str, Callable[[Exchange, Message], Awaitable[None]]] = {
        "fin_before_answer": _fin,
        "reset_before_answer": _reset,
        "no_answer": _silence,
        "stall_after_status_line": partial(_stall_after, sent=_OK),
        "stall_in_head": partial(_stall_after, sent=_OK + b"Content-Le"),
        "stall_in_body": _stall_in_body,
        "short_length": _cut_length,
        "reset_in_answer": _reset_in_answer,
        "cut_chunked": _cut_chunked,
        "bad_chunk": _bad_chunk,
        "cut_by_close": _cut_silently,
        "ends_with_connection": _ends_with_connection,
        "garbage_status_line": partial(_garbage, line=b"HTTP/9.9 what ever"),
        "not_http": partial(_garbage, line=b"\x15\x03\x01\x00\x02\x02\x50" * 3),
        "header_flood": _header_flood,
        "long_header": _long_header,
        "endless_body": _endless_body,
        "gzip_bomb": _gzip_bomb,
        "answer_twice": _answer_twice,
        "answer_of_before": _answer_of_before,
    }
    faults = [
        *(Fault(name, play, Stage.CONNECT) for name, play in at_connect.items()),
        *(Fault(name, play) for name, play in at_request.items()),
        *(spoiling(name, spoil) for name, spoil in of_answers.items()),
        *(
            spoiling(f"{name}_lost", of_answers[name], made=False)
            for name in ("fin_before_answer", "reset_before_answer", "no_answer")
        ),
        reset_mid_body(20_000),
        answer_late(0.05),
        interim_flood(None),
        interim_flood(1_000),
        drip("head"),
        drip("body"),
        Fault("early_429_close", answering("429 Too Many Requests", read_first=False, then="close").play),
        Fault(
            "early_413_reset",
            answering("413 Content Too Large", read_first=False, then="reset").play,
        ),
        toxic("latency", to_client=Toxic(latency_s=0.02, jitter_s=0.02)),
        toxic("bandwidth", to_client=Toxic(bandwidth_bytes_per_s=20_000.0)),
        toxic("slow_upload", to_server=Toxic(bandwidth_bytes_per_s=5_000.0)),
        toxic("slow_close", to_client=Toxic(slow_close_s=0.05)),
        toxic("timeout", to_client=Toxic(timeout_s=0.0)),
        toxic("reset_peer", to_client=Toxic(reset_peer_s=0.0)),
        toxic("slicer", to_client=Toxic(slicer_bytes=7), to_server=Toxic(slicer_bytes=4_096)),
        toxic("limit_data", to_client=Toxic(limit_data_bytes=40)),
        toxic("limit_upload", to_server=Toxic(limit_data_bytes=5_000)),
    ]
    with contextlib.suppress(StopIteration):
        twice = next(
            one.name for at, one in enumerate(faults) if one.name in {two.name for two in faults[:at]}
        )
        raise AssertionError(f"two faults are called {twice}")
    return {fault.name: fault for fault in faults}


FAULTS: Final = _table()
"""Every fault by name, with usual figures."""
