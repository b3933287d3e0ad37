"""Sends requests with aiohttp and brings back what can be proved about them.

Rules of this file:

- It is the only user of the aiohttp client, and it decides nothing: what evidence means is `verdict`'s.
- A request is sent once. aiohttp repeats some requests by itself when a reused connection breaks; the connector
  stops that, for every method and whatever a later version may repeat.
- An answer counts only if it came after the question. aiohttp gives a request whatever stands in the
  connection's buffer, such as a second answer to the request before; a 429 of that kind would be taken for
  proof that nothing happened, and the ids paid twice. So a connection must be silent up to the first byte.
- Redirects are never followed: aiohttp would carry the access token to another host.
- No secret leaves through an error's text or an echoed answer. aiohttp's errors show whole addresses in
  their `str` and the headers in their `repr`.
"""

from __future__ import annotations

import asyncio
import re
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Self

import aiohttp
from yarl import URL

from bulkjobs.errors import InternalError
from bulkjobs.model import Evidence, Phase, Request
from bulkjobs.wire.answer import ANSWER_CAP_BYTES
from bulkjobs.wire.fields import printable
from bulkjobs.wire.request import secrets_of

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable
    from types import SimpleNamespace, TracebackType

    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

    from bulkjobs.ports import Clock

__all__ = ["HttpTransport"]

_KEEP_ALIVE_S: Final = 1.0
"""An idle connection that the server is about to close turns the next submission into an unknown outcome.
Servers close after 5 s and more, so one that was used within the last second is still good. If it is not, the look
before the first byte finds that out, unless the end of the connection is still on its way."""

_LOOKS: Final = 2
"""Turns of the loop before a connection is looked at: one polls the sockets, the next runs what that found. So what
has reached this machine by then is seen; what is still on its way cannot be."""

_MAX_ERROR_TEXT: Final = 300
_MAX_HEADER_TEXT: Final = 200
_ADDRESS: Final = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s'\"]+", re.IGNORECASE)
_MASK: Final = "***"
_ESCAPES: Final = (b"\\", b"%", b"&")
_SHORTEST_BEGINNING: Final = 6
"""Fewer characters of a secret at the end of an answer that was cut tell nothing."""


class _StoppedError(Exception):
    """Ends a request before its first byte. It is none of aiohttp's, so aiohttp neither wraps nor repeats it."""


@dataclass(slots=True)
class _Trail:
    """Is how far one request got. aiohttp's hooks write it, also when the request ends in an exception."""

    before_first_byte: Callable[[], Awaitable[None]] | None
    clock: Clock
    request_timeout_s: float
    limit: asyncio.Timeout
    """Ends the request; it begins anew with the first byte."""
    phase: Phase = Phase.STARTED
    connection: Connection | None = None
    reused: bool | None = None
    hook_error: Exception | None = None
    sent_utc: float | None = None
    answered_utc: float | None = None
    status: int | None = None
    retry_after: str | None = None
    content_type: str | None = None
    body: bytearray = field(default_factory=bytearray)
    read_bytes: int = 0
    cut: bool = False
    error: str | None = None

    def reached(self, phase: Phase) -> None:
        self.phase = max(self.phase, phase)


_TRAIL: Final[ContextVar[_Trail]] = ContextVar("_TRAIL")
"""The trail of the request that the running task makes: aiohttp's hooks do not tell the connection."""


