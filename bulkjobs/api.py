"""Sends requests over aiohttp's connections and brings back what can be proved about them.

Rules of this file:

- It is the only user of the aiohttp client, and it decides nothing: what evidence means is `verdict`'s.
- aiohttp connects, keeps connections and reads answers; the request is written here. So what runs before the first
  byte is plain to see, nothing is sent twice by itself, and a request costs a third of the CPU that aiohttp's
  `ClientSession` takes for it (0.12 ms instead of 0.32 for 90 kB, with uvloop): see docs/decisions/0015.
- An answer counts only if it came after the question. aiohttp gives a request whatever stands in the
  connection's buffer, such as a second answer to the request before; a 429 of that kind would be taken for
  proof that nothing happened, and the ids paid twice. So a connection must be silent up to the first byte.
- Redirects are never followed: the access token would go to another host.
- No secret leaves through an error's text or an echoed answer. aiohttp's errors show whole addresses in
  their `str`.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from functools import lru_cache
from html.entities import html5
from typing import TYPE_CHECKING, Final, Self
from weakref import WeakSet

import aiohttp
from aiohttp.http import HttpProcessingError
from yarl import URL

from bulkjobs.errors import InternalError
from bulkjobs.model import Evidence, Phase, Request
from bulkjobs.wire.answer import ANSWER_CAP_BYTES
from bulkjobs.wire.fields import printable
from bulkjobs.wire.request import secrets_of

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from aiohttp.client_proto import ResponseHandler
    from aiohttp.connector import Connection

    from bulkjobs.ports import Clock

__all__ = ["HttpTransport"]

_KEEP_ALIVE_S: Final = 1.0
"""An idle connection that the server is about to close turns the next submission into an unknown outcome.
Servers close after 5 s and more, so one that was used within the last second is still good. If it is not, the look
before the first byte finds that out, unless the end of the connection is still on its way."""

_LOOKS: Final = 2
"""Turns of the loop before a connection is looked at: one polls the sockets, the next runs what that found. So what
has reached this machine by then is seen; what is still on its way cannot be."""

_MOST_OF_TIME: Final = 0.99
"""With so much of it left the timer is not set anew: that takes as long as to write the request."""

_ALIKE: Final = 8
"""Of so many requests what is the same is kept: all submits of a run are alike but for their bodies."""

_MAX_ERROR_TEXT: Final = 300
_MAX_HEADER_TEXT: Final = 200
_ADDRESS: Final = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s'\"]+", re.IGNORECASE)
_MASK: Final = "***"
_SHORTEST_BEGINNING: Final = 6
"""Fewer characters of a secret at the end of an answer that was cut tell nothing."""
_ENTITIES: Final[dict[str, list[str]]] = {}
for _name, _text in html5.items():
    if len(_text) == 1 and _text.isascii() and _name.endswith(";"):
        _ENTITIES.setdefault(_text, []).append(_name[:-1])
"""The names under which XML and HTML write a character; letters and digits have none."""


class _StoppedError(Exception):
    """Ends a request before its first byte."""


@dataclass(slots=True)
class _Trail:
    """Is how far one request got, also when it ends in an exception."""

    phase: Phase = Phase.STARTED
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
        self._connector: aiohttp.TCPConnector | None = None
        self._target = lru_cache(maxsize=_ALIKE)(_target)
        self._used: WeakSet[ResponseHandler] = WeakSet()
        """Connections that were handed out before."""

    async def __aenter__(self) -> Self:
        self._connector = aiohttp.TCPConnector(
            limit=self._connections,
            keepalive_timeout=_KEEP_ALIVE_S,
            ssl=True if self._ssl_context is None else self._ssl_context,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connector is not None:
            await self._connector.close()
            self._connector = None

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
        if self._connector is None:
            raise InternalError("A request was made outside `async with HttpTransport(...)`.")
        trail = _Trail()
        secrets = secrets_of(request)
        started_utc = self._clock.utc()
        try:
            async with asyncio.timeout(self._request_timeout_s) as limit:
                await self._exchange(self._connector, request, before_first_byte, trail, limit)
        except Exception as exc:  # noqa: BLE001 - a strange answer must not stop a run of days: it is evidence
            trail.error = _described(exc, secrets)
        if trail.hook_error is not None:
            raise trail.hook_error  # here, so that nothing of ours is in its context
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

    async def _exchange(
        self,
        connector: aiohttp.TCPConnector,
        request: Request,
        before_first_byte: Callable[[], Awaitable[None]] | None,
        trail: _Trail,
        limit: asyncio.Timeout,
    ) -> None:
        target = self._target(request.url)
        head = _head(target, request)
        connection, protocol = await self._connected(connector, target, trail)
        try:
            if before_first_byte is not None:
                try:
                    await before_first_byte()
                except Exception as exc:  # noqa: BLE001 - `request` raises it again
                    trail.hook_error = exc
                    raise _StoppedError from None
            for _ in range(_LOOKS):
                await asyncio.sleep(0)
            transport = _usable(protocol)  # the hook takes a sync of the disk
            # The disk may be blocked for a while: that must not shorten the time for the answer by more than little.
            ends, now = limit.when(), asyncio.get_running_loop().time()
            if ends is not None and ends - now < _MOST_OF_TIME * self._request_timeout_s:
                limit.reschedule(now + self._request_timeout_s)
            trail.sent_utc = self._clock.utc()
            trail.phase = Phase.HEADERS_SENT
            # No `Expect: 100-continue`, although a refusal would then cost no body: a server that does not know it
            # lets the request wait for the time-out. An early refusal mostly arrives all the same.
            transport.writelines((head, request.body))
            trail.phase = Phase.BODY_SENT  # on its way to the socket; that does not prove that it arrives
            await self._read_answer(protocol, target, trail, ANSWER_CAP_BYTES[request.kind])
        except BaseException:
            connection.close()
            raise
        if trail.cut or transport.get_write_buffer_size():
            connection.close()
        else:
            connection.release()

    async def _connected(
        self, connector: aiohttp.TCPConnector, target: _Target, trail: _Trail
    ) -> tuple[Connection, ResponseHandler]:
        """Gives one connection to send a request on, none that spoke unasked since its last use."""
        while True:
            try:
                connection = await connector.connect(target.peer, [], self._timeout)
            except TimeoutError as exc:
                raise aiohttp.ConnectionTimeoutError(f"Connection timeout to host {target.peer.url}") from exc
            protocol = connection.protocol
            assert protocol is not None
            reused = protocol in self._used
            # A fresh one that speaks at once is met before the first byte; to go on here would be a loop of connects.
            if reused and _flaw(protocol):
                connection.close()
                continue
            if not reused:
                self._used.add(protocol)
            protocol.set_response_params(
                read_until_eof=True,
                auto_decompress=False,  # nothing compressed was asked for, and it may be a bomb
            )
            trail.reused, trail.phase = reused, Phase.CONNECTED
            return connection, protocol

    async def _read_answer(self, protocol: ResponseHandler, target: _Target, trail: _Trail, cap: int) -> None:
        try:
            message, content = await protocol.read()
            while 100 <= message.code <= 199 and message.code != 101:  # noqa: PLR2004 - not the answer yet
                message, content = await protocol.read()
        except HttpProcessingError as exc:
            raise aiohttp.ClientResponseError(target.peer.request_info, (), message=exc.message) from exc
        trail.answered_utc = self._clock.utc()
        trail.phase = Phase.STATUS_READ
        trail.status = message.code
        trail.retry_after = message.headers.get("Retry-After")
        trail.content_type = message.headers.get("Content-Type")
        while not content.at_eof():
            block = await content.readany()
            trail.read_bytes += len(block)
            trail.body += block
            if len(trail.body) > cap:
                del trail.body[cap:]
                trail.cut = True
                return
        trail.phase = Phase.COMPLETE


@dataclass(frozen=True, slots=True)
class _Target:
    """Is where a request goes."""

    peer: aiohttp.ClientRequest
    """Tells aiohttp's connector whom to connect to. It is never sent."""
    host: str
    path: str


