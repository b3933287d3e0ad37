"""Writes answers as JSON or XML, with the standard library only.

A client under test reads them with other libraries, so the two cannot share a mistake.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Final

from bulkjobs.simulator.messages import SimReply

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bulkjobs.simulator.messages import Refusal

__all__ = ["JSON", "XML", "Answer", "Row", "Scalar", "error_answer", "render"]

JSON: Final = "application/json"
XML: Final = "application/xml"

Scalar = str | int
Row = dict[str, Scalar]

# No sample of these lists in XML was seen, so the names of their items are the simulator's own.
_ITEM_NAMES: Final = {"bulkJobs": "bulkJob", "usageForAccount": "usage", "creditsForAccount": "credits"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Is the content of an answer, whatever form it is written in."""

    root: str
    """The XML root element."""
    content: Mapping[str, Scalar | Sequence[Row]] | Sequence[Row]
    wrapped: bool = False
    """The JSON form, too, has the content under the root's name."""


def error_answer(refusal: Refusal, diagnostic_code: str) -> Answer:
    """Gives the error envelope. Source: vendor article "API Error Codes"; the XML root was not seen."""
    kinds = {
        400: "Bad Request",
        401: "Unauthorized",
        404: "Not Found",
        405: "Method Not Allowed",
        413: "Content Too Large",
        415: "Unsupported Media Type",
        429: "Too Many Requests",
        500: "Internal Server Error",
    }
    return Answer(
        root="error",
        content={
            "errorType": kinds.get(refusal.status, "Error"),
            "status": refusal.status,
            "errorNumber": refusal.number,
            "message": refusal.message,
            "diagnosticCode": diagnostic_code,
        },
    )


def render(
    answer: Answer, *, as_json: bool, status: int = 200, headers: tuple[tuple[str, str], ...] = ()
) -> SimReply:
    """Writes an answer in the form that was asked for."""
    if as_json:
        document = {answer.root: answer.content} if answer.wrapped else answer.content
        body, content_type = json.dumps(document).encode(), JSON
    else:
        body, content_type = _xml(answer), XML
    return SimReply(status=status, body=body, content_type=content_type, headers=headers)


def _xml(answer: Answer) -> bytes:
    text = f"<?xml version='1.0' encoding='UTF-8'?>\n{_element(answer.root, answer.content)}"
    return text.encode(errors="xmlcharrefreplace")


def _element(name: str, content: Scalar | Mapping[str, Scalar | Sequence[Row]] | Sequence[Row]) -> str:
    if isinstance(content, (str, int)):
        inside = escape(str(content), quote=False)
    elif isinstance(content, Mapping):
        inside = "".join([_element(*one) for one in content.items()])
    else:
        inside = "".join([_element(_ITEM_NAMES[name], row) for row in content])
    return f"<{name}>{inside}</{name}>" if inside else f"<{name} />"
