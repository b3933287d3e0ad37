"""The kinds of bulk job, as data. Another endpoint is another row.

Source: vendor articles "[POST] - Contact Details Job" (path, body, limit, content type, names), "[GET] - Contact
Details Job Status" (status path) and "[POST] - New Contact Details Job" (path, body, limit).
"""

from __future__ import annotations

from dataclasses import dataclass

from bulkjobs.errors import ConfigError
from bulkjobs.ids import IdForm

__all__ = ["ENDPOINTS", "Endpoint", "endpoint_named"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Describes one kind of bulk job.

    The server's `type` and XML root differ between the answers of one endpoint (`contacts` on submission,
    `contact` on status), so nothing is ever decided on them and they are not here.
    """

    name: str
    path: str
    """Submission path under the base URL; status, results and cancellation hang below it."""
    max_ids: int
    """Most ids in one request."""
    content_type: str
    """Sent bare: whether the server takes a `charset` parameter is not known."""
    id_form: IdForm
    """What its ids look like, wherever they are read or looked for."""


ENDPOINTS: dict[str, Endpoint] = {
    endpoint.name: endpoint
    for endpoint in (
        Endpoint(
            name="contacts",
            path="/contact/job",
            max_ids=10_000,
            content_type="text/plain",
            id_form=IdForm.INTEGER,
        ),
        Endpoint(
            name="target-contacts",
            path="/target/contact/job",
            max_ids=10_000,
            content_type="text/plain",
            id_form=IdForm.OPAQUE,
        ),
    )
}


def endpoint_named(name: str) -> Endpoint:
    """Finds an endpoint.

    Raises:
        ConfigError: there is none of that name; the message lists what there is.
    """
    try:
        return ENDPOINTS[name]
    except KeyError:
        known = ", ".join(sorted(ENDPOINTS))
        raise ConfigError(f"There is no endpoint of the name given (--endpoint). Known: {known}.") from None
