"""The service as a state machine: a request and a time go in, a reply comes out.

It knows no clock and no socket. Times are Unix seconds on the service's own clock, which may run faster than
the client's; they must never go back from one request to the next. Every rule stands in a module of its own,
this one puts them in order: token, throttle, fault, endpoint, latency.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Final, Self

from bulkjobs.simulator.account import Throttle, Tokens
from bulkjobs.simulator.admin import TYPE, job_list, usage
from bulkjobs.simulator.answers import Answer, error_answer, render
from bulkjobs.simulator.books import Books, Post
from bulkjobs.simulator.config import NOTHING, ServiceConfig
from bulkjobs.simulator.dates import created_text, expiry_text, http_date
from bulkjobs.simulator.faults import Effect, Faults, spoil
from bulkjobs.simulator.idlist import count_ids
from bulkjobs.simulator.jobs import Job, JobTable, State, opaque_id
from bulkjobs.simulator.messages import Kind, Refusal, SimReply, SimRequest, Wire
from bulkjobs.simulator.results import FILES, check_link, check_ready, descriptor, results_file

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bulkjobs.simulator.faults import Fault

__all__ = ["API", "BOOKS", "LOGIN", "Service"]

API: Final = "/api/v1"
LOGIN: Final = "/Auth/login/v1/token"
BOOKS: Final = "/_sim/books"

_JOBS: Final = f"{API}/contact/job"
_METHODS: Final = {
    _JOBS: {"POST": Kind.SUBMIT},
    f"{API}/admin/jobs": {"GET": Kind.LIST},
    f"{API}/admin/usage": {"GET": Kind.USAGE},
    LOGIN: {"POST": Kind.LOGIN},
    f"{LOGIN}.json": {"POST": Kind.LOGIN},
}
# By what follows the id of the job.
_JOB_METHODS: Final[Mapping[str, Mapping[str, Kind]]] = {
    "": {"GET": Kind.STATUS, "DELETE": Kind.CANCEL},
    "/results": {"GET": Kind.RESULTS},
}
_CONTENT_TYPES: Final = ("text/plain", "application/octet-stream")
_STATUS_ROOT: Final = "BulkLeadEnrichmentStatus"
_NO_REPLY: Final = SimReply(status=200, body=b"", content_type="text/plain")


@dataclass(slots=True, kw_only=True)
class _Call:
    """Is one request on its way through the service, and what it led to."""

    kind: Kind
    allowed: tuple[str, ...]
    """The methods that its path knows."""
    request: SimRequest
    now: float
    number: int
    """Order of arrival among those of its kind, from 1."""
    sha256: bytes = b""
    """Of a submission's body."""
    fault: Fault | None = None
    job: Job | None = None
    """The job that it made."""


