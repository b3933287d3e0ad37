"""One thread and one order of things: the event loop, the thread pool and the ledger's writer of a simulation.

Three things differ between two runs of the same program on a virtual clock: what a thread does meanwhile, in which
order a set gives tasks whose hash is an address, and the interpreter's own chance. Here work for threads runs on
the loop after a drawn delay, the ledger's writer is a callback on the loop, and tasks are numbered. What stays real
is SQLite and the files: a commit is a commit, and a group of writes is a group.
"""

from __future__ import annotations

import asyncio
import math
from asyncio import Handle, TimerHandle
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context, ContextVar
from heapq import heapify, heappop, heappush
from io import IOBase
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from bulkjobs.errors import LedgerError
from bulkjobs.ledger.schema import Database
from bulkjobs.ledger.writer import Keeper, Writer, _Outcome
from bulkjobs.testing import _TICK_S, VirtualClockLoop
from support.simulation.changes import WatchedDatabase
from support.simulation.databases import Hold
from support.simulation.process import Process

if TYPE_CHECKING:
    from concurrent.futures import Executor

__all__ = ["PROCESS", "LoopWriter", "SimulationLoop"]

PROCESS: ContextVar[Process] = ContextVar("PROCESS")
"""The simulated process that the running task belongs to; tasks and callbacks inherit it."""

_T = TypeVar("_T")

_MANY_TIMERS: Final = 100
"""As in `BaseEventLoop`; putting timers in order anew changes the order of those that are due together."""
_MOST_PASSES: Final = 20_000_000
"""A loop that turns this often without an end waits for nothing; a run of thousands of chunks takes a hundredth."""


class _NumberedTask(asyncio.Task[Any]):
    """Is a task whose hash is its number, so that sets of tasks are walked in the same order each time."""

    def __init__(self, number: int, coro: Coroutine[Any, Any, Any], **more: Any) -> None:
        self._number = number  # before asyncio keeps the task in a set
        super().__init__(coro, **more)

    def __hash__(self) -> int:
        return self._number


class SimulationLoop(VirtualClockLoop):
    """Is a virtual loop on which the work of threads is done by the loop itself, some time later."""

    _ready: deque[Handle]
    _scheduled: list[Any]
    _stopping: bool
    _timer_cancelled_count: int

    def __init__(self) -> None:
        super().__init__()
        self._tasks_made = 0
        self._passes = 0
        self._files: list[IOBase] = []
        """Opened by threads. Whoever is cancelled meanwhile never hears of the file that was opened for it."""
        self.set_task_factory(self._numbered)

    def after(self, delay_s: float, callback: Callable[..., object], *args: object) -> None:
        """Calls something later; what takes no time needs no timer."""
        if delay_s:
            self.call_later(delay_s, callback, *args)
        else:
            self.call_soon(callback, *args)

    def close(self) -> None:
        """Closes the loop, and what is left open."""
        super().close()
        for file in self._files:
            file.close()

    def _numbered(
        self, loop: asyncio.AbstractEventLoop, coro: Any, context: Context | None = None
    ) -> asyncio.Future[Any]:
        self._tasks_made += 1
        return _NumberedTask(self._tasks_made, coro, loop=loop, context=context)

    def _run_once(self) -> None:
        """Makes a pass as `BaseEventLoop` does; but no socket and no thread is ever waited for, so nobody is asked."""
        self._passes += 1
        if self._passes > _MOST_PASSES:
            raise RuntimeError(f"The simulation does not end: {_MOST_PASSES:,} passes of the loop.")
        timers = self._without_cancelled()
        now_s = self._clock.now_s
        later_s = now_s + _TICK_S
        if later_s <= now_s:  # as far from zero as this, the clock takes the smallest step it can
            later_s = math.nextafter(now_s, math.inf)
        ready = self._ready
        if not ready and not self._stopping:
            if not timers:
                raise RuntimeError("Nothing will ever happen: no timer is set and no task can go on.")
            later_s += max(0.0, timers[0]._when - now_s)
        self._clock.now_s = later_s
        due_s = later_s + _TICK_S
        while timers and timers[0]._when < due_s:
            timer = heappop(timers)
            timer._scheduled = False
            ready.append(timer)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()

    def _without_cancelled(self) -> list[Any]:
        """Gives the timers, the first of which stands; when most are cancelled, they are all put in order anew."""
        timers = self._scheduled
        if len(timers) > _MANY_TIMERS and self._timer_cancelled_count > len(timers) / 2:
            timers = self._scheduled = [timer for timer in timers if not timer._cancelled]
            heapify(timers)
            self._timer_cancelled_count = 0
        while timers and timers[0]._cancelled:
            self._timer_cancelled_count -= 1
            heappop(timers)
        return timers

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        """Calls something in the next pass; as `BaseEventLoop` does, but for what it checks."""
        handle = Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> TimerHandle:
        """Calls something at a time; as `BaseEventLoop` does, but for what it checks."""
        timer = TimerHandle(when, callback, args, self, context)
        heappush(self._scheduled, timer)
        timer._scheduled = True  # type: ignore[attr-defined]
        return timer

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> TimerHandle:
        """Calls something after a time."""
        return self.call_at(self._clock.now_s + delay, callback, *args, context=context)

    def run_in_executor(
        self, executor: Executor | None, func: Callable[..., _T], *args: object
    ) -> asyncio.Future[_T]:
        """Runs a function later, on this thread; like a thread it cannot be stopped once it has begun."""
        future: asyncio.Future[_T] = self.create_future()
        process = PROCESS.get()
        self.after(process.disk_s(), self._work, process, future, func, args)
        return future

    def _work(
        self, process: Process, future: asyncio.Future[_T], func: Callable[..., _T], args: Sequence[object]
    ) -> None:
        if future.cancelled():
            return
        process.step("thread begins")
        try:
            result = func(*args)
        except BaseException as error:  # noqa: BLE001 - it reaches whoever waits
            tell = _fail, error
        else:
            tell = cast("Any", (_succeed, result))
            if isinstance(result, IOBase):
                self._files.append(result)
        process.step("thread has ended")
        self.after(process.disk_s(), tell[0], future, tell[1])


