"""The life of a job after its acceptance: asked for until its end is seen, which frees its slot.

When which job is asked for is planned in `polling`; here the questions are sent and the answers read. A slot is
freed by seeing a terminal state and by nothing else. A request that fails says nothing about the job, and neither
does a page of the job list that does not show it: it is asked for again later, and the job keeps its slot. Only an
answer that the server does not know the job, given twice in a row, ends the asking: whatever it was, it runs no more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from bulkjobs.account.auth import Authenticator
from bulkjobs.account.exchange import exchange
from bulkjobs.account.gate import Gate, GateStopped
from bulkjobs.endpoints import Endpoint
from bulkjobs.errors import AuthError, ConfigError
from bulkjobs.events import Event, JobChanged, PollFailed
from bulkjobs.exits import Exit
from bulkjobs.halt import Halt
from bulkjobs.ledger import Ledger, OpenJob
from bulkjobs.model import Evidence, JobId, JobState, JobStatus, Phase, Request
from bulkjobs.polling import PollPlan, Question
from bulkjobs.ports import Clock, Transport
from bulkjobs.wire.answer import ErrorAnswer, ListedJob, MalformedAnswer, parse_job_list, parse_status
from bulkjobs.wire.request import AnswerFormat, list_request, status_request
from bulkjobs.wire.times import day_text

__all__ = ["Tracker"]

_OK: Final = 200
_UNAUTHORIZED: Final = 401
_NOT_FOUND: Final = 404
_GONE_AFTER: Final = 2
_GONE: Final = "not found"
"""Our own word. It frees the slot for this session and is no end: the next one asks again."""
_MOST_UNDER_WAY: Final = 32
"""Questions without an answer. Each takes a connection."""
_SEEN_LATE: Final = 0.05
"""Of an earlier session is only known when the end of a job was seen. It came within this share before."""


class Tracker:
    """Asks for the open jobs of an account as `PollPlan` says."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        base_url: str,
        accept: AnswerFormat,
        poll_s: float | None,
        gate: Gate,
        auth: Authenticator,
        transport: Transport,
        ledger: Ledger,
        clock: Clock,
        halt: Halt,
        emit: Callable[[Event], None],
    ) -> None:
        """Makes a tracker; `poll_s` is the least time between two requests for one job, in seconds; None for any."""
        self._endpoint = endpoint
        self._base_url = base_url
        self._accept = accept
        self._gate = gate
        self._auth = auth
        self._transport = transport
        self._ledger = ledger
        self._clock = clock
        self._halt = halt
        self._emit = emit
        self._loop = asyncio.get_running_loop()
        self._plan = PollPlan(least_s=poll_s)
        self._jobs: dict[str, _Tracked] = {}
        self._changed = asyncio.Event()
        self._under_way = 0
        self._ended = False

    def resume(self, jobs: Iterable[OpenJob], durations_s: Iterable[float] = ()) -> None:
        """Takes up the jobs that earlier sessions left open, to be asked for at once, and how long others took."""
        self._plan.recall(((1 - _SEEN_LATE) * seconds, seconds) for seconds in durations_s)
        now, now_utc = self._loop.time(), self._clock.utc()
        for job in jobs:
            self._jobs[job.job_id] = _Tracked(job.accepted_utc, job.state)
            # From here on ages are told by the loop's clock, which nobody sets.
            accepted_at = now - max(0.0, now_utc - job.accepted_utc)
            self._plan.opened(job.job_id, accepted_at, now, at_once=True)
        self._changed.set()

    def add(self, job_id: str) -> None:
        """Takes up a job that was just accepted."""
        now = self._loop.time()
        self._jobs[job_id] = _Tracked(self._clock.utc(), JobState.ACCEPTED)
        self._plan.opened(job_id, now, now)
        self._changed.set()

    async def run(self) -> None:
        """Asks until it is cancelled or the gate is closed."""
        self._ended = False
        async with asyncio.TaskGroup() as group:
            while not self._ended:
                question = await self._next_question()
                if question is not None:
                    self._under_way += 1
                    left = asyncio.Event()
                    group.create_task(self._ask(question, left))
                    # One question at a time waits for its turn: what is asked for next depends on when that comes.
                    await left.wait()

    async def _next_question(self) -> Question | None:
        """Waits for the next question; gives None when the asking has ended, or something changed."""
        now = self._loop.time()
        self._plan.watch_others(self._gate.slots_held_by_others_since)
        at = self._plan.next_at(now, self._gate.rate)
        if self._under_way < _MOST_UNDER_WAY and at <= now:
            return self._plan.choose(now, self._gate.rate)
        self._changed.clear()
        try:
            async with asyncio.timeout_at(at if self._under_way < _MOST_UNDER_WAY else None):
                await self._changed.wait()
        except TimeoutError:
            pass
        return None

    async def _ask(self, question: Question, left: asyncio.Event) -> None:
        """Asks one question and takes what the answer tells; sets `left` when it leaves, or will not."""
        sent_at: float | None = None

        def on_turn() -> None:
            nonlocal sent_at
            if sent_at is None:
                self._plan.sent(question, self._loop.time())
            sent_at = self._loop.time()
            left.set()

        told = _Told()
        try:
            told = await self._answer(question, on_turn)
        finally:
            self._under_way -= 1
            if sent_at is not None:
                self._plan.answered(question, sent_at, self._loop.time(), told.ended, rows=told.rows)
            left.set()
            self._changed.set()
        if told.failure is not None:
            wait_s = max(0.0, self._plan.due_at(question.jobs[0]) - self._loop.time())
            self._emit(PollFailed(job_id=question.jobs[0], reason=told.failure, wait_s=wait_s))
        for job_id, has_ended in told.ended.items():
            if has_ended:
                self._close(job_id)
        if told.rows is not None:
            self._gate.jobs_listed(told.open_jobs)

    async def _answer(self, question: Question, on_turn: Callable[[], None]) -> _Told:
        try:
            evidence = await self._exchange(question, on_turn)
        except GateStopped:
            self._ended = True
        except AuthError as error:
            self._end(Exit.STOPPED, error)
        except ConfigError as error:  # the file of the token cannot be read (any more)
            self._end(Exit.USAGE, error)
        else:
            return (
                self._page(evidence) if question.page is not None else self._one(question.jobs[0], evidence)
            )
        return _Told()

    def _end(self, code: Exit, error: Exception) -> None:
        self._ended = True
        self._halt.pull(code, str(error))

    async def _exchange(self, question: Question, on_turn: Callable[[], None]) -> Evidence:
        token = await self._auth.token()
        evidence = await exchange(
            self._request(question, token),
            gate=self._gate,
            transport=self._transport,
            request_log=self._ledger,
            on_turn=on_turn,
        )
        if evidence.status == _UNAUTHORIZED:
            await self._auth.refresh(token, "HTTP 401 when asked for a job")
        elif evidence.status is not None:
            self._auth.worked(token)
        return evidence

    def _request(self, question: Question, token: str) -> Request:
        if question.page is None:
            return status_request(
                self._endpoint,
                base_url=self._base_url,
                job_id=JobId(question.jobs[0]),
                token=token,
                accept=self._accept,
            )
        now_utc = self._clock.utc()
        # Another answer may have told of the end of one since the question was chosen.
        asked = [self._jobs[job_id] for job_id in question.jobs if job_id in self._jobs]
        oldest_utc = min([now_utc, *(job.accepted_utc for job in asked)])
        return list_request(
            base_url=self._base_url,
            # A day more on both sides holds whatever zone the server takes.
            first_day=day_text(oldest_utc, -1),
            last_day=day_text(now_utc, +1),
            page=question.page,
            token=token,
            accept=self._accept,
        )

    def _one(self, job_id: str, evidence: Evidence) -> _Told:
        """Takes what the answer about a job says."""
        job = self._jobs.get(job_id)
        if job is None:  # another answer was faster
            return _Told()
        job.missing = job.missing + 1 if evidence.status == _NOT_FOUND else 0
        if job.missing >= _GONE_AFTER:
            self._take(job, JobStatus(job_id=JobId(job_id), state=JobState.UNKNOWN, word=_GONE, job_type=""))
            self._close(job_id)
            return _Told()
        status = _read(evidence, job_id)
        if isinstance(status, str):
            return _Told(failure=status)
        self._take(job, status)
        return _Told(ended={job_id: status.state.terminal})

    def _page(self, evidence: Evidence) -> _Told:
        """Takes what a page of the list says of our open jobs. What it does not show proves nothing.

        Jobs of others on it tell whether a slot may have fallen free.
        """
        listed = _read_page(evidence)
        if listed is None:
            return _Told()
        ended: dict[str, bool] = {}
        open_jobs = len(self._jobs)
        for row in listed:
            job = self._jobs.get(row.job_id)
            if job is None:
                open_jobs += not row.state.terminal
                continue
            ended[row.job_id] = row.state.terminal
            open_jobs -= row.state.terminal
            if row.state is not job.state:  # the word may differ between the list and the job's own answer
                self._take(
                    job,
                    JobStatus(job_id=row.job_id, state=row.state, word=row.word, job_type=row.job_type),
                )
        return _Told(ended=ended, rows=len(listed), open_jobs=open_jobs)

    def _take(self, job: _Tracked, status: JobStatus) -> None:
        if (status.state, status.word) != (job.state, job.word):
            job.state, job.word = status.state, status.word
            self._ledger.job_seen(status)
            self._emit(JobChanged(job_id=status.job_id, state=status.state, word=status.word))

    def _close(self, job_id: str) -> None:
        """Lets go of a job that runs no more."""
        del self._jobs[job_id]
        self._plan.forget(job_id)
        self._gate.job_closed(job_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """Is what an answer told."""

    ended: dict[str, bool] = field(default_factory=dict)
    """The open jobs that it told of, and whether they have ended."""
    failure: str | None = None
    """Why it said nothing of the job that was asked for."""
    rows: int | None = None
    """How many jobs stand on the page; None if it was no page."""
    open_jobs: int = 0
    """How many jobs of the account are open as far as the page shows."""


class _Tracked:
    """Is what is known of one open job."""

    __slots__ = ("accepted_utc", "missing", "state", "word")

    def __init__(self, accepted_utc: float, state: JobState) -> None:
        self.accepted_utc = accepted_utc
        self.state = state
        self.word = state.value
        self.missing = 0
        """Answers in a row that there is no such job."""


def _read(evidence: Evidence, job_id: str) -> JobStatus | str:
    """Gives what an answer says of a job, or why it says nothing."""
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


def _read_page(evidence: Evidence) -> list[ListedJob] | None:
    """Gives the jobs on a page of the list; None if the answer is none, or was cut short."""
    if evidence.status != _OK or evidence.phase < Phase.COMPLETE or evidence.body_cut:
        return None
    try:
        jobs = parse_job_list(evidence.body)
    except MalformedAnswer:
        return None
    return None if isinstance(jobs, ErrorAnswer) else jobs
