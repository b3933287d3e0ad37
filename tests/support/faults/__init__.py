"""A proxy that does harm to connections, requests and answers on purpose; see `proxy`."""

from support.faults.catalogue import (
    FAULTS,
    answer_late,
    answering,
    drip,
    interim_flood,
    reset_mid_body,
    spoiling,
    toxic,
)
from support.faults.exchange import Exchange, Fault, Seen, Stage
from support.faults.plan import Plan
from support.faults.proxy import FaultProxy
from support.faults.stream import Message, Toxic

__all__ = [
    "FAULTS",
    "Exchange",
    "Fault",
    "FaultProxy",
    "Message",
    "Plan",
    "Seen",
    "Stage",
    "Toxic",
    "answer_late",
    "answering",
    "drip",
    "interim_flood",
    "reset_mid_body",
    "spoiling",
    "toxic",
]
