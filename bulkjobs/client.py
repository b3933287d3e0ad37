"""The library's face: a client for one run, as a stream of job records or as one call with a summary."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

from bulkjobs.clock import SystemClock
from bulkjobs.control.protocol import Refusal, State, command_of
from bulkjobs.engine import Engine
from bulkjobs.errors import ConfigError, LedgerError
from bulkjobs.events import Observer
from bulkjobs.exits import Exit
from bulkjobs.model import JobRecord, RunSummary
from bulkjobs.ports import Clock, Sink, Source, Transport
from bulkjobs.rundir import RunDir, default_run_dir
from bulkjobs.settings import Settings
from bulkjobs.sinks import SinkLike, open_sink
from bulkjobs.sinks.jsonl import JsonLinesSink
from bulkjobs.sinks.stream import StreamSink
from bulkjobs.sources import SourceLike, open_sources

if TYPE_CHECKING:
    from bulkjobs.reconciler import Orders

__all__ = ["Client"]


class Client:
    """Submits ids and accounts for every one. One client works on one run at a time.

        async with bulkjobs.Client(settings, run="contacts.run") as client:
            async for record in client.submit("ids.txt.gz"):
                ...

    Nothing starts before `submit` or `run`. There is no global state: clients of different runs work side by side
    in one process, on asyncio or uvloop. Those of one account share its limits if their settings name a `state_dir`.

    Guarantees:
        Whatever happens (an exception, a cancelled task, `kill -9`), each id is accounted for in the run directory,
        and giving the same sources again goes on where it stopped.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        run: str | Path | None = None,
        observers: Sequence[Observer] = (),
        transport: Transport | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Makes a client; nothing is opened yet.

        Args:
            settings: options; None reads environment and `bulkjobs.toml`.
            run: the run directory; None takes the name of the first source with `.run` behind it.
            observers: told of everything that happens, on the event loop.
            transport: carries the requests; None for HTTP. For tests.
            clock: wall clock; None for the system's. For tests.

        Raises:
            ConfigError: an option cannot be used.
        """
        self._settings = settings if settings is not None else Settings.load()
        self._run = None if run is None else Path(run)
        self._observers = tuple(observers)
        self._transport = transport
        self._clock = clock or SystemClock()
        self._engine: Engine | None = None
        self._stream: StreamSink | None = None
        self._session: asyncio.Task[RunSummary] | None = None
        self._summary: RunSummary | None = None

    @property
    def run_dir(self) -> Path:
        """Is the run directory.

        Raises:
            ConfigError: none was given, and no source has named one yet.
        """
        if self._run is None:
            raise ConfigError("No run directory is known. Give one with run= (on the command line: --run).")
        return self._run

    @property
    def summary(self) -> RunSummary | None:
        """Is the account of the run as the last finished session left it; None before."""
        return self._summary

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._leave_stream()

    async def run(
        self, *sources: SourceLike, sink: SinkLike | Sequence[SinkLike] | None = None
    ) -> RunSummary:
        """Submits everything and gives the account of the run.

        Args:
            sources: where ids come from; none resumes what the run directory records.
            sink: where job records go besides those of the settings. With none anywhere: `jobs.jsonl` in the run
                directory.

        Returns:
            The summary; its exit code says how the session ended. A run that is finished sends nothing.

        Raises:
            ConfigError: settings, sources and run directory do not belong together. Nothing was sent.
            SourceError: a source cannot be opened. Nothing was sent.
            LedgerError: the ledger cannot be opened (`LedgerLocked`: another process has it), or broke.
        """
        extra = (
            []
            if sink is None
            else list(sink)
            if isinstance(sink, Sequence) and not isinstance(sink, str)
            else [sink]
        )
        engine = self._begin(sources, [open_sink(one) for one in extra], default=not extra)
        try:
            self._summary = await engine.run()
        finally:
            self._engine = None
        return self._summary

    async def reconcile(self, orders: Orders | None = None) -> RunSummary:
        """Settles held chunks and submits nothing; what is proved to have no job goes out with the next `run`.

        Args:
            orders: what a person decided; None compares every held chunk with the server's list of jobs, which takes
                at least two times `settle_s`.

        Returns:
            The summary.

        Raises:
            ConfigError: there is no run, or settings and run do not belong together.
            SourceError: the sources that the run recorded cannot be opened again.
            LedgerError: as `run`.
        """
        from bulkjobs.reconciler import Orders  # noqa: PLC0415 - few sessions have anything to reconcile

        engine = self._begin((), [], default=True)
        try:
            self._summary = await engine.settle(orders or Orders())
        finally:
            self._engine = None
        return self._summary

    async def submit(self, *sources: SourceLike) -> AsyncIterator[JobRecord]:
        """Submits everything and gives the job records as chunks are accepted.

        The records also go to the sinks of the settings, or to `jobs.jsonl`. Leaving the loop early stops sending;
        records that were not dealt with come again in the next session. `summary` holds the account afterwards.

        Args:
            sources: as for `run`.

        Yields:
            One record for each accepted chunk that no session has delivered yet.

        Raises:
            ConfigError, SourceError, LedgerError: as `run`.
        """
        stream = StreamSink()
        engine = self._begin(sources, [stream], default=True)
        self._stream = stream
        self._session = asyncio.create_task(engine.run())
        self._session.add_done_callback(lambda _: stream.end())
        try:
            async for record in stream:
                yield record
            self._summary = await self._session
        finally:
            await self._leave_stream()

    async def control(
        self,
        command: Literal["state", "pause", "resume", "drain", "rate", "workers"] = "state",
        value: str | int | None = None,
    ) -> State:
        """Changes how a session works, as `bulkjobs control` does: in the loop over `submit`, or beside `run`.

        Args:
            command: `pause` lets submits wait until `resume`; `drain` sends nothing more, as SIGTERM does; `rate`
                and `workers` put another value of these options in force; `state` changes nothing.
            value: for `rate` as for the option, such as "600/5m" or "none"; for `workers` a number.

        Returns:
            What is in force now. It holds for this session; the next one begins as the settings say.

        Raises:
            ConfigError: nothing was changed: there is no such command or value, or no session is open.
            LedgerError: nothing was changed, because it cannot be recorded.

        Guarantees:
            A change stands in the ledger, with `program` as its origin, before it is in force.
        """
        order = command_of(command, None if value is None else str(value))
        if self._engine is None:
            raise ConfigError("The client is not at work, so there is nothing to control.")
        answer = await self._engine.commands.obey(order, "program")
        if isinstance(answer, Refusal):
            raise (LedgerError if answer.kind == "storage" else ConfigError)(answer.reason)
        return answer

    def drain(self, reason: str, *, exit_code: int = Exit.SIGINT) -> None:
        """Sends nothing more; answers in flight are recorded, then `run` and `submit` end.

        Args:
            reason: for people.
            exit_code: what the summary says if work is left, one of `bulkjobs.Exit`.
        """
        if self._engine is not None:
            self._engine.drain(reason, Exit(exit_code))

    def cancel(self) -> None:
        """Gives up on answers in flight as well: their chunks are recorded as held."""
        if self._engine is not None:
            self._engine.cancel()

    def _begin(self, given: Sequence[SourceLike], extra: Sequence[Sink], *, default: bool) -> Engine:
        if self._engine is not None:
            raise ConfigError("This client is at work on its run. Make another client for another run.")
        sources = open_sources(given, column=self._settings.column, query=self._settings.query)
        if self._run is None:
            if not given or not isinstance(given[0], str | Path):
                raise ConfigError("Ids that come from no file need a run directory: give one with run=.")
            self._run = default_run_dir(given[0])
        run_dir = RunDir(self._run)
        sinks = [*extra, *(open_sink(spec) for spec in self._settings.sinks)]
        if default and not self._settings.sinks:
            sinks.append(JsonLinesSink(run_dir.jobs))
        sinks = [_placed(sink, run_dir, sources) for sink in sinks]
        self._engine = Engine(
            self._settings,
            run_dir,
            sources=sources,
            sinks=sinks,
            observers=self._observers,
            clock=self._clock,
            transport=self._transport,
        )
        return self._engine

    async def _leave_stream(self) -> None:
        """Ends the session behind a stream, if one goes on, and waits until the ledger is closed."""
        session = self._session
        if session is not None and not session.done():
            if self._engine is not None:
                self._engine.drain("the loop over the job records was left", Exit.SIGINT)
            if self._stream is not None:
                self._stream.leave()
            await asyncio.wait([session])
            if not session.cancelled() and session.exception() is None:
                self._summary = session.result()
        if self._session is session:  # the loop and the client may both be left at the same time
            self._engine = self._stream = self._session = None


def _placed(sink: Sink, run_dir: RunDir, sources: Sequence[Source]) -> Sink:
    """Gives the sink that writes `jobs.jsonl` its one name, and refuses files that are something else already.

    Raises:
        ConfigError: it would write over a file of the run, or into a source.
    """
    if not isinstance(sink, JsonLinesSink):
        return sink
    path, folder = sink.path.resolve(), run_dir.path.resolve()
    if path == folder / run_dir.jobs.name:
        # A name without a folder, so that the run directory can be moved.
        return JsonLinesSink(run_dir.jobs, name=run_dir.jobs.name)
    if folder in path.parents:
        raise ConfigError(
            f"--sink {sink.path} lies in the run directory, where only {run_dir.jobs.name} may be one."
        )
    files = [Path(source.name) for source in sources if source.repeatable]
    if path.exists() and any(file.exists() and file.samefile(path) for file in files):
        raise ConfigError(f"--sink {sink.path} is a source as well. Give another file.")
    return sink
