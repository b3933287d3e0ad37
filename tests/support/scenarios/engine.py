"""Plays a scenario with the whole engine: gate, tracker, ledger and all, against the whole simulated service.

It is the same file and the same figures as with the pure controller, over a shorter time, so that what stands
between the controller and the wire is covered as well. The clock is virtual; the ledger is a real one.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import random
import shutil
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from unittest import mock

from bulkjobs.account.joining import open_throttle
from bulkjobs.account.shared import SharedThrottle
from bulkjobs.engine import Engine
from bulkjobs.errors import LedgerError
from bulkjobs.model import Evidence, Request
from bulkjobs.rundir import RunDir
from bulkjobs.simulator import Service
from bulkjobs.simulator.config import Limit
from bulkjobs.simulator.messages import Kind, SimReply
from bulkjobs.sinks import open_sink
from bulkjobs.sources import FileSource
from bulkjobs.testing import EPOCH_UTC, VirtualClock, run_virtual
from bulkjobs.throttle import Throttle
from support.scenarios.optimum import Means
from support.scenarios.playing import Report, report_of
from support.scenarios.scenario import Event, Scenario
from support.simulated import SimulatedTransport, as_seen, crash_image

__all__ = ["play_engine"]

_FIRST_ID: Final = 5_000_001
_THROTTLED: Final = b"429-151"
_MOST_SESSIONS: Final = 50


def play_engine(scenario: Scenario, folder: Path) -> Report:
    """Plays a scenario for as many chunks as it says for the engine; `folder` is empty."""
    assert scenario.engine_chunks is not None
    if scenario.settings.state_dir != "none":
        scenario = replace(scenario, settings=replace(scenario.settings, state_dir=folder / "state"))
    with (
        Service(replace(scenario.config, job_time=scenario.job_times[0])) as service,
        mock.patch("bulkjobs.access.open_throttle", _open_known_throttle),
    ):
        return run_virtual(_World(scenario, service, folder).run())


class _Run:
    """Is one run, which process after process works at; several share the account."""

    def __init__(self, folder: Path, number: int, chunks: int) -> None:
        self.run_dir = folder / f"run-{number}"
        self.image = folder / f"image-{number}"
        self.source = folder / f"ids-{number}.txt"
        first = _FIRST_ID + number * chunks
        self.source.write_text("".join(f"{first + each}\n" for each in range(chunks)))
        self.killed = asyncio.Event()
        self.throttle: Throttle | None = None
        """Of the process at work."""


_RUN: contextvars.ContextVar[_Run] = contextvars.ContextVar("_RUN")


@asynccontextmanager
async def _open_known_throttle(*arguments: Any, **more: Any) -> AsyncIterator[Throttle]:
    """Remembers the throttle of a process, so that a kill can keep it from leaving the account in order."""
    async with open_throttle(*arguments, **more) as throttle:
        _RUN.get().throttle = throttle
        yield throttle


class _World:
    """Is a service, the way to it, the runs, and what happens meanwhile."""

    def __init__(self, scenario: Scenario, service: Service, folder: Path) -> None:
        self._scenario = scenario
        self._service = service
        chunks = (scenario.engine_chunks or 0) // scenario.processes
        self._runs = [_Run(folder, number, chunks) for number in range(scenario.processes)]
        self._clock = VirtualClock()
        self._way = _Way(scenario, service)
        self._due: deque[Event] = deque()
        self._restarts = 0

    async def run(self) -> Report:
        began_s = time.process_time()
        loop = asyncio.get_running_loop()
        happening = [loop.create_task(self._happen(event)) for event in self._scenario.events]
        looking = loop.create_task(self._keep_looking())
        await asyncio.gather(*[loop.create_task(self._work_at(run)) for run in self._runs])
        finished_s = loop.time()
        for task in (*happening, looking):
            task.cancel()
        way = self._way
        return report_of(
            self._scenario,
            self._service._throttle,
            finished_s=finished_s,
            simulated_s=finished_s,
            requests=way.let_through,
            jobs=self._service._books.jobs,
            means=Means(
                answer_s=way.answer_s / max(1, way.sent), job_s=_middle(self._scenario) if way.sent else 0.0
            ),
            restarts=self._restarts,
            sent_into_lockouts=way.sent_into_lockouts,
            cpu_s=time.process_time() - began_s,
        )

    async def _work_at(self, run: _Run) -> None:
        """Lets process follow upon process until one ends by itself."""
        _RUN.set(run)
        for _ in range(_MOST_SESSIONS):
            run.killed = asyncio.Event()
            task = asyncio.ensure_future(self._new_engine(run).run())
            dying = asyncio.ensure_future(run.killed.wait())
            await asyncio.wait([task, dying], return_when=asyncio.FIRST_COMPLETED)
            dying.cancel()
            if task.done():
                await task
                return
            await self._bury(run, task)
        raise RuntimeError(f"it did not end within {_MOST_SESSIONS} sessions")

    def _new_engine(self, run: _Run) -> Engine:
        paths = RunDir(run.run_dir)
        return Engine(
            self._scenario.settings,
            paths,
            sources=[FileSource(run.source)],
            sinks=[open_sink(paths.jobs)],
            observers=[],
            clock=self._clock,
            transport=_Transport(self._service, self._clock, self._way, lambda: self._look(run)),
            jitter=random.Random(f"jitter/{self._scenario.seed}/{self._restarts}"),
        )

    async def _bury(self, run: _Run, task: asyncio.Task[Any]) -> None:
        """Ends what is left of a killed process, puts the files back as they were, and waits."""
        event = self._due.popleft()
        self._restarts += 1
        task.cancel()
        with suppress(asyncio.CancelledError, LedgerError):
            await task
        shutil.rmtree(run.run_dir)
        run.image.rename(run.run_dir)
        self._clock.epoch_utc += event.by_s
        await asyncio.sleep((event.down.min_s + event.down.max_s) / 2)

    async def _keep_looking(self) -> None:
        """Looks while nothing is sent."""
        while True:
            await asyncio.sleep(1.0)
            if self._due and self._due[0].when != "in flight":
                self._look(self._runs[self._restarts % len(self._runs)])

    def _look(self, run: _Run) -> None:
        """Kills a process if a kill is due and this is its moment: what is on the disk now is what is left."""
        dying = any(each.killed.is_set() for each in self._runs)
        if not self._due or dying or not self._way.is_moment(self._due[0]):
            return
        crash_image(run.run_dir, run.image)
        if isinstance(run.throttle, SharedThrottle):
            run.throttle._broken = LedgerError("The process was killed.")
        run.killed.set()

    async def _happen(self, event: Event) -> None:
        loop = asyncio.get_running_loop()
        throttle, at_s, every_s = self._service._throttle, event.at_s, event.every_s
        if event.what == "foreign":
            assert throttle.limit is not None
            every_s = throttle.limit.window_s / event.count
        while at_s < event.until_s:
            await asyncio.sleep(at_s - loop.time())
            now = EPOCH_UTC + loop.time()
            open_now = now >= throttle.locked_until
            match event.what:
                case "restart":
                    self._due.append(event)
                case "clock":
                    self._clock.epoch_utc += event.by_s
                case "lock-out" if open_now:
                    throttle.lock(now)
                case "foreign" if open_now:
                    throttle.admit(Kind.STATUS, now)
                case "limit":
                    assert throttle.limit is not None
                    throttle.limit = Limit(count=event.count, window_s=throttle.limit.window_s)
            at_s += every_s


class _Way:
    """Is what lies between every process and the service, and what was seen there."""

    def __init__(self, scenario: Scenario, service: Service) -> None:
        self._scenario = scenario
        self._service = service
        self._draw = random.Random(f"network/{scenario.seed}")
        self._under_way: set[asyncio.Task[SimReply]] = set()
        self._begun: deque[float] = deque()
        self._told_at: dict[int, float] = {}
        self.in_flight = 0
        self.sent = 0
        self.answer_s = 0.0
        self.let_through = 0
        self.sent_into_lockouts = 0

    def is_moment(self, event: Event) -> bool:
        """Tells whether a kill that waits for a moment should come now, while a request leaves."""
        rate = self._scenario.settings.rate
        match event.when:
            case "any" | "in flight":
                return True
            case "window used up":
                return rate is not None and len(self._begun) >= rate.count
            case "locked out":
                now = EPOCH_UTC + asyncio.get_running_loop().time()
                return bool(self._told_at) and now < self._service._throttle.locked_until

    async def carry(self, request: Request) -> SimReply:
        """Brings a request to the service and its answer back; it arrives whether or not anybody waits for it."""
        loop = asyncio.get_running_loop()
        network, draw = self._scenario.network, self._draw
        slow = network.slow is not None and draw.random() < network.slow_share
        span = network.slow if slow and network.slow is not None else network.answer
        answer_s = draw.uniform(span.min_s, span.max_s)
        rate = self._scenario.settings.rate
        late = {"start": False, "end": True, "worst": rate is None or self.sent // rate.count % 2 == 0}
        share = {True: 0.99, False: 0.01}[late[network.counted]] if network.counted in late else draw.random()
        self.sent += 1
        self.answer_s += answer_s
        begun_at = loop.time()
        self._begun.append(begun_at)
        while rate is not None and self._begun[0] < begun_at - rate.period_s:
            self._begun.popleft()
        arrival = loop.create_task(self._arrive(request, begun_at, answer_s * share))
        self._under_way.add(arrival)
        arrival.add_done_callback(self._under_way.discard)
        reply = await asyncio.shield(arrival)
        await asyncio.sleep(answer_s * (1 - share))
        if _THROTTLED in reply.body:
            self._told_at.setdefault(len(self._service._throttle.lockouts) - 1, loop.time())
        return reply

    async def _arrive(self, request: Request, begun_at: float, after_s: float) -> SimReply:
        await asyncio.sleep(after_s)
        reply = self._service.handle(as_seen(request), EPOCH_UTC + asyncio.get_running_loop().time())
        if _THROTTLED in reply.body:
            lockout = len(self._service._throttle.lockouts) - 1
            self.sent_into_lockouts += begun_at > self._told_at.get(lockout, math.inf)
        else:
            self.let_through += 1
        return reply


class _Transport(SimulatedTransport):
    """Sends the requests of one process on their way."""

    def __init__(self, service: Service, clock: VirtualClock, way: _Way, look: Callable[[], None]) -> None:
        super().__init__(service, clock=clock)
        self._way = way
        self._look = look

    async def request(
        self, request: Request, *, before_first_byte: Callable[[], Awaitable[None]] | None = None
    ) -> Evidence:
        """Sends one request; see `ports.Transport`."""
        started_utc = self._clock.utc()
        if before_first_byte is not None:
            await before_first_byte()
        sent_utc = self._clock.utc()
        carried = asyncio.ensure_future(self._way.carry(request))
        await asyncio.sleep(0)  # it leaves, and only then may the process die
        self._look()
        try:
            async with asyncio.timeout(self._timeout_s if math.isfinite(self._timeout_s) else None):
                reply = await carried
        except TimeoutError:
            reply = None
        return self._seen(reply, started_utc, sent_utc)

    def _seen(self, reply: SimReply | None, started_utc: float, sent_utc: float) -> Evidence:
        if reply is None:
            reply = SimReply(status=200, body=b"", content_type="", delay_s=math.inf)
        return self._evidence(reply, started_utc, sent_utc)


def _middle(scenario: Scenario) -> float:
    span = scenario.job_times[0]
    return (span.min_s + span.max_s) / 2
