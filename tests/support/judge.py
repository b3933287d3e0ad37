"""Says whether a run kept the promise: nothing lost, nothing paid twice, everything accounted for.

The judge believes the sources and the books of the server. What the run says of itself (ledger, sinks, reports) is
compared with these and never the other way round. It imports nothing of the engine.

    python -m support.judge --books BOOKS --run DIR SOURCE…      (in the folder `tests`)
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np

from support.evidence import (
    Attempt,
    Books,
    Chunk,
    Given,
    Ids,
    Job,
    RunImage,
    ids_of,
    json_lines,
    read_books,
    read_image,
    read_sources,
    repeated,
    strangers_among,
    text_of,
)

__all__ = ["Judgement", "judge", "judge_killed", "judge_run", "main"]

_TAKEN: Final = ("accepted", "delivered")
_DOUBTFUL: Final = ("held", "sending")
_FIRST_PART: Final = 1_000_000_001
_STATES_AFTER: Final[dict[str | None, tuple[str, ...]]] = {
    None: ("sending",),
    "accepted": _TAKEN,
    "refused": ("refused", "split"),
    "not_applied": ("planned", "split"),
    "unknown": ("held",),
}
"""The states that a chunk can have after the last attempt ended like this and nobody settled it."""
_STATES_SETTLED: Final = {"adopted": _TAKEN, "absent": ("planned",), "resubmitted": ("planned",)}
_MOST_TOLD: Final = 20
"""A broken run can break one rule a million times."""


@dataclass(slots=True)
class Judgement:
    """Is what the judge found."""

    violations: list[str] = field(default_factory=list)
    figures: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        told = self.violations[:_MOST_TOLD]
        more = len(self.violations) - len(told)
        figures = ", ".join(f"{name} {count:,}" for name, count in sorted(self.figures.items()))
        return "\n".join([*told, *([f"… and {more} more"] if more else []), figures])

    def require(self, condition: bool, violation: str) -> None:
        """Notes a violation unless the condition holds."""
        if not condition:
            self.violations.append(violation)


def judge_run(
    sources: Sequence[Path], books: Path, run_dir: Path, *, within: range | None = None
) -> Judgement:
    """Judges a run whose last session ended by itself, whether or not it left work.

    Args:
        sources: the files of ids, in the order of the command.
        books: what `simulate --books` was given.
        run_dir: the run directory.
        within: where the ids of this run lie, if other runs send to the same server.
    """
    image = read_image(run_dir)
    return judge(read_sources(sources, dedupe=image.dedupe), read_books(books, within=within), image)


def judge(given: Given, books: Books, image: RunImage) -> Judgement:
    """Judges a run whose last session ended by itself."""
    case = _Case(given, books, image)
    case.check_ledger()
    case.check_jobs()
    case.check_paid_twice()
    case.check_sink(ended=True)
    case.check_lost()
    case.check_reports()
    return case.judgement


def judge_killed(given: Given, books: Books, image: RunImage, *, workers: int) -> Judgement:
    """Judges what a killed process left: what must hold at every moment, in time that fits a loop of kills.

    Six checks: the database is whole; its chunks are those of the source; no attempt followed one without proof;
    every job of the server is accounted for and every job of the ledger exists; no body became two jobs; the
    sink holds what was delivered, once.
    """
    case = _Case(given, books, image)
    case.check_ledger()
    case.check_jobs()
    case.check_sink(ended=False)
    sending = sum(chunk.state == "sending" for chunk in image.chunks)
    case.judgement.require(sending <= workers, f"{sending} chunks were in flight with {workers} workers")
    return case.judgement


class _Case:
    """Holds the evidence of one run and notes what contradicts the promise."""

    def __init__(self, given: Given, books: Books, image: RunImage) -> None:
        self.judgement = Judgement()
        self._require = self.judgement.require
        self._figures = self.judgement.figures
        self._given = given
        self._books = books
        self._image = image
        self._own = [job for job in books.jobs if not job.foreign]
        self._begin: dict[int, int] = {}
        """Where each chunk begins among the ids given."""
        self._by_digest: defaultdict[str, list[Chunk]] = defaultdict(list)
        for chunk in image.chunks:
            self._by_digest[chunk.digest].append(chunk)

    def _slice(self, chunk: Chunk) -> Ids:
        begin = self._begin[chunk.ordinal]
        return self._given.ids[begin : begin + chunk.ids]

    # The ledger in itself, and against the source

    def check_ledger(self) -> None:
        """Checks that the chunks are those of the source, whole and in order, and that attempts were allowed."""
        image = self._image
        if image.integrity == "absent":
            return
        self._require(image.integrity == "ok", f"the ledger is damaged: {image.integrity}")
        whole = [chunk for chunk in image.chunks if chunk.parent is None]
        self._check_order(whole)
        self._check_parts()
        for chunk in image.chunks:
            found = self._given.digest(self._begin[chunk.ordinal], chunk.ids)
            self._require(found == chunk.digest, f"chunk {chunk.ordinal} is not what the source gives there")
            self._check_attempts(chunk, image.attempts.get(chunk.ordinal, []))
            self._figures[chunk.state] += chunk.ids if chunk.state != "split" else 0
        self._count_whole(whole)

    def _check_order(self, whole: Sequence[Chunk]) -> None:
        begin = 0
        for expected, chunk in enumerate(whole, 1):
            self._require(chunk.ordinal == expected, f"chunk {expected} is missing before {chunk.ordinal}")
            self._begin[chunk.ordinal] = begin
            begin += chunk.ids
        self._figures["planned_ids"] = begin

    def _check_parts(self) -> None:
        parts: defaultdict[int, list[Chunk]] = defaultdict(list)
        chunks = {chunk.ordinal: chunk for chunk in self._image.chunks}
        for part in self._image.chunks:
            if part.parent is not None:
                self._require(part.ordinal >= _FIRST_PART, f"part {part.ordinal} has the ordinal of a chunk")
                parts[part.parent].append(part)
                # A part has a later ordinal than what it is a part of, so that its parent has its place by now.
                self._begin[part.ordinal] = self._begin.get(part.parent, 0) + part.first
        for parent in chunks.values():
            pieces = sorted(parts.pop(parent.ordinal, []), key=lambda part: part.first)
            if parent.state != "split":
                self._require(not pieces, f"chunk {parent.ordinal} is {parent.state} and has parts")
                continue
            ends = [0, *(part.first + part.ids for part in pieces)]
            covered = [part.first for part in pieces] == ends[:-1] and ends[-1] == parent.ids
            self._require(covered, f"the parts of chunk {parent.ordinal} are not all of it, each id once")
        self._require(not parts, f"there are parts of chunks that do not exist: {sorted(parts)}")

    def _check_attempts(self, chunk: Chunk, attempts: Sequence[Attempt]) -> None:
        settled = {(one.chunk, one.attempt): one.how for one in self._image.settlements}
        for earlier, later in pairwise(attempts):
            how = settled.get((chunk.ordinal, earlier.attempt))
            proved = earlier.verdict == "not_applied" or how in ("absent", "resubmitted")
            self._require(
                proved,
                f"chunk {chunk.ordinal} had attempt {later.attempt}, but {earlier.attempt} is {earlier.verdict}",
            )
        if not attempts:
            self._require(
                chunk.state == "planned", f"chunk {chunk.ordinal} is {chunk.state} without an attempt"
            )
            return
        last = attempts[-1]
        allowed = _STATES_AFTER[last.verdict]
        if last.verdict == "unknown" and (how := settled.get((chunk.ordinal, last.attempt))):
            allowed = _STATES_SETTLED[how]
        self._require(
            chunk.state in allowed, f"chunk {chunk.ordinal} is {chunk.state}, its last attempt {last.verdict}"
        )

    def _count_whole(self, whole: Sequence[Chunk]) -> None:
        """Compares the counts: lines = valid + invalid + duplicate, and the valid ones are those in chunks."""
        image, given, figures = self._image, self._given, self._figures
        figures["lines"] = given.pieces
        figures["given"] = len(given.ids)
        figures["invalid"] = sum(chunk.invalid for chunk in whole) + image.tail_invalid
        figures["duplicate"] = sum(chunk.duplicate for chunk in whole) + image.tail_duplicate
        invalid = given.invalid.total()
        found = (figures["planned_ids"], figures["invalid"], figures["duplicate"])
        told = f"the ledger has {found} valid, invalid and duplicate ids"
        expected = (len(given.ids), invalid, given.duplicate)
        if image.source_finished:
            figures["lost"] += max(0, len(given.ids) - figures["planned_ids"])
            self._require(found == expected, f"{told}, the source {expected}")
        else:
            figures["unread"] = len(given.ids) - figures["planned_ids"]
            within = all(one <= other for one, other in zip(found, expected, strict=True))
            self._require(within, f"{told}, more than the source: {expected}")

    # The server's jobs

    def check_jobs(self) -> None:
        """Checks that every job is known and every job known is there, of the same body."""
        self._figures["jobs"] = len(self._own)
        there = {job.job_id: job for job in self._books.jobs}
        chunks = {chunk.ordinal: chunk for chunk in self._image.chunks}
        for ordinal, job_id in self._image.jobs.items():
            self._check_known_job(chunks[ordinal], job_id, there.get(job_id))
        for ordinal, chunk in chunks.items():
            taken = chunk.state in _TAKEN
            self._require(
                taken == (ordinal in self._image.jobs),
                f"chunk {ordinal} is {chunk.state} and has {'no' if taken else 'a'} job",
            )
        known = set(self._image.jobs.values())
        for job in self._own:
            if job.job_id not in known:
                self._check_unknown_job(job)
        self._check_repeated_bodies()

    def _check_known_job(self, chunk: Chunk, job_id: str, job: Job | None) -> None:
        if job is None:
            self._require(False, f"the server has no job {job_id}, which chunk {chunk.ordinal} is said to be")
            self._figures["lost"] += chunk.ids
            return
        self._require(not job.foreign, f"chunk {chunk.ordinal} took job {job_id}, which is somebody else's")
        if job.sha256 != chunk.digest:
            self._require(False, f"job {job_id} was made of other ids than those of chunk {chunk.ordinal}")
            (_, body), *_ = self._books.bodies([job])
            paid = ids_of(body)
            absent = self._slice(chunk) if paid is None else np.setdiff1d(self._slice(chunk), paid)
            self._figures["lost"] += len(absent)

    def _check_unknown_job(self, job: Job) -> None:
        chunks = self._by_digest.get(job.sha256, [])
        doubtful = any(chunk.state in _DOUBTFUL or chunk.duplicate_risk for chunk in chunks)
        if not doubtful:
            names = ", ".join(f"chunk {chunk.ordinal} ({chunk.state})" for chunk in chunks) or "no chunk"
            self._figures["orphans"] += 1
            self._require(False, f"silent orphan: job {job.job_id} was made of {names}, and nobody knows")

    def _check_repeated_bodies(self) -> None:
        """Counts what each body was used for: a submission has an attempt before it, and at most one job."""
        jobs = Counter(job.sha256 for job in self._own)
        posts = self._books.posts if self._books.posts is not None else jobs
        for digest, chunks in self._by_digest.items():
            attempts = sum(len(self._image.attempts.get(chunk.ordinal, [])) for chunk in chunks)
            sent, made = max(posts[digest], jobs[digest]), jobs[digest]
            names = " and ".join(str(chunk.ordinal) for chunk in chunks)
            self._require(sent <= attempts, f"chunk {names} was sent {sent} times with {attempts} attempts")
            risk = sum(chunk.duplicate_risk for chunk in chunks)
            self._require(made <= len(chunks) + risk, f"chunk {names} was made {made} jobs of")
        if self._books.complete:
            unplanned = sum(count for digest, count in posts.items() if digest not in self._by_digest)
            self._require(not unplanned, f"{unplanned} submissions came of no chunk")

    def check_paid_twice(self) -> None:
        """Counts, id by id, the jobs that hold it."""
        bodies: list[Ids] = []
        for job, body in self._books.bodies(self._own):
            found = hashlib.sha256(body).hexdigest()
            self._require(found == job.sha256, f"the books are damaged at job {job.job_id}")
            ids = ids_of(body)
            self._require(ids is not None, f"job {job.job_id} was made of something that is no list of ids")
            if ids is not None:
                bodies.append(ids)
        paid = np.concatenate(bodies) if bodies else np.empty(0, np.uint64)
        self._figures["paid"] = len(paid)
        ids, times = repeated(paid)
        if not self._image.dedupe:
            times -= np.array([np.count_nonzero(self._given.ids == one) - 1 for one in ids], times.dtype)
        risky = [self._slice(chunk) for chunk in self._image.chunks if chunk.duplicate_risk]
        at_risk = np.isin(ids, np.concatenate(risky)) if risky else np.zeros(len(ids), np.bool_)
        self._figures["paid_twice"] = int((times[~at_risk] - 1).clip(0).sum())
        self._figures["paid_twice_at_own_risk"] = int((times[at_risk] - 1).sum())
        twice = self._figures["paid_twice"]
        self._require(not twice, f"{twice:,} ids were paid for again, the first of them {ids[:3].tolist()}")
        strangers = strangers_among(paid, self._given.ids)
        self._require(not strangers, f"{strangers:,} ids were sent that no source holds")

    # The sink

    def check_sink(self, *, ended: bool) -> None:
        """Checks that `jobs.jsonl` has one line for each accepted chunk; of a killed run, for each delivered one."""
        image = self._image
        path = image.path / "jobs.jsonl"
        size = path.stat().st_size if path.exists() else 0
        position = image.sink_position or 0
        self._require(size >= position, f"jobs.jsonl has {size} bytes, the ledger knows of {position}")
        rows = json_lines(path)
        self._figures["sink_rows"] = len(rows)
        chunks = {chunk.ordinal: chunk for chunk in image.chunks}
        for row in rows:
            self._check_row(row, chunks.get(row["chunk"]))
        lines = Counter(row["chunk"] for row in rows)
        for ordinal, chunk in chunks.items():
            due = chunk.state in _TAKEN if ended else chunk.state == "delivered"
            least, most = int(due), int(chunk.state in _TAKEN)
            self._require(
                least <= lines[ordinal] <= most,
                f"chunk {ordinal} is {chunk.state} and has {lines[ordinal]} lines in jobs.jsonl",
            )
        if ended:
            waiting = [chunk.ordinal for chunk in image.chunks if chunk.state == "accepted"]
            self._require(not waiting, f"chunks {waiting} were not delivered although the run ended")
            self._require(
                not size or path.read_bytes().endswith(b"\n"), "jobs.jsonl ends in the middle of a line"
            )

    def _check_row(self, row: dict[str, Any], chunk: Chunk | None) -> None:
        if chunk is None:
            self._require(False, f"jobs.jsonl tells of chunk {row['chunk']}, which is not in the ledger")
            return
        ids = self._slice(chunk)
        expected = {
            "digest": chunk.digest,
            "job_id": self._image.jobs.get(chunk.ordinal),
            "ids": chunk.ids,
            "first_id": str(ids[0]),
            "last_id": str(ids[-1]),
        }
        wrong = [name for name, value in expected.items() if row[name] != value]
        self._require(
            not wrong, f"the line of chunk {chunk.ordinal} in jobs.jsonl has a wrong {', '.join(wrong)}"
        )

    # The account that the run gives

    def check_lost(self) -> None:
        """Checks that each id is in a bucket: `refused/` must hold what was refused, the ledger the rest."""
        refused = [chunk for chunk in self._image.chunks if chunk.state == "refused"]
        kept = set()
        for chunk in refused:
            path = self._image.path / "refused" / f"chunk-{chunk.ordinal:08d}.txt"
            kept.add(path)
            text = path.read_bytes() if path.exists() else b""
            if text.rstrip(b"\n") != text_of(self._slice(chunk)):
                self._figures["lost"] += chunk.ids
                self._require(
                    False, f"{path.name} does not hold the ids of the refused chunk {chunk.ordinal}"
                )
        others = set((self._image.path / "refused").glob("chunk-*.txt")) - kept
        self._require(not others, f"{sorted(path.name for path in others)} hold ids of chunks not refused")
        lost = self._figures["lost"]
        self._require(not lost, f"{lost:,} ids are lost")

    def check_reports(self) -> None:
        """Checks that `summary.json`, `held.jsonl` and `invalid.jsonl` say what happened."""
        image = self._image
        held = Counter(line["digest"] for line in json_lines(image.path / "held.jsonl"))
        expected = Counter(chunk.digest for chunk in image.chunks if chunk.state == "held")
        self._require(
            held == expected, f"held.jsonl has {held.total()} chunks, the ledger {expected.total()}"
        )
        if image.source_finished:
            rows = json_lines(image.path / "invalid.jsonl")
            invalid = Counter((Path(row["source"]).name, row["line"]) for row in rows)
            self._require(
                invalid == self._given.invalid,
                f"invalid.jsonl has {invalid.total()} lines or others than the {self._given.invalid.total()} it should",
            )
        self._check_summary(image.path / "summary.json")

    def _check_summary(self, path: Path) -> None:
        if not path.exists():
            self._require(False, "there is no summary.json")
            return
        summary = json.loads(path.read_bytes())
        ids, figures = summary["ids"], self._figures
        parts = sum(count for name, count in ids.items() if name != "read")
        self._require(ids["read"] == parts, f"summary.json does not add up: {ids}")
        expected = {
            "invalid": figures["invalid"],
            "duplicate": figures["duplicate"],
            "accepted": figures["accepted"] + figures["delivered"],
            "refused": figures["refused"],
            "held": figures["held"],
            "pending": figures["planned"] + figures["sending"],
        }
        found = {name: ids[name] for name in expected}
        self._require(found == expected, f"summary.json counts {found}, the judge {expected}")
        if self._image.source_finished:
            pieces = self._given.pieces
            self._require(ids["read"] == pieces, f"summary.json read {ids['read']}, the source has {pieces}")
        counted = Counter(chunk.state for chunk in self._image.chunks)
        chunks = {name: summary["chunks"][name] for name in ("accepted", "refused", "held")}
        states = {
            "accepted": counted["accepted"] + counted["delivered"],
            "refused": counted["refused"],
            "held": counted["held"],
        }
        self._require(chunks == states, f"summary.json counts chunks {chunks}, the ledger {states}")


def main(argv: Iterable[str] | None = None) -> int:
    """Judges a run from the command line; the exit code is 1 when it broke the promise."""
    parser = argparse.ArgumentParser(prog="judge", description=main.__doc__)
    parser.add_argument("--books", type=Path, required=True, help="what `simulate --books` was given")
    parser.add_argument("--run", type=Path, required=True, help="the run directory")
    parser.add_argument("sources", type=Path, nargs="+", help="the files of ids, in order")
    arguments = parser.parse_args(None if argv is None else list(argv))
    judgement = judge_run(arguments.sources, arguments.books, arguments.run)
    print(judgement)
    return 1 if judgement.violations else 0


if __name__ == "__main__":
    sys.exit(main())
