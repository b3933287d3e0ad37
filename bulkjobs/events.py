"""What the engine tells whoever watches: typed values, a chunk or a wait at a time, never an id at a time.

Logs, the progress display and tests are observers. A wait is announced before it begins. Observers are
called on the event loop, in order; they must return at once and an exception of theirs ends the run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from bulkjobs.model import Cause, JobRecord, JobState, RequestKind, RunSummary

__all__ = [
    "AttemptNotApplied",
    "ChunkAccepted",
    "ChunkHeld",
    "ChunkPlanned",
    "ChunkRefused",
    "ControlMissing",
    "Controlled",
    "Event",
    "JobChanged",
    "LimitLearned",
    "LockedOut",
    "LockoutEnded",
    "Observer",
    "OneSubmitTries",
    "PollFailed",
    "QuotaRead",
    "QuotaUnknown",
    "RequestEnded",
    "RunFinished",
    "RunFinishedBefore",
    "RunStarted",
    "SessionOpened",
    "SlotsFull",
    "SourceProgress",
    "StateNotShared",
    "Stopping",
    "SubmitsPaused",
    "SubmitsResumed",
    "TokenRefreshed",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """A run begins or goes on."""

    run_id: str
    run_dir: str
    resumed: bool
    held_at_start: int
    """Chunks that the last session left in flight: their outcome is unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinishedBefore:
    """There is nothing left to do for the run: nothing is sent."""

    run_id: str
    run_dir: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOpened:
    """The way to the server is open: what bounds this session, and what earlier ones left for it."""

    requests: int | None
    """The account's limit in any `window_s` seconds; None for no limit."""
    window_s: float | None
    slots: int | None
    """Jobs that may be open at a time; None for no limit."""
    workers: int
    resumed: bool
    settled_ids: int
    """Ids accepted, refused or held by earlier sessions."""
    planned_ids: int | None
    """Ids still to be sent; None as long as the sources were not read to their end."""
    spendable_ids: int | None = None
    """What the spend cap leaves; None without one."""
    account: RunSummary | None = None
    """Of the run, as this session finds it; None if nobody looked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceProgress:
    """Another block of input was read. Counts are over the whole run."""

    source: str
    position_bytes: int
    size_bytes: int | None
    """None when the size is not known (a pipe, an iterable)."""
    read: int
    invalid: int
    duplicate: int
    finished: bool
    """The last source was read to its end."""
    run_position_bytes: int = 0
    """Over all sources of the run."""
    run_size_bytes: int | None = None
    """Of all sources together; None when one of them has no size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkPlanned:
    """A chunk was cut, or met again on a resumed run, and waits for its turn."""

    chunk: int
    ids: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkAccepted:
    """The server made a job of a chunk, and the ledger holds it."""

    record: JobRecord
    elapsed_s: float
    remark: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkRefused:
    """The server wants none of a chunk; its ids are in a file to be fed again."""

    chunk: int
    ids: int
    reason: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkHeld:
    """The outcome of a chunk is unknown; it will not be sent again by itself."""

    chunk: int
    ids: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkSplit:
    """The server does not take a chunk as it is; its parts go out in its place, and each may become a job."""

    chunk: int
    ids: int
    parts: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineMissing:
    """The server's list of jobs could not be read before the first chunk goes out; reconciling has less to go by."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconcileWaits:
    """Held chunks are compared with the server's list of jobs, and the next look at it comes at `until_utc`."""

    chunks: int
    until_utc: float
    wait_s: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkSettled:
    """A held chunk was settled: its job was found, or it goes out again."""

    chunk: int
    ids: int
    job_id: str | None
    """None when there is no job."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkStaysHeld:
    """The server's list of jobs does not settle a chunk."""

    chunk: int
    ids: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaRead:
    """What is left of the quota before the first submission of a session, and what the run needs."""

    allocated: int
    consumed: int
    undebited: int
    """Ids of this run that the server may not have counted yet."""
    allowance: int
    """What others may have spent that it has not counted either."""
    left: int
    """What remains when all of these are taken away."""
    needed: int | None
    """Ids still to be sent; None if nobody can tell."""
    exact: bool
    """These were counted, and not estimated."""
    fits: bool | None
    """None if nobody can tell. If not, the run goes on all the same, until the server refuses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaUnknown:
    """What is left of the quota could not be read. The run goes on."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptNotApplied:
    """An attempt had no effect and the chunk waits to go out again."""

    chunk: int
    attempt: int
    cause: Cause
    reason: str
    wait_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedOut:
    """The account is locked out: nothing is sent before `until_utc` (which may move later)."""

    until_utc: float
    wait_s: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LockoutEnded:
    """The first request after a lock-out was let through by the server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitLearned:
    """A lock-out below the limit taught a lower one, or it rises again after one, or while it is being found out."""

    requests: int
    window_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StateNotShared:
    """What the account has used up cannot be shared with its other runs on this machine: each counts for itself."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitsPaused:
    """Too many outcomes are unknown: nothing is submitted until the server, asked at `until_utc`, answers."""

    until_utc: float
    wait_s: float
    reason: str
    """What began the pause, or makes it longer: unknown outcomes, or a question that was not answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OneSubmitTries:
    """In a pause of submits one chunk goes out alone; the others wait for its outcome."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitsResumed:
    """The outcome of the chunk that went out alone is known: the others follow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotsFull:
    """The server runs as many jobs as it allows; submitting waits for one to end."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobChanged:
    """A job was seen in another state."""

    job_id: str
    state: JobState
    word: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PollFailed:
    """A job could not be asked for; that says nothing about the job."""

    job_id: str
    reason: str
    wait_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestEnded:
    """A request other than a submit has ended. What a submit came to, its chunk tells."""

    kind: RequestKind
    outcome: Literal["answered", "throttled", "unknown"]
    """Unknown: no whole answer came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRefreshed:
    """A new access token is in use."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Controlled:
    """A person gave a command, which is on record; what it changes is in force now."""

    command: str
    value: str | None
    origin: str
    """Who gave it, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlMissing:
    """The session cannot take commands; it works all the same."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopping:
    """No more chunks are sent; answers in flight are still recorded."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished:
    """The session is over."""

    summary: RunSummary


Event = (
    RunStarted
    | RunFinishedBefore
    | SessionOpened
    | SourceProgress
    | ChunkPlanned
    | ChunkAccepted
    | ChunkRefused
    | ChunkHeld
    | ChunkSplit
    | BaselineMissing
    | ReconcileWaits
    | ChunkSettled
    | ChunkStaysHeld
    | QuotaRead
    | QuotaUnknown
    | AttemptNotApplied
    | LockedOut
    | LockoutEnded
    | LimitLearned
    | StateNotShared
    | SubmitsPaused
    | OneSubmitTries
    | SubmitsResumed
    | SlotsFull
    | JobChanged
    | PollFailed
    | RequestEnded
    | TokenRefreshed
    | Controlled
    | ControlMissing
    | Stopping
    | RunFinished
)


class Observer(Protocol):
    """Receives events."""

    def __call__(self, event: Event, /) -> None:
        """Takes one event; returns at once."""