class Service:
    """Is the simulated InsideView service of one account.

    Args:
        config: what it allows and how it behaves.
        client_utc: turns a time of the service into the client's Unix seconds. Everything the client reads
            (dates, expiry, `Retry-After`) is told in its own time; the two are the same by default.

    Raises:
        ConfigError: the books' file exists already or cannot be made.
    """

    def __init__(
        self, config: ServiceConfig | None = None, *, client_utc: Callable[[float], float] = lambda now: now
    ) -> None:
        self.config: Final = config or ServiceConfig()
        self._client_utc = client_utc
        self._tokens = Tokens(self.config)
        self._throttle = Throttle(self.config)
        self._jobs = JobTable(self.config)
        self._faults = Faults(self.config.faults, seed=self.config.seed)
        self._latency = Random(f"{self.config.seed}/latency")  # noqa: S311 - repeatable on purpose
        self._diagnostics = 0
        self._books = Books(self.config.books, client_utc=client_utc, sync=self.config.books_sync)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the books' files."""
        self._books.close()

    def handle(self, request: SimRequest, now: float) -> SimReply:
        """Takes one request at a time not before the last one's, and gives what the client is to see of it.

        Raises:
            OSError: the books cannot be written. Nothing of the request was entered and no job was made, or, when
                only the journal failed, the job stands in the books.
        """
        self._jobs.advance(now)
        if request.path.startswith("/_sim/"):
            return self._show_books(request, now)
        kind, allowed = _kind_of(request)
        self._books.requests[kind] += 1
        call = _Call(kind=kind, allowed=allowed, request=request, now=now, number=self._books.requests[kind])
        if kind is Kind.SUBMIT:
            call.sha256 = hashlib.sha256(request.body).digest()
        try:
            self._let_in(kind, request, now)
            reply = self._meet_faults(call)
        except Refusal as refusal:
            reply = self._refuse(kind, refusal, request)
        if self.config.latency != NOTHING:
            span = self.config.latency
            reply = replace(reply, delay_s=self._latency.uniform(span.min_s, span.max_s))
        if kind is Kind.SUBMIT:
            self._books.note(self._post(call, reply))
        return reply

    def _post(self, call: _Call, reply: SimReply) -> Post:
        fault, body = call.fault, call.request.body
        unasked = fault is not None and fault.effect is Effect.BEFORE
        try:
            ids = count_ids(body, max_ids=len(body)) if call.job is None else call.job.ids
        except Refusal:
            ids = None
        return Post(
            at=call.now,
            number=call.number,
            body_bytes=len(body),
            sha256=call.sha256,
            ids=ids,
            status=None if unasked and reply.wire in (Wire.RESET, Wire.CLOSE) else reply.status,
            job_id=None if call.job is None else call.job.job_id,
            wire=reply.wire.value,
            fault=None if fault is None else fault.name,
        )

    def _let_in(self, kind: Kind, request: SimRequest, now: float) -> None:
        """Passes a request that token and throttle let through.

        A token that never was one belongs to no account: it is refused, but not counted. An expired one is.
        A link to a file takes no token at all.
        """
        if kind is Kind.FILE:
            return
        token = request.headers.get("accesstoken")
        if kind is not Kind.LOGIN and not self._tokens.known(token):
            raise Refusal(401, "401-152", "No valid accessToken in the header.")
        if not self._throttle.admit(kind, now):
            raise Refusal(429, "429-151", "Request limit exceeded.", headers=self._retry_after(now))
        if kind is not Kind.LOGIN and not self._tokens.valid(token or "", now):
            raise Refusal(401, "401-153", "The accessToken has expired.")

    def _retry_after(self, now: float) -> tuple[tuple[str, str], ...]:
        # Seconds of today have seven good decimals in a float; without rounding 300 could become 301.
        until_utc = round(self._client_utc(self._throttle.locked_until), 3)
        match self.config.retry_after:
            case None:
                return ()
            case "seconds":
                text = str(math.ceil(round(until_utc - self._client_utc(now), 3)))
            case "date":
                text = http_date(math.ceil(until_utc))
            case lie:
                text = lie
        return (("Retry-After", text),)

    def _meet_faults(self, call: _Call) -> SimReply:
        fault = self._faults.draw(call.kind, call.number)
        if fault is None:
            return self._answer(call, appears_at=call.now)
        call.fault = fault
        self._books.faults[fault.name] += 1
        return self._spoil(fault, call)

    def _spoil(self, fault: Fault, call: _Call) -> SimReply:
        reply, request = _NO_REPLY, call.request
        if fault.effect is not Effect.BEFORE:
            late = fault.effect is Effect.LATE
            appears_at = call.now + self.config.faults.late_s if late else call.now
            try:
                reply = self._answer(call, appears_at=appears_at)
            except Refusal as refusal:
                reply = self._refuse(call.kind, refusal, request)
        return spoil(fault, reply, as_json=request.wants_json, diagnostic_code=self._diagnostic_code())

    def _answer(self, call: _Call, *, appears_at: float) -> SimReply:
        request, now = call.request, call.now
        match call.kind:
            case Kind.SUBMIT:
                answer = self._submit(call, appears_at)
            case Kind.STATUS:
                answer = _status(self._jobs.find(_job_id(request)), now)
            case Kind.RESULTS | Kind.FILE:
                return self._download(call)
            case Kind.CANCEL:
                job = self._jobs.find(_job_id(request))
                self._jobs.cancel(job, now)
                answer = _status(job, now)
            case Kind.LIST:
                answer = job_list(request.query, self._jobs, self.config, now, self._client_utc)
            case Kind.USAGE:
                jobs_url = f"http://{_host(request)}{API}/admin/jobs"
                answer = usage(
                    request.query, self._jobs, self.config, now, self._client_utc, jobs_url=jobs_url
                )
            case Kind.LOGIN:
                answer = self._login(request, now)
            case Kind.OTHER:
                raise _nowhere(call.allowed)
        return render(answer, as_json=request.wants_json)

    def _submit(self, call: _Call, appears_at: float) -> Answer:
        request = call.request
        if request.headers.get("content-type", "").lower() not in _CONTENT_TYPES:
            raise Refusal(415, "415-151", f"Content-Type must be one of {', '.join(_CONTENT_TYPES)}.")
        try:
            ids = count_ids(request.body, max_ids=self.config.max_ids)
        except Refusal:
            self._books.malformed += 1
            raise
        self._jobs.check_room(ids)
        job = self._jobs.draw(
            ids=ids, sha256=call.sha256, at=appears_at, webhook=request.query.get("webhook")
        )
        self._books.add(job, request.body)
        self._jobs.enter(job, call.now)
        call.job = job
        # The vendor's `type` is `contacts` here and `contact` from then on.
        content = {"jobId": job.job_id, "status": State.ACCEPTED.word, "type": "contacts"}
        return Answer(root=_STATUS_ROOT, content=content)

    def _download(self, call: _Call) -> SimReply:
        request, now = call.request, call.now
        if call.kind is Kind.FILE:
            job = self._jobs.find(check_link(request.path, request.query, self.config, now))
        else:
            job = self._jobs.find(_job_id(request))
        check_ready(job, self.config, now)
        if call.kind is Kind.RESULTS and self.config.results_shape == "link":
            created = created_text(self._client_utc(job.accepted_at))
            answer = descriptor(job, self.config, now, host=_host(request), job_type=TYPE, created=created)
            return render(answer, as_json=request.wants_json)
        body = self._books.body(job.job_id)
        assert body is not None, "every job stands in the books"
        return results_file(job, body, self.config, now)

    def _login(self, request: SimRequest, now: float) -> Answer:
        query = request.query
        for name in ("clientId", "clientSecret", "grantType"):
            if not query.get(name):
                raise Refusal(400, "400-104", f"{name} should be present in the query.")
        if query["grantType"] != "cred":
            raise Refusal(400, "400-103", "Illegal values for the field grantType.")
        token, expires_at = self._tokens.mint(query["clientId"], query["clientSecret"], now)
        content = {
            "accessToken": token,
            "expirationTime": expiry_text(self._client_utc(expires_at)),
            "tokenType": "bearer",
        }
        return Answer(root="accessTokenDetails", content=content, wrapped=True)

    def _refuse(self, kind: Kind, refusal: Refusal, request: SimRequest) -> SimReply:
        self._books.submits_refused += kind is Kind.SUBMIT
        self._books.unauthorized += refusal.status == 401  # noqa: PLR2004 - an HTTP status
        return render(
            error_answer(refusal, self._diagnostic_code()),
            as_json=request.wants_json,
            status=refusal.status,
            headers=refusal.headers,
        )

    def _diagnostic_code(self) -> str:
        self._diagnostics += 1
        return opaque_id(self.config.seed, "diagnostic", self._diagnostics)

    def _show_books(self, request: SimRequest, now: float) -> SimReply:
        """Answers a judge. These requests are never counted, throttled, delayed or spoilt."""
        path = request.path
        if path == BOOKS:
            return SimReply(
                status=200, body=json.dumps(self.totals()).encode(), content_type="application/json"
            )
        if path == f"{BOOKS}/jobs":
            lines = b"".join(self._books.lines(now))
            return SimReply(status=200, body=lines, content_type="application/x-ndjson")
        body = None
        if path.startswith(f"{BOOKS}/jobs/") and path.endswith("/ids"):
            body = self._books.body(path.removeprefix(f"{BOOKS}/jobs/").removesuffix("/ids"))
        if body is None:
            return SimReply(status=404, body=b"no such book\n", content_type="text/plain")
        return SimReply(status=200, body=body, content_type="text/plain")

    def totals(self) -> dict[str, object]:
        """Gives the counts, as `GET /_sim/books` shows them.

        `max_in_window` is the most counted requests in any sliding window, refused ones included unless they
        came during a lock-out; null without a rate. Times are the client's Unix seconds.
        """
        books, throttle, client_utc = self._books, self._throttle, self._client_utc
        return {
            "jobs": books.jobs,
            "ids": books.ids,
            "repeated_bodies": books.repeated_bodies,
            "submits_refused": books.submits_refused,
            "malformed_bodies": books.malformed,
            "unauthorized": books.unauthorized,
            "requests": {kind.value: books.requests[kind] for kind in Kind},
            "throttled": throttle.refused,
            "lockouts": len(throttle.lockouts),
            "requests_during_lockout": sum(lockout.requests for lockout in throttle.lockouts),
            "lockout_list": [
                {
                    "began_at": client_utc(lockout.began_at),
                    "until": client_utc(lockout.until),
                    "requests": lockout.requests,
                    "last_request_at": lockout.last_request_at and client_utc(lockout.last_request_at),
                }
                for lockout in throttle.lockouts
            ],
            "max_in_window": throttle.max_in_window,
            "window_s": self.config.rate and self.config.rate.window_s,
            "faults": dict(sorted(books.faults.items())),
        }


