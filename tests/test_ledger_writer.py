"""The writer: told after COMMIT, in groups, one bad entry alone, and final when the disk fails."""

import asyncio
import contextlib
import sqlite3
import threading

import pytest

from bulkjobs.errors import InternalError, LedgerError
from bulkjobs.ledger.writer import Operation, Writer
from bulkjobs.testing import VirtualClockLoop, run_virtual


def connect(path):
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("CREATE TABLE IF NOT EXISTS item (number INTEGER PRIMARY KEY)")
    return database


def insert_items(database, rows):
    for row in rows:
        if row < 0:
            raise InternalError(f"{row} is negative")
        database.execute("INSERT INTO item VALUES (?)", (row,))
    return [row * 10 for row in rows]


def remove_items(database, rows):
    for row in rows:
        if not database.execute("DELETE FROM item WHERE number = ?", (row,)).rowcount:
            raise InternalError(f"{row} is not there")
    return [None] * len(rows)


INSERT = Operation(rank=1, apply=insert_items)
REMOVE = Operation(rank=0, apply=remove_items)
INTEND = Operation(rank=1, apply=insert_items, is_intent=True)


class Failing:
    """Is a connection whose statements are numbered, and the chosen one fails as a bad disk makes it."""

    def __init__(self, database, *, at, error=None):
        self._database = database
        self._left = at
        self._error = error or sqlite3.OperationalError("disk I/O error")

    def execute(self, sql, parameters=()):
        self._left -= 1
        if self._left == 0:
            raise self._error
        return self._database.execute(sql, parameters)

    def close(self):
        self._database.close()


class Recording:
    """Is a connection that remembers its statements."""

    def __init__(self, database):
        self._database = database
        self.statements = []

    def execute(self, sql, parameters=()):
        self.statements.append(sql)
        return self._database.execute(sql, parameters)

    def close(self):
        self._database.close()


class Gate:
    """Keeps the writer busy until it is opened, so that what is queued meanwhile becomes one group."""

    @classmethod
    async def close(cls, writer):
        gate = cls()
        loop, entered = asyncio.get_running_loop(), asyncio.Event()
        gate._opened = threading.Event()

        def wait(_):
            loop.call_soon_threadsafe(entered.set)
            gate._opened.wait(30)

        gate._task = asyncio.ensure_future(writer.call(wait))
        await entered.wait()
        return gate

    async def open(self):
        self._opened.set()
        await self._task


@contextlib.asynccontextmanager
async def opened(path, wrap=lambda database: database):
    writer = Writer("The ledger", lambda: wrap(connect(path)))
    await writer.start()
    try:
        yield writer
    finally:
        with contextlib.suppress(LedgerError):
            await writer.close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "test.db"


def items(path):
    with contextlib.closing(sqlite3.connect(path)) as database:
        return [number for (number,) in database.execute("SELECT number FROM item ORDER BY number")]


async def started(*awaitables):
    """Starts tasks and lets each run until it waits."""
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


async def test_a_caller_goes_on_when_another_connection_can_see_the_row(path):
    """Told after COMMIT, never before."""
    async with opened(path) as writer:
        assert await writer.do(INSERT, 1) == 10
        assert items(path) == [1]


async def test_what_waits_together_is_committed_together(path):
    """Sixteen callers pay for one sync."""
    recording = None

    def record(database):
        nonlocal recording
        recording = Recording(database)
        return recording

    async with opened(path, record) as writer:
        gate = await Gate.close(writer)
        tasks = await started(*(writer.do(INSERT, number) for number in range(16)))
        await gate.open()
        assert await asyncio.gather(*tasks) == [number * 10 for number in range(16)]
    assert recording.statements.count("COMMIT") == 2  # the gate's own and that of the group


async def test_an_entry_that_contradicts_the_ledger_fails_alone(path):
    """The rest of its group is committed, whether our code or a constraint refused it."""
    async with opened(path) as writer:
        gate = await Gate.close(writer)
        tasks = await started(*(writer.do(INSERT, number) for number in (1, -1, 2, 2, 3)))
        await gate.open()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [outcome if isinstance(outcome, int) else type(outcome) for outcome in outcomes] == [
            10,
            InternalError,
            20,
            InternalError,
            30,
        ]
        assert "contradicts the ledger" in str(outcomes[3])
        assert items(path) == [1, 2, 3]
        await writer.do(INSERT, 4)


