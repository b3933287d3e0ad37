"""The life of one chunk: for each verdict, what the gate, the ledger, the sinks and the observer see, and in which order."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkjobs.account.auth import Authenticator, GivenToken
from bulkjobs.account.gate import Gate
from bulkjobs.channel import Channel
from bulkjobs.endpoints import endpoint_named
from bulkjobs.events import AttemptNotApplied, ChunkAccepted, ChunkHeld, ChunkRefused, Event, TokenRefreshed
from bulkjobs.exits import Exit
from bulkjobs.halt import Halt
from bulkjobs.intake import Planned
from bulkjobs.ledger import Ledger
from bulkjobs.model import Cause, Chunk, ChunkState, Evidence, JobRecord, Phase, Request, RequestKind, Tally
from bulkjobs.outcomes import Outcomes
from bulkjobs.rundir import RunDir
from bulkjobs.settings import Rate, Secret
from bulkjobs.testing import FakeTransport, VirtualClock, answered, lost, run_virtual
from bulkjobs.throttle import Throttle
from bulkjobs.worker import Submission, Worker

Handler = Callable[[Request], Any]

REFUSAL = b'{"errorNumber": "400-108", "message": "Illegal values for the field contactId."}'
NO_QUOTA = b'{"errorNumber": "400-153", "message": "Insufficient transaction quota."}'
SLOTS_FULL = (
    b'{"message": "2 jobs are already running. Please try again once the previous jobs are finished."}'
)


def accepted(number: int = 1) -> Evidence:
    return answered(200, b'{"jobId": "job%d", "status": "accepted", "type": "contacts"}' % number)


def chunk_of(ordinal: int, *ids: int) -> Chunk:
    ids = ids or (ordinal * 10, ordinal * 10 + 1)
    body = "\n".join(map(str, ids)).encode()
    return Chunk(
        ordinal=ordinal,
        body=body,
        ids=len(ids),
        digest=hashlib.sha256(body).hexdigest(),
        first_id=str(ids[0]),
        last_id=str(ids[-1]),
        source="ids.txt",
        line=ordinal,
        tally=Tally(),
    )


class TwoTokens(Authenticator):
    """Replaces "old" by "new"."""

    def __init__(self, observer: Callable[[Event], None], *, successors: int = 1) -> None:
        super().__init__(observer)
        self._left = ["old", *(f"new{number}" for number in range(successors))]

    async def _obtain(self, rejected: str | None, reason: str) -> str:
        if not self._left:
            raise self._fail(f"There is no token any more: {reason}")
        return self._left.pop(0)


class Bench:
    """A worker with everything around it real but the network."""

    def __init__(self, ledger: Ledger, run_dir: RunDir, handler: Handler, **options: Any) -> None:
        self.ledger = ledger
        self.run_dir = run_dir
        self.clock = VirtualClock()
        self.transport = FakeTransport(handler, clock=self.clock, connect=options.get("connect"))
        self.events: list[Event] = []
        self.jobs: list[str] = []
        self.lockouts: list[tuple[float, str]] = []
        self.halt = Halt()
        self.throttle = Throttle(
            rate=options.get("rate"), lockout_s=300.0, max_active_jobs=options.get("max_active_jobs")
        )
        self.gate = Gate(
            self.throttle,
            pace=None,
            clock=self.clock,
            observer=self.events.append,
            on_lockout=lambda until_utc, reason, _: self.lockouts.append((until_utc, reason)),
            on_limit=lambda _: None,
        )
        self.auth = options.get("auth", GivenToken)(*self._auth_arguments(options))
        self.halt.on_pull(lambda _: self.gate.stop_submits())
        self.records: Channel[JobRecord] = Channel(100)
        self.outcomes = Outcomes(
            ledger,
            run_dir,
            run_id="run",
            endpoint="contacts",
            on_job=self.jobs.append,
            records=self.records,
            emit=self.events.append,
        )
        self.submission = Submission(
            endpoint=endpoint_named("contacts"),
            base_url="https://host/api/v1",
            accept="json",
            webhook=options.get("webhook"),
            nonce_key=b"k" * 16,
        )
        self.worker = Worker(
            self.submission,
            gate=self.gate,
            auth=self.auth,
            transport=self.transport,
            ledger=ledger,
            run_dir=run_dir,
            clock=self.clock,
            halt=self.halt,
            emit=self.events.append,
            outcomes=self.outcomes,
            jitter=random.Random(7),
        )

    def _auth_arguments(self, options: dict[str, Any]) -> tuple[Any, ...]:
        return (self.events.append,) if "auth" in options else (Secret("old"), self.events.append)

    async def work(self, *chunks: Chunk, duplicate_risk: bool = False) -> None:
        """Lets the worker work on chunks until it ends."""
        channel: Channel[Planned] = Channel(max(1, len(chunks)))
        known = {row.ordinal: row.attempts for row in await self.ledger.chunk_rows(0, 1000)}
        for chunk in chunks:
            if chunk.ordinal not in known:
                self.ledger.plan(chunk)
            await channel.send(Planned(chunk, known.get(chunk.ordinal, 0), duplicate_risk))
        channel.close()
        async with asyncio.TaskGroup() as group:
            group.create_task(self.outcomes.run())
            await self.worker.run(channel)
            self.outcomes.close()

    async def states(self) -> list[ChunkState]:
        return [row.state for row in await self.ledger.chunk_rows(0, 1000)]

    async def attempts(self) -> list[int]:
        return [row.attempts for row in await self.ledger.chunk_rows(0, 1000)]

    def seen(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


@asynccontextmanager
async def bench(folder: Path, handler: Handler, **options: Any) -> AsyncIterator[Bench]:
    async with await Ledger.open(folder / "run", clock=VirtualClock()) as ledger:
        await ledger.create_run({"endpoint": "contacts"})
        await ledger.begin_session()
        yield Bench(ledger, RunDir(folder / "run"), handler, **options)


def script(*steps: Any) -> Handler:
    """Answers with one step after the other, the last one for ever."""
    left = list(steps)

    def answer(request: Request) -> Any:
        step = left.pop(0) if len(left) > 1 else left[0]
        return step(request) if callable(step) else step

    return answer


def now() -> float:
    return asyncio.get_running_loop().time()


def on(
    folder: Path, handler: Handler, test: Callable[[Bench], Coroutine[Any, Any, None]], **options: Any
) -> None:
    async def main() -> None:
        async with bench(folder, handler, **options) as at:
            await test(at)

    run_virtual(main())


# --- each verdict ---


def test_an_accepted_chunk_has_a_job_a_record_and_an_open_slot(tmp_path: Path) -> None:
    async def test(at: Bench) -> None:
        await at.work(chunk_of(1))
        assert await at.states() == [ChunkState.ACCEPTED]
        (record,) = at.records.receive_waiting()
        assert (record.job_id, record.chunk, record.attempt, record.status) == ("job1", 1, 1, "accepted")
        assert at.events == [ChunkAccepted(record=record, elapsed_s=0.0)] or at.seen(ChunkAccepted)
        assert at.jobs == ["job1"]
        assert [one.job_id for one in await at.ledger.undelivered(0, 9)] == ["job1"]
        full = asyncio.create_task(at.gate.admit(RequestKind.SUBMIT))
        await asyncio.sleep(1.0)
        assert not full.done()
        at.gate.job_closed("job1")
        with await full as permit:
            permit.answered()

    on(tmp_path, script(accepted()), test, max_active_jobs=1)


def test_the_ledger_holds_the_job_before_anybody_hears_of_it(tmp_path: Path) -> None:
    async def test(at: Bench) -> None:
        committed: list[int] = []
        emit = at.outcomes._emit

        def observe(event: Event) -> None:
            committed.append(counted())
            emit(event)

        def counted() -> int:
            from bulkjobs.ledger import read_run

            return len(read_run(at.run_dir.path).open_jobs)

        at.outcomes._emit = observe
        at.outcomes._on_job = lambda _: committed.append(counted())
        await at.work(chunk_of(1))
        assert committed == [1, 1]

    on(tmp_path, script(accepted()), test)


def test_the_last_outcome_of_a_worker_is_durable_before_the_next_first_byte(tmp_path: Path) -> None:
    """It is not waited for, but kill the process at any time: there is no second chunk in flight of this worker."""
    in_flight: list[list[tuple[int]]] = []

    def look(request: Request) -> Evidence:
        from bulkjobs.ledger.schema import open_for_reading

        database = open_for_reading(tmp_path / "run" / "ledger.db")
        in_flight.append(database.execute("SELECT ordinal FROM chunk WHERE state = 'sending'").fetchall())
        database.close()
        return accepted(len(in_flight))

    async def test(at: Bench) -> None:
        await at.work(*map(chunk_of, range(1, 6)))
        assert in_flight == [[(ordinal,)] for ordinal in range(1, 6)]
        assert [record.chunk for record in at.records.receive_waiting()] == [1, 2, 3, 4, 5]

    on(tmp_path, look, test)


def test_while_nobody_takes_records_a_worker_soon_takes_no_further_chunk(tmp_path: Path) -> None:
    numbers = iter(range(1, 1000))

    async def test(at: Bench) -> None:
        at.outcomes._records = Channel(1)
        task = asyncio.create_task(at.work(*map(chunk_of, range(1, 201))))
        await asyncio.sleep(60.0)
        sent = len(at.transport.requests)
        assert 2 < sent < 100
        await asyncio.sleep(3600.0)
        assert len(at.transport.requests) == sent
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await at.states()).count(ChunkState.ACCEPTED) == sent

    on(tmp_path, lambda _: accepted(next(numbers)), test)


def test_the_intent_is_durable_before_the_first_byte(tmp_path: Path) -> None:
    def look(request: Request) -> Evidence:
        from bulkjobs.ledger.schema import open_for_reading

        database = open_for_reading(tmp_path / "run" / "ledger.db")
        seen.append(database.execute("SELECT state FROM chunk").fetchone()[0])
        database.close()
        return accepted()

    async def test(at: Bench) -> None:
        await at.work(chunk_of(1))
        assert seen == ["sending"]

    seen: list[str] = []
    on(tmp_path, look, test)


def test_the_request_carries_the_bytes_of_the_chunk_and_the_token(tmp_path: Path) -> None:
    async def test(at: Bench) -> None:
        await at.work(chunk_of(1, 5, 6, 7))
        (request,) = at.transport.requests
        assert request.body == b"5\n6\n7"
        assert request.url == "https://host/api/v1/contact/job"
        assert dict(request.headers)["accessToken"] == "old"

    on(tmp_path, script(accepted()), test)


def test_refused_ids_are_in_a_file_before_the_ledger_says_so(tmp_path: Path) -> None:
    async def test(at: Bench) -> None:
        end_attempt = at.ledger.end_attempt
        files: list[list[str]] = []

        async def watched(*arguments: Any) -> Any:
            files.append([path.read_text() for path in at.run_dir.refused.glob("*")])
            return await end_attempt(*arguments)

        at.ledger.end_attempt = watched  # type: ignore[method-assign]
        await at.work(chunk_of(1, 5, 6, 7))
        assert files == [["5\n6\n7\n"]]
        assert await at.states() == [ChunkState.REFUSED]
        (told,) = at.seen(ChunkRefused)
        assert Path(told.path).read_text() == "5\n6\n7\n"
        assert (told.chunk, told.ids) == (1, 3)
        assert "400-108" in told.reason
        assert not at.records.receive_waiting()
        assert not at.halt.pulled

    on(tmp_path, script(answered(400, REFUSAL)), test)


@pytest.mark.parametrize(
    "evidence",
    [
        lost("TimeoutError"),
        lost("ClientOSError", phase=Phase.HEADERS_SENT),
        answered(500, b"<html>"),
        answered(200, b"<html>Sign in</html>"),
        answered(400, b'{"message": "What is this?"}'),
        answered(303),
    ],
    ids=["time-out", "reset", "500", "portal", "unknown 400", "303"],
)
def test_an_unknown_outcome_is_held_and_never_sent_again(tmp_path: Path, evidence: Evidence) -> None:
    async def test(at: Bench) -> None:
        await at.work(chunk_of(1), chunk_of(2))
        assert await at.states() == [ChunkState.HELD, ChunkState.HELD]
        assert len(at.transport.requests) == 2
        assert [told.chunk for told in at.seen(ChunkHeld)] == [1, 2]
        assert not at.records.receive_waiting()
        with await at.gate.admit(RequestKind.SUBMIT) as permit:  # no slot is lost to a held chunk
            permit.answered()

    on(tmp_path, script(evidence), test, max_active_jobs=1)


def test_a_request_without_an_answer_keeps_its_token_longer_than_an_answered_one(tmp_path: Path) -> None:
    """The server may count it later than we gave up on it."""

    async def test(at: Bench) -> None:
        await at.work(chunk_of(1), chunk_of(2))
        assert now() > 300.0 + 5.0

    on(tmp_path, script(lost(), accepted()), test, rate=Rate(count=1, period_s=300.0))


def test_a_job_that_belongs_to_another_chunk_is_not_believed(tmp_path: Path) -> None:
    async def test(at: Bench) -> None:
        await at.work(chunk_of(1), chunk_of(2))
        assert await at.states() == [ChunkState.ACCEPTED, ChunkState.HELD]
        assert "already the job of chunk 1" in at.seen(ChunkHeld)[0].reason
        assert at.jobs == ["job1"]
        assert len(at.records.receive_waiting()) == 1

    on(tmp_path, script(accepted(1)), test)


# --- a person takes the risk of paying twice ---


def test_ids_that_may_be_paid_for_twice_are_in_a_file_before_they_go_out_again(tmp_path: Path) -> None:
    def look(request: Request) -> Evidence:
        seen.append((tmp_path / "run" / "duplicate-risk" / "chunk-00000001.txt").read_bytes())
        return accepted()

    async def test(at: Bench) -> None:
        await at.work(chunk_of(1, 5, 6), duplicate_risk=True)
        assert seen == [b"5\n6\n"]
        assert await at.states() == [ChunkState.ACCEPTED]
        assert at.run_dir.risky_ids(1).read_bytes() == b"5\n6\n"  # also when all went well: nobody can know
        assert at.run_dir.risky_ids(1).stat().st_mode & 0o777 == 0o600

    seen: list[bytes] = []
    on(tmp_path, look, test)


def test_ids_at_no_risk_are_in_no_such_file(tmp_path: Path) -> None:
    async def test(at: Bench) -> None:
        await at.work(chunk_of(1))
        assert not at.run_dir.duplicate_risk.exists()

    on(tmp_path, script(accepted()), test)


def test_what_cannot_be_written_down_does_not_go_out_again(tmp_path: Path) -> None:
    async def test(at: Bench) -> None:
        at.run_dir.duplicate_risk.write_text("in the way")
        await at.work(chunk_of(1), duplicate_risk=True)
        assert not at.transport.requests
        assert await at.states() == [ChunkState.PLANNED]
        assert at.halt.codes == [Exit.STORAGE]
        assert "chunk-00000001.txt cannot be written" in str(at.halt.reasons)

    on(tmp_path, script(accepted()), test)


# --- proved not applied ---


def test_what_was_not_sent_goes_out_again_after_growing_waits(tmp_path: Path) -> None:
    failures = 6

    def connect(request: Request) -> Evidence | None:
        nonlocal failures
        failures -= 1
        return lost("ClientConnectorError: refused", phase=Phase.STARTED) if failures >= 0 else None

    async def test(at: Bench) -> None:
        await at.work(chunk_of(1))
        assert await at.states() == [ChunkState.ACCEPTED]
        assert await at.attempts() == [7]
        told = at.seen(AttemptNotApplied)
        assert [one.attempt for one in told] == [1, 2, 3, 4, 5, 6]
        assert all(one.cause is Cause.NOT_SENT for one in told)
        assert all(0 <= one.wait_s < 2.0**number for number, one in enumerate(told))
        assert now() == pytest.approx(sum(one.wait_s for one in told), abs=0.01)
        assert at.transport.requests[0].body == chunk_of(1).body

    on(tmp_path, script(accepted()), test, connect=connect, rate=Rate(count=1, period_s=300.0))


def test_a_wait_between_attempts_ends_when_sending_ends(tmp_path: Path) -> None:
    async def test(at: Bench) -> None:
        asyncio.get_running_loop().call_later(200.0, at.halt.pull, Exit.SIGINT, "enough")
        await at.work(chunk_of(1))
        assert now() < 201.0
        assert await at.states() == [ChunkState.PLANNED]

    down = lost("ClientConnectorError: refused", phase=Phase.STARTED)
    on(tmp_path, script(accepted()), test, connect=lambda _: down)


def test_a_throttled_chunk_goes_out_again_after_the_lock_out(tmp_path: Path) -> None:
    async def test(at: Bench) -> None:
        await at.work(chunk_of(1))
        assert await at.states() == [ChunkState.ACCEPTED]
        assert now() == pytest.approx(400.0, abs=0.1)
        (told,) = at.seen(AttemptNotApplied)
        assert (told.cause, told.wait_s) == (Cause.THROTTLED, 0.0)
        assert len(at.lockouts) == 1

    on(tmp_path, script(answered(429, retry_after="400"), accepted()), test)


def test_a_lock_out_that_begins_between_permit_and_first_byte_is_met_by_nothing(tmp_path: Path) -> None:
    """Another worker is throttled while this one's intent goes to the disk."""

    async def test(at: Bench) -> None:
        begin_attempt = at.ledger.begin_attempt
        with await at.gate.admit(RequestKind.STATUS) as other:

            async def slow(*arguments: Any) -> None:
                await begin_attempt(*arguments)
                if other._ticket.in_flight:
                    other.throttled(None, "HTTP 429")

            at.ledger.begin_attempt = slow  # type: ignore[method-assign]
            await at.work(chunk_of(1))
        assert now() > 309.0
        assert len(at.transport.requests) == 1
        assert await at.states() == [ChunkState.ACCEPTED]
        assert await at.attempts() == [2]

    on(tmp_path, script(accepted()), test)


