"""Slots without a loop: the plan of questions and the throttle against a small server, event by event.

A run of days passes in a second, because nothing but the decisions is real. What comes out is compared with the
jobs that the best possible client would have finished on the same server, which knows the end of each job beforehand.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from itertools import count, islice
from typing import Final, Literal

from bulkjobs.model import RequestKind
from bulkjobs.polling import PollPlan, Question
from bulkjobs.settings import Rate
from bulkjobs.throttle import Admit, Outcome, Throttle, Ticket
from support.scenarios.reachable import Law, most_jobs

__all__ = ["Draw", "Figures", "SlotServer", "optimum", "play", "reachable"]

Draw = Callable[[random.Random], float]
"""Draws the duration of a job, in seconds."""

_PAGE: Final = 50


@dataclass(slots=True, kw_only=True)
class SlotServer:
    """Runs jobs in slots. It looks at a request half-way through the time that its answer takes."""

    slots: int
    durations: Iterator[float]
    answer_s: float = 0.2
    shows: Literal["newest first", "oldest first", "nothing"] = "newest first"
    others: list[tuple[float, float]] = field(default_factory=list)
    """Beginning and end of jobs of somebody else."""
    ends: list[float] = field(default_factory=list)
    """When each job ended, by its number."""

    def running(self, now: float) -> int:
        """Counts the jobs that run."""
        others = sum(begin <= now < end for begin, end in self.others)
        return others + sum(end > now for end in self.ends[-self.slots * 50 :])

    def submit(self, now: float) -> str | None:
        """Makes a job of a submission; None if the slots are full."""
        if self.running(now) >= self.slots:
            return None
        self.ends.append(now + next(self.durations))
        return str(len(self.ends) - 1)

    def page(self, number: int, now: float) -> dict[str, bool]:
        """Gives the jobs on a page, and whether each has ended."""
        if self.shows == "nothing":
            return {}
        numbers = range(len(self.ends))
        shown = (numbers if self.shows == "oldest first" else numbers[::-1])[
            (number - 1) * _PAGE : number * _PAGE
        ]
        page = {str(one): self.ends[one] <= now for one in shown}
        others = {f"other {one}": end <= now for one, (begin, end) in enumerate(self.others) if begin <= now}
        return (others | page) if number == 1 else page


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Is what came of a run."""

    finished: int
    """Jobs that ended before the time was up."""
    best: int
    """How many it could have been."""
    submits: int
    questions: int
    pages: int
    refused: int
    """Submits that found no slot."""
    fullest: int
    """Requests in the fullest window."""

    @property
    def use(self) -> float:
        """Is the share of the optimum."""
        return self.finished / self.best

    def __str__(self) -> str:
        return (
            f"{self.use:7.2%} of {self.best} jobs, {(self.questions + self.pages) / max(1, self.submits):5.2f} questions"
            f" a job ({self.pages} pages), {self.refused} refused, {self.fullest} in the fullest window"
        )


class _Run:
    def __init__(
        self, server: SlotServer, rate: Rate | None, *, capacity: int, least_s: float | None
    ) -> None:
        self.server = server
        self.rate = rate
        self.throttle = Throttle(rate=rate, lockout_s=300.0, max_active_jobs=capacity)
        self.plan = PollPlan(least_s=least_s)
        self.events: list[tuple[float, int, Callable[[float], None]]] = []
        self.order = count()
        self.asking: Question | None = None
        self.sent_at: list[float] = []
        self.submits = self.questions = self.pages = self.refused = 0

    def at(self, when: float, event: Callable[[float], None]) -> None:
        heappush(self.events, (when, next(self.order), event))

    def until(self, end: float) -> None:
        now = 0.0
        while now < end:
            now = max(now, min(self._step(now), end))
            while self.events and self.events[0][0] <= now:
                when, _, event = heappop(self.events)
                event(when)

    def _step(self, now: float) -> float:
        """Sends what can be sent, and gives when something can happen again."""
        while isinstance(wait := self.throttle.decide(RequestKind.SUBMIT, now), Admit):
            self._submit(now)
        wake_at = wait.at
        self.plan.watch_others(self.throttle.slots_held_by_others_since)
        if self.asking is None:
            self.asking = self.plan.choose(now, self.rate)
        if self.asking is None:
            wake_at = min(wake_at, self.plan.next_at(now, self.rate))
        elif isinstance(wait := self.throttle.decide(RequestKind.STATUS, now), Admit):
            self._ask(now, self.asking)
            self.asking = None
            return now
        else:
            wake_at = min(wake_at, wait.at)
        return min(wake_at, self.events[0][0] if self.events else wake_at)

    def _submit(self, now: float) -> None:
        ticket = self.throttle.started(RequestKind.SUBMIT)
        self.submits += 1
        self.sent_at.append(now)

        def seen(when: float) -> None:
            job = self.server.submit(when)
            self.at(now + self.server.answer_s, lambda when: self._submitted(when, ticket, job))

        self.at(now + self.server.answer_s / 2, seen)

    def _submitted(self, now: float, ticket: Ticket, job: str | None) -> None:
        self.throttle.ended(ticket, now, Outcome.ANSWERED)
        if job is None:
            self.refused += 1
            self.throttle.slots_full(now, "full")
            self.throttle.slot_settled(ticket)
        else:
            self.throttle.job_opened(ticket, job, now)
            self.plan.opened(job, now, now)

    def _ask(self, now: float, question: Question) -> None:
        ticket = self.throttle.started(RequestKind.STATUS)
        self.sent_at.append(now)
        self.plan.sent(question, now)
        if question.page is None:
            self.questions += 1
        else:
            self.pages += 1

        def seen(when: float) -> None:
            if question.page is None:
                page = {job: self.server.ends[int(job)] <= when for job in question.jobs}
            else:
                page = self.server.page(question.page, when)
            self.at(
                now + self.server.answer_s, lambda when: self._answered(when, ticket, question, now, page)
            )

        self.at(now + self.server.answer_s / 2, seen)

    def _answered(
        self, now: float, ticket: Ticket, question: Question, sent_at: float, page: dict[str, bool]
    ) -> None:
        self.throttle.ended(ticket, now, Outcome.ANSWERED)
        ended = {job: over for job, over in page.items() if job in self.plan}
        rows = None if question.page is None else len(page)
        self.plan.answered(question, sent_at, now, ended, rows=rows)
        for job, over in ended.items():
            if over:
                self.throttle.job_closed(job)
        if rows:
            self.throttle.jobs_listed(now, sum(not over for over in page.values()))


