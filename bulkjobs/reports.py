"""What a run leaves for people to read, derived from its ledger and written whole: never the only place of a fact."""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import orjson

from bulkjobs.clock import timestamp
from bulkjobs.jsonlines import json_line
from bulkjobs.ledger import Ledger, VerdictRow
from bulkjobs.model import Phase, RunSummary
from bulkjobs.rundir import RunDir

__all__ = ["write_reports"]

_ROWS: Final = 1_000


async def write_reports(run_dir: RunDir, ledger: Ledger, summary: RunSummary) -> None:
    """Writes `summary.json`, and `held.jsonl` and `refused/reasons.jsonl` as far as there is something to say.

    Raises:
        OSError: a file cannot be written; those before it are.
    """
    held = [_held_line(row, run_dir) async for row in _all(ledger.held)]
    refused = [row async for row in _all(ledger.refused)]
    lines = [_refused_line(row, run_dir) for row in refused]
    await asyncio.to_thread(_write, run_dir, summary, held, lines, {row.chunk for row in refused})


def _write(
    run_dir: RunDir, summary: RunSummary, held: list[bytes], refused: list[bytes], refused_chunks: set[int]
) -> None:
    kept = {run_dir.refused_ids(chunk) for chunk in refused_chunks}
    for path in run_dir.refused.glob("chunk-*.txt"):
        if path not in kept:
            # Its process died before the ledger took the refusal: the chunk is held, and must not be fed again.
            path.unlink()
    for path, lines in ((run_dir.held, held), (run_dir.refused / "reasons.jsonl", refused)):
        if lines:
            run_dir.write(path, b"".join(lines))
        else:
            path.unlink(missing_ok=True)
    text = orjson.dumps(summary.as_dict(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    run_dir.write(run_dir.summary, text)


def _time(utc: float | None) -> str | None:
    return None if utc is None else timestamp(utc)


def _held_line(row: VerdictRow, run_dir: RunDir) -> bytes:
    # A name on disk need not be text; a report is.
    name = shlex.quote(os.fsencode(run_dir.path).decode("utf-8", "backslashreplace"))
    line = {
        "chunk": row.chunk,
        "digest": row.digest,
        "ids": row.ids,
        "first_id": row.first_id,
        "last_id": row.last_id,
        "source": row.source,
        "line": row.line,
        "parent": row.parent,
        "first": row.first,
        "attempt": row.attempt,
        "reason": row.reason,
        "started_at": timestamp(row.started_utc),
        "sent_at": _time(row.sent_utc),
        "answered_at": _time(row.answered_utc),
        "ended_at": _time(row.ended_utc),
        "phase": None if row.phase is None else Phase(row.phase).name.lower(),
        "http_status": row.status,
        "error": row.error,
        "answer": row.body.decode("utf-8", "backslashreplace"),
        "answer_bytes": row.answer_bytes,
        "connection": None if row.connection_reused is None else "reused" if row.connection_reused else "new",
        "job_hint": row.job_hint,
        "finding": row.finding,
        "adopt": f"bulkjobs reconcile {name} --adopt {row.chunk}=JOB",
        "resubmit": f"bulkjobs reconcile {name} --resubmit {row.chunk}",
    }
    return json_line(line)


def _refused_line(row: VerdictRow, run_dir: RunDir) -> bytes:
    line = {
        "chunk": row.chunk,
        "ids": row.ids,
        "file": run_dir.refused_ids(row.chunk).name,
        "source": row.source,
        "line": row.line,
        "parent": row.parent,
        "first": row.first,
        "attempt": row.attempt,
        "reason": row.reason,
        "http_status": row.status,
        "answer": row.body.decode("utf-8", "backslashreplace"),
    }
    return json_line(line)


async def _all(page: Callable[[int, int], Awaitable[list[VerdictRow]]]) -> AsyncIterator[VerdictRow]:
    after = 0
    while rows := await page(after, _ROWS):
        for row in rows:
            yield row
        after = rows[-1].chunk
