"""Who asks for open jobs, and when: the tracker without its shell, around the plan of questions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final

from bulkjobs.polling import PollPlan, Question
from bulkjobs.settings import Rate

__all__ = ["Polls"]

_MOST_UNDER_WAY: Final = 32
_SEEN_LATE: Final = 0.05


class Polls:
    """Gives one question after the other; the one that was chosen last waits for its turn."""

    def __init__(self, least_s: float | None, durations_s: Iterable[float] = ()) -> None:
        self._plan = PollPlan(least_s=least_s)
        self._plan.recall(((1 - _SEEN_LATE) * seconds, seconds) for seconds in durations_s)
        self._under_way = 0
        self._wake_at: float | None = math.inf
        self.waiting: Question | None = None
        """What is to be asked as soon as the account has a token."""

    def add(self, job_id: str, accepted_at: float, now: float, *, at_once: bool) -> None:
        """Takes up an open job."""
        self._plan.opened(job_id, accepted_at, now, at_once=at_once)
        self._wake_at = None

    def choose(self, now: float, rate: Rate | None, others_since: float | None) -> float:
        """Chooses the next question if it is time for one, and gives when to look again."""
        if self.waiting is not None or self._under_way >= _MOST_UNDER_WAY:
            return math.inf
        if self._wake_at is None or self._wake_at <= now:
            self._plan.watch_others(others_since)
            self.waiting = self._plan.choose(now, rate)
            self._wake_at = None if self.waiting is not None else self._plan.next_at(now, rate)
        return math.inf if self._wake_at is None else self._wake_at

    def sent(self, now: float) -> Question:
        """Takes that the chosen question leaves, and gives it."""
        question, self.waiting = self.waiting, None
        assert question is not None
        self._plan.sent(question, now)
        self._under_way += 1
        self._wake_at = None
        return question

    def answered(
        self, question: Question, sent_at: float, now: float, told: Mapping[str, bool], rows: int | None
    ) -> None:
        """Takes the end of a question: which open jobs it told of, and whether they have ended."""
        self._under_way -= 1
        self._plan.answered(question, sent_at, now, told, rows=rows)
        self._wake_at = None
