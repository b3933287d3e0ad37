"""Takes chunks through the ledger, each transition durable before the next: WORKERS CHUNKS RUN.

A chunk is planned, its intent recorded, its outcome recorded, and delivered: of these four, three are waited for.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Final

from benchmarks.programs.stopwatch import stopwatch
from bulkjobs.clock import SystemClock
from bulkjobs.ledger import Ledger
from bulkjobs.model import Accepted, Chunk, Evidence, JobId, JobState, Phase, Tally

_AWAITED: Final = 3
_ANSWER: Final = b'{"jobId":"v9qh2to86kg85s03trag","status":"accepted","type":"contacts"}'


def _chunk(ordinal: int) -> Chunk:
    return Chunk(
        ordinal=ordinal,
        body=b"1",
        ids=1,
        digest=f"{ordinal:064x}",
        first_id="1",
        last_id="1",
        source="ids.txt",
        line=ordinal,
        tally=Tally(),
    )


async def _work(ledger: Ledger, worker: int, workers: int, chunks: int) -> None:
    for ordinal in range(1 + worker, chunks + 1, workers):
        ledger.plan(_chunk(ordinal))
        await ledger.begin_attempt(ordinal, 1)
        evidence = Evidence(
            phase=Phase.COMPLETE,
            started_utc=1.0,
            ended_utc=2.0,
            status=200,
            content_type="application/json",
            body=_ANSWER,
        )
        verdict = Accepted(job_id=JobId(f"job{ordinal}"), state=JobState.ACCEPTED, job_type="contacts")
        await ledger.end_attempt(ordinal, 1, evidence, verdict)
        await ledger.deliver([ordinal], {"jobs": ordinal})


async def _run(workers: int, chunks: int, run_dir: Path) -> None:
    async with await Ledger.open(run_dir, clock=SystemClock()) as ledger:
        await ledger.create_run({"endpoint": "contacts"})
        await ledger.begin_session()
        with stopwatch() as found:
            async with asyncio.TaskGroup() as group:
                for worker in range(workers):
                    group.create_task(_work(ledger, worker, workers, chunks))
            found["counted"] = _AWAITED * chunks
        await ledger.end_session(0, None)


def main(workers: str, chunks: str, run_dir: str) -> None:
    """Times it, on the event loop that a run has."""
    work = _run(int(workers), int(chunks), Path(run_dir))
    if sys.platform == "win32":
        asyncio.run(work)
        return
    import uvloop  # noqa: PLC0415

    uvloop.run(work)


if __name__ == "__main__":
    main(*sys.argv[1:])
