"""A server that speaks S3, as a process of its own: moto, of which only this process knows how slow it is to start."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from support.rawhttp import unused_port

__all__ = ["SECRET_KEY", "S3Server", "running_s3"]

SECRET_KEY: Final = "cAnArY-s3-s3cr3t"
_PATIENCE_S: Final = 30.0
_SIGNED: Final = (
    "AWS4-HMAC-SHA256 Credential=a-key/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
)
"""moto checks no signature, but lets nobody without one write over an object."""


@dataclass(frozen=True, slots=True)
class S3Server:
    """Is a server that runs."""

    endpoint: str

    @property
    def environ(self) -> dict[str, str]:
        """Is what the usual variables say of it."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "a-key",
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": "us-east-1",
        }

    def put(self, path: str, body: bytes = b"") -> None:
        """Stores an object, or with the name of a bucket alone makes that."""
        headers = {"Content-Type": "application/octet-stream", "Authorization": _SIGNED}
        request = urllib.request.Request(f"{self.endpoint}/{path}", data=body, headers=headers, method="PUT")
        with urllib.request.urlopen(request, timeout=_PATIENCE_S):
            pass


@contextmanager
def running_s3(folder: Path) -> Iterator[S3Server]:
    """Runs a server as long as the block lasts; `folder` takes its log."""
    port = unused_port()
    with (folder / "s3.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log
        )
    try:
        server = S3Server(f"http://127.0.0.1:{port}")
        _await_start(process, server, folder / "s3.log")
        yield server
    finally:
        process.kill()
        process.wait()


def _await_start(process: subprocess.Popen[bytes], server: S3Server, log: Path) -> None:
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            server.put("first")
        except urllib.error.URLError as error:
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"moto did not start ({error}):\n{log.read_text()}") from error
            time.sleep(0.05)
        else:
            return
