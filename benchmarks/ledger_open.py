"""How long a session takes before it can send, with a ledger of many chunks behind it.

    python -m benchmarks.ledger_open                        10,000 chunks: at most 2 s
    python -m benchmarks.ledger_open --chunks 1000000       at most 30 s; the ledger takes 0.73 GB of disk

Each chunk was accepted at its first attempt, with an answer of 300 bytes. What is timed is opening the ledger, which
looks through all of it, beginning the session, and counting everything, in a process that has just written the
ledger: the system still has it in memory. A disk that reads 200 MB/s adds 5 s a GB the first time.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from bulkjobs.clock import SystemClock
from bulkjobs.ledger import DATABASE_NAME, Ledger
from bulkjobs.ledger.schema import open_for_writing

__all__ = ["fill", "main", "ready_s"]

_ANSWER: Final = b'{"jobId":"v9qh2to86kg85s03trag","status":"accepted","type":"contacts"}'.ljust(300)
_BLOCK: Final = 10_000


async def fill(run_dir: Path, chunks: int) -> None:
    """Makes a run of so many chunks, all of them delivered but the last, which is planned."""
    async with await Ledger.open(run_dir, clock=SystemClock()) as ledger:
        await ledger.create_run({"endpoint": "contacts"})
    database = open_for_writing(run_dir / DATABASE_NAME, lambda _database, _path: None)
    database.execute("PRAGMA synchronous = OFF")
    for first in range(1, chunks, _BLOCK):
        block = range(first, min(first + _BLOCK, chunks))
        database.execute("BEGIN")
        _insert(
            database,
            "chunk (ordinal, state, digest, ids, first_id, last_id, source, line, body_bytes,"
            " invalid, duplicate)",
            (_chunk(ordinal, "delivered") for ordinal in block),
        )
        _insert(
            database,
            "attempt (chunk, attempt, started_utc, ended_utc, verdict, phase, status, content_type,"
            " body, body_cut)",
            (_attempt(ordinal) for ordinal in block),
        )
        _insert(
            database,
            "job (chunk, job_id, attempt, accepted_utc, accepted_state, type, state)",
            (_job(ordinal) for ordinal in block),
        )
        database.execute("COMMIT")
    _insert(
        database,
        "chunk (ordinal, state, digest, ids, first_id, last_id, source, line, body_bytes,"
        " invalid, duplicate)",
        [_chunk(chunks, "planned")],
    )
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    database.close()


async def ready_s(run_dir: Path) -> tuple[float, float]:
    """Gives the seconds until a session could send, and those for counting everything."""
    began_s = time.perf_counter()
    async with await Ledger.open(run_dir, clock=SystemClock()) as ledger:
        await ledger.begin_session()
        ready = time.perf_counter()
        await ledger.counts()
        counted = time.perf_counter()
        await ledger.end_session(0, None)
    return ready - began_s, counted - ready


def _insert(database: Any, into: str, rows: Iterator[tuple[Any, ...]] | Sequence[tuple[Any, ...]]) -> None:
    marks = ", ".join("?" * (into.count(",") + 1))
    for row in rows:
        database.execute(f"INSERT INTO {into} VALUES ({marks})", row)


def _chunk(ordinal: int, state: str) -> tuple[Any, ...]:
    digest = hashlib.sha256(str(ordinal).encode()).hexdigest()
    first = ordinal * 10_000
    return (ordinal, state, digest, 10_000, str(first), str(first + 9_999), "ids.txt.gz", first, 89_999, 0, 0)


def _attempt(ordinal: int) -> tuple[Any, ...]:
    begins = 1_767_225_600.0 + ordinal
    return (ordinal, 1, begins, begins + 0.4, "accepted", 5, 200, "application/json", _ANSWER, 0)


def _job(ordinal: int) -> tuple[Any, ...]:
    job = hashlib.blake2b(str(ordinal).encode(), digest_size=10).hexdigest()
    return (ordinal, job, 1, 1_767_225_600.4 + ordinal, "accepted", "contacts", "finished")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark and gives 0 when it was fast enough."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ledger_open")
    parser.add_argument("--chunks", type=int, default=10_000)
    chunks = parser.parse_args(arguments).chunks
    limit_s = 2.0 + 28.0 * max(0, chunks - 10_000) / 990_000
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder) / "run"
        asyncio.run(fill(run_dir, chunks))
        size_mb = (run_dir / DATABASE_NAME).stat().st_size / 1e6
        took_s, counted_s = asyncio.run(ready_s(run_dir))
    print(
        f"{chunks:,} chunks, {size_mb:,.0f} MB: ready after {took_s:.2f} s (at most {limit_s:.1f} s), "
        f"counted in {counted_s:.2f} s"
    )
    return 0 if took_s <= limit_s else 1


if __name__ == "__main__":
    sys.exit(main())
