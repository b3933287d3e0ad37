"""Sends one request that may be sent again: a login, a status request, a list.

Submits have a way of their own, through the ledger's chunk states, because repeating one costs money.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bulkjobs.account.gate import Permit, PermitWithdrawn
from bulkjobs.model import Evidence, Phase
from bulkjobs.wire.times import parse_retry_after

if TYPE_CHECKING:
    from collections.abc import Callable

    from bulkjobs.account.gate import Gate
    from bulkjobs.model import Request, RequestKind
    from bulkjobs.ports import RequestLog, Transport

__all__ = ["THROTTLED", "exchange"]

THROTTLED: Final = 429
"""The status that closes the account. Source: vendor article "Throttling and Quota Monitoring Overview"."""


async def exchange(
    request: Request,
    *,
    gate: Gate,
    transport: Transport,
    request_log: RequestLog,
    on_turn: Callable[[], None] | None = None,
) -> Evidence:
    """Waits for its turn, sends the request once and reports its end to the gate and to the log.

    Args:
        request: to be sent.
        gate: lets it through.
        transport: carries it.
        request_log: keeps when it was sent.
        on_turn: called when the gate lets it through; again if a lock-out then kept it from leaving.

    Returns:
        The evidence. A throttle answer is among it and has closed the gate by then: asking again waits.

    Raises:
        GateStopped: requests of this kind are stopped.
        LedgerError: the request could not be logged; nothing was sent.
    """
    while True:
        evidence = await _try(request, gate, transport, request_log, on_turn)
        if evidence is not None:
            return evidence


async def _try(
    request: Request,
    gate: Gate,
    transport: Transport,
    request_log: RequestLog,
    on_turn: Callable[[], None] | None,
) -> Evidence | None:
    """Gives None when a lock-out began between the permit and the first byte."""
    number: int | None = None

    async def before_first_byte() -> None:
        nonlocal number
        permit.check()
        number = await request_log.begin_request(request.kind)
        permit.check()  # the account may have been locked out while the disk was written

    with await gate.admit(request.kind) as permit:
        if on_turn is not None:
            on_turn()
        evidence: Evidence | None = None
        try:
            evidence = await transport.request(request, before_first_byte=before_first_byte)
        except PermitWithdrawn:
            permit.not_sent()
        else:
            _report(permit, request.kind, evidence)
    if number is not None:
        request_log.end_request(number, None if evidence is None else evidence.status)
    return evidence


def _report(permit: Permit, kind: RequestKind, evidence: Evidence) -> None:
    if evidence.status == THROTTLED:
        asked = evidence.retry_after
        wait_s = None if asked is None else parse_retry_after(asked, now_utc=evidence.ended_utc)
        permit.throttled(wait_s, f"a {kind.value} request was answered with HTTP {THROTTLED}")
    elif evidence.status is not None:
        permit.answered()
    elif evidence.phase < Phase.HEADERS_SENT:
        permit.not_sent()
    else:
        permit.lost()