def play(
    draw: Draw,
    *,
    slots: int,
    rate: Rate | None,
    seconds: float,
    seed: int = 1,
    answer_s: float = 0.2,
    shows: Literal["newest first", "oldest first", "nothing"] = "newest first",
    least_s: float | None = None,
    others: Sequence[tuple[float, float]] = (),
) -> Figures:
    """Plays a run with more chunks than time; `others` are the beginnings and ends of somebody else's jobs."""
    server = SlotServer(
        slots=slots, durations=_drawn(draw, seed), answer_s=answer_s, shows=shows, others=list(others)
    )
    run = _Run(server, rate, capacity=slots, least_s=least_s)
    run.until(seconds)
    share = 1.0 if shows == "nothing" else 1 / min(slots, _PAGE)
    return Figures(
        finished=sum(end <= seconds for end in server.ends),
        best=optimum(
            _drawn(draw, seed),
            slots=slots,
            rate=rate,
            seconds=seconds,
            answer_s=answer_s,
            share=share,
            others=others,
        ),
        submits=run.submits,
        questions=run.questions,
        pages=run.pages,
        refused=run.refused,
        fullest=0 if rate is None else _fullest(run.sent_at, rate.period_s),
    )


def optimum(
    durations: Iterator[float],
    *,
    slots: int,
    rate: Rate | None,
    seconds: float,
    answer_s: float,
    share: float,
    others: Sequence[tuple[float, float]] = (),
) -> int:
    """Counts the jobs that a client could finish which knows when each will end.

    A slot is taken again an answer's time after its job ended: half of it for the answer that tells, half for the
    submit that follows. Each job costs one request and a share of another.
    """
    free_at = [answer_s / 2] * (slots - len(others)) + [max(end, answer_s / 2) for _, end in others]
    heapify(free_at)
    begun: list[float] = []
    ends: list[float] = []
    # Over several windows, so that a part of a job's requests in one of them is no whole job more.
    windows = (
        ()
        if rate is None
        else tuple((many, math.ceil(many * rate.count / (1 + share))) for many in (1, 2, 4))
    )
    while True:
        begin = heappop(free_at)
        for many, jobs in windows:
            if rate is not None and len(begun) >= jobs:
                begin = max(begin, begun[-jobs] + many * rate.period_s)
        if begin >= seconds:
            return sum(end <= seconds for end in ends)
        begun.append(begin)
        end = begin + next(durations)
        ends.append(end)
        heappush(free_at, end + answer_s)


def reachable(
    draw: Draw,
    *,
    jobs: int,
    slots: int,
    rate: Rate,
    seconds: float,
    seed: int = 1,
    answer_s: float = 0.2,
    shows: Literal["newest first", "oldest first", "nothing"] = "newest first",
) -> float:
    """Gives how many jobs a client could begin at most which knows how long the first `jobs` take, but not which."""
    return most_jobs(
        Law.of_sample(list(islice(_drawn(draw, seed), jobs)), answer_s),
        slots=slots,
        shared=1 if shows == "nothing" else min(slots, _PAGE),
        requests=rate.count * math.ceil(seconds / rate.period_s),
        span_s=seconds,
        idle_s=answer_s,
        answer_s=answer_s,
    )


def _drawn(draw: Draw, seed: int) -> Iterator[float]:
    source = random.Random(f"durations/{seed}")
    while True:
        yield draw(source)


def _fullest(sent_at: list[float], window_s: float) -> int:
    fullest, first = 0, 0
    for last, at in enumerate(sent_at):
        while sent_at[first] <= at - window_s:
            first += 1
        fullest = max(fullest, last - first + 1)
    return fullest
