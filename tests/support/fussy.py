"""The simulated service, which also refuses bodies that are too large and ids that it calls bad."""

from __future__ import annotations

from typing import Any, Final

from bulkjobs.simulator import Service, ServiceConfig, SimReply, SimRequest

__all__ = ["FussyService"]

_BAD_IDS: Final = b'{"errorNumber": "400-187", "message": "Company id is not valid."}'
_JSON: Final = "application/json"


class FussyService(Service):
    """Looks at a submission before the simulated service does; all else is left to that."""

    def __init__(
        self,
        config: ServiceConfig,
        *,
        bad: frozenset[int] = frozenset(),
        most_bytes: int | None = None,
        most_ids: tuple[int, str] | None = None,
        **more: Any,
    ) -> None:
        """Makes a service.

        Args:
            config: of the simulated service.
            bad: ids for which a whole submission is refused, in words that do not name them.
            most_bytes: the largest body; a larger one is answered with 413.
            most_ids: how many ids are taken, and the number of the error for more.
            more: as for `Service`.
        """
        super().__init__(config, **more)
        self.bad = bad
        self.most_bytes = most_bytes
        self.most_ids = most_ids

    def handle(self, request: SimRequest, now: float) -> SimReply:
        """Answers one request."""
        return self._refusal(request) or super().handle(request, now)

    def _refusal(self, request: SimRequest) -> SimReply | None:
        if request.method != "POST" or not request.path.endswith("/contact/job"):
            return None
        ids = request.body.split(b"\n")
        if self.most_bytes is not None and len(request.body) > self.most_bytes:
            return SimReply(status=413, body=b"", content_type="text/html")
        if self.most_ids is not None and len(ids) > self.most_ids[0]:
            error = b'{"errorNumber": "%s", "message": "Too many."}' % self.most_ids[1].encode()
            return SimReply(status=400, body=error, content_type=_JSON)
        if any(int(one) in self.bad for one in ids):
            return SimReply(status=400, body=_BAD_IDS, content_type=_JSON)
        return None
