"""The simulated service behind the transport's protocol, without a socket and on any clock, and a judge of its books.

A run of days against the service passes in a test as fast as it can be computed. The evidence is what
`HttpTransport` gives for the same thing on a wire; `test_api.py` holds what that is.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import shutil
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from bulkjobs.model import Evidence, Phase, Request, RequestKind
from bulkjobs.ports import Clock
from bulkjobs.simulator import Service, SimReply, SimRequest, Wire

__all__ = [
    "BASE_URL",
    "LOGIN_URL",
    "TOKEN",
    "Account",
    "SimulatedTransport",
    "as_seen",
    "crash_image",
    "json_lines",
]

BASE_URL: Final = "http://127.0.0.1:9/api/v1"
"""Where nobody listens: a test that opens a socket after all fails."""
LOGIN_URL: Final = "http://127.0.0.1:9/Auth/login/v1/token.json"
TOKEN: Final = "simulator-token"

_NO_ANSWER: Final = {
    Wire.RESET: "ClientOSError: [Errno 104] Connection reset by peer",
    Wire.CLOSE: "ServerDisconnectedError: Server disconnected",
}
_CUT: Final = "ClientPayloadError: Response payload is not completed"


class SimulatedTransport:
    """Carries requests to a `Service` in the same process. Implements `ports.Transport`."""

    def __init__(
        self,
        service: Service,
        *,
        clock: Clock,
        request_timeout_s: float = math.inf,
        on_leaving: Callable[[Request], Awaitable[None]] | None = None,
    ) -> None:
        """Makes a transport.

        Args:
            service: takes the requests, at the times of `clock`.
            clock: also of the service; its time never goes back.
            request_timeout_s: after this time an answer is given up, as by `HttpTransport`.
            on_leaving: awaited when the first byte may leave, and before the service sees anything.
        """
        self._service = service
        self._clock = clock
        self._timeout_s = request_timeout_s
        self._on_leaving = on_leaving
        self.requests: list[Request] = []
        """What the service has seen, in order."""

    def sent(self, kind: RequestKind) -> list[Request]:
        """Gives the requests of a kind that the service has seen."""
        return [request for request in self.requests if request.kind is kind]

    async def request(
        self, request: Request, *, before_first_byte: Callable[[], Awaitable[None]] | None = None
    ) -> Evidence:
        """Sends one request; see `ports.Transport`."""
        started_utc = self._clock.utc()
        if before_first_byte is not None:
            await before_first_byte()
        if self._on_leaving is not None:
            await self._on_leaving(request)
        self.requests.append(request)
        sent_utc = self._clock.utc()
        reply = self._service.handle(as_seen(request), sent_utc)
        await asyncio.sleep(min(reply.delay_s, self._timeout_s))
        return self._evidence(reply, started_utc, sent_utc)

    def _evidence(self, reply: SimReply, started_utc: float, sent_utc: float) -> Evidence:
        ended_utc = self._clock.utc()
        error = "TimeoutError" if reply.delay_s >= self._timeout_s else _NO_ANSWER.get(reply.wire)
        if error is not None:
            return Evidence(
                phase=Phase.BODY_SENT,
                started_utc=started_utc,
                ended_utc=ended_utc,
                error=error,
                connection_reused=False,
                sent_utc=sent_utc,
            )
        cut = reply.wire is Wire.CUT
        body = reply.body[: len(reply.body) // 2] if cut else reply.body
        return Evidence(
            phase=Phase.STATUS_READ if cut else Phase.COMPLETE,
            started_utc=started_utc,
            ended_utc=ended_utc,
            status=reply.status,
            retry_after=dict(reply.headers).get("Retry-After"),
            content_type=reply.content_type,
            body=body,
            error=_CUT if cut else None,
            connection_reused=False,
            answer_bytes=len(body),
            sent_utc=sent_utc,
            answered_utc=ended_utc,
        )


def as_seen(request: Request) -> SimRequest:
    host, path, query = _parts_of(request.url)
    return SimRequest(
        method=request.method,
        path=path,
        query=dict(query),
        headers={"host": host, **{name.lower(): value for name, value in request.headers}},
        body=request.body,
    )


@lru_cache(1_000)
def _parts_of(url: str) -> tuple[str, str, list[tuple[str, str]]]:
    """Gives the host, the path and the parameters."""
    parts = urlsplit(url)
    return parts.netloc, unquote(parts.path), parse_qsl(parts.query, keep_blank_values=True)


def crash_image(run_dir: Path, image: Path) -> None:
    """Copies a run directory as a killed process would leave it at this moment.

    To be called on the event loop's thread: no request can leave meanwhile. The ledger comes first, since what it
    says of the other files must be true of them; a commit that is torn by the copy was told to nobody.
    """
    image.mkdir(mode=0o700)
    for name in ("ledger.db", "ledger.db-wal"):
        if (run_dir / name).exists():
            shutil.copy(run_dir / name, image / name)
    for path in run_dir.iterdir():
        if path.is_dir():
            shutil.copytree(path, image / path.name)
        elif not path.name.startswith(("ledger.", "lock")) and not path.is_socket():
            shutil.copy(path, image / path.name)


def json_lines(path: Path) -> list[dict[str, Any]]:
    """Reads a file of JSON lines; a file that is not there has none."""
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Compares what a run says of itself with what the service's books say of it."""

    run_dir: Path
    bodies: dict[str, bytes]
    """What the service made jobs of, by job id."""

    @classmethod
    def of(cls, run_dir: Path, service: Service, now: float) -> Account:
        """Reads the books of a service in this process."""

        def show(path: str) -> bytes:
            return service.handle(
                SimRequest(method="GET", path=f"/_sim/books/jobs{path}", query={}, headers={}), now
            ).body

        jobs = [json.loads(line) for line in show("").splitlines()]
        ours = [job["jobId"] for job in jobs if not job["foreign"]]
        return cls(run_dir=run_dir, bodies={job: show(f"/{job}/ids") for job in ours})

    @classmethod
    def from_file(cls, run_dir: Path, books: Path) -> Account:
        """Reads the books that `bulkjobs simulate --books` keeps, also while it runs."""
        text = books.read_bytes()
        jobs = json_lines(books.with_name(books.name + ".jsonl"))
        return cls(
            run_dir=run_dir,
            bodies={
                job["jobId"]: text[job["position"] : job["position"] + job["length"]]
                for job in jobs
                if not job["foreign"]
            },
        )

    def check(self, ids: Iterable[int]) -> dict[str, Any]:
        """Holds the promise against a run that has ended, and gives its summary.

        Args:
            ids: what was given, without invalid ids and duplicates.
        """
        records = json_lines(self.run_dir / "jobs.jsonl")
        held = json_lines(self.run_dir / "held.jsonl")
        summary: dict[str, Any] = json.loads((self.run_dir / "summary.json").read_bytes())
        self._check_records(records, held)
        assert summary["ids"]["accepted"] == sum(record["ids"] for record in records)
        assert summary["ids"]["held"] == sum(line["ids"] for line in held)
        assert summary["chunks"]["accepted"] == len(records)
        assert summary["chunks"]["held"] == len(held)
        parts = {name: count for name, count in summary["ids"].items() if name != "read"}
        assert summary["ids"]["read"] == sum(parts.values()), summary
        self._check_ids(set(ids), held, summary)
        return summary

    def _check_records(self, records: Sequence[dict[str, Any]], held: Sequence[dict[str, Any]]) -> None:
        assert len({record["chunk"] for record in records}) == len(records), "a chunk has two lines"
        assert len({record["job_id"] for record in records}) == len(records), "a job has two lines"
        for record in records:
            assert _digest(self.bodies[record["job_id"]]) == record["digest"], record
        digests = [_digest(body) for body in self.bodies.values()]
        assert len(set(digests)) == len(digests), "a chunk was accepted twice"
        told = {record["job_id"] for record in records}
        untold = {_digest(body) for job, body in self.bodies.items() if job not in told}
        assert untold <= {line["digest"] for line in held}, "the service has a job that nobody knows of"

    def _check_ids(self, ids: set[int], held: Sequence[dict[str, Any]], summary: dict[str, Any]) -> None:
        accepted = [int(one) for body in self.bodies.values() for one in body.split(b"\n")]
        assert len(set(accepted)) == len(accepted), "an id was accepted twice"
        refused = {
            int(one)
            for path in (self.run_dir / "refused").glob("chunk-*.txt")
            for one in path.read_bytes().split()
        }
        doubtful = {one for line in held for one in range(int(line["first_id"]), int(line["last_id"]) + 1)}
        settled = set(accepted) | refused | doubtful
        assert settled <= ids, "something was sent that was not given"
        if not summary["ids"]["pending"] and summary["exit_code"] in (0, 3, 4):
            assert settled == ids, "an id was lost"


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