def test_full_slots_are_waited_for_and_are_no_error(tmp_path: Path) -> None:
    async def test(at: Bench) -> None:
        await at.work(chunk_of(1))
        assert await at.states() == [ChunkState.ACCEPTED]
        assert [one.cause for one in at.seen(AttemptNotApplied)] == [Cause.SLOTS_FULL] * 2
        assert now() == pytest.approx(5.0 + 5.0, abs=0.1)

    on(
        tmp_path,
        script(answered(400, SLOTS_FULL), answered(429, SLOTS_FULL), accepted()),
        test,
        max_active_jobs=2,
    )


def test_a_refused_token_is_replaced_once_and_the_chunk_goes_out_again(tmp_path: Path) -> None:
    def handler(request: Request) -> Evidence:
        return answered(401) if dict(request.headers)["accessToken"] == "old" else accepted()

    async def test(at: Bench) -> None:
        await at.work(chunk_of(1))
        assert await at.states() == [ChunkState.ACCEPTED]
        assert len(at.seen(TokenRefreshed)) == 1
        assert [dict(request.headers)["accessToken"] for request in at.transport.requests] == ["old", "new0"]

    on(tmp_path, handler, test, auth=TwoTokens)


def test_a_token_that_is_replaced_while_a_chunk_waits_for_its_turn_is_not_sent(tmp_path: Path) -> None:
    async def test(at: Bench) -> None:
        with await at.gate.admit(RequestKind.STATUS) as permit:
            permit.answered()
        working = asyncio.create_task(at.work(chunk_of(1)))
        await asyncio.sleep(100.0)
        await at.auth.refresh("old", "another request was refused")
        await working
        assert now() == pytest.approx(300.0, abs=1e-3)
        assert [dict(request.headers)["accessToken"] for request in at.transport.requests] == ["new0"]
        assert await at.attempts() == [1]

    on(tmp_path, script(accepted()), test, auth=TwoTokens, rate=Rate(count=1, period_s=300.0))


