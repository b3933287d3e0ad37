"""One session of a run: opens what it needs, lets the stages work, and accounts for what came of it.

    intake ─ chunks ─▶ workers ─▶ outcomes ─ records ─▶ delivery       tracker (while job slots are limited)

The stages are tasks of one group. Sending ends by itself when the chunks do, or early through the `Halt`
switch; then the stages end in the order of the arrows, and nothing that is in flight is dropped. What the
session reports is read back from the ledger.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os.path
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from bulkjobs.access import Access, open_access
from bulkjobs.account.auth import check_credentials
from bulkjobs.baseline import take_baseline
from bulkjobs.breaker import IN_A_ROW
from bulkjobs.budget import Budget
from bulkjobs.channel import Channel
from bulkjobs.checkpoint import Checkpoints
from bulkjobs.chunking import Chunker
from bulkjobs.control.commands import Commands
from bulkjobs.control.server import under_control
from bulkjobs.delivery import Delivery
from bulkjobs.ending import broken_by, session_exit_code
from bulkjobs.endpoints import endpoint_named
from bulkjobs.errors import AuthError, ConfigError, SinkError, SourceError
from bulkjobs.events import Event, Observer, RunFinished, RunFinishedBefore, RunStarted, Stopping
from bulkjobs.exits import Exit
from bulkjobs.forecasting import Forecaster
from bulkjobs.groups import first_error
from bulkjobs.halt import Halt
from bulkjobs.intake import Intake, Planned
from bulkjobs.ledger import DATABASE_NAME, Ledger, RunRow, summarise
from bulkjobs.model import ChunkState, JobRecord, RunSummary
from bulkjobs.opening import is_settled, open_run, open_run_sources, session_opened
from bulkjobs.outage import watch_outages
from bulkjobs.outcomes import Outcomes
from bulkjobs.outlook import Outlook
from bulkjobs.pool import Pool
from bulkjobs.ports import Clock, Sink, Source, Transport
from bulkjobs.reports import write_reports
from bulkjobs.rundir import RunDir, not_written
from bulkjobs.settings import Settings
from bulkjobs.sinks.stream import LoopLeft
from bulkjobs.worker import Submission, Worker

if TYPE_CHECKING:
    from bulkjobs.reconciler import Orders, Reconciler

__all__ = ["Engine"]

_RECORDS_WAITING: Final = 1_024
_INTAKE_GRACE_S: Final = 1.0
"""Lets a thread of the intake finish with its file, which cancelling would close under it."""
_MOST_PASSES: Final = 5
"""Of settling and sending again within one session: a server that loses every answer is not fed for ever."""

_T = TypeVar("_T")


class Engine:
    """Runs one session."""

    def __init__(
        self,
        settings: Settings,
        run_dir: RunDir,
        *,
        sources: Sequence[Source],
        sinks: Sequence[Sink],
        observers: Sequence[Observer],
        clock: Clock,
        transport: Transport | None = None,
        jitter: random.Random | None = None,
    ) -> None:
        """Makes an engine; nothing is opened yet.

        Args:
            settings: checked values.
            run_dir: folder of the run.
            sources: where ids come from; none resumes what the run recorded.
            sinks: where job records go.
            observers: told of everything.
            clock: wall clock.
            transport: carries requests; None makes the real one.
            jitter: randomness of waits.
        """
        self._settings = settings
        self._run_dir = run_dir
        self._sources = sources
        self._sinks = sinks
        self._observers = [*observers, Outlook(run_dir.outlook, clock=clock)]
        self._clock = clock
        self._transport = transport
        self._jitter = jitter or random.Random()  # noqa: S311 - spreads waits, protects nothing
        self._endpoint = endpoint_named(settings.endpoint)
        self._chunk_size = settings.chunk_size_within(self._endpoint.max_ids)
        self._halt = Halt()
        self._halt.on_pull(lambda reason: self._emit(Stopping(reason=reason)))
        self._pool: Pool[Planned] = Pool(settings.workers)
        self._checkpoints = Checkpoints(run_dir.checkpoints)
        self.commands = Commands(pool=self._pool, halt=self._halt, emit=self._emit)
        """What a person, or the program, may tell a session while it works."""

    def drain(self, reason: str, code: Exit) -> None:
        """Sends nothing more. Answers in flight are recorded, then `run` gives its summary."""
        self._halt.pull(code, reason)

    def cancel(self) -> None:
        """Gives up on answers in flight: their chunks are recorded as held."""
        if not self._halt.pulled:
            self._halt.pull(Exit.SIGINT, "The run was cancelled.")
        self._pool.cancel()

    async def run(self) -> RunSummary:
        """Works until every chunk is settled or something ends the session early.

        Returns:
            The account of the run. Its exit code tells why the session ended.

        Raises:
            ConfigError: the settings, the sources and the run do not belong together; nothing was sent.
            LedgerLocked: another process works on this run; nothing was sent.
            LedgerError: the ledger cannot be opened, or broke.
            SourceError: a source cannot be opened again, or is not what the run began with; nothing was sent.
        """
        if not os.path.exists(self._run_dir.path / DATABASE_NAME):  # noqa: ASYNC240, PTH110 - at once; Path.exists raises for a very long one
            if not self._sources:
                raise ConfigError(
                    f"There is no run in {self._run_dir.path} to resume. Name the sources to begin one."
                )
            check_credentials(self._settings)  # before a folder is made for a run that cannot begin
        return await self._session(self._work, held_too=self._reconciles)

    async def settle(self, orders: Orders) -> RunSummary:
        """Settles held chunks and sends nothing: as a person orders, or else as far as the server's jobs tell.

        Raises:
            ConfigError: there is no run, or an order cannot be carried out; nothing was changed.
            As `run`, besides.
        """
        if not (self._run_dir.path / DATABASE_NAME).exists():
            raise ConfigError(f"There is no run in {self._run_dir.path}.")
        return await self._session(partial(self._settle, orders), held_too=True)

    @property
    def _reconciles(self) -> bool:
        return self._settings.on_unknown == "reconcile"

    async def _session(self, work: _Work, *, held_too: bool) -> RunSummary:
        async with await Ledger.open(self._run_dir.path, clock=self._clock) as ledger:
            run, resumed = await open_run(ledger, self._run_dir, self._identity())
            opened = await open_run_sources(ledger, self._run_dir, self._sources, held_too=held_too)
            if resumed and opened.doubts:
                await self._intake(opened.sources, ledger).verify(opened.doubts, copied=opened.copied)
            if resumed and await is_settled(ledger, held_too=held_too):
                self._emit(RunFinishedBefore(run_id=run.run_id, run_dir=str(self._run_dir.path)))
                return await self._report(ledger, run, [])
            held = await ledger.begin_session()
            began_utc = self._clock.utc()
            self._emit(
                RunStarted(
                    run_id=run.run_id, run_dir=str(self._run_dir.path), resumed=resumed, held_at_start=held
                )
            )
            try:
                await self._connected(work, ledger, run, opened.sources, held=held, began_utc=began_utc)
            except (SourceError, ConfigError) as error:
                self._halt.pull(Exit.USAGE, str(error))
            except AuthError as error:
                self._halt.pull(Exit.STOPPED, str(error))
            except SinkError as error:
                self._on_sink_failure(error)
            except BaseException as error:
                self._halt.note(*broken_by(error))
                raise
            finally:
                summary = await self._end_session(ledger, run)
            self._emit(RunFinished(summary=summary))
            return summary

    def _identity(self) -> Mapping[str, object]:
        """Is what decides which ids go where in which chunk; it may not change within a run."""
        return {
            "endpoint": self._settings.endpoint,
            "base_url": self._settings.base_url,
            "account": self._settings.client_id,
            "chunk_size": self._chunk_size,
            "dedupe": self._settings.dedupe,
            "column": self._settings.column,
            "query": self._settings.query,
        }

    # Working

    async def _connected(
        self,
        work: _Work,
        ledger: Ledger,
        run: RunRow,
        sources: Sequence[Source],
        *,
        held: int,
        began_utc: float,
    ) -> None:
        """Opens sinks and the way to the server, and lets the work be done."""
        delivery = Delivery(ledger, self._sinks, on_failure=self._on_sink_failure)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(delivery.close)
            await delivery.open()
            access = await stack.enter_async_context(
                open_access(
                    self._settings,
                    self._endpoint,
                    ledger,
                    run_id=run.run_id,
                    transport=self._transport,
                    clock=self._clock,
                    halt=self._halt,
                    emit=self._emit,
                    uniform=self._jitter.random,
                    probe=held > 0,
                )
            )
            self._emit(await session_opened(self._settings, access.gate.rate, ledger))
            session = _Session(
                ledger=ledger, run=run, sources=sources, delivery=delivery, access=access, began_utc=began_utc
            )
            async with first_error():
                with self.commands.in_session(run.run_id, access.gate, ledger):
                    await under_control(
                        self._run_dir.path, self.commands.obey, partial(work, session), emit=self._emit
                    )

    async def _work(self, session: _Session) -> None:
        """Sends what is planned, settles what is held, and sends what turned out not to have been applied."""
        ledger = session.ledger
        await self._unless_halted(*await self._questions(session))
        session.access.gate.recall_outcomes(await ledger.unknown_in_a_row(IN_A_ROW))
        await self._let_stages_work(session)
        for _ in range(_MOST_PASSES):
            if self._halt.pulled or not (self._reconciles and await ledger.last_ordinal(ChunkState.HELD)):
                break
            if not any(await self._unless_halted(self._reconciler(session).run(session.began_utc))):
                break
            await self._let_stages_work(session)
        await session.delivery.hand_on_backlog()

    async def _questions(self, session: _Session) -> list[Coroutine[Any, Any, None]]:
        """Gives what is asked before anything is sent."""
        access, ledger, questions = session.access, session.ledger, []
        if self._reconciles and session.run.baseline_utc is None and await ledger.is_untouched():
            questions.append(
                take_baseline(access.reader, ledger, clock=self._clock, halt=self._halt, emit=self._emit)
            )
        if self._settings.forecast:
            forecaster = Forecaster(self._settings, self._endpoint, access.reader, ledger)
            questions.append(forecaster.run(session.sources, self._clock, self._emit))
        return questions

    async def _settle(self, orders: Orders, session: _Session) -> None:
        reconciler = self._reconciler(session, orders)
        await self._unless_halted(
            reconciler.obey(orders) if orders.by_person else reconciler.run(session.began_utc)
        )
        await session.delivery.hand_on_backlog()

    async def _unless_halted(self, *mains: Coroutine[Any, Any, _T]) -> list[_T]:
        """Waits for what only asks the server: when sending ends, an answer is not worth waiting for."""
        async with first_error(), asyncio.TaskGroup() as group:
            tasks = [group.create_task(main) for main in mains]

            def leave(_reason: str) -> None:
                for task in tasks:
                    task.cancel()

            self._halt.on_pull(leave)
            if self._halt.pulled:
                leave("")
        return [task.result() for task in tasks if not task.cancelled()]

    def _reconciler(self, session: _Session, orders: Orders | None = None) -> Reconciler:
        from bulkjobs.reconciler import Reconciler  # noqa: PLC0415 - few sessions have anything to reconcile

        return Reconciler(
            session.access.reader,
            session.ledger,
            bodies=self._intake(session.sources, session.ledger).bodies,
            settle_s=self._settings.settle_s,
            exclusive=self._settings.exclusive,
            clock=self._clock,
            halt=self._halt,
            emit=self._emit,
            calls=() if orders is None else orders.calls,
        )

    def _intake(self, sources: Sequence[Source], ledger: Ledger) -> Intake:
        chunker = Chunker(self._chunk_size, dedupe=self._settings.dedupe, form=self._endpoint.id_form)
        return Intake(
            sources,
            chunker,
            ledger,
            invalid_path=self._run_dir.invalid,
            halt=self._halt,
            emit=self._emit,
            checkpoints=self._checkpoints,
        )

    async def _let_stages_work(self, session: _Session) -> None:
        access, delivery = session.access, session.delivery
        intake = self._intake(session.sources, session.ledger)
        chunks: Channel[Planned] = Channel(self._settings.workers)
        records: Channel[JobRecord] = Channel(_RECORDS_WAITING)
        cap = self._settings.spend_cap
        budget = Budget(cap, spent=0 if cap is None else await session.ledger.spent_ids())

        def stop_sending(_reason: str) -> None:
            access.gate.stop_submits()
            chunks.abort()
            budget.close()

        self._halt.on_pull(stop_sending)
        if self._halt.pulled:
            stop_sending("")
        outcomes = Outcomes(
            session.ledger,
            self._run_dir,
            run_id=session.run.run_id,
            endpoint=self._endpoint.name,
            on_job=access.on_job,
            records=records,
            emit=self._emit,
        )
        worker = self._worker(session, outcomes, budget)
        async with first_error(), asyncio.TaskGroup() as group:
            delivering = group.create_task(delivery.run(records))
            telling = group.create_task(outcomes.run())
            tracking = None if access.tracker is None else group.create_task(access.tracker.run())
            asking = group.create_task(watch_outages(access.gate, access.reader, self._halt))

            def stop_asking(_reason: str) -> None:
                asking.cancel()

            self._halt.on_pull(stop_asking)
            taking = group.create_task(self._take_in(intake, chunks))
            await self._pool.run(worker.run, chunks)
            outcomes.close()
            await telling
            asking.cancel()
            # Done by now, unless sending ended early: then it may wait for input that never comes.
            await asyncio.wait([taking], timeout=_INTAKE_GRACE_S)
            taking.cancel()
            if tracking is not None:
                tracking.cancel()
            records.close()
            await delivering

    async def _take_in(self, intake: Intake, chunks: Channel[Planned]) -> None:
        """Reads the sources. What can no longer be read ends the reading, not the sending of what was read."""
        try:
            await intake.run(chunks)
        except SourceError as error:
            self._halt.note(Exit.USAGE, str(error))
            self._emit(Stopping(reason=str(error)))
        except SinkError as error:
            self._halt.pull(Exit.STORAGE, str(error))

    def _worker(self, session: _Session, outcomes: Outcomes, budget: Budget) -> Worker:
        access, run = session.access, session.run
        submission = Submission(
            endpoint=self._endpoint,
            base_url=self._settings.base_url,
            accept=self._settings.accept,
            webhook=self._settings.webhook,
            nonce_key=run.nonce_key,
        )
        return Worker(
            submission,
            gate=access.gate,
            auth=access.auth,
            transport=access.transport,
            ledger=session.ledger,
            run_dir=self._run_dir,
            clock=self._clock,
            halt=self._halt,
            emit=self._emit,
            outcomes=outcomes,
            jitter=self._jitter,
            bisect=self._settings.bisect,
            budget=budget,
        )

    def _on_sink_failure(self, error: SinkError) -> None:
        # Who leaves the loop over the records interrupts the run; nothing is wrong with a disk.
        self._halt.pull(Exit.SIGINT if isinstance(error, LoopLeft) else Exit.STORAGE, str(error))

    # Ending

    async def _end_session(self, ledger: Ledger, run: RunRow) -> RunSummary:
        code = session_exit_code(ledger, run, await ledger.counts(), self._halt.codes)
        await ledger.end_session(code, self._halt.reasons)
        if await is_settled(ledger, held_too=True):
            await asyncio.to_thread(self._checkpoints.clear)
        return await self._report(ledger, run, self._halt.codes)

    async def _report(self, ledger: Ledger, run: RunRow, stops: Sequence[Exit]) -> RunSummary:
        """Writes what people read of a run. All of it is derived from the ledger."""
        counts = await ledger.counts()
        summary = summarise(run, counts, session_exit_code(ledger, run, counts, stops))
        try:
            await write_reports(self._run_dir, ledger, summary)
        except OSError as error:
            reason = not_written(str(error.filename), error)
            self._halt.note(Exit.STORAGE, reason)
            self._emit(Stopping(reason=reason))
            summary = dataclasses.replace(summary, exit_code=int(Exit.STORAGE))
        return summary

    def _emit(self, event: Event) -> None:
        for observer in self._observers:
            observer(event)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Session:
    """Holds what one session works with."""

    ledger: Ledger
    run: RunRow
    sources: Sequence[Source]
    delivery: Delivery
    access: Access
    began_utc: float


_Work = Callable[[_Session], Awaitable[None]]
