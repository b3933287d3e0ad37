"""What must hold at every step, checked at every step against three accounts that share nothing.

The input as `reference` reads it says what there is to send. The ledger's commits, as the database itself reports
them, say what the client may rely on after a crash. The service's own books say what was really made. The numbers
I1 to I14 begin each message:

    I1 every id ends in one place            I8 nothing is sent into a known lock-out
    I2 one attempt of a chunk at a time      I9 the same command again changes nothing
    I3 bytes leave after a durable intent    I10 memory is bounded by the workers
    I4 only proof repeats                    I11 chunks hold the input's ids in order
    I5 accepted is final, with one job       I12 no attempt is left without a record
    I6 the body stays the same               I13 no state goes back but as the table says
    I7 the server's window is kept           I14 it comes to an end, and then goes on
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from bulkjobs.events import ChunkAccepted, ChunkHeld, ChunkPlanned, ChunkRefused, Event
from bulkjobs.model import FIRST_PART, Request, RequestKind
from bulkjobs.simulator import Service, SimReply
from support.simulation.changes import Change
from support.simulation.process import Process
from support.simulation.reference import Expected
from support.simulation.scenario import Scenario

__all__ = ["Watch"]

_MOVES: Final = {
    ("planned", "sending"),
    ("sending", "planned"),
    ("sending", "accepted"),
    ("sending", "refused"),
    ("sending", "held"),
    ("sending", "split"),
    ("held", "accepted"),
    ("held", "planned"),
    ("accepted", "delivered"),
}
_VERDICTS_OF: Final = {
    "planned": (None, "not_applied"),
    "accepted": ("accepted",),
    "delivered": ("accepted",),
    "refused": ("refused",),
    "held": ("unknown",),
    "split": ("not_applied", "refused"),
}
"""The verdicts that can stand on the last attempt of a chunk in a state; None before the first."""

_PROOFS: Final = frozenset(
    {301, 302, 307, 308, 401, 403, 404, 405, 407, 410, 411, 413, 414, 415, 421, 425, 426, 429, 431}
)
"""Statuses that prove of themselves that nothing was made."""
_PROOFS_BY_WORDS: Final = frozenset({400, 402, 422})
_WORDED: Final = frozenset({"slots_full", "no_quota", "misconfigured", "too_large"})
"""Causes that a server names in words, with a status that proves nothing of itself."""
_BYTES_LEFT: Final = 2
"""The phase from which on the server may have seen something."""
_GRACE_S: Final = 60.0


class Watch:
    """Sees everything, and keeps what is wrong as sentences."""

    def __init__(
        self,
        scenario: Scenario,
        expected: Expected,
        service: Service,
        *,
        server_utc: Callable[[], float],
        note: Callable[[str], None],
        alarm: Callable[[], None],
    ) -> None:
        """Makes a watch.

        Args:
            scenario: what is simulated.
            expected: what there is to send.
            service: whose books are the truth.
            server_utc: its time.
            note: keeps the trace.
            alarm: called at each violation.
        """
        self.violations: list[str] = []
        self.at_work: set[int] = set()
        """Numbers of the processes that have sent something and not ended."""
        self._begun: set[int] = set()
        """Numbers of the processes that have committed something."""
        self.seen: Counter[str] = Counter()
        """How often what was met, for the summary of many seeds."""
        self._scenario = scenario
        self._expected = expected
        self._service = service
        self._server_utc = server_utc
        self._note = note
        self._alarm = alarm
        self.states: dict[int, str] = {}
        self.job_of: dict[int, str] = {}
        self.digest_of: dict[int, str] = {}
        self.ordinal_of = dict(expected.ordinal_of)
        """By digest; parts of split chunks come in when they are planned."""
        self._slices: dict[int, tuple[int, int, int]] = {}
        """Of each chunk: the whole that it is of, the index of its first id there, and how many ids."""
        self._wholes = self._parts = 0
        self._unbalanced = 0
        self._owner: dict[str, int] = {}
        self._attempts: defaultdict[int, dict[int, str | None]] = defaultdict(dict)
        self._sends: Counter[int] = Counter()
        self._travelling: Counter[str] = Counter()
        self.made: dict[str, str] = {}
        """Digest of the body of each job that the service made."""
        self._paid: set[bytes] = set()
        self._window: deque[float] = deque()
        self._durable_lockout = 0
        self._jumped_at = -1e18
        self._takers: dict[str, Callable[[Sequence[Any]], None]] = {
            "chunk+": self._planned,
            "chunk": self._moved,
            "attempt+": self._began,
            "attempt": self._ended,
            "job+": self._job,
            "settlement+": self._settled,
            "lockout+": self._locked_out,
        }
        self._in_memory: Counter[int] = Counter()
        # A chunk for each worker waits, one is with it, and of one it holds only the record until that is told.
        self._most_in_memory = (3 * scenario.settings.workers + 1) * scenario.chunk_size

    def broken(self, what: str) -> None:
        """Takes down a violation."""
        self._note(f"VIOLATION {what}")
        self.violations.append(what)
        self._alarm()

    # The ledger

    def opened(self, rows: Sequence[tuple[int, str]]) -> None:
        """Compares what a ledger holds when it is opened with what was committed to it."""
        if dict(rows) != self.states:
            lost = [f"{one} {state}" for one, state in self.states.items() if dict(rows).get(one) != state]
            self.broken(f"I3 the ledger forgot what it had committed: {', '.join(lost[:5])}")

    def committed(self, process: Process, changes: Sequence[Change]) -> None:
        """Takes what one transaction changed."""
        self._begun.add(process.number)
        touched: dict[int, None] = {}
        for what, *values in changes:
            self._takers.get(what, self._gone)(values)
            if what in ("chunk+", "chunk", "attempt+", "attempt", "settlement+"):
                touched[values[0]] = None
        self._note(f"process {process.number} commits {_short(changes)}")
        for ordinal in touched:
            self._check_chunk(ordinal)
        if self._unbalanced:
            self.broken(f"I1 the parts of chunks that were split have {self._unbalanced} ids more than these")

    def _gone(self, values: Sequence[Any]) -> None:
        self.broken(f"I5 the ledger changed what is final: {values}")

    def _planned(self, values: Sequence[Any]) -> None:
        ordinal, state, digest, ids, parent, first, *tally = values
        self.states[ordinal] = state
        self.digest_of[ordinal] = digest
        if parent is None:
            self._wholes += 1
            number, root = self._wholes, ordinal
        else:
            self._parts += 1
            number, root = FIRST_PART + self._parts - 1, parent
        if ordinal != number or not 1 <= root <= len(self._expected.chunks):
            self.broken(f"I11 chunk {ordinal} was planned as number {number} of {len(self._expected.chunks)}")
            return
        whole = self._expected.chunks[root - 1]
        body = whole.body if parent is None else b"\n".join(whole.body.split(b"\n")[first : first + ids])
        if digest != hashlib.sha256(body).hexdigest() or not 1 <= ids <= self._scenario.chunk_size:
            self.broken(
                f"I11 chunk {ordinal} does not hold the ids that stand there in the input, in their order"
            )
        if tally != ([whole.invalid, whole.duplicate] if parent is None else [0, 0]):
            self.broken(f"I1 chunk {ordinal} counts invalid and duplicate ids as {tally}, not as {whole}")
        self.ordinal_of[digest] = ordinal
        self._slices[ordinal] = (root, first, ids)
        self._unbalanced += 0 if parent is None else ids

    def _moved(self, values: Sequence[Any]) -> None:
        ordinal, before, after = values
        if (before, after) not in _MOVES or self.states.get(ordinal) != before:
            self.broken(
                f"I13 chunk {ordinal} went from {before} to {after}, known as {self.states.get(ordinal)}"
            )
        self.states[ordinal] = after
        if after == "split":
            self._unbalanced -= self._slices[ordinal][2]

    def _began(self, values: Sequence[Any]) -> None:
        chunk, attempt, verdict, *proof = values
        attempts = self._attempts[chunk]
        if attempt in attempts:
            self.broken(f"I2 attempt {attempt} of chunk {chunk} stands twice")
        if None in attempts.values():
            self.broken(f"I2 chunk {chunk} has two attempts in flight")
        attempts[attempt] = verdict
        if verdict is not None:
            self._check_proof(f"attempt {attempt} of chunk {chunk}", verdict, proof)

    def _ended(self, values: Sequence[Any]) -> None:
        chunk, attempt, before, verdict, *proof = values
        if before is not None:
            self.broken(f"I4 the verdict on attempt {attempt} of chunk {chunk} changed: {before}, {verdict}")
        self._attempts[chunk][attempt] = verdict
        self._check_proof(f"attempt {attempt} of chunk {chunk}", verdict, proof)

    def _check_proof(self, which: str, verdict: str, proof: Sequence[Any]) -> None:
        cause, phase, status = proof
        self.seen[f"{verdict} {cause or ''}".rstrip()] += 1
        if verdict != "not_applied":
            return
        unsent = phase is not None and phase < _BYTES_LEFT
        by_words = status in _PROOFS_BY_WORDS and cause in _WORDED
        if not (unsent or status in _PROOFS or by_words):
            self.broken(
                f"I4 {which} is called not applied without proof: {cause}, phase {phase}, status {status}"
            )

    def _job(self, values: Sequence[Any]) -> None:
        chunk, job_id, _ = values
        if chunk in self.job_of or job_id in self._owner:
            self.broken(f"I5 job {job_id} and chunk {chunk}: one of them is taken already")
        self.job_of[chunk] = job_id
        self._owner[job_id] = chunk
        if self.ordinal_of.get(self.made.get(job_id, "")) != chunk:
            self.broken(
                f"I6 the ledger calls {job_id} the job of chunk {chunk}; the server made it of something else"
            )

    def _settled(self, values: Sequence[Any]) -> None:
        """Takes how a held chunk was settled; from here on its last verdict is no longer what counts."""
        ordinal, attempt, how, _ = values
        self.seen[f"settled {how}"] += 1
        digest = self.digest_of[ordinal]
        there_is_one = digest in self.made.values()
        if self._attempts[ordinal].get(attempt) != "unknown":
            self.broken(
                f"I4 attempt {attempt} of chunk {ordinal} was settled, but its outcome was not unknown"
            )
        if how == "absent" and (there_is_one or self._travelling[digest]):
            self.broken(
                f"I4 chunk {ordinal} is called absent, and the server has made a job of it, or still may"
            )
        self._attempts[ordinal][attempt] = "accepted" if how == "adopted" else "not_applied"

    def _locked_out(self, _values: Sequence[Any]) -> None:
        if self._locked():
            self._durable_lockout = len(self._service._throttle.lockouts)

    def _check_chunk(self, ordinal: int) -> None:
        state, attempts = self.states.get(ordinal), self._attempts[ordinal]
        verdicts = [attempts[number] for number in sorted(attempts)]
        last = verdicts[-1] if verdicts else None
        if (state == "sending") != (verdicts.count(None) == 1):
            self.broken(f"I2 chunk {ordinal} is {state} with attempts {verdicts}")
        if state in _VERDICTS_OF and last not in _VERDICTS_OF[state]:
            self.broken(f"I4 chunk {ordinal} is {state} after the verdict {last}")
        if (state in ("accepted", "delivered")) != (ordinal in self.job_of):
            self.broken(f"I5 chunk {ordinal} is {state}, and its job is {self.job_of.get(ordinal)}")
        if set(verdicts[:-1]) - {"not_applied"}:
            self.broken(f"I4 chunk {ordinal} was sent again after {verdicts[:-1]}: that proves nothing")

    def knows_job_of(self, body: bytes) -> bool:
        """Tells whether the ledger has the job of a body."""
        ordinal = self.ordinal_of.get(hashlib.sha256(body).hexdigest())
        return ordinal in self.job_of

    # The wire

    def leaves(self, process: Process, request: Request, fault: str | None) -> None:
        """Takes the moment at which the first byte of a request leaves."""
        self.seen[f"sent {request.kind}"] += 1
        if fault is not None:
            self.seen[f"fault {fault}"] += 1
        self._check_lockout(process)
        if self.at_work - {process.number}:
            self.broken(
                f"I2 process {process.number} sends while {sorted(self.at_work)} work on the same run"
            )
        self.at_work.add(process.number)
        if request.kind is not RequestKind.SUBMIT:
            self._note(f"process {process.number} sends {request.kind}, {fault}")
            return
        digest = hashlib.sha256(request.body).hexdigest()
        ordinal = self.ordinal_of.get(digest)
        self._note(f"process {process.number} sends chunk {ordinal}, {fault}")
        if ordinal is None:
            self.broken(f"I6 a body of {len(request.body)} bytes left that is none of the chunks")
            return
        self._sends[ordinal] += 1
        verdicts = list(self._attempts[ordinal].values())
        if self.states.get(ordinal) != "sending" or verdicts.count(None) != 1:
            self.broken(
                f"I3 bytes of chunk {ordinal} left without a durable intent: it is {self.states.get(ordinal)}, {verdicts}"
            )
        if any(verdict not in (None, "not_applied") for verdict in verdicts):
            self.broken(f"I4 chunk {ordinal} left again after {verdicts}")
        if self._sends[ordinal] > len(verdicts):
            self.broken(
                f"I4 chunk {ordinal} left {self._sends[ordinal]} times, with {len(verdicts)} attempts in the ledger"
            )
        if self._travelling[digest]:
            self.broken(f"I4 chunk {ordinal} left again while it was still on its way")

    def travels(self, request: Request) -> None:
        """Takes a request that will arrive."""
        if request.kind is RequestKind.SUBMIT:
            self._travelling[hashlib.sha256(request.body).hexdigest()] += 1

    def arrives(self, request: Request, *, made: str | None, counted: bool) -> None:
        """Takes a request that the server, or what stands before it, has dealt with.

        Args:
            request: whole.
            made: id of the job that was made of it.
            counted: it reached the service, which counted it.
        """
        if request.kind is RequestKind.SUBMIT:
            digest = hashlib.sha256(request.body).hexdigest()
            self._travelling[digest] -= 1
            if made is not None:
                self._made(made, digest, request.body)
        if counted:
            self._count()

    def _made(self, job_id: str, digest: str, body: bytes) -> None:
        self._note(f"the service makes {job_id} of chunk {self.ordinal_of.get(digest)}")
        self.made[job_id] = digest
        ids = body.split(b"\n")
        twice = self._paid.intersection(ids)
        if twice:
            self.broken(f"I4 {len(twice)} ids are paid twice, with job {job_id}")
        self._paid.update(ids)

    def returns(self, process: Process, request: Request, reply: SimReply | None) -> None:
        """Takes what a process gets to see of an answer."""
        status = None if reply is None else reply.status
        self._note(f"process {process.number} gets {status} for {request.kind}")
        if reply is not None and status == 429 and b"429-151" in reply.body and self._locked():
            process.known_lockout = len(self._service._throttle.lockouts)

    # The account

    def jumped(self, by_s: float) -> None:
        """Takes a jump of the client's wall clock."""
        if by_s > 0:
            self._jumped_at = self._server_utc()

    def _excused(self, process: Process | None) -> bool:
        """Tells whether a process may have misjudged the past: the wall clock went ahead between then and its birth."""
        settings = self._scenario.settings
        long_s = 2 * (settings.effective_lockout_s + _GRACE_S) + settings.request_timeout_s
        born_after = process is None or process.born_at >= self._jumped_at
        return born_after and self._server_utc() - self._jumped_at < long_s

    def _locked(self) -> bool:
        return self._server_utc() < self._service._throttle.locked_until

    def _check_lockout(self, process: Process) -> None:
        if not self._locked():
            process.blind_in_lockout = 0
            return
        lockouts = self._service._throttle.lockouts
        if process.known_lockout == len(lockouts):
            self.broken(f"I8 process {process.number} sent into a lock-out that it had been told of")
        if process.born_at <= lockouts[-1].began_at or self._excused(process):
            return
        process.blind_in_lockout += 1
        if self._durable_lockout == len(lockouts):
            self.broken(f"I8 process {process.number} sent into a lock-out that stands in its ledger")
        elif process.blind_in_lockout > 1:
            self.broken(
                f"I8 process {process.number} sent {process.blind_in_lockout} requests into a lock-out that began before it"
            )

    def _count(self) -> None:
        limit, now = self._scenario.config.rate, self._server_utc()
        if limit is None or not self._scenario.keeps_rate:
            return
        window = self._window
        while window and window[0] <= now - limit.window_s:
            window.popleft()
        window.append(now)
        if len(window) > limit.count and not self._excused(None):
            self.broken(f"I7 the server counted {len(window)} requests in a window of {limit.count}")

    # Events

    def event(self, process: Process, event: Event) -> None:
        """Takes what the engine tells."""
        if isinstance(event, ChunkPlanned):
            self._in_memory[process.number] += event.ids
            if self._in_memory[process.number] > self._most_in_memory:
                self.broken(f"I10 more than {self._most_in_memory} ids are in memory or not told of")
        elif isinstance(event, ChunkAccepted):
            self._in_memory[process.number] -= event.record.ids
        elif isinstance(event, (ChunkRefused, ChunkHeld)):
            self._in_memory[process.number] -= event.ids
        self._note(f"process {process.number} tells {type(event).__name__}")

    def ended(self, process: Process, *, in_order: bool) -> None:
        """Takes the end of a process; one that was not killed has left nothing undone.

        One that has committed nothing did not begin: what is in flight was left by a crash, and waits for the next.
        """
        self.at_work.discard(process.number)
        if not in_order or process.number not in self._begun:
            return
        open_ones = [ordinal for ordinal, state in self.states.items() if state == "sending"]
        if open_ones:
            self.broken(f"I12 process {process.number} ended and left chunks {open_ones[:5]} in flight")


def _short(changes: Sequence[Change]) -> str:
    def shown(value: Any) -> str:
        text = "-" if value is None else str(value)
        return text[:8] if len(text) == 64 else text

    return "; ".join(" ".join(map(shown, change)) for change in changes)
