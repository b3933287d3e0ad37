"""Whether what people told a run while it worked is recorded as a session records it.

Times are not compared with those of sessions: between two commands somebody may have set the clock.
"""

from __future__ import annotations

from collections.abc import Iterator

from bulkjobs.audit.findings import Findings, told
from bulkjobs.control.protocol import Ask, command_of
from bulkjobs.errors import ConfigError
from bulkjobs.ledger.inspection import Inspection
from bulkjobs.ledger.values import ControlRow

__all__ = ["check_orders"]

_NEXT = "Put back a copy of the ledger, or take it that nobody knows what was told."


def check_orders(inspection: Inspection, findings: Findings) -> list[ControlRow]:
    """Checks the commands that sessions took, and gives them in their order."""
    orders = inspection.controls()
    sessions = {session.number for session in inspection.sessions()}
    for number, order in enumerate(orders, 1):
        for text in _wrong(number, order, sessions):
            findings.differ("ledger", f"{text} {_NEXT}")
    return orders


def _wrong(number: int, order: ControlRow, sessions: set[int]) -> Iterator[str]:
    name = f"Command {order.number} of `bulkjobs control`"
    if order.number != number:
        yield f"{name} stands where command {number} belongs."
    if order.session not in sessions:
        yield f"{name} was taken by session {order.session}, which is not there."
    if order.at is None:
        yield f"{name} has a time that no clock shows: {order.at_utc}."
    if not order.origin.strip():
        yield f"{name} does not say who gave it."
    try:
        command = command_of(order.command, order.value)
    except ConfigError as error:
        yield f"{name} is none that this version of bulkjobs knows: {told(error)}"
        return
    if isinstance(command, Ask):
        yield f"{name} changes nothing: no session records it."
