"""The life of one chunk: from planned to accepted, refused or held.

The order is the guarantee. A permit of the account comes first, then a connection; with the connection
standing, the intent is made durable, and only then can a byte leave. The evidence is judged, the outcome is
made durable, and only then does anyone hear of it (`outcomes`). Whatever breaks in between leaves either a chunk
that was never sent or one whose outcome the ledger calls unknown.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final, TypeGuard, assert_never

from bulkjobs.account.auth import Authenticator
from bulkjobs.account.gate import Gate, GateStopped, Permit, PermitWithdrawn
from bulkjobs.backoff import delay_s
from bulkjobs.budget import Budget, CapReached, Share
from bulkjobs.endpoints import Endpoint
from bulkjobs.errors import AuthError, ConfigError, InternalError, LedgerFull
from bulkjobs.events import AttemptNotApplied, ChunkSplit, Event
from bulkjobs.exits import Exit
from bulkjobs.halt import Halt
from bulkjobs.intake import Planned
from bulkjobs.ledger import Ledger
from bulkjobs.model import (
    Accepted,
    Cause,
    Chunk,
    Evidence,
    NotApplied,
    Phase,
    Refused,
    RequestKind,
    Unknown,
    Verdict,
)
from bulkjobs.nonce import nonce_of
from bulkjobs.outcomes import Outcomes, report_outcome
from bulkjobs.ports import Clock, Transport
from bulkjobs.rundir import RunDir, not_written
from bulkjobs.splitting import parts_of
from bulkjobs.verdict import judge
from bulkjobs.wire.request import AnswerFormat, submit_request

__all__ = ["Submission", "Worker"]

_BACKOFF_BASE_S: Final = 1.0
_BACKOFF_CAP_S: Final = 60.0
_MOST_NOT_PROCESSED: Final = 2
"""421 and 425 promise that nothing happened, once; a server that keeps saying so is set up wrongly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """Holds what is the same for every chunk of a run."""

    endpoint: Endpoint
    base_url: str
    accept: AnswerFormat
    webhook: str | None
    nonce_key: bytes

    def webhook_of(self, chunk: int) -> str | None:
        """Gives the webhook address for a chunk: the caller's, with a nonce that nobody can guess.

        A call that comes in on it belongs to this chunk, which is the best evidence there can be.
        """
        if self.webhook is None:
            return None
        nonce = nonce_of(self.nonce_key, chunk)
        return f"{self.webhook}{'&' if '?' in self.webhook else '?'}bulkjobs={nonce}"