def _succeed(future: asyncio.Future[_T], result: _T) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[_T], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


class LoopWriter(Writer):
    """Is the ledger's writer without its thread: groups are committed by a callback of the loop.

    How long entries gather, and how long their callers wait to be told, is drawn, so groups of all sizes come about
    and a process may die before a commit, or after it and before anybody knows. Committing, grouping and failing
    are those of `Writer`.
    """

    def __init__(self, name: str, connect: Callable[[], Database], keeper: Keeper | None = None) -> None:
        super().__init__(name, connect, keeper)
        self._clock = None  # nothing happens outside of the loop
        self._process = PROCESS.get()
        self._database: Database | None = None
        self._due: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        try:
            database = self._connect()
            self._process.opened(database.execute("SELECT ordinal, state FROM chunk").fetchall())
            # 2 is FULL. With less, SQLite's write-ahead log is on the disk only when a checkpoint has come.
            self._process.synced = database.execute("PRAGMA synchronous").fetchone()[0] >= 2
            if isinstance(database, Hold):
                database.watched(self._process.committed)
                self._database = database
            else:
                self._database = WatchedDatabase(database, self._process.committed)
        except Exception as error:
            self._fault = error if isinstance(error, LedgerError) else self._broken(error)
            raise self._fault from error

    async def close(self) -> None:
        if self._closing or self._database is None:
            return
        self._closing = True
        self._flush()
        try:
            self._keeper.end()
            if self._fault is None:
                self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._database.close()
        except Exception as error:  # noqa: BLE001 - told below
            self._fault = self._fault or self._broken(error)
        if self._fault is not None:
            raise LedgerError(*self._fault.args)

    def _gather(self, _turns: int) -> None:
        self._due = self._loop.call_later(self._process.disk_s(), self._flush)

    def _flush(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
        group, self._waiting = self._waiting, []
        if not group:
            return
        assert self._database is not None
        self._process.step("before a commit")
        self._write(self._database, group)
        self._process.step("after a commit")

    def _call_loop(
        self, function: Callable[[Sequence[_Outcome]], None], outcomes: Sequence[_Outcome]
    ) -> None:
        cast("SimulationLoop", self._loop).after(self._process.disk_s(), function, outcomes)
