"""Any order of what can happen to a run, against the real ledger, the real verdicts and the real throttle.

Hypothesis chooses the steps and makes a failure as short as it can; it prints how to repeat it. The model knows what
the server really did, which the ledger never learns but from evidence.

    BULKJOBS_STATEFUL=20000x100 pytest tests/test_ledger_machine.py      (hours; the default is 300x50)
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.simulated import crash_image
from support.simulation.loop import PROCESS, LoopWriter, SimulationLoop
from support.simulation.process import Process

from bulkjobs.errors import BulkJobsError, InternalError, LedgerError
from bulkjobs.ledger import Ledger, summarise
from bulkjobs.ledger.settling import Settled, Settlement
from bulkjobs.lifecycle import TRANSITIONS
from bulkjobs.model import (
    FIRST_PART,
    Accepted,
    Cause,
    Chunk,
    ChunkState,
    Evidence,
    JobId,
    JobState,
    JobStatus,
    NotApplied,
    Phase,
    Refused,
    RequestKind,
    Tally,
    Unknown,
    Verdict,
)
from bulkjobs.settings import Rate
from bulkjobs.splitting import parts_of
from bulkjobs.throttle import Admit, Outcome, Throttle, Ticket, WaitUntil
from bulkjobs.verdict import judge

EXAMPLES, STEPS = map(int, os.environ.get("BULKJOBS_STATEFUL", "300x50").split("x"))
MEMORY = Path("/dev/shm")
WINDOW_S = 300.0
SENT_AGAIN = (ChunkState.HELD, ChunkState.PLANNED)


class Wall:
    """Is the wall clock of the client."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def utc(self) -> float:
        return self.now


def body(number: str) -> bytes:
    return b'{"errorNumber": "%s", "message": "No.", "status": 400}' % number.encode()


@dataclass(frozen=True)
class End:
    """Is how an attempt can end: what the client sees, what it must conclude, and what the server did."""

    status: int | None
    answer: bytes = b""
    concludes: type[Verdict] = Unknown  # type: ignore[valid-type]
    cause: Cause | None = None
    made: bool = False
    phase: Phase = Phase.COMPLETE


ENDS = {
    "accepted": End(200, b'{"jobId": "%s", "status": "accepted", "type": "contacts"}', Accepted, made=True),
    "bad ids": End(400, body("400-108"), Refused),
    "slots": End(400, body("400-184"), NotApplied, Cause.SLOTS_FULL),
    "too large": End(413, b"", NotApplied, Cause.TOO_LARGE),
    "too many ids": End(400, body("400-185"), NotApplied, Cause.TOO_LARGE),
    "throttled": End(429, b"", NotApplied, Cause.THROTTLED),
    "token": End(401, b"", NotApplied, Cause.UNAUTHORIZED),
    "forbidden": End(403, b"", NotApplied, Cause.MISCONFIGURED),
    "redirect": End(307, b"", NotApplied, Cause.MISCONFIGURED),
    "too early": End(425, b"", NotApplied, Cause.NOT_PROCESSED),
    "unknown 400": End(400, b"what?"),
    "see other, made": End(303, b"", made=True),
    "gateway": End(502, b"<html>"),
    "gateway, made": End(504, b"<html>", made=True),
    "login page": End(200, b"<html>"),
    "cut, made": End(200, b'{"jobId": "%s", "sta', made=True, phase=Phase.STATUS_READ),
    "no answer": End(None, phase=Phase.BODY_SENT),
    "no answer, made": End(None, made=True, phase=Phase.BODY_SENT),
    "broken pipe": End(None, phase=Phase.HEADERS_SENT),
}


@dataclass
class Known:
    """Is what the model knows of a chunk."""

    chunk: Chunk
    state: ChunkState = ChunkState.PLANNED
    attempts: int = 0
    at_risk: bool = False
    made: list[str] = field(default_factory=list)
    """What the server really made of it."""
    job: str | None = None
    """What the ledger was told."""


