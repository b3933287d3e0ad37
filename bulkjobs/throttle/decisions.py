"""What the throttle answers, and what it is told: the words that its rules share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum, auto

__all__ = ["Admit", "Decision", "Outcome", "WaitForSlot", "WaitUntil"]


class Outcome(Enum):
    """Is how a request ended, as far as the account is concerned."""

    NOT_SENT = auto()
    """No byte left: the server has counted nothing."""
    ANSWERED = auto()
    """An answer came, whatever it says, but not a throttle."""
    UNKNOWN_END = auto()
    """We gave up waiting: the server may still be about to count it."""
    THROTTLED = auto()


@dataclass(frozen=True, slots=True)
class Admit:
    """Says that the request may go now."""


@dataclass(frozen=True, slots=True)
class WaitUntil:
    """Says that no request may go, and when to ask again."""

    at: float
    """Infinite when only the end of a request in flight can change the answer."""
    reason: str


@dataclass(frozen=True, slots=True)
class WaitForSlot:
    """Says that no submit may go, while other kinds may; to be asked again when a job or a submit ends."""

    reason: str
    at: float = math.inf
    """When to ask again even if no job ends; infinite when there is no such time."""


Decision = Admit | WaitUntil | WaitForSlot
