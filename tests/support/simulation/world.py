"""A whole simulation: one process after the other works on the same run until it is finished, then it is judged."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import random
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from bulkjobs.engine import Engine
from bulkjobs.errors import LedgerLocked
from bulkjobs.exits import Exit
from bulkjobs.ledger.schema import DATABASE_NAME
from bulkjobs.model import RunSummary
from bulkjobs.rundir import RunDir
from bulkjobs.simulator import FaultPlan, Service
from bulkjobs.simulator.faults import Faults
from bulkjobs.sinks import open_sink
from bulkjobs.sources import FileSource
from bulkjobs.testing import EPOCH_UTC, VirtualClock
from support.judge import judge_run
from support.simulated import crash_image
from support.simulation.databases import OpenDatabases
from support.simulation.ending import judge_end
from support.simulation.loop import PROCESS
from support.simulation.network import Internet, Network
from support.simulation.process import End, Ending, Process
from support.simulation.reference import expected_of
from support.simulation.scenario import Scenario
from support.simulation.watch import Watch

__all__ = ["Outcome", "World"]

_LONGEST_S: Final = 60 * 86_400.0
_MOST_SESSIONS: Final = 200
_FINISHED: Final = (Exit.ACCEPTED, Exit.PARTS_REFUSED, Exit.HELD)
_FRESH_ID: Final = b"4611686018427387904"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Is what came of a simulation."""

    seed: int
    violations: list[str]
    """What broke at a step, and what `judged` holds."""
    judged: list[str]
    """What the input, the books of the service and the files of the run show at the end."""
    by_the_judge: list[str]
    """What the judge of the soaks and of the crash points says at the end, if it was asked."""
    trace_hash: str
    trace: list[str]
    """Empty unless it was asked for."""
    chunks: int
    processes: int
    virtual_s: float
    seen: Counter[str]
    """How often what was met."""