def test_when_the_new_token_is_refused_as_well_sending_stops_and_chunks_stay_pending(tmp_path: Path) -> None:
    async def test(at: Bench) -> None:
        await at.work(chunk_of(1), chunk_of(2), chunk_of(3))
        assert await at.states() == [ChunkState.PLANNED] * 3
        assert at.halt.codes == [Exit.STOPPED]
        assert len(at.transport.requests) == 2

    on(tmp_path, script(answered(401)), test, auth=lambda observer: TwoTokens(observer, successors=9))


@pytest.mark.parametrize(
    ("evidence", "requests", "code"),
    [
        (answered(400, NO_QUOTA), 1, Exit.STOPPED),
        (answered(403), 1, Exit.STOPPED),
        (answered(404), 1, Exit.STOPPED),
        (answered(302), 1, Exit.STOPPED),
        (answered(421), 2, Exit.STOPPED),
        (answered(401), 1, Exit.STOPPED),
    ],
    ids=["quota", "403", "404", "302", "421 twice", "401 without another token"],
)
def test_what_the_server_would_say_to_every_chunk_stops_sending(
    tmp_path: Path, evidence: Evidence, requests: int, code: Exit
) -> None:
    async def test(at: Bench) -> None:
        await at.work(chunk_of(1), chunk_of(2))
        assert len(at.transport.requests) == requests
        assert await at.states() == [ChunkState.PLANNED] * 2
        assert at.halt.codes == [code]

    on(tmp_path, script(evidence), test)


