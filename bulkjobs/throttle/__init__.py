"""Decides when the account may send its next request: the window, the lock-out, the open-job slots.

Everything here is a value or arithmetic on values. Clock readings are arguments, in seconds on one monotonic
axis, so that thirty days pass in a test as fast as they can be added up. One module a rule: `window`, `lockout`,
`slots`; `controller` asks all of them.
"""

from __future__ import annotations

from bulkjobs.throttle.controller import Throttle, Ticket
from bulkjobs.throttle.decisions import Admit, Decision, Outcome, WaitForSlot, WaitUntil
from bulkjobs.throttle.lockout import LOCKOUT_MARGIN, MAX_RETRY_AFTER_S
from bulkjobs.throttle.slots import MAX_SLOT_RETRY_S
from bulkjobs.throttle.window import GRACE_S

__all__ = [
    "GRACE_S",
    "LOCKOUT_MARGIN",
    "MAX_RETRY_AFTER_S",
    "MAX_SLOT_RETRY_S",
    "Admit",
    "Decision",
    "Outcome",
    "Throttle",
    "Ticket",
    "WaitForSlot",
    "WaitUntil",
]
