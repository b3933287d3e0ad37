"""Asks a simulated service without a socket, one request at a time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from bulkjobs.simulator import Service, ServiceConfig, SimReply, SimRequest, Span

__all__ = [
    "CREDENTIALS", "DAY", "JOB", "JSON", "LIST", "LOGIN", "NOON", "TOKEN", "ask", "content", "entries", "listed",
    "login", "message", "rows", "status", "steady", "submit", "submit_id",
]  # fmt: skip

TOKEN: Final = "simulator-token"
JOB: Final = "/api/v1/contact/job"
LIST: Final = "/api/v1/admin/jobs"
LOGIN: Final = "/Auth/login/v1/token"
CREDENTIALS: Final[dict[str, Any]] = {
    "clientId": "simulator-client",
    "clientSecret": "simulator-secret",
    "grantType": "cred",
}
JSON: Final = {"accesstoken": TOKEN, "accept": "application/json"}
NOON: Final = datetime(2026, 3, 10, 12, tzinfo=UTC).timestamp()
DAY: Final = 86_400.0


def steady(queue_s: float = 0.0, job_s: float = 60.0, **more: Any) -> ServiceConfig:
    """Describes a service whose jobs all take the same time."""
    return ServiceConfig(
        queue_time=Span(min_s=queue_s, max_s=queue_s), job_time=Span(min_s=job_s, max_s=job_s), **more
    )


def ask(
    service: Service,
    method: str,
    path: str,
    now: float,
    *,
    headers: Mapping[str, str] = JSON,
    body: bytes = b"",
    **query: Any,
) -> SimReply:
    """Sends any request."""
    return service.handle(SimRequest(method=method, path=path, query=query, headers=headers, body=body), now)


def submit(
    service: Service, now: float, body: bytes = b"1\n2\n3", *, headers: Mapping[str, str] = JSON, **query: Any
) -> SimReply:
    """Submits ids."""
    headers = {**headers, "content-type": "text/plain"}
    return ask(service, "POST", JOB, now, headers=headers, body=body, **query)


def submit_id(service: Service, now: float, body: bytes = b"1\n2\n3") -> str:
    """Submits ids of which a job must be made, and gives its id."""
    reply = submit(service, now, body)
    assert reply.status == 200, reply.body
    return str(content(reply)["jobId"])


def login(service: Service, now: float) -> dict[str, str]:
    """Gives headers with a new token."""
    reply = ask(service, "POST", f"{LOGIN}.json", now, headers={}, **CREDENTIALS)
    return {**JSON, "accesstoken": content(reply)["accessTokenDetails"]["accessToken"]}


def status(service: Service, job_id: str, now: float) -> Any:
    """Asks for the state of a job."""
    return content(ask(service, "GET", f"{JOB}/{job_id}", now))


def rows(service: Service, now: float = NOON, **query: Any) -> list[dict[str, Any]]:
    """Gives a page of the job list."""
    reply = ask(service, "GET", LIST, now, **query)
    assert reply.status == 200, reply.body
    found: list[dict[str, Any]] = content(reply)["bulkJobs"]
    return found


def listed(service: Service, now: float = NOON, **query: Any) -> list[str]:
    """Gives the job ids of a page of the job list."""
    return [row["jobId"] for row in rows(service, now, **query)]


def entries(service: Service, now: float) -> list[dict[str, Any]]:
    """Gives what the books say of each job."""
    return [json.loads(line) for line in ask(service, "GET", "/_sim/books/jobs", now).body.splitlines()]


def content(reply: SimReply) -> Any:
    """Reads an answer that must be JSON."""
    assert reply.content_type == "application/json"
    return orjson.loads(reply.body)


def message(reply: SimReply) -> str:
    """Gives what an error says."""
    return str(content(reply)["message"])
