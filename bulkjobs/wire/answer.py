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
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, TypeVar

from bulkjobs.model import JobId, JobState, JobStatus, RequestKind
from bulkjobs.wire.json_answer import read_json
from bulkjobs.wire.xml_answer import read_xml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = [
    "ANSWER_CAP_BYTES",
    "MAX_RETRY_AFTER_S",
    "ErrorAnswer",
    "MalformedAnswer",
    "Submission",
    "Token",
    "find_job_hint",
    "parse_error",
    "parse_expiry",
    "parse_retry_after",
    "parse_status",
    "parse_submission",
    "parse_token",
    "printable",
]

ANSWER_CAP_BYTES: Final[dict[RequestKind, int]] = {
    # Real answers are some hundred bytes; the rest is room for error pages, which people want to see.
    RequestKind.SUBMIT: 64 * 1024,
    RequestKind.STATUS: 64 * 1024,
    RequestKind.LOGIN: 64 * 1024,
    RequestKind.LIST: 1024 * 1024,  # 50 jobs of about 150 bytes, and plenty of room
    RequestKind.RESULTS: 64 * 1024 * 1024,  # 10,000 contacts of some kilobytes at the very most
}
"""How much of an answer is read, by what was asked."""

MAX_RETRY_AFTER_S: Final = 86_400.0
"""A server that asks for more than a day has made a mistake."""

_MAX_TEXT: Final = 500
"""Characters of a server's text that are passed on."""
_EXCERPT_BYTES: Final = 80
_MAX_TOKEN: Final = 8_000
"""aiohttp and most servers refuse header lines over 8,190 bytes."""

_JOB_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_JOB_HINT: Final = re.compile(
    rb"""jobid["']?\s{0,8}[:=>]\s{0,8}["']?([A-Za-z0-9_-]{1,64})(?=["'<,}\s])""", re.IGNORECASE
)
"""The look-ahead wants the id's end: an id that was cut off would be a wrong one."""
_NOT_JOB_IDS: Final = frozenset({b"null", b"true", b"false"})
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")

_UTF8_BOM: Final = b"\xef\xbb\xbf"
_UTF16_BOMS: Final = (b"\xff\xfe", b"\xfe\xff")

_STATES: Final[dict[str, JobState]] = {
    **{state.value: state for state in JobState if state is not JobState.UNKNOWN},
    # The jobs list writes the same states as numbers (vendor article "[GET] - Bulk Jobs List").
    "-1": JobState.UNKNOWN,  # "Not Found": says nothing about how the job ended
    "0": JobState.FAILED,
    "1": JobState.ACCEPTED,
    "2": JobState.PROCESSING,
    "3": JobState.FINISHED,
    "4": JobState.ABORTED,
}


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


def parse_error(body: bytes) -> ErrorAnswer | None:
    """Reads an error envelope of either product; None when it is none or cannot be read.

    Source: vendor article "API Error Codes"; the successor's OpenAPI definition for `errorCode`.
    """
    try:
        return _error(_fields(body))
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
        fields = _fields(body)
        inner = fields.get("accesstokendetails")
        details = _lowered(inner.items()) if isinstance(inner, dict) else fields
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


def printable(text: str, *, limit: int = _MAX_TEXT) -> str:
    """Gives a foreign text in one line without control characters, at most `limit` characters and a `…`."""
    if len(text) > limit:
        text = text[:limit] + "…"
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


# From bytes to named fields

_T = TypeVar("_T")


def _parse(body: bytes, read: Callable[[Mapping[str, object]], _T]) -> _T | ErrorAnswer:
    try:
        fields = _fields(body)
        error = _error(fields)
        return error if error is not None else read(fields)
    except ValueError as exc:
        excerpt = f" It begins with {body[:_EXCERPT_BYTES]!r}." if body else ""
        why = printable(str(exc), limit=200)
        raise MalformedAnswer(f"The answer cannot be read: {why}.{excerpt}") from exc


def _fields(body: bytes) -> dict[str, object]:
    if len(body) > ANSWER_CAP_BYTES[RequestKind.LIST]:
        raise ValueError("it is longer than any answer")
    # White space first is legal; some gateways send it to keep a connection alive.
    text = body.removeprefix(_UTF8_BOM).lstrip()
    if text.startswith((b"<", *_UTF16_BOMS)):
        document = read_xml(text)
    elif text.startswith((b"{", b"[")):
        document = read_json(text)
    else:
        raise ValueError("it is neither JSON nor XML" if text else "it is empty")
    # A JSON writer that was made for XML keeps the root: {"BulkLeadEnrichmentStatus": {…}}.
    while len(document) == 1:
        (inner,) = document.values()
        if not isinstance(inner, dict):
            break
        document = inner
    return _lowered(document.items())


