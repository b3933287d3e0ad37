"""What goes into the service and what comes out of it: requests and replies as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Kind", "Refusal", "SimReply", "SimRequest", "Wire"]


class Kind(StrEnum):
    """Is what a request is for. Throttling, faults and the books tell requests apart by it."""

    SUBMIT = "submit"
    STATUS = "status"
    RESULTS = "results"
    FILE = "file"
    """The download of a results file by its link. It has no token, so it is of no account: never throttled."""
    CANCEL = "cancel"
    LIST = "list"
    USAGE = "usage"
    LOGIN = "login"
    OTHER = "other"
    """A path or a method that the service does not have."""


class Wire(Enum):
    """Is how a reply is put on the wire."""

    ANSWER = "answer"
    """Whole, and the connection stays open."""
    RESET = "reset"
    """Not at all: the connection is reset (RST)."""
    CLOSE = "close"
    """Not at all: the connection is closed in order (FIN)."""
    CUT = "cut"
    """Status, headers with the full length and half of the body, then the connection is closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimRequest:
    """Is one HTTP request as the service sees it."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes = b""

    @property
    def wants_json(self) -> bool:
        """Tells whether to answer in JSON; XML is the default, also when `Accept` is absent."""
        if self.path.endswith(".json"):
            return True
        accept = self.headers.get("accept", "").lower()
        json_at, xml_at = accept.find("json"), accept.find("xml")
        return json_at >= 0 and (xml_at < 0 or json_at < xml_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class SimReply:
    """Is one answer, and what becomes of it on its way."""

    status: int
    body: bytes
    content_type: str
    headers: tuple[tuple[str, str], ...] = ()
    """Besides the content type and the length."""
    delay_s: float = 0.0
    """Simulated seconds between the arrival of the request, when it took effect, and this answer."""
    wire: Wire = Wire.ANSWER


class Refusal(Exception):  # noqa: N818 - it is a normal answer of the service, not an error of it
    """Carries an answer other than 200 from the rule that decides it to the one place that writes it."""

    def __init__(
        self, status: int, number: str, message: str, *, headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__(message)
        self.status = status
        self.number = number
        """The `errorNumber`. Those below 400-150 are the vendor's; the others are the simulator's own."""
        self.message = message
        self.headers = headers
