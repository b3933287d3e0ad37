"""Reads the list of jobs, results and usage: what costs no quota and may be asked again."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from bulkjobs.account.exchange import exchange
from bulkjobs.errors import ConfigError
from bulkjobs.model import Phase
from bulkjobs.wire.answer import ErrorAnswer, ListedJob, MalformedAnswer, parse_job_list, parse_status
from bulkjobs.wire.request import (
    JOBS_PER_PAGE,
    list_request,
    results_link_request,
    results_request,
    status_request,
    usage_request,
)
from bulkjobs.wire.times import day_text
from bulkjobs.wire.usage import Usage, parse_usage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from bulkjobs.account.auth import Authenticator
    from bulkjobs.account.gate import Gate
    from bulkjobs.endpoints import Endpoint
    from bulkjobs.model import Evidence, JobId, JobStatus, Request
    from bulkjobs.ports import Clock, RequestLog, Transport
    from bulkjobs.wire.request import AnswerFormat

__all__ = ["JobList", "JobReader", "Unreadable"]

_OK: Final = 200
_UNAUTHORIZED: Final = 401
_SAYS_NOTHING: Final = frozenset({407, 408, 429})
"""Of a proxy, or of the account's throttle."""
_MOST_PAGES: Final = 10_000
_MOST_READINGS: Final = 3
"""Of a list whose pages shift while they are read."""
_USAGE_WAIT_S: Final = 10.0
"""For an answer about usage. Submissions wait for it, and can do without it."""
_ZONES_H: Final = (-12, 14)
"""Somewhere on earth clocks are this far behind UTC, and somewhere this far ahead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobList:
    """Is the list of jobs of some days, read from the first page to the last without a job met twice."""

    began_utc: float
    ended_utc: float = 0.0
    jobs: dict[str, ListedJob] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """Says why something could not be read."""

    reason: str
    unsent: bool = False
    """The server could not be reached at all."""


class JobReader:
    """Asks for the jobs of the account."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        base_url: str,
        accept: AnswerFormat,
        gate: Gate,
        auth: Authenticator,
        transport: Transport,
        request_log: RequestLog,
        clock: Clock,
    ) -> None:
        """Makes a reader; every request goes through the gate."""
        self._endpoint = endpoint
        self._base_url = base_url
        self._accept = accept
        self._gate = gate
        self._auth = auth
        self._transport = transport
        self._request_log = request_log
        self._clock = clock

    async def jobs(self, since_utc: float, until_utc: float) -> JobList | Unreadable:
        """Reads the list of the days from one before `since_utc` to one behind `until_utc`.

        The server's zone is not known; a day more on both sides holds whatever it may be.

        Raises:
            GateStopped: requests of this kind are stopped.
            AuthError: there is no token that the server takes.
            ConfigError: the token file cannot be read.
        """
        days = day_text(since_utc, -1), day_text(until_utc, +1)
        for _ in range(_MOST_READINGS):
            read = await self._read_through(days)
            if read is not None:
                return read
        return Unreadable(reason="its pages shift faster than they can be read")

    async def trouble(self) -> str | None:
        """Tells why the service does not answer, by one page of the list of today's jobs; None if it does.

        That it does not want to show the list, or does not take the token, is an answer too; a page of a proxy or
        a portal is none. So the token is the last one there was: a login would fail as well in an outage, and
        must not end the run for it.

        Raises:
            As `jobs`.
        """
        now = self._clock.utc()
        token = await self._auth.last_token()
        evidence = await self._exchange(self._page((day_text(now, 0), day_text(now, 0)), 1, token))
        if evidence.status is not None and 400 <= evidence.status <= 499:  # noqa: PLR2004 - the class of refusals
            return f"HTTP {evidence.status}" if evidence.status in _SAYS_NOTHING else None
        read = _listed(evidence)
        return read.reason if isinstance(read, Unreadable) else None

    async def status(self, job_id: JobId) -> JobStatus | Unreadable:
        """Reads what the server says of a job.

        Raises:
            As `jobs`.
        """
        answer = _body(
            await self._ask(
                lambda token: status_request(
                    self._endpoint, base_url=self._base_url, job_id=job_id, token=token, accept=self._accept
                )
            )
        )
        if isinstance(answer, Unreadable):
            return answer
        try:
            status = parse_status(answer)
        except MalformedAnswer as error:
            return Unreadable(reason=str(error))
        if isinstance(status, ErrorAnswer):
            return Unreadable(reason=f"the server says: {status}")
        return (
            status
            if status.job_id == job_id
            else Unreadable(reason=f"the answer is about job {status.job_id}")
        )

    async def results(self, job_id: JobId) -> frozenset[bytes] | Unreadable:
        """Reads the ids that the results of a job hold.

        Raises:
            As `jobs`.
        """
        # Archives and tables come with it; few sessions have results to read.
        from bulkjobs.wire.results import ResultsLink, parse_results  # noqa: PLC0415

        answer = _body(
            await self._ask(
                lambda token: results_request(
                    self._endpoint, base_url=self._base_url, job_id=job_id, token=token
                )
            )
        )
        try:
            form = self._endpoint.id_form
            read = answer if isinstance(answer, Unreadable) else parse_results(answer, form)
            if not isinstance(read, ResultsLink):
                return read
            request = results_link_request(read.url, base_url=self._base_url)
            answer = _body(await self._exchange(request))
            read = answer if isinstance(answer, Unreadable) else parse_results(answer, form)
        except (MalformedAnswer, ConfigError) as error:
            return Unreadable(reason=str(error))
        return (
            Unreadable(reason="the results only name another address")
            if isinstance(read, ResultsLink)
            else read
        )

    async def usage(self) -> Usage | Unreadable:
        """Reads what the account was allotted for this month and has used of it.

        The server's zone is not known. Where the month turns these hours in some zone both months are read, and the
        one counts that leaves less.

        Raises:
            As `jobs`.
        """
        now = self._clock.utc()
        months = dict.fromkeys(_moved(now, hours).strftime("%Y-%m") for hours in _ZONES_H)
        read: list[Usage | Unreadable] = []
        try:
            for month in months:
                read.append(await self._usage_of(month))  # noqa: PERF401 - what was read before a time-out stays
        except TimeoutError:
            read.append(Unreadable(reason=f"there was no answer within {_USAGE_WAIT_S:.0f} s"))
        good = [usage for usage in read if isinstance(usage, Usage)]
        return min(good, key=lambda usage: usage.left) if good else read[0]

    async def _usage_of(self, month: str) -> Usage | Unreadable:
        try:
            # Without a second try after a 401: it may mean that this key may not know, and must not end a run.
            token = await self._auth.token()
            request = usage_request(base_url=self._base_url, month=month, token=token, accept=self._accept)
            answer = _body(await self._exchange(request, _Hurried(self._transport, _USAGE_WAIT_S)))
            usage = answer if isinstance(answer, Unreadable) else parse_usage(answer)
        except MalformedAnswer as error:
            return Unreadable(reason=str(error))
        return Unreadable(reason=f"the server says: {usage}") if isinstance(usage, ErrorAnswer) else usage

    async def _read_through(self, days: tuple[str, str]) -> JobList | Unreadable | None:
        """Reads all pages; gives None when they shifted meanwhile, for then a job may have been passed over.

        That shows in a job that stands on two of them, or in a first page that is no longer what it was.
        """
        began_utc = self._clock.utc()
        jobs: dict[str, ListedJob] = {}
        before: list[ListedJob] = []
        for number in range(1, _MOST_PAGES + 1):
            page = _listed(await self._ask_for_page(days, number))
            if isinstance(page, Unreadable):
                return page
            if not page or (_names(page) == _names(before) and len(page) < JOBS_PER_PAGE):
                # A server that knows no pages gives the same one again.
                return await self._at_rest(days, JobList(began_utc=began_utc, jobs=jobs), pages=number - 1)
            for job in page:
                if job.job_id in jobs:
                    return None
                jobs[job.job_id] = job
            before = page
        return Unreadable(reason=f"it has no end: {_MOST_PAGES} pages were read")

    async def _at_rest(
        self, days: tuple[str, str], read: JobList, *, pages: int
    ) -> JobList | Unreadable | None:
        """Gives a list that was read if its first page is still the same; one page has nothing to shift."""
        if pages > 1:
            page = _listed(await self._ask_for_page(days, 1))
            if isinstance(page, Unreadable):
                return page
            if _names(page) != list(read.jobs)[: len(page)]:
                return None
        return replace(read, ended_utc=self._clock.utc())

    async def _ask_for_page(self, days: tuple[str, str], number: int) -> Evidence:
        return await self._ask(lambda token: self._page(days, number, token))

    def _page(self, days: tuple[str, str], number: int, token: str) -> Request:
        return list_request(
            base_url=self._base_url,
            first_day=days[0],
            last_day=days[1],
            page=number,
            token=token,
            accept=self._accept,
        )

    async def _ask(self, request: Callable[[str], Request]) -> Evidence:
        """Asks once, and once more with a new token if the server does not take this one."""
        token = await self._auth.token()
        evidence = await self._exchange(request(token))
        if evidence.status == _UNAUTHORIZED:
            await self._auth.refresh(token, "HTTP 401 when asked for jobs")
            token = await self._auth.token()
            evidence = await self._exchange(request(token))
        if evidence.status not in (None, _UNAUTHORIZED):
            self._auth.worked(token)
        return evidence

    async def _exchange(self, request: Request, transport: Transport | None = None) -> Evidence:
        return await exchange(
            request, gate=self._gate, transport=transport or self._transport, request_log=self._request_log
        )


