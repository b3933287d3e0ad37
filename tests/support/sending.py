"""What tests of the real transport share: a transport with short options, requests that carry canaries, a hook."""

from __future__ import annotations

import socket
import ssl

from bulkjobs.api import HttpTransport
from bulkjobs.endpoints import ENDPOINTS
from bulkjobs.model import JobId, Request
from bulkjobs.ports import Clock
from bulkjobs.wire.request import status_request, submit_request

__all__ = ["ANSWER", "BODY", "TOKEN", "Hook", "Ticks", "ask", "submit", "transport", "unused_port"]

BODY = b"\n".join(b"%d" % number for number in range(10_000_000, 10_010_000))
TOKEN = "CANARY/token+=="
ANSWER = b'{"jobId":"v9qh2to86kg85s03trag","status":"accepted","type":"contacts"}'


class Ticks:
    """Is a wall clock that goes on by a second each time it is read."""

    now = 0.0

    def utc(self) -> float:
        """Gives the next second."""
        self.now += 1.0
        return self.now


class Hook:
    """Counts its calls; it stands where the intent is made durable."""

    calls = 0

    async def __call__(self) -> None:
        self.calls += 1


def transport(
    *,
    connections: int = 4,
    request_timeout_s: float = 20.0,
    connect_timeout_s: float = 5.0,
    clock: Clock | None = None,
    ssl_context: ssl.SSLContext | None = None,
) -> HttpTransport:
    """Makes the real transport."""
    return HttpTransport(
        connections=connections,
        request_timeout_s=request_timeout_s,
        connect_timeout_s=connect_timeout_s,
        clock=clock or Ticks(),
        ssl_context=ssl_context,
    )


def submit(base_url: str, body: bytes = BODY, webhook: str | None = None, token: str = TOKEN) -> Request:
    """Makes a submission."""
    return submit_request(
        ENDPOINTS["contacts"], base_url=base_url, body=body, token=token, accept="json", webhook=webhook
    )


def ask(base_url: str) -> Request:
    """Makes a request without a body."""
    return status_request(
        ENDPOINTS["contacts"], base_url=base_url, job_id=JobId("abc"), token=TOKEN, accept="json"
    )


def unused_port() -> int:
    """Gives a port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