def _kind_of(request: SimRequest) -> tuple[Kind, tuple[str, ...]]:
    """Gives the kind of a request, and the methods its path knows."""
    path = request.path
    methods: Mapping[str, Kind] = {}
    if path.startswith(f"{_JOBS}/"):
        job_id = path.removeprefix(f"{_JOBS}/").partition("/")[0]
        if job_id:
            methods = _JOB_METHODS.get(path.removeprefix(f"{_JOBS}/{job_id}"), {})
    elif path.startswith(FILES):
        methods = {"GET": Kind.FILE}
    else:
        methods = _METHODS.get(path, {})
    return methods.get(request.method, Kind.OTHER), tuple(methods)


def _nowhere(allowed: tuple[str, ...]) -> Refusal:
    if allowed:
        return Refusal(405, "405-151", "Method not allowed.", headers=(("Allow", ", ".join(allowed)),))
    return Refusal(404, "404-152", "There is nothing at this path.")


def _job_id(request: SimRequest) -> str:
    return request.path.removeprefix(f"{_JOBS}/").partition("/")[0]


def _host(request: SimRequest) -> str:
    return request.headers.get("host", "localhost")


def _status(job: Job, now: float) -> Answer:
    content: dict[str, str | int] = {"jobId": job.job_id, "status": job.state(now).word, "type": "contact"}
    if not job.aborted:
        content["totalProcessed"] = job.processed(now)
    return Answer(root=_STATUS_ROOT, content=content)
