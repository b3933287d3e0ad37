"""The account as the server keeps it: the simulator's own throttle and jobs, and others who use them too.

Nothing here is shared with the client. What the fullest window held is counted by the simulator's sliding meter,
also where the limit itself is counted in fixed windows.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from bulkjobs.simulator.account import Throttle
from bulkjobs.simulator.config import Limit
from bulkjobs.simulator.jobs import JobTable, State
from bulkjobs.simulator.messages import Kind, Refusal
from support.scenarios.scenario import Scenario

__all__ = ["Answer", "Said", "Server"]

_DAY_S: Final = 86_400.0
_PAGE_JOBS: Final = 50
_ENDED = (State.FINISHED, State.FAILED, State.ABORTED)


class Said(Enum):
    """Is what an answer says."""

    OK = auto()
    THROTTLED = auto()
    SLOTS_FULL = auto()
    NO_QUOTA = auto()


@dataclass(slots=True)
class Answer:
    """Is what the server makes of a request, at the moment at which it counts it."""

    said: Said
    job_id: str = ""
    """Of the job that a submission made."""
    told: Mapping[str, bool] = field(default_factory=dict)
    """The jobs it tells of, and whether they have ended."""
    rows: int | None = None
    """How many jobs stand on a page of the list."""
    lockout: int = -1
    """The lock-out that refused it."""


_PASSED: Final = Answer(Said.OK)


@dataclass(slots=True)
class _Lockout:
    told_at: float = math.inf
    """When the client was first told of it."""
    sent_into: int = 0


@dataclass(slots=True)
class Counts:
    """Is what the server has counted, beside what its throttle counts itself."""

    ours: int = 0
    """Requests of the client that were let through."""
    submits: int = 0
    """Submissions that made a job."""
    slots_full: int = 0
    busy_s: float = 0.0
    """Of all jobs together, from acceptance to end."""
    foreign: int = 0
    """Requests of others that were let through."""
    lockouts: list[_Lockout] = field(default_factory=list)


class Server:
    """Takes requests at the moments at which they count, which never go back."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self.throttle = Throttle(scenario.config)
        self.counts = Counts()
        config = scenario.config
        limited = config.max_active_jobs is not None or config.quota_ids is not None
        self._jobs = JobTable(config) if limited else None
        """None where nobody asks for jobs, and they limit nothing."""
        self._draw = random.Random(f"job times/{scenario.seed}")

    @property
    def lockout_s(self) -> float:
        """Is how long the account was locked in all, were it looked at after the last lock-out."""
        return sum(each.until - each.began_at for each in self.throttle.lockouts)

    @property
    def sent_into_lockouts(self) -> int:
        """Is how many requests the client began although it had been told of the lock-out that met them."""
        return sum(each.sent_into for each in self.counts.lockouts)

    def submit(self, now: float, begun_at: float) -> Answer:
        """Takes a submission of one id."""
        if (refused := self._let_in(Kind.SUBMIT, now, begun_at)) is not None:
            return refused
        jobs = self._jobs
        if jobs is None:
            self.counts.submits += 1
            return _PASSED
        jobs.advance(now)
        try:
            jobs.check_room(1)
        except Refusal as refusal:
            if refusal.number == "400-153":
                return Answer(Said.NO_QUOTA)
            self.counts.slots_full += 1
            return Answer(Said.SLOTS_FULL)
        job = jobs.draw(ids=1, sha256=b"", at=now)
        times = self._scenario.job_times
        span = times[0] if len(times) == 1 else self._draw.choice(times)
        job.ends_at = now + self._draw.uniform(span.min_s, span.max_s)
        jobs.enter(job, now)
        self.counts.submits += 1
        self.counts.busy_s += job.ends_at - now
        return Answer(Said.OK, job_id=job.job_id)

    def ask(self, job_id: str, now: float, begun_at: float) -> Answer:
        """Takes a question for one job."""
        if (refused := self._let_in(Kind.STATUS, now, begun_at)) is not None:
            return refused
        jobs = self._jobs
        assert jobs is not None
        jobs.advance(now)
        return Answer(Said.OK, told={job_id: jobs.find(job_id).state(now) in _ENDED})

    def page(self, number: int, since: float, now: float, begun_at: float) -> Answer:
        """Takes a question for a page of the list of jobs accepted on the day of a time or later, or the day before."""
        if (refused := self._let_in(Kind.LIST, now, begun_at)) is not None:
            return refused
        jobs = self._jobs
        assert jobs is not None
        jobs.advance(now)
        first = (since // _DAY_S - 1) * _DAY_S
        listed = jobs.between(first, math.inf, key=lambda job: job.accepted_at)
        if self._scenario.config.list_newest_first:
            listed = listed[::-1]
        shown = listed[(number - 1) * _PAGE_JOBS : number * _PAGE_JOBS]
        return Answer(Said.OK, told={job.job_id: job.state(now) in _ENDED for job in shown}, rows=len(shown))

    def foreign(self, now: float) -> None:
        """Takes a request of somebody else with the same key, who sends nothing into a lock-out."""
        if now >= self.throttle.locked_until:
            self.counts.foreign += self.throttle.admit(Kind.STATUS, now)

    def strike(self, now: float) -> None:
        """Begins a lock-out that is nobody's fault here."""
        if now >= self.throttle.locked_until:
            self.throttle.lock(now)

    def set_limit(self, count: int) -> None:
        """Changes what the account may send in a window."""
        limit = self.throttle.limit
        assert limit is not None
        self.throttle.limit = Limit(count=count, window_s=limit.window_s)

    def told(self, lockout: int, now: float) -> None:
        """Takes note that the client has read an answer that was refused by a lock-out."""
        met = self._met(lockout)
        met.told_at = min(met.told_at, now)

    def _let_in(self, kind: Kind, now: float, begun_at: float) -> Answer | None:
        throttle = self.throttle
        if throttle.admit(kind, now):
            self.counts.ours += 1
            return None
        lockout = len(throttle.lockouts) - 1
        met = self._met(lockout)
        met.sent_into += begun_at > met.told_at
        return Answer(Said.THROTTLED, lockout=lockout)

    def _met(self, lockout: int) -> _Lockout:
        known = self.counts.lockouts
        while len(known) <= lockout:
            known.append(_Lockout())
        return known[lockout]
