"""The plan of questions: which job is due when, which go together, and what an answer changes.

A caller keeps to this order: `choose` when `next_at` has come; `sent` when the question leaves; `answered` when it
has ended. A question that is chosen and not yet sent must be the only one. Several may be under way, also after one
job: where jobs are as short as the answers take, waiting for each answer would see their end late.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Final

from bulkjobs.polling.budget import PollBudget, Terms, best_terms
from bulkjobs.polling.durations import Durations
from bulkjobs.polling.pages import PAGE_JOBS, Pages

if TYPE_CHECKING:
    from bulkjobs.settings import Rate

__all__ = ["PollPlan", "Question"]

_LEAST_S: Final = 0.05
"""Between two questions after one job, unless it is given."""
_LONGEST_S: Final = 600.0
"""A question each ten minutes costs nothing, and durations may change."""
_MOST_UNDER_WAY: Final = 4
"""Questions after one job without an answer."""
_OVERDUE: Final = 10.0
_OVERDUE_S: Final = 10.0
"""An answer that takes so many times as long as others, and at least this long, is not waited for."""
_FIRST_RETRY_S: Final = 1.0
_LONGEST_RETRY_S: Final = 60.0
"""A question that failed is asked again after a wait that doubles from the one to the other."""
_SCOUT_EVERY: Final = 64
_SCOUT_SHARE: Final = 0.3
"""Where questions are dear a job is asked for when it has surely ended, which teaches nothing. One in so many is
asked for as if a question cost only this share, and durations are learned from these alone."""
_TOGETHER_S: Final = 0.05
"""Jobs that come due within this time, or within what a question costs, are due together."""
_STEPS: Final = 8
_NEARLY: Final = 0.02
"""How often, and how closely, the time is worked out at which a page is worth its price."""
_LEAST_LOOK_S: Final = 2.0
_LOOK_SHARE: Final = 0.1
"""While others hold slots the list is looked at after this share of the time that was waited for them."""
_ENOUGH: Final = 16
"""Durations to learn from every job at first."""
_OPEN_FADING: Final = 0.99
_NO_CHANCE: Final = 0.1
"""A job that ends just after a page showed it as open contradicts the page, unless that was as likely as this."""
_REMEMBERED: Final = 16
"""Answers that a mean is taken over."""
_HIDDEN_SHARE: Final = 1.0
_HIDDEN_LEAST_S: Final = 30.0
"""A job that a page should show and does not is asked for alone until its age has grown by this share, or time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Is one request: for a job, or for a page of the list because of several."""

    jobs: tuple[str, ...]
    """The jobs that are due."""
    page: int | None = None
    """The page of the list, from 1; None to ask for the one job itself."""


class _Job:
    """Is what the plan knows of one open job. Ages are in seconds since its acceptance."""

    __slots__ = (
        "accepted_at",
        "alone_until",
        "asked_s",
        "checks_page",
        "due_at",
        "failures",
        "not_before",
        "scout",
        "under_way",
        "unfinished_s",
    )

    def __init__(self, accepted_at: float, *, scout: bool) -> None:
        self.accepted_at = accepted_at
        self.unfinished_s = 0.0
        self.asked_s = 0.0
        self.under_way = 0
        self.failures = 0
        self.not_before = -math.inf
        self.due_at = math.inf
        self.alone_until = -math.inf
        self.checks_page = False
        """It is asked for because a page showed it as open."""
        self.scout = scout
        """The durations are learned from it."""


class PollPlan:
    """Plans the questions after the open jobs of an account."""

    def __init__(self, *, least_s: float | None = None) -> None:
        """Begins without jobs; `least_s` is the least time between two questions after one job, None for the own."""
        self._least_s = _LEAST_S if least_s is None else least_s
        self._durations = Durations()
        self._budget = PollBudget()
        self._pages = Pages()
        self._jobs: dict[str, _Job] = {}
        self._heap: list[tuple[float, int, str]] = []
        """By due time; an entry that is not what its job says is out of date."""
        self._order = count()
        self._rate: Rate | None = None
        self._terms = Terms()
        self._upcoming: tuple[Question | None, float] | None = None
        """What is asked next, until something changes."""
        self._opened = 0
        self._at = 0.0
        self._others_since: float | None = None
        self._looked_at = -math.inf
        self._open = 1.0
        """The most jobs that were open together lately: a slot that waits for its next submit is one in use."""
        self._answer_s = 0.0
        self._told = 1.0
        """Ends that a question told of, on average over the last ones that told of any."""

    def __len__(self) -> int:
        """Counts the open jobs."""
        return len(self._jobs)

    def __contains__(self, job_id: object) -> bool:
        """Tells whether a job is open."""
        return job_id in self._jobs

    def recall(self, durations: Iterable[tuple[float, float]]) -> None:
        """Takes up durations seen earlier, the oldest first: ages at which jobs were unfinished, and finished."""
        for unfinished_s, finished_s in durations:
            self._durations.learn(unfinished_s, finished_s)

    def opened(self, job_id: str, accepted_at: float, now: float, *, at_once: bool = False) -> None:
        """Takes up an open job; `at_once` if nobody has asked for it for long."""
        self._opened += 1
        scout = self._terms.cheap or len(self._durations) < _ENOUGH or self._opened % _SCOUT_EVERY == 0
        job = self._jobs[job_id] = _Job(accepted_at, scout=scout)
        if at_once:
            self._due(job_id, job, now)
        else:
            self._budget.submitted()
            job.not_before = now + self._least_s
            self._plan(job_id, job, now)

    def forget(self, job_id: str) -> None:
        """Drops a job of which no end was seen."""
        self._upcoming = None
        self._jobs.pop(job_id, None)

    def due_at(self, job_id: str) -> float:
        """Gives when a job is due; infinite while answers about it must come first."""
        return self._jobs[job_id].due_at

    def next_at(self, now: float, rate: Rate | None) -> float:
        """Gives when the next question should be chosen, as far as is known now.

        Args:
            now: the present.
            rate: the account's limit in force; None for none.
        """
        if rate != self._rate:
            self._rate = rate
            self._set_terms()
        self._at = now
        at = min(self._next(now)[1], self._look_at(now))
        if at == math.inf:
            return math.inf
        opens_at = self._budget.opens_at(
            now, rate, reach=self._reach(now, len(self._jobs)), taught=len(self._durations) > 0
        )
        return max(at, opens_at)

    def watch_others(self, since: float | None) -> None:
        """Takes since when jobs of others hold slots of the account: the list shows their end, so it is looked at."""
        self._others_since = since

    def choose(self, now: float, rate: Rate | None) -> Question | None:
        """Gives the question to be asked now; None if there is none yet."""
        if self.next_at(now, rate) > now:
            return None
        question, at = self._next(now)
        if question is None or at > now:  # only the list is
            return Question(jobs=(), page=self._pages.page)
        return question

    def sent(self, question: Question, now: float) -> None:
        """Takes that a question leaves now."""
        self._budget.spent()
        if question.page is not None:
            self._looked_at = now
        self._open = max(len(self._jobs), _OPEN_FADING * self._open)
        for job_id in question.jobs:
            if job := self._jobs.get(job_id):
                job.asked_s = max(job.asked_s, now - job.accepted_at)
                job.under_way += 1
                job.not_before = now + self._least_s
                self._plan(job_id, job, now)

    def answered(
        self,
        question: Question,
        sent_at: float,
        now: float,
        ended: Mapping[str, bool],
        *,
        rows: int | None = None,
    ) -> None:
        """Takes the end of a question.

        Args:
            question: from `choose`.
            sent_at: when it left.
            now: when it ended.
            ended: the open jobs that the answer told of, and whether they have ended; those that have are dropped.
            rows: how many jobs stand on the page; None if there was no page, whatever was asked for.
        """
        self._upcoming = None
        asked = [job_id for job_id in question.jobs if job_id in self._jobs]
        shown = sum(job_id in ended for job_id in asked)
        for job_id in asked:
            self._jobs[job_id].under_way -= 1
        self._answer_s += (now - sent_at - self._answer_s) / (_REMEMBERED if self._answer_s else 1)
        if told := sum(is_over and job_id in self._jobs for job_id, is_over in ended.items()):
            self._told += (told - self._told) / _REMEMBERED
        learned = [
            self._finished(job_id, sent_at, now, question)
            if is_over
            else self._unfinished(job_id, sent_at, question)
            for job_id, is_over in ended.items()
        ]
        if any(learned):
            self._set_terms()
        if question.page is not None:
            self._take_page(now, wanted=len(asked), shown=shown, rows=rows)
            self._check_page([job_id for job_id in asked if not ended.get(job_id, True)])
        for job_id in asked:
            self._replan(job_id, now, told=job_id in ended, listed=question.page is not None)
        others = self._jobs if any(learned) and len(self._jobs) <= PAGE_JOBS else ended
        for job_id in others:
            if (job := self._jobs.get(job_id)) and job_id not in asked:
                self._plan(job_id, job, now)

    def _finished(self, job_id: str, sent_at: float, now: float, question: Question) -> bool:
        """Drops a job that has ended; tells whether what is known of durations has changed."""
        job = self._jobs.pop(job_id, None)
        if job is None:
            return False
        age_s = sent_at - job.accepted_at
        # Another page that shows its end contradicts nothing.
        checked = question.page is None and job.checks_page
        if checked and self._durations.chance(job.unfinished_s, age_s) < _NO_CHANCE:
            self._pages.contradicted(now)
        return job.scout and self._durations.learn(job.unfinished_s, age_s)

    def _unfinished(self, job_id: str, sent_at: float, question: Question) -> bool:
        """Takes it that a job was open; that alone changes nothing that is known of durations."""
        if job := self._jobs.get(job_id):
            job.unfinished_s = max(job.unfinished_s, sent_at - job.accepted_at)
            job.failures = 0
            if question.page is None and job.checks_page:
                job.checks_page, job.alone_until = False, -math.inf
                self._pages.confirmed()
        return False

    def _set_terms(self) -> None:
        self._upcoming = None
        if len(self._durations):
            self._terms = best_terms(
                self._durations,
                rate=self._rate,
                open_jobs=self._open,
                answer_s=self._answer_s,
                told=self._told,
                reach=self._reach(self._at, self._open),
            )

    def _take_page(self, now: float, *, wanted: int, shown: int, rows: int | None) -> None:
        if rows is None:
            self._pages.distrust(now)
        elif wanted:
            self._pages.read(now, rows=rows, wanted=wanted, shown=shown)

    def _check_page(self, shown_open: Sequence[str]) -> None:
        """Has one of the jobs that a page showed as open asked for itself, now and then."""
        if shown_open and self._pages.doubted():
            job = self._jobs[shown_open[0]]
            job.checks_page, job.alone_until = True, math.inf

    def _replan(self, job_id: str, now: float, *, told: bool, listed: bool) -> None:
        """Plans the next question after a job that was asked for, if it is open still."""
        job = self._jobs.get(job_id)
        if job is None:
            return
        if told:
            if job.checks_page:
                self._due(job_id, job, max(now, job.not_before))
            else:
                self._plan(job_id, job, now)
            return
        # Nothing was learned of it: as if it had not been asked for.
        job.asked_s = job.unfinished_s
        if listed:
            job.alone_until = now + max(_HIDDEN_LEAST_S, _HIDDEN_SHARE * (now - job.accepted_at))
            job.not_before = -math.inf
        else:
            wait_s = min(_LONGEST_RETRY_S, math.ldexp(_FIRST_RETRY_S, min(job.failures, 10)))
            job.failures += 1
            job.not_before = now + max(self._least_s, wait_s)
        self._plan(job_id, job, now)

    def _plan(self, job_id: str, job: _Job, now: float) -> None:
        if job.under_way >= _MOST_UNDER_WAY:
            self._due(job_id, job, math.inf)
            return
        price_s = self._terms.price_s * (_SCOUT_SHARE if job.scout else 1.0)
        at_age_s = self._durations.next_question(
            job.unfinished_s, max(job.asked_s, job.unfinished_s), price_s
        )
        longest_s = max(_OVERDUE_S, _OVERDUE * self._answer_s) if job.under_way else _LONGEST_S
        due_at = min(job.accepted_at + at_age_s, now + longest_s)
        self._due(job_id, job, max(due_at, job.not_before))

    def _due(self, job_id: str, job: _Job, due_at: float) -> None:
        self._upcoming = None
        if due_at != job.due_at:
            job.due_at = due_at
            if due_at < math.inf:
                heappush(self._heap, (due_at, next(self._order), job_id))

    def _drop_outdated(self) -> None:
        heap = self._heap
        while heap and ((job := self._jobs.get(heap[0][2])) is None or job.due_at != heap[0][0]):
            heappop(heap)

    def _look_at(self, now: float) -> float:
        """Gives when the list should be looked at because jobs of others may have ended."""
        if self._others_since is None or not self._pages.usable(now, self._rate):
            return math.inf
        last = max(self._looked_at, self._others_since)
        return last + max(_LEAST_LOOK_S, _LOOK_SHARE * (last - self._others_since))

    def _next(self, now: float) -> tuple[Question | None, float]:
        """Gives what is to be asked next because of open jobs, and when."""
        if self._upcoming is None or self._terms.patience_s:
            self._upcoming = self._upcoming_at(now)
        return self._upcoming

    def _upcoming_at(self, now: float) -> tuple[Question | None, float]:
        due, at = self._due_together(now)
        if not due:
            return None, at
        if self._pages.usable(now, self._rate):
            listed, listed_at = self._listed(due, at, now)
            if len(listed) > 1 and (due[0] in listed or listed_at < at):
                return Question(jobs=tuple(listed), page=self._pages.page), listed_at
        return Question(jobs=tuple(due[:1])), at

    def _listed(self, due: Sequence[str], at: float, now: float) -> tuple[list[str], float]:
        """Gives the jobs that the next page is to tell of, and when it is to be asked; at the latest when one is due.

        Unless jobs wait for each other that is when the page is worth its price because of all of them together.
        """
        if self._terms.patience_s:
            return [job_id for job_id in due if self._jobs[job_id].alone_until <= now], at
        at = max(at, now)
        listed = [
            job_id
            for job_id, job in self._jobs.items()
            if job.alone_until <= now
            and job.not_before <= at + _TOGETHER_S
            and job.under_way < _MOST_UNDER_WAY
        ][:PAGE_JOBS]
        for _ in range(_STEPS):
            worths = [self._worth(self._jobs[job_id], at) for job_id in listed]
            more = sum(worth for worth, _ in worths) - 1
            if more <= _NEARLY or at <= now:
                break
            # What a page is worth grows faster and faster, so this comes down to its price from above.
            at -= more / sum(growth for _, growth in worths)
        return listed, max([at, *(self._jobs[job_id].not_before for job_id in listed)])

    def _worth(self, job: _Job, at: float) -> tuple[float, float]:
        """Gives what part of its price a question after a job is worth at a time, and how fast that grows."""
        asked_s = max(job.asked_s, job.unfinished_s)
        age_s = max(asked_s, at - job.accepted_at)
        return self._durations.worth(job.unfinished_s, asked_s, age_s, self._terms.price_s)

    def _due_together(self, now: float) -> tuple[list[str], float]:
        """Gives the jobs that one question is to tell of, the first due first, and when it is to be asked."""
        taken: list[tuple[float, int, str]] = []
        due: list[str] = []
        until = math.inf
        patience_s = self._terms.patience_s if self._reach(now, len(self._jobs)) > 1 else 0.0
        while len(due) < PAGE_JOBS:
            self._drop_outdated()
            if not self._heap or self._heap[0][0] > until:
                break
            entry = heappop(self._heap)
            if entry[2] in due:  # an entry may have been made twice
                continue
            taken.append(entry)
            due.append(entry[2])
            until = min(until, max(now + max(self._terms.price_s, _TOGETHER_S), entry[0] + patience_s))
        for entry in taken:
            heappush(self._heap, entry)
        if not taken:
            return due, math.inf
        return due, taken[-1 if patience_s else 0][0]

    def _reach(self, now: float, open_jobs: float) -> int:
        """Gives how many jobs one question can tell of."""
        if not self._pages.usable(now, self._rate):
            return 1
        return max(1, min(math.ceil(open_jobs), PAGE_JOBS))
