"""A small run with everything in it, the server that it talks to, and what must be true of both in the end.

Two sources (a file with invalid and repeated ids, and a feed that has to be spooled) give some twenty chunks; two
sinks take the records, one in the run directory and one beside it. The server accepts most chunks, throttles one,
refuses one, loses some answers with and without a job behind them. It keeps its books outside of the disk that
fails, and notes in the trace of that disk when bytes of a chunk left and when a job was made.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import io
import json
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from unittest import mock

from bulkjobs.cli.session import failed
from bulkjobs.client import Client
from bulkjobs.events import Event, Stopping
from bulkjobs.ledger import reserve
from bulkjobs.model import Evidence, Request, RequestKind
from bulkjobs.settings import Secret, Settings
from bulkjobs.testing import VirtualClock, answered, lost, run_virtual

__all__ = ["WORKERS", "Books", "Ended", "Town", "violations"]

WORKERS: Final = 4
_SIZE: Final = 10
_RESERVE_BYTES: Final = 2**20
"""Of a reserve here, since each disk is written and compared whole; `Mode.UNTIL_SPACE` waits for no less."""
_THROTTLED, _REFUSED, _LOST_WITH_JOB, _LOST, _BROKEN = 3, 5, 7, 11, 13
"""Which chunk, from 0, the server treats how; all others it accepts."""
_REFUSAL: Final = b'{"errorNumber": "400-108", "message": "Illegal values for the field contactId."}'


@dataclass(slots=True)
class Books:
    """Is what the server knows, and what left for it."""

    note: Callable[[str], None] = lambda _: None
    left: Counter[str] = field(default_factory=Counter)
    """How often bytes of a chunk left, by digest."""
    unapplied: Counter[str] = field(default_factory=Counter)
    """How often the server proved that it did nothing."""
    jobs: dict[str, str] = field(default_factory=dict)
    """Digest of the chunk of each job."""
    refused: set[str] = field(default_factory=set)
    violations: list[str] = field(default_factory=list)
    sent: int = 0
    """How many submissions left since these books were opened."""

    @classmethod
    def of(cls, marks: Iterable[str]) -> Books:
        """Opens the books as they stood after these notes."""
        books = cls()
        for mark in marks:
            books._enter(*mark.split())
        books.sent = 0
        return books

    def _enter(self, what: str, digest: str = "", job: str = "") -> None:
        match what:
            case "left":
                if self.left[digest] > self.unapplied[digest]:
                    self.violations.append(f"chunk {digest[:8]} left again, and the time before may count")
                self.left[digest] += 1
                self.sent += 1
            case "unapplied":
                self.unapplied[digest] += 1
            case "job":
                if digest in self.jobs.values():
                    self.violations.append(f"chunk {digest[:8]} was paid for twice")
                self.jobs[job] = digest
            case "refused":
                self.refused.add(digest)

    def enter(self, what: str, digest: str, job: str = "") -> None:
        """Enters something and notes it in the trace."""
        self.note(f"{what} {digest} {job}".strip())
        self._enter(what, digest, job)


class _Server:
    """Answers requests. Implements `ports.Transport`."""

    def __init__(self, books: Books, clock: VirtualClock, index_of: Callable[[str], int]) -> None:
        self._books = books
        self._clock = clock
        self._index_of = index_of

    async def request(
        self, request: Request, *, before_first_byte: Callable[[], Awaitable[None]] | None = None
    ) -> Evidence:
        started_utc = self._clock.utc()
        if before_first_byte is not None:
            await before_first_byte()
        if request.kind is RequestKind.SUBMIT:
            evidence = await self._submission(hashlib.sha256(request.body).hexdigest())
        elif request.kind is RequestKind.STATUS:
            await asyncio.sleep(0.1)
            job = request.url.rsplit("/", 1)[1].split("?")[0]
            evidence = answered(
                200, json.dumps({"jobId": job, "status": "finished", "type": "contact"}).encode()
            )
        else:
            evidence = answered(500)
        return replace(evidence, started_utc=started_utc, ended_utc=self._clock.utc())

    async def _submission(self, digest: str) -> Evidence:
        books, index = self._books, self._index_of(digest)
        books.enter("left", digest)
        await asyncio.sleep(0.05 + 0.01 * index)
        if index == _THROTTLED and books.left[digest] == 1:
            books.enter("unapplied", digest)
            return answered(429)
        if index == _REFUSED:
            books.enter("refused", digest)
            books.enter("unapplied", digest)
            return answered(400, _REFUSAL)
        if index == _LOST:
            return lost()
        job = f"job{index:04d}"
        books.enter("job", digest, job if job not in books.jobs else f"{job}again")
        if index == _LOST_WITH_JOB:
            return lost()
        if index == _BROKEN:
            return answered(500, b"<html>")
        await asyncio.sleep(0.05)
        return answered(200, json.dumps({"jobId": job, "status": "accepted", "type": "contacts"}).encode())


@dataclass(slots=True)
class _Feed:
    """Is a source that can be read once. Implements `ports.Source`."""

    parts: list[bytes]
    name: str = "feed"
    repeatable: bool = False
    fingerprint: str | None = None
    size_bytes: int | None = None
    position_bytes: int = 0

    async def blocks(self) -> AsyncGenerator[bytes, None]:
        for part in self.parts:
            yield part
            await asyncio.sleep(0)


@dataclass(frozen=True, slots=True)
class Ended:
    """Says how a session ended."""

    code: int
    said: str
    """What a person was told about why."""
    summary: dict[str, Any] | None


class Town:
    """Is the run: what goes in, and how a session is made that works on a root."""

    def __init__(self, folder: Path, chunks: int = 20, *, feed: bool = True) -> None:
        """Writes the source, beside the disk that fails.

        Args:
            folder: the disk is `root` in it.
            chunks: about how many; the last one is not full.
            feed: whether a third of them comes from a source that has to be spooled.
        """
        self.root = folder / "root"
        self.run_dir = self.root / "run"
        self.sink = self.root / "out.jsonl"
        self._source = folder / "ids.txt"
        ids = [b"%d" % number for number in range(7_000_001, 7_000_001 + chunks * _SIZE - 3)]
        cut = len(ids) * 2 // 3 if feed else len(ids)
        lines = [*ids[:cut], ids[0], ids[3]]
        lines[15:15] = [b"no id", b"0"]
        lines[cut:cut] = [b"-1"]
        self._source.write_bytes(b"\n".join(lines) + b"\n")
        third = max(1, (len(ids) - cut) // 3)
        self._parts = [
            b"".join(b"%s\n" % one for one in ids[at : at + third]) for at in range(cut, len(ids), third)
        ]
        bodies = [b"\n".join(ids[at : at + _SIZE]) for at in range(0, len(ids), _SIZE)]
        self.digests = [hashlib.sha256(body).hexdigest() for body in bodies]
        self.invalid = 3
        self.duplicate = 2
        self._imported = False

    def index_of(self, digest: str) -> int:
        """Gives the place of a chunk, from 0."""
        return self.digests.index(digest)

    def work(self, books: Books) -> Ended:
        """Lets one session work on the run until it ends, and says how."""
        with mock.patch.object(reserve, "RESERVE_BYTES", _RESERVE_BYTES):
            ended = self._ended(books)
        # What a failed session left is closed while its disk is as bad as it was, as if the process had ended: SQLite
        # would share what it knows of the log with a connection that only waits to be collected.
        gc.collect()
        if not self._imported:
            # What the modules hold stays as long as the process; looked through each time, it costs more than a session.
            gc.freeze()
            self._imported = True
        return ended

    def _ended(self, books: Books) -> Ended:
        said: list[str] = []
        try:
            summary = run_virtual(self._session(books, said))
        except Exception as error:  # noqa: BLE001 - what the command does with it is judged
            stderr = io.StringIO()
            with contextlib.redirect_stderr(stderr):
                code = failed(error, self.run_dir if self.run_dir.is_dir() else None)
            return Ended(code, stderr.getvalue(), None)
        return Ended(summary.exit_code, "\n".join(said), summary.as_dict())

    async def _session(self, books: Books, said: list[str]) -> Any:
        def observe(event: Event) -> None:
            if isinstance(event, Stopping):
                said.append(event.reason)

        clock = VirtualClock()
        settings = Settings(
            on_unknown="hold",
            base_url="http://127.0.0.1:9/api/v1",
            access_token=Secret("token"),
            rate=None,
            pace=None,
            max_active_jobs=6,
            chunk_size=_SIZE,
            workers=WORKERS,
        )
        async with Client(
            settings,
            run=self.run_dir,
            observers=[observe],
            transport=_Server(books, clock, self.index_of),
            clock=clock,
        ) as client:
            run_dir_sink = str(self.run_dir / "jobs.jsonl")
            feeds = [_Feed(self._parts)] if self._parts else []
            return await client.run(self._source, *feeds, sink=[run_dir_sink, str(self.sink)])


def violations(town: Town, books: Books, ended: Ended) -> list[str]:
    """Judges a run that has nothing left to do: from the books, the source and what it left for people."""
    found = list(books.violations)
    if ended.code not in (0, 3, 4) or ended.summary is None:
        return [*found, f"the run did not come to its end: exit code {ended.code}, {ended.said}"]
    records = _lines(town.run_dir / "jobs.jsonl")
    if _lines(town.sink) != records and sorted(map(str, _lines(town.sink))) != sorted(map(str, records)):
        found.append("the two sinks have different records")
    accepted = Counter(record["digest"] for record in records)
    held = Counter(line["digest"] for line in _lines(town.run_dir / "held.jsonl"))
    refused = Counter(
        hashlib.sha256(path.read_bytes().rstrip(b"\n")).hexdigest()
        for path in (town.run_dir / "refused").glob("chunk-*.txt")
    )
    for digest in town.digests:
        places = accepted[digest] + held[digest] + refused[digest]
        if places != 1:
            found.append(f"chunk {town.index_of(digest)} stands in {places} places instead of one")
    if set(accepted) | set(held) | set(refused) != set(town.digests):
        found.append("a chunk stands somewhere that was never given")
    found += [
        f"{record['job_id']} is not the job of its chunk"
        for record in records
        if books.jobs.get(record["job_id"]) != record["digest"]
    ]
    known = {record["job_id"] for record in records}
    found += [
        f"nobody knows of {job}"
        for job, digest in books.jobs.items()
        if job not in known and digest not in held
    ]
    if refused.keys() - books.refused:
        found.append("a chunk is called refused that was not")
    if len(_lines(town.run_dir / "invalid.jsonl")) != town.invalid:
        found.append(f"invalid.jsonl has {len(_lines(town.run_dir / 'invalid.jsonl'))} lines")
    told = json.loads((town.run_dir / "summary.json").read_bytes())
    ids = told["ids"]
    if (ids["invalid"], ids["duplicate"], ids["pending"]) != (town.invalid, town.duplicate, 0):
        found.append(f"the summary counts {ids}")
    if ids["read"] != sum(count for name, count in ids.items() if name != "read"):
        found.append(f"the summary does not add up: {ids}")
    return found


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []
