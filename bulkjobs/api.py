"""Sends requests with aiohttp and brings back what can be proved about them.

Rules of this file:

- It is the only user of the aiohttp client, and it decides nothing: what evidence means is `verdict`'s.
- A request is sent once. aiohttp repeats some requests by itself when a reused connection breaks; the hook
  in front of the first byte stops that, for every method and whatever a later version may repeat.
- Redirects are never followed: aiohttp would carry the access token to another host.
- No secret leaves through an error's text or an echoed answer. aiohttp's errors show whole addresses in
  their `str` and the headers in their `repr`.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Self

import aiohttp
from yarl import URL

from bulkjobs.errors import InternalError
from bulkjobs.model import Evidence, Phase, Request
from bulkjobs.wire.answer import ANSWER_CAP_BYTES, printable
from bulkjobs.wire.request import secrets_of

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable
    from types import SimpleNamespace, TracebackType

    from bulkjobs.ports import Clock

__all__ = ["HttpTransport"]

_KEEP_ALIVE_S: Final = 1.0
"""An idle connection that the server is about to close turns the next submission into an unknown outcome.
Servers close after 5 s and more, so one that was used within the last second is still good."""

_MAX_ERROR_TEXT: Final = 300
_MAX_HEADER_TEXT: Final = 200
_ADDRESS: Final = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s'\"]+", re.IGNORECASE)
_MASK: Final = "***"
_ESCAPES: Final = (b"\\", b"%", b"&#")


class _StoppedError(Exception):
    """Ends a request before its first byte. It is none of aiohttp's, so aiohttp neither wraps nor repeats it."""


@dataclass(slots=True)
class _Trail:
    """Is how far one request got. aiohttp's hooks write it, also when the request ends in an exception."""

    before_first_byte: Callable[[], Awaitable[None]] | None
    request_timeout_s: float
    limit: asyncio.Timeout
    """Ends the request; it begins anew with the first byte."""
    phase: Phase = Phase.STARTED
    reused: bool | None = None
    hook_error: Exception | None = None
    status: int | None = None
    retry_after: str | None = None
    content_type: str | None = None
    body: bytearray = field(default_factory=bytearray)
    cut: bool = False
    error: str | None = None

    def reached(self, phase: Phase) -> None:
        # Never backwards: after a repetition was stopped, bytes of the first try have still left.
        self.phase = max(self.phase, phase)


class HttpTransport:
    """Carries requests over HTTP; it stands behind `ports.Transport`.

    Use it as `async with HttpTransport(...) as transport:`. Leaving closes every connection.
    """

    def __init__(
        self,
        *,
        connections: int,
        request_timeout_s: float,
        connect_timeout_s: float,
        clock: Clock,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """Keeps the options; nothing is opened yet.

        Args:
            connections: most connections at a time. A request beyond that waits for one, which counts as
                connecting, so give at least as many as there are callers.
            request_timeout_s: seconds from the first byte to the last byte of the answer, and as many before that.
                A time-out of a submission is an unknown outcome, so this is rather long.
            connect_timeout_s: seconds until a connection stands. A time-out here means nothing was sent.
            clock: wall clock for the evidence.
            ssl_context: for a private certificate authority; None takes the system's.
        """
        self._connections = connections
        # No `sock_read`: it could only turn a slow answer into an unknown outcome sooner. `total` is ours, since it
        # begins anew with the first byte.
        self._timeout = aiohttp.ClientTimeout(
            total=None, connect=connect_timeout_s, sock_connect=connect_timeout_s
        )
        self._request_timeout_s = request_timeout_s
        self._ssl_context = ssl_context
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._connections,
                keepalive_timeout=_KEEP_ALIVE_S,
                ssl=True if self._ssl_context is None else self._ssl_context,
            ),
            timeout=self._timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,  # no proxy and no .netrc by surprise
            auto_decompress=False,  # nothing compressed was asked for, and it may be a bomb
            skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
            trace_configs=[_trace_config()],
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def request(
        self, request: Request, *, before_first_byte: Callable[[], Awaitable[None]] | None = None
    ) -> Evidence:
        """Sends one request once and never raises for what the network or the server does.

        Args:
            request: what to send.
            before_first_byte: awaited once, when a connection stands and before any byte can leave. If it
                raises, nothing is sent and the exception passes through. If the time-out strikes while it
                runs, nothing is sent either, and the evidence says so.

        Returns:
            The evidence. Its phase is below `HEADERS_SENT` exactly when no byte can have left.

        Raises:
            asyncio.CancelledError: the caller was cancelled; whether `before_first_byte` has ended tells
                whether bytes may have left.
            InternalError: the transport is not open.
        """
        if self._session is None:
            raise InternalError("A request was made outside `async with HttpTransport(...)`.")
        trail = _Trail(before_first_byte, self._request_timeout_s, asyncio.timeout(self._request_timeout_s))
        secrets = secrets_of(request)
        started_utc = self._clock.utc()
        try:
            async with trail.limit:
                await self._exchange(self._session, request, trail)
        except Exception as exc:  # noqa: BLE001 - a strange answer must not stop a run of days: it is evidence
            trail.error = _described(exc, secrets)
        if trail.hook_error is not None:
            # Raised here, so that aiohttp's wrapping and its context stay out of the traceback.
            raise trail.hook_error
        return Evidence(
            phase=trail.phase,
            started_utc=started_utc,
            ended_utc=self._clock.utc(),
            status=trail.status,
            retry_after=trail.retry_after and _masked(trail.retry_after, secrets),
            content_type=trail.content_type and _masked(trail.content_type, secrets),
            body=_without_secrets(bytes(trail.body), secrets),
            body_cut=trail.cut,
            error=trail.error,
            connection_reused=trail.reused,
        )

    async def _exchange(self, session: aiohttp.ClientSession, request: Request, trail: _Trail) -> None:
        async with session.request(
            request.method,
            URL(request.url, encoded=True),
            data=request.body or None,
            headers=request.headers,
            allow_redirects=False,
            trace_request_ctx=trail,
        ) as answer:
            trail.reached(Phase.STATUS_READ)
            trail.status = answer.status
            trail.retry_after = _header(answer, "Retry-After")
            trail.content_type = _header(answer, "Content-Type")
            cap = ANSWER_CAP_BYTES[request.kind]
            async for block in answer.content.iter_any():
                trail.body += block
                if len(trail.body) > cap:
                    del trail.body[cap:]
                    trail.cut = True
                    return  # leaving with an unread rest closes the connection
            trail.reached(Phase.COMPLETE)


