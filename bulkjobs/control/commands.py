"""What each command does to a session: checked first, then on record, then in force, then told."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, assert_never

from bulkjobs.account.gate import Gate
from bulkjobs.clock import timestamp
from bulkjobs.control.protocol import (
    Answer,
    Ask,
    Command,
    Drain,
    Pause,
    Refusal,
    Resume,
    SetRate,
    SetWorkers,
    State,
    words_of,
)
from bulkjobs.errors import ConfigError, LedgerError
from bulkjobs.events import Controlled, Event
from bulkjobs.exits import Exit
from bulkjobs.halt import Halt
from bulkjobs.ledger import Ledger
from bulkjobs.pool import Pool, require_files

__all__ = ["Commands"]


@dataclass(frozen=True, slots=True)
class _Session:
    """Is what commands act on besides, as long as the session is open."""

    run_id: str
    gate: Gate
    ledger: Ledger


class Commands:
    """Carries commands out in one session, one after the other, whoever gives them."""

    def __init__(self, *, pool: Pool[Any], halt: Halt, emit: Callable[[Event], None]) -> None:
        """Takes what commands act on."""
        self._pool = pool
        self._halt = halt
        self._emit = emit
        self._session: _Session | None = None
        self._turn = asyncio.Lock()

    @contextmanager
    def in_session(self, run_id: str, gate: Gate, ledger: Ledger) -> Iterator[None]:
        """Carries commands out as long as the block lasts."""
        self._session = _Session(run_id, gate, ledger)
        try:
            yield
        finally:
            self._session = None

    async def obey(self, command: Command, origin: str) -> Answer:
        """Carries a command out.

        Args:
            command: what somebody wants.
            origin: who that is, in words.

        Returns:
            What is in force now, or why nothing was changed.

        Guarantees:
            A change is on record before it is in force. One that is cancelled may be on record alone.
        """
        async with self._turn:
            session = self._session
            if session is None:
                return Refusal("refused", "The session is just beginning or ending. Nothing was changed.")
            if isinstance(command, Ask):
                return self._state(session)
            if refusal := self._refusal(command):
                return Refusal("refused", refusal)
            name, value = words_of(command)
            try:
                await session.ledger.record_control(name, value, origin)
            except LedgerError as error:
                return Refusal("storage", f"Nothing was changed, because it cannot be recorded: {error}")
            self._emit(Controlled(command=name, value=value, origin=origin))
            self._apply(command, session.gate, origin)
            return self._state(session)

    def _state(self, session: _Session) -> State:
        """Gives what is in force."""
        gate = session.gate
        until_utc = gate.locked_until_utc
        return State(
            run_id=session.run_id,
            pid=os.getpid(),
            paused=gate.paused and not self._halt.pulled,
            draining=self._halt.pulled,
            rate=None if gate.rate is None else str(gate.rate),
            window_used=None if gate.rate is None else gate.used,
            locked_until=None if until_utc is None else timestamp(until_utc),
            workers=self._pool.size,
            in_flight=gate.in_flight,
        )

    def _refusal(self, command: Command) -> str | None:
        if self._halt.pulled and not isinstance(command, Drain):
            return "Nothing more is sent: the session is about to end."
        if isinstance(command, SetWorkers):
            try:
                require_files(command.count)
            except ConfigError as error:
                return str(error)
        return None

    def _apply(self, command: Command, gate: Gate, origin: str) -> None:
        match command:
            case Ask():
                pass
            case Pause():
                gate.pause()
            case Resume():
                gate.resume()
            case Drain():
                self._halt.pull(Exit.SIGTERM, f"`drain` was given ({origin}).")
            case SetRate(rate):
                gate.set_rate(rate)
            case SetWorkers(count):
                self._pool.resize(count)
            case _:
                assert_never(command)
