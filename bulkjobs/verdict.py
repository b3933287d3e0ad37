"""What the evidence of one submission proves: accepted, refused, not applied, or unknown.

Rules of this file:

- *Not applied* and *refused* need proof. Whatever proves nothing is *unknown*, and the chunk is held:
  a held chunk costs a look, a chunk that was sent twice costs money.
- That nothing was sent is proved by the phase alone, never by the name of an exception.
- Every text of the server that decides something stands in `_MEANINGS`. An answer captured from the real
  server is added there, and as a case in the tests.

Sources: RFC 9110 for the status codes; vendor articles "[POST] - Contact Details Job", "API Error Codes"
and "[POST] - New Token" for the texts, and the successor's OpenAPI definition for its numbers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from bulkjobs.model import (
    Accepted,
    Cause,
    Evidence,
    JobState,
    NotApplied,
    Phase,
    Refused,
    Unknown,
    Verdict,
)
from bulkjobs.wire.answer import ErrorAnswer, MalformedAnswer, find_job_hint, parse_error, parse_submission
from bulkjobs.wire.fields import printable
from bulkjobs.wire.times import parse_retry_after

__all__ = ["judge"]


class _Meaning(Enum):
    SLOTS_FULL = auto()
    NO_QUOTA = auto()
    TOO_LARGE = auto()
    BAD_INPUT = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pattern:
    meaning: _Meaning
    numbers: frozenset[str]
    """Error numbers that mean this."""
    words: re.Pattern[str]
    """Words that mean this, if no row knows the number. The first row wins."""
    in_envelope_only: bool = False
    """The words count only in an error answer of the service: a page of some proxy may well have them."""
    advice: str = ""


def _words(*alternatives: str) -> re.Pattern[str]:
    return re.compile("|".join(alternatives), re.IGNORECASE)


_BUDGET: Final = r"(?:quota|transactions?|credits?)"

_MEANINGS: Final = (
    _Pattern(
        meaning=_Meaning.SLOTS_FULL,
        numbers=frozenset({"400-184"}),
        words=_words(
            r"jobs? (?:is|are) already running",  # "2 jobs are already running. Please try again once …"
            r"jobs? (?:is|are) allowed at a time",  # "Max 2 jobs are allowed at a time"
            r"job limit exceeded",  # "Job limit exceeded: A maximum of 2 jobs can run at the same time."
            r"too many (?:\w+ ){0,3}jobs",  # the article's list of causes: too many jobs in the queue
        ),
    ),
    _Pattern(
        meaning=_Meaning.NO_QUOTA,
        numbers=frozenset(),
        words=_words(  # "insufficient transaction quota"; a mere "transaction failed" proves nothing
            rf"\b(?:insufficient|not enough|exceed\w*|exhaust\w*|no(?: more)?)\b.{{0,40}}\b{_BUDGET}\b",
            rf"\b{_BUDGET}\b.{{0,40}}\b(?:insufficient|exceeded|exhausted|used up|remain\w*|left)\b",
        ),
        in_envelope_only=True,
    ),
    _Pattern(
        meaning=_Meaning.TOO_LARGE,
        numbers=frozenset({"400-185", "400-186"}),
        words=_words(r"\brecords at a time\b"),  # "… accepts minimum 1 and maximum 3000 records at a time."
        advice="There are too many ids in one request.",
    ),
    _Pattern(
        meaning=_Meaning.BAD_INPUT,
        numbers=frozenset(
            {"400-102", "400-103", "400-105", "400-106", "400-107", "400-108", "400-187", "400-188"}
        ),
        words=_words(
            r"\bids? (?:is|are) (?:not valid|invalid)",  # "Company id is not valid."
            r"\binvalid (?:\w+ ){0,2}ids?\b",
            r"illegal values? for",
            r"should not be (?:less|more) than",
            r"enter a valid number",
            r"\binvalid input\b",  # "Invalid input (i.e. invalid JSON or XML input)."
        ),
        in_envelope_only=True,
    ),
)
"""What the server means by what it says. Numbers count before words, and rows in this order."""

_READ_FOR_WORDS_BYTES: Final = 4096
"""How much of an answer without an error envelope is searched for words."""
_SHOWN: Final = 200
"""Characters of such an answer that are shown."""

_REDIRECT: Final = (
    "Redirects are never followed, as the token would go along. The base URL is wrong, or a captive portal "
    "or a proxy stands in between: check --base-url."
)
_MISCONFIGURED: Final = {
    301: _REDIRECT,
    302: _REDIRECT,
    307: _REDIRECT,
    308: _REDIRECT,
    403: "The token may not do this. Ask the vendor whether the key is entitled to this API.",
    404: "There is no such API at this address: check --base-url and --endpoint.",
    405: "This key may not use this API, or the address is wrong. Ask the vendor, check --base-url.",
    407: "A proxy stands in between and wants a password: check the network.",
    410: "This API is gone from this address: check --base-url and --endpoint.",
    411: "Something in between took the length away: check the network.",
    414: "The address is too long for the server: use a shorter --webhook.",
    415: "The server does not take this content type at this address: check --base-url and --endpoint.",
    426: "The server wants another protocol: check that --base-url begins with https.",
    431: "The headers are too large for the server: check the access token.",
}
"""Answers that every chunk would get: refused before the ids were looked at."""

_UNDECIDED: Final = {
    303: "It may mean that the job was made and is described elsewhere.",
    406: "The server may have made the job and only failed to word its answer.",
    408: "Something in between gave up waiting; the server may still have got the request.",
    409: "It does not say whether there is a job.",
    423: "It does not say whether there is a job.",
}


def judge(evidence: Evidence) -> Verdict:
    """Tells what one attempt to submit a chunk proves.

    Args:
        evidence: what the transport saw, for a submission and nothing else.

    Returns:
        `Accepted` and `Refused` are final. `NotApplied` is proof that the chunk may go out again.
        `Unknown` is everything else.
    """
    if evidence.phase < Phase.HEADERS_SENT:
        return NotApplied(cause=Cause.NOT_SENT, reason=f"Nothing was sent. {evidence.error or ''}".rstrip())
    match evidence.status:
        case None:
            return Unknown(reason=f"There was no answer. {evidence.error or ''}".rstrip())
        case status if 200 <= status <= 299:  # noqa: PLR2004 - the class of success
            return _judge_success(evidence)
        case 429:
            return _judge_throttle(evidence)
        case 401:
            return NotApplied(
                cause=Cause.UNAUTHORIZED,
                reason=_reason(evidence, "The access token is not valid (any more)."),
            )
        case 400 | 402 | 422:
            return _judge_refusal(evidence)
        case 421 | 425:
            return NotApplied(
                cause=Cause.NOT_PROCESSED, reason=_reason(evidence, "By definition it was not processed.")
            )
        case 413:
            return NotApplied(cause=Cause.TOO_LARGE, reason=_reason(evidence, "The body is too large."))
        case status if advice := _MISCONFIGURED.get(status):
            return NotApplied(cause=Cause.MISCONFIGURED, reason=_reason(evidence, advice))
        case status:
            doubt = _UNDECIDED.get(status, "That proves neither that there is a job nor that there is none.")
            return Unknown(reason=_reason(evidence, doubt), job_hint=find_job_hint(evidence.body))


def _judge_success(evidence: Evidence) -> Verdict:
    if evidence.body_cut:
        return _doubtful(evidence, "The answer is longer than any real one.")
    if evidence.phase < Phase.COMPLETE:
        return _doubtful(evidence, f"The answer broke off. {evidence.error or ''}".rstrip())
    try:
        answer = parse_submission(evidence.body)
    except MalformedAnswer as exc:
        return _doubtful(evidence, str(exc))
    if isinstance(answer, ErrorAnswer):
        return _doubtful(evidence, f"It says success, but holds an error: {answer}")
    remark = None
    if answer.state not in (JobState.ACCEPTED, JobState.PROCESSING):
        remark = f"The state of a job that was only just made is {answer.word!r}, not 'accepted'."
    return Accepted(job_id=answer.job_id, state=answer.state, job_type=answer.job_type, remark=remark)


def _doubtful(evidence: Evidence, text: str) -> Unknown:
    return Unknown(reason=_status(evidence, text), job_hint=find_job_hint(evidence.body))


def _judge_throttle(evidence: Evidence) -> Verdict:
    pattern = _pattern(evidence)
    full = pattern is not None and pattern.meaning is _Meaning.SLOTS_FULL
    wait_s = None
    if evidence.retry_after is not None:
        wait_s = parse_retry_after(evidence.retry_after, now_utc=evidence.ended_utc)
    return NotApplied(
        cause=Cause.SLOTS_FULL if full else Cause.THROTTLED, reason=_reason(evidence), retry_after_s=wait_s
    )


def _judge_refusal(evidence: Evidence) -> Verdict:
    """Tells apart what the server puts under one status: no slot, no quota, bad ids, and what we do not know."""
    pattern = _pattern(evidence)
    if pattern is None:
        doubt = "This program does not know that answer, so the chunk is not sent again by itself."
        return Unknown(reason=_reason(evidence, doubt), job_hint=find_job_hint(evidence.body))
    reason = _reason(evidence, pattern.advice)
    match pattern.meaning:
        case _Meaning.SLOTS_FULL:
            return NotApplied(cause=Cause.SLOTS_FULL, reason=reason)
        case _Meaning.NO_QUOTA:
            return NotApplied(cause=Cause.NO_QUOTA, reason=reason)
        case _Meaning.TOO_LARGE:
            # Not a refusal of these ids: parts of the chunk may pass.
            return NotApplied(cause=Cause.TOO_LARGE, reason=reason)
        case _Meaning.BAD_INPUT:
            return Refused(reason=reason)


def _pattern(evidence: Evidence) -> _Pattern | None:
    error = parse_error(evidence.body)
    if error is None:
        text = evidence.body[:_READ_FOR_WORDS_BYTES].decode("utf-8", "replace")
    else:
        for pattern in _MEANINGS:
            if error.error_number in pattern.numbers:
                return pattern
        text = f"{error.message} {error.error_type or ''}"
    return next(
        (
            pattern
            for pattern in _MEANINGS
            if pattern.words.search(text) and (error is not None or not pattern.in_envelope_only)
        ),
        None,
    )


def _reason(evidence: Evidence, advice: str = "") -> str:
    error = parse_error(evidence.body)
    if error is not None:
        said = f"The server says: {error}"
    elif evidence.body:
        text = evidence.body[: 2 * _SHOWN].decode("utf-8", "replace")
        said = f"The server says: {printable(text.strip(), limit=_SHOWN)}"
    else:
        said = ""
    return _status(evidence, " ".join(part for part in (advice, said) if part))


def _status(evidence: Evidence, text: str) -> str:
    return f"HTTP {evidence.status}. {text}".rstrip()