def test_a_chunk_that_was_not_processed_once_goes_out_again(tmp_path: Path) -> None:
    async def test(at: Bench) -> None:
        await at.work(chunk_of(1))
        assert await at.states() == [ChunkState.ACCEPTED]
        assert [one.cause for one in at.seen(AttemptNotApplied)] == [Cause.NOT_PROCESSED]

    on(tmp_path, script(answered(425), accepted()), test)


def test_attempts_are_numbered_on_over_sessions(tmp_path: Path) -> None:
    async def test(at: Bench) -> None:
        await at.work(chunk_of(1))  # no quota
        again = Bench(at.ledger, at.run_dir, script(accepted()))
        await again.work(chunk_of(1))
        assert await at.attempts() == [2]
        assert again.records.receive_waiting()[0].attempt == 2

    on(tmp_path, script(answered(400, NO_QUOTA)), test)


# --- cancelling ---


async def cancelled(at: Bench, *, after_s: float) -> None:
    task = asyncio.create_task(at.work(chunk_of(1)))
    await asyncio.sleep(after_s)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_cancelled_while_waiting_for_the_account_a_chunk_stays_planned(tmp_path: Path) -> None:
    async def test(at: Bench) -> None:
        with await at.gate.admit(RequestKind.SUBMIT) as permit:
            permit.job_opened("other")
        await cancelled(at, after_s=5.0)
        assert await at.states() == [ChunkState.PLANNED]
        assert await at.attempts() == [0]

    on(tmp_path, script(accepted()), test, max_active_jobs=1)


