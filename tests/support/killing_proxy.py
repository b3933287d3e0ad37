"""A wire that kills who sends on it: for the moments of a crash that only the other end of a connection sees.

It carries requests to the service unchanged, one after the other on each connection. At the n-th submission it ends
the client's process with SIGKILL when exactly so much has come through as it was told, and lets go of both ends.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
from concurrent.futures import Future
from enum import Enum
from types import TracebackType
from typing import Final, Self

__all__ = ["Cut", "KillingProxy"]

_PATIENCE_S: Final = 30.0
_LENGTH: Final = re.compile(rb"(?im)^content-length: *([0-9]+)")
_HEAD_END: Final = b"\r\n\r\n"


class Cut(Enum):
    """Is the moment at which the client dies."""

    HEADERS = "the server has the headers"
    HALF_BODY = "the server has half of the body"
    BODY = "the whole request is on its way, and the server has read nothing"
    NO_ANSWER = "the server has answered, and nothing of that has arrived"


class KillingProxy:
    """Listens on a port of its own for as long as the `with` block lasts."""

    def __init__(self, upstream: int, cut: Cut, submission: int) -> None:
        """Listens.

        Args:
            upstream: port of the service on this machine.
            cut: when the client dies.
            submission: at which submission, counted from 1. It dies once; later clients pass.
        """
        self._upstream = upstream
        self._cut = cut
        self._submission = submission
        self._seen = 0
        self._counting = threading.Lock()
        self.victim: Future[int] = Future()
        """Is to be given the pid of the client."""
        self.fired = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._upstream), _PATIENCE_S) as server:
            try:
                while (message := _read(client)) and self._pass(client, server, *message):
                    pass
            except OSError:
                return  # one end is gone, and so is the other

    def _pass(self, client: socket.socket, server: socket.socket, head: bytes, body: bytes) -> bool:
        """Carries a request and its answer; tells whether the connection goes on."""
        if self._is_chosen(head):
            if self._cut in (Cut.HEADERS, Cut.HALF_BODY):
                server.sendall(head + (body[: len(body) // 2] if self._cut is Cut.HALF_BODY else b""))
            if self._cut is Cut.NO_ANSWER:
                server.sendall(head + body)
                server.recv(1)
            self._kill()
            return False
        server.sendall(head + body)
        answer = b"".join(_read(server) or ())
        client.sendall(answer)
        return bool(answer)

    def _is_chosen(self, head: bytes) -> bool:
        if not head.startswith(b"POST "):
            return False
        with self._counting:
            self._seen += 1
            return self._seen == self._submission

    def _kill(self) -> None:
        os.kill(self.victim.result(_PATIENCE_S), signal.SIGKILL)
        self.fired = True


def _read(connection: socket.socket) -> tuple[bytes, bytes] | None:
    """Reads a message with a length, head and body; None when there is no further one."""
    text = b""
    while _HEAD_END not in text:
        if not (block := connection.recv(1 << 16)):
            return None
        text += block
    head, end, body = text.partition(_HEAD_END)
    length = _LENGTH.search(head)
    missing = (int(length[1]) if length else 0) - len(body)
    while missing > 0:
        if not (block := connection.recv(missing)):
            return None
        body += block
        missing -= len(block)
    return head + end, body