async def test_nothing_is_begun_behind_what_contradicts_the_ledger(path):
    """It may be the outcome of whoever wants to begin; what came before, and what is no beginning, stands."""
    async with opened(path) as writer:
        gate = await Gate.close(writer)
        tasks = await started(
            writer.do(INTEND, 1), writer.do(INSERT, -1), writer.do(INTEND, 2), writer.do(INSERT, 3)
        )
        await gate.open()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [outcome if isinstance(outcome, int) else type(outcome) for outcome in outcomes] == [
            10,
            InternalError,
            InternalError,
            30,
        ]
        assert "Nothing is begun" in str(outcomes[2])
        assert items(path) == [1, 3]
        await writer.do(INTEND, 4)


async def test_half_an_entry_is_never_kept(path):
    """An entry that fails after its first statement leaves nothing of it."""

    def half(database):
        database.execute("INSERT INTO item VALUES (7)")
        raise InternalError("no")

    async with opened(path) as writer:
        with pytest.raises(InternalError, match="no"):
            await writer.call(half)
        await writer.do(INSERT, 1)
    assert items(path) == [1]


async def test_a_group_that_does_not_bear_the_order_of_ranks_runs_in_the_order_of_arrival(path):
    """Ranks are for speed; arrival decides."""
    async with opened(path) as writer:
        gate = await Gate.close(writer)
        tasks = await started(writer.do(INSERT, 1), writer.do(REMOVE, 1), writer.do(INSERT, 2))
        await gate.open()
        assert await asyncio.gather(*tasks) == [10, None, 20]
    assert items(path) == [2]


async def test_a_cancelled_caller_does_not_cancel_its_write(path):
    """The bytes may have left already."""
    async with opened(path) as writer:
        gate = await Gate.close(writer)
        (task,) = await started(writer.do(INSERT, 1))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await gate.open()
        await writer.do(INSERT, 2)
        assert items(path) == [1, 2]


async def test_more_than_one_group_may_wait(path):
    """A long queue is worked off in bounded groups, in order, before the writer closes."""
    async with opened(path) as writer:
        gate = await Gate.close(writer)
        for number in range(1200):
            writer.post(INSERT, number)
        await gate.open()
    assert items(path) == list(range(1200))


@pytest.mark.parametrize(
    "error",
    [
        sqlite3.OperationalError("disk I/O error"),
        sqlite3.OperationalError("database or disk is full"),
        sqlite3.DatabaseError("database disk image is malformed"),
        OSError(5, "Input/output error"),
    ],
    ids=str,
)
async def test_after_a_failure_of_the_disk_every_call_raises_at_once(path, error):
    """Nothing is tried again, nothing waits for ever, and every caller has an exception of its own."""
    async with opened(path, lambda database: Failing(database, at=7, error=error)) as writer:
        await writer.do(INSERT, 1)  # BEGIN, INSERT, COMMIT
        gate = await Gate.close(writer)  # BEGIN; its COMMIT is the fifth
        tasks = await started(writer.do(INSERT, 2), writer.do(INSERT, 3))
        await gate.open()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [LedgerError, LedgerError]
        assert outcomes[0] is not outcomes[1]
        assert outcomes[0].__cause__ is error
        for call in (lambda: writer.do(INSERT, 4), lambda: writer.call(lambda _: None)):
            with pytest.raises(LedgerError, match=r"cannot be used any more: .*Nothing more is sent"):
                await call()
        with pytest.raises(LedgerError):
            writer.post(INSERT, 5)
        with pytest.raises(LedgerError):
            await writer.close()
    assert items(path) == [1]