def test_cancelled_while_connecting_a_chunk_stays_planned(tmp_path: Path) -> None:
    async def connect(request: Request) -> None:
        await asyncio.sleep(60.0)

    async def test(at: Bench) -> None:
        await cancelled(at, after_s=5.0)
        assert await at.states() == [ChunkState.PLANNED]
        assert not at.seen(ChunkHeld)

    on(tmp_path, script(accepted()), test, connect=connect)


def test_cancelled_while_its_intent_goes_to_the_disk_a_chunk_is_planned_again(tmp_path: Path) -> None:
    async def test(at: Bench) -> None:
        begin_attempt = at.ledger.begin_attempt

        async def slow(*arguments: Any) -> None:
            await begin_attempt(*arguments)
            await asyncio.sleep(60.0)

        at.ledger.begin_attempt = slow  # type: ignore[method-assign]
        await cancelled(at, after_s=5.0)
        assert await at.states() == [ChunkState.PLANNED]
        assert await at.attempts() == [1]
        assert not at.transport.requests

    on(tmp_path, script(accepted()), test)


def test_cancelled_while_the_server_has_it_a_chunk_is_held(tmp_path: Path) -> None:
    async def handler(request: Request) -> Evidence:
        await asyncio.sleep(60.0)
        return accepted()

    async def test(at: Bench) -> None:
        await cancelled(at, after_s=5.0)
        assert await at.states() == [ChunkState.HELD]
        assert "cancelled while it was being sent" in at.seen(ChunkHeld)[0].reason
        (held,) = await at.ledger.held(0, 9)
        assert held.phase == Phase.HEADERS_SENT

    on(tmp_path, handler, test)


