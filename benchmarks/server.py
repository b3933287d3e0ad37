"""The service that answers at once: nginx where it is installed, otherwise the counting one of this module.

nginx answers as soon as it has the headers and reads the body meanwhile; it is told to count requests and nothing
else. The counting server looks at every body: the warm-up rounds go there, so that each contender is shown to bring
what it should before it is measured.

    python -m benchmarks.server     the counting server; it prints its port and ends when its standard input does
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, cast
from urllib.error import URLError
from urllib.request import urlopen

from benchmarks.measuring import clean_environ
from benchmarks.model import WrongResult

__all__ = ["Counts", "Service", "counting", "fast"]

_USAGE: Final = (
    '{"accountId":"benchmark","usageForAccount":[],'
    '"creditsForAccount":[{"allocatedCredits":1000000000000,"consumedCredits":0}]}'
)
_NGINX: Final = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{ worker_connections 2048; }}
http {{
    access_log off;
    client_max_body_size 0;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    default_type application/json;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location = /counts {{ stub_status; }}
        location = /api/v1/admin/jobs {{ return 200 '{{"bulkJobs":[]}}'; }}
        location = /api/v1/admin/usage {{ return 200 '{usage}'; }}
        location / {{ return 200 '{{"jobId":"$request_id","status":"accepted","type":"contacts"}}'; }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Counts:
    """Is what a service has counted since it started."""

    requests: int
    """Of any kind; nginx cannot tell them apart."""
    body_bytes: int | None
    """In submissions; None where nobody looks."""
    ids: int | None
    cpu_s: float | None


@dataclass(frozen=True, slots=True)
class Service:
    """Is a running service."""

    name: str
    port: int
    pid: int

    @property
    def base_url(self) -> str:
        """Is what the engine is given as `--base-url`."""
        return f"http://127.0.0.1:{self.port}/api/v1"

    @property
    def submit_url(self) -> str:
        """Is where a chunk of contacts goes."""
        return f"{self.base_url}/contact/job"

    def counts(self) -> Counts:
        """Asks the service what it has counted; nginx counts this question too, the counting server does not."""
        cpu_s = _cpu_s(self.pid)
        with urlopen(f"http://127.0.0.1:{self.port}/counts", timeout=60) as answer:
            said = answer.read()
        if self.name == "nginx":
            # The third of three sums in a line of their own: accepts, handled, requests.
            sums = re.search(rb"^ \d+ \d+ (\d+) $", said, re.MULTILINE)
            assert sums is not None
            return Counts(int(sums[1]), None, None, cpu_s)
        counted = json.loads(said)
        return Counts(counted["requests"], counted["body_bytes"], counted["ids"], cpu_s)

    def first_submission(self) -> float | None:
        """Asks the counting server when the first body began to arrive, by `time.monotonic`; None when none did."""
        with urlopen(f"http://127.0.0.1:{self.port}/counts", timeout=60) as answer:
            first: float | None = json.load(answer)["first_at"]
        return first

    def since(self, before: Counts) -> Counts:
        """Gives what came after an earlier count."""
        now = self.counts()
        own = 1 if self.name == "nginx" else 0
        return Counts(
            now.requests - before.requests - own,
            None if now.body_bytes is None else now.body_bytes - (before.body_bytes or 0),
            None if now.ids is None else now.ids - (before.ids or 0),
            None if now.cpu_s is None else now.cpu_s - (before.cpu_s or 0),
        )


def _cpu_s(pid: int) -> float | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def fast(folder: Path) -> Iterator[Service]:
    """Runs the service that is measured against: nginx or, where there is none, the counting one."""
    program = shutil.which("nginx") or shutil.which(
        "nginx", path="/usr/sbin:/usr/local/sbin:/opt/homebrew/bin"
    )
    if program is None:
        with counting() as service:
            yield service
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "nginx.conf").write_text(_NGINX.format(folder=folder, port=port, usage=_USAGE))
    process = subprocess.Popen(
        [program, "-p", str(folder), "-c", str(folder / "nginx.conf")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        service = Service("nginx", port, process.pid)
        _until_ready(service, process)
        yield service
    finally:
        process.terminate()
        process.wait()


def _until_ready(service: Service, process: subprocess.Popen[bytes]) -> None:
    for _ in range(400):
        try:
            service.counts()
        except (URLError, ConnectionError):
            if process.poll() is not None:
                break
            time.sleep(0.025)
        else:
            return
    raise WrongResult("nginx did not start.")


@contextmanager
def counting(*options: str) -> Iterator[Service]:
    """Runs the counting server for as long as the block lasts."""
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.server", *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=clean_environ({}),
    ) as process:
        assert process.stdout is not None
        if not (line := process.stdout.readline()):
            raise WrongResult("The counting server did not start.")
        yield Service("counting", int(line), process.pid)


# The counting server


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
            return
        self._totals.requests += 1
        if method == b"GET":
            self._reply(_USAGE.encode() if b"/admin/usage" in target else b'{"bulkJobs":[]}')
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
    parser = argparse.ArgumentParser(prog="python -m benchmarks.server", description="Counts and answers.")
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
