"""One thread, one connection, group commit: how asyncio callers share the cost of making things durable.

Rules of this file:

- Whatever waits when the thread comes round goes into one transaction, so sixteen workers pay for one sync.
- Loop and thread take turns: the next group is handed over when the callers of the last one were told and had a
  moment to come back with more. A thread that takes what comes at once shares the interpreter lock with the loop it
  serves, and commits twice as often, at 0.7 ms of CPU a commit (8 workers, 2 cores, a virtual disk).
- A caller is told after COMMIT and never before. A caller that was cancelled changes nothing: its write is made.
- An entry that contradicts the ledger fails; the rest of its group is committed, but for intents behind it.
- A write for which there is no room is made once more, with the room of the reserve; from then on no attempt begins.
- Any other error is final. After a failed sync the kernel may have dropped the pages (wiki.postgresql.org/wiki/
  Fsync_Errors), so nothing is tried again: every pending and later call raises LedgerError. That is also why the
  checkpoints are made here: an error in one that SQLite makes by itself is heard by nobody.

Within a group, entries of one operation run together (`Operation.apply` takes many rows), in the order of
`Operation.rank`. The reason is the interpreter lock. sqlite3 lets go of it at every statement, and getting it back
costs CPU and, while the event loop is busy, time. One statement a row instead of one for up to 64 took 27 µs of
CPU a transition where this takes 17 (16 callers, tmpfs, 2 cores). Should the new order be one that the rows do not
bear, the group is rolled back and repeated one by one in the order of arrival.

A loop that never idles can still starve this thread for seconds: each short system call of the loop restarts the
5 ms after which a waiting thread may demand the lock (CPython, `take_gil`). bulkjobs' own tasks do not do that, they
soon all wait for the ledger; a program with a busy loop of its own lowers `sys.setswitchinterval` (200 µs is enough).
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final, Generic, Protocol, TypeVar, cast, runtime_checkable

from bulkjobs.errors import BulkJobsError, InternalError, LedgerError, LedgerFull
from bulkjobs.ledger.schema import Database

__all__ = ["CALL", "Keeper", "Operation", "Writer"]

Row = TypeVar("Row")
Result = TypeVar("Result")

_NO_ROOM: Final = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE)

_MOST_ROWS_IN_LOG: Final = 1_000
"""Rows in the write-ahead log before it is folded into the database: 4 to 5 pages each, so about 20 MB."""

_TURNS_TO_GATHER: Final = 8
"""Turns of the loop before a group is handed over: so many lie between the end of an attempt and the next one of the
same worker, which then goes into the same group. A turn with nothing to do takes some microseconds."""


@dataclass(frozen=True, slots=True, eq=False)
class Operation(Generic[Row, Result]):
    """Is one kind of change, done to many rows at once."""

    rank: int
    """Smaller runs earlier within a group."""
    apply: Callable[[Database, Sequence[Row]], Sequence[Result]]
    """Runs in the writer's thread inside a transaction and gives one result a row. It raises InternalError or
    sqlite3.IntegrityError when a row contradicts the ledger; what it did to the group is then undone."""
    is_intent: bool = False
    """It is what a submission waits for; none is begun when there is no room to record how it ends."""
    adds_attempt: bool = False
    """Each row is an attempt that was not known before."""


def _call_each(database: Database, functions: Sequence[Callable[[Database], Any]]) -> Sequence[Any]:
    return [function(database) for function in functions]


CALL: Final[Operation[Callable[[Database], Any], Any]] = Operation(rank=100, apply=_call_each)
"""Runs any function of the database: what is too rare to be worth an operation, and every query."""


class Keeper:
    """Watches over the disk beside the database. This one has nothing to watch over."""

    def refusal(self) -> str | None:
        """Says why no attempt may begin now, or None. Called once a group that has intents."""
        return None

    def make_room(self) -> bool:
        """Takes note that the disk is full, so that no attempt begins again; tells whether a little room was made."""
        return False

    def committed(self, attempts: int) -> None:
        """Takes note of attempts that have become durable."""

    def expect_checkpoint(self) -> None:
        """Takes note that the write-ahead log was folded into the database."""

    def end(self) -> None:
        """Lets go of everything, before the last checkpoint."""


@runtime_checkable
class _VirtualTime(Protocol):
    """Is an event loop whose clock jumps ahead when it has nothing to do.

    A write in flight is nothing that such a loop can see, so it would take the wait for the disk for idleness
    and jump to the next timer: a test of a five-minute lock-out would end it during a commit. Loops on real
    time have no such methods and need none.
    """

    def external_work_began(self) -> None: ...

    def external_work_ended(self) -> None: ...


@dataclass(slots=True, eq=False)
class _Entry:
    operation: Operation[Any, Any]
    row: Any
    future: asyncio.Future[Any] | None
    """None when nobody waits: a failure then ends the ledger, since there is no one else to tell."""
    result: Any = None
    error: BaseException | None = None


_Outcome = tuple[asyncio.Future[Any], Any, BaseException | None]
_CONTRADICTIONS: Final = (BulkJobsError, sqlite3.IntegrityError)


class Writer:
    """Runs operations in its own thread, in groups. Its methods belong to the event loop's thread."""

    def __init__(self, name: str, connect: Callable[[], Database], keeper: Keeper | None = None) -> None:
        """Makes a writer that does nothing yet.

        Args:
            name: what messages call the ledger.
            connect: opens the database; called once, in the writer's thread.
            keeper: asked and told about the disk in the writer's thread; None for none.
        """
        self._keeper = keeper or Keeper()
        self._rows_in_log = 0
        self._name = name
        self._connect = connect
        self._loop = asyncio.get_running_loop()
        self._clock = self._loop if isinstance(self._loop, _VirtualTime) else None
        # SimpleQueue is C all the way: about 0.1 µs to put, and get() waits without polling.
        self._queue: queue.SimpleQueue[list[_Entry] | None] = queue.SimpleQueue()
        self._waiting: list[_Entry] = []
        """What the thread did not get yet."""
        self._gathering = False
        """A group is about to be handed over, or with the thread."""
        self._opened: asyncio.Future[Any] = self._loop.create_future()
        self._ended: asyncio.Future[Any] = self._loop.create_future()
        self._fault: LedgerError | None = None
        self._closing = False
        # A daemon, so that a program which forgot to close can still end. What was acknowledged is durable anyway.
        self._thread = threading.Thread(target=self._run, name="bulkjobs-ledger", daemon=True)

    async def start(self) -> None:
        """Opens the database.

        Raises:
            LedgerError: from `connect`.
        """
        self._work_began()
        self._thread.start()
        await self._opened

    def do(self, operation: Operation[Row, Result], row: Row) -> asyncio.Future[Result]:
        """Queues a row.

        Returns:
            What to wait for: it has the result once the row is durable. It raises InternalError when the row
            contradicts the ledger, and nothing of it was written; LedgerError when the ledger failed.

        Guarantees:
            It will be written, also when the wait is cancelled, unless the ledger fails; no later than what is queued
            after it.

        Raises:
            LedgerError: the ledger failed before, or is closed.
        """
        self._check()
        future: asyncio.Future[Result] = self._loop.create_future()
        self._work_began()
        self._hand_in(_Entry(operation, row, future))
        return future

    def post(self, operation: Operation[Row, Result], row: Row) -> None:
        """Queues a row, in order with all others, without waiting. If it fails, so does every later call.

        Raises:
            LedgerError: the ledger failed or is closed.
        """
        self._check()
        self._hand_in(_Entry(operation, row, None))

    async def call(self, function: Callable[[Database], Result]) -> Result:
        """Runs a function in the writer's thread, in a transaction, and gives its result once that is durable.

        Raises:
            As `do`.
        """
        return cast("Result", await self.do(CALL, function))

    async def close(self) -> None:
        """Writes what is queued, folds the write-ahead log into the file and ends the thread.

        Guarantees:
            The thread has ended when it returns, also when it is cancelled.

        Raises:
            LedgerError: the ledger failed before or now.
        """
        if self._closing or self._thread.ident is None:
            return
        self._closing = True
        self._work_began()
        self._queue.put(self._waiting)
        self._waiting = []
        self._queue.put(None)
        try:
            await self._ended
        finally:
            self._thread.join()
        if self._fault is not None:
            raise _again(self._fault)

    def _check(self) -> None:
        if self._fault is not None:
            raise _again(self._fault)
        if self._closing:
            raise LedgerError(f"{self._name} is closed.")

    def _work_began(self) -> None:
        if self._clock is not None:
            self._clock.external_work_began()

    def _hand_in(self, entry: _Entry) -> None:
        self._waiting.append(entry)
        if not self._gathering:
            self._gathering = True
            self._gather(_TURNS_TO_GATHER)

    def _gather(self, turns: int) -> None:
        """Gives the thread all that waits, after so many turns of the loop."""
        if turns:
            self._loop.call_soon(self._gather, turns - 1)
        elif not self._closing:
            self._queue.put(self._waiting)
            self._waiting = []

    def _group_done(self, outcomes: Sequence[_Outcome]) -> None:
        self._resolve(outcomes)
        self._gathering = bool(self._waiting)
        if self._gathering:
            self._gather(_TURNS_TO_GATHER)

    def _resolve(self, outcomes: Sequence[_Outcome]) -> None:
        """Wakes the callers of a whole group; on the event loop's thread."""
        for future, result, error in outcomes:
            if self._clock is not None:
                self._clock.external_work_ended()
            if future.done():
                continue  # its caller was cancelled
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

    # From here on everything runs in the writer's thread.

    def _run(self) -> None:
        try:
            database = self._connect()
        except Exception as error:  # noqa: BLE001 - it reaches whoever waits for `start`
            self._fault = error if isinstance(error, LedgerError) else self._broken(error)
            self._tell([(self._opened, None, self._fault)])
            self._queue.get()  # after a failed start nothing but the end can come
        else:
            self._tell([(self._opened, None, None)])
            self._serve(database)
        self._tell([(self._ended, None, None)])

    def _serve(self, database: Database) -> None:
        while (group := self._queue.get()) is not None:
            self._write(database, group)
        try:
            self._keeper.end()
            if self._fault is None:
                database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            database.close()
        except Exception as error:  # noqa: BLE001 - `close` raises it
            self._fault = self._fault or self._broken(error)

    def _write(self, database: Database, group: list[_Entry]) -> None:
        if self._fault is None:
            try:
                self._record(database, group)
            except Exception as error:  # noqa: BLE001 - whatever it is, the ledger can no longer be trusted
                self._fault = self._broken(error)
            else:
                self._fault = self._contradicted(group)
                self._tell_group(group)
                return
        for entry in group:
            entry.error = _again(self._fault)
        self._tell_group(group)

    def _record(self, database: Database, group: list[_Entry]) -> None:
        """Makes a group durable, but for intents that may not be taken."""
        taken = self._without_refused(group)
        try:
            _commit(database, taken)
        except sqlite3.Error as error:
            if not (_lacks_room(error) and self._keeper.make_room()):
                raise
            with contextlib.suppress(sqlite3.Error):  # SQLite may have rolled back by itself
                database.execute("ROLLBACK")
            for entry in taken:
                entry.error = None
            taken = self._without_refused(taken)
            _commit(database, taken)
        self._keeper.committed(sum(entry.operation.adds_attempt and not entry.error for entry in taken))
        self._fold_log(database, len(taken))

    def _without_refused(self, group: list[_Entry]) -> list[_Entry]:
        intents = [entry for entry in group if entry.operation.is_intent]
        refusal = self._keeper.refusal() if intents else None
        if refusal is None:
            return group
        for entry in intents:
            entry.error = LedgerFull(refusal)
        return [entry for entry in group if not entry.operation.is_intent]

    def _fold_log(self, database: Database, rows: int) -> None:
        self._rows_in_log += rows
        if self._rows_in_log < _MOST_ROWS_IN_LOG:
            return
        try:
            database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.Error as error:
            if not _lacks_room(error):
                raise
            self._keeper.make_room()  # the log holds everything; it only cannot be folded yet
        self._rows_in_log = 0
        self._keeper.expect_checkpoint()

    def _contradicted(self, group: list[_Entry]) -> LedgerError | None:
        """Gives the fault that ends the ledger when an entry failed that nobody waits for."""
        unheard = next((entry.error for entry in group if entry.error and entry.future is None), None)
        if unheard is None:
            return None
        fault = LedgerError(
            f"{self._name} cannot go on: {unheard} Nothing more is sent. What was recorded is safe; this is a bug."
        )
        fault.__cause__ = unheard
        return fault

    def _broken(self, cause: BaseException) -> LedgerError:
        fault = LedgerError(
            f"{self._name} cannot be used any more: {cause}. Nothing more is sent. What was recorded is safe: "
            "mend the cause (disk full? disk failing?), then resume the run."
        )
        fault.__cause__ = cause
        return fault

    def _tell_group(self, group: list[_Entry]) -> None:
        outcomes = [(entry.future, entry.result, entry.error) for entry in group if entry.future is not None]
        self._call_loop(self._group_done, outcomes)

    def _tell(self, outcomes: Sequence[_Outcome]) -> None:
        self._call_loop(self._resolve, outcomes)

    def _call_loop(
        self, function: Callable[[Sequence[_Outcome]], None], outcomes: Sequence[_Outcome]
    ) -> None:
        # One call a group: each wakes the loop through a pipe. RuntimeError: the loop is closed, nobody listens.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, outcomes)


