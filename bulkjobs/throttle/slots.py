"""The slots: how many jobs may be open at a time.

A submit takes one of M slots and keeps it while its job is open. When the server says that its slots are full
although some of ours are free, jobs of others hold the rest: until that changes we use as many as were open then, so
that the end of one of our jobs lets one submit through and not several. For more, one submit at a time tries again,
after waits that grow with the time waited, or at once when the job list shows that fewer jobs are open.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from bulkjobs.throttle.decisions import WaitForSlot

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["MAX_SLOT_RETRY_S", "Slots"]

MAX_SLOT_RETRY_S: Final = 300.0
"""Longest wait between two tries for slots that other people's jobs hold."""

_RETRY_SHARE: Final = 0.25
"""A try comes after a quarter of the time waited so far: a slot that falls free stays empty for an eighth of what it
took, for some 30 refused submits in the first hour."""


class Slots:
    """Counts the open jobs, the submits that may become one, and what the server said about others."""

    __slots__ = (
        "_capacity",
        "_first_retry_s",
        "_full_since",
        "_listed",
        "_open",
        "_reason",
        "_retry_at",
        "_submitting",
        "_usable",
    )

    def __init__(self, capacity: int | None, first_retry_s: float) -> None:
        self._capacity = capacity
        self._first_retry_s = first_retry_s
        self._open: set[str] = set()
        self._submitting = 0
        self._usable: float = math.inf
        """How many jobs of ours the server has room for; infinite while it did not say that it is full."""
        self._full_since = -math.inf
        """When it said so first, with no slot more won since."""
        self._retry_at = math.inf
        self._listed: float = math.inf
        """How many jobs the list showed as open when it was last read since; at first as many as may be."""
        self._reason = ""

    @property
    def held_by_others_since(self) -> float | None:
        """Is since when jobs of others hold slots of the account; None when nothing is known of such jobs."""
        return None if self._usable == math.inf else self._full_since

    def decide(self, now: float) -> WaitForSlot | None:
        """Tells what a submit waits for; None if there is a slot."""
        taken = len(self._open) + self._submitting
        if self._capacity is not None and taken >= self._capacity:
            return WaitForSlot(f"{self._capacity} jobs are open, which is as many as may be")
        if taken < self._usable or (self._retry_at <= now and not self._submitting):
            return None
        return WaitForSlot(self._reason, at=math.inf if self._submitting else self._retry_at)

    def taken(self) -> None:
        """Takes a slot for a submit."""
        self._submitting += 1

    def settled(self) -> None:
        """Takes the slot of a submit back."""
        self._submitting -= 1

    def opened(self, job_id: str, now: float) -> None:
        """Takes up a job that is open."""
        self._open.add(job_id)
        if len(self._open) <= self._usable:
            return
        # A job of a submit sent before the server said so proves nothing more; that of a try made since does, and
        # more than one job of others may have ended: the next try follows at once.
        self._usable = len(self._open)
        won = self._retry_at <= now
        if won:
            self._full_since = self._retry_at = now
        if self._usable >= self._capacity if self._capacity is not None else won:
            self._usable = math.inf

    def closed(self, job_id: str) -> None:
        """Frees the slot of a job that has ended."""
        self._open.discard(job_id)

    def full(self, now: float, reason: str, least_s: float = 0.0) -> None:
        """Takes the server's word that no job more may be open; `least_s` is the least wait before another try."""
        self._reason = reason
        if self._usable == math.inf:
            self._full_since = now
            self._listed = math.inf
            self._retry_at = now
        self._usable = min(self._usable, len(self._open))
        if self._retry_at <= now:  # else it was said by one of several that were in flight together
            waited_s = now - self._full_since
            self._retry_at = now + max(
                self._first_retry_s, least_s, min(MAX_SLOT_RETRY_S, _RETRY_SHARE * waited_s)
            )

    def listed(self, now: float, open_jobs: int) -> None:
        """Takes how many jobs of the account, ours and others', the list shows as open.

        It may show too few. So only a count that has fallen is a reason to try, and a refused try does not repeat.
        """
        if self._usable == math.inf:
            return
        before, self._listed = self._listed, open_jobs
        if open_jobs < before and (self._capacity is None or open_jobs < self._capacity):
            self._retry_at = min(self._retry_at, now)

    def restore(self, open_jobs: Iterable[str]) -> None:
        """Takes up the jobs of an earlier process."""
        self._open.update(open_jobs)

    def state(self) -> dict[str, Any]:
        """Gives what another process of the account must know, as plain values; nothing if there are no others."""
        if self._usable == math.inf:
            return {}
        return {
            "usable": self._usable,
            "full_since": self._full_since,
            "retry_at": self._retry_at,
            "listed": None if self._listed == math.inf else self._listed,
            "reason": self._reason,
        }

    def load(self, state: Mapping[str, Any], shift_s: float) -> None:
        """Takes up what `state` gave; `shift_s` is what has to be added to its times."""
        if not state:
            self._usable = math.inf
            return
        listed = state["listed"]
        self._usable, self._listed = state["usable"], math.inf if listed is None else listed
        self._full_since, self._retry_at = state["full_since"] + shift_s, state["retry_at"] + shift_s
        self._reason = state["reason"]
