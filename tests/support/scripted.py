"""Small runs on virtual time against a server that is one function, to be looked at and doctored afterwards."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from bulkjobs.client import Client
from bulkjobs.model import Evidence, Request, RequestKind, RunSummary
from bulkjobs.settings import Secret, Settings
from bulkjobs.testing import FakeTransport, VirtualClock, answered, lost, run_virtual
from support.simulated import BASE_URL, LOGIN_URL, TOKEN

__all__ = ["SETTINGS", "Answers", "accept_all", "by_ids", "doctor", "run_with"]

SETTINGS: Final = Settings(
    forecast=False,
    base_url=BASE_URL,
    login_url=LOGIN_URL,
    access_token=Secret(TOKEN),
    rate=None,
    pace=None,
    max_active_jobs=None,
    chunk_size=4,
    workers=1,
    on_unknown="hold",
)

Answers = Callable[[list[int]], Evidence | None]
"""Gives the answer to a submission of these ids; None makes a job of it."""

REFUSAL: Final = b'{"errorNumber": "400-108", "message": "Illegal values for the field contactId."}'


def accept_all(_ids: list[int]) -> Evidence | None:
    """Makes a job of everything."""
    return None


def by_ids(ids: list[int]) -> Evidence | None:
    """Refuses what holds 66, loses the answer to what holds 77, and takes 99 only alone."""
    if 66 in ids:
        return answered(400, REFUSAL)
    if 77 in ids:
        return lost()
    return answered(413) if 99 in ids and len(ids) > 1 else None


def run_with(
    run_dir: Path,
    *sources: Any,
    answers: Answers = accept_all,
    leaving: Callable[[list[int]], Any] | None = None,
    clock: VirtualClock | None = None,
    sink: Any = None,
    **changed: Any,
) -> RunSummary:
    """Runs sources against a server that answers as `answers` says; `leaving` is awaited before each answer."""
    made = len(list(run_dir.parent.glob("server-*")))
    (run_dir.parent / f"server-{made}").touch()  # a job id is never given twice
    clock = clock or VirtualClock()
    count = 0

    async def serve(request: Request) -> Evidence:
        nonlocal count
        if (
            request.kind is RequestKind.LIST
        ):  # whether the server answers, after a session with unknown outcomes
            return answered(200, b'{"bulkJobs": []}')
        assert request.kind is RequestKind.SUBMIT
        ids = [int(one) for one in request.body.split(b"\n")]
        if leaving is not None:
            await leaving(ids)
        count += 1
        job = json.dumps({"jobId": f"job-{made}-{count}", "status": "accepted", "type": "contacts"})
        return answers(ids) or answered(200, job.encode())

    async def main() -> RunSummary:
        transport = FakeTransport(serve, clock=clock)
        async with Client(
            replace(SETTINGS, **changed), run=run_dir, transport=transport, clock=clock
        ) as client:
            return await client.run(*sources, sink=sink)

    return run_virtual(main())


def doctor(run_dir: Path, *statements: str) -> None:
    """Changes a ledger behind the back of its rules."""
    with closing(sqlite3.connect(run_dir / "ledger.db", isolation_level=None)) as database:
        database.execute("PRAGMA ignore_check_constraints = ON")
        for statement in statements:
            database.execute(statement)
