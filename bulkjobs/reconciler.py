"""The life of a held chunk: compared with the server's list of jobs until it is settled or no more can be learned.

Everything here is free of charge and may be asked again. What is decided from the answers is `matching`'s; what a
decision changes is one transaction of the ledger. Nothing is sent again from here: a chunk whose absence is proved is
planned, and goes out like any other.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from bulkjobs.account.listing import JobList, JobReader, Unreadable
from bulkjobs.errors import ConfigError
from bulkjobs.events import ChunkSettled, ChunkStaysHeld, Event, ReconcileWaits
from bulkjobs.halt import Halt
from bulkjobs.ledger import KnownJob, Ledger, Settled, Settlement, VerdictRow
from bulkjobs.matching import Candidate, HeldChunk, Listing, Look, Looks, Matches, distrust, match
from bulkjobs.model import JobId, JobState, JobStatus
from bulkjobs.nonce import calls_by_job
from bulkjobs.ports import Clock
from bulkjobs.wire.answer import ListedJob

__all__ = ["Bodies", "Orders", "Reconciler"]

Bodies = Callable[[Sequence[VerdictRow]], Awaitable[Mapping[int, bytes]]]
"""Gives the bodies of chunks again, from the sources of the run."""

_ROWS: Final = 1_000
_RISK: Final = "a person takes the risk that its ids are paid for twice"
_MOST_CONTROLS: Final = 4
_TRUSTED_SHARE: Final = 0.9
"""Of the ids in the results of a job of our own that must be those it was made of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """Is what a person wants of held chunks."""

    adopt: Mapping[int, str] = field(default_factory=dict)
    """By chunk, the job that is its."""
    resubmit: Sequence[int] = ()
    """Chunks that go out again, although their ids may then be paid for twice."""
    calls: Sequence[bytes] = ()
    """Lines of a log of webhook calls."""

    @property
    def by_person(self) -> bool:
        """Tells whether chunks are named, so that nothing is looked for."""
        return bool(self.adopt or self.resubmit)


