"""The services that are submitted to: nginx where it is installed, and the counting one.

nginx answers as soon as it has the headers and reads the body meanwhile; it is told to count requests and nothing
else. The counting server looks at every body: the warm-up rounds go there, so that each contender is shown to bring
what it should before it is measured. Where there is no nginx it stands in for it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.measuring import clean_environ
from benchmarks.model import WrongResult

__all__ = ["USAGE", "Counts", "Service", "counting", "fast"]

USAGE: Final = (
    '{"accountId":"benchmark","usageForAccount":[],'
    '"creditsForAccount":[{"allocatedCredits":1000000000000,"consumedCredits":0}]}'
)
"""An account that has not used anything."""
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
        said = self._ask()
        if self.name == "nginx":
            # The third of three sums in a line of their own: accepts, handled, requests.
            sums = re.search(rb"^ \d+ \d+ (\d+) $", said, re.MULTILINE)
            assert sums is not None
            return Counts(int(sums[1]), None, None, cpu_s)
        counted = json.loads(said)
        return Counts(counted["requests"], counted["body_bytes"], counted["ids"], cpu_s)

    def first_submission(self) -> float | None:
        """Asks the counting server when the first body began to arrive, by `time.monotonic`; None when none did."""
        first: float | None = json.loads(self._ask())["first_at"]
        return first

    def _ask(self) -> bytes:
        # By hand: urllib brings ssl along, and this process must stay small (see `measuring.run`).
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            connection.sendall(b"GET /counts HTTP/1.1\r\nHost: benchmark\r\nConnection: close\r\n\r\n")
            said = b"".join(iter(lambda: connection.recv(65536), b""))
        return said.partition(b"\r\n\r\n")[2]

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
    (folder / "nginx.conf").write_text(_NGINX.format(folder=folder, port=port, usage=USAGE))
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
        except OSError:
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
        [sys.executable, "-m", "benchmarks.programs.counting", *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=clean_environ({}),
    ) as process:
        assert process.stdout is not None
        if not (line := process.stdout.readline()):
            raise WrongResult("The counting server did not start.")
        yield Service("counting", int(line), process.pid)
