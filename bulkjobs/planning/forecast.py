"""Does the quota last? What is left of it for this run, against the ids that are still to be sent.

    left = allocated - consumed - ours that are not debited yet - what others may have spent unseen

Every part of it is read to the safe side, and the rules for that stand here and nowhere else:

- Ids are debited when the processing of their job starts, and the server's count may miss the last five minutes
  (vendor articles "Using the Bulk APIs" and "API Usage"). So a job of ours counts until its processing was seen to
  have begun five minutes before the count was read.
- A job that nobody has seen begin counts for a day. "Usually between 1 minute and a few hours", says the vendor, so
  by then it has been debited; without this bound a run whose jobs nobody follows would count them twice for ever.
- A held chunk may be such a job.
- What others spent within these five minutes nobody can know. A full job in each slot of the account is assumed,
  since a slot sees about one start in that time; nothing if nobody else uses the account (`--exclusive`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["Forecast", "Sample", "others_allowance", "still_undebited_since"]

_LAG_S: Final = 300.0
"""What the server's count may miss. Source: vendor article "[GET] - API Usage"."""
_LONGEST_QUEUE_S: Final = 86_400.0
_SLOTS: Final = 2
"""Of an account for which no number is given. Source: the refusal "2 jobs are already running"."""


def still_undebited_since(read_utc: float) -> tuple[float, float]:
    """Tells which jobs the server's count may miss.

    Args:
        read_utc: when the count was read.

    Returns:
        Two times: jobs accepted since the first count unless they were seen to begin; jobs seen to begin, or to have
        ended, since the second count as well.
    """
    return read_utc - _LONGEST_QUEUE_S, read_utc - _LAG_S


def others_allowance(*, exclusive: bool, slots: int | None, most_ids: int) -> int:
    """Gives the ids that others may have spent and the server's count does not show yet.

    Args:
        exclusive: nobody else uses the account.
        slots: jobs that the account may have open; None if there is no limit of ours.
        most_ids: in one job.
    """
    return 0 if exclusive else (slots or _SLOTS) * most_ids


@dataclass(frozen=True, slots=True)
class Sample:
    """Is how many ids stand in the first bytes of some sources, as they are stored."""

    ids: int = 0
    size_bytes: int = 0

    def __add__(self, other: Sample) -> Sample:
        return Sample(self.ids + other.ids, self.size_bytes + other.size_bytes)

    def ids_in(self, size_bytes: int) -> int | None:
        """Estimates the ids in so many bytes of the same kind; None if there is nothing to go by."""
        return round(self.ids * size_bytes / self.size_bytes) if self.size_bytes else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Is what the quota leaves for a run, and what the run needs."""

    allocated: int
    consumed: int
    undebited: int
    """Ids of this run that the server may not have counted yet."""
    allowance: int
    """What others may have spent that it has not counted either."""
    needed: int | None
    """Ids still to be sent; None if nobody can tell."""
    exact: bool
    """These were counted, and not estimated."""

    @property
    def left(self) -> int:
        """Is what the run may count on, 0 or more."""
        return max(0, self.allocated - self.consumed - self.undebited - self.allowance)

    @property
    def fits(self) -> bool | None:
        """Tells whether the run fits into what is left; None if nobody can tell."""
        return None if self.needed is None else self.needed <= self.left