class _Connector(aiohttp.TCPConnector):
    """Gives a request one connection to be sent on, none that spoke unasked since its last use, and notes which."""

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - the signature is aiohttp's
    ) -> Connection:
        trail = _TRAIL.get()
        if trail.phase >= Phase.HEADERS_SENT:
            raise _StoppedError("the connection broke before the answer, and the request is not repeated")
        while True:
            trail.connection = await super().connect(req, traces, timeout)
            # A fresh one that speaks at once is met before the first byte; to go on here would be a loop of connects.
            if not trail.reused or _unusable(trail.connection) is None:
                return trail.connection
            trail.connection.close()


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
        # `total` is ours, since it begins anew with the first byte; it alone bounds a server that reads no further or
        # drips its answer. No `sock_read`: it could only turn a slow answer into an unknown outcome sooner.
        self._timeout = aiohttp.ClientTimeout(
            total=None, connect=connect_timeout_s, sock_connect=connect_timeout_s
        )
        self._request_timeout_s = request_timeout_s
        self._ssl_context = ssl_context
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=_Connector(
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
        trail = _Trail(
            before_first_byte, self._clock, self._request_timeout_s, asyncio.timeout(self._request_timeout_s)
        )
        secrets = secrets_of(request)
        started_utc = self._clock.utc()
        outer = _TRAIL.set(trail)
        try:
            async with trail.limit:
                await self._exchange(self._session, request, trail)
        except Exception as exc:  # noqa: BLE001 - a strange answer must not stop a run of days: it is evidence
            trail.error = _described(exc, secrets)
        finally:
            _TRAIL.reset(outer)
            trail.connection = None
        if trail.hook_error is not None:
            # Raised here, so that aiohttp's wrapping and its context stay out of the traceback.
            raise trail.hook_error
        return Evidence(
            phase=trail.phase,
            started_utc=started_utc,
            ended_utc=self._clock.utc(),
            status=trail.status,
            retry_after=_header(trail.retry_after, secrets),
            content_type=_header(trail.content_type, secrets),
            body=_without_secrets(bytes(trail.body), secrets),
            body_cut=trail.cut,
            error=trail.error,
            connection_reused=trail.reused,
            answer_bytes=trail.read_bytes,
            sent_utc=trail.sent_utc,
            answered_utc=trail.answered_utc,
        )

    async def _exchange(self, session: aiohttp.ClientSession, request: Request, trail: _Trail) -> None:
        # No `Expect: 100-continue`, although a refusal would then cost no body: a server that does not know it lets
        # the request wait for the time-out. An early refusal mostly arrives all the same (`test_evidence.py`).
        async with session.request(
            request.method,
            URL(request.url, encoded=True),
            data=request.body or None,
            headers=request.headers,
            allow_redirects=False,
            trace_request_ctx=trail,
        ) as answer:
            trail.answered_utc = self._clock.utc()
            trail.reached(Phase.STATUS_READ)
            trail.status = answer.status
            trail.retry_after = answer.headers.get("Retry-After")
            trail.content_type = answer.headers.get("Content-Type")
            cap = ANSWER_CAP_BYTES[request.kind]
            async for block in answer.content.iter_any():
                trail.read_bytes += len(block)
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
    into its own buffer, which goes out with the first bytes of the body. A test holds that. aiohttp's count of
    uploaded bytes would be no such proof: it can stay 0 although the server got some.
    """
    trail: _Trail = context.trace_request_ctx
    if trail.before_first_byte is not None:
        try:
            await trail.before_first_byte()
        except Exception as exc:  # noqa: BLE001 - `request` raises it again
            trail.hook_error = exc
            raise _StoppedError from None
    for _ in range(_LOOKS):
        await asyncio.sleep(0)
    if flaw := _unusable(trail.connection):
        # The hook takes a sync of the disk. Whoever closed the connection meanwhile has not seen this request.
        raise _StoppedError(flaw)
    # The hook waits for a disk, which may be blocked for a while: that must not shorten the time for the answer.
    trail.limit.reschedule(asyncio.get_running_loop().time() + trail.request_timeout_s)
    trail.sent_utc = trail.clock.utc()
    trail.reached(Phase.HEADERS_SENT)


async def _on_chunk(
    _session: aiohttp.ClientSession, context: SimpleNamespace, _params: aiohttp.TraceRequestChunkSentParams
) -> None:
    # A body of bytes is one piece. It goes to the socket next; that does not prove that it arrives.
    trail: _Trail = context.trace_request_ctx
    trail.reached(Phase.BODY_SENT)


def _unusable(connection: Connection | None) -> str | None:
    """Says why a request must not go out on a connection, or gives None if nothing speaks against it."""
    protocol = None if connection is None else connection.protocol
    if protocol is None or not protocol.is_connected():
        return "the server closed the connection before anything was sent"
    if protocol.should_close:  # something came that no request has asked for
        return "the server spoke before it was asked, so its answer could not be told from an older one"
    return None


def _header(value: str | None, secrets: tuple[str, ...]) -> str | None:
    # Masked before it is cut: half a secret is no longer found.
    return None if value is None else printable(_masked(value, secrets), limit=_MAX_HEADER_TEXT)


def _described(exc: Exception, secrets: tuple[str, ...]) -> str:
    """Gives an exception's class name and its text, bounded, without addresses and secrets."""
    match exc:
        case aiohttp.InvalidURL():
            text = "the address cannot be used"
        case _StoppedError():
            return str(exc)
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
    for secret in secrets:
        body = _without_beginning(body, secret.encode())
    return body


def _without_beginning(body: bytes, secret: bytes) -> bytes:
    """Masks the beginning of a secret with which an answer ends that broke off or was cut."""
    at = body.rfind(secret[:_SHORTEST_BEGINNING], max(len(body) - len(secret), 0))
    return body[:at] + _MASK.encode() if at >= 0 and secret.startswith(body[at:]) else body


def _masked(text: str, secrets: tuple[str, ...]) -> str:
    return _without_secrets(text.encode("utf-8", "surrogatepass"), secrets).decode("utf-8", "replace")


@lru_cache(maxsize=64)
def _pattern(secret: str) -> re.Pattern[bytes]:
    """Makes the pattern of a secret, of which any character may be escaped as JSON, XML and addresses do.

    Also escaped again, as by an address inside of an address or by XML inside of JSON. All repetitions are bounded:
    the text is the server's, and what begins anew at each of its bytes must end soon.
    """
    pattern = ""
    for character in secret:
        code, percent = ord(character), "".join(f"%(?:25){{0,3}}{byte:02x}" for byte in character.encode())
        names = "|".join((f"#0{{0,7}}{code}", f"#x0{{0,7}}{code:x}", *_entities().get(character, ())))
        reference = rf"(?:&|\\{{1,7}}u0026|%(?:25){{0,3}}26)(?:amp;){{0,3}}(?:{names});"
        # The bare character comes last: the backslash is one, and begins the others.
        escaped = rf"\\{{1,7}}u{code:04x}|\\{{1,7}}x{code:02x}|\\{{0,7}}{re.escape(character)}"
        pattern += f"(?:{reference}|{escaped}|{percent})"
    return re.compile(pattern.encode(), re.IGNORECASE)


@lru_cache(maxsize=1)
def _entities() -> dict[str, list[str]]:
    """Gives the names under which XML and HTML write a character; letters and digits have none."""
    from html.entities import html5  # noqa: PLC0415 - few answers hold anything that is escaped

    found: dict[str, list[str]] = {}
    for name, text in html5.items():
        if len(text) == 1 and text.isascii() and name.endswith(";"):
            found.setdefault(text, []).append(name[:-1])
    return found