class LedgerMachine(RuleBasedStateMachine):
    """Drives a ledger and an account through whatever can happen, beside a model of both."""

    concluded: ClassVar[set[type[Verdict]]] = set()
    """What came of the attempts of all examples together."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
        self.run_dir = self.folder / "run"
        self.clock = Wall()
        self.loop = SimulationLoop()
        self.ledger: Ledger | None = None
        self.chunks: dict[int, Known] = {}
        self.queued: list[int] = []
        """Chunks whose planning was queued and not waited for: a crash may lose them."""
        self.wholes = self.parts = self.jobs = 0
        self.now = 0.0
        self.flying: dict[int, tuple[Ticket, float]] = {}
        self.counted: list[float] = []
        """When the server counted what."""
        self.locked_until = -1.0
        self.knows_lockout = False

    # Doing

    def do(self, coroutine: Any) -> Any:
        PROCESS.set(self.process)
        result = self.loop.run_until_complete(coroutine)
        self.queued.clear()  # whatever was queued before is durable now
        return result

    def open(self) -> int:
        """Opens the ledger and restores the account from it; gives how many chunks were in flight."""
        nothing: Any = lambda *_: None  # noqa: E731 - three times nothing
        self.process = Process(
            1, born_at=0.0, draw=random.Random(1), at={}, opened=nothing, committed=nothing, note=nothing
        )
        self.ledger = self.do(Ledger.open(self.run_dir, clock=self.clock))
        if self.ledger.run is None:
            self.do(self.ledger.create_run({"endpoint": "contacts", "chunk_size": 9}))
        held: int = self.do(self.ledger.begin_session())
        self.throttle = Throttle(
            rate=Rate(count=self.limit, period_s=WINDOW_S), lockout_s=WINDOW_S, max_active_jobs=None
        )
        state = self.do(self.ledger.account_state(self.clock.now - 2 * WINDOW_S - 10))

        def placed(utc: float) -> float:
            return self.now + utc - self.clock.now

        until = state.locked_until_utc
        if held:
            until = max(until or 0.0, self.clock.now)
        self.throttle.restore(
            self.now,
            history=[(placed(begun), None if end is None else placed(end)) for begun, end in state.history],
            locked_until=None if until is None else placed(until),
            learned_limit=state.learned_limit,
        )
        return held

    def pass_time(self, wait_s: float) -> None:
        self.now += wait_s
        self.clock.now += wait_s

    def in_state(self, *states: ChunkState) -> list[int]:
        return [ordinal for ordinal, known in self.chunks.items() if known.state in states]

    def evidence(self, end: End, answer: bytes, begun_s: float) -> Evidence:
        return Evidence(
            phase=end.phase,
            started_utc=self.clock.now - (self.now - begun_s),
            ended_utc=self.clock.now,
            status=end.status,
            body=answer,
            error=None if end.phase is Phase.COMPLETE else "TimeoutError",
        )

    # The server

    def count(self) -> None:
        """Lets the server count a request; no window may hold more than the limit."""
        self.counted = [at for at in self.counted if at + WINDOW_S > self.now]
        self.counted.append(self.now)
        assert len(self.counted) <= self.limit, "I7 more requests in a window than the account bears"

    # What can happen

    @initialize(limit=st.integers(2, 6))
    def begin(self, limit: int) -> None:
        self.limit = limit
        self.open()

    @rule(ids=st.integers(1, 5), invalid=st.integers(0, 3), duplicate=st.integers(0, 3))
    def plan(self, ids: int, invalid: int, duplicate: int) -> None:
        ordinal = self.wholes = self.wholes + 1
        text = b"\n".join(b"%d" % (ordinal * 100 + number) for number in range(ids))
        chunk = Chunk(
            ordinal=ordinal,
            body=text,
            ids=ids,
            digest=hashlib.sha256(text).hexdigest(),
            first_id=str(ordinal * 100),
            last_id=str(ordinal * 100 + ids - 1),
            source="ids.txt",
            line=ordinal,
            tally=Tally(invalid=invalid, duplicate=duplicate),
        )
        self.loop.call_soon(self.ledger.plan, chunk)
        self.loop.run_until_complete(self.turn())
        self.chunks[ordinal] = Known(chunk)
        self.queued.append(ordinal)

    async def turn(self) -> None:
        """Lets the loop do what it was given, and no more."""

    @precondition(lambda self: self.in_state(ChunkState.PLANNED))
    @rule(data=st.data())
    def send(self, data: st.DataObject) -> None:
        """Waits for a permit as the gate does; then the intent becomes durable and the bytes leave."""
        ordinal = data.draw(st.sampled_from(self.in_state(ChunkState.PLANNED)))
        decision = self.throttle.decide(RequestKind.SUBMIT, self.now)
        if isinstance(decision, WaitUntil) and decision.at < float("inf"):
            self.pass_time(decision.at - self.now)
            decision = self.throttle.decide(RequestKind.SUBMIT, self.now)
        if not isinstance(decision, Admit):
            return
        assert not (self.knows_lockout and self.now < self.locked_until), "I8 sent into a lock-out"
        ticket = self.throttle.started(RequestKind.SUBMIT)
        known = self.chunks[ordinal]
        known.attempts += 1
        self.do(self.ledger.begin_attempt(ordinal, known.attempts))
        known.state = ChunkState.SENDING
        self.flying[ordinal] = (ticket, self.now)
        self.count()
        assert not known.made or known.at_risk, "I4 sent again although there is a job"

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), how=st.sampled_from(sorted(ENDS)), after_s=st.sampled_from([0.0, 0.5, 30.0, 200.0]))
    def end(self, data: st.DataObject, how: str, after_s: float) -> None:
        ordinal = data.draw(st.sampled_from(list(self.flying)))
        ticket, begun_s = self.flying.pop(ordinal)
        self.pass_time(after_s)
        end, known = ENDS[how], self.chunks[ordinal]
        answer = end.answer
        if end.made:
            self.jobs += 1
            known.made.append(f"job{self.jobs}")
        if b"%s" in answer:
            answer %= known.made[-1].encode()
        evidence = self.evidence(end, answer, begun_s)
        verdict = judge(evidence)
        assert isinstance(verdict, end.concludes), (how, verdict)
        self.concluded.add(type(verdict))
        assert not isinstance(verdict, NotApplied) or verdict.cause is end.cause, (how, verdict)
        self.report(ticket, how, end)
        self.conclude(known, evidence, verdict)

    def report(self, ticket: Ticket, how: str, end: End) -> None:
        outcome = Outcome.ANSWERED if end.phase is Phase.COMPLETE else Outcome.UNKNOWN_END
        if how == "throttled":
            outcome = Outcome.THROTTLED
            self.locked_until = self.now + WINDOW_S
            self.knows_lockout = True
            self.counted.clear()
        begins = how == "throttled" and self.throttle.may_send
        self.throttle.ended(ticket, self.now, outcome)
        if self.throttle.locked_out:
            until = self.clock.now + self.throttle.locked_until - self.now
            self.loop.call_soon(self.ledger.lockout, until, "HTTP 429", begins)

    def conclude(self, known: Known, evidence: Evidence, verdict: Verdict) -> None:
        ordinal = known.chunk.ordinal
        if isinstance(verdict, NotApplied) and verdict.cause is Cause.TOO_LARGE:
            if known.chunk.ids > 1:
                self.split(known, evidence, verdict)
                return
            verdict = Refused(reason="one id is too many")
        self.do(self.ledger.end_attempt(ordinal, known.attempts, evidence, verdict))
        match verdict:
            case Accepted():
                known.state, known.job = ChunkState.ACCEPTED, verdict.job_id
            case Refused():
                known.state = ChunkState.REFUSED
            case NotApplied():
                known.state = ChunkState.PLANNED
            case Unknown():
                known.state = ChunkState.HELD

    def split(self, known: Known, evidence: Evidence, verdict: Verdict) -> None:
        parts = parts_of(known.chunk)
        numbered = self.do(self.ledger.split(known.chunk.ordinal, known.attempts, evidence, verdict, parts))
        known.state = ChunkState.SPLIT
        assert b"\n".join(part.body for part in numbered) == known.chunk.body
        for part in numbered:
            assert part.ordinal == FIRST_PART + self.parts
            self.parts += 1
            self.chunks[part.ordinal] = Known(part, at_risk=known.at_risk)

    @precondition(lambda self: self.flying and any(known.job for known in self.chunks.values()))
    @rule(data=st.data())
    def get_the_answer_of_another_request(self, data: st.DataObject) -> None:
        ordinal = data.draw(st.sampled_from(list(self.flying)))
        jobs = [known.job for known in self.chunks.values() if known.job is not None]
        ticket, begun_s = self.flying.pop(ordinal)
        known, end = self.chunks[ordinal], ENDS["accepted"]
        self.jobs += 1
        known.made.append(f"job{self.jobs}")
        answer = end.answer % data.draw(st.sampled_from(jobs)).encode()
        self.report(ticket, "accepted", end)
        evidence = self.evidence(end, answer, begun_s)
        stands = self.do(self.ledger.end_attempt(ordinal, known.attempts, evidence, judge(evidence)))
        assert isinstance(stands, Unknown)
        known.state = ChunkState.HELD

    @precondition(lambda self: self.in_state(ChunkState.PLANNED))
    @rule(data=st.data())
    def fail_to_connect(self, data: st.DataObject) -> None:
        known = self.chunks[data.draw(st.sampled_from(self.in_state(ChunkState.PLANNED)))]
        known.attempts += 1
        evidence = self.evidence(End(None, phase=Phase.STARTED), b"", self.now)
        self.do(self.ledger.end_attempt(known.chunk.ordinal, known.attempts, evidence, judge(evidence)))

    @precondition(lambda self: self.in_state(ChunkState.ACCEPTED))
    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        ready = st.sampled_from(self.in_state(ChunkState.ACCEPTED))
        some = data.draw(st.lists(ready, unique=True, min_size=1))
        self.do(self.ledger.deliver(some, {"jobs.jsonl": len(some)}))
        for ordinal in some:
            self.chunks[ordinal].state = ChunkState.DELIVERED

    @precondition(lambda self: any(known.job for known in self.chunks.values()))
    @rule(data=st.data(), state=st.sampled_from([JobState.PROCESSING, JobState.FINISHED, JobState.FAILED]))
    def see_a_job(self, data: st.DataObject, state: JobState) -> None:
        jobs = [known.job for known in self.chunks.values() if known.job is not None]
        job = JobId(data.draw(st.sampled_from([*jobs, "somebody-elses"])))
        status = JobStatus(job_id=job, state=state, word=state.value, job_type="contact", processed=1)
        self.loop.call_soon(self.ledger.job_seen, status)

    @precondition(lambda self: self.in_state(ChunkState.HELD))
    @rule(data=st.data())
    def reconcile(self, data: st.DataObject) -> None:
        """Settles a held chunk with the truth: the job that there is, or the proof that there is none."""
        known = self.chunks[data.draw(st.sampled_from(self.in_state(ChunkState.HELD)))]
        ordinal = known.chunk.ordinal
        if not known.made:
            self.do(self.ledger.settle(ordinal, Settlement(how=Settled.ABSENT, reason="two lists")))
            known.state = ChunkState.PLANNED
            return
        job = JobStatus(
            job_id=JobId(known.made[-1]), state=JobState.FINISHED, word="finished", job_type="contact"
        )
        self.do(self.ledger.settle(ordinal, Settlement(how=Settled.ADOPTED, reason="its ids"), job=job))
        known.state, known.job = ChunkState.ACCEPTED, known.made[-1]

    @precondition(lambda self: self.in_state(ChunkState.HELD))
    @rule(data=st.data())
    def take_the_risk(self, data: st.DataObject) -> None:
        known = self.chunks[data.draw(st.sampled_from(self.in_state(ChunkState.HELD)))]
        how = Settlement(how=Settled.RESUBMITTED, reason="a person said so", by_person=True)
        self.do(self.ledger.settle(known.chunk.ordinal, how))
        known.state, known.at_risk = ChunkState.PLANNED, True

    @precondition(lambda self: self.chunks)
    @rule(data=st.data())
    def try_what_is_illegal(self, data: st.DataObject) -> None:
        ordinal = data.draw(st.sampled_from(list(self.chunks)))
        known = self.chunks[ordinal]
        if (known.state, ChunkState.SENDING) not in TRANSITIONS:
            with pytest.raises(InternalError):
                self.do(self.ledger.begin_attempt(ordinal, known.attempts + 1))
        if (known.state, ChunkState.DELIVERED) not in TRANSITIONS:
            with pytest.raises(InternalError):
                self.do(self.ledger.deliver([ordinal], {}))
        if known.state is not ChunkState.HELD:
            with pytest.raises(BulkJobsError):
                self.do(self.ledger.settle(ordinal, Settlement(how=Settled.ABSENT, reason="none")))
        taken = next((known.job for known in self.chunks.values() if known.job is not None), None)
        if known.state is ChunkState.HELD and taken is not None:
            job = JobStatus(job_id=JobId(taken), state=JobState.FINISHED, word="finished", job_type="contact")
            with pytest.raises(LedgerError):
                self.do(self.ledger.settle(ordinal, Settlement(how=Settled.ADOPTED, reason="?"), job=job))

    @rule(wait_s=st.sampled_from([0.1, 5.0, 150.0, 290.0, 310.0, 1_000.0]))
    def wait(self, wait_s: float) -> None:
        self.pass_time(wait_s)

    @rule(back_s=st.sampled_from([1.0, 400.0, 3_600.0]))
    def set_the_clock_back(self, back_s: float) -> None:
        """Ahead would make a restart forget what it sent: no process can know that the clock was wrong."""
        self.clock.now -= back_s

    @precondition(lambda self: self.flying or self.queued)
    @rule()
    def crash(self) -> None:
        """Leaves the files as they are: what was queued and never waited for may be gone, all else stays."""
        image = self.folder / "image"
        crash_image(self.run_dir, image)
        self.loop.run_until_complete(self.ledger.close())
        shutil.rmtree(self.run_dir)
        image.rename(self.run_dir)
        self.start_again()

    @precondition(lambda self: self.in_state(ChunkState.ACCEPTED, ChunkState.SPLIT) or self.knows_lockout)
    @rule()
    def stop_and_start_twice(self) -> None:
        """The second time finds nothing to do, and leaves everything as it is."""
        self.do(self.ledger.close())
        self.start_again()
        before = self.dump()
        self.do(self.ledger.close())
        assert self.open() == 0, "I9 the second opening finds something to do"
        assert self.dump() == before, "I9 opening twice is not opening once"

    def start_again(self) -> None:
        in_flight, queued = self.in_state(ChunkState.SENDING), self.queued[:]
        assert self.open() == len(in_flight)
        kept = {ordinal for (ordinal,) in self.rows("SELECT ordinal FROM chunk")}
        for ordinal in queued:
            if ordinal not in kept:
                del self.chunks[ordinal]
                self.wholes -= 1
        for ordinal in in_flight:
            self.chunks[ordinal].state = ChunkState.HELD
        self.flying.clear()

    # What must hold

    def rows(self, sql: str) -> Sequence[tuple[Any, ...]]:
        """Reads what is committed, without waiting for what is queued."""
        return self.ledger._writer._database.execute(sql).fetchall()

    def dump(self) -> list[Any]:
        return [
            self.rows("SELECT * FROM chunk"),
            self.rows("SELECT * FROM attempt"),
            self.rows("SELECT * FROM job"),
            self.rows("SELECT * FROM settlement"),
            self.rows("SELECT * FROM lockout"),
        ]

    @invariant()
    def the_ledger_is_the_model(self) -> None:
        if self.ledger is None:
            return
        there = {
            ordinal: rest
            for ordinal, *rest in self.rows(
                "SELECT ordinal, state, digest, duplicate_risk, (SELECT count(*) FROM attempt WHERE chunk = ordinal),"
                " (SELECT job_id FROM job WHERE chunk = ordinal) FROM chunk"
            )
        }
        committed = {ordinal: known for ordinal, known in self.chunks.items() if ordinal not in self.queued}
        for ordinal, known in committed.items():
            risk = there[ordinal].pop(2)
            assert bool(risk) == known.at_risk or ordinal >= FIRST_PART
            assert there[ordinal] == [known.state, known.chunk.digest, known.attempts, known.job]
        assert set(committed) <= set(there) <= set(self.chunks)

    @invariant()
    def no_chunk_has_two_attempts_in_flight_and_none_is_left_behind(self) -> None:
        if self.ledger is None:
            return
        flying = self.rows("SELECT chunk, count(*) FROM attempt WHERE verdict IS NULL GROUP BY chunk")
        assert flying == [(ordinal, 1) for ordinal in sorted(self.flying)]

    @invariant()
    def nothing_is_paid_twice_unless_a_person_took_the_risk(self) -> None:
        for known in self.chunks.values():
            assert len(known.made) <= 1 or known.at_risk
            if known.state in (ChunkState.ACCEPTED, ChunkState.DELIVERED):
                assert known.job in known.made
            elif known.made and known.state not in SENT_AGAIN:
                assert known.state is ChunkState.SENDING or known.at_risk

    @invariant()
    def every_id_is_in_one_place(self) -> None:
        if self.ledger is None or self.queued:
            return
        summary = summarise(self.ledger.run, self.do(self.ledger.counts()), 0)
        whole = [known.chunk for known in self.chunks.values() if known.chunk.parent is None]
        ids = dict.fromkeys(ChunkState, 0)
        for known in self.chunks.values():
            ids[known.state] += known.chunk.ids
        assert summary.ids == {
            "read": sum(chunk.ids + chunk.tally.invalid + chunk.tally.duplicate for chunk in whole),
            "invalid": sum(chunk.tally.invalid for chunk in whole),
            "duplicate": sum(chunk.tally.duplicate for chunk in whole),
            "accepted": ids[ChunkState.ACCEPTED] + ids[ChunkState.DELIVERED],
            "refused": ids[ChunkState.REFUSED],
            "held": ids[ChunkState.HELD],
            "pending": ids[ChunkState.PLANNED] + ids[ChunkState.SENDING],
        }

    def teardown(self) -> None:
        if self.ledger is not None:
            self.do(self.ledger.close())
        self.loop.close()
        shutil.rmtree(self.folder)


@pytest.mark.slow
@pytest.mark.timeout(0 if EXAMPLES > 300 else 600)
def test_any_order_of_events_keeps_the_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    monkeypatch.setattr("bulkjobs.ledger.ledger.Writer", LoopWriter)
    run_state_machine_as_test(
        LedgerMachine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert LedgerMachine.concluded >= {NotApplied, Unknown}
