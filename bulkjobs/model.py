"""The values that travel between the stages: chunks, requests, evidence, verdicts, records, the summary.

Nothing here knows a clock, a socket or a file. Times ending in `_utc` are Unix seconds on the wall
clock and appear only in what is stored; everything that waits uses the event loop's clock.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final, NewType

__all__ = [
    "FIRST_PART",
    "Accepted",
    "Cause",
    "Chunk",
    "ChunkState",
    "Evidence",
    "InvalidId",
    "JobId",
    "JobRecord",
    "JobState",
    "JobStatus",
    "NotApplied",
    "Phase",
    "Refused",
    "Request",
    "RequestKind",
    "RunSummary",
    "Tally",
    "Unknown",
    "Verdict",
]

FIRST_PART: Final = 1_000_000_001
"""Ordinal of the first part of a chunk that was split. Chunks cut from the sources are numbered from 1 and never get
there: a thousand million of them are ten million million ids."""

JobId = NewType("JobId", str)
"""What the server calls a job: opaque, but checked to be harmless in a URL, a file name and a log."""


class ChunkState(StrEnum):
    """Is where a chunk stands; the legal moves between these are a table in `lifecycle`."""

    PLANNED = "planned"
    SENDING = "sending"
    ACCEPTED = "accepted"
    DELIVERED = "delivered"
    REFUSED = "refused"
    HELD = "held"
    SPLIT = "split"
    """Its parts, which are chunks themselves, go out in its place."""


class JobState(StrEnum):
    """Is what the server last said of a job (api.md 1). `unknown`: a word that we do not know."""

    ACCEPTED = "accepted"
    PROCESSING = "processing"
    FINISHED = "finished"
    FAILED = "failed"
    ABORTED = "aborted"
    UNKNOWN = "unknown"

    @property
    def terminal(self) -> bool:
        """Tells whether the job has left its slot for good. An unknown word does not count as an end."""
        return self in (JobState.FINISHED, JobState.FAILED, JobState.ABORTED)


class RequestKind(StrEnum):
    """Is what a request is for; every kind draws on the same account window."""

    SUBMIT = "submit"
    STATUS = "status"
    LIST = "list"
    RESULTS = "results"
    USAGE = "usage"
    LOGIN = "login"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Counts what a stretch of input held besides the ids that went into a chunk."""

    invalid: int = 0
    """Ids that never go out, each with a line in `invalid.jsonl`."""
    duplicate: int = 0
    """Ids met before in this run."""

    def __add__(self, other: Tally) -> Tally:
        return Tally(invalid=self.invalid + other.invalid, duplicate=self.duplicate + other.duplicate)


@dataclass(frozen=True, slots=True, kw_only=True)
class InvalidId:
    """Says of one piece of input why it is not an id."""

    source: str
    line: int
    """Line of the source, from 1; the position of the item for an iterable."""
    text: str
    """What stood there, at most 200 characters, undecodable bytes as backslash escapes."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Holds up to the endpoint's number of ids, in input order, as the exact bytes that go on the wire."""

    ordinal: int
    """Position in the run, from 1; from `FIRST_PART` for a part of a chunk that was split.

    The same input and options give the same chunk the same ordinal."""
    body: bytes
    """The ids with one newline between each two, none at the end."""
    ids: int
    digest: str
    """SHA-256 of the body, 64 hexadecimal digits."""
    first_id: str
    last_id: str
    source: str
    """Name of the source that the first id stands in. A part has source and line of the chunk it is a part of."""
    line: int
    """Line of that source on which the first id stands, from 1."""
    tally: Tally
    """What stood in the input between the last id of the chunk before and the last id of this one.

    The last, shorter chunk of a run counts to the end of the input. For a part there is nothing: its chunk has it."""
    parent: int | None = None
    """Of a part: ordinal of the chunk, as it was cut from the source, that was split."""
    first: int = 0
    """Of a part: index in that chunk of its first id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Is one HTTP request, complete and ready: nothing is added on the way but `Host` and the length."""

    kind: RequestKind
    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""

    def __repr__(self) -> str:
        # Headers hold the access token, the query of a login or a webhook holds other secrets.
        return f"Request({self.kind.value}, {self.method}, {len(self.body)} bytes)"


