"""Ways to break the engine on purpose: a judge that passes one of these would pass anything.

`SABOTAGE=name` in the environment of a session started by `crashing` spoils one thing that the promise rests on.
"""

from __future__ import annotations

import fcntl
from collections.abc import Awaitable, Callable
from typing import Any, Final

__all__ = ["SABOTAGES", "spoil"]


def spoil(name: str) -> None:
    """Breaks one thing in this process."""
    SABOTAGES[name]()


def _retry_on_timeout() -> None:
    """Takes a lost answer for a request that was not sent."""
    from bulkjobs import worker
    from bulkjobs.model import Cause, NotApplied, Unknown

    judge: Any = getattr(worker, "judge")  # noqa: B009 - the module does not export it

    def hopeful(evidence: Any) -> Any:
        verdict = judge(evidence)
        if isinstance(verdict, Unknown):
            return NotApplied(cause=Cause.NOT_SENT, reason="hope")
        return verdict

    setattr(worker, "judge", hopeful)  # noqa: B010 - as above


def _intent_after_send() -> None:
    """Records that a chunk is being sent when its answer is there."""
    from bulkjobs.api import HttpTransport

    request: Any = HttpTransport.request

    async def late(
        self: Any, what: Any, *, before_first_byte: Callable[[], Awaitable[None]] | None = None
    ) -> Any:
        evidence = await request(self, what)
        if before_first_byte is not None:
            await before_first_byte()
        return evidence

    setattr(HttpTransport, "request", late)  # noqa: B010 - mypy refuses the plain assignment


def _in_flight_is_planned_at_start() -> None:
    """Sends again, after a crash, what was being sent."""
    from bulkjobs.ledger import ledger

    begin: Any = getattr(ledger, "_begin_session")  # noqa: B009 - it is private

    def forget(database: Any, now: float) -> Any:
        sending = database.execute("SELECT ordinal FROM chunk WHERE state = 'sending'").fetchall()
        result = begin(database, now)
        for (ordinal,) in sending:
            database.execute("UPDATE chunk SET state = 'planned' WHERE ordinal = ?", (ordinal,))
        return result

    setattr(ledger, "_begin_session", forget)  # noqa: B010 - as above


def _bloom_filter() -> None:
    """Takes one id in 97 for a duplicate."""
    from bulkjobs.seen import SeenIds

    add: Any = SeenIds.add

    def guess(self: Any, ids: Any) -> Any:
        return add(self, ids) & (ids % 97 != 0)

    setattr(SeenIds, "add", guess)  # noqa: B010 - as above


def _redirects_followed() -> None:
    """Lets the HTTP client go where a server sends it, and takes away what stops a request from being repeated."""
    import aiohttp

    from bulkjobs import api
    from bulkjobs.model import Phase

    request: Any = aiohttp.ClientSession.request
    on_headers: Any = getattr(api, "_on_headers")  # noqa: B009 - it is private

    def obedient(self: Any, *arguments: Any, **named: Any) -> Any:
        return request(self, *arguments, **{**named, "allow_redirects": True})

    async def again(session: Any, context: Any, parameters: Any) -> None:
        trail = context.trace_request_ctx
        if trail.phase >= Phase.HEADERS_SENT:
            trail.phase, trail.before_first_byte = Phase.CONNECTED, None
        await on_headers(session, context, parameters)

    setattr(aiohttp.ClientSession, "request", obedient)  # noqa: B010 - as above
    setattr(api, "_on_headers", again)  # noqa: B010 - as above


def _last_line_dropped() -> None:
    """Forgets what stands behind the last newline."""
    from bulkjobs.chunking import Chunker, Cut

    def end(self: Any) -> Cut:
        self._rest = b""
        return Cut()

    setattr(Chunker, "end", end)  # noqa: B010 - as above


def _no_lock() -> None:
    """Lets everyone work on the run."""
    setattr(fcntl, "flock", lambda *_: None)  # noqa: B010 - as above


SABOTAGES: Final[dict[str, Callable[[], None]]] = {
    "retry_on_timeout": _retry_on_timeout,
    "intent_after_send": _intent_after_send,
    "in_flight_is_planned_at_start": _in_flight_is_planned_at_start,
    "bloom_filter": _bloom_filter,
    "redirects_followed": _redirects_followed,
    "last_line_dropped": _last_line_dropped,
    "no_lock": _no_lock,
}
