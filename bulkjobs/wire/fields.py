"""Bytes of an answer in, named fields out, and what a field may hold: JSON and XML end here.

Names are compared without regard to case. What is passed on is short and printable, or refused with a ValueError.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from bulkjobs.model import JobId, JobState
from bulkjobs.wire.json_answer import read_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "count_of",
    "is_state",
    "job_id_of",
    "job_type_of",
    "lowered",
    "printable",
    "read_document",
    "read_fields",
    "state_of",
    "text_of",
]

_MAX_BYTES: Final = 1024 * 1024
"""No answer that is read here is longer; results are read elsewhere."""
_MAX_TEXT: Final = 500
"""Characters of a server's text that are passed on."""
_JOB_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
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


def read_fields(body: bytes) -> dict[str, object]:
    """Reads the fields of an answer, their names in lower case.

    Raises:
        ValueError: it is neither JSON nor XML.
    """
    document = read_document(body)
    # A JSON writer that was made for XML keeps the root: {"BulkLeadEnrichmentStatus": {…}}.
    while len(document) == 1:
        (inner,) = document.values()
        if not isinstance(inner, dict):
            break
        document = inner
    return lowered(document.items())


def read_document(body: bytes) -> dict[str, object]:
    """Reads a JSON object, or the children of an XML root, as they stand.

    Raises:
        ValueError: it is neither.
    """
    if len(body) > _MAX_BYTES:
        raise ValueError("it is longer than any answer")
    # White space first is legal; some gateways send it to keep a connection alive.
    text = body.removeprefix(_UTF8_BOM).lstrip()
    if text.startswith((b"<", *_UTF16_BOMS)):
        from bulkjobs.wire.xml_answer import read_xml  # noqa: PLC0415 - lxml comes with it; most answers are JSON

        return read_xml(text)
    if text.startswith((b"{", b"[")):
        return read_json(text)
    raise ValueError("it is neither JSON nor XML" if text else "it is empty")


def lowered(pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    """Gives fields with their names in lower case."""
    pairs = list(pairs)
    fields: dict[str, object] = {name.lower(): value for name, value in pairs}
    if len(fields) == len(pairs):
        return fields
    fields = {}
    for name, value in pairs:
        before = fields.setdefault(name.lower(), value)
        if before is not value and before != value:
            # Two spellings of one name that disagree: a list is no value that anybody takes.
            fields[name.lower()] = [before, value]
    return fields


def text_of(fields: Mapping[str, object], *names: str) -> str | None:
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


def job_id_of(fields: Mapping[str, object]) -> JobId:
    """Gives the one job id of an answer."""
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


def state_of(fields: Mapping[str, object]) -> tuple[JobState, str]:
    """Gives the state of a job, and how the server wrote it: empty when it gave none."""
    # `jobStatus` first: where both stand, `status` is an HTTP status.
    word = text_of(fields, "jobstatus", "status") or ""
    return _STATES.get(word.lower(), JobState.UNKNOWN), word


def job_type_of(fields: Mapping[str, object]) -> str:
    """Gives the kind of a job as the server wrote it; empty when it gave none."""
    return text_of(fields, "jobtype", "type") or ""


def count_of(value: object) -> int | None:
    """Gives a number of things; None for anything else."""
    digits = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    return int(digits) if re.fullmatch(r"[0-9]{1,18}", digits) else None


def printable(text: str, *, limit: int = _MAX_TEXT) -> str:
    """Gives a foreign text in one line without control characters, at most `limit` characters and a `…`."""
    if len(text) > limit:
        text = text[:limit] + "…"
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def is_state(word: str) -> bool:
    """Tells whether a word is a state of a job."""
    return word.lower() in _STATES
