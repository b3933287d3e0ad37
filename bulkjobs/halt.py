"""The switch that ends sending, for whatever reason, and remembers every reason given."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from bulkjobs.exits import Exit

__all__ = ["Halt"]


class Halt:
    """Ends sending once it is pulled. Answers in flight are still awaited and recorded."""

    def __init__(self) -> None:
        """Makes a switch that is not pulled."""
        self._pulled = asyncio.Event()
        self._stops: list[tuple[Exit, str]] = []
        self._listeners: list[Callable[[str], None]] = []

    @property
    def pulled(self) -> bool:
        """Tells whether sending has ended."""
        return self._pulled.is_set()

    @property
    def codes(self) -> list[Exit]:
        """Gives the exit code of every reason."""
        return [code for code, _ in self._stops]

    @property
    def reasons(self) -> str | None:
        """Gives all reasons as one text, None while there is none."""
        return " ".join(reason for _, reason in self._stops) or None

    def on_pull(self, listener: Callable[[str], None]) -> None:
        """Has a function told the reason each time the switch is pulled."""
        self._listeners.append(listener)

    def note(self, code: Exit, reason: str) -> None:
        """Takes down a reason without ending anything. The first of each exit code stands.

        What stops one worker stops the others a moment later, each with a reason of its own wording.
        """
        if code not in self.codes:
            self._stops.append((code, reason))

    def pull(self, code: Exit, reason: str) -> None:
        """Ends sending. A second reason with the same exit code is not told."""
        if self.pulled and code in self.codes:
            return
        self.note(code, reason)
        self._pulled.set()
        for listener in self._listeners:
            listener(reason)

    async def pause(self, wait_s: float) -> bool:
        """Waits; gives at once, and False, when sending ends."""
        try:
            async with asyncio.timeout(wait_s):
                await self._pulled.wait()
        except TimeoutError:
            return True
        return False
