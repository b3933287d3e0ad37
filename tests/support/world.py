"""A service, a source of ids and a run directory, at which one engine after the other works on virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Self

from bulkjobs.engine import Engine
from bulkjobs.events import Event
from bulkjobs.model import Request
from bulkjobs.ports import Sink, Source, Transport
from bulkjobs.rundir import RunDir
from bulkjobs.settings import Settings
from bulkjobs.simulator import Service, ServiceConfig
from bulkjobs.sinks import open_sink
from bulkjobs.sources import FileSource
from bulkjobs.testing import VirtualClock, run_virtual
from support.simulated import Account, SimulatedTransport

__all__ = ["FIRST_ID", "SimulatedWorld", "run_on"]

FIRST_ID: Final = 5_000_001


def run_on(clock: VirtualClock, main: Coroutine[Any, Any, Any]) -> Any:
    """Runs something on virtual time; what comes next on this clock begins where it ended."""

    async def timed() -> Any:
        try:
            return await main
        finally:
            elapsed.append(asyncio.get_running_loop().time())

    elapsed: list[float] = []
    try:
        return run_virtual(timed())
    finally:
        clock.epoch_utc += sum(elapsed)


class SimulatedWorld:
    """Is what outlives an engine."""

    def __init__(self, tmp_path: Path, config: ServiceConfig, *, chunks: int, settings: Settings) -> None:
        self.tmp_path = tmp_path
        self.service = Service(config)
        self.clock = VirtualClock()
        self.settings = settings
        self.ids = range(FIRST_ID, FIRST_ID + chunks * (settings.chunk_size or 0))
        self.source = tmp_path / "ids.txt"
        self.source.write_text("\n".join(map(str, self.ids)) + "\n")
        self.run_dir = tmp_path / "run"
        self.events: list[Event] = []
        self.transport = self.new_transport()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.service.close()

    def new_transport(self, on_leaving: Callable[[Request], Any] | None = None) -> SimulatedTransport:
        """Gives the next engines a transport of their own."""
        self.transport = SimulatedTransport(
            self.service,
            clock=self.clock,
            request_timeout_s=self.settings.request_timeout_s,
            on_leaving=on_leaving,
        )
        return self.transport

    def engine(
        self,
        *,
        sources: Sequence[Source] | None = None,
        sinks: Sequence[Sink] | None = None,
        observe: Callable[[Event], None] | None = None,
        transport: Transport | None = None,
        run_dir: Path | None = None,
        **changed: Any,
    ) -> Engine:
        """Makes an engine with other settings where any are given."""
        folder = RunDir(run_dir or self.run_dir)
        return Engine(
            replace(self.settings, **changed),
            folder,
            sources=[FileSource(self.source)] if sources is None else sources,
            sinks=[open_sink(folder.jobs)] if sinks is None else sinks,
            observers=[self.events.append, *([observe] if observe else [])],
            clock=self.clock,
            transport=transport or self.transport,
            jitter=random.Random(1),
        )

    def go(self, main: Coroutine[Any, Any, Any]) -> Any:
        """Runs something on virtual time; what comes next begins where it ended."""
        return run_on(self.clock, main)

    def seen(self, kind: type[Any]) -> list[Any]:
        """Gives the events of a kind."""
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def account(self) -> Account:
        """Is what the service and the run say, after everything else."""
        return Account.of(self.run_dir, self.service, self.clock.epoch_utc + 1e9)

    def check(self) -> dict[str, Any]:
        """Compares them, and gives what the run's summary should be."""
        return self.account.check(self.ids)