def _lowered(pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    fields: dict[str, object] = {}
    for name, value in pairs:
        before = fields.setdefault(name.lower(), value)
        if before is not value and before != value:
            # Two spellings of one name that disagree: a list is no value that anybody takes.
            fields[name.lower()] = [before, value]
    return fields


# From named fields to values


def _submission(fields: Mapping[str, object]) -> Submission:
    state, word = _state(fields)
    return Submission(job_id=_job_id(fields), state=state, word=word, job_type=_job_type(fields))


def _job_status(fields: Mapping[str, object]) -> JobStatus:
    state, word = _state(fields)
    if not word:
        raise ValueError("it does not say the job's state")
    return JobStatus(
        job_id=_job_id(fields),
        state=state,
        word=word,
        job_type=_job_type(fields),
        processed=_count(fields.get("totalprocessed")),
    )


def _text(fields: Mapping[str, object], *names: str) -> str | None:
    """Gives the first of these fields that says something, as one printable line."""
    for name in names:
        value = fields.get(name)
        if value is None or value == "":
            continue
        if isinstance(value, str):
            return printable(value.strip()) or None
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        raise ValueError(f"its {name} is not one plain value")
    return None


def _job_id(fields: Mapping[str, object]) -> JobId:
    value = fields.get("jobid")
    if value is None:
        raise ValueError("it holds no job id")
    # A number is refused too: orjson turns one over 64 bits into a float without a word.
    if not isinstance(value, str) or not _JOB_ID.fullmatch(value):
        raise ValueError("its job id is not 1 to 64 letters, digits, '-' or '_'")
    if any(other != value for other in _nested_job_ids(fields)):
        raise ValueError("it holds several job ids")
    return JobId(value)


def _nested_job_ids(fields: Mapping[str, object]) -> Iterable[object]:
    pending: list[object] = [value for value in fields.values() if isinstance(value, dict | list)]
    while pending:  # a loop: orjson nests deeper than Python recurses
        value = pending.pop()
        if isinstance(value, dict):
            yield from (inner for name, inner in value.items() if name.lower() == "jobid")
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)


def _state(fields: Mapping[str, object]) -> tuple[JobState, str]:
    # `jobStatus` first: where both stand, `status` is an HTTP status.
    word = _text(fields, "jobstatus", "status") or ""
    return _STATES.get(word.lower(), JobState.UNKNOWN), word


def _job_type(fields: Mapping[str, object]) -> str:
    return _text(fields, "jobtype", "type") or ""


def _count(value: object) -> int | None:
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


def _error(fields: Mapping[str, object]) -> ErrorAnswer | None:
    number = _text(fields, "errornumber", "errorcode")
    kind = _text(fields, "errortype")
    if number is None and kind is None and fields.get("jobid") is not None:
        # A failed job tells its reason in `message` or `errorMessage` next to its id.
        return None
    status = _text(fields, "status")
    message = _text(fields, "errormessage", "message")
    if number is None and kind is None and message is None and (status is None or status.lower() in _STATES):
        # A lone sentence in `status`, as the successor's 401 has it, is an error; a job's state is not.
        return None
    return ErrorAnswer(
        error_number=number,
        message=message or status or "",
        diagnostic_code=_text(fields, "diagnosticcode"),
        error_type=kind,
        status=status,
    )


# Times

_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
"""Fixed: `strptime` would read the names of the user's locale."""
_MONTH: Final = r"(?P<month>[A-Z][a-z]{2})"
_CLOCK: Final = r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"

_EXPIRY: Final = re.compile(
    rf"[A-Z][a-z]{{2}}, {_MONTH} (?P<day>[0-9]{{1,2}}), (?P<year>[0-9]{{4}}) {_CLOCK} (?P<half>AM|PM) GMT"
)
# RFC 9110, section 5.6.7: one form to write, and two that a recipient must still read.
_HTTP_DATES: Final = (
    re.compile(rf"[A-Z][a-z]{{2}}, (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_CLOCK} GMT"),
    re.compile(rf"[A-Z][a-z]+day, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_CLOCK} GMT"),
    re.compile(rf"[A-Z][a-z]{{2}} {_MONTH} (?P<day>[ 0-9][0-9]) {_CLOCK} (?P<year>[0-9]{{4}})"),
)


def parse_expiry(text: str) -> float | None:
    """Reads a token's `expirationTime`, as `Tue, Jul 21, 2015 09:08:17 PM GMT`.

    The clock has 12 hours: read with 24 it loses half a day.

    Returns:
        Unix seconds, or None when the text is anything else.

    Source: vendor article "[POST] - New Token".
    """
    match = _EXPIRY.fullmatch(text.strip())
    if match is None or not 1 <= int(match["hour"]) <= 12:  # noqa: PLR2004 - hours on a dial
        return None
    hour = int(match["hour"]) % 12 + (12 if match["half"] == "PM" else 0)
    return _unix_seconds(match, year=int(match["year"]), hour=hour)


def parse_retry_after(value: str, *, now_utc: float) -> float | None:
    """Reads a `Retry-After` header as seconds to wait.

    Args:
        value: the header's text, whole seconds or an HTTP date.
        now_utc: Unix seconds, used only for the date form.

    Returns:
        Seconds from 0.0 (a date in the past) to `MAX_RETRY_AFTER_S`, or None when the text is neither form.

    Source: RFC 9110, sections 10.2.3 and 5.6.7.
    """
    text = value.strip(" \t")
    if re.fullmatch(r"[0-9]+", text):
        # Python refuses to read numbers of thousands of digits.
        return min(float(text[:400]), MAX_RETRY_AFTER_S)
    for pattern in _HTTP_DATES:
        if match := pattern.fullmatch(text):
            at_utc = _unix_seconds(match, year=_full_year(match["year"], now_utc), hour=int(match["hour"]))
            return None if at_utc is None else min(max(at_utc - now_utc, 0.0), MAX_RETRY_AFTER_S)
    return None


def _full_year(digits: str, now_utc: float) -> int:
    year = int(digits)
    if len(digits) == 4:  # noqa: PLR2004 - digits of a year
        return year
    # RFC 9110: two digits mean the year at most 50 years ahead, else the latest one in the past.
    latest = datetime.fromtimestamp(now_utc, UTC).year + 50
    return latest - (latest - year) % 100


def _unix_seconds(match: re.Match[str], *, year: int, hour: int) -> float | None:
    month = match["month"].lower()
    if month not in _MONTHS:
        return None
    minute, second = int(match["minute"]), int(match["second"])
    try:
        moment = datetime(year, _MONTHS.index(month) + 1, int(match["day"]), hour, minute, second, tzinfo=UTC)
    except ValueError:  # no such day or hour
        return None
    return moment.timestamp()