def _target(url: str) -> _Target:
    """Takes an address apart.

    Raises:
        aiohttp.InvalidURL: it cannot be used.
    """
    try:
        address = URL(url, encoded=True)
        host = address.host_port_subcomponent
    except ValueError as exc:
        raise aiohttp.InvalidURL(url) from exc
    if host is None or not address.raw_host or address.scheme not in ("http", "https"):
        raise aiohttp.InvalidURL(url)
    peer = aiohttp.ClientRequest("GET", address, loop=asyncio.get_running_loop())
    return _Target(peer=peer, host=host, path=address.raw_path_qs)


def _head(target: _Target, request: Request) -> bytes:
    """Writes the head of a request: what it holds, `Host` and the length.

    Raises:
        aiohttp.InvalidURL: there is a line break in it, which would end it or add a header.
    """
    lines = [f"{request.method} {target.path} HTTP/1.1", f"Host: {target.host}"]
    lines += [f"{name}: {value}" for name, value in request.headers]
    if request.method != "GET":
        lines.append(f"Content-Length: {len(request.body)}")
    head = "\r\n".join(lines) + "\r\n\r\n"
    if head.count("\n") != len(lines) + 1 or head.count("\r") != len(lines) + 1:
        raise aiohttp.InvalidURL(request.url)
    return head.encode()


def _usable(protocol: ResponseHandler) -> asyncio.Transport:
    """Gives the transport of a connection on which a request may go out.

    Raises:
        _StoppedError: it must not. Whoever closed the connection meanwhile has not seen this request.
    """
    if flaw := _flaw(protocol):
        raise _StoppedError(flaw)
    assert protocol.transport is not None
    return protocol.transport


def _flaw(protocol: ResponseHandler) -> str | None:
    """Says why a request must not go out on a connection, or gives None if nothing speaks against it."""
    if not protocol.is_connected():
        return "the server closed the connection before anything was sent"
    if protocol.should_close:  # something came that no request has asked for
        return "the server spoke before it was asked, so its answer could not be told from an older one"
    return None


@lru_cache(maxsize=_ALIKE)
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
    if b"\\" in body or b"%" in body or b"&" in body:
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
        names = "|".join((f"#0{{0,7}}{code}", f"#x0{{0,7}}{code:x}", *_ENTITIES.get(character, ())))
        reference = rf"(?:&|\\{{1,7}}u0026|%(?:25){{0,3}}26)(?:amp;){{0,3}}(?:{names});"
        # The bare character comes last: the backslash is one, and begins the others.
        escaped = rf"\\{{1,7}}u{code:04x}|\\{{1,7}}x{code:02x}|\\{{0,7}}{re.escape(character)}"
        pattern += f"(?:{reference}|{escaped}|{percent})"
    return re.compile(pattern.encode(), re.IGNORECASE)
