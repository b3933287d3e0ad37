"""What each command does to a session: checked first, then on record, then in force, then told."""

from __future__ import annotations

import os
from collections.abc import Callable
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


class Commands:
    """Carries commands out in one session."""

    def __init__(
        self,
        *,
        run_id: str,
        gate: Gate,
        pool: Pool[Any],
        halt: Halt,
        ledger: Ledger,
        emit: Callable[[Event], None],
    ) -> None:
        """Takes what commands act on."""
        self._run_id = run_id
        self._gate = gate
        self._pool = pool
        self._halt = halt
        self._ledger = ledger
        self._emit = emit

    async def obey(self, command: Command, origin: str) -> Answer:
        """Carries a command out.

        Args:
            command: what somebody wants.
            origin: who that is, in words.

        Returns:
            What is in force now, or why nothing was changed.

        Guarantees:
            A change is on record before it is in force.
        """
        if isinstance(command, Ask):
            return self.state()
        if refusal := self._refusal(command):
            return Refusal("refused", refusal)
        name, value = words_of(command)
        try:
            await self._ledger.record_control(name, value, origin)
        except LedgerError as error:
            return Refusal("storage", f"Nothing was changed, because it cannot be recorded: {error}")
        self._emit(Controlled(command=name, value=value, origin=origin))
        self._apply(command, origin)
        return self.state()

    def state(self) -> State:
        """Gives what is in force."""
        gate = self._gate
        until_utc = gate.locked_until_utc
        return State(
            run_id=self._run_id,
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

    def _apply(self, command: Command, origin: str) -> None:
        match command:
            case Ask():
                pass
            case Pause():
                self._gate.pause()
            case Resume():
                self._gate.resume()
            case Drain():
                self._halt.pull(Exit.SIGTERM, f"`drain` was given ({origin}).")
            case SetRate(rate):
                self._gate.set_rate(rate)
            case SetWorkers(count):
                self._pool.resize(count)
            case _:
                assert_never(command)
