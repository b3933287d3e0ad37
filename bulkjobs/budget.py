"""How many ids a run may spend, kept exactly by workers that send at the same time.

A worker reserves the ids of a chunk before its first attempt. What is accepted or held stays spent, what turned out
not to have been applied is given back. A chunk that fits only if something is given back waits to see whether it is;
one that cannot fit any more whatever comes back ends the sending.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Budget", "CapReached", "Share"]


class CapReached(Exception):  # noqa: N818 - a condition that the caller handles, not a fault
    """Says that ids would be one too many for the cap, whatever is given back. Nothing of them was sent."""

    def __init__(self, cap: int, spent: int) -> None:
        """Takes the cap, and the ids that are accepted or held."""
        super().__init__(f"{spent:,} of {cap:,} ids are spent")
        self.cap = cap
        self.spent = spent


class Share:
    """Holds the ids of one chunk, as a `with` block. They are given back on leaving, unless they were `spent`."""

    __slots__ = ("_budget", "_ids", "_spent")

    def __init__(self, budget: Budget, ids: int) -> None:
        self._budget = budget
        self._ids = ids
        self._spent = False

    def spent(self) -> None:
        """Notes that there is a job of them, or may be one."""
        self._spent = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # What ended in an error may have been sent.
        self._budget._settle(self._ids, spent=self._spent or error is not None)  # noqa: SLF001 - a share is a part of its budget


class Budget:
    """Hands out shares of what a run may still spend."""

    def __init__(self, cap: int | None = None, *, spent: int = 0) -> None:
        """Opens the budget.

        Args:
            cap: most ids that may be accepted, held or in flight; None for no cap.
            spent: ids that are accepted or held by now.
        """
        self._cap = math.inf if cap is None else cap
        self._spent = spent
        self._reserved = 0
        self._changed = asyncio.Event()
        self._closed = False

    async def reserve(self, ids: int) -> Share | None:
        """Waits until so many ids fit, together with all that may still be given back.

        Returns:
            The share, to be entered with `with` before the next await; None when the budget was closed.

        Raises:
            CapReached: they cannot fit any more.
        """
        while not self._closed:
            if self._spent + ids > self._cap:
                raise CapReached(int(self._cap), self._spent)
            if self._spent + self._reserved + ids <= self._cap:
                self._reserved += ids
                return Share(self, ids)
            self._changed.clear()
            await self._changed.wait()
        return None

    def close(self) -> None:
        """Hands out nothing more; who waits gets nothing."""
        self._closed = True
        self._changed.set()

    def _settle(self, ids: int, *, spent: bool) -> None:
        self._reserved -= ids
        if spent:
            self._spent += ids
        self._changed.set()