class Worker:
    """Sends chunks, one at a time, each until its outcome is known or known to be unknown."""

    def __init__(
        self,
        submission: Submission,
        *,
        gate: Gate,
        auth: Authenticator,
        transport: Transport,
        ledger: Ledger,
        run_dir: RunDir,
        clock: Clock,
        halt: Halt,
        emit: Callable[[Event], None],
        outcomes: Outcomes,
        jitter: random.Random,
        bisect: bool = False,
        budget: Budget | None = None,
    ) -> None:
        """Makes a worker."""
        self._submission = submission
        self._gate = gate
        self._auth = auth
        self._transport = transport
        self._ledger = ledger
        self._run_dir = run_dir
        self._clock = clock
        self._halt = halt
        self._emit = emit
        self._outcomes = outcomes
        self._jitter = jitter
        self._bisect = bisect
        self._budget = budget or Budget()

    async def run(self, chunks: AsyncIterator[Planned]) -> None:
        """Works through chunks until they end or sending stops."""
        async for planned in chunks:
            try:
                await self._settle(planned)
            except GateStopped:
                return
            except AuthError as error:
                self._halt.pull(Exit.STOPPED, str(error))
                return
            except ConfigError as error:  # the file of the token cannot be read (any more)
                self._halt.pull(Exit.USAGE, str(error))
                return

    async def _settle(self, planned: Planned) -> None:
        """Sends a chunk, or its parts, as far as the spend cap allows."""
        await self._outcomes.room()
        try:
            share = await self._budget.reserve(planned.chunk.ids)
        except CapReached as reached:
            reason = _cap_reached(reached, planned.chunk, await self._ledger.planned_ids())
            self._halt.pull(Exit.STOPPED, reason)
            return
        if share is None:
            return
        with share:
            parts = await self._send_until_settled(planned, share)
        for part in parts:
            await self._settle(Planned(part, 0))

    async def _send_until_settled(self, planned: Planned, share: Share) -> list[Chunk]:
        """Sends a chunk until nothing is left to try. A chunk that is left alone here stays planned.

        Returns:
            The parts that go out in its place, if that is what comes of it.
        """
        number, unapplied = planned.attempts, 0
        if planned.duplicate_risk:
            self._keep_risky(planned.chunk)
        while not self._halt.pulled:
            number += 1
            permit, token = await self._admitted()
            verdict, parts = await self._attempt(planned.chunk, number, permit, token)
            if isinstance(verdict, Accepted | Unknown):
                share.spent()
            if parts or not isinstance(verdict, NotApplied):
                return parts
            unapplied += 1
            wait_s = self._wait_after(verdict, unapplied)
            self._emit(
                AttemptNotApplied(
                    chunk=planned.chunk.ordinal,
                    attempt=number,
                    cause=verdict.cause,
                    reason=verdict.reason,
                    wait_s=wait_s,
                )
            )
            if verdict.cause is Cause.UNAUTHORIZED:
                await self._auth.refresh(token, verdict.reason)
            if wait_s and not await self._halt.pause(wait_s):
                break
        return []

    async def _admitted(self) -> tuple[Permit, str]:
        """Waits for a permit, with a token that did not expire in the wait, which may be for hours."""
        while True:
            token = await self._auth.token()
            permit = await self._gate.admit(RequestKind.SUBMIT)
            if self._auth.is_current(token):
                return permit, token
            with permit:
                permit.not_sent()

    async def _attempt(
        self, chunk: Chunk, number: int, permit: Permit, token: str
    ) -> tuple[Verdict, list[Chunk]]:
        """Makes one attempt, and sees that its outcome is recorded before anything else can happen to the chunk.

        Returns:
            The verdict, of an acceptance the one that the answer gives. And the parts that go out in the chunk's
            place, if that is what comes of it.
        """
        parts: list[Chunk] = []
        with permit:
            evidence = await self._send(chunk, number, token, permit)
            verdict = judge(evidence)
            # Before the disk is waited for: a lock-out must stop the other workers at once.
            _report_end(permit, evidence, verdict)
            if evidence.status is not None and not _is(verdict, Cause.UNAUTHORIZED):
                self._auth.worked(token)
            if isinstance(verdict, Accepted):
                self._outcomes.accept(chunk, number, evidence, verdict, permit)
                return verdict, parts
            if self._divides(verdict, chunk):
                parts = await self._ledger.split(chunk.ordinal, number, evidence, verdict, parts_of(chunk))
            else:
                if _is(verdict, Cause.TOO_LARGE) and chunk.ids == 1:
                    verdict = Refused(reason=f"{verdict.reason} There is only one id in it.")
                if isinstance(verdict, Refused):
                    verdict = self._kept(chunk, verdict)
                verdict = await self._ledger.end_attempt(chunk.ordinal, number, evidence, verdict)
            report_outcome(permit, verdict)
            if _is(verdict, Cause.SLOTS_FULL):
                self._gate.slots_full(verdict.reason)
        if parts and isinstance(verdict, NotApplied | Refused):
            self._emit(
                ChunkSplit(chunk=chunk.ordinal, ids=chunk.ids, parts=len(parts), reason=verdict.reason)
            )
        else:
            self._outcomes.tell(chunk, verdict)
        return verdict, parts

    def _divides(self, verdict: Verdict, chunk: Chunk) -> TypeGuard[NotApplied | Refused]:
        """Tells whether parts of a chunk go out in its place: the whole was not applied, and a part may be."""
        if chunk.ids == 1:
            return False
        return _is(verdict, Cause.TOO_LARGE) or (isinstance(verdict, Refused) and self._bisect)

    async def _send(self, chunk: Chunk, number: int, token: str, permit: Permit) -> Evidence:
        """Sends the chunk once, with the intent durable before the first byte."""
        submission = self._submission
        request = submit_request(
            submission.endpoint,
            base_url=submission.base_url,
            body=chunk.body,
            token=token,
            accept=submission.accept,
            webhook=submission.webhook_of(chunk.ordinal),
        )
        started_utc = self._clock.utc()
        phase = Phase.STARTED

        async def intend() -> None:
            nonlocal phase
            permit.check()
            phase = Phase.CONNECTED
            await self._ledger.begin_attempt(chunk.ordinal, number)
            permit.check()  # a lock-out may have begun while the disk was busy
            phase = Phase.HEADERS_SENT

        def cut_short(reason: str) -> Evidence:
            return Evidence(phase=phase, started_utc=started_utc, ended_utc=self._clock.utc(), error=reason)

        try:
            return await self._transport.request(request, before_first_byte=intend)
        except PermitWithdrawn as withdrawn:
            return cut_short(str(withdrawn))
        except LedgerFull as full:
            self._halt.pull(Exit.STORAGE, str(full))
            return cut_short(str(full))
        except asyncio.CancelledError:
            if phase >= Phase.CONNECTED:
                evidence = cut_short("cancelled while it was being sent")
                verdict = await self._ledger.end_attempt(chunk.ordinal, number, evidence, judge(evidence))
                self._outcomes.tell(chunk, verdict)
            raise

    def _wait_after(self, verdict: NotApplied, unapplied: int) -> float:
        """Decides what follows an attempt that had no effect; gives the wait before the next, in seconds."""
        match verdict.cause:
            case Cause.THROTTLED | Cause.SLOTS_FULL | Cause.UNAUTHORIZED:
                return 0.0  # the gate, or the new token, makes it wait
            case Cause.NO_QUOTA | Cause.MISCONFIGURED:
                self._halt.pull(Exit.STOPPED, verdict.reason)
                return 0.0
            case Cause.TOO_LARGE:
                raise InternalError("A chunk that is too large was neither split nor refused.")
            case Cause.NOT_PROCESSED if unapplied >= _MOST_NOT_PROCESSED:
                self._halt.pull(Exit.STOPPED, f"{verdict.reason} It said so again.")
                return 0.0
            case Cause.NOT_SENT | Cause.NOT_PROCESSED:
                return delay_s(
                    unapplied, base_s=_BACKOFF_BASE_S, cap_s=_BACKOFF_CAP_S, random=self._jitter.random()
                )
            case _:
                assert_never(verdict.cause)

    def _keep_risky(self, chunk: Chunk) -> None:
        """Writes down which ids may be paid for twice, before they can be."""
        path = self._run_dir.risky_ids(chunk.ordinal)
        try:
            self._run_dir.write(path, chunk.body + b"\n")
        except OSError as error:
            self._halt.pull(Exit.STORAGE, f"{path} cannot be written: {error.strerror or error}.")

    def _kept(self, chunk: Chunk, verdict: Refused) -> Verdict:
        """Writes the ids of a refused chunk to be fed again, before the ledger calls it refused.

        It blocks, for some milliseconds: a wait between answer and ledger could be cancelled, and what the server
        said would be lost.

        Returns:
            The verdict that can stand. A chunk whose ids could not be kept goes out again in a later session.
        """
        path = self._run_dir.refused_ids(chunk.ordinal)
        try:
            self._run_dir.write(path, chunk.body + b"\n")
        except OSError as error:
            problem = not_written(path, error)
            self._halt.pull(Exit.STORAGE, problem)
            return NotApplied(cause=Cause.NOT_PROCESSED, reason=f"{verdict.reason} But {problem}")
        return verdict


def _cap_reached(reached: CapReached, chunk: Chunk, planned_ids: int) -> str:
    """Says that the spend cap ended the sending, with all figures, and what to do."""
    return (
        f"The spend cap of {reached.cap:,} ids is reached: {reached.spent:,} are accepted or held, and chunk "
        f"{chunk.ordinal} would add {chunk.ids:,}. Of what was read by now {planned_ids:,} ids are pending: give the "
        f"same command with a higher --spend-cap to go on."
    )


def _report_end(permit: Permit, evidence: Evidence, verdict: Verdict) -> None:
    """Tells the gate how the request ended."""
    match verdict:
        case NotApplied(cause=Cause.NOT_SENT):
            permit.not_sent()
        case NotApplied(cause=Cause.THROTTLED):
            permit.throttled(verdict.retry_after_s, verdict.reason)
        case Unknown() if evidence.phase < Phase.COMPLETE:
            # Without a whole answer the server may count the request later than we gave up on it.
            permit.lost()
        case _:
            permit.answered()


def _is(verdict: Verdict, cause: Cause) -> TypeGuard[NotApplied]:
    return isinstance(verdict, NotApplied) and verdict.cause is cause
