"""Bytes of an answer in, values out: the one boundary behind which nobody meets JSON or XML.

Rules of this file:

- An answer is recognised by its content. What was asked for and what `Content-Type` says do not count:
  error pages come in whatever format the server likes.
- Names are compared without regard to case, the root's name and namespaces are not looked at, and both
  spellings of state and kind are taken: the vendor's own articles differ on all of these.
- Any bytes at all give a value or `MalformedAnswer`, nothing else. That is tested with arbitrary bytes.
- What is passed on is short and printable, as it goes to logs, files and a terminal.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

from bulkjobs.model import JobId, JobState, JobStatus, RequestKind
from bulkjobs.wire.fields import (
    count_of,
    is_state,
    job_id_of,
    job_type_of,
    lowered,
    printable,
    read_document,
    read_fields,
    state_of,
    text_of,
)
from bulkjobs.wire.times import parse_expiry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "ANSWER_CAP_BYTES",
    "ErrorAnswer",
    "ListedJob",
    "MalformedAnswer",
    "Submission",
    "Token",
    "find_job_hint",
    "parse_error",
    "parse_job_list",
    "parse_status",
    "parse_submission",
    "parse_token",
    "read_answer",
]

ANSWER_CAP_BYTES: Final[dict[RequestKind, int]] = {
    # Real answers are some hundred bytes; the rest is room for error pages, which people want to see.
    RequestKind.SUBMIT: 64 * 1024,
    RequestKind.STATUS: 64 * 1024,
    RequestKind.LOGIN: 64 * 1024,
    RequestKind.LIST: 1024 * 1024,  # 50 jobs of about 150 bytes, and plenty of room
    RequestKind.USAGE: 1024 * 1024,  # a row for each API and day of a month at the very most
    RequestKind.RESULTS: 64 * 1024 * 1024,  # 10,000 contacts of some kilobytes at the very most
}
"""How much of an answer is read, by what was asked."""

_EXCERPT_BYTES: Final = 80
_MAX_TOKEN: Final = 8_000
"""aiohttp and most servers refuse header lines over 8,190 bytes."""

_JOB_HINT: Final = re.compile(
    rb"""jobid["']?\s{0,8}[:=>]\s{0,8}["']?([A-Za-z0-9_-]{1,64})(?=["'<,}\s])""", re.IGNORECASE
)
"""The look-ahead wants the id's end: an id that was cut off would be a wrong one."""
_EMPTY_LIST: Final = re.compile(rb"\s*(<\?xml[^>]*\?>)?\s*<bulkJobs\s*(/>|>\s*</bulkJobs>)\s*", re.IGNORECASE)
_NOT_JOB_IDS: Final = frozenset({b"null", b"true", b"false"})
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")