async def test_whichever_statement_fails_what_was_acknowledged_is_there(tmp_path):
    """Fails the first statement, then the second, and so on, until a run meets no failure."""
    for at in range(1, 100):
        path = tmp_path / f"{at}.db"
        acknowledged = []
        clean = True
        writer = Writer("The ledger", lambda path=path, at=at: Failing(connect(path), at=at))
        await writer.start()
        try:
            for number in range(4):
                await writer.do(INSERT, number)
                acknowledged.append(number)
            await writer.close()
        except LedgerError:
            clean = False
            with contextlib.suppress(LedgerError):
                await writer.close()
        assert acknowledged == items(path)[: len(acknowledged)]
        if clean:
            break
    assert (
        at == 4 * 3 + 2
    )  # BEGIN, INSERT, COMMIT four times, then the checkpoint; the next would be one more


async def test_an_entry_nobody_waits_for_is_not_lost_in_silence(path):
    """When it fails every later call says so, and so does closing."""
    async with opened(path) as writer:
        writer.post(INSERT, -1)
        await asyncio.gather(writer.call(lambda _: None), return_exceptions=True)
        with pytest.raises(LedgerError, match="-1 is negative"):
            await writer.do(INSERT, 1)
        with pytest.raises(LedgerError, match="-1 is negative"):
            await writer.close()


async def test_a_database_that_cannot_be_opened_fails_the_start(path):
    """Whatever opening raises becomes a LedgerError."""

    def broken():
        raise OSError(13, "Permission denied")

    writer = Writer("The ledger", broken)
    with pytest.raises(LedgerError, match="Permission denied"):
        await writer.start()
    with pytest.raises(LedgerError):
        await writer.close()


async def test_a_closed_writer_takes_nothing_more(path):
    """Closing is final and may be repeated."""
    async with opened(path) as writer:
        await writer.close()
        await writer.close()
        with pytest.raises(LedgerError, match="is closed"):
            await writer.do(INSERT, 1)


async def test_closing_writes_what_is_queued_and_empties_the_write_ahead_log(path):
    """A copy of the one file is then a copy of the ledger."""
    async with opened(path) as writer:
        writer.post(INSERT, 1)
        await writer.close()
    assert not path.with_name("test.db-wal").exists()
    assert items(path) == [1]


async def test_a_cancelled_close_ends_the_thread_all_the_same(path):
    """Whoever takes the lock next must be alone."""
    async with opened(path) as writer:
        writer.post(INSERT, 1)
        (task,) = await started(writer.close())
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert not any(thread.name == "bulkjobs-ledger" for thread in threading.enumerate())
    assert items(path) == [1]


def test_a_writer_outlives_its_loop_without_noise(path):
    """A program that ends without closing loses nothing it was told is durable, and sees no traceback."""

    async def main():
        writer = Writer("The ledger", lambda: connect(path))
        await writer.start()
        await writer.do(INSERT, 1)
        released = threading.Event()
        pending = asyncio.ensure_future(writer.call(lambda _: released.wait(30)))
        await asyncio.sleep(0)
        pending.cancel()
        return writer, released

    writer, released = asyncio.run(main())
    released.set()
    writer._queue.put(None)
    writer._thread.join(10)
    assert not writer._thread.is_alive()
    assert items(path) == [1]


def test_virtual_time_stands_still_while_the_disk_is_at_work(path):
    """Else a test of a five-minute wait would end it during a commit."""

    async def main():
        loop = asyncio.get_running_loop()
        lockout = asyncio.ensure_future(asyncio.sleep(300))
        async with opened(path) as writer:
            for number in range(20):
                await writer.do(INSERT, number)
            assert not lockout.done()
            assert loop.time() < 1
        await lockout
        assert loop.time() >= 300

    run_virtual(main())


def test_virtual_time_goes_on_when_a_caller_was_cancelled(path):
    """Each piece of work that began is said to have ended, whoever still waits for it."""

    async def main():
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualClockLoop)
        async with opened(path) as writer:
            gate = await Gate.close(writer)
            (task,) = await started(writer.do(INSERT, 1))
            task.cancel()
            await gate.open()
            await writer.do(INSERT, 2)
            await asyncio.sleep(300)
        assert loop.time() >= 300

    run_virtual(main())