def _trace_config() -> aiohttp.TraceConfig:
    config = aiohttp.TraceConfig()
    config.on_connection_create_end.append(_on_created)
    config.on_connection_reuseconn.append(_on_reused)
    config.on_request_headers_sent.append(_on_headers)
    config.on_request_chunk_sent.append(_on_chunk)
    return config


async def _on_created(
    _session: aiohttp.ClientSession, context: SimpleNamespace, _params: aiohttp.TraceConnectionCreateEndParams
) -> None:
    trail: _Trail = context.trace_request_ctx
    trail.reached(Phase.CONNECTED)
    trail.reused = False


async def _on_reused(
    _session: aiohttp.ClientSession, context: SimpleNamespace, _params: aiohttp.TraceConnectionReuseconnParams
) -> None:
    trail: _Trail = context.trace_request_ctx
    trail.reached(Phase.CONNECTED)
    trail.reused = True


async def _on_headers(
    _session: aiohttp.ClientSession, context: SimpleNamespace, _params: aiohttp.TraceRequestHeadersSentParams
) -> None:
    """Runs, despite its name, before anything is written.

    `StreamWriter.write_headers` (aiohttp 3.14.5, http_writer.py) awaits this and only then puts the headers
    into its own buffer, which goes out with the first bytes of the body. A test holds that.
    """
    trail: _Trail = context.trace_request_ctx
    if trail.phase >= Phase.HEADERS_SENT:
        raise _StoppedError("the connection broke before the answer, and the request is not repeated")
    if trail.before_first_byte is not None:
        try:
            await trail.before_first_byte()
        except Exception as exc:  # noqa: BLE001 - `request` raises it again
            trail.hook_error = exc
            raise _StoppedError from None
        # The hook waits for a disk, which may be blocked for a while: that must not shorten the time for the answer.
        trail.limit.reschedule(asyncio.get_running_loop().time() + trail.request_timeout_s)
    trail.reached(Phase.HEADERS_SENT)


async def _on_chunk(
    _session: aiohttp.ClientSession, context: SimpleNamespace, _params: aiohttp.TraceRequestChunkSentParams
) -> None:
    # A body of bytes is one piece. It goes to the socket next; that does not prove that it arrives.
    trail: _Trail = context.trace_request_ctx
    trail.reached(Phase.BODY_SENT)


def _header(answer: aiohttp.ClientResponse, name: str) -> str | None:
    value = answer.headers.get(name)
    return None if value is None else printable(value, limit=_MAX_HEADER_TEXT)


def _described(exc: Exception, secrets: tuple[str, ...]) -> str:
    """Gives an exception's class name and its text, bounded, without addresses and secrets."""
    match exc:
        case aiohttp.InvalidURL():
            text = "the address cannot be used"
        case aiohttp.ClientResponseError():
            text = exc.message  # its `str` would add the address
        case _:
            text = str(exc)
    text = _masked(text, secrets)
    text = printable(_ADDRESS.sub("<address>", text), limit=_MAX_ERROR_TEXT)
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__


def _without_secrets(body: bytes, secrets: tuple[str, ...]) -> bytes:
    """Masks what a server echoes of our secrets: answers are kept in the ledger and shown to people."""
    for secret in secrets:
        body = body.replace(secret.encode(), _MASK.encode())
    if any(mark in body for mark in _ESCAPES):
        # Not for every answer: each chunk has a webhook address of its own, and a pattern takes milliseconds to make.
        for secret in secrets:
            body = _pattern(secret).sub(_MASK.encode(), body)
    return body


def _masked(text: str, secrets: tuple[str, ...]) -> str:
    return _without_secrets(text.encode("utf-8", "surrogatepass"), secrets).decode("utf-8", "replace")


@lru_cache(maxsize=64)
def _pattern(secret: str) -> re.Pattern[bytes]:
    """Makes the pattern of a secret, of which any character may be escaped as JSON, XML and addresses do."""
    pattern = ""
    for character in secret:
        code, percent = ord(character), "".join(f"%{byte:02x}" for byte in character.encode())
        pattern += rf"(?:\\?{re.escape(character)}|\\u{code:04x}|{percent}|&#0*{code};|&#x0*{code:x};)"
    return re.compile(pattern.encode(), re.IGNORECASE)