@pytest.mark.parametrize("answer", [accepted(), answered(400, REFUSAL)], ids=["accepted", "refused"])
def test_cancelled_when_the_answer_is_there_the_answer_counts(tmp_path: Path, answer: Evidence) -> None:
    async def test(at: Bench) -> None:
        end_attempt = at.ledger.end_attempt

        async def slow(*arguments: Any) -> Any:
            verdict = await end_attempt(*arguments)
            await asyncio.sleep(60.0)
            return verdict

        at.ledger.end_attempt = slow  # type: ignore[method-assign]
        await cancelled(at, after_s=5.0)
        expected = ChunkState.ACCEPTED if answer.status == 200 else ChunkState.REFUSED
        assert await at.states() == [expected]

    on(tmp_path, script(answer), test)


def test_cancelled_before_its_record_is_taken_a_chunk_is_delivered_from_the_ledger(tmp_path: Path) -> None:
    async def test(at: Bench) -> None:
        at.outcomes._records = Channel(0)  # nobody takes a record
        await cancelled(at, after_s=5.0)
        assert await at.states() == [ChunkState.ACCEPTED]
        assert len(await at.ledger.undelivered(0, 9)) == 1

    on(tmp_path, script(accepted()), test)


# --- the webhook ---


def submission(key: bytes, webhook: str | None = "https://me/hook") -> Submission:
    return Submission(
        endpoint=endpoint_named("contacts"),
        base_url="https://host",
        accept="json",
        webhook=webhook,
        nonce_key=key,
    )


