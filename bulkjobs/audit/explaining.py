"""What became of one id: where it stands, which chunk it went into, what came back, what is left to do."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from bulkjobs.audit.auditing import require_run
from bulkjobs.audit.findings import Progress
from bulkjobs.audit.locating import Found, Occurrence, locate
from bulkjobs.audit.occurrences import Finder
from bulkjobs.audit.reasons import Moment, next_step, why
from bulkjobs.audit.records import sink_files
from bulkjobs.audit.recutting import chunker_of, recut
from bulkjobs.audit.rereading import Reading, RecordedSource, recorded_sources
from bulkjobs.clock import timestamp
from bulkjobs.endpoints import endpoint_named
from bulkjobs.errors import ConfigError
from bulkjobs.ids import BLANKS, fault_of, shown
from bulkjobs.ledger import RunRow
from bulkjobs.ledger.inspection import (
    AttemptRow,
    ChunkRecord,
    Inspection,
    JobRow,
    SettlementRow,
    inspecting,
)
from bulkjobs.ledger.lock import lock_owner
from bulkjobs.model import Phase
from bulkjobs.rundir import RunDir

__all__ = ["Explanation", "Fate", "explain_id"]

_KEPT: Final = 1_000
"""Occurrences that are named; the others are counted."""
_STATES: Final = {"planned": "pending", "sending": "pending", "delivered": "accepted"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """Is what became of one place of the id in a chunk."""

    state: str
    """`accepted`, `refused`, `held` or `pending`."""
    why: str
    """What made it so, in sentences."""
    next: str
    """What a person does now; empty when there is nothing to do."""
    chain: list[ChunkRecord] = field(default_factory=list)
    """The chunk, then each part of it that the id stands in; the last one counts. Empty: not planned yet."""
    position: int | None = None
    """In the chunk, from 1."""
    same: bool = True
    """The chunk cut from the sources now is the one that the ledger has."""
    attempts: list[AttemptRow] = field(default_factory=list)
    """All of them, of the chunk first, then of its parts."""
    settlements: list[SettlementRow] = field(default_factory=list)
    job: JobRow | None = None
    delivered: bool = False
    """Every sink has the job record."""
    records: list[tuple[str, int]] = field(default_factory=list)
    """Files in which the record stands, each with the number of the line."""
    other_sinks: list[str] = field(default_factory=list)
    """Sinks that cannot be read back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Is all that is known of one id of a run."""

    run_id: str
    id: str
    kind: str
    """`id`, `invalid` or `absent`: what does not stand in the sources."""
    reason: str | None
    """Why it is no id; None when it is one."""
    occurrences: list[Occurrence]
    """In order; under removal of duplicates the first one counts."""
    count: int
    """Occurrences, named or not."""
    dedupe: bool
    fates: list[Fate]
    """One where duplicates are removed, else one for each occurrence, as far as named."""
    notes: list[str]

    @property
    def in_run(self) -> bool:
        """Tells whether it stands in the sources of the run at all."""
        return self.kind != "absent"

    def role(self, index: int) -> str:
        """Says what an occurrence is: `first`, `duplicate`, `invalid`, or `id` where duplicates stay."""
        if self.kind == "invalid":
            return "invalid"
        if not self.dedupe:
            return "id"
        return "duplicate" if index else "first"

    def as_dict(self) -> dict[str, object]:
        """Gives it as values of JSON."""
        return {
            "run_id": self.run_id,
            "id": self.id,
            "kind": self.kind,
            "reason": self.reason,
            "occurrences": [
                {"source": one.source, "line": one.line, "role": self.role(index)}
                for index, one in enumerate(self.occurrences)
            ],
            "count": self.count,
            "fates": [_fate(fate) for fate in self.fates],
            "notes": self.notes,
        }


def explain_id(
    run: str | Path, wanted: str, *, folder: Path | None = None, progress: Progress | None = None
) -> Explanation:
    """Tells what became of one id, from the sources and the ledger of a run, also while it goes on.

    It reads for as long as it takes, so a program with an event loop gives it to a thread.

    Args:
        run: the run directory.
        wanted: the id; a text that is none is looked up among the invalid ones.
        folder: where relative names of sources begin; None is the current folder.
        progress: told, now and then, what is being read.

    Raises:
        ConfigError: there is no run, or no text to look for.
        SourceError: a source is gone, or cannot be read any more.
        LedgerError: the ledger cannot be read.
    """
    text = os.fsencode(wanted).strip(BLANKS)
    if not text:
        raise ConfigError("Name the id that is to be explained.")
    run_dir = RunDir(run)
    require_run(run_dir)
    with inspecting(run_dir.path) as inspection:
        row = inspection.run()
        found = None
        if row is not None:
            sources = recorded_sources(inspection.sources(), row, run_dir, folder)
            reading = Reading(sources, finished=row.source_finished, progress=progress)
            reason = fault_of(text, endpoint_named(row.endpoint).id_form)
            if reason is None:
                found = _Asked(row, run_dir, inspection, sources).explain(text, reading)
            else:
                found = _explain_invalid(row, text, reason, reading)
    if found is None:
        raise ConfigError(f"The run directory {run_dir.path} was made, but no run was begun in it.")
    return found


def _explain_invalid(run: RunRow, text: bytes, reason: str, reading: Reading) -> Explanation:
    wanted = shown(text)
    places = _Places()
    order: dict[str, int] = {}
    for cut in recut(
        chunker_of(dataclasses.replace(run, identity=run.identity | {"dedupe": False})), reading
    ):
        for one in cut.invalid:
            if one.text == wanted:
                position = order.setdefault(one.source, len(order))
                places.add(Occurrence(position=position, source=one.source, line=one.line))
    return Explanation(
        run_id=run.run_id,
        id=wanted,
        kind="invalid" if places.count else "absent",
        reason=reason,
        occurrences=places.kept,
        count=places.count,
        dedupe=bool(run.identity["dedupe"]),
        fates=[],
        notes=_notes(reading),
    )


class _Places:
    """Keeps the first occurrences and counts all."""

    def __init__(self) -> None:
        self.kept: list[Occurrence] = []
        self.count = 0

    def add(self, place: Occurrence) -> None:
        self.count += 1
        if len(self.kept) < _KEPT:
            self.kept.append(place)


def _notes(reading: Reading) -> list[str]:
    return [] if reading.broke_off is None else [reading.broke_off]


class _Asked:
    """Explains a valid id."""

    def __init__(
        self, run: RunRow, run_dir: RunDir, inspection: Inspection, sources: Sequence[RecordedSource]
    ) -> None:
        self._run = run
        self._run_dir = run_dir
        self._inspection = inspection
        self._sources = sources
        self._moment = Moment.of(run, run_dir, inspection, lock_owner(run_dir.path))

    def explain(self, text: bytes, reading: Reading) -> Explanation:
        places = self._places(text, reading)
        fates = []
        if places.count:
            found = locate(text, places.kept, self._run, self._sources, self._inspection)
            fates = [self._fate(one) for one in found] or [self._unplanned()]
        notes = _notes(reading)
        if any(not fate.same for fate in fates):
            notes.append(
                "The chunk that this id stands in now is not the one that was planned: a source changed. "
                "`bulkjobs audit` says where."
            )
        return Explanation(
            run_id=self._run.run_id,
            id=text.decode("ascii"),
            kind="id" if places.count else "absent",
            reason=None,
            occurrences=places.kept,
            count=places.count,
            dedupe=bool(self._run.identity["dedupe"]),
            fates=fates,
            notes=notes,
        )

    def _places(self, text: bytes, reading: Reading) -> _Places:
        places = _Places()
        finder, current = Finder(text), None
        position = -1
        for source, block in reading.blocks():
            if source is not current:
                finder, current = Finder(text), source
                position += 1
            for line in finder.end() if block is None else finder.feed(block):
                places.add(Occurrence(position=position, source=source.name, line=line))
        return places

    def _unplanned(self) -> Fate:
        return Fate(state="pending", why=why(None, [], self._moment), next=next_step(None, self._moment))

    def _fate(self, found: Found) -> Fate:
        chunk = found.chunk
        if chunk is None:
            return self._unplanned()
        chain = [chunk]
        if chunk.state == "split":
            chain += [
                part
                for part in self._inspection.parts(chunk.ordinal)
                if part.first <= found.index < part.first + part.ids
            ]
            chain[1:] = sorted(chain[1:], key=lambda part: -part.ids)
        last = chain[-1]
        attempts = [attempt for one in chain for attempt in self._inspection.evidence(one.ordinal)]
        job = self._inspection.job(last.ordinal)
        records, others = self._records(job)
        return Fate(
            state=_STATES.get(last.state, last.state),
            why=why(
                last,
                [one for one in attempts if one.chunk == last.ordinal],
                self._moment,
                self._inspection.finding(last.ordinal),
            ),
            next=next_step(last, self._moment),
            chain=chain,
            position=found.index + 1,
            same=found.same,
            attempts=attempts,
            settlements=[one for each in chain for one in self._inspection.settlements(each.ordinal)],
            job=job,
            delivered=last.state == "delivered",
            records=records,
            other_sinks=others if last.state == "delivered" else [],
        )

    def _records(self, job: JobRow | None) -> tuple[list[tuple[str, int]], list[str]]:
        """Finds the lines that hold the record of a job."""
        files, others = sink_files(self._inspection, self._run_dir)
        found: list[tuple[str, int]] = []
        if job is not None:
            for file in files:
                found += [(str(file.path), number) for number in _lines_with(file.path, job, self._run)]
        return found, others


def _lines_with(path: Path, job: JobRow, run: RunRow) -> Iterator[int]:
    if not path.is_file():
        return
    named = job.job_id.encode()
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if named not in line:
                continue
            try:
                value = orjson.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict) and (value.get("run_id"), value.get("chunk")) == (
                run.run_id,
                job.chunk,
            ):
                yield number


def _fate(fate: Fate) -> dict[str, Any]:
    return {
        "state": fate.state,
        "why": fate.why,
        "next": fate.next,
        "chunk": _chunk(fate.chain[0]) | {"position": fate.position, "same": fate.same}
        if fate.chain
        else None,
        "parts": [_chunk(part) | {"first": part.first} for part in fate.chain[1:]],
        "attempts": [_attempt(attempt) for attempt in fate.attempts],
        "settlements": [
            {
                "chunk": one.chunk,
                "attempt": one.attempt,
                "at": timestamp(one.at_utc),
                "how": one.how,
                "job_id": one.job_id,
                "reason": one.reason,
                "by": one.by,
            }
            for one in fate.settlements
        ],
        "job": None
        if fate.job is None
        else {
            "job_id": fate.job.job_id,
            "status": fate.job.state,
            "word": fate.job.word,
            "type": fate.job.type,
            "attempt": fate.job.attempt,
            "accepted_at": timestamp(fate.job.accepted_utc),
            "processed": fate.job.processed,
            "seen_at": _time(fate.job.seen_utc),
        },
        "delivered": fate.delivered,
        "records": [{"file": path, "line": line} for path, line in fate.records],
        "other_sinks": fate.other_sinks,
    }


def _chunk(chunk: ChunkRecord) -> dict[str, Any]:
    return {
        "chunk": chunk.ordinal,
        "state": chunk.state,
        "ids": chunk.ids,
        "digest": chunk.digest,
        "first_id": chunk.first_id,
        "last_id": chunk.last_id,
        "source": chunk.source,
        "line": chunk.line,
        "duplicate_risk": chunk.duplicate_risk,
    }


def _attempt(attempt: AttemptRow) -> dict[str, Any]:
    return {
        "chunk": attempt.chunk,
        "attempt": attempt.attempt,
        "started_at": timestamp(attempt.started_utc),
        "sent_at": _time(attempt.sent_utc),
        "answered_at": _time(attempt.answered_utc),
        "ended_at": _time(attempt.ended_utc),
        "phase": None if attempt.phase is None else Phase(attempt.phase).name.lower(),
        "connection_reused": attempt.connection_reused,
        "http_status": attempt.status,
        "error": attempt.error,
        "content_type": attempt.content_type,
        "retry_after": attempt.retry_after,
        "answer_bytes": attempt.answer_bytes,
        "answer": attempt.body.decode("utf-8", "backslashreplace"),
        "answer_cut": attempt.body_cut,
        "verdict": attempt.verdict,
        "cause": attempt.cause,
        "reason": attempt.reason,
        "job_hint": attempt.job_hint,
    }


def _time(utc: float | None) -> str | None:
    return None if utc is None else timestamp(utc)
