"""A server that answers with exactly the bytes a test gives it, on a real socket and in threads of its own.

The command runs its own event loop, so the server cannot share it.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from typing import Final, Self

__all__ = ["Connection", "RawHttp", "answer", "unused_port"]

_PATIENCE_S: Final = 20.0


class Connection:
    """Is one request as the server sees it, and the way back."""

    def __init__(self, sock: socket.socket, head: bytes, body: bytes, number: int) -> None:
        """Takes a connection whose first request was read whole."""
        self.socket = sock
        self.head = head
        self.body = body
        self.number = number
        """Of this request among all, from 1."""
        self.sent = 0
        """Bytes that the system took."""

    @property
    def line(self) -> str:
        """Is the request line."""
        return self.head.split(b"\r\n", 1)[0].decode()

    def send(self, data: bytes) -> None:
        """Sends bytes."""
        self.socket.sendall(data)
        self.sent += len(data)

    def send_for_ever(self, data: bytes) -> None:
        """Sends the same bytes until the other side has had enough."""
        with contextlib.suppress(OSError):
            while True:
                self.sent += self.socket.send(data)

    def reset(self) -> None:
        """Ends the connection with a RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


Script = Callable[[Connection], None]


def answer(body: bytes, *, status: str = "200 OK", headers: tuple[str, ...] = ()) -> Script:
    """Makes a script that gives one answer, with its length, and closes."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers, "", ""]
    return lambda connection: connection.send("\r\n".join(lines).encode() + body)


class RawHttp:
    """Runs a script on each request. Use it in a `with` statement."""

    def __init__(self, script: Script, *, ssl_context: ssl.SSLContext | None = None) -> None:
        """Listens at once; `script` gets every request that was read whole."""
        self.script = script
        self.connections: list[Connection] = []
        """One for each request, in order."""
        self.accepted = 0
        """Connections that were made, with or without a request."""
        self.arrived = threading.Semaphore(0)
        """Released once for each request."""
        self._ssl = ssl_context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)

    @property
    def base_url(self) -> str:
        """Is what `--base-url` gets."""
        return f"http{'s' if self._ssl else ''}://127.0.0.1:{self.port}/api/v1"

    @property
    def submits(self) -> list[Connection]:
        """Are the requests that want a job made."""
        return [one for one in self.connections if one.line.startswith("POST /api/")]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self.connections:
            with contextlib.suppress(OSError):
                one.socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(_PATIENCE_S)

    def _accept(self) -> None:
        threads: list[threading.Thread] = []
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                break
            self.accepted += 1
            threads.append(threading.Thread(target=self._serve, args=(sock,), daemon=True))
            threads[-1].start()
        for thread in threads:
            thread.join(_PATIENCE_S)

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.closing(sock):
            sock.settimeout(_PATIENCE_S)
            if self._ssl is not None:
                sock = self._ssl.wrap_socket(sock, server_side=True)
            with contextlib.closing(sock):
                self._answer(sock)

    def _answer(self, sock: socket.socket) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            if not (piece := sock.recv(65_536)):
                return
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        _, found, rest = head.lower().partition(b"\r\ncontent-length:")
        length = int(rest.split(b"\r\n")[0]) if found else 0
        while len(body) < length:
            if not (piece := sock.recv(65_536)):
                return
            body += piece
        connection = Connection(sock, head, body, len(self.connections) + 1)
        self.connections.append(connection)
        self.arrived.release()
        self.script(connection)


def unused_port() -> int:
    """Gives a port of this host at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