def test_the_webhook_of_a_chunk_goes_with_its_request(tmp_path: Path) -> None:
    async def test(at: Bench) -> None:
        await at.work(chunk_of(1))
        from urllib.parse import parse_qs, urlsplit

        sent = parse_qs(urlsplit(at.transport.requests[0].url).query)["webhook"]
        assert sent == [at.submission.webhook_of(1)]

    on(tmp_path, script(accepted()), test, webhook="https://me/hook?a=b")


@given(
    key=st.binary(min_size=16, max_size=16), chunks=st.sets(st.integers(1, 10**7), min_size=2, max_size=40)
)
def test_nonces_are_stable_and_differ_from_chunk_to_chunk_and_run_to_run(
    key: bytes, chunks: set[int]
) -> None:
    one, again, other = submission(key), submission(key), submission(bytes(16 - len(key)) + key[::-1] + b"x")
    hooks = {one.webhook_of(chunk) for chunk in chunks}
    assert len(hooks) == len(chunks)
    assert hooks == {again.webhook_of(chunk) for chunk in chunks}
    assert not hooks & {other.webhook_of(chunk) for chunk in chunks}


def test_a_nonce_has_128_bits_that_follow_from_nothing_public() -> None:
    hook = submission(b"k" * 16).webhook_of(7)
    assert hook is not None
    nonce = hook.removeprefix("https://me/hook?bulkjobs=")
    assert len(bytes.fromhex(nonce)) == 16
    for public in (b"7", b"r7", b"r/7"):
        assert hashlib.blake2b(public, digest_size=16).hexdigest() != nonce


def test_a_query_of_the_webhook_is_kept_and_without_a_webhook_there_is_none() -> None:
    assert str(submission(b"k" * 16, "https://me/h?a=b").webhook_of(1)).startswith(
        "https://me/h?a=b&bulkjobs="
    )
    assert submission(b"k" * 16, None).webhook_of(1) is None
