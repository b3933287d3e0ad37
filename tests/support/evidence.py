"""What a judge has to go by: the sources, the books of the server, and what a run left on disk.

Everything is read by code of its own, never by the engine's: an id is what this file says it is, and the ledger is
read by the names of its tables and columns. Ids are held as arrays of 64-bit numbers, eight bytes each, so that a
hundred million of them fit; nineteen digits always do.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import shutil
import sqlite3
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = [
    "Attempt",
    "Books",
    "Chunk",
    "Given",
    "Ids",
    "Job",
    "RunImage",
    "Settlement",
    "ids_of",
    "json_lines",
    "read_books",
    "read_image",
    "read_sources",
    "repeated",
    "strangers_among",
    "text_of",
]

Ids = npt.NDArray[np.uint64]

_BLOCK_BYTES: Final = 1 << 20
_ID: Final = re.compile(rb"[1-9][0-9]{0,18}")
_CLEAN: Final = re.compile(rb"(?:[1-9][0-9]{0,18}[\n,])*")
_PIECE: Final = re.compile(rb"([^\n,]*)[\n,]")
_LIST: Final = re.compile(rb"[1-9][0-9]{0,18}(?:[\n,][1-9][0-9]{0,18})*")
_NO_IDS: Final = np.empty(0, np.uint64)


def ids_of(text: bytes) -> Ids | None:
    """Gives the ids of a list without blanks, with newlines or commas between them; None when it is no such list."""
    if not _LIST.fullmatch(text):
        return None
    return np.fromstring(text.replace(b",", b"\n"), np.uint64, sep="\n")


def text_of(ids: Ids) -> bytes:
    """Gives ids as text with a newline between each two: the body of their chunk."""
    if not len(ids):
        return b""
    width = len(str(int(ids.max())))
    digits = np.empty((len(ids), width + 1), np.uint8)
    digits[:, width] = ord("\n")
    rest = ids.copy()
    for column in range(width - 1, -1, -1):
        rest, digits[:, column] = rest // 10, rest % 10 + ord("0")
    significant = np.logical_or.accumulate(digits != ord("0"), axis=1)
    return digits[significant].tobytes()[:-1]


def repeated(ids: Ids) -> tuple[Ids, np.ndarray[Any, np.dtype[np.int64]]]:
    """Gives the ids that occur more than once, and how often."""
    ordered = np.sort(ids)
    again = ordered[1:][ordered[1:] == ordered[:-1]]
    twice, times = np.unique(again, return_counts=True)
    return twice, times.astype(np.int64) + 1


def strangers_among(paid: Ids, given: Ids) -> int:
    """Counts the ids that were paid for and not given."""
    if not len(given):
        return len(paid)
    known, asked = np.sort(given), np.sort(paid)
    places = np.searchsorted(known, asked).clip(max=len(known) - 1)
    return int(np.count_nonzero(known[places] != asked))


# --- the sources ---


@dataclass(frozen=True, slots=True)
class Given:
    """Is what the sources hold."""

    ids: Ids
    """The valid ids in order, each once when the run drops duplicates."""
    pieces: int
    """Everything between two separators that is not blank."""
    invalid: Counter[tuple[str, int]]
    """The pieces that are no ids: name of the file (without its folder) and line."""
    duplicate: int
    _digests: dict[tuple[int, int], str] = field(default_factory=dict)

    def digest(self, begin: int, count: int) -> str:
        """Gives the SHA-256 of the body that `count` ids from `begin` on make; remembered, for loops of judgements."""
        key = begin, count
        if key not in self._digests:
            body = text_of(self.ids[begin : begin + count])
            self._digests[key] = hashlib.sha256(body).hexdigest()
        return self._digests[key]


def read_sources(sources: Sequence[Path], *, dedupe: bool = True) -> Given:
    """Reads files of ids, plain or gzip: newlines and commas separate, blanks around an id are no part of it."""
    blocks: list[Ids] = []
    invalid: Counter[tuple[str, int]] = Counter()
    for source in sources:
        line = 1
        for text in _whole_lines(source):
            blocks.append(np.concatenate([_NO_IDS, *_valid(text, source.name, line, invalid)]))
            line += text.count(b"\n")
    ids = np.concatenate([_NO_IDS, *blocks])
    kept = _first_of_each(ids) if dedupe else ids
    return Given(kept, len(ids) + invalid.total(), invalid, len(ids) - len(kept))


def _whole_lines(source: Path) -> Iterator[bytes]:
    with source.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    rest = b""
    with gzip.open(source) if packed else source.open("rb") as file:
        if (start := file.read(3)) != b"\xef\xbb\xbf":  # the mark of UTF-8
            rest = start
        while block := file.read(_BLOCK_BYTES):
            whole, newline, behind = (rest + block).rpartition(b"\n")
            rest = behind
            if newline:
                yield (whole + newline).replace(b"\r\n", b"\n")
    if rest:
        yield (rest + b"\n").replace(b"\r\n", b"\n")


def _valid(text: bytes, name: str, line: int, invalid: Counter[tuple[str, int]]) -> Iterator[Ids]:
    """Gives the ids of whole lines: of stretches where there is nothing else, and of the pieces between these."""
    begin = 0
    while begin < len(text):
        stretch = _CLEAN.match(text, begin)
        assert stretch is not None  # it may be empty
        clean = stretch[0]
        if clean:
            yield np.fromstring(clean.replace(b",", b"\n"), np.uint64, sep="\n")
            line += clean.count(b"\n")
        if stretch.end() == len(text):
            return
        odd = _PIECE.match(text, stretch.end())
        assert odd is not None  # every line ends
        piece = odd[1].strip(b" \t")
        if _ID.fullmatch(piece):
            yield np.array([int(piece)], np.uint64)
        elif piece:
            invalid[name, line] += 1
        line += odd[0].count(b"\n")
        begin = odd.end()


def _first_of_each(ids: Ids) -> Ids:
    ordered = np.sort(ids)
    repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if not len(repeated):
        return ids
    positions = np.flatnonzero(np.isin(ids, repeated))
    _, first = np.unique(ids[positions], return_index=True)
    kept = np.ones(len(ids), np.bool_)
    kept[positions] = False
    kept[positions[first]] = True
    return ids[kept]


# --- the server's books ---


@dataclass(frozen=True, slots=True)
class Job:
    """Is a job that the server made, with the place of its body in the books."""

    job_id: str
    sha256: str
    ids: int
    foreign: bool
    position: int
    length: int


@dataclass(frozen=True, slots=True)
class Books:
    """Holds what the server wrote down."""

    path: Path
    jobs: list[Job]
    posts: Counter[str] | None
    """Submissions that came in whole, by the SHA-256 of their body; None when the server kept no such journal."""
    complete: bool = True
    """Whether these are the books of one run, and not what was picked out for one of several."""

    def bodies(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, bytes]]:
        """Gives each of these jobs with its body."""
        with self.path.open("rb") as file:
            for job in jobs:
                file.seek(job.position)
                yield job, file.read(job.length)


def read_books(path: Path, *, within: range | None = None) -> Books:
    """Reads the books of `simulate --books`, also while the server runs.

    Args:
        path: the file of bodies; the journals stand beside it.
        within: only jobs whose first id lies in here: those of one of several runs at the same server. Then the
            journal of submissions is left out of what cannot be told apart: bodies that became no job.
    """
    lines = json_lines(path.with_name(path.name + ".jsonl"))
    jobs = [
        Job(
            line["jobId"],
            line["sha256"],
            line["ids"],
            line.get("foreign", False),
            line["position"],
            line["length"],
        )
        for line in lines
    ]
    books = Books(path, jobs, _read_posts(path))
    if within is None:
        return books
    return Books(
        path,
        [job for job, body in books.bodies(jobs) if _first_id(body) in within],
        books.posts,
        complete=False,
    )


def _first_id(body: bytes) -> int:
    first = _ID.match(body)
    return int(first[0]) if first else -1


def _read_posts(books: Path) -> Counter[str] | None:
    path = books.with_name(books.name + ".posts.jsonl")
    return Counter(line["sha256"] for line in json_lines(path)) if path.exists() else None


# --- what the run left ---


class Chunk(NamedTuple):
    """Is a row of the table of chunks."""

    ordinal: int
    state: str
    digest: str
    ids: int
    invalid: int
    duplicate: int
    parent: int | None = None
    first: int = 0
    duplicate_risk: int = 0


class Attempt(NamedTuple):
    """Is a row of the table of attempts."""

    chunk: int
    attempt: int
    verdict: str | None


class Settlement(NamedTuple):
    """Is a row of the table of settlements."""

    chunk: int
    attempt: int
    how: str


@dataclass(frozen=True, slots=True)
class RunImage:
    """Holds a run directory as it was at one moment."""

    path: Path
    integrity: str
    """What SQLite says of the ledger: "ok", or what is wrong; "absent" without one."""
    dedupe: bool = True
    source_finished: bool = False
    tail_invalid: int = 0
    tail_duplicate: int = 0
    chunks: list[Chunk] = field(default_factory=list)
    attempts: dict[int, list[Attempt]] = field(default_factory=dict)
    jobs: dict[int, str] = field(default_factory=dict)
    """Job id by chunk."""
    settlements: list[Settlement] = field(default_factory=list)
    sink_position: int | None = None
    """Length of `jobs.jsonl` when records were last called delivered."""


def read_image(run_dir: Path) -> RunImage:
    """Reads a run directory at which nobody works. The ledger is read from a copy, so that nothing heals it."""
    if not (run_dir / "ledger.db").exists():
        return RunImage(run_dir, "absent")
    with tempfile.TemporaryDirectory(prefix="judge-") as folder:
        for name in ("ledger.db", "ledger.db-wal"):
            if (run_dir / name).exists():
                shutil.copy(run_dir / name, folder)
        try:
            with closing(sqlite3.connect(Path(folder) / "ledger.db")) as database:
                return _image(run_dir, database)
        except sqlite3.DatabaseError as error:
            return RunImage(run_dir, str(error))


def _image(run_dir: Path, database: sqlite3.Connection) -> RunImage:
    integrity = "; ".join(row[0] for row in database.execute("PRAGMA integrity_check"))
    tables = {row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    run = None
    if "run" in tables:
        run = database.execute(
            "SELECT identity, source_finished, tail_invalid, tail_duplicate FROM run"
        ).fetchone()
    if integrity != "ok" or run is None:
        return RunImage(run_dir, integrity)
    identity, finished, tail_invalid, tail_duplicate = run
    attempts: dict[int, list[Attempt]] = defaultdict(list)
    for row in database.execute("SELECT chunk, attempt, verdict FROM attempt ORDER BY chunk, attempt"):
        attempts[row[0]].append(Attempt(*row))
    sink = database.execute("SELECT position FROM sink WHERE name = 'jobs.jsonl'").fetchone()
    settlements: list[Settlement] = []
    if "settlement" in tables:
        rows = database.execute("SELECT chunk, attempt, how FROM settlement ORDER BY number")
        settlements = [Settlement(*row) for row in rows]
    return RunImage(
        run_dir,
        integrity,
        dedupe=json.loads(identity).get("dedupe", True),
        source_finished=bool(finished),
        tail_invalid=tail_invalid,
        tail_duplicate=tail_duplicate,
        chunks=[Chunk(*row) for row in database.execute(_chunk_query(database))],
        attempts=dict(attempts),
        jobs=dict(database.execute("SELECT chunk, job_id FROM job")),
        settlements=settlements,
        sink_position=sink[0] if sink else None,
    )


def _chunk_query(database: sqlite3.Connection) -> str:
    """Takes the columns that there are: the first version of the ledger knew no parts."""
    there = {row[1] for row in database.execute("PRAGMA table_info(chunk)")}
    columns = [column for column in Chunk._fields if column in there]
    return f"SELECT {', '.join(columns)} FROM chunk ORDER BY ordinal"


def json_lines(path: Path) -> list[dict[str, Any]]:
    """Reads the whole lines of a file of JSON lines; a last one without its newline is not there yet."""
    if not path.exists():
        return []
    whole = path.read_bytes().rpartition(b"\n")[0]
    return [json.loads(line) for line in whole.splitlines()]
