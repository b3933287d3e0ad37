"""Who asks for open jobs, and when: the rule of the tracker, without its shell."""

from __future__ import annotations

import math
from collections import deque
from heapq import heappop, heappush
from typing import Final

from bulkjobs.backoff import poll_delay_s
from bulkjobs.settings import Rate

__all__ = ["Polls"]

_POLLERS: Final = 4


class Polls:
    """Gives the jobs to be asked for, the one that is due first."""

    def __init__(self, floor_s: float) -> None:
        self._floor_s = floor_s
        self._accepted: dict[str, float] = {}
        self._due: list[tuple[float, str]] = []
        self._busy = 0
        self.waiting: deque[tuple[str, ...]] = deque()
        """What is to be asked for now, as soon as the account has a token."""

    def add(self, job_id: str, accepted_at: float, now: float, rate: Rate | None, *, at_once: bool) -> None:
        """Takes up an open job."""
        self._accepted[job_id] = accepted_at
        heappush(self._due, (now if at_once else now + self._delay_s(job_id, now, rate), job_id))

    def next_at(self, now: float) -> float:
        """Moves what is due to `waiting`, and gives when to look again."""
        due = self._due
        while due and due[0][0] <= now and self._busy < _POLLERS:
            self._busy += 1
            self.waiting.append((heappop(due)[1],))
        return due[0][0] if due and self._busy < _POLLERS else math.inf

    def answered(
        self, job_ids: tuple[str, ...], ended: tuple[str, ...], now: float, rate: Rate | None
    ) -> None:
        """Takes the answer to a question; without one nothing has ended."""
        self._busy -= 1
        for job_id in job_ids:
            if job_id in ended:
                del self._accepted[job_id]
            else:
                heappush(self._due, (now + self._delay_s(job_id, now, rate), job_id))

    def _delay_s(self, job_id: str, now: float, rate: Rate | None) -> float:
        age_s = now - self._accepted[job_id]
        return poll_delay_s(age_s, len(self._accepted), rate, floor_s=self._floor_s)
