"""Puts the service on a socket: reads requests, keeps time, puts replies on the wire. It decides nothing."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from random import Random
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import parse_qsl, unquote

from aiohttp import web

from bulkjobs.errors import ConfigError
from bulkjobs.simulator.config import NOTHING, Span
from bulkjobs.simulator.messages import SimReply, SimRequest, Wire
from bulkjobs.simulator.routes import API, BOOKS, LOGIN
from bulkjobs.simulator.service import Service

if TYPE_CHECKING:
    from types import TracebackType

    from aiohttp.streams import StreamReader

    from bulkjobs.simulator.config import ServiceConfig

__all__ = ["SimulatorServer"]

_MAX_BODY_BYTES: Final = 8 * 2**20
# What load balancers before such a service commonly use; a client must cope with its end.
_KEEP_ALIVE_S: Final = 75.0
# Answers up to this size leave in one piece.
_BLOCK_BYTES: Final = 64 * 2**10
# How long shutting down waits for replies under way; a simulated latency may be much longer.
_GRACE_S: Final = 0.1
# The on switch and no seconds to linger: closing throws away what is unsent and sends RST.
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


class SimulatorServer:
    """Runs a simulated service on a TCP port for as long as the `async with` block lasts.

    Args:
        config: what the service allows and how it behaves.
        host: address to listen on.
        port: port to listen on; 0 takes a free one.
        speed: simulated seconds that pass in one real second.
        transit: simulated seconds that a request is on its way, drawn for each. Only then does it come before the
            service, to be counted; requests of different connections overtake each other.

    Raises:
        ConfigError: the speed is not above 0; on entering, the port or the books' file cannot be had.
    """

    def __init__(
        self,
        config: ServiceConfig | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        speed: float = 1.0,
        transit: Span = NOTHING,
    ) -> None:
        if not 0 < speed < float("inf"):
            raise ConfigError(f"A speed of {speed} makes no sense; give a number above 0.")
        self._config = config
        self._host = host
        self._port = port
        self._speed = speed
        self._transit = transit
        self._draw = Random(f"{config.seed if config else 0}/transit")  # noqa: S311 - repeatable on purpose
        self._service: Service | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._origin_s = self._loop.time()
        self._origin_utc = time.time()
        self._service = Service(self._config, client_utc=self._client_utc)
        self._protocols = web.Server(
            self._handle,
            keepalive_timeout=_KEEP_ALIVE_S,
            access_log=None,
            auto_decompress=False,
        )
        try:
            self._server = await self._loop.create_server(
                self._protocols, self._host, self._port, backlog=1024
            )
        except OSError as error:
            self._service.close()
            raise ConfigError(f"Cannot listen on {self._host}:{self._port}: {error}.") from error
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self._protocols.pre_shutdown()
        await self._protocols.shutdown(_GRACE_S)
        await self._server.wait_closed()
        self.service.close()

    @property
    def service(self) -> Service:
        """Is the service behind the socket; valid inside the block."""
        assert self._service is not None, "the server was not entered"
        return self._service

    @property
    def origin(self) -> str:
        """Is the address with the port that was taken."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    @property
    def base_url(self) -> str:
        """Is what a client takes for its base URL."""
        return self.origin + API

    @property
    def login_url(self) -> str:
        """Is where tokens are had, in JSON."""
        return f"{self.origin}{LOGIN}.json"

    @property
    def books_url(self) -> str:
        """Is where a judge reads what happened."""
        return self.origin + BOOKS

    def _now(self) -> float:
        return self._origin_utc + (self._loop.time() - self._origin_s) * self._speed

    def _client_utc(self, now: float) -> float:
        return self._origin_utc + (now - self._origin_utc) / self._speed

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            body = await _read(request.content)
        except ConnectionError:
            return web.Response()  # the client is gone: aiohttp has nobody to send this to
        if body is None:
            return _too_large()
        if self._transit != NOTHING and not request.raw_path.startswith(BOOKS):
            transit_s = self._draw.uniform(self._transit.min_s, self._transit.max_s)
            await asyncio.sleep(transit_s / self._speed)
        reply = self.service.handle(_sim_request(request, body), self._now())
        if reply.delay_s:
            await asyncio.sleep(reply.delay_s / self._speed)
        return await _put(reply, request)


async def _read(stream: StreamReader) -> bytes | None:
    """Reads a request's body, or gives None as soon as it is too large."""
    stream.set_read_chunk_size(_MAX_BODY_BYTES)
    blocks: list[bytes] = []
    size = 0
    while block := await stream.readany():
        blocks.append(block)
        size += len(block)
        if size > _MAX_BODY_BYTES:
            return None
    return blocks[0] if len(blocks) == 1 else b"".join(blocks)


def _too_large() -> web.Response:
    reply = web.Response(status=413, text=f"The body is larger than {_MAX_BODY_BYTES} bytes.\n")
    reply.force_close()
    return reply


def _sim_request(request: web.BaseRequest, body: bytes) -> SimRequest:
    # Straight from the raw target: building aiohttp's URL and query objects costs more than all the rest here.
    path, _, query = request.raw_path.partition("?")
    return SimRequest(
        method=request.method,
        path=unquote(path),
        query=dict(parse_qsl(query, keep_blank_values=True)) if query else {},
        headers={name.lower(): value for name, value in request.headers.items()},
        body=body,
    )


async def _put(reply: SimReply, request: web.BaseRequest) -> web.StreamResponse:
    transport = request.transport
    response: web.StreamResponse
    if reply.wire is Wire.CUT or len(reply.body) > _BLOCK_BYTES:
        response = web.StreamResponse(status=reply.status, headers=reply.headers)
        response.content_type = reply.content_type
        response.content_length = len(reply.body)
        await response.prepare(request)
        end = len(reply.body) // 2 if reply.wire is Wire.CUT else len(reply.body)
        for at in range(0, end, _BLOCK_BYTES):  # at the pace at which the client reads
            await response.write(reply.body[at : min(at + _BLOCK_BYTES, end)])
    else:
        response = web.Response(
            status=reply.status, body=reply.body, headers=reply.headers, content_type=reply.content_type
        )
    # aiohttp gives a response up in silence when its connection is going away already.
    if transport is not None and reply.wire is not Wire.ANSWER:
        if reply.wire is Wire.RESET:
            transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE
            )
            transport.abort()
        else:
            transport.close()
    return response
