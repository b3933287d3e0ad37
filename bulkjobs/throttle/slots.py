"""The slots: how many jobs may be open at a time.

A submit takes one of M slots and keeps it while its job is open. When the server says that its slots are full
although some of ours are free, the jobs in them are not ours: one submit at a time then tries again, after
growing waits.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from bulkjobs.throttle.decisions import WaitForSlot

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["MAX_SLOT_RETRY_S", "Slots"]

MAX_SLOT_RETRY_S: Final = 300.0
"""The wait between two tries for slots that other people's jobs hold doubles up to this."""


class Slots:
    """Counts the open jobs, the submits that may become one, and what the server said about others."""

    __slots__ = ("_capacity", "_first_retry_s", "_full_until", "_open", "_reason", "_retry_s", "_submitting")

    def __init__(self, capacity: int | None, first_retry_s: float) -> None:
        self._capacity = capacity
        self._open: set[str] = set()
        self._submitting = 0
        self._first_retry_s = first_retry_s
        self._retry_s = first_retry_s
        self._full_until: float | None = None
        self._reason = ""

    def decide(self, now: float) -> WaitForSlot | None:
        """Tells what a submit waits for; None if there is a slot."""
        if self._capacity is not None and len(self._open) + self._submitting >= self._capacity:
            return WaitForSlot(f"{self._capacity} jobs are open, which is as many as may be")
        if self._full_until is None or (self._full_until <= now and not self._submitting):
            return None
        return WaitForSlot(self._reason, at=math.inf if self._submitting else self._full_until)

    def taken(self) -> None:
        """Takes a slot for a submit."""
        self._submitting += 1

    def settled(self) -> None:
        """Takes the slot of a submit back."""
        self._submitting -= 1

    def opened(self, job_id: str, now: float) -> None:
        """Takes up a job that is open."""
        self._open.add(job_id)
        # A job of a submit sent before the server said so proves nothing; that of a try made since does.
        if self._full_until is not None and self._full_until <= now:
            self._has_room()

    def closed(self, job_id: str) -> None:
        """Frees the slot of a job that has ended."""
        if job_id in self._open:
            self._open.remove(job_id)
            self._has_room()

    def full(self, now: float, reason: str) -> None:
        """Takes the server's word that no job more may be open."""
        if self._full_until is not None and now < self._full_until:
            return  # said by one of several that were in flight together
        if self._full_until is not None:
            self._retry_s = min(2 * self._retry_s, max(MAX_SLOT_RETRY_S, self._first_retry_s))
        self._full_until = now + self._retry_s
        self._reason = reason

    def restore(self, open_jobs: Iterable[str]) -> None:
        """Takes up the jobs of an earlier process."""
        self._open.update(open_jobs)

    def state(self) -> dict[str, Any]:
        """Gives what another process of the account must know, as plain values."""
        return {"full_until": self._full_until, "retry_s": self._retry_s, "reason": self._reason}

    def load(self, state: Mapping[str, Any], shift_s: float) -> None:
        """Takes up what `state` gave; `shift_s` is what has to be added to its times."""
        full_until = state["full_until"]
        self._full_until = None if full_until is None else full_until + shift_s
        self._retry_s, self._reason = state["retry_s"], state["reason"]

    def _has_room(self) -> None:
        self._full_until = None
        self._retry_s = self._first_retry_s
