"""The jobs: how they go from accepted to their end, how many run, what they cost.

Nothing happens by itself. A job's start and end are drawn when it is accepted, and its state is worked out
from the time of whoever asks.
Source: vendor article "Using the Bulk APIs".
"""

from __future__ import annotations

import base64
import hashlib
from bisect import bisect_left
from dataclasses import dataclass
from enum import Enum
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import TYPE_CHECKING

from bulkjobs.simulator.messages import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bulkjobs.simulator.config import ServiceConfig, Span

__all__ = ["Job", "JobTable", "State", "opaque_id"]


class State(Enum):
    """Is the state of a job: its word in the answers and its code in the job list's parameters."""

    FAILED = ("failed", 0)
    ACCEPTED = ("accepted", 1)
    PROCESSING = ("processing", 2)
    FINISHED = ("finished", 3)
    ABORTED = ("aborted", 4)

    def __init__(self, word: str, code: int) -> None:
        self.word = word
        self.code = code


def opaque_id(seed: int, purpose: str, number: int) -> str:
    """Gives 20 lower-case letters and digits, the same for the same arguments."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{number}".encode(), digest_size=13).digest()
    return base64.b32hexencode(digest).decode().lower()[:20]


@dataclass(slots=True, kw_only=True)
class Job:
    """Is one job. The body itself is in the books."""

    job_id: str
    number: int
    """Order of acceptance, from 1."""
    ids: int
    sha256: bytes
    webhook: str | None
    accepted_at: float
    starts_at: float
    ends_at: float
    fails: bool
    foreign: bool = False
    """Somebody else made it on the same account."""
    job_type: str | None = None
    """As the job list names it; None for a contact job, which the configuration names."""
    aborted: bool = False
    position: int = 0
    length: int = 0
    """Where its body stands in the books."""

    def state(self, now: float) -> State:
        """Works out the state at a time not before the acceptance."""
        if self.aborted:
            return State.ABORTED
        if now < self.starts_at:
            return State.ACCEPTED
        if now < self.ends_at:
            return State.PROCESSING
        return State.FAILED if self.fails else State.FINISHED

    def processed(self, now: float) -> int:
        """Gives the ids processed so far; a failed job has none to show."""
        match self.state(now):
            case State.FINISHED:
                return self.ids
            case State.PROCESSING:
                return int(self.ids * (now - self.starts_at) / (self.ends_at - self.starts_at))
            case _:
                return 0

    def debited(self, now: float) -> int:
        """Gives the ids charged: all of them once processing has started, and none before."""
        return 0 if self.aborted or now < self.starts_at else self.ids


class JobTable:
    """Holds the jobs of the account."""

    def __init__(self, config: ServiceConfig) -> None:
        self._config = config
        self._draw = Random(f"{config.seed}/jobs")  # noqa: S311 - repeatable on purpose
        self._numbers = count(1)
        self._visible: list[Job] = []  # in order of acceptance
        self._by_id: dict[str, Job] = {}
        self._late: list[tuple[float, int, Job]] = []  # heap of jobs that appear later
        self._running: list[tuple[float, int, Job]] = []  # heap by end; aborted ones leave when they surface
        self._active = 0
        self._spoken_for_ids = 0

    def advance(self, now: float) -> None:
        """Lets late jobs appear and finished ones leave their slots. Comes before every other call."""
        while self._late and self._late[0][0] <= now:
            job = heappop(self._late)[2]
            self._visible.append(job)
            self._by_id[job.job_id] = job
        while self._running and self._running[0][0] <= now:
            if not heappop(self._running)[2].aborted:
                self._active -= 1

    def check_room(self, ids: int) -> None:
        """Passes when there is a slot and the quota for another job.

        Raises:
            Refusal: there is not. Source of the texts: the vendor's token page; "Rate Limits (B2B)" for 429.
        """
        slots, quota = self._config.max_active_jobs, self._config.quota_ids
        if slots is not None and self._active >= slots:
            if self._config.slots_refusal == 429:  # noqa: PLR2004 - an HTTP status
                raise Refusal(429, "429-152", f"Max {slots} jobs are allowed at a time")
            raise Refusal(
                400,
                "400-152",
                f"{slots} jobs are already running. Please try again once the previous jobs are finished.",
            )
        if quota is not None and self._spoken_for_ids + ids > quota:
            raise Refusal(
                400,
                "400-153",
                f"Insufficient transaction quota. The job needs {ids}, {quota - self._spoken_for_ids} remain.",
            )

    def draw(
        self,
        *,
        ids: int,
        sha256: bytes,
        at: float,
        webhook: str | None = None,
        foreign: bool = False,
        job_type: str | None = None,
    ) -> Job:
        """Draws a job that appears at `at`, now or later. It is none until it is entered."""
        config, number = self._config, next(self._numbers)
        starts_at = at + self._seconds(config.queue_time)
        return Job(
            job_id=opaque_id(config.seed, "job", number),
            number=number,
            ids=ids,
            sha256=sha256,
            webhook=webhook,
            accepted_at=at,
            starts_at=starts_at,
            ends_at=starts_at + self._seconds(config.job_time),
            fails=self._draw.random() < config.job_failure_rate,
            foreign=foreign,
            job_type=job_type,
        )

    def enter(self, job: Job, now: float) -> None:
        """Makes a job; it takes its slot and its quota at once, also when it appears later."""
        self._active += 1
        self._spoken_for_ids += job.ids
        heappush(self._running, (job.ends_at, job.number, job))
        heappush(self._late, (job.accepted_at, job.number, job))
        self.advance(now)

    def named(self, job_id: str) -> Job:
        """Finds a job of whatever kind.

        Raises:
            Refusal: 404, there is none of that id, or not yet.
        """
        if (job := self._by_id.get(job_id)) is None:
            raise Refusal(404, "404-151", "Job not found.")
        return job

    def find(self, job_id: str, job_type: str | None = None) -> Job:
        """Finds a job of one kind: a contact job unless another type is given.

        Raises:
            Refusal: 404, there is none of that id and kind, or not yet.
        """
        job = self.named(job_id)
        if job.job_type != job_type:
            raise Refusal(404, "404-151", "Job not found.")
        return job

    def cancel(self, job: Job, now: float) -> None:
        """Aborts a job whose processing has not begun; its slot and its quota are free again.

        Raises:
            Refusal: 400, it has begun or is over. What the vendor answers then is not known.
        """
        state = job.state(now)
        if state is not State.ACCEPTED:
            raise Refusal(400, "400-154", f"The job cannot be cancelled: its status is {state.word}.")
        job.aborted = True
        self._active -= 1
        self._spoken_for_ids -= job.ids

    def between(self, first: float, end: float, *, key: Callable[[Job], float]) -> Sequence[Job]:
        """Gives the jobs with first <= key < end, in order of acceptance; `key` must follow that order."""
        jobs = self._visible
        return jobs[bisect_left(jobs, first, key=key) : bisect_left(jobs, end, key=key)]

    def _seconds(self, span: Span) -> float:
        return self._draw.uniform(span.min_s, span.max_s)
