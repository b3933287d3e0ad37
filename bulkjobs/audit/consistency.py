"""The ledger against itself: each chunk's state follows from its attempts, its job and its settlements.

The rules are those of the guarantee, read backwards: what may stand behind what, so that nothing can have been sent
again without proof and nothing can have been called accepted without a job.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final

from bulkjobs.audit.findings import Findings, told
from bulkjobs.ledger.inspection import (
    AttemptMark,
    ChunkFile,
    Inspection,
    LockoutRow,
    SessionRow,
    SettlementRow,
)
from bulkjobs.model import FIRST_PART

__all__ = ["check_ledger"]

_NEXT: Final = (
    "Keep the run directory as it is, do not resume it, and compare with a copy of the ledger from before."
)
_HAS_JOB: Final = ("accepted", "delivered")
_SENT_AGAIN: Final = ("absent", "resubmitted")


def check_ledger(inspection: Inspection, findings: Findings, *, quick: bool) -> None:
    """Compares the rows of a ledger with each other.

    Args:
        inspection: of the ledger.
        findings: takes what differs.
        quick: leave out the comparison of tables and indexes, which reads the file twice.
    """
    for damage in inspection.damage(quick=quick):
        findings.differ("ledger", f"SQLite finds the file damaged: {told(damage)}. Put back a copy of it.")
    for text in itertools.chain(_whole(inspection), _sessions(inspection.sessions())):
        findings.differ("ledger", f"{text} {_NEXT}")
    for text in itertools.chain.from_iterable(map(_lockout, inspection.lockouts())):
        findings.differ("ledger", f"{text} {_NEXT}")
    cut, part = 0, FIRST_PART - 1
    for file in inspection.chunk_files():
        ordinal = file.chunk.ordinal
        expected = (cut if ordinal < FIRST_PART else part) + 1
        if ordinal != expected:
            findings.differ("ledger", f"Chunk {expected} is missing: chunk {ordinal} follows. {_NEXT}")
        cut, part = (ordinal, part) if ordinal < FIRST_PART else (cut, ordinal)
        for text in _chunk(file, inspection):
            findings.differ("ledger", f"Chunk {ordinal} {text}. {_NEXT}")


def _whole(inspection: Inspection) -> Iterator[str]:
    for table, chunks in inspection.strays().items():
        named = ", ".join(map(str, chunks[:3]))
        yield f"There is an entry under {table} for {len(chunks)} chunks that are not there: {named}."
    for job in inspection.repeated_jobs():
        yield f"Job {told(job)} is recorded as the job of more than one chunk."
    for job in inspection.foreign_jobs():
        yield f"Job {told(job)} was on the server's list before the run sent anything: it is not a job of this run."
    for chunk in inspection.misplaced_findings():
        yield f"Chunk {chunk} is said not to have been settled, but is not held."
    positions = inspection.source_positions()
    if positions != list(range(len(positions))):
        yield f"The sources are numbered {positions}, not from 0 without a gap."


def _sessions(sessions: list[SessionRow]) -> Iterator[str]:
    for session in sessions[:-1]:
        if session.ended_utc is None:
            yield f"Session {session.number} was never ended, but another one followed."
    for session in sessions:
        if session.ended_utc is None and session.exit_code is not None:
            yield f"Session {session.number} has exit code {session.exit_code} and no end."


def _lockout(lockout: LockoutRow) -> Iterator[str]:
    if lockout.began_utc > lockout.until_utc:
        yield f"Lock-out {lockout.number} ends before it begins."
    if not lockout.reason:
        yield f"Lock-out {lockout.number} has no reason."


def _chunk(file: ChunkFile, inspection: Inspection) -> Iterator[str]:
    """Gives what does not fit, as what follows the number of the chunk in a sentence."""
    yield from _attempts(file)
    yield from _settlements(file)
    yield from _state(file)
    yield from _job(file)
    yield from _family(file, inspection)


def _attempts(file: ChunkFile) -> Iterator[str]:
    for number, attempt in enumerate(file.attempts, 1):
        if attempt.attempt != number:
            yield f"has attempt {attempt.attempt} where attempt {number} should be"
            break
    in_flight = [attempt.attempt for attempt in file.attempts if attempt.verdict is None]
    if len(in_flight) > 1:
        yield f"has {len(in_flight)} attempts in flight at the same time"
    for attempt in file.attempts[:-1]:
        if not _may_be_followed(attempt, file.settlements):
            yield (
                f"was sent again after attempt {attempt.attempt}, which is {_verdict(attempt)}: nothing proves that "
                f"it had no effect"
            )
    for attempt in file.attempts:
        if attempt.verdict == "not_applied" and attempt.cause is None:
            yield f"has attempt {attempt.attempt} called not applied, without a cause"


def _may_be_followed(attempt: AttemptMark, settlements: list[SettlementRow]) -> bool:
    if attempt.verdict == "unknown":
        return any(one.attempt == attempt.attempt and one.how in _SENT_AGAIN for one in settlements)
    return attempt.verdict == "not_applied"


def _settlements(file: ChunkFile) -> Iterator[str]:
    verdicts = {attempt.attempt: attempt.verdict for attempt in file.attempts}
    met: set[int] = set()
    for one in file.settlements:
        if verdicts.get(one.attempt) != "unknown":
            yield f"has settlement {one.number} of attempt {one.attempt}, whose outcome was not unknown"
        if one.attempt in met:
            yield f"has attempt {one.attempt} settled twice"
        met.add(one.attempt)
        if (one.how == "adopted") != (one.job_id is not None):
            yield f"has settlement {one.number} ({one.how}), which does not go with job {told(one.job_id)}"
    if file.chunk.duplicate_risk != any(one.how == "resubmitted" for one in file.settlements):
        yield "is marked as sent at a person's risk, or not, against its settlements"


def _state(file: ChunkFile) -> Iterator[str]:
    """Compares the state with the last attempt and how that was settled."""
    state = file.chunk.state
    last = file.attempts[-1] if file.attempts else None
    verdict = None if last is None else last.verdict
    settled = [one.how for one in file.settlements if last is not None and one.attempt == last.attempt]
    match state:
        case "planned":
            fits = last is None or verdict == "not_applied" or any(how in _SENT_AGAIN for how in settled)
        case "sending":
            fits = last is not None and verdict is None
        case "accepted" | "delivered":
            fits = verdict == "accepted" or "adopted" in settled
        case "refused":
            fits = verdict == "refused"
        case "held":
            fits = verdict == "unknown" and not settled
        case "split":
            fits = verdict in ("not_applied", "refused")
        case _:
            fits = False
    if not fits:
        behind = f"settled as {settled[-1]}" if settled else _verdict(last)
        yield f"is {told(state)}, but its last attempt is {behind}"


def _verdict(attempt: AttemptMark | None) -> str:
    if attempt is None:
        return "missing"
    return "in flight" if attempt.verdict is None else attempt.verdict.replace("_", " ")


def _job(file: ChunkFile) -> Iterator[str]:
    state, job = file.chunk.state, file.job
    if job is None:
        if state in _HAS_JOB:
            yield f"is {state}, but has no job"
        return
    if state not in _HAS_JOB:
        yield f"is {told(state)}, but has job {told(job.job_id)}"
        return
    adopted = [one.job_id for one in file.settlements if one.how == "adopted" and one.attempt == job.attempt]
    attempts = [attempt for attempt in file.attempts if attempt.attempt == job.attempt]
    if adopted:
        if job.job_id not in adopted:
            yield f"has job {told(job.job_id)}, but job {told(adopted[-1])} was adopted"
    elif not attempts or attempts[0].verdict != "accepted":
        yield f"has a job of attempt {job.attempt}, which is not accepted"
    elif attempts[0].ended_utc != job.accepted_utc:
        yield f"has a job of another time than attempt {job.attempt}"


def _family(file: ChunkFile, inspection: Inspection) -> Iterator[str]:
    """Compares a part with the chunk it is of, and a chunk that was split with its having parts."""
    chunk = file.chunk
    if chunk.ordinal < FIRST_PART:
        if chunk.parent is not None:
            yield f"is cut from the sources, but is called a part of chunk {chunk.parent}"
        if chunk.state == "split" and not inspection.parts(chunk.ordinal):
            yield "was split, but has no parts"
        return
    parent = None if chunk.parent is None else inspection.chunk(chunk.parent)
    if parent is None or parent.parent is not None:
        yield "is a part of no chunk that is there"
    elif parent.state != "split":
        yield f"is a part of chunk {parent.ordinal}, which was not split"