class MalformedAnswer(ValueError):  # noqa: N818 - states the condition
    """Says why an answer cannot be read, with its first bytes, escaped and bounded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """Is the server's answer to a chunk it made a job of."""

    job_id: JobId
    state: JobState
    word: str
    """The state as the server wrote it; empty when it gave none."""
    job_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorAnswer:
    """Is what the server says when it does not do what was asked; None for what it leaves out."""

    error_number: str | None
    """`400-108`, `404-11`, …: no fixed width, so it is text."""
    message: str
    diagnostic_code: str | None
    """What the vendor's support asks for."""
    error_type: str | None
    status: str | None

    def __str__(self) -> str:
        """Gives one line for people: number, message, diagnostic code."""
        parts = [self.error_number, self.message or self.error_type]
        if self.diagnostic_code:
            parts.append(f"(diagnostic code {self.diagnostic_code})")
        return " ".join(part for part in parts if part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """Is an access token."""

    access_token: str = field(repr=False)
    expires_utc: float | None
    """None when the server gave no date or one that cannot be read: good until a 401 then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedJob:
    """Is a job as the list of jobs shows it."""

    job_id: JobId
    state: JobState
    word: str
    """The state as the server wrote it."""
    job_type: str
    credits: int | None
    """Its `creditsConsumed`: 0 until processing has begun."""


def parse_submission(body: bytes) -> Submission | ErrorAnswer:
    """Reads the answer to a submission.

    Raises:
        MalformedAnswer: it cannot be read, or holds no job id, an impossible one or several.

    Source: vendor article "[POST] - Contact Details Job".
    """
    return _parse(body, _submission)


def parse_status(body: bytes) -> JobStatus | ErrorAnswer:
    """Reads the answer to a status request.

    Raises:
        MalformedAnswer: it cannot be read, or holds no job id, an impossible one or several, or no state.

    Source: vendor article "[GET] - Contact Details Job Status".
    """
    return _parse(body, _job_status)


def parse_job_list(body: bytes) -> list[ListedJob] | ErrorAnswer:
    """Reads one page of the list of jobs, in the order of the server.

    Raises:
        MalformedAnswer: it cannot be read, it is no list, or a row holds no job id. A part of a list proves nothing.

    Source: vendor article "[GET] - Bulk Jobs List"; how the list looks in XML was not seen, so any element below the
    root that holds a job id is a row.
    """
    if _EMPTY_LIST.fullmatch(body):
        return []
    return read_answer(body, read_document, _job_list)


def parse_error(body: bytes) -> ErrorAnswer | None:
    """Reads an error envelope of either product; None when it is none or cannot be read.

    Source: vendor article "API Error Codes"; the successor's OpenAPI definition for `errorCode`.
    """
    try:
        return _error(read_fields(body))
    except ValueError:
        return None


def parse_token(body: bytes) -> Token:
    """Reads the answer of the token endpoint.

    Raises:
        MalformedAnswer: there is no usable token in it. The message shows nothing of the answer but an
            error that the server states, because the rest may hold the token.

    Source: vendor article "[POST] - New Token".
    """
    try:
        fields = read_fields(body)
        inner = fields.get("accesstokendetails")
        details = lowered(inner.items()) if isinstance(inner, dict) else fields
        token = details.get("accesstoken")
        expiry = details.get("expirationtime")
        error = None if token is not None else _error(fields)
    except ValueError:
        # The cause may quote the answer; neither it nor the bytes may reach a log.
        raise MalformedAnswer("The token endpoint's answer is neither readable JSON nor XML.") from None
    if error is not None:
        raise MalformedAnswer(f"The token endpoint gave no token but an error: {error}")
    if not isinstance(token, str) or len(token) > _MAX_TOKEN or not _TOKEN.fullmatch(token):
        raise MalformedAnswer("The token endpoint's answer holds no accessToken that fits a header.")
    return Token(access_token=token, expires_utc=parse_expiry(expiry) if isinstance(expiry, str) else None)


def find_job_hint(body: bytes) -> JobId | None:
    """Finds a job id in bytes that cannot be read or trusted as a whole.

    Returns:
        The id, for a person or for reconciling to check; None when there is none or more than one.
    """
    found = set(_JOB_HINT.findall(body)) - _NOT_JOB_IDS
    return JobId(found.pop().decode("ascii")) if len(found) == 1 else None


_T = TypeVar("_T")


def _parse(body: bytes, read: Callable[[Mapping[str, object]], _T]) -> _T | ErrorAnswer:
    try:
        fields = read_fields(body)
        error = _error(fields)
        return error if error is not None else read(fields)
    except ValueError as exc:
        raise _malformed(body, exc) from exc


def read_answer(
    body: bytes,
    open_up: Callable[[bytes], Mapping[str, object]],
    read: Callable[[Mapping[str, object]], _T],
) -> _T | ErrorAnswer:
    """Reads an answer that may be an error and is more than a few fields.

    Args:
        body: the answer.
        open_up: makes a document of it.
        read: makes a value of the document; raises ValueError if it cannot.

    Raises:
        MalformedAnswer: one of these failed. The message says why and shows the first bytes.
    """
    try:
        fields = open_up(body)
        error = _error(lowered(fields.items()))
        return error if error is not None else read(fields)
    except ValueError as exc:
        raise _malformed(body, exc) from exc


def _malformed(body: bytes, exc: ValueError) -> MalformedAnswer:
    excerpt = f" It begins with {body[:_EXCERPT_BYTES]!r}." if body else ""
    why = printable(str(exc), limit=200)
    return MalformedAnswer(f"The answer cannot be read: {why}.{excerpt}")


def _submission(fields: Mapping[str, object]) -> Submission:
    state, word = state_of(fields)
    return Submission(job_id=job_id_of(fields), state=state, word=word, job_type=job_type_of(fields))


def _job_status(fields: Mapping[str, object]) -> JobStatus:
    state, word = state_of(fields)
    if not word:
        raise ValueError("it does not say the job's state")
    return JobStatus(
        job_id=job_id_of(fields),
        state=state,
        word=word,
        job_type=job_type_of(fields),
        processed=count_of(fields.get("totalprocessed")),
    )


def _job_list(document: Mapping[str, object]) -> list[ListedJob]:
    """Finds the rows: under `bulkJobs`, below a root or not; in XML each in an element of its own."""
    value: object = document
    named = False
    while isinstance(value, dict):
        fields = lowered(value.items())
        if "jobid" in fields:
            return [_listed_job(value)]
        if "bulkjobs" in fields:
            value, named = fields["bulkjobs"], True
        elif len(fields) == 1:
            (value,) = fields.values()
        else:
            break
    if isinstance(value, list) and (named or value):
        return [_listed_job(row) for row in value]
    if named and value in ("", None):
        return []  # under another name nothing may be the end of anything
    raise ValueError("it holds no list of jobs")


def _listed_job(row: object) -> ListedJob:
    if not isinstance(row, dict):
        raise ValueError("a row of its list is no job")  # noqa: TRY004 - about bytes, not about an argument's type
    fields = lowered(row.items())
    state, word = state_of(fields)
    return ListedJob(
        job_id=job_id_of(fields),
        state=state,
        word=word,
        job_type=job_type_of(fields),
        credits=count_of(fields.get("creditsconsumed")),
    )


def _error(fields: Mapping[str, object]) -> ErrorAnswer | None:
    number = text_of(fields, "errornumber", "errorcode")
    kind = text_of(fields, "errortype")
    if number is None and kind is None and fields.get("jobid") is not None:
        # A failed job tells its reason in `message` or `errorMessage` next to its id.
        return None
    status = text_of(fields, "status")
    message = text_of(fields, "errormessage", "message")
    if number is None and kind is None and message is None and (status is None or is_state(status)):
        # A lone sentence in `status`, as the successor's 401 has it, is an error; a job's state is not.
        return None
    return ErrorAnswer(
        error_number=number,
        message=message or status or "",
        diagnostic_code=text_of(fields, "diagnosticcode"),
        error_type=kind,
        status=status,
    )
