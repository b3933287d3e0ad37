"""What a session has shown so far of its work and its speed, added up from its events: the basis of `eta`.

Everything but `open_jobs` is plain figures, so that another process can read them from a file
and look ahead from there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from bulkjobs.events import (
    AttemptNotApplied,
    ChunkAccepted,
    ChunkHeld,
    ChunkPlanned,
    ChunkRefused,
    ChunkSettled,
    ChunkSplit,
    Controlled,
    Event,
    JobChanged,
    LimitLearned,
    LockedOut,
    LockoutEnded,
    RunFinished,
    SessionOpened,
    SourceProgress,
    Stopping,
)
from bulkjobs.settings.values import parse_rate

__all__ = ["History"]

_MOST_SAMPLES: Final = 32
_NOT_KEPT: Final = frozenset({"open_jobs"})


@dataclass(slots=True, kw_only=True)
class History:
    """Adds up a session. Times in `_utc` are Unix seconds; open time is what was not spent locked out."""

    began_utc: float | None = None
    """When the way to the server was open; None before."""
    limit: int | None = None
    window_s: float | None = None
    slots: int | None = None
    workers: int = 1
    resumed: bool = False

    settled_before: int = 0
    """Ids that earlier sessions settled."""
    planned_ids: int | None = None
    """Ids to send, once all was read by an earlier session; None if it was not."""
    spendable_ids: int | None = None
    """What the spend cap left when the session began; None without one."""
    read_ids: int = 0
    """Ids read that are neither invalid nor duplicate, over the whole run."""
    read_bytes: int = 0
    size_bytes: int | None = None
    """Of all sources; None if nobody knows."""
    all_read: bool = False

    submits: int = 0
    """Attempts that were answered, whatever the answer."""
    chunks: int = 0
    """Chunks and parts whose outcome is known, or known to be unknown."""
    ids: int = 0
    """In these."""
    answer_s: float = 0.0
    """How long the accepted ones among them took, added up."""
    answers: int = 0
    samples: list[tuple[float, int]] = field(default_factory=list)
    """Open time and chunks, at more or less even distances, at most 32 of them."""
    sample_every_s: float = 1.0
    first_open_s: float = 0.0
    """When the first outcome came, in open time; and the last."""
    last_open_s: float = 0.0
    longest_gap_s: float = 0.0
    """Between two outcomes, in open time."""

    lockouts: int = 0
    locked_s: float = 0.0
    """In lock-outs that are over."""
    locked_since_utc: float | None = None
    locked_until_utc: float = 0.0
    paused_since_utc: float | None = None
    """When a person made submitting pause, if it still does. That time counts as the lock-outs' does."""

    open_jobs: dict[str, float] = field(default_factory=dict)
    """When each job of this session was accepted, while its end was not seen."""
    jobs_open: int = 0
    jobs_ended: int = 0
    job_s: float = 0.0
    """From acceptance to the end that was seen, added up; and squared."""
    job_s2: float = 0.0
    over: bool = False
    """Nothing more is sent."""

    def add(self, event: Event, now_utc: float) -> None:  # noqa: C901, PLR0912 - one answer for each kind of event
        """Takes one event into account; those that change nothing here are passed over."""
        match event:
            case ChunkPlanned():  # as many as all others together
                return
            case SessionOpened():
                self._open(event, now_utc)
            case SourceProgress():
                self.read_ids = event.read - event.invalid - event.duplicate
                self.read_bytes, self.size_bytes = event.run_position_bytes, event.run_size_bytes
                self.all_read = self.all_read or event.finished
            case ChunkAccepted():
                self.answer_s += event.elapsed_s
                self.answers += 1
                if self.slots is not None:
                    self.open_jobs[event.record.job_id] = now_utc
                    self.jobs_open = len(self.open_jobs)
                self._settled(event.record.ids, now_utc)
            case ChunkRefused() | ChunkHeld():
                self._settled(event.ids, now_utc)
            case ChunkSettled(job_id=None):  # it goes out again
                self.ids -= event.ids
            case ChunkSplit() | AttemptNotApplied():
                self.submits += 1
            case JobChanged() if event.state.terminal:
                self._job_ended(event.job_id, now_utc)
            case LimitLearned():
                self.limit, self.window_s = event.requests, event.window_s
            case LockedOut():
                if self.locked_since_utc is None:
                    self.locked_since_utc = now_utc
                    self.lockouts += 1
                self.locked_until_utc = event.until_utc
            case LockoutEnded() if self.locked_since_utc is not None:
                self.locked_s += max(0.0, now_utc - self.locked_since_utc)
                self.locked_since_utc = None
            case Controlled():
                self._controlled(event, now_utc)
            case Stopping() | RunFinished():
                self.over = True
            case _:
                return

    def open_s(self, now_utc: float) -> float:
        """Gives the seconds since the session began in which the account was not locked out."""
        if self.began_utc is None:
            return 0.0
        closed = (self.locked_since_utc, self.paused_since_utc)
        until_utc = min((now_utc, *(since_utc for since_utc in closed if since_utc is not None)))
        return max(0.0, until_utc - self.began_utc - self.locked_s)

    def _open(self, event: SessionOpened, now_utc: float) -> None:
        self.began_utc = now_utc
        if self.locked_since_utc is not None:
            self.locked_since_utc = now_utc
        self.limit, self.window_s = event.requests, event.window_s
        self.slots, self.workers, self.resumed = event.slots, event.workers, event.resumed
        self.settled_before, self.planned_ids = event.settled_ids, event.planned_ids
        self.spendable_ids = event.spendable_ids

    def _controlled(self, event: Controlled, now_utc: float) -> None:
        match (event.command, event.value):
            case ("rate", str(text)):
                rate = parse_rate(text)
                self.limit = None if rate is None else rate.count
                self.window_s = None if rate is None else rate.period_s
            case ("workers", str(text)):
                self.workers = int(text)
            case ("pause", _) if self.paused_since_utc is None:
                self.paused_since_utc = now_utc
            case ("resume", _) if self.paused_since_utc is not None:
                self.locked_s += max(0.0, now_utc - self.paused_since_utc)
                self.paused_since_utc = None
            case _:
                return

    def _settled(self, ids: int, now_utc: float) -> None:
        self.submits += 1
        self.chunks += 1
        self.ids += ids
        open_s = self.open_s(now_utc)
        if self.chunks == 1:
            self.first_open_s = open_s
        else:
            self.longest_gap_s = max(self.longest_gap_s, open_s - self.last_open_s)
        self.last_open_s = open_s
        if not self.samples or open_s >= self.samples[-1][0] + self.sample_every_s:
            self.samples.append((open_s, self.chunks))
            if len(self.samples) > _MOST_SAMPLES:
                del self.samples[::2]
                self.sample_every_s = max(2 * self.sample_every_s, open_s / _MOST_SAMPLES)

    def _job_ended(self, job_id: str, now_utc: float) -> None:
        accepted_utc = self.open_jobs.pop(job_id, None)
        if accepted_utc is not None:  # that of an earlier session nobody timed
            job_s = max(0.0, now_utc - accepted_utc)
            self.jobs_ended += 1
            self.job_s += job_s
            self.job_s2 += job_s * job_s
            self.jobs_open = len(self.open_jobs)

    def as_dict(self) -> dict[str, object]:
        """Gives the figures by name, for a file."""
        return {
            each.name: getattr(self, each.name)
            for each in dataclasses.fields(self)
            if each.name not in _NOT_KEPT
        }

    @classmethod
    def of(cls, figures: Mapping[str, object]) -> Self:
        """Makes a history of what `as_dict` gave.

        Raises:
            TypeError: these are other figures.
        """
        return cls(**figures)  # type: ignore[arg-type]  # what is read back is what was written
