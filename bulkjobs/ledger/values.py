"""What the ledger gives back: rows as values. Times in `_utc` are Unix seconds on the wall clock."""

from __future__ import annotations

from dataclasses import dataclass, field

from bulkjobs.clock import timestamp
from bulkjobs.model import ChunkState, JobId, JobState, Tally

__all__ = [
    "AccountState",
    "ChunkRow",
    "ControlRow",
    "Counts",
    "KnownJob",
    "OpenJob",
    "RunRow",
    "RunSnapshot",
    "SourceRow",
    "StateCount",
    "VerdictRow",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """Is what a run is: fixed when it is made, but for `source_finished`."""

    run_id: str
    created_utc: float
    nonce_key: bytes
    """16 random bytes from which the webhook nonces of this run are derived."""
    identity: dict[str, object]
    """What must not change between sessions: endpoint, chunk size and the like, as JSON values."""
    source_finished: bool
    """The sources were read to their end: the chunks of the run are all there are."""
    baseline_utc: float | None = None
    """When the server's jobs were listed before the first chunk went out; None if they were not."""
    tail: Tally = field(default_factory=Tally)
    """What stood behind the last chunk, once the sources were read to their end."""

    @property
    def endpoint(self) -> str:
        """Is the name of the endpoint of all jobs of the run."""
        return str(self.identity["endpoint"])

    @property
    def column(self) -> str | int | None:
        """Is the column with the ids; None where the sources are no tables."""
        column = self.identity.get("column")
        return column if isinstance(column, str | int) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRow:
    """Is one source as it was when it was opened first."""

    name: str
    fingerprint: str | None
    spooled: bool
    """It cannot be read again; what was read of it is kept in the run directory."""
    spooled_bytes: int
    """How much of the kept copy is known to be durable."""
    complete: bool
    """The kept copy is all there is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkRow:
    """Is a planned chunk without its body."""

    ordinal: int
    state: ChunkState
    digest: str
    ids: int
    body_bytes: int
    attempts: int
    """Number of the last attempt, 0 when there was none."""
    tally: Tally
    parent: int | None
    """As in `Chunk`."""
    first: int
    duplicate_risk: bool
    """A person had it sent again although nobody could know the outcome of the attempt before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownJob:
    """Is a job of this run."""

    job_id: JobId
    chunk: int
    sent_utc: float
    """It was not made before: when the first byte of its request could leave, as far as that is known."""
    accepted_utc: float
    """It was there by then."""
    adopted: bool
    """It was found on the server's list: when it was accepted nobody knows, only when it was found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictRow:
    """Is a held or refused chunk with the evidence of its last attempt."""

    chunk: int
    digest: str
    ids: int
    first_id: str
    last_id: str
    source: str
    line: int
    parent: int | None
    """As in `Chunk`."""
    first: int
    attempt: int
    reason: str
    started_utc: float
    sent_utc: float | None
    """When the first byte could leave."""
    answered_utc: float | None
    """When the status line was read."""
    ended_utc: float | None
    """None when the process ended first; then there is no phase and no answer either."""
    phase: int | None
    status: int | None
    error: str | None
    content_type: str | None
    body: bytes
    """The first 4 KiB of the answer."""
    body_cut: bool
    answer_bytes: int | None
    """How much of the answer was read, kept or not."""
    connection_reused: int | None
    job_hint: JobId | None
    finding: str | None
    """Why it could not be settled when that was tried last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenJob:
    """Is a job whose end was not seen yet: it holds a slot."""

    job_id: JobId
    chunk: int
    state: JobState
    accepted_utc: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountState:
    """Is what a new session must know of the account before its first request."""

    history: list[tuple[float, float | None]]
    """Start and end of each request that may have reached the server; the end is None when it is not known."""
    locked_until_utc: float | None
    """End of the last lock-out, also when it is past; None when there was none."""
    learned_limit: int | None
    open_jobs: list[OpenJob]


@dataclass(frozen=True, slots=True, kw_only=True)
class StateCount:
    """Counts the chunks in one state and the ids in them."""

    chunks: int = 0
    ids: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Is every figure of a run, taken in one transaction."""

    states: dict[ChunkState, StateCount]
    """All states."""
    tally: Tally
    """Invalid and duplicate ids over all planned chunks, and behind the last one once the source is finished."""
    jobs: dict[str, int]
    """Jobs by the state last seen; only states that occur."""
    requests: dict[str, int]
    """Requests by kind, and `throttled`: those answered by a throttle."""
    lockouts: int
    elapsed_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlRow:
    """Is one command that a person gave to a session while it worked."""

    number: int
    session: int
    at_utc: float
    command: str
    value: str | None
    origin: str
    """Who gave it, in words."""

    @property
    def at(self) -> str | None:
        """Is when it was given, in RFC 3339; None if no clock shows what stands there."""
        try:
            return timestamp(self.at_utc)
        except (OverflowError, ValueError, OSError):
            return None

    @property
    def text(self) -> str:
        """Is the command as a person gave it."""
        return self.command if self.value is None else f"{self.command} {self.value}"

    def as_dict(self) -> dict[str, object]:
        """Gives it as values of JSON."""
        return {
            "session": self.session,
            "at": self.at,
            "command": self.command,
            "value": self.value,
            "origin": self.origin,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSnapshot:
    """Is a run as another process sees it at one moment."""

    run: RunRow | None
    """None when the ledger exists and the run was not made yet."""
    sources: list[SourceRow]
    counts: Counts
    locked_until_utc: float | None
    learned_limit: int | None
    open_jobs: list[OpenJob]
    paused_by: ControlRow | None
    """The command that makes the process wait that works on the run now; None when nothing does."""
    controls: list[ControlRow]
    """What people told its sessions while these worked, in order."""
    exit_code: int | None
    """Of the last session; None while it lasts, after a crash, and before the first."""
    stop_reason: str | None
    owner: str | None
    """Who works on the run now, e.g. "pid 4711 on host"; None when nobody does."""
