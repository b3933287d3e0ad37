"""What is left to do of a chunk when its outcome is known: it becomes durable, and then everyone hears of it.

An acceptance is waited for here and not by the worker that brought it, so that the worker's next chunk is on its way
to the disk with the same sync. The order stays what it was: the ledger takes things in the order in which they come,
so the next intent of a worker is durable with its last outcome or later. Whenever the process is killed, there are no
more chunks that were sent and have no outcome in the ledger than there are workers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, assert_never

from bulkjobs.account.permit import Permit
from bulkjobs.channel import Channel
from bulkjobs.clock import timestamp
from bulkjobs.errors import InternalError
from bulkjobs.events import ChunkAccepted, ChunkHeld, ChunkRefused, Event
from bulkjobs.ledger import Ledger
from bulkjobs.model import Accepted, Cause, Chunk, Evidence, JobRecord, NotApplied, Refused, Unknown, Verdict
from bulkjobs.rundir import RunDir

__all__ = ["Outcomes", "report_outcome"]

_WAITING: Final = 64
"""Acceptances that nobody has heard of yet. With more a worker takes no other chunk: a sink is slow, or the disk."""


@dataclass(frozen=True, slots=True)
class _Acceptance:
    """Is an answer that made a job, and is on its way into the ledger. It does not keep the chunk, which is large."""

    durable: asyncio.Future[Verdict]
    """Gives the verdict that stands."""
    record: JobRecord
    elapsed_s: float
    permit: Permit


class Outcomes:
    """Tells of outcomes that are durable: the gate, whoever waits for the job to end, the observers and the sinks."""

    def __init__(
        self,
        ledger: Ledger,
        run_dir: RunDir,
        *,
        run_id: str,
        endpoint: str,
        on_job: Callable[[str], None],
        records: Channel[JobRecord],
        emit: Callable[[Event], None],
    ) -> None:
        """Makes the stage.

        Args:
            ledger: where outcomes become durable.
            run_dir: where the ids of refused chunks are.
            run_id: for the records.
            endpoint: its name, for the records.
            on_job: told the id of every job.
            records: gets the record of every job.
            emit: told of every outcome.
        """
        self._ledger = ledger
        self._run_dir = run_dir
        self._run_id = run_id
        self._endpoint = endpoint
        self._on_job = on_job
        self._records = records
        self._emit = emit
        self._accepted: Channel[_Acceptance] = Channel(_WAITING)

    async def room(self) -> None:
        """Waits while too many acceptances wait."""
        await self._accepted.room()

    def accept(
        self, chunk: Chunk, attempt: int, evidence: Evidence, verdict: Accepted, permit: Permit
    ) -> None:
        """Takes an acceptance, and the permit of its attempt, which it passes on: given back once the job is durable.

        Guarantees:
            It becomes durable no later than any intent that is handed to the ledger after this call.

        Raises:
            LedgerError: the ledger failed or is closed.
        """
        durable = self._ledger.end_attempt(chunk.ordinal, attempt, evidence, verdict)
        record = self._record(chunk, attempt, evidence, verdict)
        elapsed_s = max(0.0, evidence.ended_utc - evidence.started_utc)
        self._accepted.put(_Acceptance(durable, record, elapsed_s, permit.pass_on()))

    def close(self) -> None:
        """Says that no acceptance comes any more; `run` ends when all are told of."""
        self._accepted.close()

    async def run(self) -> None:
        """Tells of acceptances, in the order in which they came.

        Raises:
            InternalError, LedgerError: from the ledger.
        """
        try:
            async for acceptance in self._accepted:
                with acceptance.permit as permit:
                    verdict = await acceptance.durable
                    # An acceptance with the job of another chunk has become unknown.
                    report_outcome(permit, verdict)
                await self._tell_accepted(acceptance, verdict)
        finally:
            for left in self._accepted.receive_waiting():  # the session fails; they are written all the same
                if not left.durable.cancel():
                    left.durable.exception()  # seen: it is the one with which the session fails

    def tell(self, chunk: Chunk, verdict: Verdict) -> None:
        """Tells the observers of an outcome without a job, now that the ledger holds it."""
        match verdict:
            case Refused():
                path = str(self._run_dir.refused_ids(chunk.ordinal))
                self._emit(ChunkRefused(chunk=chunk.ordinal, ids=chunk.ids, reason=verdict.reason, path=path))
            case Unknown():
                self._emit(ChunkHeld(chunk=chunk.ordinal, ids=chunk.ids, reason=verdict.reason))
            case NotApplied():
                pass  # told by the worker, which knows how long it waits
            case Accepted():
                raise InternalError("An acceptance is told of by `run`.")
            case _:
                assert_never(verdict)

    async def _tell_accepted(self, acceptance: _Acceptance, verdict: Verdict) -> None:
        record = acceptance.record
        if isinstance(verdict, Accepted):
            self._on_job(verdict.job_id)
            self._emit(ChunkAccepted(record=record, elapsed_s=acceptance.elapsed_s, remark=verdict.remark))
            await self._records.send(record)
        elif isinstance(verdict, Unknown):
            self._emit(ChunkHeld(chunk=record.chunk, ids=record.ids, reason=verdict.reason))

    def _record(self, chunk: Chunk, attempt: int, evidence: Evidence, verdict: Accepted) -> JobRecord:
        return JobRecord(
            run_id=self._run_id,
            chunk=chunk.ordinal,
            digest=chunk.digest,
            job_id=verdict.job_id,
            status=verdict.state.value,
            type=verdict.job_type,
            endpoint=self._endpoint,
            ids=chunk.ids,
            first_id=chunk.first_id,
            last_id=chunk.last_id,
            source=chunk.source,
            attempt=attempt,
            accepted_at=timestamp(evidence.ended_utc),
        )


def report_outcome(permit: Permit, verdict: Verdict) -> None:
    """Tells the gate what came of a submission, now that the ledger holds it."""
    if isinstance(verdict, Unknown):
        permit.outcome_unknown()
    elif not (isinstance(verdict, NotApplied) and verdict.cause is Cause.NOT_SENT):
        permit.outcome_known()
    if isinstance(verdict, Accepted):
        permit.job_opened(verdict.job_id)
