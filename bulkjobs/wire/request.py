"""Values in, requests out: the addresses, the headers and the queries of the API, written in one place.

A `Request` made here reaches the wire exactly as it stands; the transport adds `Host` and the length.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import parse_qsl, quote, urlsplit

from bulkjobs.errors import ConfigError
from bulkjobs.model import JobId, Request, RequestKind
from bulkjobs.version import __version__

if TYPE_CHECKING:
    from bulkjobs.endpoints import Endpoint

__all__ = [
    "JOBS_PER_PAGE",
    "AnswerFormat",
    "list_request",
    "login_request",
    "results_link_request",
    "results_request",
    "secrets_of",
    "status_request",
    "submit_request",
    "usage_request",
]

AnswerFormat = Literal["json", "xml"]
"""What the server is asked to answer in; answers are read by their content all the same."""

_MEDIA_TYPES: Final[dict[AnswerFormat, str]] = {"json": "application/json", "xml": "application/xml"}

JOBS_PER_PAGE: Final = 50
"""The most that the list of jobs gives at a time. Source: vendor article "[GET] - Bulk Jobs List"."""

_TOKEN_HEADER: Final = "accessToken"  # noqa: S105 - the name of the header, not a token
_SECRET_PARAMETERS: Final = frozenset({"clientSecret", "webhook"})
"""Query parameters nobody may read in a log. A webhook address carries a nonce that proves who calls."""

_PARTLY_SECRET_PARAMETERS: Final = frozenset({"clientId", "webhook"})
"""Query parameters of which each long enough value counts by itself: one may be short, a part of the other public."""

_SHORTEST_SECRET: Final = 12

_ALIKE: Final = 8
"""Of so many requests what is the same is kept: all submits of a run are alike but for their bodies."""

_HEADER_SAFE: Final = re.compile(r"[\x21-\x7e]+")
"""Visible ASCII. RFC 9110 5.5 allows more, but no token has it, and a line break would add a header."""


_USER_AGENT: Final = f"bulkjobs/{__version__}"


def submit_request(
    endpoint: Endpoint,
    *,
    base_url: str,
    body: bytes,
    token: str,
    accept: AnswerFormat,
    webhook: str | None,
) -> Request:
    """Writes the request that makes a job of one chunk.

    Args:
        endpoint: the kind of job.
        base_url: address the endpoint's path hangs under, with or without a final slash.
        body: the ids as they go out.
        token: access token, sent raw, without a `Bearer` prefix.
        accept: format asked for. It is always said, as the server's own default is XML.
        webhook: address that is to be told of the job, or None.

    Raises:
        ConfigError: the token cannot stand in a header. The message does not show it.

    Source: vendor article "[POST] - Contact Details Job".
    """
    url = base_url.rstrip("/") + endpoint.path
    if webhook is not None:
        url += "?webhook=" + quote(webhook, safe="")
    headers = _submit_headers(token, accept, endpoint.content_type)
    return Request(kind=RequestKind.SUBMIT, method="POST", url=url, headers=headers, body=body)


def status_request(
    endpoint: Endpoint, *, base_url: str, job_id: JobId, token: str, accept: AnswerFormat
) -> Request:
    """Writes the request that asks how one job is doing.

    Raises:
        ConfigError: the token cannot stand in a header. The message does not show it.

    Source: vendor article "[GET] - Contact Details Job Status".
    """
    url = f"{base_url.rstrip('/')}{endpoint.path}/{quote(job_id, safe='')}"
    return Request(kind=RequestKind.STATUS, method="GET", url=url, headers=_common_headers(token, accept))


def list_request(
    *, base_url: str, first_day: str, last_day: str, page: int, token: str, accept: AnswerFormat
) -> Request:
    """Writes the request for one page of the list of jobs of some days, for all kinds and states of job.

    Args:
        base_url: as for `submit_request`.
        first_day: as `2026-01-31`; which zone the server takes for its days is not known.
        last_day: included.
        page: from 1.
        token: as for `submit_request`.
        accept: as for `submit_request`.

    Raises:
        ConfigError: the token cannot stand in a header. The message does not show it.

    Source: vendor article "[GET] - Bulk Jobs List". How lists of states and types are written is not known, so none
    are given.
    """
    query = f"period=day&start={first_day}&end={last_day}&page={page}&resultsPerPage={JOBS_PER_PAGE}"
    url = f"{base_url.rstrip('/')}/admin/jobs?{query}"
    return Request(kind=RequestKind.LIST, method="GET", url=url, headers=_common_headers(token, accept))


def usage_request(*, base_url: str, month: str, token: str, accept: AnswerFormat) -> Request:
    """Writes the request for what the account was allotted and has used in a month, which costs no quota.

    Args:
        base_url: as for `submit_request`.
        month: as `2026-01`; which zone the server takes for its months is not known.
        token: as for `submit_request`.
        accept: as for `submit_request`.

    Raises:
        ConfigError: the token cannot stand in a header. The message does not show it.

    Source: vendor article "[GET] - API Usage"; the quota period is typically one month.
    """
    url = f"{base_url.rstrip('/')}/admin/usage?period=month&start={month}&end={month}"
    return Request(kind=RequestKind.USAGE, method="GET", url=url, headers=_common_headers(token, accept))


def results_request(endpoint: Endpoint, *, base_url: str, job_id: JobId, token: str) -> Request:
    """Writes the request for the results of a job. JSON is asked for: a file comes as a file all the same.

    Raises:
        ConfigError: the token cannot stand in a header. The message does not show it.

    Source: public client code for `contact/job`; vendor articles for other kinds of job.
    """
    url = f"{base_url.rstrip('/')}{endpoint.path}/{quote(job_id, safe='')}/results"
    return Request(kind=RequestKind.RESULTS, method="GET", url=url, headers=_common_headers(token, "json"))


def results_link_request(url: str, *, base_url: str) -> Request:
    """Writes the request for a results file at the address that the server gave, without the token.

    Raises:
        ConfigError: it is no address, or none to be trusted with anything: neither https nor on the host of the API.
    """
    api = urlsplit(base_url)
    try:
        link = urlsplit(url)
        good = bool(link.hostname) and link.port != 0 and bool(_HEADER_SAFE.fullmatch(url))
    except ValueError:
        good = False
    if not good:
        raise ConfigError("The server names a results file, but not by an address.")
    if link.scheme != "https" and (link.scheme, link.netloc) != (api.scheme, api.netloc):
        raise ConfigError("The server names a results file at an address that is not https.")
    headers = (("Accept", "*/*"), ("Accept-Encoding", "identity"), ("User-Agent", _USER_AGENT))
    return Request(kind=RequestKind.RESULTS, method="GET", url=url, headers=headers)


def login_request(*, login_url: str, client_id: str, client_secret: str) -> Request:
    """Writes the request that mints an access token. Its address holds the client secret.

    Source: vendor article "[POST] - New Token": the parameters stand in the query, and a missing
    `Content-Type` is answered with 415.
    """
    query = (
        f"clientId={quote(client_id, safe='')}&clientSecret={quote(client_secret, safe='')}&grantType=cred"
    )
    headers = (
        ("Accept", _MEDIA_TYPES["json"]),
        ("Accept-Encoding", "identity"),
        ("User-Agent", _USER_AGENT),
        ("Content-Type", "application/x-www-form-urlencoded"),
    )
    return Request(kind=RequestKind.LOGIN, method="POST", url=f"{login_url}?{query}", headers=headers)


def secrets_of(request: Request) -> tuple[str, ...]:
    """Gives every text of a request that must not be shown, unescaped.

    The longest stands first, so that replacing them one after the other leaves no rest of any.
    """
    return _secrets_in(request.url, request.headers)


@lru_cache(maxsize=_ALIKE)
def _secrets_in(url: str, headers: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    # A short token is that of a test, and masking it would change words and job ids of the answer.
    found = {value for name, value in headers if name == _TOKEN_HEADER and len(value) >= _SHORTEST_SECRET}
    for name, value in parse_qsl(urlsplit(url).query):
        if name in _SECRET_PARAMETERS:
            found.add(value)
        if name in _PARTLY_SECRET_PARAMETERS:
            # A server may show a part of an address, or a parameter, without the rest.
            parts = (value, *(part for _, part in parse_qsl(urlsplit(value).query)))
            found.update(part for part in parts if len(part) >= _SHORTEST_SECRET)
    return tuple(sorted(found, key=len, reverse=True))


@lru_cache(maxsize=_ALIKE)
def _submit_headers(token: str, accept: AnswerFormat, content_type: str) -> tuple[tuple[str, str], ...]:
    return (*_common_headers(token, accept), ("Content-Type", content_type))


def _common_headers(token: str, accept: AnswerFormat) -> tuple[tuple[str, str], ...]:
    if not _HEADER_SAFE.fullmatch(token):
        raise ConfigError(
            "The access token is empty or holds a blank, a line break or a character outside ASCII. "
            "Give it exactly as the token endpoint printed it."
        )
    # `identity`: an answer is some hundred bytes, and one that is not compressed cannot be a gzip bomb.
    return (
        (_TOKEN_HEADER, token),
        ("Accept", _MEDIA_TYPES[accept]),
        ("Accept-Encoding", "identity"),
        ("User-Agent", _USER_AGENT),
    )