def _lacks_room(error: sqlite3.Error) -> bool:
    # A quota that is used up is no ENOSPC, so that SQLite calls it a failed write. A write that fails for good fails
    # again; it is a failed sync after which nothing may be tried again.
    return getattr(error, "sqlite_errorcode", None) in _NO_ROOM


def _commit(database: Database, group: list[_Entry]) -> None:
    if not group:
        return
    database.execute("BEGIN IMMEDIATE")
    try:
        _apply_together(database, group)
    except _CONTRADICTIONS:
        database.execute("ROLLBACK")
        database.execute("BEGIN IMMEDIATE")
        _apply_one_by_one(database, group)
    database.execute("COMMIT")


def _apply_together(database: Database, group: list[_Entry]) -> None:
    ranked = sorted(group, key=lambda entry: entry.operation.rank)
    for operation, run in groupby(ranked, key=lambda entry: entry.operation):
        entries = list(run)
        results = operation.apply(database, [entry.row for entry in entries])
        for entry, result in zip(entries, results, strict=True):
            entry.result = result


def _apply_one_by_one(database: Database, group: list[_Entry]) -> None:
    contradicted = False
    for entry in group:
        if contradicted and entry.operation.is_intent:
            # Whoever wants to begin this may be the one whose last outcome could not be recorded.
            entry.error = InternalError("Nothing is begun behind what contradicts the ledger.")
            continue
        database.execute("SAVEPOINT entry")
        try:
            (entry.result,) = entry.operation.apply(database, [entry.row])
        except _CONTRADICTIONS as error:
            database.execute("ROLLBACK TO entry")
            entry.error = error if isinstance(error, BulkJobsError) else _contradiction(error)
            contradicted = contradicted or not (entry.operation.is_intent or entry.operation is CALL)
        database.execute("RELEASE entry")


def _contradiction(error: BaseException) -> InternalError:
    wrapped = InternalError(f"What was to be recorded contradicts the ledger: {error}.")
    wrapped.__cause__ = error
    return wrapped


def _again(fault: LedgerError) -> LedgerError:
    """Gives each caller an exception of its own: raising one object in several tasks mixes their tracebacks."""
    copy = LedgerError(*fault.args)
    copy.__cause__ = fault.__cause__
    return copy