class World:
    """Is everything of one simulation."""

    def __init__(
        self,
        scenario: Scenario,
        service: Service,
        folder: Path,
        databases: OpenDatabases | None,
        *,
        keep_trace: bool = False,
        to_the_end: bool = False,
    ) -> None:
        """Lays out the input; nothing runs yet."""
        self.scenario = scenario
        self.service = service
        self.folder = folder
        self._databases = databases
        self.clock = VirtualClock()
        self.expected = expected_of(scenario.files, scenario.chunk_size)
        self.run_dir = folder / "run"
        self._to_the_end = to_the_end
        self._keep_trace = keep_trace
        self._trace: list[str] = []
        self._hash = hashlib.blake2b(digest_size=16)
        self._alarm: asyncio.Event
        self.watch = Watch(
            scenario,
            self.expected,
            service,
            server_utc=_server_utc,
            note=self.note,
            alarm=self._ring,
        )
        self.internet = Internet(scenario, service, self.watch, _server_utc)
        self._judged: list[str] = []
        self._by_the_judge: list[str] = []
        self._processes = 0
        self._virtual_s = 0.0
        self._jitter = random.Random(f"jitter/{scenario.seed}")
        self._sources = [folder / f"ids-{number}.txt" for number in range(len(scenario.files))]
        for path, text in zip(self._sources, scenario.files, strict=True):
            path.write_bytes(text)

    def note(self, what: str) -> None:
        """Adds a line to the trace."""
        line = f"{asyncio.get_running_loop().time():.9f} {what}"
        self._hash.update(line.encode() + b"\n")
        if self._keep_trace:
            self._trace.append(line)

    def _ring(self) -> None:
        if not self._to_the_end:
            self._alarm.set()

    def outcome(self) -> Outcome:
        """Gives what came of it."""
        return Outcome(
            seed=self.scenario.seed,
            violations=self.watch.violations + self._judged,
            judged=self._judged,
            by_the_judge=self._by_the_judge,
            trace_hash=self._hash.hexdigest(),
            trace=self._trace,
            chunks=len(self.expected.chunks),
            processes=self._processes,
            virtual_s=self._virtual_s,
            seen=self.watch.seen,
        )

    async def run(self) -> None:
        """Lets process follow upon process until the run is finished, then sends a fresh chunk."""
        self._alarm = asyncio.Event()
        asyncio.get_running_loop().set_exception_handler(self._unheard)
        alarm = asyncio.ensure_future(self._alarm.wait())
        work = asyncio.ensure_future(self._work())
        _, pending = await asyncio.wait(
            [work, alarm], return_when=asyncio.FIRST_COMPLETED, timeout=_LONGEST_S
        )
        if work in pending and not self.watch.violations:
            self.watch.broken(f"I14 the run did not end within {_LONGEST_S / 86_400:.0f} days")
        for task in pending:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        self._virtual_s = asyncio.get_running_loop().time()
        if work.done() and not work.cancelled() and (error := work.exception()) is not None:
            self.watch.broken(f"the engine raised {type(error).__name__}: {error}")
        gc.collect()  # while what nobody asked for can still be told of

    def _unheard(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Takes what asyncio has nobody else to tell of."""
        self.watch.broken(f"asyncio says: {context.get('message')} {context.get('exception')!r}")

    async def _work(self) -> None:
        second = None
        if self.scenario.second_after_s is not None:
            second = asyncio.ensure_future(self._start_second(self.scenario.second_after_s))
        for ending in self.scenario.endings:
            await self.session(ending)
            await asyncio.sleep(ending.pause_s)
        summary = await self._finish()
        if second is not None:
            await second
        if summary is None:
            return
        await self._judge(summary)
        self.internet.faults_left = 0
        self.service._faults = Faults(FaultPlan(), seed=0)
        if self.scenario.settings.on_unknown == "reconcile" and summary.ids["held"]:
            await self._settle_the_rest()
        if not self._judged:
            await self._send_fresh_chunk()

    async def _start_second(self, after_s: float) -> None:
        """Gives the same command while the first one still works: it must be refused before it sends anything."""
        await asyncio.sleep(after_s)
        try:
            await self.session(None)
        except LedgerLocked:
            return
        self.watch.broken("I2 a second process was not refused")

    async def _finish(self) -> RunSummary | None:
        """Gives the command again, as a person would, until there is nothing left to do."""
        told = "it was cancelled"
        for _ in range(_MOST_SESSIONS):
            summary = await self.session(None)
            if summary is None:
                break
            told = f"exit code {summary.exit_code}, {summary.chunks}"
            if summary.exit_code in _FINISHED:
                return summary
            if summary.exit_code != Exit.STOPPED:
                break
            await asyncio.sleep(30.0)
        self.watch.broken(f"I14 the run does not end: {told}")
        return None

    # One process

    async def session(self, ending: Ending | None) -> RunSummary | None:
        """Runs one process to its end; gives its summary unless it was made to end otherwise."""
        process, crashed = self._new_process(ending)
        engine = self._new_engine(process, self.run_dir, self._sources)
        task = asyncio.get_running_loop().create_task(_in_process(process, engine))
        process.engine, process.task = engine, task
        dying = asyncio.ensure_future(crashed.wait())
        await asyncio.wait([task, dying], return_when=asyncio.FIRST_COMPLETED)
        dying.cancel()
        if crashed.is_set():
            assert ending is not None
            self.watch.ended(process, in_order=False)
            await self._bury(task, ending)
            return None
        try:
            summary = await task
        except asyncio.CancelledError:
            summary = None
        self.watch.ended(process, in_order=True)
        self.note(f"process {process.number} ended with {summary and summary.exit_code}")
        return summary

    def _new_process(self, ending: Ending | None) -> tuple[Process, asyncio.Event]:
        self._processes += 1
        number = self._processes
        crashed = asyncio.Event()

        def crash() -> None:
            assert ending is not None
            self.watch.seen[f"end {ending.how}"] += 1
            crash_image(self.run_dir, self.folder / "image")
            if ending.how is End.POWER and not process.synced:
                self._forget_unsynced()
            if self._databases is not None:
                self._databases.crash(self.run_dir / DATABASE_NAME)
            process.alive = False
            crashed.set()

        def end() -> None:
            assert ending is not None
            self.watch.seen[f"end {ending.how}"] += 1
            asyncio.get_running_loop().call_soon(_END[ending.how], process)

        at: dict[int, Callable[[], None]] = {}
        if ending is not None:
            at[ending.step] = crash if ending.how in (End.CRASH, End.POWER) else end
            if ending.how is End.POWER:
                self._keep_synced()
        for jump in self.scenario.jumps:
            if jump.process == number:
                at.setdefault(jump.step, self._jump(jump.by_s))
        process = Process(
            number,
            born_at=_server_utc(),
            draw=random.Random(f"process/{self.scenario.seed}/{number}"),
            at=at,
            opened=self.watch.opened,
            committed=self.watch.committed,
            note=self.note,
        )
        return process, crashed

    def _keep_synced(self) -> None:
        """Keeps what the disk is known to have: the ledger as the process before left it."""
        shutil.rmtree(self.folder / "synced", ignore_errors=True)
        (self.folder / "synced").mkdir()
        for path in self.run_dir.glob("ledger.db*"):
            shutil.copy(path, self.folder / "synced")

    def _forget_unsynced(self) -> None:
        for path in (self.folder / "image").glob("ledger.db*"):
            path.unlink()
        for path in (self.folder / "synced").iterdir():
            shutil.copy(path, self.folder / "image")

    def _jump(self, by_s: float) -> Callable[[], None]:
        def jump() -> None:
            self.clock.epoch_utc += by_s
            self.watch.jumped(by_s)

        return jump

    def _new_engine(self, process: Process, run_dir: Path, sources: Sequence[Path]) -> Engine:
        paths = RunDir(run_dir)

        def observe(event: Any) -> None:
            if process.alive:
                self.watch.event(process, event)

        return Engine(
            self.scenario.settings,
            paths,
            sources=[FileSource(path) for path in sources],
            sinks=[open_sink(paths.jobs)],
            observers=[observe],
            clock=self.clock,
            transport=Network(self.internet, process, self.clock),
            jitter=self._jitter,
        )

    async def _bury(self, task: asyncio.Task[RunSummary], ending: Ending) -> None:
        """Ends what is left of a process that has crashed, and puts the files back as they were at the crash."""
        task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await task
        if self._databases is not None:
            self._databases.bury()
        shutil.rmtree(self.run_dir)
        (self.folder / "image").rename(self.run_dir)
        jobs = self.run_dir / "jobs.jsonl"
        known = self._delivered_bytes()
        if jobs.exists() and jobs.stat().st_size > known:
            # The last lines may not have been written whole.
            left = known + int((jobs.stat().st_size - known) * ending.torn)
            with jobs.open("r+b") as file:
                file.truncate(left)

    def _delivered_bytes(self) -> int:
        """Gives up to where the file of job records was delivered: as many lines as chunks are."""
        delivered = sum(state == "delivered" for state in self.watch.states.values())
        lines = (self.run_dir / "jobs.jsonl").read_bytes().splitlines(keepends=True) if delivered else []
        return sum(map(len, lines[:delivered]))

    # The end

    async def _judge(self, summary: RunSummary) -> None:
        """Holds the end of a run against the input and the service's books, from its files alone."""
        self._judged += judge_end(self.expected, self.service, self.run_dir, summary)
        if self.scenario.config.books is not None:
            self._by_the_judge = judge_run(self._sources, self.scenario.config.books, self.run_dir).violations
        sent = self.watch.seen["sent submit"]
        again = await self.session(None)
        if self.scenario.settings.on_unknown == "reconcile" and summary.ids["held"]:
            return  # it looks at the server's list once more, which may settle something now
        if again != summary or self.watch.seen["sent submit"] != sent:
            self._judged.append(f"I9 the same command once more came to another end: {again}, not {summary}")

    async def _settle_the_rest(self) -> None:
        """After the faults have stopped, an honest list settles everything, as far as it can prove anything.

        A job that failed has no results to know it by, and a list that shows no job that is known proves nothing; nor
        does one for the first chunks of a new account, as it shows no job from before them.
        """
        summary = await self._finish()
        held = [json.loads(line) for line in _lines(self.run_dir / "held.jsonl")]
        first = any("reach back so far" in (line["finding"] or "") for line in held)
        provable = not self.scenario.config.job_failure_rate and self.watch.seen["accepted"] > 0 and not first
        if summary is not None and summary.ids["held"] and provable:
            self._judged.append(f"I14 with an honest list {summary.chunks['held']} chunks stay held")
        if summary is not None:
            self._judged += judge_end(self.expected, self.service, self.run_dir, summary)

    async def _send_fresh_chunk(self) -> None:
        """After the faults have stopped, whatever they were, the same account takes a new chunk of a new run."""
        fresh = self.folder / "fresh.txt"
        fresh.write_bytes(_FRESH_ID + b"\n")
        await asyncio.sleep(2 * self.scenario.settings.effective_lockout_s)
        scenario = replace(self.scenario, files=(fresh.read_bytes(),), endings=(), jumps=(), fault_share=0.0)
        world = World(scenario, self.service, self.folder, self._databases)
        world.run_dir = self.folder / "fresh-run"
        world._sources = [fresh]
        world._alarm = self._alarm
        summary = await world.session(None)
        if world.watch.violations or summary is None or summary.ids["accepted"] != 1:
            self.watch.broken(f"I14 a fresh chunk does not go through: {summary}, {world.watch.violations}")


def _server_utc() -> float:
    return EPOCH_UTC + asyncio.get_running_loop().time()


async def _in_process(process: Process, engine: Engine) -> RunSummary:
    PROCESS.set(process)
    return await engine.run()


def _stop(process: Process) -> None:
    process.engine.drain("two signals", Exit.SIGTERM)
    process.engine.cancel()


_END: Final[dict[End, Callable[[Process], object]]] = {
    End.DRAIN: lambda process: process.engine.drain("a signal", Exit.SIGTERM),
    End.STOP: _stop,
    End.CANCEL: lambda process: process.task.cancel(),
}


def _lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines() if path.exists() else []
