"""The service that counts: it reads every body, answers when it has come whole, and is asked at `/counts`.

It prints its port, and ends when its standard input does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import secrets
import sys
import time
from dataclasses import asdict, dataclass
from typing import cast

from benchmarks.server import USAGE


@dataclass(slots=True)
class _Totals:
    answers: int | None
    """Submissions that are answered; those after them wait for ever."""
    requests: int = 0
    submissions: int = 0
    body_bytes: int = 0
    ids: int = 0
    first_at: float | None = None


class _Connection(asyncio.Protocol):
    """Answers each request when its body has come whole. It knows no more of HTTP than these clients need."""

    def __init__(self, totals: _Totals) -> None:
        self._totals = totals
        self._head = b""
        self._left = 0
        self._answer = b""
        self._newlines = 0
        self._last = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        """Takes what came: the rest of a body, the beginning of a request, or both."""
        while data:
            if self._left:
                body, data = data[: self._left], data[self._left :]
                self._left -= len(body)
                self._newlines += body.count(b"\n")
                self._last = body[-1:]
                if not self._left:
                    self._submitted()
                continue
            head, found, data = (self._head + data).partition(b"\r\n\r\n")
            if not found:
                self._head = head
                return
            self._head = b""
            self._begin(head)

    def _begin(self, head: bytes) -> None:
        line, _, headers = head.partition(b"\r\n")
        method, target, _ = line.split(b" ")
        if target == b"/counts":
            self._reply(json.dumps(asdict(self._totals)).encode())
            self._transport.close()
            return
        self._totals.requests += 1
        if method == b"GET":
            self._reply(USAGE.encode() if b"/admin/usage" in target else b'{"bulkJobs":[]}')
            return
        if self._totals.first_at is None:
            self._totals.first_at = time.monotonic()
        length = re.search(rb"(?im)^content-length: *(\d+)", headers)
        if length is None:
            self._transport.close()
            return
        if re.search(rb"(?im)^expect:", headers):
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._left = int(length[1])
        self._totals.body_bytes += self._left
        self._newlines = 0

    def _submitted(self) -> None:
        self._totals.ids += self._newlines + (self._last != b"\n")
        self._totals.submissions += 1
        if self._totals.answers is not None and self._totals.submissions > self._totals.answers:
            return
        self._reply(b'{"jobId":"%s","status":"accepted","type":"contacts"}' % secrets.token_hex(10).encode())

    def _reply(self, body: bytes) -> None:
        self._transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
            % (len(body), body)
        )


async def _serve(answers: int | None, port: int) -> None:
    loop = asyncio.get_running_loop()
    totals = _Totals(answers)
    server = await loop.create_server(lambda: _Connection(totals), "127.0.0.1", port, backlog=1024)
    async with server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await loop.run_in_executor(None, sys.stdin.read)


def main() -> None:
    """Serves until standard input ends."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.programs.counting", description="Counts and answers."
    )
    parser.add_argument("--answers", type=int, help="submissions that are answered, the others wait [all]")
    parser.add_argument("--port", type=int, default=0, help="to listen on [any]")
    given = parser.parse_args()
    serving = _serve(given.answers, given.port)
    if sys.platform == "win32":
        asyncio.run(serving)
        return
    import uvloop  # noqa: PLC0415 - only this process needs it

    uvloop.run(serving)


if __name__ == "__main__":
    main()
