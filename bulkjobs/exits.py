"""Exit codes, and which of several reasons is told."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import IntEnum

__all__ = ["Exit", "exit_code"]


class Exit(IntEnum):
    """Is what a run says to the shell."""

    ACCEPTED = 0
    """Every id accepted, duplicates aside."""
    BUG = 1
    USAGE = 2
    """Usage, configuration, or a source that cannot be read (any further)."""
    PARTS_REFUSED = 3
    """Finished, some ids invalid or refused."""
    HELD = 4
    STOPPED = 5
    """Stopped by quota, the spend cap, credentials or a server that is set up otherwise."""
    STORAGE = 6
    """Ledger or sink cannot be written."""
    SIGINT = 130
    SIGTERM = 143
    """Also by the command to drain: whoever looks after the process sees that it was told to stop."""


_STOPS_BY_RANK = (Exit.BUG, Exit.STORAGE, Exit.SIGINT, Exit.SIGTERM, Exit.STOPPED, Exit.USAGE)


def exit_code(ids: Mapping[str, int], stops: Collection[int], *, complete: bool = True) -> int:
    """Chooses the exit code of a session.

    Args:
        ids: counts as in the summary.
        stops: codes of all the reasons for which the session ended early.
        complete: the sources were read to their end and every record was handed on; if not, work is left even
            when nothing is pending.

    Returns:
        The highest-ranking reason: a bug, storage, a signal (if it left work), a stop by the server, a source,
        held chunks, ids that are not accepted.
    """
    work_left = ids["pending"] > 0 or not complete
    for stop in _STOPS_BY_RANK:
        if stop in stops and (stop not in (Exit.SIGINT, Exit.SIGTERM) or work_left):
            return int(stop)
    if ids["held"]:
        return int(Exit.HELD)
    if ids["invalid"] or ids["refused"]:
        return int(Exit.PARTS_REFUSED)
    return int(Exit.ACCEPTED)
