"""A simulated process: it lives from step to step and ends at the one that was chosen for it.

A step is any moment at which a real process could be stopped with a difference: before and after a commit, before
the first byte, when an answer is there, before and after a thread works on a file. All of them call `step`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Final

from bulkjobs.engine import Engine
from bulkjobs.model import RunSummary
from support.simulation.changes import Change

__all__ = ["End", "Ending", "Process"]

_QUICK_SHARE: Final = 0.7
_USUAL_S: Final = 0.02
_SLOW_S: Final = 5.0
_SLOW_SHARE: Final = 0.001


class End(StrEnum):
    """Is how a process is made to end."""

    CRASH = auto()
    """As by SIGKILL: the files stay as they are at this moment, nothing is cleaned up."""
    POWER = auto()
    """As by a power failure: what SQLite has not synced is gone as well."""
    DRAIN = auto()
    """As by the first signal."""
    STOP = auto()
    """As by two signals at once."""
    CANCEL = auto()
    """The host program cancels the engine's task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """Says at which step of its life a process meets its end, and how long it is until the next one starts."""

    how: End
    step: int
    pause_s: float
    torn: float = 0.0
    """Of what stands in the file of job records behind its last known length, the share that a crash loses."""


class Process:
    """Counts steps and calls what was planned for one of them."""

    def __init__(
        self,
        number: int,
        *,
        born_at: float,
        draw: random.Random,
        at: dict[int, Callable[[], None]],
        opened: Callable[[Sequence[tuple[int, str]]], None],
        committed: Callable[[Process, Sequence[Change]], None],
        note: Callable[[str], None],
    ) -> None:
        """Makes a process.

        Args:
            number: from 1.
            born_at: the server's time.
            draw: for its delays; its own, so that what happens to one request does not change all others.
            at: what happens at which step; beyond the last step nothing does.
            opened: told ordinals and states of the chunks in a ledger that was opened.
            committed: told what the ledger of this process committed.
            note: keeps the trace.
        """
        self.number = number
        self.alive = True
        """False from the moment of the crash: what its tasks still do is seen by nobody."""
        self.synced = True
        """Its ledger syncs each commit."""
        self.steps = 0
        self.born_at = born_at
        self.known_lockout = 0
        """Number of the last lock-out that the server has told this process of."""
        self.blind_in_lockout = 0
        """Requests sent into a lock-out of which this process could not know."""
        self.engine: Engine
        self.task: asyncio.Task[RunSummary]
        self._draw = draw
        self._at = at
        self._opened = opened
        self._committed = committed
        self._note = note

    def step(self, where: str) -> None:
        """Takes one step; the process may be dead when this returns."""
        if not self.alive:
            return
        self.steps += 1
        action = self._at.get(self.steps)
        if action is not None:
            self._note(
                f"process {self.number}: step {self.steps}, {where}: {getattr(action, '__name__', '?')}"
            )
            action()

    def disk_s(self) -> float:
        """Draws how long a disk or a thread takes."""
        if not self.alive:
            return 0.0
        chance = self._draw.random()
        if chance < _QUICK_SHARE:
            return 0.0
        return self._draw.random() * (_USUAL_S if chance < 1 - _SLOW_SHARE else _SLOW_S)

    def opened(self, rows: Sequence[tuple[int, str]]) -> None:
        """Takes the chunks that a ledger holds when this process opens it."""
        if self.alive:
            self._opened(rows)

    def committed(self, changes: Sequence[Change]) -> None:
        """Takes what its ledger committed."""
        if self.alive:
            self._committed(self, changes)
