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
from bulkjobs.simulator.admin import job_list, usage
from bulkjobs.simulator.answers import Answer, error_answer, render
from bulkjobs.simulator.books import Books, Post
from bulkjobs.simulator.config import NOTHING, ServiceConfig
from bulkjobs.simulator.dates import created_text, expiry_text, http_date
from bulkjobs.simulator.faults import Effect, Faults, refusal, spoil
from bulkjobs.simulator.foreign import Others
from bulkjobs.simulator.idlist import IdRule, too_many
from bulkjobs.simulator.jobs import Job, JobTable, State, opaque_id
from bulkjobs.simulator.messages import Kind, Refusal, SimReply, SimRequest, Wire
from bulkjobs.simulator.results import check_link, check_ready, descriptor, results_file
from bulkjobs.simulator.routes import API, BOOKS, endpoint_of, host_of, job_id_of, kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bulkjobs.simulator.endpoints import Endpoint
    from bulkjobs.simulator.faults import Fault

__all__ = ["Service"]

_CONTENT_TYPES: Final = ("text/plain", "application/octet-stream")
_NO_REPLY: Final = SimReply(status=200, body=b"", content_type="text/plain")


@dataclass(slots=True, kw_only=True)
class _Call:
    """Is one request on its way through the service, and what it led to."""

    kind: Kind
    allowed: tuple[str, ...]
    """The methods that its path knows."""
    endpoint: Endpoint
    """Whose jobs it is about."""
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
        self._bad_ids = IdRule(self.config.bad_ids)
        self._books = Books(self.config.books, client_utc=client_utc, sync=self.config.books_sync)
        self._others = Others(self.config, self._jobs, self._books)

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
        kind, allowed = kind_of(request)
        self._books.requests[kind] += 1
        call = _Call(
            kind=kind,
            allowed=allowed,
            endpoint=endpoint_of(request),
            request=request,
            now=now,
            number=self._books.requests[kind],
        )
        if kind is Kind.SUBMIT:
            call.sha256 = hashlib.sha256(request.body).digest()
        try:
            self._let_in(kind, request, now)
            reply = self._among_others(call)
        except Refusal as refused:
            reply = self._refuse(kind, refused, request)
        if self.config.latency != NOTHING:
            span = self.config.latency
            latency_s = self._latency.uniform(span.min_s, span.max_s)
            reply = replace(reply, delay_s=reply.delay_s + latency_s)
        if kind is Kind.SUBMIT:
            self._books.note(self._post(call, reply))
        return reply

    def _post(self, call: _Call, reply: SimReply) -> Post:
        fault, body = call.fault, call.request.body
        unasked = fault is not None and fault.effect is Effect.BEFORE
        try:
            ids = call.endpoint.count_ids(body, max_ids=len(body)) if call.job is None else call.job.ids
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

    def add_foreign(self, ids: Iterable[int | str], now: float, *, job_type: str | None = None) -> str:
        """Makes a job as somebody else on the account, whether there is room or not, and gives its id.

        Args:
            ids: what it is made of.
            now: a time not before that of the last request.
            job_type: for a job that is not of contacts, the type that the job list shows, e.g. `enrich`.
        """
        self._jobs.advance(now)
        return self._others.add([str(one).encode() for one in ids], now, job_type=job_type).job_id

    def _among_others(self, call: _Call) -> SimReply:
        """Answers a request while others on the account make jobs of their own."""
        before = after = 0
        if call.kind is Kind.SUBMIT:
            before, after = self._others.around_submission(call.request.body, call.endpoint)
        elif call.kind is Kind.LIST:
            after = self._others.after_page()
        self._others.appear(before, call.now)
        try:
            return self._meet_faults(call)
        finally:
            self._others.appear(after, call.now)

    def _meet_faults(self, call: _Call) -> SimReply:
        fault, earlier_id = self._faults.draw(call.kind, call.number), self._books.last_job_id
        if fault is None or (fault.what == "reused" and not (call.kind is Kind.SUBMIT and earlier_id)):
            return self._answer(call, appears_at=call.now)
        call.fault = fault
        self._books.faults[fault.name] += 1
        if refused := refusal(fault):
            self._strike(fault, refused, call.now)
            raise refused
        reply = self._before_spoiling(fault, call)
        request, code = call.request, self._diagnostic_code()
        if fault.what == "reused":
            return render(_accepted(earlier_id or "", call.endpoint), as_json=request.wants_json)
        return spoil(fault, reply, request=request, slow_s=self.config.faults.slow_s, diagnostic_code=code)

    def _strike(self, fault: Fault, refused: Refusal, now: float) -> None:
        """Does what a fault does to the account, besides the answer."""
        if fault.what == "expire":
            self._tokens.expire(now)
        elif fault.what == "lockout":
            self._throttle.lock(now)
            refused.headers = self._retry_after(now)

    def _before_spoiling(self, fault: Fault, call: _Call) -> SimReply:
        """Gives the reply that the client should have had, if the request takes effect."""
        if fault.effect is Effect.BEFORE:
            return _NO_REPLY
        late = fault.effect is Effect.LATE
        try:
            return self._answer(call, appears_at=call.now + self.config.faults.late_s if late else call.now)
        except Refusal as refused:
            return self._refuse(call.kind, refused, call.request)

    def _answer(self, call: _Call, *, appears_at: float) -> SimReply:
        request, now = call.request, call.now
        match call.kind:
            case Kind.SUBMIT:
                answer = self._submit(call, appears_at)
            case Kind.STATUS:
                answer = _status(self._find(call), now, call.endpoint)
            case Kind.RESULTS | Kind.FILE:
                return self._download(call)
            case Kind.CANCEL:
                job = self._find(call)
                self._jobs.cancel(job, now)
                answer = _status(job, now, call.endpoint)
            case Kind.LIST:
                answer = job_list(request.query, self._jobs, self.config, now, self._client_utc)
            case Kind.USAGE:
                jobs_url = f"http://{host_of(request)}{API}/admin/jobs"
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
        self._check_size(request.body)
        try:
            ids = call.endpoint.count_ids(request.body, max_ids=self.config.max_ids)
        except Refusal:
            self._books.malformed += 1
            raise
        if self._bad_ids.holds_for_any(request.body):
            self._books.bad_ids += 1
            raise Refusal(400, "400-108", "Executive id is not valid.")
        self._jobs.check_room(ids)
        job = self._jobs.draw(
            ids=ids,
            sha256=call.sha256,
            at=appears_at,
            webhook=request.query.get("webhook"),
            job_type=call.endpoint.job_type,
        )
        self._books.add(job, request.body)
        self._jobs.enter(job, call.now)
        call.job = job
        return _accepted(job.job_id, call.endpoint)

    def _find(self, call: _Call) -> Job:
        return self._jobs.find(job_id_of(call.request), call.endpoint.job_type)

    def _check_size(self, body: bytes) -> None:
        most = self.config.max_body_bytes
        if most is None or len(body) <= most:
            return
        self._books.too_large += 1
        if self.config.body_refusal == 413:  # noqa: PLR2004 - an HTTP status
            raise Refusal(413, "413-151", f"The request body is larger than {most} bytes.")
        fit = max(1, body.replace(b",", b"\n").count(b"\n", 0, most))
        raise too_many(fit)

    def _download(self, call: _Call) -> SimReply:
        request, now = call.request, call.now
        if call.kind is Kind.FILE:
            job = self._jobs.named(check_link(request.path, request.query, self.config, now))
        else:
            job = self._find(call)
        check_ready(job, self.config, now)
        if call.kind is Kind.RESULTS and self.config.results_shape == "link":
            created = created_text(self._client_utc(job.accepted_at), zone_h=self.config.list_zone_h)
            answer = descriptor(
                job,
                self.config,
                now,
                host=host_of(request),
                job_type=job.job_type or self.config.list_type,
                created=created,
            )
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
        came during a lock-out; null without a rate. `foreign_` counts jobs of others, which no other count holds.
        Times are the client's Unix seconds.
        """
        books, throttle, client_utc = self._books, self._throttle, self._client_utc
        return {
            "jobs": books.jobs,
            "ids": books.ids,
            "repeated_bodies": books.repeated_bodies,
            "submits_refused": books.submits_refused,
            "malformed_bodies": books.malformed,
            "bad_id_refusals": books.bad_ids,
            "too_large": books.too_large,
            "foreign_jobs": books.foreign_jobs,
            "foreign_ids": books.foreign_ids,
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


def _nowhere(allowed: tuple[str, ...]) -> Refusal:
    if allowed:
        return Refusal(405, "405-151", "Method not allowed.", headers=(("Allow", ", ".join(allowed)),))
    return Refusal(404, "404-152", "There is nothing at this path.")


def _accepted(job_id: str, endpoint: Endpoint) -> Answer:
    content = {"jobId": job_id, "status": State.ACCEPTED.word, "type": endpoint.types[0]}
    return Answer(root=endpoint.root, content=content)


def _status(job: Job, now: float, endpoint: Endpoint) -> Answer:
    content: dict[str, str | int] = {
        "jobId": job.job_id,
        "status": job.state(now).word,
        "type": endpoint.types[1],
    }
    if not job.aborted:
        content["totalProcessed"] = job.processed(now)
    return Answer(root=endpoint.root, content=content)