class Reconciler:
    """Settles held chunks as far as the server's list of jobs allows."""

    def __init__(
        self,
        reader: JobReader,
        ledger: Ledger,
        *,
        bodies: Bodies,
        settle_s: float,
        exclusive: bool,
        clock: Clock,
        halt: Halt,
        emit: Callable[[Event], None],
        calls: Sequence[bytes] = (),
    ) -> None:
        """Makes a reconciler.

        Args:
            reader: asks for jobs.
            ledger: of the run.
            bodies: gives the ids of held chunks.
            settle_s: how late a job may be made, and the least time between two listings.
            exclusive: nobody else makes jobs with the account.
            clock: wall clock.
            halt: ends it between two requests.
            emit: told of waits and of what is settled.
            calls: lines of a log of webhook calls; see `nonce.calls_by_job`.
        """
        self._reader = reader
        self._ledger = ledger
        self._bodies = bodies
        self._settle_s = settle_s
        self._exclusive = exclusive
        self._clock = clock
        self._halt = halt
        self._emit = emit
        self._calls = calls
        self._called: Mapping[str, int] = {}
        self._elsewhere: set[str] = set()
        """Jobs proved to be of nobody here."""
        self._results: dict[str, frozenset[bytes]] = {}
        self._since_utc = 0.0
        """No job of a held chunk is older."""
        self._controls: dict[str, bytes] = {}
        """Some jobs of this run, and what they were made of: by them it shows whether results are read rightly."""
        self._trusted = False

    async def run(self, session_began_utc: float) -> int:
        """Works until every held chunk is settled, or nothing more can be learned, or sending ends.

        Args:
            session_began_utc: attempts of earlier sessions had ended by then.

        Returns:
            How many chunks are planned again.

        Raises:
            GateStopped, AuthError, ConfigError: as `JobReader.jobs`.
        """
        held = await self._held(session_began_utc)
        if self._ledger.run is not None:
            self._called = calls_by_job(self._calls, self._ledger.run.nonce_key, held)
        planned = 0
        looks = Looks(self._settle_s, began_utc=self._clock.utc())
        while held and await self._wait(len(held), looks.next_utc(held.values())):
            look = await self._look(held)
            if isinstance(look, str):
                looks.failed(held, look, self._clock.utc())
            else:
                for chunk, (candidate, how) in look.matches.adopted.items():
                    await self._adopt(held.pop(chunk), candidate, how)
                for chunk in looks.add(held.values(), look):
                    await self._free(held.pop(chunk))
                    planned += 1
            if looks.over(self._clock.utc()):
                break
        await self._leave(held, looks)
        return planned

    async def obey(self, orders: Orders) -> None:
        """Settles held chunks as a person says.

        A job is adopted only if the server knows it and it is not older than the run.

        Raises:
            ConfigError: an order cannot be carried out; nothing of it was. Orders before it stand.
            LedgerError, GateStopped, AuthError: as elsewhere.
        """
        sizes = {row.chunk: row.ids for row in await self._rows()}
        for chunk in (*orders.adopt, *orders.resubmit):
            if chunk not in sizes:
                raise ConfigError(
                    f"Chunk {chunk} is not held: there is nothing to settle. held.jsonl lists those that are."
                )
        baseline = await self._ledger.baseline() or frozenset()
        known: set[str] = {job.job_id for job in await self._ledger.known_jobs()}
        for chunk, job_id in orders.adopt.items():
            if job_id in known:
                raise ConfigError(
                    f"Job {job_id} is the job of another chunk of this run, not of chunk {chunk}."
                )
            if job_id in baseline:
                raise ConfigError(
                    f"Job {job_id} was there before the run began, so it is not that of chunk {chunk}."
                )
            status = await self._reader.status(JobId(job_id))
            if isinstance(status, Unreadable):
                raise ConfigError(
                    f"The server does not confirm job {job_id} for chunk {chunk}: {status.reason}."
                )
            settlement = Settlement(
                how=Settled.ADOPTED, reason="a person says that it is its job", by_person=True
            )
            await self._settle(chunk, sizes[chunk], settlement, status)
            known.add(job_id)
        for chunk in orders.resubmit:
            settlement = Settlement(how=Settled.RESUBMITTED, reason=_RISK, by_person=True)
            await self._settle(chunk, sizes[chunk], settlement, None)

    async def _rows(self) -> list[VerdictRow]:
        rows: list[VerdictRow] = []
        while page := await self._ledger.held(rows[-1].chunk if rows else 0, _ROWS):
            rows += page
        return rows

    async def _held(self, session_began_utc: float) -> dict[int, HeldChunk]:
        rows = await self._rows()
        if not rows:
            return {}
        began_utc, first = min((row.started_utc, row.chunk) for row in rows)
        known = sorted(await self._accepted(), key=lambda job: job.sent_utc)
        # So that the newest is among those that the list must show, and one that was there before all that is held.
        shown = [job.sent_utc for job in known[-1:]]
        shown += [job.sent_utc for job in known if (job.accepted_utc, job.chunk) < (began_utc, first)][-1:]
        self._since_utc = min([began_utc, *shown])
        known = [job for job in known if job.sent_utc >= self._since_utc]
        # The newest may still be at work, and one may have failed.
        controls = {
            job.chunk: job.job_id for job in (*known[: _MOST_CONTROLS // 2], *known[-_MOST_CONTROLS // 2 :])
        }
        bodies = await self._bodies([*rows, *await self._ledger.chunks_named(list(controls))])
        if self._halt.pulled:
            return {}
        self._controls = {job_id: bodies[chunk] for chunk, job_id in controls.items()}
        return {
            row.chunk: HeldChunk(
                chunk=row.chunk,
                digest=row.digest,
                body=bodies[row.chunk],
                size=row.ids,
                # A process that died took its connections along, at the latest when this session began.
                started_utc=row.started_utc,
                ended_utc=session_began_utc if row.ended_utc is None else row.ended_utc,
            )
            for row in rows
        }

    async def _accepted(self) -> list[KnownJob]:
        """Gives the jobs of this run that the server told of itself."""
        return [job for job in await self._ledger.known_jobs() if not job.adopted]

    async def _wait(self, chunks: int, until: tuple[float, str]) -> bool:
        """Waits for the next look; tells whether it may be taken."""
        until_utc, reason = until
        wait_s = until_utc - self._clock.utc()
        if wait_s <= 0:
            return not self._halt.pulled
        self._emit(ReconcileWaits(chunks=chunks, until_utc=until_utc, wait_s=wait_s, reason=reason))
        return await self._halt.pause(wait_s)

    async def _look(self, held: Mapping[int, HeldChunk]) -> Look | str:
        """Reads the list, and the results of the jobs on it that nobody knows; gives why not if it cannot be read."""
        listed = await self._reader.jobs(self._since_utc, self._clock.utc())
        if isinstance(listed, Unreadable):
            return f"the list of jobs cannot be read: {listed.reason}"
        baseline = await self._ledger.baseline()
        ours = await self._ledger.known_jobs()
        older = (baseline or frozenset()) | {job.job_id for job in ours} | self._elsewhere
        matches = match(
            list(held.values()),
            [
                await self._candidate(job, held.values())
                for job_id, job in listed.jobs.items()
                if job_id not in older
            ],
            called=self._called,
            # A chunk that went out again at a person's risk may have left a job behind that nobody knows.
            exclusive=self._exclusive and baseline is not None and not await self._ledger.took_risks(),
        )
        if matches.elsewhere and (why := await self._why_not_trusted(listed, matches)):
            distrust(matches, held.values(), why)
        self._elsewhere |= matches.elsewhere
        for job_id in matches.elsewhere:
            self._results.pop(job_id, None)
        return Look(
            listing=Listing(
                began_utc=listed.began_utc, ended_utc=listed.ended_utc, jobs=frozenset(listed.jobs)
            ),
            known={
                job.job_id: job.sent_utc
                for job in ours
                if not job.adopted and job.sent_utc >= self._since_utc
            },
            matches=matches,
            elsewhere=frozenset(self._elsewhere),
            reaches_back_to=_oldest_shown(listed, ours, baseline or frozenset()),
        )

    async def _candidate(self, job: ListedJob, held: Collection[HeldChunk]) -> Candidate:
        size, why = job.credits, "it is not finished yet"
        ids = self._results.get(job.job_id)
        if ids is None and job.state.terminal:
            read = await self._reader.results(job.job_id)
            if isinstance(read, Unreadable):
                why = f"its results cannot be read ({read.reason})"
            elif not read:
                why = "its results are empty"
            else:
                ids = self._results[job.job_id] = read
        if ids is not None and any(one.shares(ids) == len(ids) < one.size != size for one in held):
            # Ids that were not found may cost nothing; then the job itself may say how many it was made of.
            status = await self._reader.status(job.job_id)
            processed = None if isinstance(status, Unreadable) else status.processed
            size = max(size or 0, processed or 0)
        return Candidate(
            job_id=job.job_id, state=job.state, job_type=job.job_type, size=size, ids=ids, why_no_ids=why
        )

    async def _why_not_trusted(self, listed: JobList, matches: Matches) -> str | None:
        """Tells why ids in results do not yet prove that a job is somebody else's, or None if they do.

        Were another column taken for that of the ids, every job would be.
        """
        if self._trusted:
            return None
        why = "no job of this run has results by which it could be seen that they hold the ids of a job"
        for job_id, body in self._controls.items():
            job = listed.jobs.get(job_id)
            if job is not None and not job.state.terminal:
                matches.unfinished.add(job_id)
            if job is None or job.state is not JobState.FINISHED:
                continue
            ids = await self._reader.results(job.job_id)
            if isinstance(ids, Unreadable) or not ids:
                continue
            if len(ids & frozenset(body.split(b"\n"))) < _TRUSTED_SHARE * len(ids):
                return (
                    f"the results of job {job_id}, which is of this run, hold other ids than it was made of"
                )
            self._trusted = True
            return None
        return why

    async def _adopt(self, held: HeldChunk, candidate: Candidate, how: str) -> None:
        job = JobStatus(
            job_id=candidate.job_id,
            state=candidate.state,
            word=candidate.state.value,
            job_type=candidate.job_type,
        )
        await self._settle(held.chunk, held.size, Settlement(how=Settled.ADOPTED, reason=how), job)

    async def _free(self, held: HeldChunk) -> None:
        reason = (
            "two listings of the server's jobs agree, show what they must, and hold no job that could be its"
        )
        await self._settle(held.chunk, held.size, Settlement(how=Settled.ABSENT, reason=reason), None)

    async def _settle(self, chunk: int, ids: int, settlement: Settlement, job: JobStatus | None) -> None:
        await self._ledger.settle(chunk, settlement, job=job)
        job_id = None if job is None else job.job_id
        self._emit(ChunkSettled(chunk=chunk, ids=ids, job_id=job_id, reason=settlement.reason))

    async def _leave(self, held: Mapping[int, HeldChunk], looks: Looks) -> None:
        findings = {chunk: looks.finding(chunk) for chunk in held}
        await self._ledger.record_findings(findings)
        for chunk, reason in findings.items():
            self._emit(ChunkStaysHeld(chunk=chunk, ids=held[chunk].size, reason=reason))


def _oldest_shown(
    listed: JobList, ours: Collection[KnownJob], baseline: Collection[str]
) -> tuple[float, int]:
    """Gives by when the oldest job on the list was there, and its chunk, as far as both are known."""
    if any(job_id in listed.jobs for job_id in baseline):
        return -math.inf, 0
    shown = [job for job in ours if not job.adopted and job.job_id in listed.jobs]
    return min(((job.accepted_utc, job.chunk) for job in shown), default=(math.inf, 0))
