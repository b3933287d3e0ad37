"""The kinds of job that the service makes, as data: where they are asked for, of what ids, how answers call them.

Source: vendor articles "[POST] - Contact Details Job", "[GET] - Contact Details Job Status" and "[POST] - New Contact
Details Job". Of the last, the answer to a status request was not seen; it is taken to be like that of the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bulkjobs.simulator.idlist import count_ids, count_opaque_ids

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CONTACTS", "ENDPOINTS", "Endpoint"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Describes one kind of job."""

    path: str
    """Under the root of the API; everything about one job hangs below it."""
    job_type: str | None
    """As the list names it; None leaves that to the configuration."""
    types: tuple[str, str]
    """The `type` in the answer to a submission, and in that to a status request."""
    root: str
    """The XML root of both."""
    opaque: bool
    """Its ids are words, not numbers."""

    @property
    def count_ids(self) -> Callable[..., int]:
        """Is what checks and counts the ids of a body."""
        return count_opaque_ids if self.opaque else count_ids


CONTACTS: Final = Endpoint(
    path="/contact/job",
    job_type=None,
    # The vendor's `type` is `contacts` at first and `contact` from then on.
    types=("contacts", "contact"),
    root="BulkLeadEnrichmentStatus",
    opaque=False,
)
ENDPOINTS: Final = (
    CONTACTS,
    Endpoint(
        path="/target/contact/job",
        job_type="targetContactDetails",
        types=("targetContactDetails", "targetContactDetails"),
        root="BulkJobStatus",
        opaque=True,
    ),
)