class Phase(IntEnum):
    """Is how far a request got, as far as it can be proved. Larger is further."""

    STARTED = 0
    CONNECTED = 1
    HEADERS_SENT = 2
    """aiohttp was about to write: from here on the server may have seen something."""
    BODY_SENT = 3
    STATUS_READ = 4
    COMPLETE = 5
    """The whole answer is here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Is all that one request has shown, kept for ever. It holds no header and no address of ours."""

    phase: Phase
    started_utc: float
    ended_utc: float
    sent_utc: float | None = None
    """When the first byte could leave; None when none could."""
    answered_utc: float | None = None
    """When the status line was read."""
    status: int | None = None
    retry_after: str | None = None
    """The header's text, unread."""
    content_type: str | None = None
    body: bytes = dataclasses.field(default=b"", repr=False)  # the answer to a login holds the token
    """The answer, at most as long as the cap."""
    answer_bytes: int = 0
    """Bytes of the answer's body that were read, kept or not."""
    body_cut: bool = False
    """The answer was longer than the cap."""
    error: str | None = None
    """Class name and text of the exception that ended the request, secrets taken out."""
    connection_reused: bool | None = None
    """None when no connection was had."""


class Cause(StrEnum):
    """Is why a request is proved not to have been applied; it decides what is done next."""

    NOT_SENT = "not_sent"
    THROTTLED = "throttled"
    UNAUTHORIZED = "unauthorized"
    SLOTS_FULL = "slots_full"
    NO_QUOTA = "no_quota"
    TOO_LARGE = "too_large"
    """There are more ids, or bytes, than the server takes at a time: parts of the chunk may pass."""
    MISCONFIGURED = "misconfigured"
    """The server will say the same to every chunk: wrong address, no entitlement."""
    NOT_PROCESSED = "not_processed"
    """421 and 425 say so by definition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """Says that the server made a job of the chunk."""

    job_id: JobId
    state: JobState
    job_type: str
    """The server's `type`, as written (`contacts`, `contact`, …); empty when it gave none."""
    remark: str | None = None
    """Something odd about the answer that a person should know of, e.g. an unexpected state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Says that the server looked at the ids and wants none of this chunk, for good."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NotApplied:
    """Says that the attempt is proved to have had no effect: the chunk may go out again."""

    cause: Cause
    reason: str
    retry_after_s: float | None = None
    """What the server asked for, bounded; None when it asked for nothing that makes sense."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """Says that nobody can know from this attempt whether there is a job: the chunk is held."""

    reason: str
    job_hint: JobId | None = None
    """A job id seen in an answer that cannot be trusted as a whole."""


Verdict = Accepted | Refused | NotApplied | Unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """Is what the server says of one job when asked."""

    job_id: JobId
    state: JobState
    word: str
    """The state as the server wrote it."""
    job_type: str
    processed: int | None = None
    """Its `totalProcessed`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """Is what a sink receives: one for each chunk that the server accepted."""

    run_id: str
    chunk: int
    digest: str
    job_id: str
    status: str
    type: str
    endpoint: str
    ids: int
    first_id: str
    last_id: str
    source: str
    attempt: int
    accepted_at: str
    """RFC 3339, UTC."""

    def as_dict(self) -> dict[str, str | int]:
        """Gives the fields in their documented order."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """Is the account of a run, derived from its ledger. `summary.json` holds the same."""

    run_id: str
    endpoint: str
    ids: dict[str, int]
    """`read`, which is the sum of `invalid`, `duplicate`, `accepted`, `refused`, `held` and `pending`."""
    chunks: dict[str, int]
    """`total`, `accepted`, `refused`, `held`, `pending`."""
    jobs: dict[str, int]
    """Jobs by the state last seen."""
    requests: dict[str, int]
    """Requests by kind, and `throttled`: how many were answered by a throttle."""
    lockouts: int
    elapsed_s: float
    """Seconds spent working on the run, over all its sessions."""
    exit_code: int

    def as_dict(self) -> dict[str, object]:
        """Gives the fields in their documented order."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