class _Hurried:
    """Is a transport on which nobody waits for long; the wait for the gate is not counted."""

    def __init__(self, transport: Transport, wait_s: float) -> None:
        self._transport = transport
        self._wait_s = wait_s

    async def request(
        self, request: Request, *, before_first_byte: Callable[[], Awaitable[None]] | None = None
    ) -> Evidence:
        """Sends a request as the transport does.

        Raises:
            TimeoutError: there was no answer in time. The gate takes it for one that the server may still count.
        """
        async with asyncio.timeout(self._wait_s):
            return await self._transport.request(request, before_first_byte=before_first_byte)


def _listed(evidence: Evidence) -> list[ListedJob] | Unreadable:
    answer = _body(evidence)
    if isinstance(answer, Unreadable):
        return answer
    try:
        jobs = parse_job_list(answer)
    except MalformedAnswer as error:
        return Unreadable(reason=str(error))
    return Unreadable(reason=f"the server says: {jobs}") if isinstance(jobs, ErrorAnswer) else jobs


def _names(page: list[ListedJob]) -> list[str]:
    return [job.job_id for job in page]


def _body(evidence: Evidence) -> bytes | Unreadable:
    if evidence.status is None:
        reason = evidence.error or "there was no answer"
        return Unreadable(reason=reason, unsent=evidence.phase < Phase.HEADERS_SENT)
    if evidence.status != _OK:
        return Unreadable(reason=f"HTTP {evidence.status}")
    if evidence.phase < Phase.COMPLETE or evidence.body_cut:
        return Unreadable(reason="the answer broke off or is too long")
    return evidence.body


def _moved(utc: float, hours: int) -> datetime:
    return datetime.fromtimestamp(utc, UTC) + timedelta(hours=hours)
