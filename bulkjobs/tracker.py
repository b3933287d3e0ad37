"""The life of a job after its acceptance: asked for until its end is seen, which frees its slot.

A slot is freed by seeing a terminal state and by nothing else. A request that fails says nothing about the
job: it is asked for again later, and the job keeps its slot. Only an answer that the server does not know
the job, given twice in a row, ends the asking: whatever it was, it runs no more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from typing import Final

from bulkjobs.account.auth import Authenticator
from bulkjobs.account.exchange import exchange
from bulkjobs.account.gate import Gate, GateStopped
from bulkjobs.backoff import poll_delay_s
from bulkjobs.endpoints import Endpoint
from bulkjobs.errors import AuthError, ConfigError
from bulkjobs.events import Event, JobChanged, PollFailed
from bulkjobs.exits import Exit
from bulkjobs.halt import Halt
from bulkjobs.ledger import Ledger, OpenJob
from bulkjobs.model import Evidence, JobId, JobState, JobStatus
from bulkjobs.ports import Clock, Transport
from bulkjobs.wire.answer import ErrorAnswer, MalformedAnswer, parse_status
from bulkjobs.wire.request import AnswerFormat, status_request

__all__ = ["Tracker"]

_OK: Final = 200
_UNAUTHORIZED: Final = 401
_NOT_FOUND: Final = 404
_GONE_AFTER: Final = 2
_GONE: Final = "not found"
"""Our own word. It frees the slot for this session and is no end: the next one asks again."""
_POLLERS: Final = 4
"""Slots are few. Several pollers only keep one slow answer from holding up the others."""


class Tracker:
    """Asks for the open jobs of an account, the one that is due first."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        base_url: str,
        accept: AnswerFormat,
        poll_s: float,
        gate: Gate,
        auth: Authenticator,
        transport: Transport,
        ledger: Ledger,
        clock: Clock,
        halt: Halt,
        emit: Callable[[Event], None],
    ) -> None:
        """Makes a tracker; `poll_s` is the least time between two requests for one job, in seconds."""
        self._endpoint = endpoint
        self._base_url = base_url
        self._accept = accept
        self._poll_s = poll_s
        self._gate = gate
        self._auth = auth
        self._transport = transport
        self._ledger = ledger
        self._clock = clock
        self._halt = halt
        self._emit = emit
        self._loop = asyncio.get_running_loop()
        self._due: list[tuple[float, str]] = []
        self._jobs: dict[str, _Tracked] = {}
        self._changed = asyncio.Event()

    def resume(self, jobs: Iterable[OpenJob]) -> None:
        """Takes up the jobs that earlier sessions left open; they are asked for at once."""
        for job in jobs:
            self._jobs[job.job_id] = _Tracked(job.accepted_utc, job.state)
            self._schedule(job.job_id, 0.0)

    def add(self, job_id: str) -> None:
        """Takes up a job that was just accepted."""
        self._jobs[job_id] = _Tracked(self._clock.utc(), JobState.ACCEPTED)
        self._schedule(job_id, self._delay_s(job_id))

    async def run(self) -> None:
        """Polls until it is cancelled or the gate is closed."""
        async with asyncio.TaskGroup() as group:
            for _ in range(_POLLERS):
                group.create_task(self._poll_in_turn())

    async def _poll_in_turn(self) -> None:
        while True:
            job_id = await self._next_due()
            try:
                await self._poll(job_id)
            except asyncio.CancelledError:
                self._schedule(job_id, 0.0)  # for when the tracker is run again
                raise
            except GateStopped:
                return
            except AuthError as error:
                self._halt.pull(Exit.STOPPED, str(error))
                return
            except ConfigError as error:  # the file of the token cannot be read (any more)
                self._halt.pull(Exit.USAGE, str(error))
                return

    async def _next_due(self) -> str:
        while True:
            if not self._due:
                self._changed.clear()
                await self._changed.wait()
                continue
            due_at = self._due[0][0]
            if due_at <= self._loop.time():
                return heappop(self._due)[1]
            self._changed.clear()
            try:
                async with asyncio.timeout_at(due_at):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _poll(self, job_id: str) -> None:
        """Asks for one job, and sees to it that it is asked for again unless it has ended."""
        token = await self._auth.token()
        request = status_request(
            self._endpoint, base_url=self._base_url, job_id=JobId(job_id), token=token, accept=self._accept
        )
        evidence = await exchange(
            request, gate=self._gate, transport=self._transport, request_log=self._ledger
        )
        if evidence.status == _UNAUTHORIZED:
            await self._auth.refresh(token, "HTTP 401 when asked for a job")
        elif evidence.status is not None:
            self._auth.worked(token)
        job = self._jobs[job_id]
        if evidence.status == _NOT_FOUND:
            job.missing += 1
        else:
            job.missing = 0
        status = _read(evidence, job_id, gone=job.missing >= _GONE_AFTER)
        if isinstance(status, JobStatus):
            self._take(job, status)
        if job_id in self._jobs:
            delay_s = self._delay_s(job_id)
            if isinstance(status, str):
                self._emit(PollFailed(job_id=job_id, reason=status, wait_s=delay_s))
            self._schedule(job_id, delay_s)

    def _take(self, job: _Tracked, status: JobStatus) -> None:
        if (status.state, status.word) != (job.state, job.word):
            job.state, job.word = status.state, status.word
            self._ledger.job_seen(status)
            self._emit(JobChanged(job_id=status.job_id, state=status.state, word=status.word))
        if status.state.terminal or status.word == _GONE:
            del self._jobs[status.job_id]
            self._gate.job_closed(status.job_id)

    def _delay_s(self, job_id: str) -> float:
        age_s = self._clock.utc() - self._jobs[job_id].accepted_utc
        return poll_delay_s(age_s, len(self._jobs), self._gate.rate, floor_s=self._poll_s)

    def _schedule(self, job_id: str, delay_s: float) -> None:
        heappush(self._due, (self._loop.time() + delay_s, job_id))
        self._changed.set()


class _Tracked:
    """Is what is known of one open job."""

    __slots__ = ("accepted_utc", "missing", "state", "word")

    def __init__(self, accepted_utc: float, state: JobState) -> None:
        self.accepted_utc = accepted_utc
        self.state = state
        self.word = state.value
        self.missing = 0
        """Answers in a row that there is no such job."""


def _read(evidence: Evidence, job_id: str, *, gone: bool) -> JobStatus | str:
    """Gives what an answer says of a job, or why it says nothing."""
    if gone:
        return JobStatus(job_id=JobId(job_id), state=JobState.UNKNOWN, word=_GONE, job_type="")
    if evidence.status is None:
        return evidence.error or "there was no answer"
    if evidence.status != _OK:
        return f"HTTP {evidence.status}"
    try:
        status = parse_status(evidence.body)
    except MalformedAnswer as error:
        return str(error)
    if isinstance(status, ErrorAnswer):
        return status.message or "the answer was an error"
    if status.job_id != job_id:
        return f"the answer was about job {status.job_id}"
    return status
